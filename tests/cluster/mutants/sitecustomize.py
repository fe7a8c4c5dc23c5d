"""Found by Python at the start of a node that a test put this folder on PYTHONPATH of. Nothing of it is in the product.

KEYCACHE_TEST_MUTANT: a function of `mutants`, which takes one guard out. KEYCACHE_TEST_STALL: a folder; a transaction that removes
entries waits there until a test says so (`mutants.stall`), so that a race is had every time and not by luck.
"""

import os
import sys

if sys.argv[0].endswith("keycache"):  # not its parser workers
    import mutants

    if "KEYCACHE_TEST_STALL" in os.environ:
        mutants.stall(os.environ["KEYCACHE_TEST_STALL"])
    if "KEYCACHE_TEST_MUTANT" in os.environ:
        getattr(mutants, os.environ["KEYCACHE_TEST_MUTANT"])()
