"""Where messages go, what the bus changes in them, and in which order they come (S16 to S29)."""

from __future__ import annotations

from typing import Any

import pytest
from kit import (
    BUS,
    ERROR,
    METHOD_RETURN,
    NO_AUTO_START,
    NO_REPLY_EXPECTED,
    Daemon,
    Message,
    RawClient,
    Received,
    call,
    peer_call,
    signal,
)
from kit.message import DESTINATION, ERROR_NAME, MEMBER, PATH, REPLY_SERIAL, SENDER, SIGNATURE

DENIED = f"{BUS}.Error.AccessDenied"
UNKNOWN = f"{BUS}.Error.ServiceUnknown"
NO_OWNER = f"{BUS}.Error.NameHasNoOwner"


def known(message: Received) -> dict[int, Any]:
    return {code: value for code, _, value in message.fields}


def deliver(sender: RawClient, receiver: RawClient, message: Message) -> Received:
    """Send a message, see that the sender is told nothing, answer what the receiver got."""
    sender.send(message)
    assert sender.sync() == []
    (received,) = receiver.sync()
    assert received.sender == sender.name
    return received


# -- unicast


def test_call_arrives_unchanged(alice: RawClient, bob: RawClient) -> None:
    value = {"key": ("(is)", (-5, "text"))}
    received = deliver(alice, bob, peer_call(bob.name, "M", "sa{sv}ad", "x", value, [1.5]))
    assert known(received) == {
        1: "/com/example/Object",
        2: "com.example.Interface",
        3: "M",
        6: bob.name,
        7: alice.name,
        8: "sa{sv}ad",
    }
    assert received.serial == alice.serial - 1
    assert received.args == ("x", value, [1.5])


def test_destination_stays_as_it_was_written(alice: RawClient, bob: RawClient) -> None:
    bob.own("com.example.Name")
    received = deliver(alice, bob, peer_call("com.example.Name"))
    assert received.destination == "com.example.Name"


@pytest.mark.parametrize("flags", [0, 1, 2, 4, 7, 0xF8, 0xFF])
def test_flags_pass_through(alice: RawClient, bob: RawClient, flags: int) -> None:
    assert deliver(alice, bob, peer_call(bob.name, flags=flags)).flags == flags


def test_call_without_interface(alice: RawClient, bob: RawClient) -> None:
    received = deliver(alice, bob, peer_call(bob.name, interface=None))
    assert received.interface is None


def test_signal_with_destination(alice: RawClient, bob: RawClient) -> None:
    received = deliver(alice, bob, signal("S", "s", "x", destination=bob.name))
    assert received.brief == ("signal", "S", "x")


def test_to_oneself(alice: RawClient) -> None:
    alice.send(peer_call(alice.name, "Self"))
    alice.send(signal("Self", destination=alice.name))
    assert alice.briefs() == [("call", "Self"), ("signal", "Self")]


@pytest.mark.parametrize("code", [11, 20, 127, 255])
@pytest.mark.parametrize("first", [True, False])
def test_unknown_header_fields_are_cut_out(
    alice: RawClient, bob: RawClient, code: int, first: bool
) -> None:
    fields = [(code, "s", "hidden"), (code, "(ia{sv})", (7, {"k": ("s", "v")}))]
    message = peer_call(bob.name, "M", "s", "x")
    message.fields = [*fields, *message.fields] if first else [*message.fields, *fields]
    received = deliver(alice, bob, message)
    assert sorted(known(received)) == [1, 2, 3, 6, 7, 8]
    assert b"hidden" not in received.raw
    assert received.brief == ("call", "M", "x")


def test_container_instance_is_cut_out(alice: RawClient, bob: RawClient) -> None:
    """Header field 10 is the reference's own: not relayed, but checked, it must be a path."""
    received = deliver(alice, bob, peer_call(bob.name).plus((10, "o", "/forged")))
    assert sorted(known(received)) == [1, 2, 3, 6, 7]
    alice.send(peer_call(bob.name).plus((10, "s", "forged")))
    assert alice.closed() == []
    bob.alive()


