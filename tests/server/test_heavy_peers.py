"""P4: who said much in one read is served after all others, and then a little at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from kit import busconfig, call, signal
from kit.message import Received, total_length

from afdbus.config.load import load
from afdbus.host.journal import Journal
from afdbus.server import task
from afdbus.server.busserver import BusServer
from afdbus.server.intake import HEAVY_READ
from afdbus.server.loop import Loop


class Served:
    """A bus whose loop is turned by hand."""

    def __init__(self, file: Path) -> None:
        file.write_text(busconfig(listen="unix:tmpdir=/tmp"))
        journal = Journal()
        self.loop = Loop(journal)
        self.clients: list[socket.socket] = []
        self.server = BusServer(
            self.loop, load(str(file)), lambda: load(str(file)), [], guid="1" * 32, own_uid=0,
            journal=journal, keyring=None,
        )  # fmt: skip
        # Turns end by the number of messages here, never by time.
        self.server.bus.clock = lambda: 0.0

    def connect(self) -> socket.socket:
        ours, client = socket.socketpair()
        listener = SimpleNamespace(guid="2" * 32, nonce=None)
        self.server._admit(ours, listener)  # type: ignore[arg-type]
        client.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n" + call("Hello").pack(1))
        client.setblocking(False)
        self.settle()
        client.recv(65536)
        self.clients.append(client)
        return client

    def one_pass(self) -> None:
        self.loop.spin(0.0, 1)

    def settle(self) -> None:
        self.loop.settle()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.settle()
        self.server.close()
        self.settle()
        self.loop.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    bus = Served(tmp_path / "bus.conf")
    yield bus
    bus.close()


def members(data: bytes) -> list[str | None]:
    found = []
    while data:
        size = total_length(data[:16])
        found.append(Received(data[:size]).member)
        data = data[size:]
    return found


def lot(count: int, size: int, *, same: bool = True) -> bytes:
    """So many signals of about so many bytes, more than are read of a heavy peer at a time."""
    data = b"".join(
        signal("Lot" if same else f"Lot{n}", "s", "x" * (size - 120), destination=":1.0").pack(2)
        for n in range(count)
    )
    assert HEAVY_READ < len(data) < 65536
    return data


MANY_SMALL = lot(250, 200)
FEW_LARGE = lot(40, 1000)
NEW_HEADERS = lot(150, 200, same=False)


@pytest.mark.parametrize("said", [MANY_SMALL, NEW_HEADERS], ids=["many", "new headers"])
def test_p4_who_said_many_things_comes_after_all_others(served: Served, said: bytes) -> None:
    receiver, talker, pinger = served.connect(), served.connect(), served.connect()
    talker.sendall(said)
    served.settle()
    receiver.recv(1 << 20)
    talker.sendall(said)
    pinger.sendall(signal("Ping", destination=":1.0").pack(2))
    served.one_pass()
    heard = members(receiver.recv(1 << 20))
    assert heard[0] == "Ping"
    assert 1 < len(heard) < 110, "and then one turn of the other"


def test_p4_who_said_few_things_is_no_heavy_peer(served: Served) -> None:
    """All is read in one go and in the order in which it came, for the sake of throughput."""
    receiver, talker, pinger = served.connect(), served.connect(), served.connect()
    talker.sendall(FEW_LARGE)
    served.settle()
    receiver.recv(1 << 20)
    talker.sendall(FEW_LARGE)
    pinger.sendall(signal("Ping", destination=":1.0").pack(2))
    served.one_pass()
    assert members(receiver.recv(1 << 20)) == ["Lot"] * 40 + ["Ping"]


def test_p4_who_goes_on_saying_many_things_stays_heavy(served: Served) -> None:
    """Else every large read of a flood would be followed by one that all others wait for."""
    receiver, talker, pinger = served.connect(), served.connect(), served.connect()
    talker.sendall(MANY_SMALL)
    served.settle()
    receiver.recv(1 << 20)
    for _ in range(3):
        talker.sendall(signal("Lot", destination=":1.0").pack(2) * 40)
        pinger.sendall(signal("Ping", destination=":1.0").pack(2))
        served.settle()
        assert members(receiver.recv(1 << 20)) == ["Ping"] + ["Lot"] * 40


def test_p4_who_said_many_things_is_light_again(served: Served) -> None:
    receiver, talker, pinger = served.connect(), served.connect(), served.connect()
    talker.sendall(MANY_SMALL)
    served.settle()
    for _ in range(2):  # the first of them is what a heavy peer has left to say
        receiver.recv(1 << 20)
        talker.sendall(signal("Little", destination=":1.0").pack(2))
        pinger.sendall(signal("Ping", destination=":1.0").pack(2))
        served.settle()
    assert members(receiver.recv(1 << 20)) == ["Little", "Ping"]


def test_p23_nobody_stays_hungry_when_a_task_lets_the_loop_settle(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole messages wait in the bus then, of which no descriptor tells the loop that sleeps."""
    clients = [served.connect() for _ in range(20)]
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    monkeypatch.setattr("afdbus.server.loop.SETTLING", 10)
    said = b"".join(call(f"Nope{n}").pack(n + 10) for n in range(400))
    heard = dict.fromkeys(clients, 0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run, served.loop)
            await trio.testing.wait_all_tasks_blocked()
            for client in clients:
                client.sendall(said)
            served.loop.settle()
            with trio.fail_after(60):
                for client in clients:
                    while heard[client] < 400:
                        await trio.lowlevel.wait_readable(client)
                        heard[client] += client.recv(1 << 20).count(b"UnknownMethod")
            served.loop.stop()

    trio.run(main)
    assert set(heard.values()) == {400}
