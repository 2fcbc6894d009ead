"""The statements S1 to S39 about a bus: each test names the one that it shows.

Documented in docs/buses.md.
"""

from __future__ import annotations

from kit.hosted import connect, host, strict
from kit.process import run

__all__ = ["connect", "host", "run", "strict"]
