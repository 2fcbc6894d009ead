"""What a connection tells its loop it waits for."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit import busconfig, call, signal

from afdbus.config.load import load
from afdbus.host.journal import Journal
from afdbus.server.busserver import BusServer
from afdbus.server.loop import Loop
from afdbus.wire.framing import READ

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


def greeted(served: Served) -> None:
    """The handshake and Hello."""
    words = b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
    served.client.send(words + call("Hello").pack(1))
    assert b":1.0" in served.answers()


GET_ID = call("GetId").pack(3)
ID = b"1" * 32


def test_last_words_before_the_end_are_heard_and_so_is_the_end(served: Served) -> None:
    greeted(served)
    served.client.send(GET_ID)
    served.client.shutdown(socket.SHUT_WR)
    came = b""
    for _ in range(PASSES):
        served.turn()
        try:
            data = served.client.recv(1 << 20)
        except BlockingIOError:
            continue
        if not data:
            break
        came += data
    else:
        raise AssertionError("it is never closed")
    assert came.count(ID) == 1


def test_what_follows_descriptors_is_read_without_further_news(served: Served) -> None:
    """A read ends behind them, and more is in the socket already."""
    greeted(served)
    passing = signal("Passing", "h", 0, destination=":1.99", fds=[0]).pack(2)
    reader, writer = os.pipe()
    for said in ([passing, GET_ID], [GET_ID, passing, GET_ID], [passing, passing, GET_ID, GET_ID]):
        for message in said:
            if message is passing:
                socket.send_fds(served.client, [message], [reader])
            else:
                served.client.send(message)
        assert served.answers().count(ID) == said.count(GET_ID)
    os.close(reader)
    os.close(writer)


def test_what_follows_an_urgent_byte_is_read_without_further_news(served: Served) -> None:
    """No client sends one; but a read ends before it as if there were nothing more."""
    greeted(served)
    served.client.send(GET_ID)
    served.client.send(b"!", socket.MSG_OOB)
    served.client.send(GET_ID)
    assert served.answers().count(ID) == 2


def test_what_follows_a_full_read_is_read_without_further_news(served: Served) -> None:
    greeted(served)
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    filler = signal("Filler", "ay", b"", destination=":1.99")
    size = READ - len(GET_ID) - len(filler.pack(2))
    said = signal("Filler", "ay", bytes(size), destination=":1.99").pack(2) + GET_ID
    assert len(said) == READ
    served.client.send(said + GET_ID)
    assert served.answers().count(ID) == 2


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_said_is_heard_without_further_news(served: Served, seed: int) -> None:
    """In pieces, with descriptors, more than one read takes, long and large messages, with answers
    that are not read for a while: at the end all that was whole is answered."""
    greeted(served)
    chance = random.Random(seed)
    reader, writer = os.pipe()
    passing = signal("Passing", "h", 0, destination=":1.99", fds=[0]).pack(2)
    others = [
        signal("Said", "s", "x" * size, destination=":1.99").pack(2)
        for size in (0, 1000, 40_000, 65_400, 70_000, 150_000)
    ]
    served.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    came = b""

    def say(data: bytes, fds: list[int]) -> None:
        nonlocal came
        while data:
            try:
                sent = socket.send_fds(served.client, [data], fds)
            except BlockingIOError:
                if not served.turn():
                    came += served.answers()
                continue
            data, fds = data[sent:], []

    for _ in range(30):
        asked = 0
        came = b""
        for _ in range(chance.choice([1, 2, 5, 300])):
            message = chance.choice([passing, *others]) if chance.random() < 0.2 else GET_ID
            asked += message is GET_ID
            cut = chance.randrange(len(message)) if chance.random() < 0.2 else 0
            fds = [reader] if message is passing else []
            if cut:
                say(message[:cut], fds)
                fds = []
            if chance.random() < 0.1:
                served.turn()
            say(message[cut:], fds)
            if chance.random() < 0.1:
                served.turn()
        came += served.answers()
        assert came.count(ID) == asked
    os.close(reader)
    os.close(writer)
