"""P9: what it costs when somebody leaves who had much, counted in operations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from busworld import FakeConnection, World, configuration, lines
from kit import call, peer_call


@pytest.fixture
def world(tmp_path: Path) -> World:
    many = 10**6
    return World(
        configuration(
            tmp_path,
            max_match_rules_per_connection=many,
            max_names_per_connection=many,
            max_replies_per_connection=many,
            max_completed_connections=many,
            max_connections_per_user=many,
        )
    )


def with_rules(world: World, count: int) -> FakeConnection:
    peer = world.connect()
    for number in range(count):
        kind = ["member='M{}'", "arg0='{}'", "path='/p{}'", "arg0path='/{}/'"][number % 4]
        world.say(peer, call("AddMatch", "s", kind.format(number)).pack(5))
    return peer


def with_same_rule(world: World, count: int) -> FakeConnection:
    for _ in range(count):
        other = world.connect()
        world.say(other, call("AddMatch", "s", "arg0path='/x/'").pack(5))
    return other


def with_names(world: World, count: int) -> FakeConnection:
    peer = world.connect()
    for number in range(count):
        world.say(peer, call("RequestName", "su", f"com.example.N{number}", 0).pack(5))
    return peer


def with_rules_and_names(world: World, count: int) -> FakeConnection:
    peer = with_names(world, count)
    for number in range(count):
        world.say(peer, call("AddMatch", "s", f"member='M{number}'").pack(5))
    return peer


def with_callers(world: World, count: int) -> FakeConnection:
    peer = world.connect()
    assert peer.peer is not None
    for _ in range(count // 10):
        caller = world.connect()
        name = peer.peer.name
        world.say(caller, *[peer_call(name).pack(serial) for serial in range(2, 12)])
    return peer


def with_calls(world: World, count: int) -> FakeConnection:
    peer = world.connect()
    for _ in range(count // 10):
        callee = world.connect()
        assert callee.peer is not None
        name = callee.peer.name
        world.say(peer, *[peer_call(name).pack(serial) for serial in range(2, 12)])
    return peer


@pytest.mark.parametrize(
    "having",
    [with_rules, with_same_rule, with_names, with_rules_and_names, with_callers, with_calls],
)
def test_p9_leaving_costs_in_proportion(
    world: World, having: Callable[[World, int], FakeConnection]
) -> None:
    small, large = 100, 800
    first = having(world, small)
    cost = lines(lambda: world.leave(first))
    for other in list(world.connections):
        if not other.closed:
            world.leave(other)
    second = having(world, large)
    more = lines(lambda: world.leave(second))
    assert more < cost * (large / small) * 2 + 2000, (cost, more)


def test_p9_one_more_rule_name_or_call_costs_the_same_with_many(world: World) -> None:
    def cost(number: int) -> int:
        return lines(
            lambda: world.say(
                peer,
                call("AddMatch", "s", f"interface='a.b{number}'").pack(5),
                call("RequestName", "su", f"com.example.One{number}", 0).pack(6),
                call("ReleaseName", "s", f"com.example.One{number}").pack(7),
                call("RemoveMatch", "s", f"interface='a.b{number}'").pack(8),
                call("GetNameOwner", "s", "com.example.N5").pack(9),
            )
        )

    peer = world.connect()
    few = cost(1)
    peer = with_rules_and_names(world, 1500)
    assert cost(2) < few * 3


@pytest.mark.parametrize("count", [0, 1, 8, 9, 3000])
def test_p9_policy_sees_all_names_of_a_peer_without_a_copy_of_many(
    world: World, count: int
) -> None:
    peer = with_names(world, count).peer
    assert peer is not None
    seen = peer.all_names()
    assert list(seen) == [peer.name, *peer.names]
    assert len(seen) == count + 1
    assert peer.name in seen
    assert all(name in seen for name in peer.names)
    assert "com.example.Other" not in seen
    assert sys.getsizeof(seen) < 200
