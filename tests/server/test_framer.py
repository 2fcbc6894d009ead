"""P3: what is kept of messages that are not whole, and descriptors without a message."""

from __future__ import annotations

import os
import socket

import pytest
from kit import peer_call

from afdbus.errors import ProtocolViolation
from afdbus.server.intake import MAX_HEADER, Intake
from afdbus.wire.framing import LARGE, READ, Framer

MIB = 1 << 20


def test_p3_the_buffer_is_never_twice_of_what_has_come() -> None:
    framer = Framer()
    total = 120 * MIB
    framer.begin(b"x" * 16, total)
    assert framer.large is not None
    assert len(framer.large) <= 2 * LARGE
    while framer.filled < 3 * MIB:
        with framer.room() as room:
            count = min(len(room), 5000)
            room[:count] = b"y" * count
        framer.advance(count)
        assert len(framer.large) <= max(2 * LARGE, 2 * framer.filled)


@pytest.mark.parametrize("total", [LARGE + 1, 2 * LARGE, 2 * LARGE + 1, 3 * MIB + 7])
def test_a_large_message_comes_out_as_it_came_in(total: int) -> None:
    data = os.urandom(total)
    framer = Framer()
    framer.begin(data[:20], total)
    pos = 20
    whole = False
    while not whole:
        with framer.room() as room:
            count = min(len(room), 30_001)
            room[:count] = data[pos : pos + count]
            pos += count
        whole = framer.advance(count)
    assert pos == total
    assert framer.finish() == data
    assert framer.large is None


def test_descriptors_are_taken_in_order_or_not_at_all() -> None:
    framer = Framer()
    assert framer.take_fds(1) is None
    framer.receive_fds([5, 6])
    framer.receive_fds([7])
    assert framer.take_fds(4) is None
    assert framer.take_fds(2) == [5, 6]
    assert framer.take_fds(1) == [7]
    assert framer.fds is None


def test_p29_what_nobody_took_is_closed() -> None:
    reading, writing = os.pipe()
    framer = Framer()
    framer.receive_fds([reading, writing])
    framer.close()
    for number in (reading, writing):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (peer_call("a.b", body_length=2000), 1000),
        (peer_call("a.b", body_length=128 * MIB), 1 << 40),
        (peer_call("a.b", fields_length=MAX_HEADER), 1 << 40),
        (peer_call("a.b", fields_length=2**32 - 1), 1 << 40),
    ],
)
def test_p3_what_is_too_large_is_refused_by_its_first_bytes(message, limit: int) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        intake = Intake(ours)
        with pytest.raises(ProtocolViolation):
            intake.keep(message.pack(3)[:16], limit)
        assert intake.large is None


def test_a_long_message_is_read_alone_once_its_size_is_known() -> None:
    """What follows it is not in the same read, so that nothing of either need be copied."""
    ours, theirs = socket.socketpair()
    intake = Intake(ours)
    message = peer_call(":1.1", "Method", "ay", bytes(65536)).pack(1)
    assert intake.is_plain()
    assert intake.next_size(READ) == READ
    intake.keep(message[:READ], MIB)
    assert intake.next_size(READ) == len(message) - READ
    intake.rest = b""
    intake.nothing_left(len(message))
    assert intake.next_size(READ) == len(message)
    assert not intake.is_plain()
    intake.nothing_left(len(message))
    assert intake.next_size(READ) == len(message)
    intake.nothing_left(200)
    assert intake.next_size(READ) == READ
    assert intake.is_plain()
    intake.keep(message[:READ], MIB)
    intake.keep(peer_call(":1.1", "Method").pack(1)[:50], MIB)
    assert intake.next_size(READ) == READ
    ours.close()
    theirs.close()
