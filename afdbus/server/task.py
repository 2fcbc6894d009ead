"""The loop as one of trio's tasks.

A trio wake-up costs 7 us hot and 50 us cold; asked once a batch it vanishes.  So trio waits for the
loop's epoll set as a whole, and only when there is nothing to do.  Under load the other tasks get
their turn every 5 ms (P10); a loop that is shared never waits in epoll itself (P23).  In a daemon
there are no other tasks: there it *lingers* in epoll before it goes back to trio, which halves the
cost of a quiet conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from afdbus.server.loop import LINGER

if TYPE_CHECKING:
    from afdbus.server.loop import Loop

# Seconds of work after which other tasks get their turn, and where there are none but trio's own.
YIELD = 0.005
ALONE = 0.2


def serve(loop: Loop) -> None:
    """Serve until `loop.stop`, as the only task of a daemon."""
    trio.run(run, loop, LINGER, ALONE, restrict_keyboard_interrupt_to_checkpoints=True)


async def run(loop: Loop, linger: float = 0.0, pause: float = YIELD) -> None:
    """Serve until `loop.stop`.

    `linger`: for so many seconds it waits in epoll itself, and all other tasks with it.  `pause`:
    after so many seconds of work it lets them run.
    """
    while not loop.stopping:
        if not loop.spin(linger, loop.now + pause):
            loop.on_idle()
            await _sleep(loop)
        elif not loop.stopping:
            await trio.lowlevel.checkpoint()
        loop.now = loop.timers.clock()
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
