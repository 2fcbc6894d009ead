"""Deeds that other threads want done in the thread of a loop."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from afdbus.errors import BusClosedError
from afdbus.server.loop import Loop

T = TypeVar("T")


class _Answer(NamedTuple):
    value: Any = None
    error: BaseException | None = None


class Mailbox:
    """Any thread may call `do`; everything else is for the thread of `loop`, or before it runs."""

    __slots__ = ("_deeds", "_fd", "_lock", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._deeds: deque[tuple[Callable[[], Any], SimpleQueue[_Answer]]] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.register(self._fd, self._look)

    def do(self, deed: Callable[[], T]) -> T:
        """Do it in the loop's thread: its result, or what it raises.

        Raises BusClosedError if the loop ends before.
        """
        told: SimpleQueue[_Answer] = SimpleQueue()
        with self._lock:
            if self._fd < 0:
                raise BusClosedError("the host is closed")
            self._deeds.append((deed, told))
            os.eventfd_write(self._fd, 1)
        answer = told.get()
        if answer.error is not None:
            raise answer.error
        value: T = answer.value
        return value

    def _look(self, _event: int) -> None:
        os.eventfd_read(self._fd)
        # Not at once: a deed may serve the loop for a while, which events of this pass that are not
        # served yet would outlive (P6).
        self._loop.again(self._serve)

    def _serve(self) -> None:
        while self._deeds:
            _do(*self._deeds.popleft())

    def close(self) -> None:
        """Do nothing any more; whoever waits is told."""
        with self._lock:
            self._loop.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1
        while self._deeds:
            self._deeds.popleft()[1].put(_Answer(error=BusClosedError("the host is closed")))


def _do(deed: Callable[[], Any], told: SimpleQueue[_Answer]) -> None:
    try:
        answer = _Answer(deed())
    except BaseException as error:  # the asker's, whatever it is
        answer = _Answer(error=error)
    told.put(answer)
