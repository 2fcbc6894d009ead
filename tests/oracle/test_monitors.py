"""Monitors see everything, in order, and are no part of the bus (P15, S22)."""

from __future__ import annotations

import pytest
from kit import (
    BUS,
    NO_REPLY_EXPECTED,
    Daemon,
    Message,
    RawClient,
    Received,
    call,
    method_return,
    peer_call,
    signal,
)

MONITORING = f"{BUS}.Monitoring"


def monitor(daemon: Daemon, *rules: str) -> RawClient:
    """A client that became a monitor; its NameLost is read."""
    client = daemon.connect()
    become = call("BecomeMonitor", "asu", list(rules), 0, interface=MONITORING)
    assert client.ask(become).brief == ("return",)
    assert client.read().brief == ("signal", "NameLost", client.name)
    return client


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
