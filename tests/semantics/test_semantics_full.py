"""S30 to S35: receivers that do not read, and limits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from kit import BUS, ClosedError, RawClient, busconfig, call, peer_call
from kit import signal as signal_of
from kit.client import TIMEOUT
from kit.hosted import Connect

from afdbus import ThreadBus, ThreadHost

STATS = f"{BUS}.Debug.Stats"
EXCEEDED = f"{BUS}.Error.LimitsExceeded"
NO_REPLY = f"{BUS}.Error.NoReply"

LIMIT = 20_000
# Above what the kernel keeps for a receiver, so that some of it has to wait in the bus.
SOME = 300
SIZE = 5_000


def make(host: ThreadHost, way: str, timeout: float = 60.0, **limits: int) -> ThreadBus:
    limits = {"max_outgoing_bytes": LIMIT} | limits
    return host.create_bus(
        config=busconfig(**limits),  # type: ignore[arg-type]
        full_receiver=way,  # type: ignore[arg-type]
        block_timeout=timeout,
    )


def message(receiver: RawClient, number: int) -> bytes:
    """A message that needs no answer."""
    body = (number, bytes(SIZE))
    return peer_call(receiver.name, "Flood", "uay", *body, flags=1).pack(number + 100)


def cast(number: int) -> bytes:
    return signal_of("Flood", "uay", number, bytes(SIZE)).pack(number + 100)


def stats(asking: RawClient, about: RawClient) -> dict[str, Any]:
    answer = asking.exchange(call("GetConnectionStats", "s", about.name, interface=STATS))[-1]
    return {key: value for key, (_, value) in answer.args[0].items()}


@contextmanager
def sending(client: RawClient, data: bytes) -> Iterator[None]:
    """Send it from another thread: the bus may stop reading for a while."""
    thread = threading.Thread(target=client.send_bytes, args=[data])
    thread.start()
    yield
    thread.join()


def gone(bus: ThreadBus, client: RawClient) -> None:
    """Wait until the client is on the bus no more."""
    bus.wait_until(lambda now: client.name not in [c.name for c in now.connections], timeout=60)


# -- S30


def test_semantics_s30_drop_in_refuses_and_passes_by(host: ThreadHost, connect: Connect) -> None:
    bus = make(host, "drop-in")
    alice, bob, carol = (connect(bus) for _ in range(3))
    for client in (bob, carol):
        client.match("member='Flood'")
    delivered = 0
    while True:
        alice.send_bytes(message(bob, delivered))
        told = alice.sync()
        if told:
            break
        delivered += 1
        assert delivered < SOME * 10, "as if there were no limit"
    assert [m.error_name for m in told] == [EXCEEDED]
    assert bus.statistics().dropped == 0, "the sender was told"
    alice.send_bytes(cast(7))
    assert alice.sync() == []
    assert [m.args[0] for m in carol.sync()] == [7]
    assert bus.statistics().dropped == 1
    assert [bob.receive_call().args[0] for _ in range(delivered)] == list(range(delivered))
    assert bob.sync() == []


def test_semantics_s30_disconnect_ends_the_receiver(host: ThreadHost, connect: Connect) -> None:
    bus = make(host, "disconnect")
    alice, bob, carol = (connect(bus) for _ in range(3))
    for client in (bob, carol):
        client.match("member='Flood'")
    bob.own("com.example.Bob")
    asked = alice.send(peer_call(bob.name))
    for number in range(SOME):
        alice.send_bytes(cast(number))
        # the living miss nothing
        assert carol.read().args[0] == number
    gone(bus, bob)
    told = alice.sync()
    assert [(m.error_name, m.reply_serial) for m in told] == [(NO_REPLY, asked)]
    # what was written before the end can be read, and is a piece from the beginning
    received = [m.args[0] for m in bob.closed() if m.member == "Flood"]
    assert received == list(range(len(received)))
    assert bus.statistics().names == {}
    assert bus.statistics().dropped == 1


def test_semantics_s30_disconnect_answers_the_call_that_was_too_much(
    host: ThreadHost, connect: Connect
) -> None:
    bus = make(host, "disconnect")
    alice, bob = connect(bus), connect(bus)
    answers = []
    number = 0
    while not answers:
        number += 1
        assert number < SOME * 10
        alice.send(peer_call(bob.name, "Flood", "ay", bytes(SIZE), serial=number + 1000))
        answers = alice.sync()
    gone(bus, bob)
    answers += alice.sync()
    # The last one may have come when bob was gone already.
    late = f"{BUS}.Error.ServiceUnknown"
    assert {m.error_name for m in answers} - {late} == {NO_REPLY}
    assert sorted(m.reply_serial for m in answers) == [1001 + n for n in range(number)]


def test_semantics_s30_block_makes_the_sender_wait(host: ThreadHost, connect: Connect) -> None:
    bus = make(host, "block")
    alice, bob, carol = (connect(bus) for _ in range(3))
    with sending(alice, b"".join(message(bob, number) for number in range(SOME))):
        # Read nothing before there is too much.
        deadline = time.monotonic() + TIMEOUT
        while stats(carol, bob)["PeakOutgoingBytes"] <= LIMIT:
            assert time.monotonic() < deadline
        assert [bob.receive_call().args[0] for _ in range(SOME)] == list(range(SOME))
    alice.alive()
    # More than the limit waited by one read of the socket at the most, of 1.5 MB.
    assert LIMIT < stats(carol, bob)["PeakOutgoingBytes"] < LIMIT + 2 * 65536 + SIZE
    assert bus.statistics().dropped == 0


def test_semantics_s30_block_makes_broadcasters_wait_for_all(
    host: ThreadHost, connect: Connect
) -> None:
    bus = make(host, "block")
    alice, bob, carol = (connect(bus) for _ in range(3))
    for client in (bob, carol):
        client.match("member='Flood'")
    with sending(alice, b"".join(map(cast, range(SOME)))):
        for number in range(SOME):
            assert bob.read().args[0] == carol.read().args[0] == number
    alice.alive()
    assert bus.statistics().dropped == 0


def test_semantics_s30_block_makes_who_asks_the_bus_read_the_answers(
    host: ThreadHost, connect: Connect
) -> None:
    bus = make(host, "block")
    alice, carol = connect(bus), connect(bus)
    carol.own("com.example." + "x" * 200)
    count = 5000
    data = b"".join(call("ListNames").pack(number + 10) for number in range(count))
    with sending(alice, data):
        assert [alice.read().reply_serial for _ in range(count)] == list(range(10, count + 10))
    assert stats(carol, alice)["PeakOutgoingBytes"] < LIMIT + 2 * 65536 * 10


def test_semantics_s30_block_ends_with_its_patience(host: ThreadHost, connect: Connect) -> None:
    bus = make(host, "block", timeout=0.05)
    alice, bob, carol = (connect(bus) for _ in range(3))
    with sending(alice, b"".join(message(bob, number) for number in range(SOME))):
        gone(bus, bob)
    # Of those that came too late it is told; then it goes on.
    assert {m.error_name for m in alice.sync()} <= {f"{BUS}.Error.ServiceUnknown"}
    bob.closed()
    carol.alive()


def test_semantics_s30_block_survives_two_who_only_send(host: ThreadHost, connect: Connect) -> None:
    bus = make(host, "block", timeout=0.05)
    alice, bob, carol = (connect(bus) for _ in range(3))
    threads = []
    for client, other in ((alice, bob), (bob, alice)):
        data = b"".join(message(other, number) for number in range(SOME * 10))

        def send(client: RawClient = client, data: bytes = data) -> None:
            with suppress(ClosedError):  # since it has not read
                client.send_bytes(data)

        threads.append(threading.Thread(target=send))
        threads[-1].start()
    for thread in threads:
        thread.join()
    carol.alive()


def test_semantics_s30_other_words_are_refused(host: ThreadHost) -> None:
    with pytest.raises(ValueError, match="full_receiver"):
        make(host, "drop")
    assert host.buses == ()


# -- S31, S32


@pytest.mark.parametrize("way", ["drop-in", "disconnect"])
def test_semantics_s31_a_stuck_receiver_stops_nobody(
    host: ThreadHost, connect: Connect, way: str
) -> None:
    """The others get everything while it does not read at all."""
    bus = make(host, way)
    alice, stuck, good = (connect(bus) for _ in range(3))
    for client in (stuck, good):
        client.match("member='Flood'")
    one, two = connect(bus), connect(bus)
    for number in range(SOME):
        alice.send_bytes(cast(number))
        assert good.read().args[0] == number
        one.send(peer_call(two.name, flags=1))
        two.receive_call()
    if way == "disconnect":
        gone(bus, stuck)
    else:
        assert bus.statistics().dropped > 0


def test_semantics_s32_whatever_is_dropped_is_counted_and_logged(
    host: ThreadHost, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "afdbus")
    bus = make(host, "drop-in")
    alice, bob = connect(bus), connect(bus)
    bob.match("member='Flood'")
    for number in range(SOME):
        alice.send_bytes(cast(number))
        alice.sync()
    now = bus.statistics()
    assert 0 < now.dropped < SOME
    assert [bob.read().member for _ in range(SOME - now.dropped)]
    assert bob.sync() == [], "all the others"
    assert [c.dropped for c in now.connections if c.name == bob.name] == [now.dropped]
    text = f"[{bus.name}] Connection {bob.name} ("
    lines = [line for line in caplog.messages if line.startswith(text) and "has missed" in line]
    # at 1, 2, 4, 8 and so on
    assert len(lines) == now.dropped.bit_length()


# -- S33, S34, S35


def test_semantics_s33_who_does_not_read_is_bounded(host: ThreadHost, connect: Connect) -> None:
    bus = make(host, "drop-in")
    alice, bob, carol = (connect(bus) for _ in range(3))
    bob.match("member='Flood'")
    for number in range(SOME):
        alice.send_bytes(cast(number))
        alice.sync()
    assert LIMIT < stats(carol, bob)["OutgoingBytes"] < LIMIT + SIZE + 1000
    # and its own calls get no answers, instead of using more memory
    bob.send_bytes(b"".join(call("ListNames").pack(number + 10) for number in range(1000)))
    carol.sync()
    assert stats(carol, bob)["PeakOutgoingBytes"] < LIMIT + SIZE + 1000


def test_semantics_s34_there_is_no_ceiling_below_that_of_messages(
    host: ThreadHost, connect: Connect
) -> None:
    bus = host.create_bus()
    alice, bob = connect(bus), connect(bus)
    size = 24 * 1024 * 1024
    data = peer_call(bob.name, "Large", "ay", bytes(size), flags=1).pack(9)
    with sending(alice, data):
        assert len(bob.receive_call().body) == size + 4
    alice.alive()


def test_semantics_s35_limits_are_set_by_the_creator_for_one_bus(
    host: ThreadHost, connect: Connect
) -> None:
    strict = host.create_bus(config=busconfig(max_match_rules_per_connection=1))
    others = connect(host.create_bus())
    client = connect(strict)
    for one in (client, others):
        one.match("member='A'")
    others.match("member='B'")
    answer = client.bus("AddMatch", "s", "member='B'")
    assert answer.error_name == EXCEEDED
