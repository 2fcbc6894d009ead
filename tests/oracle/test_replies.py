"""Calls and their answers: open calls, serials used again, late answers, callees that vanish.

"Reply" means REPLY_SERIAL, not the type: whatever is addressed to the caller with the serial of
an open call takes that call's place.
"""

from __future__ import annotations

import pytest
from kit import (
    BUS,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    Daemon,
    Message,
    RawClient,
    error,
    method_return,
    peer_call,
    signal,
)
from kit.message import DESTINATION, REPLY_SERIAL

SERIAL = 5000
REUSED = (
    "error",
    f"{BUS}.Error.AccessDenied",
    "Message has the same reply serial as a currently-outstanding existing method call",
)
NO_REPLY = (
    "error",
    f"{BUS}.Error.NoReply",
    "Message recipient disconnected from message bus without replying",
)


def is_open(caller: RawClient, callee: RawClient, serial: int = SERIAL) -> bool:
    """Whether a call with this serial is still open; if not, it is now."""
    caller.send(peer_call(callee.name, "Probe", serial=serial))
    found = caller.briefs()
    callee.sync()
    assert found in ([], [REUSED])
    return found == [REUSED]


def test_return(alice: RawClient, bob: RawClient) -> None:
    serial = alice.send(peer_call(bob.name, "M"))
    bob.send(method_return(bob.receive_call(), "s", "answer"))
    reply = alice.read()
    assert reply.brief == ("return", "answer")
    assert (reply.reply_serial, reply.sender, reply.destination) == (serial, bob.name, alice.name)
    bob.alive()


def test_error(alice: RawClient, bob: RawClient) -> None:
    serial = alice.send(peer_call(bob.name, "M"))
    bob.send(error(bob.receive_call(), "com.example.Error", "text"))
    reply = alice.read()
    assert reply.brief == ("error", "com.example.Error", "text")
    assert reply.reply_serial == serial


def test_late_and_repeated_answers_are_delivered(alice: RawClient, bob: RawClient) -> None:
    """Under an open policy nobody asks whether an answer was awaited."""
    alice.send(peer_call(bob.name))
    received = bob.receive_call()
    bob.send(method_return(received, "s", "one"))
    bob.send(method_return(received, "s", "two"))
    bob.send(error(received, "com.example.Error", "three"))
    assert bob.sync() == []
    assert [m.args for m in alice.sync()] == [("one",), ("two",), ("three",)]


def test_unasked_answers_are_delivered(alice: RawClient, bob: RawClient) -> None:
    fields = [(DESTINATION, "s", alice.name), (REPLY_SERIAL, "u", 777)]
    bob.send(Message(METHOD_RETURN, fields))
    assert bob.sync() == []
    assert alice.briefs() == [("return",)]


def test_answer_to_no_reply_expected_is_delivered(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED))
    bob.send(method_return(bob.receive_call()))
    assert bob.sync() == []
    assert alice.briefs() == [("return",)]


# -- serials used again


def test_serial_of_an_open_call(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, "First", serial=SERIAL))
    alice.send(peer_call(bob.name, "Second", serial=SERIAL))
    (refused,) = alice.sync()
    assert refused.brief == REUSED
    assert (refused.sender, refused.reply_serial) == (BUS, SERIAL)
    assert bob.briefs() == [("call", "First")]


def test_serial_of_an_answered_call(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, serial=SERIAL))
    bob.send(method_return(bob.receive_call()))
    alice.read()
    assert not is_open(alice, bob)


def test_same_serial_to_another_peer(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    for callee in (bob, carol):
        alice.send(peer_call(callee.name, serial=SERIAL))
    assert alice.sync() == []
    assert len(bob.sync()) == len(carol.sync()) == 1


def test_same_serial_by_another_caller(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    for caller in (alice, bob):
        caller.send(peer_call(carol.name, serial=SERIAL))
        assert caller.sync() == []


def test_same_serial_without_reply_is_no_second_call(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, serial=SERIAL))
    alice.send(peer_call(bob.name, serial=SERIAL, flags=NO_REPLY_EXPECTED))
    alice.send(signal("S", destination=bob.name, serial=SERIAL))
    assert alice.sync() == []
    assert len(bob.sync()) == 3


def test_no_reply_expected_leaves_nothing_open(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, serial=SERIAL, flags=NO_REPLY_EXPECTED))
    assert not is_open(alice, bob)


# -- what closes an open call


@pytest.fixture
def opened(alice: RawClient, bob: RawClient) -> RawClient:
    """Alice, whose call SERIAL to bob is open."""
    alice.send(peer_call(bob.name, serial=SERIAL))
    assert alice.sync() == []
    bob.receive_call()
    return alice


