"""The command `keycache`.

1. Everything but `serve` talks to the node over gRPC; no command opens the node's database.
2. What is printed for people is made from the same document that `--json` prints, so the two cannot disagree.
3. Exit codes: 0 done, 1 refused or not found, 2 misuse, 3 the node cannot be reached, 130 interrupted. Never a traceback.
4. Text from mails and keys is hostile: it reaches the terminal only through `plain`.
5. Imports of weight stand inside functions: `keycache --help` and completion answer at once.
"""

from __future__ import annotations


def main() -> int:
    """Run the command line of this process. Returns its exit code."""
    from keycache.cli.program import run

    return run()
