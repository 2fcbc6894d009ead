"""The fixtures of `kit.hosted`."""

from __future__ import annotations

from kit.hosted import connect, host, strict

__all__ = ["connect", "host", "strict"]
