"""P4, P10, P30: who floods takes turns, and who is flooded is bounded."""

from __future__ import annotations

import itertools
import signal as signals
from collections.abc import Callable, Iterator

import pytest
from attack import Drainer, Pusher, Victim, push, stats, wait_for
from kit import peer_call, signal
from kit.client import TIMEOUT
from kit.message import Received, total_length

MIB = 1 << 20


def same(destination: str) -> Iterator[bytes]:
    """Messages of 200 bytes whose header is always the same."""
    message = signal("Flood", "s", "x" * 40, destination=destination).pack(5)
    while True:
        yield message * 100


def different(destination: str) -> Iterator[bytes]:
    """Messages whose header is never the same."""
    for first in itertools.count(0, 100):
        yield b"".join(
            signal(f"Flood{n}", "s", "x" * 40, destination=destination).pack(5)
            for n in range(first, first + 100)
        )


def frames(data: bytes) -> list[Received]:
    messages = []
    while len(data) >= 16 and len(data) >= (size := total_length(data[:16])):
        messages.append(Received(data[:size]))
        data = data[size:]
    return messages


@pytest.mark.parametrize("kind", [same, different])
@pytest.mark.parametrize("flooders", [1, 8])
def test_p4_a_ping_comes_before_most_of_a_flood_that_was_there_first(
    victim: Callable[..., Victim], kind: Callable[[str], Iterator[bytes]], flooders: int
) -> None:
    """Order, not time: all of them have spoken before the daemon looks at anybody."""
    daemon = victim()
    attackers = [daemon.connect() for _ in range(flooders)]
    receiver, pinger = daemon.connect(), daemon.connect()
    flood = b"".join(itertools.islice(kind(receiver.name), 20))
    with daemon.frozen():
        sent = [push(attacker, flood) for attacker in attackers]
        pinger.send(signal("Ping", destination=receiver.name))
    assert min(sent) > 150_000, "a flood is more than a few reads"
    whole = sum(len(frames(flood[:count])) for count in sent)
    before = 0
    while receiver.read("the ping").member != "Ping":
        before += 1
    # Each of them gets one full read before it is known to be heavy.
    assert before < whole / 2, f"{before} of {whole}"
    per_read = len(frames(flood[:65536])) + 1
    assert before <= flooders * per_read + 1


@pytest.mark.parametrize("kind", [same, different])
def test_p4_pings_go_on_between_turns_of_flooders(
    victim: Callable[..., Victim], kind: Callable[[str], Iterator[bytes]]
) -> None:
    """While each of eight flooders gets one more turn, every ping is answered."""
    daemon = victim()
    receiver, pinger = daemon.connect(), daemon.connect()
    pushers = [Pusher(daemon.connect(), kind(receiver.name)) for _ in range(8)]
    drainer = Drainer(receiver)
    wait_for(lambda: drainer.bytes > MIB, "the flood", pinger.sync)
    meanwhile = []
    for _ in range(50):
        before = drainer.bytes
        pinger.alive()
        meanwhile.append(drainer.bytes - before)
    for pusher in pushers:
        pusher.stop()
    drainer.stop()
    # Eight flooders with one read each, what waits in the receiver's socket, and a turn of writing.
    # Not in each case, as this process may have to wait between the answer and the look.
    usual = sorted(meanwhile)[25]
    assert usual < 4 * MIB, f"{usual} bytes of others went before a ping"


def test_p10_sigterm_and_timeouts_work_under_a_flood(victim: Callable[..., Victim]) -> None:
    daemon = victim(reply_timeout=50)
    receiver, caller, silent = daemon.connect(), daemon.connect(), daemon.connect()
    pushers = [Pusher(daemon.connect(), different(receiver.name)) for _ in range(3)]
    drainer = Drainer(receiver)
    serial = caller.send(peer_call(silent.name))
    answer = caller.read("NoReply by the bus's clock")
    assert (answer.error_name, answer.reply_serial) == (
        "org.freedesktop.DBus.Error.NoReply",
        serial,
    )
    assert not any(pusher.over for pusher in pushers)
    daemon.process.send_signal(signals.SIGHUP)
    caller.alive()
    daemon.stop()
    for pusher in pushers:
        pusher.stop()
    drainer.stop()


