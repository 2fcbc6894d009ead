"""Messages for names that are being started: held, delivered, refused, forgotten."""

from __future__ import annotations

import gc
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from busworld import NOBODY, FakeChild, FakeConnection, World, configuration, unframed
from kit import BUS, NO_AUTO_START, Message, Received, call, peer_call, signal

from afdbus.bus import router
from afdbus.bus.message import Message as BusMessage
from afdbus.errors import SPAWN_CHILD_EXITED, SPAWN_EXEC_FAILED, BusError

NAME = "com.example.Started"
SECONDS = 25.0
FAILURE = BusError(SPAWN_CHILD_EXITED, "it failed")
SERIALS = itertools.count(100)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def make_world(tmp_path: Path, more: str = "", **rest: Any) -> World:
    world = World(configuration(tmp_path, more, **rest))
    world.services.commands[NAME] = "/bin/started"
    return world


def send(world: World, connection: FakeConnection, *messages: Message) -> None:
    """Say them one by one, each under a serial of its own, and flush."""
    for message in messages:
        world.say(connection, message.pack(next(SERIALS)))
    world.flush()


def came(connection: FakeConnection) -> list[tuple[Any, ...]]:
    """What was written to it since the last look."""
    briefs = [Received(data).brief for data in unframed(bytes(connection.written))]
    connection.written.clear()
    connection.passed.clear()
    return briefs


def own(world: World, connection: FakeConnection, name: str = NAME) -> None:
    send(world, connection, call("RequestName", "su", name, 0))


def start(name: str = NAME) -> Message:
    return call("StartServiceByName", "su", name, 0)


def only_child(world: World) -> FakeChild:
    (child,) = world.launcher.children
    return child


def clean(world: World, *connections: FakeConnection) -> None:
    """Nothing is held any more, and nobody is charged for it."""
    assert world.bus.activations.count == 0
    for connection in connections:
        peer = connection.peer
        assert peer is not None
        assert (peer.charged, peer.charged_messages, peer.charged_fds) == (0, 0, 0)


def join(world: World, count: int) -> list[FakeConnection]:
    connections = [world.connect() for _ in range(count)]
    for connection in connections:
        came(connection)
    return connections


def test_messages_wait_and_are_delivered_in_order(world: World) -> None:
    alice, carol, bob = join(world, 3)
    send(world, alice, peer_call(NAME, "A"), signal("B", destination=NAME))
    send(world, carol, peer_call(NAME, "C"))
    send(world, alice, peer_call(NAME, "D"))
    assert only_child(world).name == NAME
    assert world.bus.activations.count == 4
    assert came(alice) == came(carol) == came(bob) == []
    own(world, bob)
    assert came(bob) == [
        ("signal", "NameAcquired", NAME),
        ("call", "A"),
        ("signal", "B"),
        ("call", "C"),
        ("call", "D"),
        ("return", 1),
    ]
    assert alice.peer is not None
    assert alice.peer.open_calls == 2
    clean(world, alice, carol)
    # from now on they go there directly
    send(world, alice, peer_call(NAME, "E"))
    assert came(bob) == [("call", "E")]
    assert len(world.launcher.children) == 1


def test_a_hold_is_never_planned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    layered = 0
    dispatch = router.dispatch

    def count(bus, message, size):  # type: ignore[no-untyped-def]
        nonlocal layered
        layered += 1
        return dispatch(bus, message, size)

    monkeypatch.setattr(router, "dispatch", count)
    alice, bob = join(world, 2)
    layered = 0
    for serial in range(1, 5):
        world.say(alice, peer_call(NAME, "M").pack(serial))
        world.say(alice, start().pack(serial + 10))
    assert layered == 8
    own(world, bob)
    assert came(bob)[1:-1] == [("call", "M")] * 4
    assert came(alice) == [("return", 1)] * 4


