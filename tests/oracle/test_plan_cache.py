"""What a remembered header must not hide: P11 to P14, each by messages that were the same so far.

The reference remembers nothing, so it answers as if each message were the first: what it does after
twenty good messages is what a daemon with a memory has to do as well.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

import pytest
from kit import (
    BUS,
    METHOD_CALL,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    SIGNAL,
    Daemon,
    Message,
    RawClient,
    call,
    error,
    method_return,
    peer_call,
    signal,
)
from kit.message import DESTINATION, INTERFACE, MEMBER, PATH, REPLY_SERIAL, SIGNATURE

OFTEN = 20
"""Times after which whatever can be remembered is remembered."""

SERIAL = 9000
REUSED = (
    "error",
    f"{BUS}.Error.AccessDenied",
    "Message has the same reply serial as a currently-outstanding existing method call",
)


def repeat(sender: RawClient, receiver: RawClient, message: Message) -> None:
    """Have the message sent and delivered so often that the bus knows it by heart."""
    for _ in range(OFTEN):
        sender.send(message)
    assert sender.sync() == []
    assert len(receiver.sync()) == OFTEN


def silent(to: RawClient, member: str = "Same", signature: str = "", *args: object) -> Message:
    return peer_call(to.name, member, signature, *args, flags=NO_REPLY_EXPECTED)


def reply(to: RawClient, serial: int, *, last: bool = True, little: bool = True) -> Message:
    fields = [(DESTINATION, "s", to.name), (REPLY_SERIAL, "u", serial)]
    return Message(METHOD_RETURN, fields if last else fields[::-1], little=little)


# -- P11


def test_p11_1_type_changes_with_the_same_fields(alice: RawClient, bob: RawClient) -> None:
    fields = [
        (PATH, "o", "/x"),
        (INTERFACE, "s", "a.b"),
        (MEMBER, "s", "M"),
        (DESTINATION, "s", bob.name),
    ]
    kinds = [METHOD_CALL, SIGNAL, SIGNAL, METHOD_CALL] * OFTEN
    for kind in kinds:
        alice.send(Message(kind, fields))
    assert alice.sync() == []
    assert [m.type for m in bob.sync()] == kinds


def test_p11_1_unknown_type_with_the_same_fields(alice: RawClient, bob: RawClient) -> None:
    message = silent(bob)
    repeat(alice, bob, message)
    message.type = 77
    assert alice.ask(message).error_name == f"{BUS}.Error.AccessDenied"
    message.type = METHOD_CALL
    repeat(alice, bob, message)


def test_p11_1_flags_change_with_the_same_fields(alice: RawClient, bob: RawClient) -> None:
    """NO_REPLY_EXPECTED on and off: what is delivered, and which serials are taken."""
    flags = [0, 1, 0, 1, 4, 5, 0xF8, 1] * OFTEN
    for value in flags:
        alice.send(peer_call(bob.name, flags=value))
    assert alice.sync() == []
    assert [m.flags for m in bob.sync()] == flags
    for value in (1, 1, 0):
        alice.send(peer_call(bob.name, flags=value, serial=SERIAL))
    assert alice.sync() == []
    alice.send(peer_call(bob.name, serial=SERIAL))
    assert alice.briefs() == [REUSED]


def test_p11_1_no_auto_start_with_the_same_fields(alice: RawClient) -> None:
    for _ in range(OFTEN):
        reply = alice.ask(peer_call("com.example.None"))
        assert reply.error_name == f"{BUS}.Error.ServiceUnknown"
        reply = alice.ask(peer_call("com.example.None", flags=2))
        assert reply.error_name == f"{BUS}.Error.NameHasNoOwner"


def test_p11_1_version_with_the_same_fields(alice: RawClient, bob: RawClient) -> None:
    message = silent(bob)
    repeat(alice, bob, message)
    message.version = 2
    alice.send(message)
    assert alice.closed() == []
    assert bob.sync() == []


def test_p11_2_serial_zero(alice: RawClient, bob: RawClient) -> None:
    message = silent(bob)
    repeat(alice, bob, message)
    alice.send_bytes(message.pack(0))
    assert alice.closed() == []
    assert bob.sync() == []


@pytest.mark.parametrize("last", [True, False])
def test_p11_2_reply_serial_zero(alice: RawClient, bob: RawClient, last: bool) -> None:
    for number in range(1, OFTEN):
        alice.send(reply(bob, number, last=last))
    assert alice.sync() == []
    assert [m.reply_serial for m in bob.sync()] == list(range(1, OFTEN))
    alice.send(reply(bob, 0, last=last))
    assert alice.closed() == []
    assert bob.sync() == []


def test_p11_3_body_without_signature(alice: RawClient, bob: RawClient) -> None:
    message = silent(bob)
    repeat(alice, bob, message)
    message.body = bytes(4)
    alice.send(message)
    assert alice.closed() == []
    assert bob.sync() == []


def test_p11_3_body_of_another_length(alice: RawClient, bob: RawClient) -> None:
    message = silent(bob, "Same", "u", 7)
    repeat(alice, bob, message)
    message.body = bytes(8)
    alice.send(message)
    assert alice.closed() == []
    assert bob.sync() == []


def test_p11_3_message_too_large(start: Callable[..., Daemon]) -> None:
    daemon = start(max_message_size=10_000)
    alice, bob = daemon.connect(), daemon.connect()
    repeat(alice, bob, silent(bob, "Same", "ay", bytes(9000)))
    alice.send_bytes(silent(bob, "Same", "ay", bytes(10_000)).pack(9)[:200])
    assert alice.closed() == []
    assert bob.sync() == []


@pytest.fixture
def file() -> Iterator[int]:
    """Any descriptor (not one of the connection's own, which would keep it open)."""
    fd = os.memfd_create("kit")
    yield fd
    os.close(fd)


def test_p11_4_fds_that_nobody_announced(alice: RawClient, bob: RawClient, file: int) -> None:
    """A message without UNIX_FDS brings one all the same: it is left over for the next."""
    message = silent(bob)
    repeat(alice, bob, message)
    alice.send_bytes(message.pack(9), [file])
    assert alice.sync() == []
    assert bob.receive_call().unix_fds == 0
    alice.send(silent(bob).plus((9, "u", 1)))
    assert bob.receive_call().unix_fds == 1


def test_p11_4_fds_announced_and_missing(alice: RawClient, bob: RawClient, file: int) -> None:
    message = silent(bob)
    message.fds = [file]
    message.plus((9, "u", 1))
    repeat(alice, bob, message)
    message.fds = []
    alice.send(message)
    assert alice.closed() == []
    assert bob.sync() == []


def test_p11_5_serial_of_an_open_call(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name, "Same")
    repeat(alice, bob, message)
    message.serial = SERIAL
    alice.send(message)
    alice.send(message)
    alice.send(message)
    assert alice.briefs() == [REUSED, REUSED]
    assert len(bob.sync()) == 1


def test_p11_5_too_many_open_calls(start: Callable[..., Daemon]) -> None:
    daemon = start(max_replies_per_connection=5)
    alice, bob = daemon.connect(), daemon.connect()
    for _ in range(5):
        alice.send(peer_call(bob.name, "Same"))
        bob.send(method_return(bob.receive_call()))
        assert alice.read().brief == ("return",)
    for _ in range(5):
        alice.send(peer_call(bob.name, "Same"))
    assert alice.sync() == []
    refused = alice.ask(peer_call(bob.name, "Same"))
    assert refused.error_name == f"{BUS}.Error.LimitsExceeded"
    first = bob.receive_call()
    assert len(bob.sync()) == 4
    bob.send(method_return(first))
    assert alice.read().brief == ("return",)
    alice.send(peer_call(bob.name, "Same"))
    assert alice.sync() == []


def test_p11_5_a_refused_call_is_not_open(alice: RawClient, bob: RawClient) -> None:
    """Refused for want of descriptors, say: its serial is free."""
    plain = alice
    message = peer_call(plain.name, "Same", serial=SERIAL)
    for _ in range(OFTEN):
        bob.send(message)
        received = plain.receive_call()
        plain.send(error(received, "com.example.Error"))
        assert bob.read().brief[0] == "error"
    assert bob.sync() == []


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("what", ["return", "error", "signal", "call"])
def test_p11_6_whatever_has_a_reply_serial_takes_the_call(
    alice: RawClient, bob: RawClient, what: str, last: bool
) -> None:
    for number in range(OFTEN):
        alice.send(peer_call(bob.name, "Same", serial=SERIAL))
        assert alice.sync() == [], f"the serial is free, time {number}"
        bob.receive_call()
        message = {
            "return": Message(METHOD_RETURN, [(DESTINATION, "s", alice.name)]),
            "error": Message(3, [(DESTINATION, "s", alice.name), (4, "s", "com.example.Error")]),
            "signal": signal("S", destination=alice.name),
            "call": silent(alice),
        }[what]
        field = (REPLY_SERIAL, "u", SERIAL)
        message.fields = [*message.fields, field] if last else [field, *message.fields]
        bob.send(message)
        assert bob.sync() == []
        assert alice.read().reply_serial == SERIAL


def test_p11_6_broadcast_takes_none(alice: RawClient, bob: RawClient) -> None:
    alice.match("member='Broadcast'")
    alice.send(peer_call(bob.name, "Same", serial=SERIAL))
    message = signal("Broadcast").plus((REPLY_SERIAL, "u", SERIAL))
    for _ in range(OFTEN):
        bob.send(message)
    bob.sync()
    assert len(alice.sync()) == OFTEN
    alice.send(peer_call(bob.name, "Same", serial=SERIAL))
    assert alice.briefs() == [REUSED]


CLOSED_POLICY = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
  </policy>"""


def test_p11_6_asked_and_not_asked_are_two_verdicts(start: Callable[..., Daemon]) -> None:
    daemon = start(policy=CLOSED_POLICY)
    alice, bob = daemon.connect(), daemon.connect()
    for _ in range(OFTEN):
        alice.send(peer_call(bob.name))
        received = bob.receive_call()
        bob.send(method_return(received))
        assert alice.read().brief == ("return",)
        refused = bob.ask(method_return(received))
        assert refused.error_name == f"{BUS}.Error.AccessDenied"
        assert "Rejected send message, " in refused.args[0]
    assert alice.sync() == []


def test_p11_8_arguments_are_looked_at_each_time(alice: RawClient, bob: RawClient) -> None:
    bob.match("arg0='yes'")
    bob.match("arg1path='/a/'")
    for number in range(OFTEN):
        for little in (True, False):
            for args in (("yes", "/b"), ("no", "/b"), ("no", "/a/c"), ("yes", "/a/c")):
                alice.send(signal("Same", "ss", *args, little=little, serial=1000 + number))
    assert alice.sync() == []
    expected = [("yes", "/b"), ("no", "/a/c"), ("yes", "/a/c")] * 2 * OFTEN
    assert [m.args for m in bob.sync()] == expected


# -- P12: names


def test_p12_owner_changes(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    message = peer_call("com.example.Name", flags=NO_REPLY_EXPECTED)
    for _ in range(OFTEN):
        bob.own("com.example.Name")
        alice.send(message)
        assert alice.sync() == []
        assert "Method" in [m.member for m in bob.sync()]
        carol.own("com.example.Name")
        bob.exchange(call("ReleaseName", "s", "com.example.Name"))
        alice.send(message)
        assert alice.sync() == []
        assert [m.member for m in carol.sync()] == ["NameAcquired", "Method"]
        carol.exchange(call("ReleaseName", "s", "com.example.Name"))
        assert alice.ask(message).error_name == f"{BUS}.Error.ServiceUnknown"


def test_p12_sender_of_a_rule_changes(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    carol.match("sender='com.example.Name',member='Same'")
    for _ in range(5):
        for owner in (alice, bob):
            owner.own("com.example.Name")
            for sender in (alice, bob):
                sender.send(signal("Same"))
                assert sender.sync() == []
            assert [m.sender for m in carol.sync()] == [owner.name]
            owner.exchange(call("ReleaseName", "s", "com.example.Name"))


def test_p12_rules_come_and_go(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    rules = ["", "member='Same'", "interface='com.example.Interface',member='Same'", "path='/x'"]
    for rule in [*rules, *rules]:
        alice.send(signal("Same", path="/x"))
        assert alice.sync() == []
        assert bob.sync() == carol.sync() == []
        for client in (bob, carol):
            client.match(rule)
        alice.send(signal("Same", path="/x"))
        assert alice.sync() == []
        for client in (bob, carol):
            assert len(client.sync()) == 1
            client.bus("RemoveMatch", "s", rule)


QUEUE_POLICY = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <deny send_destination="com.example.Forbidden" send_interface="com.example.Interface"/>
    <deny receive_sender="com.example.Unheard" receive_interface="com.example.Interface"/>
  </policy>"""


def test_p12_names_that_the_policy_forbids(start: Callable[..., Daemon]) -> None:
    """A destination is judged by all names it owns or waits for, unicast or broadcast."""
    daemon = start(policy=QUEUE_POLICY)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    carol.own("com.example.Forbidden")
    bob.match("member='Broadcast'")
    for _ in range(3):
        repeat(alice, bob, silent(bob))
        repeat(alice, bob, signal("Broadcast"))
        assert bob.own("com.example.Forbidden") == 2, "in the queue"
        denied = alice.ask(silent(bob))
        assert denied.error_name == f"{BUS}.Error.AccessDenied"
        alice.send(signal("Broadcast"))
        assert alice.sync() == bob.sync() == []
        bob.bus("ReleaseName", "s", "com.example.Forbidden")


def test_p12_names_of_the_sender_that_the_policy_forbids(start: Callable[..., Daemon]) -> None:
    daemon = start(policy=QUEUE_POLICY)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    carol.own("com.example.Unheard")
    bob.match("member='Broadcast'")
    for _ in range(3):
        repeat(alice, bob, silent(bob))
        repeat(alice, bob, signal("Broadcast"))
        assert alice.own("com.example.Unheard") == 2, "in the queue"
        denied = alice.ask(silent(bob))
        assert denied.error_name == f"{BUS}.Error.AccessDenied"
        assert denied.args[0].startswith("Rejected receive message, ")
        alice.send(signal("Broadcast"))
        assert alice.sync() == bob.sync() == []
        alice.bus("ReleaseName", "s", "com.example.Unheard")


def test_p12_receiver_leaves(daemon: Daemon, alice: RawClient) -> None:
    bob = daemon.connect()
    message = silent(bob)
    repeat(alice, bob, message)
    bob.close()
    alice.until_gone(bob.name)
    for _ in range(OFTEN):
        text = f"The name {bob.name} was not provided by any .service files"
        assert alice.ask(message).brief == ("error", f"{BUS}.Error.ServiceUnknown", text)


# -- P13: the place of REPLY_SERIAL


def test_p13_reply_serial_in_changing_places(alice: RawClient, bob: RawClient) -> None:
    for number in range(1, OFTEN):
        for last in (True, False):
            for little in (True, False):
                alice.send(reply(bob, number, last=last, little=little))
    assert alice.sync() == []
    expected = [number for number in range(1, OFTEN) for _ in range(4)]
    assert [m.reply_serial for m in bob.sync()] == expected


def test_p13_looks_like_a_reply_serial(alice: RawClient, bob: RawClient) -> None:
    """An unknown field whose value has the bytes of a REPLY_SERIAL field in it."""
    for number in range(1, OFTEN):
        bait = b"\5\1u\0" + struct.pack("<I", 7000 + number)
        alice.send(peer_call(bob.name, serial=SERIAL + number))
        bob.receive_call()
        message = reply(alice, SERIAL + number)
        message.fields = [(99, "(yvat)", (5, ("u", 7000), [])), (98, "ay", bait), *message.fields]
        bob.send(message)
        assert bob.sync() == []
        received = alice.read()
        assert received.reply_serial == SERIAL + number
        assert bait not in received.raw


def test_p13_reply_serial_of_another_type(alice: RawClient, bob: RawClient) -> None:
    for number in range(1, OFTEN):
        alice.send(reply(bob, number))
    alice.send(Message(METHOD_RETURN, [(DESTINATION, "s", bob.name), (REPLY_SERIAL, "i", 5)]))
    assert alice.closed() == []
    assert len(bob.sync()) == OFTEN - 1


def test_p13_two_reply_serials(alice: RawClient, bob: RawClient) -> None:
    for number in range(1, OFTEN):
        alice.send(reply(bob, number))
    alice.send(reply(bob, 5).plus((REPLY_SERIAL, "u", 6)))
    assert alice.closed() == []
    assert len(bob.sync()) == OFTEN - 1


# -- P14: byte orders


def body(to: RawClient, signature: str, data: bytes, little: bool) -> Message:
    fields = silent(to).fields
    return Message(METHOD_CALL, [*fields, (SIGNATURE, "g", signature)], data, 1, little=little)


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("signature", ["b", "ub", "(b)", "v"])
def test_p14_boolean_of_the_other_byte_order(
    alice: RawClient, bob: RawClient, signature: str, little: bool
) -> None:
    order = "<I" if little else ">I"
    start = {"b": b"", "ub": bytes(4), "(b)": b"", "v": b"\1b\0\0"}[signature]
    for value in (0, 1):
        repeat(alice, bob, body(bob, signature, start + struct.pack(order, value), little))
    alice.send(body(bob, signature, start + struct.pack(order, 1), not little))
    assert alice.closed() == []
    assert bob.sync() == []


@pytest.mark.parametrize("little", [True, False])
def test_p14_string_of_the_other_byte_order(alice: RawClient, bob: RawClient, little: bool) -> None:
    order = "<I" if little else ">I"
    data = struct.pack(order, 4) + b"text\0"
    repeat(alice, bob, body(bob, "s", data, little))
    alice.send(body(bob, "s", data, not little))
    assert alice.closed() == []
    assert bob.sync() == []
