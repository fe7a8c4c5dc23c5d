"""`python -m keycache` is the command `keycache`."""

import sys

from keycache.cli import main

if __name__ == "__main__":
    sys.exit(main())
