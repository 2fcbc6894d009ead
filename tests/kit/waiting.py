"""Waiting for something of which nobody tells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds: far more than a machine needs that has other things to do."""


def until(fact: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Ask again and again; after too long a time fail and say `otherwise`."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline, otherwise()
        os.sched_yield()
