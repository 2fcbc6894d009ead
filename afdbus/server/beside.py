"""Imports a module while the loop serves: trio alone takes longer than the rest of a start."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable

from afdbus.server.loop import Loop

# Seconds after which the importing thread gives way: Python's own 5 ms would be the latency of
# each message meanwhile.
GIVE_WAY = 0.0005


def import_beside(loop: Loop, name: str, done: Callable[[], None], quiet: float = 0.0) -> None:
    """Import the module `name` in a thread, once the loop had nothing to do for `quiet` seconds;
    then `done` is called in the loop.

    If it cannot be imported that is told as a bug, and `done` is not called.
    """
    told = os.eventfd(0, os.EFD_CLOEXEC)
    interval = sys.getswitchinterval()

    def work() -> None:
        # The loop itself would have to sleep with a time-out, and wake up for it.
        before: object = None
        while loop.touched.news is not before:
            before = loop.touched.news
            time.sleep(quiet)
        sys.setswitchinterval(GIVE_WAY)
        # Out of descriptors, for example: `finish` meets it again, or does not.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
        os.eventfd_write(told, 1)

    def finish(_event: int) -> None:
        loop.unregister(told)
        os.close(told)
        sys.setswitchinterval(interval)
        importlib.import_module(name)
        done()

    loop.register(told, finish)
    # daemon: whoever ends the process now does not wait for it
    threading.Thread(target=work, name="import", daemon=True).start()