@pytest.mark.parametrize("forged", [":1.999999", BUS, "com.example.Name"])
@pytest.mark.parametrize("first", [True, False])
def test_forged_sender_is_replaced(
    alice: RawClient, bob: RawClient, forged: str, first: bool
) -> None:
    message = peer_call(bob.name, "M", "s", "x")
    field = (SENDER, "s", forged)
    message.fields = [field, *message.fields] if first else [*message.fields, field]
    received = deliver(alice, bob, message)
    assert received.sender == alice.name
    assert forged.encode() not in received.raw


def test_header_fields_in_any_order(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name, "M", "s", "x")
    message.fields.reverse()
    assert deliver(alice, bob, message).brief == ("call", "M", "x")


def test_cve_2011_2200_big_endian_arrives_big_endian(alice: RawClient, bob: RawClient) -> None:
    value = {"key": ("u", 9)}
    message = peer_call(bob.name, "Big", "sqa{sv}", "x", 7, value, little=False)
    received = deliver(alice, bob, message)
    assert not received.little
    assert received.brief == ("call", "Big", "x", 7, value)
    assert received.sender == alice.name


def test_big_endian_calls_to_the_bus(alice: RawClient, bob: RawClient) -> None:
    message = call("GetNameOwner", "s", bob.name, little=False)
    assert alice.ask(message).brief == ("return", bob.name)
    message = call("RequestName", "su", "com.example.Big", 4, little=False)
    assert alice.exchange(message)[-1].brief == ("return", 1)


def test_big_endian_reply_to_little_endian_call(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, serial=500))
    bob.receive_call()
    fields = [(DESTINATION, "s", alice.name), (REPLY_SERIAL, "u", 500)]
    bob.send(Message(METHOD_RETURN, fields, little=False))
    assert alice.read().reply_serial == 500
    alice.send(peer_call(bob.name, serial=500))
    assert alice.sync() == [], "the call was answered: its serial is free again"


def test_large_message(alice: RawClient, bob: RawClient) -> None:
    data = bytes(range(256)) * 4096
    alice.send(peer_call(bob.name, "Large", "ayas", data, ["text"] * 1000))
    assert bob.receive_call().args == (data, ["text"] * 1000)


@pytest.mark.parametrize("pause", [1, 15, 16, 17, 40, 100])
def test_message_in_two_pieces(alice: RawClient, bob: RawClient, pause: int) -> None:
    """The bus waits for the rest; other clients' messages pass meanwhile."""
    data = peer_call(bob.name, "Pieces", "s", "x" * 100).pack(77)
    alice.send_bytes(data[:pause])
    bob.alive()
    alice.send_bytes(data[pause:])
    assert alice.sync() == []
    assert bob.briefs() == [("call", "Pieces", "x" * 100)]


def test_many_messages_in_one_write(alice: RawClient, bob: RawClient) -> None:
    messages = [peer_call(bob.name, f"M{n}", "u", n, flags=NO_REPLY_EXPECTED) for n in range(500)]
    alice.send_bytes(b"".join(message.pack(1000 + n) for n, message in enumerate(messages)))
    for n in range(500):
        received = bob.receive_call()
        assert (received.serial, received.member, received.args) == (1000 + n, f"M{n}", (n,))


# -- nobody there


