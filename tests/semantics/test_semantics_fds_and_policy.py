"""S36 to S39: descriptors, and who may change the rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import BUS, busconfig, call, peer_call
from kit import signal as signal_of
from kit.hosted import Connect

from afdbus import ThreadBus, ThreadHost

DENIED = f"{BUS}.Error.AccessDenied"


@pytest.fixture
def bus(host: ThreadHost) -> ThreadBus:
    return host.create_bus()


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("kit")
    yield fd
    os.close(fd)


def same_file(one: int, other: int) -> bool:
    return os.fstat(one).st_ino == os.fstat(other).st_ino


def test_semantics_s36_each_receiver_gets_descriptors_of_its_own(
    bus: ThreadBus, connect: Connect, file: int
) -> None:
    alice, bob, carol = (connect(bus) for _ in range(3))
    plain = connect(bus, unix_fds=False)
    for client in (bob, carol, plain):
        client.match("member='Changed'")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        alice.send(signal_of("Changed", "hu", 0, number, fds=[file]))
        for client in (bob, carol):
            message = client.read()
            assert message.args == (0, number)
            (fd,) = message.fds
            assert same_file(fd, file)
            os.close(fd)
    # whoever cannot have them gets no message, and is told if it was meant for him
    assert plain.sync() == []
    alice.send(peer_call(plain.name, "Take", "h", 0, fds=[file]))
    assert alice.read().error_name == f"{BUS}.Error.NotSupported"
    bus.statistics()  # by now the bus, which is in this process, has done it all
    assert len(os.listdir("/proc/self/fd")) == before


def test_semantics_s37_descriptors_stay_with_their_bytes(bus: ThreadBus, connect: Connect) -> None:
    """Also where the receiver is slow, and large and small messages are written piece by piece."""
    alice, bob = connect(bus), connect(bus)
    count = 60
    for number in range(count):
        fd = os.memfd_create("kit")
        os.write(fd, b"%d" % number)
        body = bytes(30_000 if number % 3 else 10)
        alice.send(peer_call(bob.name, "Take", "huay", 0, number, body, fds=[fd], flags=1))
        os.close(fd)
        alice.send(peer_call(bob.name, "Plain", "uay", number, body, flags=1))
    alice.sync()
    for number in range(count):
        message = bob.receive_call()
        assert message.args[1] == number
        (fd,) = message.fds
        assert os.pread(fd, 100, 0) == b"%d" % number
        os.close(fd)
        message = bob.receive_call()
        assert (message.member, message.args[0], message.fds) == ("Plain", number, [])


POLICY = """
<policy context="mandatory">
  <deny send_interface="com.example.NotSent"/>
  <deny receive_interface="com.example.NotReceived"/>
</policy>"""


@pytest.mark.parametrize("interface", ["com.example.NotSent", "com.example.NotReceived"])
def test_semantics_s38_policy_is_asked_for_every_way(
    host: ThreadHost, connect: Connect, tmp_path: Path, interface: str
) -> None:
    (tmp_path / "a.service").write_text(
        "[D-BUS Service]\nName=com.example.Late\nExec=/bin/true\n"
    )
    bus = host.create_bus(policy=POLICY, services=[tmp_path])
    alice, bob, curious = (connect(bus) for _ in range(3))
    bob.match("type='signal',path='/com/example/Object'")
    curious.match("eavesdrop='true',path='/com/example/Object'")
    for _ in range(3):  # by the layered way, and as if there were a plan
        alice.send(peer_call(bob.name, interface=interface))
        assert alice.read().error_name == DENIED
        alice.send(signal_of("Changed", interface=interface))
        alice.send(signal_of("Changed", interface=interface, destination=bob.name))
        # a broadcast is refused in silence, as there
        assert [m.error_name for m in alice.sync() if m.error_name] == [DENIED]
    assert bob.sync() == curious.sync() == []
    # a message for a name that is to be started
    alice.send(peer_call("com.example.Late", interface=interface))
    if interface == "com.example.NotReceived":
        alice.sync()
        bob.own("com.example.Late")
    assert alice.read().error_name == DENIED
    assert [m.member for m in bob.sync()] == []
    # what nobody minds goes all ways
    alice.send(signal_of("Changed"))
    assert bob.read().member == curious.read().member == "Changed"


def test_semantics_s39_only_the_creator_changes_the_policy(
    host: ThreadHost, connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "bus.conf"
    file.write_text(busconfig())
    mine, other = host.create_bus(config=file), host.create_bus(config=busconfig())
    alice, bob = connect(mine), connect(other)
    request = call("RequestName", "su", "com.example.A", 0)
    denied = "<policy context='mandatory'><deny own='com.example.A'/></policy>"
    file.write_text(busconfig(denied))
    # from the other bus nothing reaches this one
    bob.bus("ReloadConfig")
    assert alice.exchange(request)[-1].args == (1,)
    assert alice.exchange(call("ReleaseName", "s", "com.example.A"))[-1].args == (1,)
    alice.bus("ReloadConfig")
    assert alice.exchange(request)[-1].error_name == DENIED
    assert bob.exchange(request)[-1].args == (1,)
