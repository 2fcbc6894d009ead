"""S25 to S29: order and atomicity."""

from __future__ import annotations

import ast
import itertools
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from kit import BUS, SIGNAL, RawClient, busconfig, call, peer_call
from kit import signal as signal_of
from kit.hosted import Connect
from kit.message import total_length
from kit.process import Run

import afdbus
from afdbus import ThreadBus, ThreadHost

SENDERS = RECEIVERS = 4
LAST = 0xFFFFFFFF

# Who has sent it, and its number among all that he has sent.
Seen = tuple[int, int]


@pytest.fixture
def address(run: Run, tmp_path: Path) -> str:
    """A bus in a process of its own, so that clients here and the bus run side by side."""
    file = tmp_path / "bus.conf"
    file.write_text(busconfig(listen="unix:tmpdir=/tmp"))
    return run([f"--bus=={file}"], 1).lines[0]


class Receiver(threading.Thread):
    """Reads until every sender has said its last word; `seen` is everything in its order."""

    def __init__(self, client: RawClient) -> None:
        super().__init__()
        self.client = client
        self.seen: list[Seen] = []
        self.failure = ""

    def run(self) -> None:
        data = bytearray(self.client.data)
        left = SENDERS
        try:
            while left:
                more = self.client.sock.recv(1 << 18)
                if not more:
                    self.failure = "the bus closed the connection"
                    return
                data += more
                at = 0
                while len(data) - at >= 16:
                    length = total_length(data[at : at + 16])
                    if len(data) - at < length:
                        break
                    who, number = struct.unpack_from("<II", data, at + length - 8)
                    self.seen.append((who, number))
                    left -= number == LAST
                    at += length
                del data[:at]
        except OSError as error:
            self.failure = repr(error)


