"""`python -m backstay` and the `backstay` command."""

from __future__ import annotations

import os
import sys

from backstay.cli.main import run


def main() -> None:
    """Run the command line of this process and leave with its status."""
    sys.exit(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
