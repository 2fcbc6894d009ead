"""Joining the bus and owning names: what is answered, and who is told what, in order (P28)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kit import BUS, BUS_PATH, Daemon, RawClient, Received, call, peer_call, signal

ALLOW_REPLACEMENT, REPLACE_EXISTING, DO_NOT_QUEUE = 1, 2, 4
PRIMARY_OWNER, IN_QUEUE, EXISTS, ALREADY_OWNER = 1, 2, 3, 4
RELEASED, NON_EXISTENT, NOT_OWNER = 1, 2, 3

NAME = "com.example.Name"
ACQUIRED = ("signal", "NameAcquired", NAME)
LOST = ("signal", "NameLost", NAME)


def changed(name: str, old: str, new: str) -> tuple[str, ...]:
    return "signal", "NameOwnerChanged", name, old, new


def request(client: RawClient, flags: int = 0, name: str = NAME) -> list[tuple[Any, ...]]:
    """All that the client sees from its RequestName to the answer."""
    return [m.brief for m in client.exchange(call("RequestName", "su", name, flags))]


def release(client: RawClient, name: str = NAME) -> list[tuple[Any, ...]]:
    return [m.brief for m in client.exchange(call("ReleaseName", "s", name))]


def queue(client: RawClient, name: str = NAME) -> list[str]:
    answer = client.bus("ListQueuedOwners", "s", name)
    return answer.args[0] if answer.brief[0] == "return" else []


@pytest.fixture
def watcher(daemon: Daemon) -> RawClient:
    """Somebody who is told of every change of owners."""
    client = daemon.connect()
    client.match(f"type='signal',sender='{BUS}',member='NameOwnerChanged'")
    return client


# -- Hello


def test_p28_hello_is_answered_before_its_signals(daemon: Daemon) -> None:
    client = daemon.join()
    serial = client.send(call("Hello"))
    reply, acquired = client.read(), client.read()
    assert reply.reply_serial == serial
    (name,) = reply.args
    assert re.fullmatch(r":1\.[0-9]+", name)
    assert (reply.sender, reply.destination, reply.signature) == (BUS, name, "s")
    assert acquired.brief == ("signal", "NameAcquired", name)
    assert (acquired.sender, acquired.destination) == (BUS, name)
    assert (acquired.path, acquired.interface) == (BUS_PATH, BUS)
    assert acquired.flags == 1
    assert client.sync() == []


def test_hello_is_told_to_those_who_asked(daemon: Daemon, watcher: RawClient) -> None:
    client = daemon.connect()
    (told,) = watcher.sync()
    assert told.brief == changed(client.name, "", client.name)
    assert (told.path, told.interface, told.sender) == (BUS_PATH, BUS, BUS)
    assert told.destination is None
    assert told.flags == 1


def test_unique_names_count_up_and_are_not_used_again(daemon: Daemon) -> None:
    first = daemon.connect()
    number = int(first.name.removeprefix(":1."))
    second = daemon.connect()
    assert second.name == f":1.{number + 1}"
    second.close()
    assert daemon.connect().name == f":1.{number + 2}"


def test_unique_names_are_given_at_hello(daemon: Daemon) -> None:
    early = daemon.join()
    other = daemon.connect()
    early.hello()
    assert int(early.name.removeprefix(":1.")) == int(other.name.removeprefix(":1.")) + 1


def test_handshake_and_hello_in_one_packet(daemon: Daemon) -> None:
    client = daemon.dial()
    client.send_bytes(
        b"\0" + client.external().encode() + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
        + call("Hello").pack(1) + call("GetId").pack(2)
    )  # fmt: skip
    assert client.read_line().startswith("OK ")
    assert client.read_line() == "AGREE_UNIX_FD"
    assert client.read().brief[0] == "return"
    assert client.read().brief[:2] == ("signal", "NameAcquired")
    assert client.read().reply_serial == 2


# -- before Hello


def refusal(client: RawClient, member: str, signature: str = "", *args: Any) -> Received:
    reply = client.bus(member, signature, *args)
    assert reply.brief[0] == "error"
    return reply


@pytest.mark.parametrize("member", ["GetId", "ListNames", "Nope"])
def test_before_hello_the_bus_refuses_and_stays(daemon: Daemon, member: str) -> None:
    client = daemon.join()
    for _ in range(2):
        reply = refusal(client, member)
        assert reply.error_name == f"{BUS}.Error.AccessDenied"
        assert reply.args == (
            "Client tried to send a message other than Hello without being registered",
        )
        assert reply.destination == ":not.active.yet"
        assert reply.sender == BUS
    client.hello()


def test_before_hello_a_call_without_destination_is_answered(daemon: Daemon) -> None:
    client = daemon.join()
    message = call("Ping", interface=f"{BUS}.Peer", destination=None)
    assert client.ask(message).brief == ("return",)
    message = call("Foo", interface="com.example.Interface", destination=None)
    assert client.ask(message).error_name == f"{BUS}.Error.UnknownMethod"
    client.hello()


def test_before_hello_a_call_to_a_peer_disconnects(daemon: Daemon, bob: RawClient) -> None:
    client = daemon.join()
    client.send(peer_call(bob.name))
    assert client.closed() == []
    bob.alive()


def test_before_hello_a_broadcast_disconnects(daemon: Daemon, bob: RawClient) -> None:
    bob.match("interface='com.example.Interface'")
    client = daemon.join()
    client.send(signal("Early"))
    assert client.closed() == []
    bob.alive()


def test_before_hello_nothing_is_delivered(daemon: Daemon, alice: RawClient) -> None:
    client = daemon.join()
    alice.send(signal("Broadcast"))
    assert alice.sync() == []
    assert client.hello()
    assert client.sync() == []


# -- RequestName


def test_request_signals_come_before_the_answer(alice: RawClient) -> None:
    assert request(alice) == [ACQUIRED, ("return", PRIMARY_OWNER)]


def test_p28_request_order_for_one_who_watches(alice: RawClient) -> None:
    alice.match("member='NameOwnerChanged'")
    expected = [changed(NAME, "", alice.name), ACQUIRED, ("return", PRIMARY_OWNER)]
    assert request(alice) == expected
    assert release(alice) == [LOST, changed(NAME, alice.name, ""), ("return", RELEASED)]


def test_name_acquired_is_no_broadcast(alice: RawClient, bob: RawClient) -> None:
    bob.match("member='NameAcquired'")
    bob.match("member='NameLost'")
    request(alice)
    release(alice)
    assert bob.sync() == []


@pytest.mark.parametrize("flags", range(8))
def test_request_again(alice: RawClient, flags: int) -> None:
    request(alice)
    assert request(alice, flags) == [("return", ALREADY_OWNER)]


@pytest.mark.parametrize("flags", [0xFF, 0xFFFFFFF8])
def test_unknown_flags_are_ignored(alice: RawClient, bob: RawClient, flags: int) -> None:
    assert request(alice, flags) == [ACQUIRED, ("return", PRIMARY_OWNER)]
    if flags & 7 == 0:
        assert request(bob, flags) == [("return", IN_QUEUE)]


@pytest.mark.parametrize("owner_flags", range(8))
@pytest.mark.parametrize("flags", range(8))
def test_all_flags(
    alice: RawClient, bob: RawClient, watcher: RawClient, owner_flags: int, flags: int
) -> None:
    """Two clients want one name: the specification's table for RequestName."""
    request(alice, owner_flags)
    watcher.sync()
    if owner_flags & ALLOW_REPLACEMENT and flags & REPLACE_EXISTING:
        assert request(bob, flags) == [ACQUIRED, ("return", PRIMARY_OWNER)]
        assert alice.briefs() == [LOST]
        assert watcher.briefs() == [changed(NAME, alice.name, bob.name)]
        stays = [] if owner_flags & DO_NOT_QUEUE else [alice.name]
        assert queue(watcher) == [bob.name, *stays]
    elif flags & DO_NOT_QUEUE:
        assert request(bob, flags) == [("return", EXISTS)]
        assert queue(watcher) == [alice.name]
        assert alice.sync() == watcher.sync() == []
    else:
        assert request(bob, flags) == [("return", IN_QUEUE)]
        assert queue(watcher) == [alice.name, bob.name]
        assert alice.sync() == watcher.sync() == []


