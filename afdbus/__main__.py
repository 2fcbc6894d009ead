"""`python -m afdbus`: the same as `afdbus`."""

from __future__ import annotations

import sys

from afdbus.cli import main

if __name__ == "__main__":
    sys.exit(main())
