"""The n-th system call on a socket fails: that costs one connection at most, and nothing stays.

Every call on the way of a conversation fails once with every error, as the reference's own tests
let the n-th allocation fail.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack import Victim
from faulty_daemon import CALLS, FAULT
from kit import ClosedError, RawClient, call, peer_call, signal
from kit.daemon import DAEMONS

ERRORS = ["EMFILE", "ENOBUFS", "ECONNRESET", "ETOOMANYREFS", "EPIPE"]


class Faulty(Victim):
    """A daemon that can be told which call is to fail."""

    def environment(self) -> dict[str, str]:
        file = self.directory / "faults"
        file.write_bytes(FAULT.pack(0, 0, 0))
        with file.open("r+b") as opened:
            self.faults = mmap.mmap(opened.fileno(), FAULT.size)
        return {**super().environment(), "FAULTS": str(file)}

    def fail(self, name: str, error: int, countdown: int) -> None:
        FAULT.pack_into(self.faults, 0, CALLS.index(name), error, countdown)

    def has_failed(self) -> bool:
        return bool(FAULT.unpack_from(self.faults)[2] == 0)


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faulty]:
    program = [sys.executable, str(Path(__file__).with_name("faulty_daemon.py"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DAEMONS, "faulty", program)
        daemon = Faulty("faulty")
    daemon.watch()
    yield daemon
    daemon.stop()
    daemon.faults.close()


class Talk:
    """A conversation of three that goes on when one of them is gone."""

    def __init__(self, daemon: Faulty) -> None:
        self.clients: list[RawClient] = []
        self.gone = 0
        for _ in range(3):
            try:
                self.clients.append(daemon.connect())
            except ClosedError:
                self.gone += 1

    def everybody_says(self, *messages: object) -> None:
        """And reads what has come for it up to now."""
        for client in list(self.clients):
            try:
                for message in messages:
                    client.send(message)  # type: ignore[arg-type]
                for received in client.sync():
                    for fd in received.fds:
                        os.close(fd)
            except ClosedError:
                self.clients.remove(client)
                self.gone += 1

    def run(self) -> None:
        names = [client.name for client in self.clients]
        fd = os.memfd_create("kit")
        self.everybody_says(call("AddMatch", "s", "type='signal'"))
        for name in names:
            self.everybody_says(peer_call(name, flags=1), signal("S", "s", "x"))
            self.everybody_says(peer_call(name, "Fd", "h", 0, flags=1, fds=[fd]))
        for fds in ([], [fd]):
            self.everybody_says(
                peer_call(names[0], "Large", "ay", bytes(300_000), flags=1, fds=fds)
            )
        self.everybody_says()
        os.close(fd)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", CALLS)
def test_the_nth_call_fails(faulty: Faulty, name: str, error: str) -> None:
    # who cannot be accepted for want of descriptors is let in a second later: not too often
    most = 2 if name == "accept" else 40
    countdown = 0
    failed = True
    while failed and countdown < most:
        countdown += 1 if countdown < 10 else 5
        faulty.fail(name, getattr(errno, error), countdown)
        talk = Talk(faulty)
        talk.run()
        failed = faulty.has_failed()
        faulty.fail(name, 0, 0)
        assert talk.gone <= failed, f"the {countdown}th"
        faulty.settle()
    assert countdown > 1, "the conversation does not come by there"