def test_p28_replacement_order_for_one_who_watches(alice: RawClient, bob: RawClient) -> None:
    for client in (alice, bob):
        client.match(f"member='NameOwnerChanged',arg0='{NAME}'")
    request(alice, ALLOW_REPLACEMENT)
    bob.sync()
    change = changed(NAME, alice.name, bob.name)
    assert request(bob, REPLACE_EXISTING) == [change, ACQUIRED, ("return", PRIMARY_OWNER)]
    assert alice.briefs() == [LOST, change]


def test_release_hands_over_to_the_next(
    alice: RawClient, bob: RawClient, carol: RawClient, watcher: RawClient
) -> None:
    for client in (alice, bob, carol):
        request(client)
    watcher.sync()
    assert release(alice) == [LOST, ("return", RELEASED)]
    assert bob.briefs() == [ACQUIRED]
    assert carol.sync() == []
    assert watcher.briefs() == [changed(NAME, alice.name, bob.name)]
    assert queue(watcher) == [bob.name, carol.name]


def test_release_of_a_place_in_the_queue(
    alice: RawClient, bob: RawClient, watcher: RawClient
) -> None:
    request(alice)
    request(bob)
    watcher.sync()
    assert release(bob) == [("return", RELEASED)]
    assert release(bob) == [("return", NOT_OWNER)]
    assert watcher.sync() == []
    assert queue(watcher) == [alice.name]
    release(alice)
    assert release(bob) == [("return", NON_EXISTENT)]


