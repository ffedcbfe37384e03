"""`python -m hotplumb` is `hotplumb`."""

import sys

from hotplumb.cli import main

if __name__ == "__main__":
    sys.exit(main())
