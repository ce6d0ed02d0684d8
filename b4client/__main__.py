"""``python -m b4client`` is the same program as the ``b4client`` entry point."""

import sys

from b4client.cli import main

if __name__ == "__main__":
    sys.exit(main())
