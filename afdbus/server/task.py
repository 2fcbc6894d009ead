"""The loop as one of trio's tasks, for a bus inside a trio program.

A trio wake-up costs 7 us hot and 50 us cold; asked once a batch it vanishes.  So trio waits for the
loop's epoll set as a whole, and only when there is nothing to do.  Under load the other tasks get
their turn every 5 ms (P10); a loop that is shared never waits in epoll itself (P23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from afdbus.server.loop import Loop

# Seconds.
YIELD = 0.005


async def run(loop: Loop) -> None:
    """Serve until `loop.stop`."""
    yield_at = loop.now + YIELD
    while not loop.stopping:
        if not loop.step(0.0):
            loop.on_idle()
            await _sleep(loop)
        elif loop.now >= yield_at:
            await trio.lowlevel.checkpoint()
        else:
            continue
        loop.now = loop.timers.clock()
        yield_at = loop.now + YIELD
    loop.stopping = False


async def _sleep(loop: Loop) -> None:
    """Sleep in trio until a descriptor is ready, a timer is due or somebody wakes the loop."""
    if loop.stopping:  # a timer did it
        return
    delay = max(0.0, loop.timers.soonest - loop.timers.clock())
    with trio.move_on_after(delay) as sleep:
        loop.wake = sleep.cancel
        try:
            await trio.lowlevel.wait_readable(loop.fileno())
        finally:
            loop.wake = lambda: None
