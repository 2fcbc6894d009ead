"""Monitors see everything, in order, and are no part of the bus (P15, S22)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest
from kit import (
    BUS,
    NO_REPLY_EXPECTED,
    SIGNAL,
    Daemon,
    Message,
    RawClient,
    Received,
    busconfig,
    call,
    method_return,
    peer_call,
    signal,
)
from kit.daemon import OPEN_POLICY

Start = Callable[..., Daemon]

NOT_ACTIVE = ":not.active.yet"
MONITORING = f"{BUS}.Monitoring"


def become(client: RawClient, *rules: str) -> RawClient:
    """Make it a monitor; the NameLost of its unique name is read."""
    message = call("BecomeMonitor", "asu", list(rules), 0, interface=MONITORING)
    assert client.exchange(message)[-1].brief == ("return",)
    assert client.read().brief == ("signal", "NameLost", client.name)
    return client


def monitor(daemon: Daemon, *rules: str) -> RawClient:
    return become(daemon.connect(), *rules)


def until(client: RawClient, member: str) -> list[Received]:
    """What a monitor saw up to a last call, without that one."""
    messages = client.read_until(lambda m: m.member == member, member)
    return messages[:-1]


def test_becoming_one_loses_all_names(daemon: Daemon, alice: RawClient) -> None:
    alice.match("member='NameOwnerChanged'")
    client = daemon.connect()
    client.own("com.example.Name")
    become = call("BecomeMonitor", "asu", [], 0, interface=MONITORING)
    alice.sync()
    assert client.ask(become).brief == ("return",)
    lost = [client.read().brief, client.read().brief]
    assert lost == [
        ("signal", "NameLost", client.name),
        ("signal", "NameLost", "com.example.Name"),
    ]
    assert sorted(alice.briefs()) == [
        ("signal", "NameOwnerChanged", client.name, client.name, ""),
        ("signal", "NameOwnerChanged", "com.example.Name", client.name, ""),
    ]
    assert client.name not in alice.bus("ListNames").args[0]
    refused = alice.ask(peer_call(client.name))
    assert refused.error_name == f"{BUS}.Error.ServiceUnknown"


def test_everything_in_order(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    watching = monitor(daemon)
    alice.send(peer_call(bob.name, "Call", "s", "x"))
    bob.send(method_return(bob.receive_call(), "s", "y"))
    alice.read()
    alice.send(signal("Unicast", destination=bob.name))
    alice.send(signal("Broadcast"))
    alice.bus("GetNameOwner", "s", BUS)
    alice.own("com.example.Name")
    alice.send(peer_call(bob.name, "End", flags=NO_REPLY_EXPECTED))
    assert [m.brief for m in until(watching, "End")] == [
        ("call", "Call", "x"),
        ("return", "y"),
        ("signal", "Unicast"),
        ("signal", "Broadcast"),
        ("call", "GetNameOwner", BUS),
        ("return", BUS),
        ("call", "RequestName", "com.example.Name", 0),
        ("signal", "NameOwnerChanged", "com.example.Name", "", alice.name),
        ("signal", "NameAcquired", "com.example.Name"),
        ("return", 1),
    ]


def test_a_client_comes_and_goes(daemon: Daemon, alice: RawClient) -> None:
    watching = monitor(daemon)
    client = daemon.connect()
    client.close()
    alice.until_gone(client.name)
    alice.send(call("ListNames"))
    seen = [m.brief for m in until(watching, "ListNames")]
    name = client.name
    assert [brief for brief in seen if name in brief and brief[1] != "NameHasOwner"] == [
        ("return", name),
        ("signal", "NameOwnerChanged", name, "", name),
        ("signal", "NameAcquired", name),
        ("signal", "NameLost", name),
        ("signal", "NameOwnerChanged", name, name, ""),
    ]
    assert seen[0] == ("call", "Hello")


def test_p15_refusals_are_shown(daemon: Daemon, alice: RawClient) -> None:
    watching = monitor(daemon)
    for _ in range(20):
        alice.ask(peer_call("com.example.None"))
    alice.send(call("ListNames"))
    expected = [
        ("call", "Method"),
        (
            "error",
            f"{BUS}.Error.ServiceUnknown",
            "The name com.example.None was not provided by any .service files",
        ),
    ]
    assert [m.brief for m in until(watching, "ListNames")] == expected * 20


def test_p15_monitoring_begins_and_ends_at_once(
    daemon: Daemon, alice: RawClient, bob: RawClient
) -> None:
    """The same message all the time, before, while and after somebody watches."""
    message = peer_call(bob.name, "Same", flags=NO_REPLY_EXPECTED)

    def say() -> None:
        for _ in range(20):
            alice.send(message)
        assert alice.sync() == []

    say()
    watching = monitor(daemon, "member='Same'")
    say()
    assert [watching.read().member for _ in range(20)] == ["Same"] * 20
    watching.close()
    say()
    assert len(bob.sync()) == 60


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        ("type='method_call'", ["Call"]),
        ("type='signal'", ["Unicast", "Broadcast"]),
        ("sender='{alice}'", ["Call", "Unicast", "Broadcast"]),
        ("destination='{bob}'", ["Call", "Unicast"]),
        ("destination='com.example.Name'", ["Call", "Unicast"]),
        ("arg0='x'", ["Call", "Broadcast"]),
        ("member='Unicast',eavesdrop='true'", ["Unicast"]),
    ],
)
def test_rules_of_a_monitor(
    daemon: Daemon, alice: RawClient, bob: RawClient, rule: str, seen: list[str]
) -> None:
    bob.own("com.example.Name")
    rule = rule.replace("{alice}", alice.name).replace("{bob}", bob.name)
    watching = monitor(daemon, rule, "member='End'")
    alice.send(peer_call(bob.name, "Call", "s", "x"))
    alice.send(signal("Unicast", "s", "y", destination="com.example.Name"))
    alice.send(signal("Broadcast", "s", "x"))
    alice.send(peer_call(bob.name, "End"))
    assert [m.member for m in until(watching, "End")] == seen


def test_a_monitor_that_speaks_is_disconnected(daemon: Daemon, alice: RawClient) -> None:
    for message in (call("GetId"), peer_call(alice.name), signal("S")):
        watching = monitor(daemon, "member='Never'")
        watching.send(message)
        assert watching.closed() == []
    assert alice.sync() == []


def test_messages_to_nobody_are_not_shown(daemon: Daemon, alice: RawClient) -> None:
    """Calls without destination are the connection's own business, and so are unknown types."""
    watching = monitor(daemon)
    alice.ask(call("Foo", destination=None, interface="com.example.Interface"))
    alice.send(Message(77, []))
    alice.send(call("ListNames"))
    assert until(watching, "ListNames") == []


