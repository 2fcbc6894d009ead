"""What becomes of messages that wait for a name, in odd cases: the same on both daemons."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from kit import (
    BUS,
    NO_REPLY_EXPECTED,
    Message,
    RawClient,
    Received,
    call,
    error,
    method_return,
    peer_call,
)
from kit.services import NAME, Services


def join(services: Services, count: int) -> list[RawClient]:
    return [services.daemon.connect() for _ in range(count)]


def briefs(messages: list[Received]) -> list[tuple[Any, ...]]:
    return [message.brief for message in messages]


def hold(services: Services, client: RawClient, *messages: Message) -> None:
    """Send what waits for the name, and wait until its program runs."""
    for message in messages:
        client.send(message)
    assert client.sync() == []
    services.until_started()


def take(client: RawClient) -> list[tuple[Any, ...]]:
    """Take the name; what was held."""
    first, *held, last = briefs(client.exchange(call("RequestName", "su", NAME, 0)))
    assert first == ("signal", "NameAcquired", NAME)
    assert last == ("return", 1)
    return held


def start(name: str = NAME, flags: int = 0) -> Message:
    return call("StartServiceByName", "su", name, flags)


def test_the_same_serial_twice(services: Services) -> None:
    alice, bob = join(services, 2)
    services.wait()
    hold(services, alice, peer_call(NAME, "A", serial=500), peer_call(NAME, "B", serial=500))
    assert take(bob) == [("call", "A")]
    (answer,) = alice.sync()
    assert (answer.brief[1], answer.reply_serial) == (f"{BUS}.Error.AccessDenied", 500)


def test_replies_to_nothing_start_as_well(services: Services) -> None:
    alice, bob = join(services, 2)
    services.wait()
    question = Received(peer_call(NAME, "Q").pack(5))
    answers = [method_return(question), error(question, "com.example.Error")]
    for answer in answers:
        answer.fields.append((6, "s", NAME))
    hold(services, alice, *answers)
    assert take(bob) == [("return",), ("error", "com.example.Error", "")]


def test_a_sender_that_has_become_a_monitor(services: Services) -> None:
    alice, bob = join(services, 2)
    services.wait()
    hold(services, alice, peer_call(NAME, "A"), start())
    rules = ["member='Nothing'"]
    alice.exchange(call("BecomeMonitor", "asu", rules, 0, interface=f"{BUS}.Monitoring"))
    assert take(bob) == [("call", "A")]


def test_calls_count_as_open_when_they_are_delivered(begin: Callable[..., Services]) -> None:
    services = begin(max_replies_per_connection=1)
    alice, bob = join(services, 2)
    services.wait()
    hold(
        services,
        alice,
        peer_call(NAME, "A"),
        peer_call(NAME, "B"),
        peer_call(NAME, "C", flags=NO_REPLY_EXPECTED),
    )
    assert take(bob) == [("call", "A"), ("call", "C")]
    (answer,) = alice.sync()
    assert answer.brief[1] == f"{BUS}.Error.LimitsExceeded"


def test_both_byte_orders(services: Services) -> None:
    alice, bob = join(services, 2)
    services.wait()
    big = peer_call(NAME, "B", "su", "x", 5, little=False)
    hold(services, alice, big, peer_call(NAME, "L", "su", "x", 5))
    assert take(bob) == [("call", "B", "x", 5), ("call", "L", "x", 5)]


def test_they_are_overheard_when_they_are_delivered(services: Services) -> None:
    alice, bob, eve = join(services, 3)
    services.wait()
    eve.match("eavesdrop=true,member='A'")
    hold(services, alice, peer_call(NAME, "A"))
    assert eve.sync() == []
    take(bob)
    assert eve.briefs() == [("call", "A")]


def test_a_name_that_passes_on_and_is_lost_is_started_again(services: Services) -> None:
    alice, bob, carol = join(services, 3)
    services.wait()
    hold(services, alice, peer_call(NAME, "A"))
    assert take(bob) == [("call", "A")]
    assert carol.own(NAME) == 2
    bob.exchange(call("ReleaseName", "s", NAME))
    assert carol.briefs() == [("signal", "NameAcquired", NAME)]
    carol.exchange(call("ReleaseName", "s", NAME))
    alice.send(peer_call(NAME, "B"))
    assert alice.sync() == []
    services.until_started(2)
    assert take(bob) == [("call", "B")]


def test_names_that_nobody_can_own_can_be_started(services: Services) -> None:
    """The files are believed: only who is asked for such a name waits in vain."""
    alice, bob = join(services, 2)
    for name in (BUS, ":1.99", bob.name):
        services.provide(name, "/bin/false")
    for name in (BUS, ":1.99"):
        assert alice.refusal(start(name, 0xFFFFFFFF)) == (
            "Spawn.ChildExited",
            f"Process {name} exited with status 1",
        )
    assert alice.refusal(peer_call(":1.99", "A"))[0] == "Spawn.ChildExited"
    assert alice.ask(start(bob.name)).brief == ("return", 2)


def test_a_limit_of_none(begin: Callable[..., Services]) -> None:
    services = begin(max_pending_service_starts=0)
    (alice,) = join(services, 1)
    services.wait()
    for message in (start(), peer_call(NAME, "A"), start("com.example.None")):
        assert alice.refusal(message)[0] == "LimitsExceeded"


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user one has to be root")
def test_others_do_not_set_the_environment(services: Services) -> None:
    alice = services.daemon.connect(uid=65534)
    update = call("UpdateActivationEnvironment", "a{ss}", {})
    name, text = alice.refusal(update)
    assert name == "AccessDenied"
    assert text.startswith("rejected attempt to call UpdateActivationEnvironment by connection ")
    name, other = alice.refusal(call("UpdateActivationEnvironment", "a{ss}", {}, path="/x"))
    assert (name, other) == ("AccessDenied", text)