def test_answer_by_a_stranger(opened: RawClient, bob: RawClient, carol: RawClient) -> None:
    fields = [(DESTINATION, "s", opened.name), (REPLY_SERIAL, "u", SERIAL)]
    carol.send(Message(METHOD_RETURN, fields))
    assert carol.sync() == []
    assert opened.briefs() == [("return",)]
    assert is_open(opened, bob)


def test_signal_with_reply_serial(opened: RawClient, bob: RawClient) -> None:
    bob.send(signal("S", destination=opened.name).plus((REPLY_SERIAL, "u", SERIAL)))
    assert bob.sync() == []
    assert opened.briefs() == [("signal", "S")]
    assert not is_open(opened, bob)


def test_call_with_reply_serial(opened: RawClient, bob: RawClient) -> None:
    bob.send(peer_call(opened.name, "Back").plus((REPLY_SERIAL, "u", SERIAL)))
    assert bob.sync() == []
    assert opened.briefs() == [("call", "Back")]
    assert not is_open(opened, bob)


def test_broadcast_with_reply_serial(opened: RawClient, bob: RawClient) -> None:
    opened.match("member='Broadcast'")
    bob.send(signal("Broadcast").plus((REPLY_SERIAL, "u", SERIAL)))
    assert bob.sync() == []
    assert opened.briefs() == [("signal", "Broadcast")]
    assert is_open(opened, bob)


def test_signal_without_reply_serial(opened: RawClient, bob: RawClient) -> None:
    bob.send(signal("S", destination=opened.name))
    assert bob.sync() == []
    opened.sync()
    assert is_open(opened, bob)


def test_answer_to_a_name_of_the_caller(opened: RawClient, bob: RawClient) -> None:
    opened.own("com.example.Caller")
    fields = [(DESTINATION, "s", "com.example.Caller"), (REPLY_SERIAL, "u", SERIAL)]
    bob.send(Message(METHOD_RETURN, fields))
    assert bob.sync() == []
    assert opened.briefs() == [("return",)]
    assert not is_open(opened, bob)


# -- one of the two leaves


def test_callee_leaves(opened: RawClient, bob: RawClient) -> None:
    bob.close()
    reply = opened.read()
    assert reply.brief == NO_REPLY
    assert (reply.reply_serial, reply.sender, reply.destination) == (SERIAL, BUS, opened.name)
    assert reply.flags == 1
    opened.alive()


def test_callee_leaves_many_calls(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    """Each open call gets its error, of each caller; answered and unasked ones get none."""
    carol = daemon.connect()
    serials = [alice.send(peer_call(bob.name)) for _ in range(10)]
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED))
    alice.sync()
    other = carol.send(peer_call(bob.name))
    carol.sync()
    bob.send(method_return(bob.receive_call()))
    bob.sync()
    alice.read()
    bob.close()
    errors = [alice.read() for _ in range(9)]
    assert sorted(m.reply_serial or 0 for m in errors) == serials[1:]
    assert {m.brief for m in errors} == {NO_REPLY}
    assert carol.read().reply_serial == other
    alice.alive()
    carol.alive()


def test_caller_leaves(daemon: Daemon, bob: RawClient) -> None:
    """The answer comes too late: its sender is told that nobody is there."""
    caller = daemon.connect()
    caller.send(peer_call(bob.name))
    caller.sync()
    caller.close()
    received = bob.receive_call()
    bob.until_gone(caller.name)
    reply = bob.ask(method_return(received))
    text = f"The name {caller.name} was not provided by any .service files"
    assert reply.brief == ("error", f"{BUS}.Error.ServiceUnknown", text)


def test_calls_to_oneself(alice: RawClient) -> None:
    alice.send(peer_call(alice.name, serial=SERIAL))
    received = alice.receive_call()
    assert is_open(alice, alice)
    alice.send(method_return(received))
    assert alice.read().brief == ("return",)


@pytest.mark.parametrize("caller_comes_first", [True, False])
def test_the_end_of_the_bus_is_no_end_of_a_callee(kind: str, caller_comes_first: bool) -> None:
    """Who waits for an answer hears no NoReply, whoever is disconnected first."""
    with Daemon(kind) as daemon:
        first, second = RawClient(daemon.address), RawClient(daemon.address)
        first.join()
        second.join()
        caller, callee = (first, second) if caller_comes_first else (second, first)
        caller.send(peer_call(callee.name))
        callee.receive_call()
    assert caller.closed() == []
    caller.close()
    callee.close()
