"""Which plans a change makes void (P12, P18), and what it costs (P9)."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import FakeConnection, World, configuration
from kit import call, signal

from afdbus.bus import router
from afdbus.bus.versions import Versions


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(configuration(tmp_path, max_match_rules_per_connection=100000))


@pytest.fixture
def layered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The members of the messages that took the layered way."""
    members: list[str] = []
    dispatch = router.dispatch

    def note(bus, message, size):  # type: ignore[no-untyped-def]
        members.append(message.header.member)
        return dispatch(bus, message, size)

    monkeypatch.setattr(router, "dispatch", note)
    return members


def add_match(world: World, connection: FakeConnection, rule: str) -> None:
    world.say(connection, call("AddMatch", "s", rule).pack(7))


def say(world: World, connection: FakeConnection, member: str) -> None:
    world.say(connection, signal(member, interface="com.example.I").pack(8))


def test_p18_a_rule_makes_void_only_the_plans_it_may_concern(
    world: World, layered: list[str]
) -> None:
    sender, other, listener = world.connect(), world.connect(), world.connect()
    members = ["A", "B", "C"]

    def missed(rule: str) -> list[str]:
        for member in members:
            say(world, sender, member)
        say(world, other, "A")
        add_match(world, listener, rule)
        layered.clear()
        for member in members:
            say(world, sender, member)
        before = len(layered)
        say(world, other, "A")
        return [*layered[:before], *(["other"] * (len(layered) - before))]

    assert missed("interface='com.example.I',member='A'") == ["A", "other"]
    assert missed("interface='com.example.J',member='A'") == []
    assert missed("interface='com.example.I'") == ["A", "B", "C", "other"]
    assert missed("interface='com.example.J'") == []
    assert sender.peer is not None
    assert missed(f"sender='{sender.peer.name}'") == ["A", "B", "C"]
    assert missed("sender='com.example.Nobody'") == []
    assert missed("path='/nowhere'") == ["A", "B", "C", "other"]


def test_p18_calls_are_planned_through_all_changes_of_rules(
    world: World, layered: list[str]
) -> None:
    sender, receiver, listener = world.connect(), world.connect(), world.connect()
    assert receiver.peer is not None
    to = receiver.peer.name
    world.say(sender, call("First", destination=to, interface="com.example.I").pack(5))
    for rule in ("", "interface='com.example.I'", "path='/x'", "arg0='x'"):
        add_match(world, listener, rule)
        layered.clear()
        world.say(sender, call("First", destination=to, interface="com.example.I").pack(6))
        assert not layered, rule
        assert sender.peer is not None
        world.bus.replies.give_up(sender.peer)


def test_p9_a_change_costs_the_same_however_many_rules_one_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bumps = 0
    bump = Versions.bump

    def count(self: Versions, interface: str | None, member: str | None) -> None:
        nonlocal bumps
        bumps += 1
        bump(self, interface, member)

    peer = world.connect()
    for number in range(2000):
        add_match(world, peer, f"interface='com.example.I{number}'")
    monkeypatch.setattr(Versions, "bump", count)
    for number in range(20):
        name = f"com.example.N{number}"
        world.say(peer, call("RequestName", "su", name, 0).pack(9))
    assert bumps < 20 * 10


def test_many_rules_are_still_seen_to_change_their_peer(tmp_path: Path, layered: list[str]) -> None:
    """A plan for a broadcast is void when the receiver's names change, however it was told."""
    policy = """<policy context="default"><allow user="*"/><allow own="*"/>
      <allow send_type="method_call"/><allow send_type="signal"/><allow receive_type="signal"/>
      <allow receive_type="method_return"/>
      <deny send_destination="com.example.Deaf" send_type="signal"/></policy>"""
    world = World(configuration(tmp_path, policy=policy, max_match_rules_per_connection=100000))
    sender, receiver = world.connect(), world.connect()
    add_match(world, receiver, "interface='com.example.I'")
    for number in range(1000):
        add_match(world, receiver, f"interface='com.example.I{number}'")
    world.flush()
    for _ in range(3):
        say(world, sender, "A")
    world.flush()
    assert receiver.written.count(b"com.example.I\0") == 3
    layered.clear()
    say(world, sender, "A")
    assert not layered, "it is planned"
    world.say(receiver, call("RequestName", "su", "com.example.Deaf", 0).pack(9))
    say(world, sender, "A")
    world.flush()
    assert receiver.written.count(b"com.example.I\0") == 4


def test_p15_plans_are_forgotten_once_for_any_number_of_eavesdroppers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [world.connect() for _ in range(20)]
    forgotten = 0
    forget = world.bus.forget_plans

    def count() -> None:
        nonlocal forgotten
        forgotten += 1
        forget()

    monkeypatch.setattr(world.bus, "forget_plans", count)
    for peer in peers:
        for number in range(50):
            add_match(world, peer, f"eavesdrop=true,arg0='{number}'")
    for peer in peers:
        world.leave(peer)
    assert forgotten == 1


def test_the_table_of_counters_does_not_grow() -> None:
    versions = Versions()
    size = len(versions.counters)
    for number in range(10000):
        versions.bump(f"com.example.I{number}", f"M{number}")
        versions.bump(f"com.example.I{number}", None)
        versions.bump(None, f"M{number}")
    assert len(versions.counters) == size
    assert sum(versions.counters) == 30000
