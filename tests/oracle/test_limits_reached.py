"""Each limit at its edge, with a configuration that makes it small."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import pytest
from kit import (
    BUS,
    NO_REPLY_EXPECTED,
    ClosedError,
    Daemon,
    RawClient,
    Received,
    busconfig,
    call,
    error,
    method_return,
    peer_call,
    signal,
)
from kit.client import TIMEOUT

Start = Callable[..., Daemon]

EXCEEDED = f"{BUS}.Error.LimitsExceeded"


def exceeded(reply: Received, text: str) -> None:
    assert reply.brief == ("error", EXCEEDED, text)


def too_many(client: RawClient, what: str, limit: str) -> str:
    return (
        f'Connection "{client.name}" is not allowed to {what} '
        f"(increase limits in configuration file if required; {limit})"
    )


def test_names(start: Start) -> None:
    """The unique name counts, and so do places in a queue; names that one has already are refused
    as well while the limit is reached."""
    daemon = start(max_names_per_connection=3)
    alice, bob = daemon.connect(), daemon.connect()
    bob.own("com.example.Bobs")
    alice.own("com.example.A")
    assert alice.own("com.example.Bobs") == 2
    text = too_many(alice, "own more services", "max_names_per_connection=3")
    for name in ("com.example.C", "com.example.Bobs", "com.example.A"):
        exceeded(alice.ask(call("RequestName", "su", name, 0)), text)
    alice.bus("ReleaseName", "s", "com.example.Bobs")
    assert alice.own("com.example.C") == 1


def test_match_rules(start: Start) -> None:
    daemon = start(max_match_rules_per_connection=2)
    alice = daemon.connect()
    alice.match("member='A'")
    alice.match("member='A'")
    limit = "max_match_rules_per_connection=2"
    text = too_many(alice, "add more match rules", limit)
    exceeded(alice.bus("AddMatch", "s", "member='B'"), text)
    exceeded(alice.bus("AddMatch", "s", "no rule at all"), text)
    assert alice.bus("RemoveMatch", "s", "member='A'").brief == ("return",)
    alice.match("member='B'")
    daemon.connect().match("member='B'")


def test_cve_2014_3638_open_calls(start: Start) -> None:
    daemon = start(max_replies_per_connection=2)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    alice.send(peer_call(bob.name))
    alice.send(peer_call(carol.name))
    assert alice.sync() == []
    text = "The maximum number of pending replies per connection has been reached"
    for callee in (bob, carol):
        exceeded(alice.ask(peer_call(callee.name)), text)
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED))
    alice.send(signal("S", destination=bob.name))
    assert alice.sync() == []
    bob.send(peer_call(carol.name))
    assert len(bob.sync()) == 3, "what is open counts for the caller, not for the callee"
    carol.send(error(carol.receive_call(), "com.example.Error"))
    assert alice.read().brief[0] == "error"
    alice.send(peer_call(bob.name))
    assert alice.sync() == []


NOT_ACTIVE = ":not.active.yet"


def test_connections(start: Start) -> None:
    daemon = start(max_completed_connections=2)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.join()
    for _ in range(2):
        refused = carol.bus("Hello")
        exceeded(refused, "The maximum number of active connections has been reached")
        assert refused.destination == NOT_ACTIVE
    bob.close()
    alice.until_gone(bob.name)
    carol.hello()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")
def test_connections_of_a_user(start: Start) -> None:
    daemon = start(max_connections_per_user=2)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.join()
    text = "The maximum number of active connections for UID 0 has been reached"
    exceeded(carol.bus("Hello"), text)
    daemon.connect(uid=65534)
    bob.close()
    alice.until_gone(bob.name)
    carol.hello()


def test_cve_2014_3639_incomplete_connections(start: Start) -> None:
    """Newcomers wait until one of the others is through; nobody is turned away."""
    daemon = start(max_incomplete_connections=2)
    alice, bob = daemon.join(), daemon.join()
    waiting = daemon.dial()
    waiting.send_bytes(b"\0")
    waiting.send_line(waiting.external())
    alice.hello()
    assert waiting.read_line().startswith("OK ")
    bob.hello()


def test_authentication_takes_too_long(start: Start) -> None:
    """The time runs until Hello, not only until BEGIN."""
    daemon = start()
    alice = daemon.connect()
    daemon.reconfigure(alice, busconfig(auth_timeout=200))
    whole = f"\0{alice.external()}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n".encode()
    for said in (b"", b"\0AUTH ", whole):
        client = daemon.dial()
        with contextlib.suppress(ClosedError):  # it was so slow to say it
            client.send_bytes(said)
        while client.sock.recv(1000):  # what answers the handshake, and then the end
            pass
    alice.alive()


def test_message_size(start: Start) -> None:
    daemon = start(max_message_size=2000)
    alice, bob = daemon.connect(), daemon.connect()
    empty = len(peer_call(bob.name, "M", "ay", b"", flags=1).pack(1))
    alice.send(peer_call(bob.name, "M", "ay", bytes(2000 - empty), flags=1))
    assert alice.sync() == []
    assert len(bob.receive_call().raw) >= 2000
    data = peer_call(bob.name, "M", "ay", bytes(2001 - empty), flags=1).pack(1)
    alice.send_bytes(data[:16])
    assert alice.closed() == [], "the first 16 bytes say enough"
    bob.alive()


def test_outgoing_bytes(start: Start) -> None:
    """A full receiver: calls are refused, broadcasts and the bus's own messages dropped."""
    daemon = start(max_outgoing_bytes=20_000)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    for client in (bob, carol):
        client.match("member='Broadcast'")
    delivered = 0
    while True:
        alice.send(peer_call(bob.name, "M", "ay", bytes(10_000), flags=NO_REPLY_EXPECTED))
        told = alice.sync()
        if told:
            break
        delivered += 1
        assert delivered < 1000, "as if there were no limit"
    (refused,) = told
    assert refused.error_name == EXCEEDED
    assert refused.args[0].startswith(
        "Rejected: destination has a full message queue, 0 matched rules; "
        f'type="method_call", sender="{alice.name}" (uid={os.geteuid()} pid={os.getpid()} comm="'
    )
    assert f'destination="{bob.name}" (uid={os.geteuid()} pid=' in refused.args[0]
    alice.send(signal("Broadcast", "ay", bytes(10_000)))
    assert alice.sync() == []
    assert [m.member for m in carol.sync()] == ["Broadcast"]
    bob.send(call("GetId"))
    alice.alive()
    carol.alive()
    received = [bob.receive_call() for _ in range(delivered)]
    assert {len(m.body) for m in received} == {10_004}
    assert bob.sync() == [], "neither the broadcast nor the first answer of the bus"
    alice.send(peer_call(bob.name, "Again", flags=NO_REPLY_EXPECTED))
    assert alice.sync() == []
    assert bob.briefs() == [("call", "Again")]