def stream(who: int, receivers: Sequence[RawClient], count: int) -> bytes:
    """`count` broadcasts, and after each tenth an addressed message to one of the receivers."""
    cast = signal_of("Changed", "uu", who, 0)
    to = [signal_of("Addressed", "uu", who, 0, destination=r.name) for r in receivers]
    pieces = []
    number = itertools.count()
    serial = itertools.count(10)

    def piece(message: object, value: int) -> bytes:
        message.body = struct.pack("<II", who, value)  # type: ignore[attr-defined]
        packed: bytes = message.pack(next(serial))  # type: ignore[attr-defined]
        return packed

    template = piece(cast, 0)
    head = template[:8], template[12:-4]
    for index in range(count):
        # as `piece(cast, ...)` would, and ten times as fast
        numbers = next(serial).to_bytes(4, "little"), next(number).to_bytes(4, "little")
        pieces += [head[0], numbers[0], head[1], numbers[1]]
        if index % 10 == 9:
            pieces.append(piece(to[index // 10 % len(to)], next(number)))
    pieces.append(piece(cast, LAST))
    return b"".join(pieces)


def converse(
    clients: Sequence[RawClient], receivers: Sequence[RawClient], count: int, slow: int,
    watchers: Sequence[RawClient] = (),
) -> list[Receiver]:
    """All senders send at once; the last `slow` receivers begin to read when that is done."""
    streams = [stream(who, receivers, count) for who in range(len(clients))]
    reading = [Receiver(client) for client in (*receivers, *watchers)]
    prompt = reading[: len(reading) - slow]
    start = threading.Barrier(len(clients))

    def send(client: RawClient, data: bytes) -> None:
        start.wait()
        client.sock.sendall(data)

    sending = [
        threading.Thread(target=send, args=pair) for pair in zip(clients, streams, strict=True)
    ]
    for thread in (*prompt, *sending):
        thread.start()
    for thread in sending:
        thread.join()
    for thread in reading[len(prompt) :]:
        thread.start()
    for receiver in reading:
        receiver.join()
        assert receiver.failure == ""
    return reading


def agree(one: list[Seen], other: list[Seen]) -> bool:
    """Whether both have seen what both have seen in the same order."""
    common = set(one) & set(other)
    return [m for m in one if m in common] == [m for m in other if m in common]


def check(reading: Sequence[Receiver], count: int) -> None:
    for receiver in reading:
        assert len(receiver.seen) == len(set(receiver.seen))
        for who in range(SENDERS):
            own = [number for sender, number in receiver.seen if sender == who]
            assert own == sorted(own), "a sender's messages are out of order (S26)"
            assert len(own) >= count + 1
    for one, other in itertools.combinations(reading, 2):
        assert agree(one.seen, other.seen)


def test_semantics_s25_all_receivers_see_one_order(address: str, connect: Connect) -> None:
    count = 10_000
    senders = [connect(address) for _ in range(SENDERS)]
    receivers = [connect(address) for _ in range(RECEIVERS)]
    for receiver in receivers:
        receiver.match("type='signal',interface='com.example.Interface'")
    reading = converse(senders, receivers, count, slow=2)
    check(reading, count)
    addressed = SENDERS * count // 10
    assert sum(len(receiver.seen) for receiver in reading) == (
        SENDERS * RECEIVERS * (count + 1) + addressed
    )


def test_semantics_s25_monitors_see_it_too(address: str, connect: Connect) -> None:
    """Copies of addressed messages are in the same order."""
    count = 500
    senders = [connect(address) for _ in range(SENDERS)]
    receivers = [connect(address) for _ in range(2)]
    watchers = [connect(address) for _ in range(2)]
    for receiver in receivers:
        receiver.match("type='signal',interface='com.example.Interface'")
    rules = ["type='signal',interface='com.example.Interface'"]
    for watcher in watchers:
        become = call("BecomeMonitor", "asu", rules, 0, interface=f"{BUS}.Monitoring")
        serial = watcher.send(become)
        watcher.read_until(lambda m, s=serial: m.reply_serial == s, "the answer")  # type: ignore[misc]
        assert watcher.read().member == "NameLost"
    reading = converse(senders, receivers, count, slow=1, watchers=watchers)
    check(reading, count)
    everything = SENDERS * (count + 1) + SENDERS * count // 10
    assert [len(watcher.seen) for watcher in reading[2:]] == [everything] * 2


@pytest.fixture
def bus(host: ThreadHost) -> ThreadBus:
    return host.create_bus()


def test_semantics_s26_a_sender_s_messages_stay_in_order(bus: ThreadBus, connect: Connect) -> None:
    alice, bob = connect(bus), connect(bus)
    bob.match("type='signal'")
    for number in range(50):
        alice.send(signal_of("Changed", "u", number))
        alice.send(call("RequestName", "su", f"com.example.N{number}", 0, flags=1))
        alice.send(peer_call(bob.name, "Method", "u", number, flags=1))
    alice.sync()
    told = bob.sync()
    assert [(m.member, m.args[0]) for m in told] == [
        entry
        for number in range(50)
        for entry in (
            ("Changed", number),
            ("NameOwnerChanged", f"com.example.N{number}"),
            ("Method", number),
        )
    ]


def test_semantics_s27_what_was_caused_comes_after_its_cause(
    bus: ThreadBus, connect: Connect
) -> None:
    """A tells B, then C, in one breath; B reacts at once to C, who sees A's word first."""
    alice, bob, carol = connect(bus), connect(bus), connect(bus)

    def react() -> None:
        for _ in range(200):
            cause = bob.receive_call()
            bob.send(peer_call(carol.name, "FromBob", "u", cause.args[0], flags=1))

    reacting = threading.Thread(target=react)
    reacting.start()
    for number in range(200):
        words = [peer_call(to.name, "FromAlice", "u", number, flags=1) for to in (bob, carol)]
        alice.send_bytes(words[0].pack(2 * number + 9) + words[1].pack(2 * number + 10))
    seen: set[int] = set()
    for _ in range(400):
        message = carol.receive_call()
        if message.member == "FromAlice":
            seen.add(message.args[0])
        else:
            assert message.args[0] in seen
    reacting.join()


def test_semantics_s28_a_broadcast_reaches_all_or_nobody(bus: ThreadBus, connect: Connect) -> None:
    """Whenever its sender ends: in the middle of a message, too."""
    receivers = [connect(bus) for _ in range(4)]
    for receiver in receivers:
        receiver.match("member='Changed'")
    for cut in range(1, 200, 37):
        with RawClient(bus.address) as sender:
            sender.join()
            data = b"".join(signal_of("Changed", "u", n).pack(n + 9) for n in range(100))
            sender.send_bytes(data[:-cut])
        whole = 100 - -(-cut // (len(data) // 100))
        bus.wait_until(lambda now: len(now.connections) == 4, timeout=60)
        for receiver in receivers:
            assert [m.args[0] for m in receiver.sync()] == list(range(whole))


def test_semantics_s28_nothing_waits_between_choosing_and_appending() -> None:
    """The bus is plain functions: no other task can run while a message is routed."""
    folder = Path(afdbus.__file__).parent / "bus"
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, waiting)], path


def test_semantics_s29_who_vanishes_disturbs_nobody(bus: ThreadBus, connect: Connect) -> None:
    sender = connect(bus)
    receivers = [connect(bus) for _ in range(3)]
    vanishing = [RawClient(bus.address) for _ in range(6)]
    for client in vanishing:
        client.join()
    for client in (*receivers, *vanishing):
        client.match("member='Changed'")
    data = b"".join(signal_of("Changed", "u", n).pack(n + 9) for n in range(300))
    third = len(data) // 3
    for part in range(3):
        sender.send_bytes(data[part * third : (part + 1) * third])
        for client in vanishing[part * 2 : part * 2 + 2]:
            client.close()  # with unread messages: a reset
    sender.sync()
    for receiver in receivers:
        assert [m.args[0] for m in receiver.sync() if m.type == SIGNAL] == list(range(300))
