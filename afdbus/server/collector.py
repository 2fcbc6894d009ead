"""Keeps the garbage collector out of the way of messages (P25).

A full collection over 5,000 peers with 50 plans each stops the bus for 116 ms.  So full ones do not
happen by themselves: what is there at the start is never looked at again, and the rest when there
is nothing else to do.  Little depends on it, since a farewell leaves no cycles behind.
"""

from __future__ import annotations

import gc
import time

# Seconds between two full collections, at least.
PAUSE = 10.0
# Young collections after which a full one is worth it: Python's own default.
WORTH = 10

_NEVER = 2**31 - 1


class Collector:
    """Work for the idle moments of a loop."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        """Take over: from now on full collections happen only by calling this.

        There is no collection now, which would take 10 ms of the start for next to nothing.
        """
        gc.freeze()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)
        self._next = 0.0

    def wanted(self) -> bool:
        return gc.get_count()[2] >= WORTH and time.monotonic() >= self._next

    def __call__(self) -> None:
        if self.wanted():
            gc.collect()
            self._next = time.monotonic() + PAUSE