def test_p11_7_room_is_looked_for_each_time(start: Start) -> None:
    """After a refusal for want of room the very same message is delivered, when there is some."""
    daemon = start(max_outgoing_bytes=20_000)
    alice, bob = daemon.connect(), daemon.connect()
    message = peer_call(bob.name, "Same", "ay", bytes(10_000), flags=NO_REPLY_EXPECTED)
    for _ in range(3):
        delivered = 0
        while True:
            alice.send(message)
            told = alice.sync()
            if told:
                break
            delivered += 1
            assert delivered < 1000, "as if there were no limit"
        assert [m.error_name for m in told] == [EXCEEDED]
        for _ in range(delivered):
            assert bob.receive_call().member == "Same"
        bob.sync()


def test_cve_2014_3636_outgoing_fds(start: Start) -> None:
    daemon = start(max_outgoing_unix_fds=3)
    alice, bob = daemon.connect(), daemon.connect()
    fd = os.memfd_create("kit")
    delivered = 0
    while True:
        alice.send(peer_call(bob.name, "M", "ay", bytes(10_000), flags=1, fds=[fd, fd]))
        told = alice.sync()
        if told:
            break
        delivered += 1
        assert delivered < 1000, "as if there were no limit"
    os.close(fd)
    assert [m.error_name for m in told] == [EXCEEDED]
    alice.send(peer_call(bob.name, "WithoutFds", flags=1))
    for _ in range(delivered):
        received = bob.receive_call()
        assert len(received.fds) == 2
        for copy in received.fds:
            os.close(copy)