@pytest.mark.parametrize("name", ["com.example.None", ":1.999999"])
@pytest.mark.parametrize("what", ["call", "signal", "return", "error"])
def test_absent_destination(alice: RawClient, name: str, what: str) -> None:
    """Whatever it is that cannot be delivered, its sender is told."""
    fields = [(DESTINATION, "s", name), (REPLY_SERIAL, "u", 5)]
    message = {
        "call": peer_call(name),
        "signal": signal("S", destination=name),
        "return": Message(METHOD_RETURN, fields),
        "error": Message(ERROR, [*fields, (ERROR_NAME, "s", "com.example.Error")]),
    }[what]
    text = f"The name {name} was not provided by any .service files"
    assert alice.ask(message).brief == ("error", UNKNOWN, text)
    message.flags = NO_REPLY_EXPECTED
    assert alice.ask(message).brief == ("error", UNKNOWN, text)
    message.flags = NO_AUTO_START
    assert alice.ask(message).brief == ("error", NO_OWNER, f'Name "{name}" does not exist')


def test_name_that_was_there(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    """S19: the same message again, and its receiver is gone, and another one is there."""
    bob.own("com.example.Name")
    for _ in range(10):
        alice.send(peer_call("com.example.Name", flags=NO_REPLY_EXPECTED))
    assert alice.sync() == []
    bob.exchange(call("ReleaseName", "s", "com.example.Name"))
    assert alice.ask(peer_call("com.example.Name", flags=1)).error_name == UNKNOWN
    new = daemon.connect()
    new.own("com.example.Name")
    alice.send(peer_call("com.example.Name", "Again", flags=NO_REPLY_EXPECTED))
    assert alice.sync() == []
    assert new.briefs() == [("call", "Again")]


# -- without destination


@pytest.mark.parametrize("what", [METHOD_RETURN, ERROR])
def test_replies_without_destination_go_nowhere(
    alice: RawClient, bob: RawClient, what: int
) -> None:
    bob.match("type='method_return'")
    bob.match("type='error'")
    fields = [(REPLY_SERIAL, "u", 5), (ERROR_NAME, "s", "com.example.Error")]
    alice.send(Message(what, fields if what == ERROR else fields[:1]))
    assert alice.sync() == bob.sync() == []


def test_calls_without_destination_are_no_broadcast(alice: RawClient, bob: RawClient) -> None:
    bob.match("")
    alice.ask(call("Foo", destination=None, interface="com.example.Interface"))
    assert bob.sync() == []


@pytest.mark.parametrize("what", ["signal", "return", "error"])
def test_the_bus_ignores_what_is_no_call(alice: RawClient, what: str) -> None:
    fields = [(DESTINATION, "s", BUS), (REPLY_SERIAL, "u", 5)]
    message = {
        "signal": signal("S", destination=BUS),
        "return": Message(METHOD_RETURN, fields),
        "error": Message(ERROR, [*fields, (ERROR_NAME, "s", "com.example.Error")]),
    }[what]
    alice.send(message)
    alice.alive()


# -- unknown message types


UNKNOWN_TYPE = "Message bus will not accept messages of unknown type\n"


@pytest.mark.parametrize("what", [5, 77, 255])
def test_unknown_type_to_somebody(alice: RawClient, bob: RawClient, what: int) -> None:
    for destination in (bob.name, BUS):
        fields = [(PATH, "o", "/x"), (MEMBER, "s", "M"), (DESTINATION, "s", destination)]
        assert alice.ask(Message(what, fields)).brief == ("error", DENIED, UNKNOWN_TYPE)
    bob.alive()


@pytest.mark.parametrize("what", [5, 77, 255])
def test_unknown_type_to_nobody(alice: RawClient, bob: RawClient, what: int) -> None:
    bob.match("")
    alice.send(Message(what, []))
    alice.send(Message(what, [(PATH, "o", "/x"), (MEMBER, "s", "M")]))
    assert alice.sync() == bob.sync() == []


# -- order


def test_one_sender_one_order(alice: RawClient, bob: RawClient) -> None:
    """S26: unicast, broadcast and driver calls of one sender keep their order."""
    bob.match("interface='com.example.Interface'")
    bob.match("member='NameOwnerChanged',arg0namespace='com.example'")
    for number in range(20):
        alice.send(peer_call(bob.name, f"Call{number}", flags=NO_REPLY_EXPECTED))
        alice.send(signal(f"Broadcast{number}"))
        alice.send(call("RequestName", "su", f"com.example.N{number}", 0))
        alice.send(signal(f"Unicast{number}", destination=bob.name))
    alice.exchange(call("GetId"))
    seen = [m.member if m.sender != BUS else m.args[0] for m in bob.sync()]
    assert seen == [
        text.format(number)
        for number in range(20)
        for text in ("Call{}", "Broadcast{}", "com.example.N{}", "Unicast{}")
    ]


def test_two_receivers_one_order(alice: RawClient, bob: RawClient, daemon: Daemon) -> None:
    """S25: what two clients both receive, they receive in the same order."""
    receivers = [daemon.connect(), daemon.connect()]
    for receiver in receivers:
        receiver.match("interface='com.example.Interface'")
    for number in range(200):
        alice.send(signal(f"Alice{number}"))
        bob.send(signal(f"Bob{number}"))
    alice.sync()
    bob.sync()
    first, second = ([m.member for m in receiver.sync()] for receiver in receivers)
    assert first == second
    for name in ("Alice", "Bob"):
        assert [m for m in first if str(m).startswith(name)] == [f"{name}{n}" for n in range(200)]


def test_triangle(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    """S27: alice tells bob, then carol; bob, told by alice, tells carol: she hears alice first."""
    for _ in range(50):
        alice.send(signal("ToBob", destination=bob.name))
        alice.send(signal("FromAlice", destination=carol.name))
        assert bob.read().member == "ToBob"
        bob.send(signal("FromBob", destination=carol.name))
        assert [carol.read().member, carol.read().member] == ["FromAlice", "FromBob"]


def test_what_was_sent_before_the_close_counts(daemon: Daemon, bob: RawClient) -> None:
    client = daemon.connect()
    client.send_bytes(
        b"".join(signal(f"S{n}", destination=bob.name).pack(100 + n) for n in range(100))
    )
    client.close()
    assert [bob.read().member for _ in range(100)] == [f"S{n}" for n in range(100)]


def test_vanishing_receiver_disturbs_nobody(daemon: Daemon, alice: RawClient) -> None:
    """S29."""
    receivers = [daemon.connect() for _ in range(5)]
    for receiver in receivers:
        receiver.match("member='S'")
    alice.send(signal("S"))
    receivers[2].close()
    alice.send(signal("S"))
    alice.alive()
    for receiver in receivers[:2] + receivers[3:]:
        assert receiver.briefs() == [("signal", "S"), ("signal", "S")]


# -- eavesdropping


def eavesdrop(client: RawClient, rule: str = "eavesdrop='true'") -> None:
    client.exchange(call("AddMatch", "s", rule))
    client.sync()


def overheard(client: RawClient) -> list[tuple[Any, ...]]:
    """What the client got, without the GetId of everybody's `sync`."""
    return [m.brief for m in client.sync() if m.member != "GetId"]


def test_eavesdropper_sees_unicast(alice: RawClient, bob: RawClient, carol: RawClient) -> None:
    eavesdrop(carol)
    alice.send(peer_call(bob.name, "Call", "s", "x", serial=700))
    alice.sync()
    bob.receive_call()
    fields = [(DESTINATION, "s", alice.name), (REPLY_SERIAL, "u", 700)]
    bob.send(Message(METHOD_RETURN, fields))
    bob.sync()
    alice.read()
    alice.send(signal("Unicast", destination=bob.name))
    alice.send(signal("Broadcast"))
    alice.sync()
    assert overheard(carol) == [
        ("call", "Call", "x"),
        ("return",),
        ("signal", "Unicast"),
        ("signal", "Broadcast"),
    ]


def test_eavesdropper_sees_the_destination(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    eavesdrop(carol, "eavesdrop='true',type='method_call'")
    alice.send(peer_call(bob.name))
    alice.sync()
    (copy,) = (m for m in carol.sync() if m.member == "Method")
    original = bob.receive_call()
    assert copy.raw == original.raw, "the same message, byte for byte"


def test_eavesdropper_sees_successful_calls_to_the_bus(alice: RawClient, bob: RawClient) -> None:
    """Calls that fail are not overheard, nor the bus's answers; signals come before the call."""
    eavesdrop(bob)
    alice.bus("GetNameOwner", "s", "com.example.None")
    alice.bus("GetNameOwner", "s", BUS)
    alice.own("com.example.Name")
    alice.ask(peer_call("com.example.None"))
    alice.ask(call("Foo", destination=None, interface="com.example.Interface"))
    assert overheard(bob) == [
        ("call", "GetNameOwner", BUS),
        ("signal", "NameOwnerChanged", "com.example.Name", "", alice.name),
        ("call", "RequestName", "com.example.Name", 0),
    ]


def test_eavesdropper_who_is_addressed_gets_one(alice: RawClient, bob: RawClient) -> None:
    eavesdrop(bob)
    alice.send(peer_call(bob.name, "Once"))
    alice.sync()
    assert overheard(bob) == [("call", "Once")]
    bob.send(peer_call(alice.name, "Own"))
    assert overheard(bob) == [("call", "Own")], "one's own are overheard, too"


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ("destination='com.example.Name'", ["ByName", "ByUnique"]),
        ("destination='{bob}'", ["ByName", "ByUnique"]),
        ("destination='{alice}'", []),
        ("member='ByName'", ["ByName"]),
        ("sender='{alice}'", ["ByName", "ByUnique"]),
        ("sender='{bob}'", []),
        ("type='signal'", []),
    ],
)
def test_eavesdropping_rules(
    alice: RawClient, bob: RawClient, carol: RawClient, rule: str, fits: list[str]
) -> None:
    """The destination of a rule is the owner's, however the message names it."""
    bob.own("com.example.Name")
    rule = rule.replace("{alice}", alice.name).replace("{bob}", bob.name)
    eavesdrop(carol, f"eavesdrop='true',{rule}")
    alice.send(peer_call("com.example.Name", "ByName"))
    alice.send(peer_call(bob.name, "ByUnique"))
    alice.sync()
    assert [m[1] for m in overheard(carol)] == fits


def test_p15_eavesdropping_begins_and_ends_at_once(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    """The same message all the time: before, while and after somebody overhears it."""

    def say() -> None:
        for _ in range(10):
            alice.send(peer_call(bob.name, "Same", flags=NO_REPLY_EXPECTED))
        assert alice.sync() == []

    say()
    eavesdrop(carol, "eavesdrop='true',member='Same'")
    say()
    assert len(carol.sync()) == 10
    carol.exchange(call("RemoveMatch", "s", "eavesdrop='true',member='Same'"))
    say()
    assert carol.sync() == []
    assert len(bob.sync()) == 30


def test_signature_field_may_be_empty(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name).plus((SIGNATURE, "g", ""))
    assert deliver(alice, bob, message).args == ()


def test_p27_large_and_small_come_in_the_order_they_were_sent(daemon: Daemon) -> None:
    """Whole messages, parts, answers of the bus: all go through one queue, full or not."""
    sender, receiver = daemon.connect(), daemon.connect()
    receiver.match("member='NameOwnerChanged',arg0namespace='com.example.order'")
    expected = []
    for number in range(12):
        size = 400_000 if number % 3 == 0 else number
        sender.send(peer_call(receiver.name, f"M{number}", "ay", bytes(size), flags=1))
        expected.append(f"M{number}")
        if number % 4 == 1:
            sender.send(call("RequestName", "su", f"com.example.order.N{number}", 4))
            expected.append("NameOwnerChanged")
    sender.sync()
    seen = [receiver.read() for _ in expected]
    assert [message.member for message in seen] == expected
