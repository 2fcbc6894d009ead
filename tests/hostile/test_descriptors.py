"""P29: descriptors stay with their messages, in order, and are closed once, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from attack import Victim, wait_for
from kit import RawClient, peer_call, signal


@pytest.fixture
def daemon(victim: Callable[..., Victim]) -> Iterator[Victim]:
    """With generous limits for descriptors; it must have none left over at the end."""
    running = victim(
        max_outgoing_unix_fds=100_000, max_incoming_unix_fds=100_000, max_message_unix_fds=16
    )
    running.watch()
    yield running
    running.settle()


def marked(number: int) -> int:
    """A descriptor that can be told from others."""
    fd = os.memfd_create(f"mark-{number}")
    os.write(fd, str(number).encode())
    return fd


def marks(fds: list[int]) -> list[int]:
    found = [int(os.pread(fd, 20, 0)) for fd in fds]
    for fd in fds:
        os.close(fd)
    return found


def send_marked(client: RawClient, message_of: Callable[..., object], *numbers: int) -> None:
    fds = [marked(number) for number in numbers]
    client.send(message_of(fds=fds))  # type: ignore[arg-type]
    for fd in fds:
        os.close(fd)


def test_p29_descriptors_are_paired_and_ordered_through_partial_writes(daemon: Victim) -> None:
    sender, receiver = daemon.connect(), daemon.connect()
    expected: list[tuple[int, list[int]]] = []
    number = 0
    for turn in range(60):
        numbers = list(range(number, number + turn % 4))
        number += len(numbers)
        size = [0, 100, 30_000, 150_000][turn % 4 if turn % 7 else 3]
        expected.append((turn, numbers))
        send_marked(
            sender,
            lambda fds, t=turn, s=size: peer_call(  # type: ignore[misc]
                receiver.name, "M", "uay", t, bytes(s), fds=fds, flags=1
            ),
            *numbers,
        )
    sender.sync()
    came = []
    for _ in expected:
        message = receiver.read()
        came.append((message.args[0], marks(message.fds)))
    assert came == expected


def test_p29_a_broadcast_gives_everybody_descriptors(daemon: Victim) -> None:
    sender, deaf = daemon.connect(), daemon.connect(unix_fds=False)
    receivers = [daemon.connect() for _ in range(5)]
    for client in [*receivers, deaf]:
        client.match("member='Take'")
    idle = daemon.open_fds()
    for first in range(0, 20, 2):
        send_marked(sender, lambda fds: signal("Take", "hh", 0, 1, fds=fds), first, first + 1)
    sender.sync()
    for client in receivers:
        assert [marks(client.read().fds) for _ in range(10)] == [
            [first, first + 1] for first in range(0, 20, 2)
        ]
    deaf.alive()
    wait_for(lambda: daemon.open_fds() == idle, "the descriptors to be closed", sender.sync)


@pytest.mark.parametrize("who", ["receiver", "sender"])
def test_p29_queued_descriptors_outlive_their_sender_and_not_their_receiver(
    daemon: Victim, who: str
) -> None:
    sender, receiver, other = (daemon.connect() for _ in range(3))
    idle = daemon.open_fds()
    sender.send(signal("Big", "ay", bytes(1_000_000), destination=receiver.name))
    for number in range(20):
        send_marked(
            sender, lambda fds: signal("M", "h", 0, destination=receiver.name, fds=fds), number
        )
    wait_for(lambda: daemon.open_fds() == idle + 20, "them to be queued", other.sync)
    {"receiver": receiver, "sender": sender}[who].close()
    if who == "receiver":
        wait_for(lambda: daemon.open_fds() == idle - 1, "them to be closed", other.sync)
        return
    wait_for(lambda: daemon.open_fds() == idle + 19, "the sender to be gone", other.sync)
    assert receiver.read().member == "Big"
    assert [marks(receiver.read().fds) for _ in range(20)] == [[number] for number in range(20)]
    wait_for(lambda: daemon.open_fds() == idle - 1, "them to be closed", other.sync)


def test_p29_descriptors_without_a_message_are_closed_with_the_connection(daemon: Victim) -> None:
    other = daemon.connect()
    idle = daemon.open_fds()
    for cut in (16, 30, 100):
        client = daemon.connect()
        data = peer_call(other.name, "M", "h", 0, fds=[0]).pack(4)
        client.send_bytes(data[:cut], [0])
        client.close()
        wait_for(lambda: daemon.open_fds() == idle, "it to be closed", other.sync)


@pytest.mark.parametrize("count", [17, 100, 253])
def test_p29_too_many_descriptors_end_the_sender_and_leak_nothing(
    daemon: Victim, count: int
) -> None:
    other, client = daemon.connect(), daemon.connect()
    idle = daemon.open_fds()
    client.send_bytes(peer_call(other.name, "M", fds=[0] * count).pack(4), [0] * count)
    assert client.closed() == []
    wait_for(lambda: daemon.open_fds() == idle - 1, "them to be closed", other.sync)
    assert other.sync() == []


def test_p29_more_than_a_message_takes_may_not_pile_up(daemon: Victim) -> None:
    other, client = daemon.connect(), daemon.connect()
    idle = daemon.open_fds()
    ping = signal("M", destination=other.name).pack(3)
    with pytest.raises(OSError):  # noqa: PT011, PT012 - reset or broken pipe
        for _ in range(200):
            client.sock.sendmsg([ping], [(1, 1, bytes(4))])
    wait_for(lambda: daemon.open_fds() == idle - 1, "them to be closed", other.sync)


def test_p29_descriptors_within_a_large_message_may_not_pile_up(daemon: Victim) -> None:
    other, client = daemon.connect(), daemon.connect()
    idle = daemon.open_fds()
    large = peer_call(other.name, "M", "ay", bytes(300_000), flags=1).pack(3)
    client.send_bytes(large[:100_000])
    with pytest.raises(OSError):  # noqa: PT011, PT012 - reset or broken pipe
        for at in range(100_000, 100_200):
            client.sock.sendmsg([large[at : at + 1]], [(1, 1, bytes(4) * 16)])
            other.sync()
    wait_for(lambda: daemon.open_fds() == idle - 1, "them to be closed", other.sync)


def test_p29_descriptors_in_the_handshake_vanish(daemon: Victim) -> None:
    other = daemon.connect()
    idle = daemon.open_fds()
    client = daemon.dial()
    client.send_bytes(b"\0", [0, 1, 2])
    client.send_line(client.external())
    assert client.read_line().startswith("OK")
    assert daemon.open_fds() == idle + 1
    other.alive()


def test_p29_a_receiver_out_of_its_own_limit_is_refused(victim: Callable[..., Victim]) -> None:
    daemon = victim(max_outgoing_unix_fds=4, max_incoming_unix_fds=1000)
    daemon.watch()
    sender, receiver, other = (daemon.connect() for _ in range(3))
    idle = daemon.open_fds()
    sender.send(signal("Big", "ay", bytes(1_000_000), destination=receiver.name))
    for number in range(10):
        send_marked(sender, lambda fds: peer_call(receiver.name, "M", "h", 0, fds=fds), number)
    refused = sender.sync()
    assert {message.error_name for message in refused} == {
        "org.freedesktop.DBus.Error.LimitsExceeded"
    }
    assert 4 <= 10 - len(refused) <= 6, "one message may go beyond the limit"
    assert receiver.read().member == "Big"
    for number in range(10 - len(refused)):
        assert marks(receiver.read().fds) == [number]
    wait_for(lambda: daemon.open_fds() == idle, "all to be closed", other.sync)
    daemon.settle()


def test_p30_who_has_too_many_descriptors_on_the_way_is_paused(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim(max_outgoing_unix_fds=1000, max_incoming_unix_fds=8)
    daemon.watch()
    sender, receiver, other = (daemon.connect() for _ in range(3))
    idle = daemon.open_fds()
    sender.send(signal("Big", "ay", bytes(1_000_000), destination=receiver.name))
    for number in range(50):
        send_marked(
            sender, lambda fds: signal("M", "h", 0, destination=receiver.name, fds=fds), number
        )
    wait_for(lambda: daemon.open_fds() >= idle + 8, "the sender to be paused", other.sync)
    for _ in range(50):
        other.alive()
    assert daemon.open_fds() <= idle + 10
    assert receiver.read().member == "Big"
    assert [marks(receiver.read().fds) for _ in range(50)] == [[number] for number in range(50)]
    sender.alive()
    wait_for(lambda: daemon.open_fds() == idle, "all to be closed", other.sync)
    daemon.settle()
