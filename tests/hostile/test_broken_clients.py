"""P5, P6, P20, P21: clients that do not behave, and what others notice of it."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable
from random import Random

import pytest
from attack import Drainer, Victim, stats, wait_for, windows
from kit import BUS, ClosedError, RawClient, busconfig, call, peer_call, signal


def read_to_the_end(client: RawClient) -> None:
    with contextlib.suppress(ConnectionResetError):  # an end with something unread
        while client.sock.recv(4096):
            pass


@pytest.mark.parametrize("when", ["first", "handshake", "begun", "on the bus"])
@pytest.mark.parametrize("seed", range(3))
def test_garbage_ends_its_sender_alone(victim: Callable[..., Victim], when: str, seed: int) -> None:
    daemon = victim()
    daemon.watch()
    random = Random(seed)
    other = daemon.connect()
    for _ in range(20):
        client = {"begun": daemon.join, "on the bus": daemon.connect}.get(when, daemon.dial)()
        if when == "handshake":
            client.send_bytes(b"\0")
        garbage = random.randbytes(random.choice([1, 15, 16, 17, 100, 5000, 70_000]))
        if when in ("begun", "on the bus"):
            garbage = random.choice([b"l\1\0\1", b"B\4\0\1", b"", b"l\0\0\1", b"l\2\0\7"]) + garbage
        try:
            client.sock.sendall(garbage)
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()  # it was cut off before it had said everything
        else:
            read_to_the_end(client)
        other.alive()
    daemon.settle()


def test_garbage_for_ever_is_never_read_for_ever(victim: Callable[..., Victim]) -> None:
    daemon = victim()
    other, client = daemon.connect(), daemon.dial()
    client.send_bytes(b"\0")
    with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
        client.sock.sendall(b"NOT A COMMAND " * 1_000_000)
    other.alive()


def test_commands_for_ever_without_reading_the_answers_are_not_answered_for_ever(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim()
    other, client = daemon.connect(), daemon.dial()
    client.send_bytes(b"\0")
    before = daemon.rss()
    client.sock.settimeout(0.5)
    with pytest.raises(OSError):  # noqa: PT011 - reset, broken pipe, or nobody reads it
        client.sock.sendall(b"NONSENSE\r\n" * 1_000_000)
    assert daemon.rss() - before < 4096
    other.alive()


@pytest.mark.parametrize(
    "said", [b"", b"\0", b"\0AUTH", b"\0AUTH EXTERNAL\r\n", b"\0AUTH EXTERNAL 30\r\n", None]
)
def test_who_hangs_half_way_is_cut_off_in_time(
    victim: Callable[..., Victim], said: bytes | None
) -> None:
    daemon = victim()
    other = daemon.connect()
    daemon.reconfigure(other, busconfig(auth_timeout=100))
    client = daemon.dial()
    if said is None:  # all but Hello
        said = f"\0{client.external()}\r\nBEGIN\r\n".encode()
    with contextlib.suppress(ClosedError):  # the end came before we had said it
        client.send_bytes(said)
    read_to_the_end(client)
    other.alive()


def test_half_way_hangers_do_not_keep_others_out(victim: Callable[..., Victim]) -> None:
    """max_incomplete_connections stops accepting, until the first of them is cut off."""
    daemon = victim(auth_timeout=200, max_incomplete_connections=4)
    hanging = [daemon.dial() for _ in range(12)]
    for _ in range(50):  # until we are quick enough
        late = daemon.dial()
        with contextlib.suppress(ClosedError):
            late.authenticate()
            late.hello()
            break
    late.alive()
    for client in hanging:
        client.close()


def test_who_is_killed_in_the_middle_of_a_message_is_forgotten(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim()
    daemon.watch()
    other = daemon.connect()
    other.match("member='NameOwnerChanged'")
    for cut in (1, 15, 16, 40, 70_000, 1_000_000):
        client = daemon.connect()
        name = client.name
        assert other.read().args == (name, "", name)
        message = peer_call(other.name, "M", "ay", bytes(2_000_000)).pack(5)
        client.send_bytes(message[:cut])
        client.close()
        assert other.read().args == (name, name, "")
    daemon.settle()


@pytest.mark.parametrize("bug", ["Turn", "Struct", "Memory", "Deep"])
def test_p5_a_bug_in_a_turn_costs_that_peer_alone(victim: Callable[..., Victim], bug: str) -> None:
    daemon = victim("watched", strict=False)
    unlucky, other, owed = (daemon.connect() for _ in range(3))
    other.match("member='NameOwnerChanged'")
    unlucky.own("com.example.Mine")
    other.sync()
    owed.send(peer_call(unlucky.name, "Ask"))
    assert unlucky.receive_call().member == "Ask"
    before = windows(other)
    unlucky.send(peer_call(f"com.bug.{bug}"))
    assert unlucky.closed() == []
    lost = [other.read().args[0] for _ in range(2)]
    assert lost == ["com.example.Mine", unlucky.name]
    assert owed.read().error_name == "org.freedesktop.DBus.Error.NoReply"
    assert windows(other)[1] == before[1] + 1
    # the log has a thread of its own
    wait_for(lambda: "Traceback (most recent call last)" in daemon.log(), "the log")
    daemon.connect().alive()


def test_p5_strictness_is_what_shows_bugs_in_tests(
    victim: Callable[..., Victim], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = victim("watched")
    client = daemon.connect()
    client.send(peer_call("com.bug.Turn"))
    assert client.closed() == []
    assert daemon.process.wait(20) != 0
    monkeypatch.setattr(daemon, "stop", client.close)


@pytest.mark.parametrize("seed", range(10))
def test_broker_v36_p6_a_number_used_again_gets_nothing_of_its_former_owner(
    victim: Callable[..., Victim], seed: int
) -> None:
    """In one batch: who is cut off, messages for it, and newcomers who get its number."""
    daemon = victim()
    random = Random(seed)
    for _ in range(5):
        doomed = [daemon.connect() for _ in range(4)]
        senders = [daemon.connect() for _ in range(4)]
        for client in doomed:
            client.match("member='Broadcast'")
        newcomers: list[RawClient] = []

        def attack(doomed: list[RawClient] = doomed, new: list[RawClient] = newcomers) -> None:
            client = random.choice(doomed)
            client.send_bytes(random.choice([b"garbage, which is no message", b""]))
            client.close() if random.random() < 0.5 else client.sock.shutdown(socket.SHUT_WR)
            doomed.remove(client)
            new.append(daemon.dial())
            new[-1].send_bytes(b"\0")
            new[-1].send_line(new[-1].external())

        def send(senders: list[RawClient] = senders, names: list[str] | None = None) -> None:
            sender = random.choice(senders)
            sender.send(signal("Broadcast", "s", "not for newcomers"))
            for name in names or []:
                sender.send(signal("Unicast", destination=name))

        names = [client.name for client in doomed]
        with daemon.frozen():
            deeds = [attack] * 4 + [lambda n=names: send(names=n)] * 6  # type: ignore[misc]
            random.shuffle(deeds)
            for deed in deeds:
                deed()
        for client in newcomers:
            assert client.read_line().startswith("OK ")
            client.send_line("BEGIN")
            client.hello()
            client.alive()
        for client in [*senders, *newcomers]:
            client.close()


def test_p20_who_is_gone_while_it_is_paused_does_not_spin_and_is_read_to_its_end(
    victim: Callable[..., Victim],
) -> None:
    limit = 200_000
    daemon = victim("watched", max_incoming_bytes=limit)
    sender, receiver, other = (daemon.connect() for _ in range(3))
    other.match("member='NameOwnerChanged'")
    message = signal("M", "s", "x" * 1000, destination=receiver.name).pack(3)
    sent = 0
    sender.sock.setblocking(False)
    while True:
        paused = stats(other, sender, "IncomingBytes") > limit
        try:
            while True:
                sent += sender.sock.send(message[sent % len(message) :])
        except BlockingIOError:
            if paused:
                break  # and what fits into its socket is there
    whole = sent // len(message)
    assert whole > 300
    sender.close()
    other.alive()
    before = windows(other)[0]
    for _ in range(100):
        other.alive()
    passes = windows(other)[0] - before
    assert passes < 250, f"{passes} passes of the loop for 100 pings"
    for _ in range(whole):
        assert receiver.read().member == "M"
    assert other.read().args == (sender.name, sender.name, "")


def test_who_no_longer_reads_is_let_go(victim: Callable[..., Victim]) -> None:
    """Nothing can be written to it: what it has said counts, then it is gone."""
    daemon = victim("watched")
    client, other = daemon.connect(), daemon.connect()
    client.match("interface='com.example.Interface'")
    other.match(f"member='NameOwnerChanged',arg0='{client.name}'")
    for _ in range(3):
        other.send(signal("M"))
        other.send(signal("M", destination=client.name))
        other.sync()
    with daemon.frozen():
        client.sock.shutdown(socket.SHUT_RD)
        for _ in range(3):
            other.send(signal("M"))
            other.send(signal("M", destination=client.name))
        client.send_bytes(signal("Last", "s", "x" * 100, destination=other.name).pack(9) * 500)
    came = [other.read() for _ in range(501)]
    assert [message.member for message in came] == ["Last"] * 500 + ["NameOwnerChanged"]
    before = windows(other)[0]
    for _ in range(50):
        other.alive()
    assert windows(other)[0] - before < 150


def test_p21_without_descriptors_the_daemon_waits_for_some(
    victim: Callable[..., Victim],
) -> None:
    daemon = victim("watched")
    other = daemon.connect()
    limit = daemon.open_fds() + 10
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
    clients = [daemon.dial() for _ in range(30)]
    for client in clients:
        client.send_bytes(b"\0")
        client.send_line(client.external())
    wait_for(lambda: daemon.open_fds() == limit, "the daemon to run out", other.sync)
    before = windows(other)[0]
    for _ in range(100):
        other.alive()
    assert windows(other)[0] - before < 250, "it spins"
    # Whenever some of those who are in go, others get in, in the order of their coming.
    for index, client in enumerate(clients):
        assert client.read_line().startswith("OK "), index
        client.close()
    other.alive()
    daemon.until_logged("Cannot accept a connection")


def test_a_thousand_idle_clients_cost_four_mib(victim: Callable[..., Victim]) -> None:
    """Four KiB for each of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    daemon = victim()
    warm = [daemon.connect() for _ in range(20)]
    for client in warm:
        client.close()
    other = daemon.connect()
    other.sync()
    before = daemon.rss()
    clients = [daemon.connect() for _ in range(1000)]
    grown = daemon.rss() - before
    for client in clients[::100]:
        client.alive()
    assert grown < 4 * 1024, f"{grown} KiB"


def test_p17_coming_and_going_leaves_nothing(victim: Callable[..., Victim]) -> None:
    daemon = victim()
    daemon.watch()
    other = daemon.connect()

    def come_and_go(count: int) -> None:
        for number in range(count):
            client = daemon.dial()
            daemon.clients.remove(client)
            client.authenticate()
            name = f"com.example.N{number}"
            client.send(call("Hello"))
            client.send(call("RequestName", "su", name, 0))
            client.send(call("AddMatch", "s", f"interface='a.b{number}',member='M'"))
            client.send(call(f"Unknown{number}", interface=f"a.b{number}"))
            client.send(peer_call(other.name, f"M{number}", "s", "text"))
            client.send(signal(f"S{number}", "s", "x", interface=f"a.b{number}"))
            client.send(call("GetNameOwner", "s", name))
            if number % 3:
                client.send(call("GetId", destination=BUS))
                client.read_until(lambda m: m.type == 2 and m.reply_serial == 8, "the last")
            client.close()

    drainer = Drainer(other)
    come_and_go(500)
    before = daemon.rss()
    come_and_go(2500)
    assert daemon.rss() - before < 1500, f"{daemon.rss() - before} KiB after 2500 connections"
    drainer.stop()
    daemon.settle()
