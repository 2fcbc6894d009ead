"""What a test has left on its bus: connections, with their names, and services that do not end."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from afdbus.errors import BusClosedError

if TYPE_CHECKING:
    from afdbus import BusStatistics, ConnectionInfo, ThreadBus

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


def end_services(pids: Iterable[int], grace: float) -> list[str]:
    """End the services of a bus that is closed, and reap them.  Tells whom it had to kill.

    They have seen the bus go, and get SIGTERM; after `grace` seconds SIGKILL.
    """
    running: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            running[os.pidfd_open(pid)] = pid
    killed = []
    try:
        _signal(running, signal.SIGTERM)
        _reap(running, grace)
        killed = [f"process {pid}, a service that ignored SIGTERM" for pid in running.values()]
        _signal(running, signal.SIGKILL)
        _reap(running, grace)
    finally:
        for fd in running:
            os.close(fd)
    return killed


def _signal(running: dict[int, int], number: signal.Signals) -> None:
    for pid in running.values():
        # Each is the leader of a session and group; its number is its own until it is reaped.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _reap(running: dict[int, int], seconds: float) -> None:
    """Wait for the ends of processes, and take those out that have ended."""
    poll = select.poll()
    for fd in running:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while running:
        left = deadline - time.monotonic()
        for fd, _ in poll.poll(max(0.0, left) * 1000):
            poll.unregister(fd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(running.pop(fd), 0)
            os.close(fd)
        if left <= 0:
            return
