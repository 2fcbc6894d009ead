"""Descriptors: paired with their message, in order, closed once; and who may not have them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from kit import BUS, NO_REPLY_EXPECTED, Daemon, RawClient, call, method_return, peer_call, signal
from kit.message import UNIX_FDS

UNSUPPORTED = (
    "error",
    f"{BUS}.Error.NotSupported",
    "Tried to send message with Unix file descriptors"
    "to a client that doesn't support that.",
)  # fmt: skip


@pytest.fixture
def files() -> Iterator[Callable[[int], list[int]]]:
    """Make some files; each is known by its contents, see `contents`."""
    made: list[int] = []

    def make(count: int) -> list[int]:
        for _ in range(count):
            fd = os.memfd_create("kit")
            os.write(fd, str(len(made)).encode())
            made.append(fd)
        return made[len(made) - count :]

    yield make
    for fd in made:
        os.close(fd)


def contents(fds: list[int]) -> list[int]:
    """Which files these are; closes them."""
    found = [int(os.pread(fd, 100, 0)) for fd in fds]
    for fd in fds:
        os.close(fd)
    return found


Files = Callable[[int], list[int]]


@pytest.mark.parametrize("count", [1, 2, 16])
def test_fds_arrive(alice: RawClient, bob: RawClient, files: Files, count: int) -> None:
    message = peer_call(bob.name, "M", "ah", list(range(count)), fds=files(count))
    alice.send(message)
    received = bob.receive_call()
    assert received.unix_fds == count
    assert received.args == (list(range(count)),)
    assert contents(received.fds) == list(range(count))
    bob.send(method_return(received, "h", 0, fds=files(1)))
    assert contents(alice.read().fds) == [count]


def test_fd_numbers_in_the_body_are_not_checked(
    alice: RawClient, bob: RawClient, files: Files
) -> None:
    alice.send(peer_call(bob.name, "M", "h", 77, fds=files(1)))
    received = bob.receive_call()
    assert received.args == (77,)
    assert contents(received.fds) == [0]


def test_fds_in_order(alice: RawClient, bob: RawClient, files: Files) -> None:
    """P29: each message has its own, whatever is between them."""
    for number in range(60):
        count = (0, 1, 3)[number % 3]
        alice.send(peer_call(bob.name, f"M{number}", "u", number, flags=1, fds=files(count)))
    expected = 0
    for number in range(60):
        received = bob.receive_call()
        count = (0, 1, 3)[number % 3]
        assert received.args == (number,)
        assert contents(received.fds) == list(range(expected, expected + count))
        expected += count
    assert alice.sync() == []


def test_p11_same_header_with_fds_again_and_again(
    alice: RawClient, bob: RawClient, files: Files
) -> None:
    for number in range(20):
        alice.send(peer_call(bob.name, "Same", "h", 0, flags=NO_REPLY_EXPECTED, fds=files(1)))
        assert contents(bob.receive_call().fds) == [number]


def test_cve_2014_3533_fds_of_two_messages_in_one_write(
    alice: RawClient, bob: RawClient, files: Files
) -> None:
    """What comes at once belongs to the messages in their order."""
    one, two = files(1), files(2)
    data = b"".join(
        peer_call(bob.name, flags=NO_REPLY_EXPECTED, fds=fds).pack(100 + number)
        for number, fds in enumerate([one, [], two])
    )
    alice.send_bytes(data, one + two)
    assert [contents(bob.receive_call().fds) for _ in range(3)] == [[0], [], [1, 2]]


@pytest.mark.parametrize("cut", [1, 15, 16, 40, 150, 1000])
@pytest.mark.parametrize("where", [0, 1])
def test_message_with_fds_in_two_pieces(
    alice: RawClient, bob: RawClient, files: Files, cut: int, where: int
) -> None:
    """The descriptors may even come with the second piece."""
    fds = files(1)
    data = peer_call(bob.name, "M", "s", "x" * 2000, fds=fds).pack(9)
    alice.send_bytes(data[:cut], fds if where == 0 else [])
    bob.alive()
    alice.send_bytes(data[cut:], fds if where == 1 else [])
    assert contents(bob.receive_call().fds) == [0]


@pytest.mark.parametrize(("announced", "sent"), [(1, 0), (2, 1), (16, 15)])
def test_fewer_than_announced(
    alice: RawClient, bob: RawClient, files: Files, announced: int, sent: int
) -> None:
    alice.send_bytes(
        peer_call(bob.name).plus((UNIX_FDS, "u", announced)).pack(9), files(sent) if sent else []
    )
    assert alice.closed() == []
    assert bob.sync() == []


def test_p11_fds_missing_after_good_messages(
    alice: RawClient, bob: RawClient, files: Files
) -> None:
    message = peer_call(bob.name, flags=NO_REPLY_EXPECTED, fds=files(1))
    for _ in range(10):
        alice.send(message)
        assert contents(bob.receive_call().fds) == [0]
    message.fds = []
    alice.send(message)
    assert alice.closed() == []
    assert bob.sync() == []


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_16(alice: RawClient, bob: RawClient, files: Files, announced: bool) -> None:
    message = peer_call(bob.name, fds=files(17))
    if not announced:
        message.without(UNIX_FDS)
    alice.send_bytes(message.pack(9), message.fds)
    assert alice.closed() == []
    assert bob.sync() == []


def test_fds_left_over_belong_to_the_next(alice: RawClient, bob: RawClient, files: Files) -> None:
    alice.send_bytes(peer_call(bob.name, "None", flags=1).pack(9), files(1))
    alice.send(peer_call(bob.name, "One", flags=1).plus((UNIX_FDS, "u", 1)))
    none, one = bob.receive_call(), bob.receive_call()
    assert (none.member, none.fds) == ("None", [])
    assert one.member == "One"
    assert contents(one.fds) == [0]


def test_fds_left_over_time_out(start: Callable[..., Daemon], files: Files) -> None:
    daemon = start(pending_fd_timeout=100)
    client = daemon.connect()
    client.send_bytes(call("GetId").pack(9), files(1))
    assert client.read().brief[0] == "return"
    assert client.closed() == []


def test_fds_left_over_are_closed_with_the_connection(daemon: Daemon, files: Files) -> None:
    before = daemon.open_fds()
    client = daemon.connect()
    client.send_bytes(call("GetId").pack(9), files(5))
    assert client.read().brief[0] == "return"
    watcher = daemon.connect()
    assert daemon.open_fds() == before + 7
    client.close()
    watcher.until_gone(client.name)
    watcher.alive()  # the answer may be written before the socket is closed
    assert daemon.open_fds() == before + 1


# -- not negotiated


def test_receiver_without_fds(daemon: Daemon, alice: RawClient, files: Files) -> None:
    plain = daemon.connect(unix_fds=False)
    assert alice.ask(peer_call(plain.name, fds=files(1))).brief == UNSUPPORTED
    assert alice.ask(signal("S", destination=plain.name, fds=files(1))).brief == UNSUPPORTED
    assert plain.sync() == []


def test_broadcast_leaves_out_who_takes_none(
    daemon: Daemon, alice: RawClient, bob: RawClient, carol: RawClient, files: Files
) -> None:
    """S36: each receiver gets a descriptor of its own; who cannot is passed over in silence."""
    plain = daemon.connect(unix_fds=False)
    for client in (bob, carol, plain):
        client.match("member='S'")
    alice.send(signal("S", "h", 0, fds=files(1)))
    assert alice.sync() == []
    assert plain.sync() == []
    for client in (bob, carol):
        (received,) = client.sync()
        assert contents(received.fds) == [0]


def test_sender_without_fds_who_announces_them(
    daemon: Daemon, bob: RawClient, files: Files
) -> None:
    plain = daemon.connect(unix_fds=False)
    plain.send(peer_call(bob.name, fds=files(1)))
    assert plain.closed() == []
    assert bob.sync() == []


def test_sender_without_fds_who_announces_none(
    daemon: Daemon, bob: RawClient, files: Files
) -> None:
    """They vanish."""
    plain = daemon.connect(unix_fds=False)
    plain.send_bytes(peer_call(bob.name, flags=1).pack(9), files(1))
    assert plain.sync() == []
    assert bob.receive_call().unix_fds == 0


# -- to the bus, and to nobody


def test_fds_to_the_bus(daemon: Daemon, alice: RawClient, files: Files) -> None:
    before = daemon.open_fds()
    for _ in range(10):
        assert alice.ask(call("GetId", fds=files(2))).brief[0] == "return"
    text = "Call to GetNameOwner has wrong args (h, expected s)\n"
    expected = ("error", f"{BUS}.Error.InvalidArgs", text)
    assert alice.ask(call("GetNameOwner", "h", 0, fds=files(1))).brief == expected
    name = f"{BUS}.Error.ServiceUnknown"
    assert alice.ask(peer_call("com.example.None", fds=files(1))).error_name == name
    alice.alive()
    assert daemon.open_fds() == before


def test_undelivered_fds_are_closed_when_the_receiver_leaves(
    daemon: Daemon, alice: RawClient, files: Files
) -> None:
    """P29: so many that they cannot all have been written."""
    before = daemon.open_fds()
    receiver = daemon.connect()
    message = peer_call(receiver.name, "M", "ay", bytes(100_000), flags=1, fds=files(2))
    for _ in range(20):
        alice.send(message)
    alice.alive()
    receiver.close()
    alice.until_gone(receiver.name)
    alice.alive()  # the signal may be written before the last descriptor is closed
    assert daemon.open_fds() == before
