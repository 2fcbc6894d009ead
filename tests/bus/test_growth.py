"""A message costs as much among many as among few, counted in operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from busworld import FakeConnection, World, configuration, lines
from kit import call, peer_call, signal
from kit.message import DESTINATION, METHOD_RETURN, REPLY_SERIAL, build

from afdbus.server.flush import JOIN

FEW, MANY = 20, 3000
SERIAL = 5

NEAR = (
    "member='M{}'",
    "path='/com/example/Object/{}'",
    "path_namespace='/com/example/Object/{}'",
    "sender='com.example.N{}'",
    "arg0='value{}'",
    "arg0='value',arg1='value{}'",
    "arg0='value',arg1path='/value{}'",
    "arg0namespace='value{}'",
    "arg1path='/value{}/'",
    "arg1path='value{}'",
    "arg2path='/a/value{}'",
)

# Make so many of something in a world, and return what is to cost the same however many there are.
Situation = Callable[[World, int], Callable[[], None]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(
        configuration(
            tmp_path,
            max_match_rules_per_connection=MANY,
            max_names_per_connection=MANY + 2,
            max_replies_per_connection=MANY + 2,
            max_completed_connections=MANY + 10,
            max_connections_per_user=MANY + 10,
        )
    )


def name_of(connection: FakeConnection) -> str:
    assert connection.peer is not None
    return connection.peer.name


def answer(caller: FakeConnection) -> bytes:
    known = {REPLY_SERIAL: SERIAL, DESTINATION: name_of(caller)}
    return build(METHOD_RETURN, known, "", (), True, (), {}).pack(SERIAL)


def exchange(world: World, caller: FakeConnection) -> Callable[[], None]:
    """A call and its reply, the second and third of their kind."""
    callee = world.connect()

    def deed() -> None:
        for _ in range(2):
            world.say(caller, peer_call(name_of(callee)).pack(SERIAL))
            world.say(callee, answer(caller))
        world.flush()

    deed()
    return deed


def connections(world: World, count: int) -> Callable[[], None]:
    for _ in range(count):
        world.connect()
    exchanged = exchange(world, world.connect())

    def deed() -> None:
        exchanged()
        world.leave(world.connect())

    return deed


def names(world: World, count: int) -> Callable[[], None]:
    owner, caller, listener = world.connect(), world.connect(), world.connect()
    for number in range(count):
        world.say(owner, call("RequestName", "su", f"com.example.N{number}", 0).pack(SERIAL))
    world.say(listener, call("AddMatch", "s", "sender='com.example.N7'").pack(SERIAL))
    last = f"com.example.N{count - 1}"

    def deed() -> None:
        world.say(caller, peer_call(last, "New").pack(SERIAL))
        world.say(caller, call("GetNameOwner", "s", last).pack(SERIAL))
        world.say(owner, signal("New").pack(SERIAL))
        world.say(owner, call("RequestName", "su", "com.example.Another", 0).pack(SERIAL))
        world.say(owner, call("ReleaseName", "s", "com.example.Another").pack(SERIAL))
        world.flush()

    return deed


def places_in_a_queue(world: World, count: int) -> Callable[[], None]:
    for _ in range(count):
        world.say(world.connect(), call("RequestName", "su", "com.example.N", 0).pack(SERIAL))
    newcomer = world.connect()

    def deed() -> None:
        world.say(newcomer, call("RequestName", "su", "com.example.N", 0).pack(SERIAL))
        world.say(newcomer, call("RequestName", "su", "com.example.N", 0).pack(SERIAL))
        world.say(newcomer, call("ReleaseName", "s", "com.example.N").pack(SERIAL))
        world.flush()

    return deed


def rules(kind: str) -> Situation:
    def situation(world: World, count: int) -> Callable[[], None]:
        emitter, listener, other = world.connect(), world.connect(), world.connect()
        world.say(listener, call("AddMatch", "s", "interface='com.example.Interface'").pack(1))
        for number in range(count):
            world.say(other, call("AddMatch", "s", kind.format(number)).pack(SERIAL))
        said = ("sss", "value", "/value", "/a/b")
        world.say(emitter, signal("Old", *said).pack(SERIAL))
        another = kind.format(count)

        def deed() -> None:
            before = len(listener.written)
            world.say(emitter, signal("Old", *said).pack(SERIAL), signal("New", *said).pack(SERIAL))
            world.say(listener, call("AddMatch", "s", another).pack(SERIAL))
            world.say(listener, call("RemoveMatch", "s", another).pack(SERIAL))
            world.flush()
            assert len(listener.written) > before

        return deed

    return situation


def open_calls(world: World, count: int) -> Callable[[], None]:
    caller, silent = world.connect(), world.connect()
    for number in range(count):
        world.say(caller, peer_call(name_of(silent)).pack(number + 10))
    exchanged = exchange(world, caller)

    def deed() -> None:
        exchanged()
        guest = world.connect()
        world.say(caller, peer_call(name_of(guest)).pack(SERIAL))
        world.leave(guest)

    return deed


def queued_bytes(world: World, count: int) -> Callable[[], None]:
    sender, stuck = world.connect(), world.connect()
    stuck.room = 0
    # More than one write takes, even of few.
    body = bytes(2 * JOIN // FEW)
    addressed = signal("S", "ay", body, destination=name_of(stuck)).pack(SERIAL)
    for _ in range(count):
        world.say(sender, addressed)
        world.flush()
    exchanged = exchange(world, world.connect())

    def deed() -> None:
        exchanged()
        world.say(sender, addressed)
        world.flush()
        world.widen(stuck, len(addressed))

    return deed


SITUATIONS: dict[str, Situation] = {
    "connections": connections,
    "names": names,
    "places in a queue": places_in_a_queue,
    "open calls": open_calls,
    "queued bytes": queued_bytes,
} | {f"rules {kind}": rules(kind) for kind in NEAR}


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_p9_what_is_said_among_many_costs_as_much_as_among_few(
    world: World, situation: Situation
) -> None:
    def cost(count: int) -> int:
        deed = situation(world, count)
        world.flush()
        found = lines(deed)
        for connection in world.connections:
            world.leave(connection)
        return found

    cost(FEW)  # what is only made once
    few = cost(FEW)
    assert cost(MANY) < few * 1.1