def test_replaced_owner_is_next_in_the_queue(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    request(alice, ALLOW_REPLACEMENT)
    request(bob)
    request(carol, REPLACE_EXISTING)
    assert queue(carol) == [carol.name, alice.name, bob.name]


def test_replacement_from_the_queue(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    request(alice, ALLOW_REPLACEMENT)
    request(bob)
    assert request(carol) == [("return", IN_QUEUE)]
    assert request(carol, REPLACE_EXISTING) == [ACQUIRED, ("return", PRIMARY_OWNER)]
    assert queue(carol) == [carol.name, alice.name, bob.name]


def test_replacement_by_one_who_allows_none(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    """What counts is whether the present owner allows it, not one who owned it before."""
    request(alice, ALLOW_REPLACEMENT)
    request(bob, REPLACE_EXISTING)
    assert request(carol, REPLACE_EXISTING) == [("return", IN_QUEUE)]
    assert queue(carol) == [bob.name, carol.name, alice.name]


def test_one_who_would_replace_waits_in_front(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    """Not in the specification: REPLACE_EXISTING that may not replace goes before the others."""
    for client in (alice, bob):
        request(client)
    assert request(carol, REPLACE_EXISTING) == [("return", IN_QUEUE)]
    assert queue(alice) == [alice.name, carol.name, bob.name]
    assert request(bob, REPLACE_EXISTING) == [("return", IN_QUEUE)]
    assert queue(alice) == [alice.name, bob.name, carol.name], "one who waits already as well"


def test_flags_of_an_owner_can_be_changed(alice: RawClient, bob: RawClient) -> None:
    request(alice)
    assert request(alice, ALLOW_REPLACEMENT) == [("return", ALREADY_OWNER)]
    assert request(bob, REPLACE_EXISTING) == [ACQUIRED, ("return", PRIMARY_OWNER)]
    assert queue(bob) == [bob.name, alice.name]


def test_do_not_queue_of_an_owner_can_be_changed(alice: RawClient, bob: RawClient) -> None:
    request(alice, ALLOW_REPLACEMENT)
    request(alice, ALLOW_REPLACEMENT | DO_NOT_QUEUE)
    request(bob, REPLACE_EXISTING)
    assert alice.briefs() == [LOST]
    assert queue(bob) == [bob.name]


def test_do_not_queue_leaves_the_queue(alice: RawClient, bob: RawClient) -> None:
    request(alice)
    request(bob)
    assert request(bob, DO_NOT_QUEUE) == [("return", EXISTS)]
    assert queue(alice) == [alice.name]


def test_asking_twice_keeps_the_place(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    for client in (alice, bob, carol):
        request(client)
    assert request(bob) == [("return", IN_QUEUE)]
    assert queue(alice) == [alice.name, bob.name, carol.name]


def test_replaced_owner_without_queueing_does_not_come_back(
    alice: RawClient, bob: RawClient
) -> None:
    request(alice, ALLOW_REPLACEMENT | DO_NOT_QUEUE)
    request(bob, REPLACE_EXISTING)
    assert alice.briefs() == [LOST]
    release(bob)
    assert alice.sync() == []
    assert alice.bus("NameHasOwner", "s", NAME).brief == ("return", False)


def test_replaced_owner_in_the_queue_comes_back(alice: RawClient, bob: RawClient) -> None:
    request(alice, ALLOW_REPLACEMENT)
    request(bob, REPLACE_EXISTING)
    release(bob)
    assert alice.briefs() == [LOST, ACQUIRED]


# -- the end of a connection


def test_disconnect_tells_of_every_name_the_last_one_first(
    alice: RawClient, watcher: RawClient
) -> None:
    names = [f"com.example.Name{number}" for number in range(3)]
    for name in names:
        request(alice, name=name)
    watcher.sync()
    alice.close()
    told = [watcher.read().brief for _ in range(4)]
    assert told == [changed(name, alice.name, "") for name in [*reversed(names), alice.name]]


def test_disconnect_hands_over(alice: RawClient, bob: RawClient, watcher: RawClient) -> None:
    request(alice)
    request(bob)
    watcher.sync()
    alice.close()
    assert bob.read().brief == ACQUIRED
    assert watcher.briefs() == [
        changed(NAME, alice.name, bob.name),
        changed(alice.name, alice.name, ""),
    ]


def test_disconnect_of_one_in_the_queue(
    alice: RawClient, bob: RawClient, watcher: RawClient
) -> None:
    request(alice)
    request(bob)
    watcher.sync()
    bob.close()
    assert watcher.read().brief == changed(bob.name, bob.name, "")
    assert queue(watcher) == [alice.name]


def test_messages_go_to_the_owner_of_the_moment(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    request(alice, ALLOW_REPLACEMENT)
    carol.send(peer_call(NAME, "First"))
    assert carol.sync() == []
    request(bob, REPLACE_EXISTING)
    carol.send(peer_call(NAME, "Second"))
    assert carol.sync() == []
    assert alice.briefs() == [("call", "First"), LOST]
    assert bob.briefs() == [("call", "Second")]
    release(bob)
    carol.send(peer_call(NAME, "Third"))
    assert carol.sync() == []
    assert bob.sync() == []
    assert alice.briefs() == [ACQUIRED, ("call", "Third")]
