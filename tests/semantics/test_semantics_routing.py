"""S16 to S24: where messages go."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import (
    BUS,
    METHOD_CALL,
    RawClient,
    call,
    peer_call,
)
from kit import signal as signal_of
from kit.hosted import Connect
from kit.message import DESTINATION, SENDER

from afdbus import ThreadBus, ThreadHost

ERROR = f"{BUS}.Error."
STATS = f"{BUS}.Debug.Stats"


@pytest.fixture
def bus(host: ThreadHost) -> ThreadBus:
    return host.create_bus()


def watch(client: RawClient) -> None:
    client.exchange(call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring"))


def test_semantics_s16_an_addressed_message_goes_to_its_receiver_alone(
    bus: ThreadBus, connect: Connect
) -> None:
    alice, bob, curious = connect(bus), connect(bus), connect(bus)
    bob.own("com.example.Bob")
    curious.match("type='method_call'")
    curious.match("type='signal',interface='com.example.Interface'")
    curious.match("")
    curious.sync()
    for name in (bob.name, "com.example.Bob"):
        alice.send(peer_call(name))
        assert bob.receive_call().sender == alice.name
        alice.send(signal_of("Changed", destination=name))
        assert bob.read().member == "Changed"
    assert curious.sync() == []
    eavesdropper, monitor = connect(bus), connect(bus)
    eavesdropper.match("eavesdrop='true',interface='com.example.Interface'")
    watch(monitor)
    curious.sync()
    alice.send(signal_of("Changed", destination="com.example.Bob"))
    assert bob.read().member == eavesdropper.read().member == "Changed"
    monitor.read_until(lambda m: m.member == "Changed", "the copy")
    assert [m for m in curious.sync() if m.sender != BUS] == []


def test_semantics_s17_the_bus_s_name_is_the_bus(bus: ThreadBus, connect: Connect) -> None:
    alice = connect(bus)
    request = alice.bus("RequestName", "su", BUS, 0)
    assert request.error_name == f"{ERROR}InvalidArgs"
    release = alice.bus("ReleaseName", "s", BUS)
    assert release.error_name == f"{ERROR}InvalidArgs"
    assert alice.bus("GetNameOwner", "s", BUS).args == (BUS,)
    alice.own("org.freedesktop.DBus.Mine")
    assert alice.bus("GetId").sender == BUS


def test_semantics_s18_a_name_to_be_started_gets_all_in_order(
    host: ThreadHost, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.service").write_text(
        "[D-BUS Service]\nName=com.example.Late\nExec=/bin/true\n"
    )
    bus = host.create_bus(services=[tmp_path])
    alice, carol, late = connect(bus), connect(bus), connect(bus)
    for number in range(20):
        alice.send(peer_call("com.example.Late", "FromAlice", "u", number))
        carol.send(peer_call("com.example.Late", "FromCarol", "u", number))
    assert alice.sync() == carol.sync() == []
    told = late.exchange(call("RequestName", "su", "com.example.Late", 0)) + late.sync()
    calls = [m for m in told if m.type == METHOD_CALL]
    for sender in ("FromAlice", "FromCarol"):
        assert [m.args[0] for m in calls if m.member == sender] == list(range(20))
    # who may not be started is told
    serial = alice.send(peer_call("com.example.None"))
    answer = alice.read()
    assert (answer.reply_serial, answer.error_name) == (serial, f"{ERROR}ServiceUnknown")


def test_semantics_s19_whoever_speaks_to_the_gone_is_told(bus: ThreadBus, connect: Connect) -> None:
    alice = connect(bus)
    with RawClient(bus.address) as bob:
        bob.join()
        bob.own("com.example.Bob")
        waiting = alice.send(peer_call("com.example.Bob"))
        bob.receive_call()
    told = alice.read()
    assert (told.reply_serial, told.error_name) == (waiting, f"{ERROR}NoReply")
    for name in (bob.name, "com.example.Bob"):
        serial = alice.send(peer_call(name))
        told = alice.read()
        assert (told.reply_serial, told.error_name) == (serial, f"{ERROR}ServiceUnknown")


def test_semantics_s20_a_broadcast_goes_once_to_all_who_want_it(
    bus: ThreadBus, connect: Connect
) -> None:
    sender, twice, other, silent = (connect(bus) for _ in range(4))
    for rule in ("type='signal',member='Changed'", "path='/com/example/Object'"):
        twice.match(rule)
        sender.match(rule)
    other.match("member='Else'")
    for _ in range(3):  # by the layered way and by the plan
        sender.send(signal_of("Changed"))
    assert [m.member for m in sender.sync()] == ["Changed"] * 3
    assert [m.member for m in twice.sync()] == ["Changed"] * 3
    assert other.sync() == silent.sync() == []


def test_semantics_s21_rules_are_their_owner_s_alone(bus: ThreadBus, connect: Connect) -> None:
    alice, bob = connect(bus), connect(bus)
    alice.match("member='Changed'")
    removed = bob.bus("RemoveMatch", "s", "member='Changed'")
    assert removed.error_name == f"{ERROR}MatchRuleNotFound"
    # a call that only looks like AddMatch changes nothing
    bob.send(peer_call(alice.name, "AddMatch", "s", "member='Else'", interface=BUS))
    alice.receive_call()
    bob.send(signal_of("Else"))
    bob.send(signal_of("Changed"))
    bob.sync()
    assert [m.member for m in alice.sync()] == ["Changed"]
    with RawClient(bus.address) as carol:
        carol.join()
        carol.match("member='Changed'")
        assert bus.statistics().match_rules == 2
    assert bus.statistics().match_rules == 1


def test_semantics_s22_overheard_copies_belong_to_the_delivery(
    bus: ThreadBus, connect: Connect
) -> None:
    """One order for all who see both broadcasts and what is meant for others."""
    alice, bob, first, second = (connect(bus) for _ in range(4))
    bob.match("interface='com.example.Interface'")
    for client in (first, second):
        client.match("eavesdrop='true',interface='com.example.Interface'")
    for number in range(20):
        alice.send(signal_of("Changed", "u", number))
        alice.send(signal_of("Changed", "u", 100 + number, destination=bob.name))
    alice.sync()
    seen = [m.args[0] for m in bob.sync()]
    overheard = [[m.args[0] for m in client.sync()] for client in (first, second)]
    assert overheard[0] == overheard[1]
    assert overheard[0] == seen
    assert len(seen) == 40


def test_semantics_s22_a_monitor_neither_speaks_nor_is_spoken_to(
    bus: ThreadBus, connect: Connect
) -> None:
    alice, monitor = connect(bus), connect(bus)
    monitor.own("com.example.Monitor")
    watch(monitor)
    for name in (monitor.name, "com.example.Monitor"):
        serial = alice.send(peer_call(name))
        answer = alice.read()
        assert (answer.reply_serial, answer.error_name) == (serial, f"{ERROR}ServiceUnknown")
    assert monitor.name not in alice.bus("ListNames").args[0]
    monitor.send(peer_call(alice.name))
    monitor.closed()
    assert alice.sync() == []


def test_semantics_s23_the_sender_is_written_by_the_bus(bus: ThreadBus, connect: Connect) -> None:
    alice, bob = connect(bus), connect(bus)
    bob.match("member='Changed'")
    for forged in (BUS, bob.name, ":1.77"):
        for _ in range(3):
            alice.send(peer_call(bob.name).plus((SENDER, "s", forged)))
            assert bob.receive_call().sender == alice.name
            alice.send(signal_of("Changed").plus((SENDER, "s", forged)))
            assert bob.read().sender == alice.name


@pytest.mark.parametrize("fault", ["path", "body", "destination", "serial"])
def test_semantics_s24_a_malformed_message_is_never_delivered(
    bus: ThreadBus, connect: Connect, fault: str
) -> None:
    alice, bob = connect(bus), connect(bus)
    good = peer_call(bob.name, "Method", "s", "x")
    alice.send(good)
    bob.receive_call()
    bad = peer_call(bob.name, "Method", "s", "x")
    if fault == "path":
        bad = peer_call(bob.name, "Method", "s", "x", path="/a//b")
    elif fault == "body":
        bad.body = b"\1\0\0\0x\1"  # the string does not end with NUL
    elif fault == "destination":
        bad = bad.without(DESTINATION).plus((DESTINATION, "s", "no name"))
    else:
        bad.serial = 0
    alice.send_bytes(bad.pack(7))
    assert alice.closed() == []
    assert [m for m in bob.sync() if m.sender != BUS] == []
    assert bus.statistics().violations == 1
    connect(bus).send(peer_call(bob.name, "Method", "s", "still here"))
    assert bob.receive_call().args == ("still here",)
