"""What a test has left on its bus: connections, with their names, and services that do not end."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import pytest

from afdbus.errors import BusClosedError

if TYPE_CHECKING:
    from afdbus import BusStatistics, ConnectionInfo, ThreadBus

# Seconds in which the kernel ends a process for certain.
KILLING = 10.0

LEAKS = ("warn", "fail", "ignore")


class LeftBehindWarning(pytest.PytestWarning):
    """A test has left connections or processes on its bus."""


def connections_left(bus: ThreadBus, grace: float) -> list[str]:
    """A line for each connection that is still open and is not of a service of the bus.

    Clients that are about to close, in another thread or process, have `grace` seconds for it.
    """

    def all_gone(now: BusStatistics) -> bool:
        return not now.incomplete and not _strangers(now)

    try:
        now = bus.statistics()
        if all_gone(now):
            return []
        if any(who.pid == os.getpid() for who in now.connections):
            gc.collect()  # what nobody holds any more is closed by that
        bus.wait_until(all_gone, timeout=grace)
    except BusClosedError:
        return []
    except TimeoutError:
        now = bus.statistics()
        left = [_told(who) for who in _strangers(now)]
        if now.incomplete:
            left.append(f"{now.incomplete} without a name, which have not said Hello")
        return left
    return []


def _strangers(now: BusStatistics) -> list[ConnectionInfo]:
    services = set(now.children)
    return [who for who in now.connections if _session_of(who.pid) not in services]


def _session_of(pid: int | None) -> int | None:
    """The session of a process; a service of a bus has one of its own."""
    if pid is None:
        return None
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _told(who: ConnectionInfo) -> str:
    if who.pid == os.getpid():
        whose = "this process"
    else:
        whose = "an unknown process" if who.pid is None else f"process {who.pid}"
        with contextlib.suppress(OSError), open(f"/proc/{who.pid}/comm") as file:
            whose += f" ({file.read().strip()})"
    names = f", which owns or waits for {', '.join(who.names)}" if who.names else ""
    return f"{who.name} of {whose}{names}"


def services_left(bus: ThreadBus, grace: float) -> list[str]:
    """Wait until the services of a closed bus, which have got SIGTERM, have ended.

    After `grace` seconds those that have not are killed; a line for each.
    """
    running: dict[int, int] = {}
    for pid in bus.statistics().children:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            running[os.pidfd_open(pid)] = pid
    killed = []
    try:
        _wait(running, grace)
        for pid in running.values():
            killed.append(f"process {pid}, a service that did not end by SIGTERM")
            # The leader of a session: its number is its own until the host reaps it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _wait(running, KILLING)
    finally:
        for fd in running:
            os.close(fd)
    bus.statistics()  # the host has reaped them now
    return killed


def _wait(running: dict[int, int], seconds: float) -> None:
    """Wait for the ends of processes, and take out those that have ended."""
    poll = select.poll()
    for fd in running:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while running:
        left = deadline - time.monotonic()
        for fd, _ in poll.poll(max(0.0, left) * 1000):
            poll.unregister(fd)
            del running[fd]
            os.close(fd)
        if left <= 0:
            return
