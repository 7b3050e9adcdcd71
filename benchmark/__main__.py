"""``python -m avbench``."""

import sys

from avbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
