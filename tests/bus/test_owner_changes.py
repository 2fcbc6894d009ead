"""NameOwnerChanged, the most frequent broadcast, whose body never repeats (P19)."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import World, configuration
from kit import call

from afdbus.bus import message as messages

RULE = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{}'"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(configuration(tmp_path))


def test_p19_a_change_of_owner_asks_only_whom_it_concerns(world: World) -> None:
    """Hundreds wait for other names; policy is asked once for each kind of signal."""
    owner, concerned = world.connect(), world.connect()
    others = [world.connect() for _ in range(100)]
    for number, other in enumerate(others):
        world.say(other, call("AddMatch", "s", RULE.format(f"a.b{number}")).pack(2))
    world.say(concerned, call("AddMatch", "s", RULE.format("a.wanted")).pack(2))
    world.flush()
    for connection in (*others, concerned):
        connection.written.clear()
    kinds = None
    for number in range(50):
        world.say(owner, call("RequestName", "su", "a.wanted", 0).pack(10 + 2 * number))
        world.say(owner, call("ReleaseName", "s", "a.wanted").pack(11 + 2 * number))
        kinds = kinds or len(world.bus.own_verdicts)
    world.flush()
    assert bytes(concerned.written).count(b"NameOwnerChanged") == 100
    assert all(not other.written for other in others)
    assert len(world.bus.own_verdicts) == kinds


def test_p19_a_change_that_nobody_waits_for_is_not_even_written_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, waiting = world.connect(), world.connect()
    world.say(waiting, call("AddMatch", "s", RULE.format("a.wanted")).pack(2))
    broadcasts: list[str] = []
    own_signal = messages.own_signal

    def note(serial, receiver, interface, member, signature, body):  # type: ignore[no-untyped-def]
        broadcasts.append(member)
        return own_signal(serial, receiver, interface, member, signature, body)

    monkeypatch.setattr(messages, "own_signal", note)
    for serial, name in enumerate(("a.other", "a.wanted", "a.more"), 10):
        world.say(owner, call("RequestName", "su", name, 0).pack(serial))
    assert broadcasts.count("NameOwnerChanged") == 1
