"""What clients once did to message buses by file descriptors, done again; see docs/security.md."""

from __future__ import annotations

import array
import os
import resource
import signal as signals
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from kit import BUS, ClosedError, Daemon, RawClient, call, peer_call
from kit.client import TIMEOUT

Start = Callable[..., Daemon]
Files = Callable[[int], list[int]]


@pytest.fixture
def files() -> Iterator[Files]:
    """So many descriptors, which are closed at the end."""
    opened: list[int] = []

    def make(count: int) -> list[int]:
        opened.extend(os.memfd_create("kit") for _ in range(count))
        return opened[-count:]

    yield make
    for fd in opened:
        os.close(fd)


def until_idle(daemon: Daemon, watcher: RawClient, idle: int) -> None:
    """Wait until the daemon has no more than so many descriptors open."""
    deadline = time.monotonic() + TIMEOUT
    while daemon.open_fds() > idle:
        watcher.sync()
        assert time.monotonic() < deadline, f"{daemon.open_fds()} descriptors and not {idle}"


def nest(into: socket.socket, fds: list[int]) -> None:
    into.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_cve_2014_3532_descriptors_nested_too_deep(start: Start, files: Files) -> None:
    """They are nested deeper when the bus has them already, so that it cannot send them on.

    How deep is too deep is the kernel's affair; newer ones do not mind.
    """
    daemon = start()
    alice, bob = daemon.connect(), daemon.connect()
    ours, theirs = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(8)]
    os.kill(daemon.pid, signals.SIGSTOP)
    try:
        alice.send(peer_call(bob.name, "Nested", "h", 0, flags=1, fds=[theirs.fileno()]))
        chain = files(1)
        for into, out in pairs:
            try:
                nest(into, [chain[-1]])
            except OSError:
                chain.pop()  # that is too deep to be sent at all
                break
            chain.append(out.fileno())
        nest(ours, [chain[-1]])
    finally:
        os.kill(daemon.pid, signals.SIGCONT)
    alice.sync()
    alice.send(peer_call(bob.name, "After", flags=1))
    last = bob.read_until(lambda m: m.member == "After", "the next message")[-1]
    assert last.sender == alice.name
    bob.alive()
    for one, other in [*pairs, (ours, theirs)]:
        one.close()
        other.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 16])
def test_cve_2014_3635_one_descriptor_more_than_asked(
    start: Start, files: Files, limit: int
) -> None:
    """An odd number of them leaves room for one more in what the kernel returns."""
    daemon = start(max_message_unix_fds=limit)
    watcher = daemon.connect()
    idle = daemon.open_fds()
    good, evil = daemon.connect(), daemon.connect()
    good.send(call("GetId", fds=files(limit)))
    assert good.read().brief[0] == "return"
    evil.send(call("GetId", fds=files(limit + 1)))
    assert evil.closed() == []
    good.alive()
    good.close()
    until_idle(daemon, watcher, idle)


def test_cve_2014_7824_many_clients_with_many_descriptors(start: Start) -> None:
    """As many as the daemon may have: it has made that as many as it can be."""
    daemon = start()
    daemon.connect().alive()
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    assert soft >= min(hard, 65536)


def test_cve_2014_3637_a_connection_that_contains_itself(start: Start) -> None:
    """Its end is in a message that is never whole, so it would stay open for ever."""
    daemon = start(pending_fd_timeout=200)
    watcher = daemon.connect()
    idle = daemon.open_fds()
    evil = daemon.connect()
    data = call("GetId").plus((9, "u", 1)).pack(1)
    evil.send_bytes(data[:20], [evil.sock.fileno()])
    evil.close()
    watcher.until_gone(evil.name)
    until_idle(daemon, watcher, idle)


def test_cve_2014_3637_trickling_does_not_prolong_it(start: Start, files: Files) -> None:
    daemon = start(pending_fd_timeout=200)
    watcher, evil = daemon.connect(), daemon.connect()
    data = call("GetId", "ay", bytes(60_000), fds=files(1)).pack(1)
    evil.send_bytes(data[:20], files(1))

    def trickle() -> None:
        for place in range(20, len(data)):
            evil.send_bytes(data[place : place + 1])
            watcher.sync()

    with pytest.raises(ClosedError):
        trickle()


def test_cve_2020_12049_more_than_allowed_again_and_again(start: Start, files: Files) -> None:
    daemon = start()
    watcher = daemon.connect()
    idle = daemon.open_fds()
    for announced in (17, 16, 1, 0):
        for count in (17, 64, 253):
            evil = daemon.connect()
            message = call("GetId")
            if announced:
                message.plus((9, "u", announced))
            evil.send_bytes(message.pack(1), files(count))
            assert [m.brief[0] for m in evil.closed()] in ([], ["return"])
            evil.close()
    until_idle(daemon, watcher, idle)
    assert watcher.bus("NameHasOwner", "s", BUS).args == (True,)
