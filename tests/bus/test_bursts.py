"""Signals with one header that follow one another: everybody gets what he would get of each."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from busworld import PLENTY, World, configuration
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


@pytest.mark.parametrize("seed", range(8))
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
    for world in worlds:
        for number in range(6):
            listener = world.connect()
            if number:
                world.say(listener, call("AddMatch", "s", RULE).pack(2))
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
    assert joined > 500
    assert worlds[0].bus.dropped


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
    pos, spent = road.travel(sender.peer, data, 0)
    assert spent
    assert 0 < pos < len(data) / 10