def test_incoming_bytes(start: Start) -> None:
    """A single message above the limit passes; the next waits for it, and comes."""
    daemon = start(max_incoming_bytes=5000)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    alice.send(peer_call(bob.name, "M", "ay", bytes(1_000_000), flags=NO_REPLY_EXPECTED))
    for _ in range(10):
        alice.send(peer_call(bob.name, "M", "ay", bytes(4000), flags=NO_REPLY_EXPECTED))
    alice.send(peer_call(bob.name, "Last", "ay", bytes(100_000), flags=NO_REPLY_EXPECTED))
    paused(carol, alice, "Bytes", 5000, 1_010_000)
    assert len(bob.receive_call().body) == 1_000_004
    for _ in range(10):
        assert len(bob.receive_call().body) == 4004
    assert bob.receive_call().member == "Last"
    alice.alive()


def test_incoming_fds(start: Start) -> None:
    """Who has more descriptors on the way than this is not read from until they are delivered."""
    daemon = start(max_incoming_unix_fds=4)
    alice, bob, carol = daemon.connect(), daemon.connect(), daemon.connect()
    alice.send(peer_call(bob.name, "Big", "ay", bytes(1_000_000), flags=NO_REPLY_EXPECTED))
    fd = os.memfd_create("kit")
    for number in range(20):
        alice.send(peer_call(bob.name, "M", "u", number, flags=NO_REPLY_EXPECTED, fds=[fd, fd]))
    os.close(fd)
    paused(carol, alice, "FDs", 4, 4)
    assert bob.receive_call().member == "Big"
    for number in range(20):
        received = bob.receive_call()
        assert received.args == (number,)
        assert len(received.fds) == 2
        for copy in received.fds:
            os.close(copy)
    alice.alive()


def paused(watcher: RawClient, sender: RawClient, what: str, limit: int, most: int) -> None:
    """At least `limit` waits of what `sender` sent, and however long, no more than `most`."""
    stats = call("GetConnectionStats", "s", sender.name, interface=f"{BUS}.Debug.Stats")

    def waiting() -> int:
        value: int = watcher.ask(stats).args[0][f"Incoming{what}"][1]
        return value

    deadline = time.monotonic() + TIMEOUT
    while waiting() < limit:
        assert time.monotonic() < deadline, f"{limit} {what} were sent, but do not wait"
    assert max(waiting() for _ in range(50)) <= most


def test_message_fds(start: Start) -> None:
    daemon = start(max_message_unix_fds=2)
    alice, bob = daemon.connect(), daemon.connect()
    fd = os.memfd_create("kit")
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED, fds=[fd, fd]))
    received = bob.receive_call()
    for copy in received.fds:
        os.close(copy)
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED, fds=[fd, fd, fd]))
    os.close(fd)
    assert alice.closed() == []
    assert len(received.fds) == 2
    bob.alive()


def test_reply_timeout(start: Start) -> None:
    daemon = start(reply_timeout=100)
    alice, bob = daemon.connect(), daemon.connect()
    serial = alice.send(peer_call(bob.name))
    reply = alice.read()
    text = "Message did not receive a reply (timeout by message bus)"
    assert reply.brief == ("error", f"{BUS}.Error.NoReply", text)
    assert (reply.reply_serial, reply.sender) == (serial, BUS)
    bob.send(method_return(bob.receive_call()))
    assert bob.sync() == []
    assert alice.read().brief == ("return",)


