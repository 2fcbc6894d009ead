"""P4: the turn of one peer ends, whatever its messages cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import World, configuration
from kit import call, signal

from afdbus.bus.road import travel


@pytest.mark.parametrize("first", ["driver", "broadcast"])
def test_p4_a_turn_of_costly_messages_is_short(tmp_path: Path, first: str) -> None:
    """Ten milliseconds each: a list of 50,000 names, a signal to 10,000 peers."""
    world = World(configuration(tmp_path))
    sender = world.connect()
    clock = world.bus.clock

    def costly() -> float:
        world.now += 0.01
        return clock()

    world.bus.clock = costly
    if first == "driver":
        data = b"".join(call("ListNames").pack(serial) for serial in range(1, 90))
    else:
        data = b"".join(signal(f"M{serial}").pack(serial) for serial in range(1, 90))
    assert sender.peer is not None
    left = ~travel(sender.peer, data)
    assert 0 <= left < len(data) / 20
    turns = 1
    while left >= 0:
        data = data[left:]
        left = ~travel(sender.peer, data)
        turns += 1
    assert ~left == len(data)
    assert turns > 20


def test_p4_a_turn_of_calls_of_the_bus_is_bounded(tmp_path: Path) -> None:
    world = World(configuration(tmp_path))
    sender = world.connect()
    data = b"".join(call("GetId").pack(serial) for serial in range(1, 2000))
    assert sender.peer is not None
    assert 0 <= ~travel(sender.peer, data) < len(data) / 2