def test_starters_are_answered_between_the_signals(world: World) -> None:
    alice, bob, watcher = join(world, 3)
    send(world, watcher, call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring"))
    came(watcher)
    send(world, alice, start(), peer_call(NAME, "A"))
    own(world, bob)
    assert came(watcher)[-6:] == [
        ("call", "A"),
        ("call", "RequestName", NAME, 0),
        ("signal", "NameOwnerChanged", NAME, "", bob.peer.name),  # type: ignore[union-attr]
        ("return", 1),
        ("signal", "NameAcquired", NAME),
        ("return", 1),
    ]
    clean(world, alice)


def test_a_name_that_is_owned_is_running_already_if_it_can_be_started(world: World) -> None:
    alice, bob = join(world, 2)
    own(world, bob)
    own(world, bob, "com.example.Other")
    send(world, alice, start(), start("com.example.Other"))
    assert came(alice) == [
        ("return", 2),
        (
            "error",
            f"{BUS}.Error.ServiceUnknown",
            "The name com.example.Other was not provided by any .service files",
        ),
    ]
    assert not world.launcher.children


def test_no_auto_start(world: World) -> None:
    (alice,) = join(world, 1)
    send(world, alice, peer_call(NAME, "A", flags=NO_AUTO_START))
    assert came(alice) == [
        ("error", f"{BUS}.Error.NameHasNoOwner", f'Name "{NAME}" does not exist')
    ]
    assert not world.launcher.children


def test_the_program_fails(world: World) -> None:
    alice, bob = join(world, 2)
    send(world, alice, start(), peer_call(NAME, "A"))
    only_child(world).ended(FAILURE)
    world.flush()
    assert came(alice) == [("error", FAILURE.name, FAILURE.text)] * 2
    clean(world, alice)
    assert f"info: Activated service '{NAME}' failed: {FAILURE.text}" in world.journal.lines
    own(world, bob)
    assert came(bob) == [("signal", "NameAcquired", NAME), ("return", 1)]


def test_it_is_started_anew_after_a_failure(world: World) -> None:
    alice, bob = join(world, 2)
    send(world, alice, peer_call(NAME, "A"))
    first = only_child(world)
    first.ended(FAILURE)
    send(world, alice, peer_call(NAME, "B"))
    assert len(world.launcher.children) == 2
    world.now += SECONDS / 2
    came(alice)
    # The deadline is the second one's own.
    world.now += SECONDS / 2
    world.bus.expire()
    world.flush()
    assert came(alice)[0][1] == f"{BUS}.Error.TimedOut"
    send(world, alice, peer_call(NAME, "C"))
    world.launcher.children[1].ended(FAILURE)
    own(world, bob)
    assert ("call", "C") in came(bob)
    clean(world, alice)


def test_what_the_same_command_provides_fails_with_it(world: World) -> None:
    (alice,) = join(world, 1)
    world.services.commands["com.example.Twin"] = "/bin/started"
    world.services.commands["com.example.Stranger"] = "/bin/other"
    for name in (NAME, "com.example.Twin", "com.example.Stranger"):
        send(world, alice, peer_call(name, "A"))
    world.launcher.children[0].ended(FAILURE)
    world.flush()
    error = "error", FAILURE.name, FAILURE.text
    assert came(alice) == [error, error]
    assert world.bus.activations.count == 1


def test_a_program_that_ends_well_may_still_bring_the_name(world: World) -> None:
    alice, bob = join(world, 2)
    send(world, alice, peer_call(NAME, "A"))
    only_child(world).ended(None)
    world.flush()
    assert came(alice) == []
    own(world, bob)
    assert ("call", "A") in came(bob)


@pytest.mark.parametrize("end", ["delivered", "failed", "expired"])
def test_p17_what_was_held_is_forgotten(world: World, end: str) -> None:
    """Although the program runs on, and its deadline is not there yet."""
    alice, bob = join(world, 2)
    send(world, alice, peer_call(NAME, "A"), start())
    assert len(held_somewhere()) == 2
    if end == "delivered":
        own(world, bob)
    elif end == "failed":
        only_child(world).ended(FAILURE)
    else:
        world.now = SECONDS
        world.bus.expire()
    world.flush()
    assert held_somewhere() == []
    clean(world, alice)


def held_somewhere() -> list[BusMessage]:
    """Messages from clients that anything remembers."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if type(thing) is BusMessage]
    return [message for message in found if message.sender is not None]


def test_time_is_over(world: World) -> None:
    (alice,) = join(world, 1)
    send(world, alice, start(), peer_call(NAME, "A"))
    world.now += SECONDS - 0.001
    world.bus.expire()
    assert world.bus.activations.count == 2
    assert world.wake_ups == [SECONDS]
    world.now = SECONDS
    world.bus.expire()
    world.flush()
    text = f"Failed to activate service '{NAME}': timed out (service_start_timeout=25000ms)"
    assert came(alice) == [("error", f"{BUS}.Error.TimedOut", text)] * 2
    assert only_child(world).killed
    clean(world, alice)
    only_child(world).ended(FAILURE)
    world.flush()
    assert came(alice) == []


def test_what_failed_in_time_leaves_nothing_to_wait_for(world: World) -> None:
    (alice,) = join(world, 1)
    for _ in range(3):
        send(world, alice, peer_call(NAME, "A"))
        world.launcher.children[-1].ended(FAILURE)
        world.now += 1
    assert world.wake_ups == [SECONDS]
    send(world, alice, peer_call(NAME, "A"))
    came(alice)
    for now, wake_ups, left in (
        (SECONDS, [SECONDS, SECONDS + 3], 1),
        (SECONDS + 3, [SECONDS, SECONDS + 3], 0),
    ):
        world.now = now
        world.bus.expire()
        assert world.wake_ups == wake_ups
        assert world.bus.activations.count == left


def test_time_is_over_only_for_whom_it_is(world: World) -> None:
    alice, bob = join(world, 2)
    send(world, alice, peer_call(NAME, "A"))
    own(world, bob)
    came(bob)
    world.now += SECONDS
    world.bus.expire()
    world.flush()
    assert came(alice) == []
    assert not only_child(world).killed


def test_what_cannot_be_started_leaves_nothing(world: World) -> None:
    alice, bob = join(world, 2)
    world.launcher.refusal = BusError(SPAWN_EXEC_FAILED, "no such program")
    send(world, alice, start(), peer_call(NAME, "A"))
    assert came(alice) == [("error", SPAWN_EXEC_FAILED, "no such program")] * 2
    clean(world, alice)
    own(world, bob)
    assert came(bob) == [("signal", "NameAcquired", NAME), ("return", 1)]


def test_each_message_counts_against_the_limit(tmp_path: Path) -> None:
    world = make_world(tmp_path, max_pending_service_starts=3)
    world.services.commands["com.example.Other"] = "/bin/other"
    alice, bob = join(world, 2)
    send(world, alice, start(), *[peer_call(NAME, "A")] * 3, peer_call("com.example.Other", "B"))
    errors = came(alice)
    assert errors == [
        (
            "error",
            f"{BUS}.Error.LimitsExceeded",
            "The maximum number of pending activations has been reached, activation of "
            f"{name} failed (max_pending_service_starts=3)",
        )
        for name in (NAME, "com.example.Other")
    ]
    own(world, bob)
    assert came(bob).count(("call", "A")) == 2
    send(world, alice, peer_call("com.example.Other", "B"))
    assert world.bus.activations.count == 1


def test_policy_is_asked_before_anything_is_started(tmp_path: Path) -> None:
    policy = f"""<policy context="default"><allow user="*"/><allow own="*"/>
      <allow send_type="method_call"/><allow receive_type="method_call"/>
      <allow receive_type="error"/><allow receive_type="method_return"/>
      <deny send_destination="{NAME}" send_interface="com.example.Secret"/></policy>"""
    world = make_world(tmp_path, policy=policy)
    alice = world.connect(NOBODY)
    came(alice)
    send(world, alice, peer_call(NAME, "A", interface="com.example.Secret"))
    ((_, name, text),) = came(alice)
    assert name == f"{BUS}.Error.AccessDenied"
    assert text.startswith("Rejected send message, 2 matched rules; ")
    assert text.endswith(f'destination="{NAME}" (bus)')
    assert not world.launcher.children


def test_the_receivers_policy_is_asked_when_there_is_one(tmp_path: Path) -> None:
    """CVE-2014-3477: the sender is told, the new owner is not disturbed."""
    policy = """<policy context="default"><allow user="*"/><allow own="*"/>
      <allow send_type="method_call"/><allow receive_type="method_call"/>
      <allow receive_type="error"/><allow receive_type="method_return"/>
      <allow receive_type="signal"/></policy>
      <policy user="65534"><deny receive_interface="com.example.Secret"/></policy>"""
    world = make_world(tmp_path, policy=policy)
    (alice,) = join(world, 1)
    bob = world.connect(NOBODY)
    came(bob)
    send(
        world,
        alice,
        peer_call(NAME, "A", interface="com.example.Secret"),
        peer_call(NAME, "B", interface="com.example.Open"),
    )
    own(world, bob)
    assert came(bob) == [("signal", "NameAcquired", NAME), ("call", "B"), ("return", 1)]
    ((_, name, text),) = came(alice)
    assert name == f"{BUS}.Error.AccessDenied"
    assert text.startswith("Rejected receive message, ")
    clean(world, alice)


def descriptor(connection: FakeConnection) -> int:
    """A descriptor that has come with the next message; answers its number."""
    fd = os.memfd_create("kit")
    connection.fds.append(fd)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_p29_descriptors_wait_with_their_message(world: World) -> None:
    alice, bob = join(world, 2)
    fd = descriptor(alice)
    send(world, alice, peer_call(NAME, "A", "h", 0, fds=[fd]))
    assert is_open(fd)
    assert alice.peer is not None
    assert alice.peer.charged_fds == 1
    send(world, bob, call("RequestName", "su", NAME, 0))
    assert [numbers for _, numbers in bob.passed] == [[fd]]
    assert not is_open(fd)
    clean(world, alice)


@pytest.mark.parametrize("how", ["ended", "time", "left", "deaf"])
def test_p29_descriptors_of_what_is_not_delivered_are_closed(world: World, how: str) -> None:
    (alice,) = join(world, 1)
    bob = world.connect(can_fds=False)
    fd = descriptor(alice)
    send(world, alice, peer_call(NAME, "A", "h", 0, fds=[fd]))
    if how == "ended":
        only_child(world).ended(FAILURE)
    elif how == "time":
        world.now += SECONDS
        world.bus.expire()
    elif how == "left":
        world.leave(alice)
    else:
        own(world, bob)
        assert came(alice)[-1][1] == f"{BUS}.Error.NotSupported"
    assert not is_open(fd)
    clean(world, alice)


def test_who_leaves_takes_what_waits_along(world: World) -> None:
    alice, carol, bob = join(world, 3)
    send(world, alice, start(), peer_call(NAME, "A"), signal("B", destination=NAME))
    send(world, carol, peer_call(NAME, "C"))
    world.leave(alice)
    assert world.bus.activations.count == 1
    own(world, bob)
    assert came(bob) == [("signal", "NameAcquired", NAME), ("call", "C"), ("return", 1)]
    clean(world, alice, carol)


def test_the_program_goes_on_when_nobody_waits_any_more(world: World) -> None:
    alice, carol, bob = join(world, 3)
    send(world, alice, peer_call(NAME, "A"))
    world.leave(alice)
    send(world, carol, peer_call(NAME, "C"))
    assert not only_child(world).killed
    own(world, bob)
    assert ("call", "C") in came(bob)


def test_what_waits_stops_its_sender_like_what_is_queued(tmp_path: Path) -> None:
    world = make_world(tmp_path, max_incoming_bytes=1000)
    alice, bob = join(world, 2)
    send(world, alice, peer_call(NAME, "A", "ay", bytes(2000)))
    assert alice.peer is not None
    assert alice.peer.charged > 2000
    alice.peer.paused = True  # what its connection does after such a turn
    own(world, bob)
    assert alice.resumed == 1
    clean(world, alice)


def test_who_starts_itself_gets_its_own_message(world: World) -> None:
    (alice,) = join(world, 1)
    send(world, alice, peer_call(NAME, "A"))
    own(world, alice)
    assert came(alice) == [("signal", "NameAcquired", NAME), ("call", "A"), ("return", 1)]


def test_the_environment_is_that_of_the_time_of_starting(world: World) -> None:
    (alice,) = join(world, 1)
    send(world, alice, call("UpdateActivationEnvironment", "a{ss}", {"A": "1", "B": "2"}))
    send(world, alice, call("UpdateActivationEnvironment", "a{ss}", {"A": "3"}))
    send(world, alice, peer_call(NAME, "A"))
    assert only_child(world).environment == {"A": "3", "B": "2"}


def test_where_a_helper_starts_services_their_environment_is_not_the_clients(
    world: World,
) -> None:
    (alice,) = join(world, 1)
    world.launcher.uses_helper = True
    send(world, alice, call("UpdateActivationEnvironment", "a{ss}", {"A": "1"}))
    assert came(alice) == [
        (
            "error",
            f"{BUS}.Error.AccessDenied",
            "Cannot change activation environment on a system bus.",
        )
    ]
    assert world.bus.environment == {}


def test_names_that_can_be_started_are_listed(world: World) -> None:
    (alice,) = join(world, 1)
    send(world, alice, call("ListActivatableNames"))
    assert came(alice) == [("return", [BUS, NAME])]
