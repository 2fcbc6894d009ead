"""The policy tests' way of writing configurations serves these tests, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "policy"))
