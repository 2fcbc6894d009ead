"""What a connection tells its loop it waits for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit import busconfig, call

from afdbus.config.load import load
from afdbus.host.journal import Journal
from afdbus.server.busserver import BusServer
from afdbus.server.loop import Loop

PASSES = 1000


class Served:
    """A bus whose loop is turned by hand, and the other end of its only connection."""

    def __init__(self, folder: Path) -> None:
        file = folder / "bus.conf"
        file.write_text(busconfig(listen="unix:tmpdir=/tmp"))
        journal = Journal()
        self.loop = Loop(journal)
        self.server = BusServer(
            self.loop, load(str(file)), lambda: load(str(file)), [], guid="1" * 32, own_uid=0,
            journal=journal, keyring=None,
        )  # fmt: skip
        ours, self.client = socket.socketpair()
        # as small as the kernel lets it be
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        ours.setblocking(False)
        listener = SimpleNamespace(guid="2" * 32, nonce=None)
        self.server._admit(ours, listener)  # type: ignore[arg-type]
        self.client.setblocking(False)

    def turn(self) -> bool:
        """One pass; whether there was anything to do."""
        return self.loop.spin(0.0, 1)

    def answers(self) -> bytes:
        """Everything that comes until the loop is idle."""
        came = b""
        for _ in range(PASSES):
            busy = self.turn()
            try:
                came += self.client.recv(1 << 20)
            except BlockingIOError:
                if not busy:
                    return came
        raise AssertionError("the loop is never idle")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.server.close()
    served.client.close()
    served.loop.close()


def test_answers_of_the_handshake_that_wait_do_not_make_the_bus_deaf(served: Served) -> None:
    """The handshake ends while its answers do not fit into the socket."""
    hello = call("Hello").pack(1)
    begin = b"\0AUTH EXTERNAL 30\r\n" + b"X\r\n" * 500 + b"BEGIN\r\n" + hello
    served.client.send(begin)
    came = served.answers()
    assert came.startswith(b"OK ")
    assert came.count(b"ERROR") == 500
    assert b":1.0" in came
    served.client.send(call("GetId").pack(2))
    assert b"1" * 32 in served.answers()