def test_reply_timeout_of_an_answered_call(start: Start) -> None:
    daemon = start(reply_timeout=200)
    alice, bob = daemon.connect(), daemon.connect()
    for _ in range(100):  # until bob is quick enough
        alice.send(peer_call(bob.name))
        bob.send(method_return(bob.receive_call()))
        answer = alice.read()
        bob.sync()
        if answer.brief == ("return",):
            break
        alice.sync()
    assert answer.brief == ("return",)
    assert alice.sync() == []
    serial = alice.send(peer_call(bob.name))
    assert alice.read().reply_serial == serial, "the error of the second call, none of the first"


# The defaults, as far as a test can reach them: those of a system bus.


@pytest.fixture(scope="module")
def by_default(kind: str) -> Iterator[Daemon]:
    with Daemon(kind) as daemon:
        yield daemon


def test_default_of_names(by_default: Daemon) -> None:
    alice = by_default.connect()
    for number in range(511):
        assert alice.own(f"com.example.N{number}") == 1
    text = too_many(alice, "own more services", "max_names_per_connection=512")
    exceeded(alice.ask(call("RequestName", "su", "com.example.One", 0)), text)


def test_default_of_match_rules(by_default: Daemon) -> None:
    alice = by_default.connect()
    for number in range(512):
        alice.match(f"member='M{number}'")
    text = too_many(alice, "add more match rules", "max_match_rules_per_connection=512")
    exceeded(alice.bus("AddMatch", "s", "member='One'"), text)


def test_default_of_open_calls(by_default: Daemon) -> None:
    alice, bob = by_default.connect(), by_default.connect()
    for _ in range(128):
        alice.send(peer_call(bob.name))
    assert alice.sync() == []
    text = "The maximum number of pending replies per connection has been reached"
    exceeded(alice.ask(peer_call(bob.name)), text)


def test_default_of_message_size(by_default: Daemon) -> None:
    alice = by_default.connect()
    header = len(call("GetId", "ay", b"").pack(1))
    largest = 32 * 1024 * 1024 - header
    data = bytearray(call("GetId", "ay", b"").pack(1))
    data[4:8] = (largest + 5).to_bytes(4, "little")
    alice.send_bytes(data[:16])
    assert alice.closed() == []
    bob = by_default.connect()
    reply = bob.bus("GetId", "ay", bytes(largest))
    assert reply.brief[0] == "error", "it is too much for GetId, but not for the bus"


def test_default_of_message_fds(by_default: Daemon) -> None:
    alice, bob = by_default.connect(), by_default.connect()
    fd = os.memfd_create("kit")
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED, fds=[fd] * 16))
    received = bob.receive_call()
    assert len(received.fds) == 16
    for copy in received.fds:
        os.close(copy)
    alice.send(peer_call(bob.name, flags=NO_REPLY_EXPECTED, fds=[fd] * 17))
    os.close(fd)
    assert alice.closed() == []


def test_default_of_incomplete_connections(start: Start) -> None:
    daemon = start()
    alice = daemon.connect()
    half_way = [daemon.join() for _ in range(64)]
    outside = daemon.dial()
    outside.send_bytes(b"\0")
    outside.send_line(outside.external())
    reply = alice.ask(call("GetStats", interface=f"{BUS}.Debug.Stats"))
    assert reply.args[0]["IncompleteConnections"] == ("u", 64)
    half_way[0].hello()
    assert outside.read_line().startswith("OK ")


def test_default_of_connections_of_a_user(start: Start) -> None:
    daemon = start()
    clients = [daemon.connect() for _ in range(256)]
    text = f"The maximum number of active connections for UID {os.geteuid()} has been reached"
    one_more = daemon.join()
    exceeded(one_more.bus("Hello"), text)
    clients[0].close()
    clients[1].until_gone(clients[0].name)
    one_more.hello()
