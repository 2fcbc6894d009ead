"""P8, P17: how many plans a client can make us keep, and which."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
from busworld import NOBODY, FakeConnection, World, configuration
from kit import BUS, call, peer_call, signal
from kit.message import DESTINATION, REPLY_SERIAL, build

from afdbus.bus import router
from afdbus.bus.plan import MAX_HEADER, MAX_KEYS, MAX_PLANS, Kind, Plan, Plans
from afdbus.wire.header import Header


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(configuration(tmp_path, max_replies_per_connection=100_000))


def kept(plans: Plans) -> dict[bytes, Plan]:
    return {**(plans.old or {}), **plans.young}


def plan() -> Plan:
    return Plan(Kind.SEND, 0, Header(True, 1, 0), None)


def test_p8_the_number_of_plans_and_their_keys_are_bounded() -> None:
    plans = Plans()
    for number in range(5000):
        plans.add(b"%d" % number * (1 + number % 50), plan())
        assert len(kept(plans)) <= MAX_PLANS
        assert sum(map(len, kept(plans))) <= MAX_KEYS + MAX_HEADER


def test_p8_what_is_used_survives_what_is_not() -> None:
    plans = Plans()
    used = plan()
    plans.add(b"used", used)
    for number in range(5000):
        plans.add(b"%d" % number, plan())
        assert (plans.young.get(b"used") or plans.find(b"used")) is used


def test_p8_alternating_between_many_headers_keeps_hitting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = world.connect()
    messages = [signal(f"M{n}").pack(5) for n in range(MAX_PLANS // 2 - 10)]
    world.say(sender, *messages)
    layered = 0
    dispatch = router.dispatch

    def count(bus, message, size):  # type: ignore[no-untyped-def]
        nonlocal layered
        layered += 1
        return dispatch(bus, message, size)

    monkeypatch.setattr(router, "dispatch", count)
    world.say(sender, *messages * 3)
    assert layered == 0


def plans_of(connection: FakeConnection) -> list[Plan]:
    peer = connection.peer
    assert peer is not None
    plans = [*kept(peer.plans).values()]
    for some in (peer.reply_plans or {}).values():
        plans += kept(some).values()
    return plans


def test_p8_a_client_that_invents_headers_is_bounded(world: World) -> None:
    sender, receiver = world.connect(), world.connect()
    assert sender.peer is not None
    assert receiver.peer is not None
    to = receiver.peer.name
    for first in range(0, 3000, 50):
        numbers = range(first, first + 50)
        world.say(sender, *[signal(f"S{n}").pack(5) for n in numbers])
        world.say(sender, *[peer_call(to, f"C{n}").pack(n + 10) for n in numbers])
        world.say(sender, *[call(f"D{n}").pack(5) for n in numbers])
        # Replies with REPLY_SERIAL at ever other places.
        for n in numbers:
            destination = (DESTINATION, "s", to)
            reply = build(2, {}, "", (), True, (), {})
            reply.plus(*[(8, "g", "y" * (n % 200))], (REPLY_SERIAL, "u", 1), destination)
            reply.body = bytes(n % 200)
            world.say(sender, reply.pack(5))
    assert sender.peer.reply_plans is not None
    assert len(sender.peer.reply_plans) <= 8
    assert len(plans_of(sender)) <= MAX_PLANS * 9
    assert sum(map(len, kept(sender.peer.plans))) <= MAX_KEYS


@pytest.mark.parametrize(
    "message",
    [
        signal("M", path="/" + "x" * 2000),
        signal("M", path="/" + "x" * 300),
        signal("M").plus((200, "ay", bytes(1100))),
        peer_call("com.example.Nobody"),
        call("Nonsense"),
        call("Hello"),
        call("AddMatch", "s", "nonsense"),
        signal("M", destination=None).without(1),
    ],
    ids=["header over 1 KiB", "path over 255", "unknown field", "absent", "unknown method",
         "refused", "refused by content", "invalid"],
)  # fmt: skip
def test_p8_what_is_not_kept(world: World, message) -> None:  # type: ignore[no-untyped-def]
    sender = world.connect()
    world.say(sender, message.pack(5))
    assert plans_of(sender) == []


def test_p8_who_has_left_is_not_held_by_plans(world: World) -> None:
    """Peers and plans point at each other; farewell cuts what it can, at once."""
    sender, receiver = world.connect(), world.connect()
    assert receiver.peer is not None
    world.say(receiver, call("AddMatch", "s", "").pack(3), signal("M").pack(4))
    world.say(sender, peer_call(receiver.peer.name).pack(5), signal("M").pack(6))
    assert len(plans_of(sender)) == 2
    # The signal's; what was asked of the bus is kept for all with the same policy, and names none.
    assert len(plans_of(receiver)) == 1
    assert all(plan.receiver is None for plan in kept(receiver.peer.shared).values())
    world.leave(receiver)
    assert plans_of(receiver) == []
    assert not receiver.peer.rules
    gone = weakref.ref(receiver.peer)
    world.connections.remove(receiver)
    receiver.peer = None
    world.leave(sender)
    world.touched.clear()
    gc.collect()
    assert gone() is None


def test_a_monitor_sees_what_peers_say_whose_plans_are_shared_with_nobody_any_more(
    world: World,
) -> None:
    """After so many users policies and what goes with them are forgotten, not so by the peers."""
    old = world.connect()
    for uid in range(1, 300):
        world.connect(NOBODY._replace(uid=uid))
    world.say(old, *[call("GetId").pack(5)] * 2)
    monitor = world.connect()
    to_monitor = call(
        "BecomeMonitor", "asu", ["type='method_call'"], 0, interface=f"{BUS}.Monitoring"
    )
    world.say(monitor, to_monitor.pack(2))
    world.flush()
    monitor.written.clear()
    world.say(old, call("GetId").pack(6))
    world.flush()
    assert monitor.written.count(b"GetId") == 1


def test_the_limit_of_a_message_counts_its_header_on_a_hit_too(tmp_path: Path) -> None:
    world = World(configuration(tmp_path, max_message_size=1000))
    sender = world.connect()
    for size in (100, 900):
        world.say(sender, signal("M", "ay", b"x" * size).pack(10))
        world.flush()
        assert sender.closed == (size == 900)
