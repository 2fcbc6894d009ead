"""What waits for one peer: order, partial writes, charges, descriptors, the end (P7, P29, P30)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from busworld import PLENTY, FakeConnection, World, configuration, unframed
from kit import call, peer_call, signal
from kit.message import Received
from traffic import with_fds

from afdbus.bus.outbox import PIECE_COST, FdPiece
from afdbus.server import flush as flushing
from afdbus.wire.fds import Fds


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(configuration(tmp_path, max_incoming_bytes=20000, max_outgoing_bytes=10**9))


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """A place for descriptors of a test; what it has left open is closed."""
    numbers: list[int] = []
    before = set(os.listdir("/proc/self/fd"))
    yield numbers
    left = {int(n) for n in set(os.listdir("/proc/self/fd")) - before}
    for number in numbers:
        if number in left:
            os.close(number)
            left.discard(number)
    assert set(os.listdir("/proc/self/fd")) <= before


def name_of(connection: FakeConnection) -> str:
    assert connection.peer is not None
    return connection.peer.name


def to(receiver: FakeConnection, size: int, serial: int) -> bytes:
    return signal("M", "uay", serial, b"x" * size, destination=name_of(receiver)).pack(serial)


@pytest.mark.parametrize("seed", range(10))
def test_p7_whatever_the_socket_takes_all_arrives_in_order(world: World, seed: int) -> None:
    random = Random(seed)
    sender, receiver = world.connect(), world.connect()
    receiver.written.clear()
    receiver.room = 0
    serial = 0
    for _ in range(60):
        batch = []
        for _ in range(random.randrange(30)):
            serial += 1
            batch.append(to(receiver, random.choice([0, 10, 1000, 40000]), serial))
        world.say(sender, *batch)
        world.flush()
        world.widen(receiver, random.choice([0, 1, 500, 100_000, 3_000_000]))
    world.widen(receiver, PLENTY)
    assert receiver.peer is not None
    box = receiver.peer.outbox
    assert not box.blocked
    assert not box.backlog
    assert box.size == box.offset == 0
    came = [Received(message) for message in unframed(bytes(receiver.written))]
    assert [message.args[0] for message in came] == list(range(1, serial + 1))
    assert sender.peer is not None
    assert sender.peer.charged == 0


def test_p7_what_is_joined_is_bounded_and_never_the_backlog(world: World) -> None:
    """A reader that takes 4 KiB at a time from a large backlog costs no copies of it."""
    sender, receiver = world.connect(), world.connect()
    offered = 0

    class Slow(FakeConnection):
        def send(self, data: bytes | memoryview) -> int:
            nonlocal offered
            if isinstance(data, bytes):
                offered += len(data)
            return super().send(data)

        def sendmsg(self, vector, ancillary=()):  # type: ignore[no-untyped-def]
            assert len(vector) <= flushing.VECTOR
            assert sum(map(len, vector[:-1])) < flushing.JOIN
            count = min(self.room, sum(map(len, vector)))
            if not count:
                raise BlockingIOError
            self.room -= count
            return count

    receiver.__class__ = Slow
    receiver.room = 0
    for serial in range(1, 200):
        world.say(sender, *[to(receiver, 1000, serial)] * 10)
        world.flush()
    assert receiver.peer is not None
    total = receiver.peer.outbox.size
    assert total > 2_000_000
    offered = 0
    while receiver.peer.outbox.backlog:
        world.widen(receiver, 4096)
    assert offered < 16 * flushing.SMALL, "only the end is small enough to be joined"


def test_p7_one_turn_writes_a_bounded_amount(world: World) -> None:
    sender, receiver = world.connect(), world.connect()
    receiver.room = 0
    for serial in range(1, 100):
        world.say(sender, to(receiver, 60000, serial))
        world.flush()
    receiver.room = PLENTY
    before = len(receiver.written)
    assert receiver.peer is not None
    flushing.drain(receiver.peer.outbox)
    assert flushing.TURN <= len(receiver.written) - before <= flushing.TURN + flushing.JOIN + 60100
    assert world.again == [receiver]


def test_p7_a_full_socket_is_not_tried_before_it_takes_more(world: World) -> None:
    """A thousand subscribers that do not read cost no failing write each for every signal."""
    sender, receiver = world.connect(), world.connect()
    tries = 0

    class Deaf(FakeConnection):
        def send(self, data: bytes | memoryview) -> int:
            nonlocal tries
            tries += 1
            return super().send(data)

    receiver.__class__ = Deaf
    receiver.room = 0
    for serial in range(1, 100):
        world.say(sender, to(receiver, 10, serial))
        world.flush()
    assert tries <= 2
    receiver.written.clear()
    world.widen(receiver, PLENTY)
    came = [Received(message) for message in unframed(bytes(receiver.written))]
    assert [message.args[0] for message in came] == list(range(1, 100))


def test_p30_who_sends_to_one_that_does_not_read_is_charged_for_it(world: World) -> None:
    sender, other, receiver = world.connect(), world.connect(), world.connect()
    assert sender.peer is not None
    assert other.peer is not None
    receiver.room = 0
    world.say(sender, to(receiver, 100, 1))
    world.flush()
    assert sender.peer.charged == 0, "nothing is counted before the first full socket"
    message = to(receiver, 100, 2)
    world.say(sender, message)
    world.say(other, message, message)
    stamp = len(unframed(receiver.waiting())[0])
    assert sender.peer.charged == stamp + PIECE_COST
    assert other.peer.charged == 2 * (stamp + PIECE_COST)
    world.flush()
    sender.peer.paused = True
    sender.peer.charged += 20001  # for others that do not read
    world.widen(receiver, 2 * stamp)
    assert sender.resumed == 0, "still too much"
    sender.peer.charged -= 20001
    sender.peer.paused = True
    world.say(sender, message)
    world.widen(receiver, PLENTY)
    assert sender.resumed == 1
    assert sender.peer.charged == other.peer.charged == 0


def test_p30_a_message_that_waits_is_one_piece_whichever_way_it_came(world: World) -> None:
    """Two would cost more than is charged for one."""
    sender, receiver = world.connect(), world.connect()
    world.say(sender, to(receiver, 100, 1))
    world.flush()
    receiver.room = 0
    for serial in range(2, 12):
        world.say(sender, to(receiver, 100, serial))
        world.flush()
    assert receiver.peer is not None
    backlog = list(receiver.peer.outbox.backlog or ())
    assert [type(piece) for piece in backlog] == [bytes] * 10


def test_p30_who_leaves_with_a_backlog_relieves_its_senders(world: World) -> None:
    sender, receiver = world.connect(), world.connect()
    assert sender.peer is not None
    receiver.room = 0
    for serial in range(1, 10):
        world.say(sender, to(receiver, 5000, serial))
        world.flush()
    assert sender.peer.charged > 20000
    sender.peer.paused = True
    world.leave(receiver)
    assert sender.peer.charged == 0
    assert sender.resumed == 1


def test_p30_a_reply_of_the_bus_is_charged_to_nobody(world: World) -> None:
    peer = world.connect()
    assert peer.peer is not None
    peer.room = 0
    for serial in range(2, 30):
        world.say(peer, call("GetId").pack(serial))
        world.flush()
    assert peer.peer.outbox.size > 0
    assert peer.peer.charged == 0


@pytest.mark.parametrize("sent_before", [0, 3])
def test_nothing_is_written_to_a_socket_that_has_failed(world: World, sent_before: int) -> None:
    """Its peer may live on, only sending; plans made before or since must not write to it."""
    sender, receiver = world.connect(), world.connect()
    world.say(receiver, call("AddMatch", "s", "").pack(5))
    name = name_of(receiver)

    def say_all(serial: int) -> None:
        world.say(
            sender,
            peer_call(name).pack(serial),
            signal("M", destination=name).pack(serial),
            signal("M").pack(serial),
            signal("M", "s", "x").pack(serial),
        )

    for serial in range(2, 2 + sent_before):
        say_all(serial)
    world.flush()
    written = len(receiver.written)
    receiver.broken = True
    for serial in range(50, 60):
        say_all(serial)
        world.say(receiver, call("GetId").pack(serial))
        world.flush()
    assert len(receiver.written) == written
    assert receiver.waiting() == b""
    assert receiver.peer is not None
    assert receiver.peer.alive
    assert receiver.peer.outbox.size == 0
    assert sender.peer is not None
    assert sender.peer.charged == 0


def make_fds(fds: list[int], count: int) -> list[int]:
    made = [os.memfd_create(f"fd{len(fds) + n}") for n in range(count)]
    fds.extend(made)
    return made


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_p29_descriptors_go_with_the_first_byte_of_their_message(
    world: World, fds: list[int]
) -> None:
    sender, receiver = world.connect(), world.connect()
    receiver.written.clear()
    receiver.room = 0
    numbers = make_fds(fds, 3)
    one, two = numbers[:1], numbers[1:]
    world.say(sender, signal("Before", destination=name_of(receiver)).pack(3))
    sender.fds = list(one)
    world.say(sender, with_fds(True, name_of(receiver), 1, 4))
    world.say(sender, signal("Between", destination=name_of(receiver)).pack(5))
    sender.fds = list(two)
    world.say(sender, with_fds(True, name_of(receiver), 2, 6))
    world.say(sender, signal("After", destination=name_of(receiver)).pack(7))
    world.flush()
    assert all(map(is_open, numbers))
    assert receiver.peer is not None
    while receiver.peer.outbox.blocked:
        world.widen(receiver, 7)
    came = unframed(bytes(receiver.written))
    starts = [sum(map(len, came[:index])) for index in range(len(came))]
    assert receiver.passed == [(starts[1], one), (starts[3], two)]
    assert not any(map(is_open, numbers)), "closed once they were sent"
    assert sender.peer is not None
    assert sender.peer.charged_fds == 0


def first_waiting(connection: FakeConnection) -> object:
    """The bytes of the first piece, which brings descriptors."""
    assert connection.peer is not None
    (piece,) = connection.peer.outbox.backlog or ()
    assert isinstance(piece, FdPiece)
    return piece.data


def test_p29_a_broadcast_shares_its_descriptors(world: World, fds: list[int]) -> None:
    sender = world.connect()
    receivers = [world.connect() for _ in range(3)]
    deaf = world.connect(can_fds=False)
    for peer in [*receivers, deaf]:
        world.say(peer, call("AddMatch", "s", "type='signal'").pack(5))
    world.flush()
    receivers[1].room = receivers[2].room = 0
    sender.fds = make_fds(fds, 2)
    numbers = list(sender.fds)
    written = len(deaf.written)
    world.say(sender, with_fds(True, None, 2, 9))
    world.flush()
    assert [connection.passed[0][1] for connection in receivers[:1]] == [numbers]
    assert len(deaf.written) == written
    assert all(map(is_open, numbers))
    assert len({id(first_waiting(connection)) for connection in receivers[1:]}) == 1
    world.widen(receivers[1], PLENTY)
    assert receivers[1].passed[0][1] == numbers
    assert all(map(is_open, numbers)), "one receiver is still to get them"
    world.leave(receivers[2])
    assert not any(map(is_open, numbers))


@pytest.mark.parametrize("how", ["nobody", "denied", "unknown"])
def test_p29_descriptors_of_what_nobody_gets_are_closed(
    world: World, fds: list[int], how: str
) -> None:
    sender, deaf = world.connect(), world.connect(can_fds=False)
    sender.fds = make_fds(fds, 1)
    numbers = list(sender.fds)
    where = {"nobody": None, "denied": name_of(deaf), "unknown": "a.b.c"}[how]
    world.say(sender, with_fds(True, where, 1, 5))
    world.flush()
    assert not any(map(is_open, numbers))


def test_p29_too_deeply_nested_descriptors_cost_the_message_alone(
    world: World, fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = world.connect(), world.connect()

    def refuse(*_: object) -> int:
        raise OSError(errno.ETOOMANYREFS, "too many references")

    sender.fds = make_fds(fds, 1)
    numbers = list(sender.fds)
    monkeypatch.setattr(flushing, "_send_fds", refuse)
    world.say(sender, with_fds(True, name_of(receiver), 1, 5))
    world.say(sender, signal("After", destination=name_of(receiver)).pack(6))
    world.flush()
    assert not any(map(is_open, numbers))
    assert Received(unframed(bytes(receiver.written))[-1]).member == "After"
    assert receiver.peer is not None
    assert receiver.peer.outbox.fds == receiver.peer.outbox.size == 0


def test_descriptors_are_closed_with_the_last_use(fds: list[int]) -> None:
    (number,) = make_fds(fds, 1)
    shared = Fds([number])
    shared.hold()
    shared.release()
    assert is_open(number)
    shared.release()
    assert not is_open(number)


def test_p15_nobody_is_charged_for_what_a_monitor_does_not_read(
    tmp_path: Path, fds: list[int]
) -> None:
    """A stopped monitor does not stop those whom it watches: what is too much is dropped."""
    world = World(configuration(tmp_path, max_outgoing_bytes=20000))
    monitor, sender, receiver = world.connect(), world.connect(), world.connect()
    become = call("BecomeMonitor", "asu", [], 0, interface="org.freedesktop.DBus.Monitoring")
    world.say(monitor, become.pack(2))
    world.flush()
    monitor.room = 0
    sender.fds = make_fds(fds, 1)
    world.say(sender, with_fds(True, name_of(receiver), 1, 9))
    world.flush()
    for serial in range(10, 60):
        world.say(sender, to(receiver, 1000, serial))
        world.flush()
    assert sender.peer is not None
    assert monitor.peer is not None
    assert sender.peer.charged == sender.peer.charged_fds == 0
    assert 20000 < monitor.peer.outbox.size < 22000
    assert world.bus.dropped > 20
    assert receiver.peer is not None
    assert not receiver.peer.outbox.blocked
    world.leave(monitor)