@pytest.fixture
def stopped_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test has stopped its daemon itself."""
    stop = Victim.stop

    def once(self: Victim) -> None:
        if self.directory.exists():
            stop(self)

    monkeypatch.setattr(Victim, "stop", once)


pytestmark = pytest.mark.usefixtures("stopped_daemons")


def test_p30_who_floods_one_that_does_not_read_is_paused(victim: Callable[..., Victim]) -> None:
    daemon = victim(max_incoming_bytes=2 * MIB)
    sender, receiver, other, another = (daemon.connect() for _ in range(4))
    before = daemon.rss()
    count = 200_000
    pieces = (
        b"".join(
            signal("M", "us", n, "x" * 100, destination=receiver.name).pack(n + 1)
            for n in range(first, first + 100)
        )
        for first in range(0, count, 100)
    )
    pusher = Pusher(sender, pieces)

    def charged() -> int:
        return stats(other, sender, "IncomingBytes")

    wait_for(lambda: charged() > 2 * MIB, "the sender to be paused")
    level = charged()
    for _ in range(100):
        other.send(signal("Hi", destination=another.name))
        assert another.read().member == "Hi"
    assert charged() == level, "it is read no further"
    assert not pusher.over
    assert daemon.rss() - before < 12 * 1024
    # It goes on when its messages are read, none is lost, and they are in order.
    for expected in range(count // 10):
        assert receiver.read().args[0] == expected
    assert daemon.rss() - before < 12 * 1024
    receiver.close()
    pusher.join(TIMEOUT)
    assert pusher.over, "who does not pile up anything is read to the end"
    other.alive()


def test_p30_a_paused_sender_is_released_by_the_end_of_its_receiver(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim(max_incoming_bytes=MIB)
    sender, receiver, other = (daemon.connect() for _ in range(3))
    chunk = signal("M", "s", "x" * 1000, destination=receiver.name, flags=3).pack(7) * 100
    pusher = Pusher(sender, itertools.repeat(chunk, 30))
    wait_for(lambda: stats(other, sender, "IncomingBytes") > MIB, "a backlog")
    other.alive()
    assert not pusher.over
    receiver.close()
    pusher.join(TIMEOUT)
    assert pusher.over
    sender.sync()


def test_p7_a_large_backlog_costs_what_it_is_and_arrives_in_order(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim()
    sender, receiver, other = (daemon.connect() for _ in range(3))
    sizes = [1000, 3000, 100, 60_000, 200_000]
    total = 60 * MIB
    rounds = total // sum(sizes)
    before = daemon.rss()
    peaks = []
    for _ in range(3):
        pieces = (
            b"".join(
                signal("M", "uay", n * 5 + k, bytes(size), destination=receiver.name).pack(9)
                for k, size in enumerate(sizes)
            )
            for n in range(rounds)
        )
        pusher = Pusher(sender, pieces)
        wait_for(lambda p=pusher: p.over, "the daemon to take everything", other.sync)  # type: ignore[misc]
        other.sync()
        peaks.append(daemon.rss())
        grown = peaks[-1] - before
        assert grown < total * 1.35 / 1024, f"{grown} KiB for {total} bytes"
        ticks = daemon.ticks()
        for n in range(rounds * 5):
            assert receiver.read().args[0] == n
            if n % 50 == 0:
                other.alive()
        assert daemon.ticks() - ticks < 300, "draining is copying 60 MiB, and little else"
    # What malloc keeps for the next time is its own affair, but the next time needs no more.
    assert peaks[2] < max(peaks[:2]) + 10 * 1024, peaks


def test_a_full_receiver_is_told_of_and_stays(victim: Callable[..., Victim]) -> None:
    """S30 to S33, the reference's way: unicasts are refused, broadcasts left out."""
    daemon = victim(max_outgoing_bytes=100_000)
    sender, receiver, reader = (daemon.connect() for _ in range(3))
    for client in (receiver, reader):
        client.match("member='M'")
    body = "x" * 10_000
    for _ in range(100):
        sender.send(signal("M", "s", body))
        assert reader.read().args == (body,)
    sender.send(peer_call(receiver.name))
    refused = sender.read()
    assert refused.error_name == "org.freedesktop.DBus.Error.LimitsExceeded"
    while stats(reader, receiver, "OutgoingBytes"):
        receiver.fill("the backlog")  # its socket is full, so something is there
    came = [message for message in receiver.briefs() if message[:2] == ("signal", "M")]
    assert 10 < len(came) < 100
    sender.send(signal("M", "s", "again"))
    assert receiver.read().args == ("again",)
