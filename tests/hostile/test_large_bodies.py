"""P1, P3: large messages, announced and real, hold up nobody and cost what they are."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from attack import Pusher, Victim, wait_for
from kit import NO_REPLY_EXPECTED, call, peer_call
from kit.client import TIMEOUT
from kit.message import Raw

MIB = 1 << 20


def array_body(element: bytes, size: int) -> bytes:
    count = size // len(element)
    return struct.pack("<I", count * len(element)) + element * count


BODIES = {
    "as": array_body(b"\3\0\0\0abc\0", 16 * MIB),
    "ag": array_body(b"\1u\0", 4 * MIB),
    "av": array_body(b"\1u\0\0\7\0\0\0", 8 * MIB),
    "aay": array_body(b"\0\0\0\0", 16 * MIB),
    "ab": array_body(b"\1\0\0\0", 32 * MIB),
    "a(yu)": struct.pack("<II", 32 * MIB, 0) + b"\1\0\0\0\2\0\0\0" * (4 * MIB),
}


def large_call(signature: str, body: bytes) -> bytes:
    """A call that the bus refuses for its signature, once it has found it valid."""
    message = call("GetId", signature, *[Raw(b"")])
    message.body = body
    return message.pack(99)


@pytest.mark.parametrize("signature", BODIES)
def test_p1_checking_a_large_body_holds_up_nobody(
    victim: Callable[..., Victim], signature: str
) -> None:
    daemon = victim()
    sender, other = daemon.connect(), daemon.connect()
    data = large_call(signature, BODIES[signature])
    # All but its end is there, so that what is counted is the checking.
    sender.send_bytes(data[:-1])
    other.sync()
    sender.send_bytes(data[-1:])
    sender.sock.setblocking(False)
    pings = 0
    while True:
        other.sync()
        pings += 1
        try:
            sender.data += sender.sock.recv(65536)
            break
        except BlockingIOError:
            continue
    sender.sock.settimeout(TIMEOUT)
    answer = sender.read()
    assert answer.error_name == "org.freedesktop.DBus.Error.InvalidArgs"
    # A step is 2 ms, and a whole body takes from 50 ms to 1 s.
    assert pings > 5, pings


def test_p1_an_invalid_large_body_ends_its_sender_alone(victim: Callable[..., Victim]) -> None:
    daemon = victim()
    sender, other = daemon.connect(), daemon.connect()
    body = bytearray(BODIES["av"])
    body[-8] = 2  # the length of the last variant's signature
    sender.send_bytes(large_call("av", bytes(body)))
    assert sender.closed() == []
    other.alive()


SIZES = [30_000, 32_700, 32_768, 40_000, 65_400, 65_536, 73_700, 80_000]


@pytest.mark.parametrize("cut", [0, 5000, 70_000])
def test_long_messages_arrive_as_they_were_sent(victim: Callable[..., Victim], cut: int) -> None:
    """Whether they are read alone or in pieces, with short ones between, again and again."""
    daemon = victim()
    sender, receiver = daemon.connect(), daemon.connect()
    bodies = [bytes([number % 251]) * size for number, size in enumerate(SIZES * 4)]
    messages = []
    for body in bodies:
        for content in (body, body, b"short"):
            message = peer_call(receiver.name, "Method", "ay", content)
            message.flags = NO_REPLY_EXPECTED
            messages.append(message)
    data = b"".join(message.pack(100 + at) for at, message in enumerate(messages))
    size = cut or len(data)
    pusher = Pusher(sender, (data[pos : pos + size] for pos in range(0, len(data), size)))
    for at in range(len(messages)):
        came = receiver.read()
        assert came.serial == 100 + at
        assert came.args == (bodies[at // 3] if at % 3 < 2 else b"short",)
    pusher.stop()
    receiver.alive()


@pytest.mark.parametrize("size", [40_000, 65_536])
def test_an_invalid_long_body_ends_its_sender_alone(
    victim: Callable[..., Victim], size: int
) -> None:
    """Also if its header is one that was seen before."""
    daemon = victim()
    sender, receiver = daemon.connect(), daemon.connect()
    message = peer_call(receiver.name, "Method", "s", "x" * size)
    message.flags = NO_REPLY_EXPECTED
    for serial in (100, 101, 102):
        sender.send_bytes(message.pack(serial))
        assert receiver.read().serial == serial
    sender.send_bytes(message.pack(103)[:-2] + b"\xff\0")
    assert sender.closed() == []
    receiver.alive()


def test_p1_who_leaves_while_its_body_is_checked_is_forgotten(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim()
    daemon.watch()
    for _ in range(3):
        sender = daemon.connect()
        sender.send_bytes(
            large_call(
                "as",
                BODIES["as"][: 4 + 8 * MIB].replace(
                    BODIES["as"][:4], struct.pack("<I", 8 * MIB), 1
                ),
            )
        )
        sender.close()
    daemon.settle()


@pytest.mark.parametrize("size", [200_000, 20 * MIB])
def test_p1_a_large_header_is_not_even_looked_at(victim: Callable[..., Victim], size: int) -> None:
    """It would have to be judged in one go: 16 MiB of unknown fields take 3 s."""
    daemon = victim()
    sender, other = daemon.connect(), daemon.connect()
    data = call("GetId").plus((200, "ay", bytes(size))).pack(5)
    sender.send_bytes(data[:1000])
    assert sender.closed() == []
    other.alive()


def test_a_header_that_fits_into_a_read_may_be_full_of_unknown_fields(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim()
    sender = daemon.connect()
    message = call("GetId").plus(*[(200, "y", 1)] * 7000)
    assert sender.ask(message).brief[0] == "return"


def test_p3_an_announced_message_costs_what_has_come(victim: Callable[..., Victim]) -> None:
    daemon = victim()
    clients = [daemon.connect() for _ in range(10)]
    other = daemon.connect()
    other.sync()
    before = daemon.rss()
    for client in clients:
        message = peer_call(other.name, "M", "ay", b"")
        message.body_length = 120 * MIB
        client.send_bytes(message.pack(9))
    other.sync()
    assert daemon.rss() - before < 10 * 1024
    # A little more comes, and a little more is taken.
    for client in clients:
        client.send_bytes(struct.pack("<I", 120 * MIB - 4) + bytes(100_000))
    other.sync()
    assert daemon.rss() - before < 10 * 1024


def test_p3_before_hello_nobody_may_send_much(victim: Callable[..., Victim]) -> None:
    daemon = victim()
    other = daemon.connect()
    client = daemon.join()
    message = call("Hello", "ay", b"")
    message.body_length = 2 * MIB
    client.send_bytes(message.pack(1))
    assert client.closed() == []
    other.alive()


def test_p3_a_large_message_passes_whole(victim: Callable[..., Victim]) -> None:
    daemon = victim()
    sender, receiver, other = (daemon.connect() for _ in range(3))
    body = bytes(range(256)) * (20 * MIB // 256)
    before = daemon.rss()
    pusher = Pusher(sender, iter([peer_call(receiver.name, "M", "ay", body).pack(7)]))
    assert receiver.read().args == (body,)
    pusher.join(TIMEOUT)
    other.alive()
    wait_for(lambda: daemon.rss() - before < 10 * 1024, "the memory to be given back", other.sync)


def test_large_and_small_messages_keep_their_order(victim: Callable[..., Victim]) -> None:
    """S26, P27: of one sender to one receiver that reads slowly."""
    daemon = victim()
    sender, receiver = daemon.connect(), daemon.connect()
    sizes = [10, 200_000, 5, 70_000, 65_000, 0, 1_000_000, 3, 16_384, 16_385] * 3
    data = b"".join(
        peer_call(receiver.name, "M", "uay", n, bytes(size), flags=1).pack(n + 1)
        for n, size in enumerate(sizes)
    )
    pusher = Pusher(sender, iter([data]))
    came = [receiver.read().args for _ in sizes]
    assert came == [(n, bytes(size)) for n, size in enumerate(sizes)]
    pusher.join(TIMEOUT)
