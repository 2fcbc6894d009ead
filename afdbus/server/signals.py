"""The signals of the process as events of its loop.

What came is noted by Python's handler, which makes a pipe readable that is in the loop's epoll set.
The handler itself runs only when this thread wakes up; that is the matter of a wakeup descriptor,
ours or that of whoever drives the loop (P10).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType

from afdbus.server.loop import Loop


class Signals:
    """Calls `deed` in the loop with the number of each signal of `numbers` that comes.

    To be made in the main thread, once.
    """

    def __init__(self, loop: Loop, numbers: Iterable[int], deed: Callable[[int], None]) -> None:
        self._deed = deed
        self._came: list[int] = []
        self._loop = loop
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        loop.register(self._reader, self._look)
        for number in numbers:
            signal.signal(number, self._note)
        self.listen()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # between any two instructions of anybody, so that no more may be done here
        self._came.append(number)
        if self._writer >= 0:
            with contextlib.suppress(BlockingIOError):  # full: there is something to be read
                os.write(self._writer, b"\0")

    def _look(self, _event: int) -> None:
        os.read(self._reader, 512)
        came, self._came = self._came, []
        for number in came:
            # each a deed of its own, so that a bug in one does not cost the others
            self._loop.again(partial(self._deed, number))

    def unlisten(self) -> None:
        """Give the descriptor that wakes this thread free, for trio, which wants to find none."""
        signal.set_wakeup_fd(-1)

    def listen(self) -> None:
        """Be woken by our own descriptor, as the loop sleeps in its own epoll set."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def close(self) -> None:
        """Wake nobody any more.  The signals do no harm until the process ends."""
        signal.set_wakeup_fd(-1)
        self._loop.unregister(self._reader)
        writer, self._writer = self._writer, -1
        os.close(self._reader)
        os.close(writer)
