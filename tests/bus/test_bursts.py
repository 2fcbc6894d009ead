"""Signals with one header that follow one another: everybody gets what he would get of each."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from busworld import PLENTY, FakeConnection, World, configuration, unframed
from kit import call, peer_call, signal

from afdbus.bus import road

RULE = "type='signal',interface='com.example.Interface'"
LIMITS = '<limit name="max_outgoing_bytes">20000</limit>'


def invalid(data: bytes) -> bytes:
    """The same message with an invalid body: its string lacks the NUL."""
    return data[:-1] + b"x"


class Burst:
    """What one client says in one go."""

    def __init__(self, random: Random, listener: str) -> None:
        self.random = random
        self.listener = listener
        self.serial = 10

    def message(self) -> bytes:
        self.serial += 1
        random = self.random
        kind = random.random()
        if kind < 0.85:
            text = random.choice(["", "abc", "x" * 500, "y" * random.randrange(5000)])
            return signal("Changed", "s", text).pack(self.serial)
        if kind < 0.9:
            return signal("Changed").pack(self.serial)
        if kind < 0.94:
            return signal(random.choice(["Other", "Another"]), "s", "abc").pack(self.serial)
        if kind < 0.97:
            return peer_call(self.listener, "Method", "s", "a call").pack(self.serial)
        return call("GetId").pack(self.serial)

    def __call__(self) -> list[bytes]:
        messages = [self.message() for _ in range(self.random.randrange(60))]
        if messages and self.random.random() < 0.02:
            wrong = signal("Changed", "s", "abc")
            messages[-1] = self.random.choice([wrong.pack(0), invalid(wrong.pack(5))])
        return messages


def rules(seed: int) -> list[list[str]]:
    """For each of six who listen: many, few or none have a rule for all signals, and some have one
    for those with a certain argument."""
    wanted: list[list[str]] = [[] for _ in range(6)]
    for listener in range(1, 1 + (5, 1, 2, 0, 3)[seed % 5]):
        wanted[listener].append(RULE)
    if seed % 3:
        wanted[5].append(f"{RULE},arg0='abc'")
    if seed % 3 == 2:
        wanted[1].append(f"{RULE},arg1='abc'")  # no rule about the first argument alone
    return wanted


@pytest.mark.parametrize("seed", range(15))
def test_bursts_and_single_signals_do_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also for receivers that are full, that overflow and that come to read again."""
    joined = 0
    burst = road.burst

    def count(*arguments: object) -> object:
        nonlocal joined
        found = burst(*arguments)  # type: ignore[arg-type]
        joined += len(found[0])
        return found

    monkeypatch.setattr(road, "burst", count)
    config = configuration(tmp_path, LIMITS)
    worlds = (World(config), World(config, plans=False))
    worlds[0].touched.news = [None] * (1 + seed % 2)
    for world in worlds:
        for wanted in rules(seed):
            listener = world.connect()
            for rule in wanted:
                world.say(listener, call("AddMatch", "s", rule).pack(2))
        world.flush()
    random = Random(seed)
    assert worlds[0].connections[0].peer is not None
    say = Burst(random, worlds[0].connections[0].peer.name)
    senders: list[int] = []
    for _ in range(60):
        if not senders or worlds[0].connections[senders[-1]].closed:
            for world in worlds:
                world.connect()
            senders.append(len(worlds[0].connections) - 1)
        messages = say()
        which, room = random.randrange(1, 6), random.choice([0, 1, 3000, PLENTY])
        for world in worlds:
            world.say(world.connections[senders[-1]], *messages)
            world.flush()
            world.connections[which].room = 0
            world.widen(world.connections[which], room)
        for one, other in zip(worlds[0].connections, worlds[1].connections, strict=True):
            assert one.closed == other.closed
            assert one.written == other.written
            assert one.waiting() == other.waiting()
            assert one.peer is not None
            assert other.peer is not None
            assert one.peer.charged == other.peer.charged
            assert one.peer.dropped == other.peer.dropped
        assert worlds[0].bus.dropped == worlds[1].bus.dropped
    judged_one_by_one = any("arg1" in rule for wanted in rules(seed) for rule in wanted)
    assert judged_one_by_one or joined > 500
    assert worlds[0].bus.dropped or not any(rules(seed))


def test_a_burst_is_no_longer_than_a_turn(tmp_path: Path) -> None:
    """P4: a hundred receivers and a thousand signals are more than one turn."""
    world = World(configuration(tmp_path))
    for _ in range(100):
        world.say(world.connect(), call("AddMatch", "s", RULE).pack(2))
    sender = world.connect()
    world.say(sender, signal("Changed").pack(1))
    world.flush()
    data = b"".join(signal("Changed").pack(serial) for serial in range(1, 1001))
    assert sender.peer is not None
    assert 0 < ~road.travel(sender.peer, data) < len(data) / 10


def listeners(world: World, count: int) -> list[FakeConnection]:
    """So many who have heard one signal "Changed" of somebody else, and nothing else lately."""
    heard = [world.connect() for _ in range(count)]
    for listener in heard:
        world.say(listener, call("AddMatch", "s", RULE).pack(2))
    world.say(world.connect(), signal("Changed", "s", "first").pack(9))
    world.flush()
    for listener in heard:
        listener.written.clear()
    return heard


def say_alone(world: World, *messages: bytes) -> None:
    """The last who came says it, and nobody else says anything in this pass."""
    world.touched.news = [None]
    world.say(world.connections[-1], *messages)


def test_a_signal_that_comes_alone_is_written_at_once(tmp_path: Path) -> None:
    world = World(configuration(tmp_path))
    heard = listeners(world, 3)
    say_alone(world, signal("Changed", "s", "abc").pack(10))
    assert not world.touched
    assert {len(unframed(bytes(one.written))) for one in heard} == {1}
    world.touched.news = [None, None]
    world.say(world.connections[-1], signal("Changed", "s", "abc").pack(11))
    assert len(world.touched) == 3
    assert {len(unframed(bytes(one.written))) for one in heard} == {1}


def test_nothing_overtakes_what_waits_for_the_end_of_the_batch(tmp_path: Path) -> None:
    world = World(configuration(tmp_path))
    heard = listeners(world, 2)
    assert heard[0].peer is not None
    first = peer_call(heard[0].peer.name, "Method").pack(10)
    say_alone(world, first, signal("Changed", "s", "abc").pack(11))
    assert not heard[0].written
    world.flush()
    assert [message[1] for message in unframed(bytes(heard[0].written))] == [1, 4]


def test_a_signal_at_once_meets_whatever_sockets_do(tmp_path: Path) -> None:
    """One takes all, one a part, one nothing, one is gone, and one has a backlog already."""
    world = World(configuration(tmp_path, LIMITS))
    fit, part, full, gone, behind = listeners(world, 5)
    behind.room = 0
    say_alone(world, signal("Changed", "s", "abc").pack(10))
    world.flush()
    assert behind.peer is not None
    assert behind.peer.outbox.blocked
    part.room, full.room, gone.broken = 7, 0, True
    say_alone(world, signal("Changed", "s", "def").pack(11))
    assert len(unframed(bytes(fit.written))) == 2
    world.flush()
    assert gone.peer is not None
    assert gone.peer.outbox.shut
    for one in (part, full, behind):
        world.widen(one, PLENTY)
        assert one.written == fit.written
