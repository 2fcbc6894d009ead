"""Our daemon with windows in it, run as a program by the tests.

GetMachineId answers with 32 digits: how many passes the loop has made, how many bugs were met, how
many violations.  A call to one of `BUGS` meets a bug at that place.
"""

from __future__ import annotations

import select
import sys
from select import epoll
from typing import Any

from afdbus import daemon_cli
from afdbus.bus import activation, router
from afdbus.bus.bus import Bus
from afdbus.bus.message import Message
from afdbus.server.busserver import BusServer

BUGS = {
    "com.bug.Turn": ZeroDivisionError("a bug in a turn"),
    "com.bug.Struct": IndexError("a bug in a validator"),
    "com.bug.Memory": MemoryError("no memory left"),
    "com.bug.Deep": RecursionError("too deep"),
}

passes = 0
activate = activation.activate


class CountingPoller:
    """An epoll set that counts how often it had something to tell."""

    def __init__(self) -> None:
        self._epoll = epoll()

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        global passes  # noqa: PLW0603 - the one counter of this program
        events = self._epoll.poll(timeout, most)
        passes += bool(events)
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


def windows(self: BusServer) -> str:
    return f"{passes:016}{self.loop.bugs:08}{self.violations:08}"


def meet_bug(bus: Bus, message: Message, name: str) -> None:
    if name in BUGS:
        raise BUGS[name]
    activate(bus, message, name)


select.epoll = CountingPoller  # type: ignore[assignment, misc]
BusServer.machine_id = windows  # type: ignore[method-assign]
router.activation.activate = meet_bug

if __name__ == "__main__":
    sys.exit(daemon_cli.main())
