"""S12 to S15: the phases of a connection."""

from __future__ import annotations

import os
import pwd

import pytest
from kit import BUS, RawClient, busconfig, call, peer_call
from kit import signal as signal_of
from kit.hosted import Connect

from afdbus import ThreadHost


def names(client: RawClient) -> list[str]:
    found: list[str] = client.exchange(call("ListNames"))[-1].args[0]
    return sorted(found)


def test_semantics_s12_before_authentication_there_is_no_bus(
    host: ThreadHost, connect: Connect
) -> None:
    bus = host.create_bus()
    alice = connect(bus)
    with RawClient(bus.address) as silent, RawClient(bus.address) as half_way:
        half_way.send_bytes(b"\0")
        half_way.send_line("AUTH")
        assert half_way.read_line().startswith("REJECTED ")
        # messages instead of a handshake go nowhere
        silent.send_bytes(b"\0" + peer_call(alice.name).pack(1))
        for number in range(10):
            alice.send(signal_of("Changed", "u", number))
        assert names(alice) == [":1.0", BUS]
        assert len(bus.statistics().connections) == 1
        # The next thing that comes is the answer in the handshake, and nothing was in between.
        half_way.send_line(half_way.external())
        assert half_way.read_line().startswith("OK ")
        half_way.send_line("BEGIN")
        assert half_way.hello() == ":1.1"
    alice.alive()


def test_semantics_s13_between_begin_and_hello_there_is_only_hello(
    host: ThreadHost, connect: Connect
) -> None:
    bus = host.create_bus()
    alice = connect(bus)
    with RawClient(bus.address) as nameless, RawClient(bus.address) as hasty:
        for client in (nameless, hasty):
            client.authenticate()
        alice.send(signal_of("Changed"))
        alice.sync()
        assert names(alice) == [":1.0", BUS]
        answer = nameless.bus("AddMatch", "s", "type='signal'")
        assert answer.error_name == f"{BUS}.Error.AccessDenied"
        assert bus.statistics().match_rules == 0
        alice.send(signal_of("Changed"))
        alice.sync()
        assert nameless.hello() == ":1.1"
        # a message for anybody but the bus is the end
        hasty.send(peer_call(alice.name))
        assert hasty.closed() == []
    assert alice.sync() == []


def test_semantics_s14_the_answer_to_hello_comes_first(host: ThreadHost, connect: Connect) -> None:
    bus = host.create_bus()
    alice = connect(bus)
    for number in range(20):
        with RawClient(bus.address) as fresh:
            fresh.authenticate()
            # In one write: from the first moment on it wants everything.
            fresh.send_bytes(
                call("Hello").pack(1) + call("AddMatch", "s", "type='signal'").pack(2)
            )
            for _ in range(5):
                alice.send(signal_of("Changed", "u", number))
            first = fresh.read()
            assert (first.brief[0], first.reply_serial) == ("return", 1)
            (name,) = first.args
            assert fresh.read().brief == ("signal", "NameAcquired", name)
            alice.sync()


def test_semantics_s15_credentials_are_those_of_the_moment_of_connecting(
    host: ThreadHost,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else for a moment")
    nobody = pwd.getpwnam("nobody").pw_uid
    daemon = pwd.getpwnam("daemon").pw_uid
    bus = host.create_bus(config=busconfig())
    # Since then this process is root again, and says so: it is not believed.
    with RawClient(bus.address, uid=nobody) as client:
        for claimed in (0, daemon):
            client.send_bytes(b"\0" if not claimed else b"")
            client.send_line(f"AUTH EXTERNAL {str(claimed).encode().hex()}")
            assert client.read_line().startswith("REJECTED ")
        client.send_line(client.external())
        client.read_line()
        client.send_line("BEGIN")
        name = client.hello()
        assert client.bus("GetConnectionUnixUser", "s", name).args == (nobody,)
        assert client.bus("GetConnectionUnixProcessID", "s", name).args == (os.getpid(),)


def test_semantics_s15_claims_are_not_believed(host: ThreadHost) -> None:
    with RawClient(host.create_bus().address) as client:
        client.send_bytes(b"\0")
        client.send_line(f"AUTH EXTERNAL {str(os.geteuid() + 1).encode().hex()}")
        assert client.read_line().startswith("REJECTED ")