# -- becoming one


def test_who_waits_for_a_new_monitor_is_told(daemon: Daemon, alice: RawClient) -> None:
    """And what it has asked for itself cannot be answered any more."""
    client = daemon.connect()
    alice.send(peer_call(client.name))
    client.receive_call()
    client.send(peer_call(alice.name, "Asked"))
    asked = alice.receive_call()
    become(client, "member='Never'")
    (told,) = alice.sync()
    assert told.brief[1] == f"{BUS}.Error.NoReply"
    assert alice.ask(method_return(asked)).error_name == f"{BUS}.Error.ServiceUnknown"


def test_rules_of_before_are_gone(daemon: Daemon, alice: RawClient) -> None:
    client = daemon.connect()
    client.match("member='Before'")
    become(client, "member='Since'", "member='End'")
    alice.send(signal("Before"))
    alice.send(signal("Since"))
    alice.send(signal("End"))
    assert [m.member for m in until(client, "End")] == ["Since"]


def test_a_monitor_is_nobody(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    client = daemon.connect()
    client.own("com.example.Owned")
    bob.own("com.example.Owned")
    alice.own("com.example.Queued")
    client.own("com.example.Queued")
    become(client, "member='Never'")
    assert bob.sync()[-1].brief == ("signal", "NameAcquired", "com.example.Owned")
    assert alice.bus("ListQueuedOwners", "s", "com.example.Queued").args == ([alice.name],)
    assert alice.bus("GetNameOwner", "s", "com.example.Owned").args == (bob.name,)
    for member in ("GetNameOwner", "GetConnectionCredentials", "ListQueuedOwners"):
        answer = alice.bus(member, "s", client.name)
        assert answer.error_name == f"{BUS}.Error.NameHasNoOwner"
    assert alice.bus("NameHasOwner", "s", client.name).args == (False,)


def test_nobody_hears_of_its_end(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    first, second = monitor(daemon), monitor(daemon)
    bob.match("type='signal'")
    alice.send(signal("Begin"))
    alice.alive()
    first.close()
    alice.alive()
    alice.send(signal("End"))
    alice.alive()
    assert [m.member for m in bob.sync()] == ["Begin", "End"]
    until(second, "Begin")
    assert not [m for m in until(second, "End") if m.type == SIGNAL]


def test_refused_it_stays_what_it_was(daemon: Daemon, alice: RawClient) -> None:
    client = daemon.connect()
    client.own("com.example.Name")
    client.match("member='S'")
    for rules, flags in ((["no rule"], 0), (["member='A'", "x='y'"], 0), ([], 1)):
        refused = client.ask(call("BecomeMonitor", "asu", rules, flags, interface=MONITORING))
        assert refused.brief[0] == "error", rules
    assert alice.bus("GetNameOwner", "s", "com.example.Name").args == (client.name,)
    alice.send(signal("S"))
    alice.alive()
    assert [m.member for m in client.sync()] == ["S"]


# -- what is seen


def seen_by(watching: RawClient, alice: RawClient) -> list[tuple[Any, ...]]:
    """What a monitor has seen up to now, with sender and destination."""
    alice.send(signal("End"))
    return [(m.brief[:2], m.sender, m.destination) for m in until(watching, "End")]


def denying(start: Start, *rules: str) -> Daemon:
    return start(policy=OPEN_POLICY.replace("</policy>", "\n".join([*rules, "</policy>"])))


def test_p15_what_may_not_be_sent_is_shown(start: Start) -> None:
    daemon = denying(start, '<deny send_interface="com.example.Interface"/>')
    alice, bob = daemon.connect(), daemon.connect()
    bob.match("type='signal',interface='com.example.Interface'")
    watching = monitor(daemon)
    refused = "error", f"{BUS}.Error.AccessDenied"
    alice.send(peer_call(bob.name, "Call"))
    alice.send(signal("Unicast", destination=bob.name))
    alice.send(signal("Broadcast"))
    assert [m.brief[:2] for m in alice.sync()] == [refused, refused]
    assert bob.sync() == []
    # of a broadcast nobody is told but those who watch
    assert [entry for entry in seen_by(watching, alice) if entry[0][1] != "GetId"][:6] == [
        (("call", "Call"), alice.name, bob.name),
        (refused, BUS, alice.name),
        (("signal", "Unicast"), alice.name, bob.name),
        (refused, BUS, alice.name),
        (("signal", "Broadcast"), alice.name, None),
        (refused, BUS, alice.name),
    ]


def test_p15_what_may_not_be_received_is_shown(start: Start) -> None:
    daemon = denying(
        start,
        '<deny receive_interface="com.example.Interface" receive_type="method_call"/>',
        '<deny receive_interface="com.example.Interface" receive_type="signal"/>',
        '<deny receive_type="method_return" receive_requested_reply="true"/>',
        f'<allow receive_sender="{BUS}"/>',
    )
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    for client in (bob, carol):
        client.match("type='signal',member='Broadcast'")
    watching = monitor(daemon, "interface='com.example.Interface'", "type='error'")
    refused = "error", f"{BUS}.Error.AccessDenied"
    alice.send(peer_call(bob.name, "Call"))
    alice.send(signal("Broadcast"))
    assert [m.brief[:2] for m in alice.sync()] == [refused]
    seen = seen_by(watching, alice)
    assert seen == [
        (("call", "Call"), alice.name, bob.name),
        (refused, BUS, alice.name),
        (("signal", "Broadcast"), alice.name, None),
        (refused, BUS, alice.name),
        (refused, BUS, alice.name),
    ]


def test_before_hello_as_well(daemon: Daemon, alice: RawClient) -> None:
    watching = monitor(daemon)
    client = daemon.join()
    assert client.ask(call("ListNames")).brief[0] == "error"
    client.hello()
    assert seen_by(watching, alice) == [
        (("call", "ListNames"), NOT_ACTIVE, BUS),
        (("error", f"{BUS}.Error.AccessDenied"), BUS, NOT_ACTIVE),
        (("call", "Hello"), client.name, BUS),
        (("return", client.name), BUS, client.name),
        (("signal", "NameOwnerChanged"), BUS, None),
        (("signal", "NameAcquired"), BUS, client.name),
    ]


def test_errors_of_the_bus(daemon: Daemon, alice: RawClient) -> None:
    watching = monitor(daemon)
    alice.ask(call("Foo"))
    alice.ask(call("GetNameOwner"))
    alice.send(call("ListNames", flags=NO_REPLY_EXPECTED))
    alice.read("the answer all the same")
    assert seen_by(watching, alice) == [
        (("call", "Foo"), alice.name, BUS),
        (("error", f"{BUS}.Error.UnknownMethod"), BUS, alice.name),
        (("call", "GetNameOwner"), alice.name, BUS),
        (("error", f"{BUS}.Error.InvalidArgs"), BUS, alice.name),
        (("call", "ListNames"), alice.name, BUS),
        (("return", ANY), BUS, alice.name),
    ]


def test_p28_changes_of_names_in_the_order_of_the_bus(
    daemon: Daemon, alice: RawClient, bob: RawClient
) -> None:
    watching = monitor(daemon, f"sender='{BUS}'")
    name = "com.example.Name"
    alice.own(name, 1)
    bob.own(name, 2)
    alice.sync()
    bob.bus("ReleaseName", "s", "com.example.Other")
    bob.exchange(call("ReleaseName", "s", name))
    last = bob.name, bob.serial
    seen = watching.read_until(lambda m: (m.destination, m.reply_serial) == last, "the answer")
    briefs = [message.brief[:2] for message in seen]
    assert [brief for brief in briefs if len(str(brief[1])) != 32] == [  # but for GetId's answers
        ("signal", "NameOwnerChanged"),
        ("signal", "NameAcquired"),
        ("return", 1),
        ("signal", "NameLost"),
        ("signal", "NameOwnerChanged"),
        ("signal", "NameAcquired"),
        ("return", 1),
        ("return", 2),
        ("signal", "NameLost"),
        ("signal", "NameOwnerChanged"),
        ("signal", "NameAcquired"),
        ("return", 1),
    ]


def test_once_however_many_rules_fit(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    watching = monitor(daemon, "member='Once'", "type='signal'", "", "member='Once'")
    bob.match("member='Once'")
    alice.send(signal("Once"))
    alice.send(signal("Once", destination=bob.name))
    alice.alive()
    assert [m.member for m in bob.sync()] == ["Once"] * 2
    seen = [entry[0][1] for entry in seen_by(watching, alice) if entry[1] == alice.name]
    assert seen.count("Once") == 2


def test_a_monitor_eavesdrops_whatever_its_rules_say(
    daemon: Daemon, alice: RawClient, bob: RawClient
) -> None:
    watching = monitor(daemon, "eavesdrop='false',member='Call'", "member='End'")
    alice.send(peer_call(bob.name, "Call", flags=NO_REPLY_EXPECTED))
    alice.send(signal("End"))
    assert [m.member for m in until(watching, "End")] == ["Call"]


def test_descriptors_are_shown_to_who_takes_some(
    daemon: Daemon, alice: RawClient, bob: RawClient
) -> None:
    plain = daemon.connect(unix_fds=False)
    become(plain, "member='Fd'", "member='End'")
    watching = monitor(daemon, "member='Fd'", "member='End'")
    fd = os.memfd_create("kit")
    os.write(fd, b"content")
    alice.send(peer_call(bob.name, "Fd", "h", 0, flags=NO_REPLY_EXPECTED, fds=[fd]))
    os.close(fd)
    alice.send(signal("End"))
    assert until(plain, "End") == []
    (seen,) = until(watching, "End")
    for message in (seen, bob.receive_call()):
        (copy,) = message.fds
        assert os.pread(copy, 20, 0) == b"content"
        os.close(copy)


def test_the_other_byte_order(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    watching = monitor(daemon, "arg0='x'")
    alice.send(peer_call(bob.name, "Big", "su", "x", 7, little=False, flags=NO_REPLY_EXPECTED))
    seen = watching.read()
    assert seen.args == ("x", 7)
    assert seen.sender == alice.name


def test_s25_all_see_one_order(daemon: Daemon, alice: RawClient, bob: RawClient) -> None:
    """Two monitors and a subscriber, while two clients speak at once."""
    first, second = (monitor(daemon, "member='S'", "member='End'") for _ in range(2))
    subscriber = daemon.connect()
    subscriber.match("member='S'")
    for number in range(50):
        for client in (alice, bob):
            client.send(signal("S", "u", number))
    alice.sync()
    bob.sync()
    alice.send(signal("End"))
    orders = [[(m.sender, *m.args) for m in until(w, "End")] for w in (first, second)]
    orders.append([(m.sender, *m.args) for m in subscriber.sync()])
    assert orders[0] == orders[1] == orders[2]
    assert len(orders[0]) == 100


def test_a_monitor_that_does_not_read(kind: str) -> None:
    """It misses what its queue does not hold, and nobody else notices.

    dbus-daemon stops reading from those whom it watches.
    """
    if kind == "dbus-daemon":
        pytest.skip("different on purpose")
    with Daemon(kind, busconfig(max_outgoing_bytes=200_000, max_incoming_bytes=200_000)) as daemon:
        alice, bob = daemon.connect(), daemon.connect()
        deaf = monitor(daemon, "interface='com.example.Interface'")
        for number in range(300):
            alice.send(peer_call(bob.name, "Call", "uay", number, bytes(10_000)))
            bob.send(method_return(bob.receive_call()))
            assert alice.read().brief == ("return",)
        seen = []
        while not seen or seen[-1] != "End":
            alice.send(signal("End"))
            alice.alive()
            message = deaf.read()
            seen.append(message.member if message.member == "End" else message.args[0])
        calls = [entry for entry in seen if entry != "End"]
        assert calls == list(range(len(calls)))
        assert 10 <= len(calls) < 300
        alice.send(signal("Seen"))
        deaf.read_until(lambda m: m.member == "Seen", "what comes when there is room")
