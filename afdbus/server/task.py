"""The loop as one of trio's tasks.

A trio wake-up costs 7 us hot and 50 us cold; asked once a batch it vanishes.  So trio waits for the
loop's epoll set as a whole, and only when there is nothing to do.  Under load the other tasks get
their turn every 5 ms (P10); a loop that is shared never waits in epoll itself (P23).

In a daemon there are no other tasks.  There the loop sleeps in its own epoll set, which halves the
cost of a quiet conversation, and trio sees it now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from afdbus.server.loop import Loop

# Seconds of work after which other tasks get their turn.  One pass may take as long, so that the
# clock is looked at after each.
YIELD = 0.005


def serve(loop: Loop, begin: Callable[[], None]) -> None:
    """Serve until `loop.stop`, as the only task of a daemon; `begin` is called first, in trio."""
    trio.run(_alone, loop, begin, restrict_keyboard_interrupt_to_checkpoints=True)


async def _alone(loop: Loop, begin: Callable[[], None]) -> None:
    begin()
    while not loop.stopping:
        loop.serve_a_while()
        await trio.lowlevel.checkpoint()
    loop.stopping = False


async def run(loop: Loop) -> None:
    """Serve until `loop.stop`, as one task of many."""
    clock = loop.timers.clock
    until = clock() + YIELD
    while not loop.stopping:
        if not loop.spin(0.0, 1):
            await _sleep(loop)
        elif clock() < until:
            continue
        elif not loop.stopping:
            await trio.lowlevel.checkpoint()
        until = clock() + YIELD
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
