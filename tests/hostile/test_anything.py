"""Many clients do anything at all, by a seed: the bus lives, meets no bug, and forgets them.

What they do is nearly sensible, since nonsense ends early: all methods of the bus, all kinds of
messages to one another, in both byte orders, with descriptors, in pieces, mutilated, unread; names,
rules, monitors, services and reloads; with limits so low that all of them are reached.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attack import Victim
from kit import BUS, ClosedError, Message, RawClient, busconfig, call, peer_call, signal
from kit.message import REPLY_SERIAL

LIMITS = {
    "max_outgoing_bytes": 300_000, "max_incoming_bytes": 200_000, "max_message_size": 700_000,
    "max_outgoing_unix_fds": 20, "max_incoming_unix_fds": 20, "max_names_per_connection": 5,
    "max_match_rules_per_connection": 12, "max_replies_per_connection": 10,
    "max_pending_service_starts": 6, "max_completed_connections": 30,
    "service_start_timeout": 500, "reply_timeout": 400, "pending_fd_timeout": 300,
}  # fmt: skip
NAMES = [f"com.example.Name{number}" for number in range(4)]
STARTED = ["com.example.False", "com.example.Sleep", "com.example.Nothing", "com.example.Open"]
EXECS = ["/bin/false", "/bin/sleep 1", "/no/such/program", "'"]
RULES = [
    "", "type='signal'", "member='M'", "eavesdrop='true'", "arg0='x'", "arg0path='/a/'",
    "arg0namespace='com.example'", "sender='com.example.Name0'", "path_namespace='/com'",
    "interface='com.example.Interface',member='M'", "type='error'",
    "destination='com.example.Name1'", "member='NameOwnerChanged'", "nonsense", "arg64='x'",
]  # fmt: skip
DEBUG, MONITORING = f"{BUS}.Debug.Stats", f"{BUS}.Monitoring"


class Crowd:
    """The clients of one seed."""

    def __init__(self, daemon: Victim, seed: int) -> None:
        self.daemon = daemon
        self.random = random.Random(seed)
        self.clients: list[RawClient] = []
        self.names = [*NAMES, *STARTED, BUS, "com.example.None", ":1.99999", ":"]

    def act(self) -> None:
        """Somebody does something."""
        pick = self.random
        if len(self.clients) < 3 or pick.random() < 0.08:
            self.come()
            return
        client = pick.choice(self.clients)
        try:
            pick.choice(self.DEEDS)(self, client)
        except (OSError, ClosedError):
            self.leave(client)  # cut off

    def come(self) -> None:
        """As far into the handshake as it likes."""
        client = RawClient(self.daemon.address)
        client.sock.setblocking(False)
        self.clients.append(client)
        steps = [
            b"\0" + client.external().encode() + b"\r\n", b"NEGOTIATE_UNIX_FD\r\n", b"BEGIN\r\n",
            call("Hello").pack(1),
        ]  # fmt: skip
        if self.random.random() < 0.3:
            del steps[1]
        if self.random.random() < 0.15:
            del steps[self.random.randrange(len(steps)) :]
        client.serial = 10
        with contextlib.suppress(OSError):
            client.sock.send(b"".join(steps))

    def leave(self, client: RawClient) -> None:
        self.clients.remove(client)
        client.close()

    def read(self, client: RawClient) -> None:
        """Some of what there is; whoever is sent to learns names by it."""
        with contextlib.suppress(BlockingIOError):
            data = client.sock.recv(self.random.choice([1, 1000, 1_000_000]))
            if not data:
                raise ConnectionResetError
            if b":1." in data:
                name = data[data.index(b":1.") :].split(b"\0")[0][:20].decode("latin-1")
                self.names[self.random.randrange(9, 12)] = name

    def write(self, client: RawClient, data: bytes, fds: list[int] | None = None) -> None:
        """As much as the socket takes: the rest is missing, as of one who was killed."""
        with contextlib.suppress(BlockingIOError):
            if fds:
                client.send_bytes(data[:1], fds)
                data = data[1:]
            client.sock.send(data)

    def say(self, client: RawClient, message: Message) -> None:
        client.serial += 1
        data = message.pack(client.serial)
        fate = self.random.random()
        if fate < 0.03:
            place = self.random.randrange(len(data))
            data = data[:place] + self.random.randbytes(1) + data[place + 1 :]
        elif fate < 0.05:
            data = data[: self.random.randrange(len(data))]
        self.write(client, data, list(message.fds))

    def talk(self, client: RawClient) -> None:
        pick = self.random
        fds = [self.file] * pick.choice([0, 0, 0, 0, 1, 2, 17])
        arguments = pick.choice(
            [("",), ("s", "x"), ("so", "x", "/a/b"), ("v", ("s", "x")), ("ay", bytes(70_000)),
             ("ay", bytes(400_000)), ("a{sv}", {"k": ("u", 1)}), ("h", 0)]
        )  # fmt: skip
        options: dict[str, Any] = {"flags": pick.randrange(4), "little": pick.random() < 0.8}
        to = pick.choice(self.names[:-1])
        kind = pick.randrange(4)
        if kind == 0:
            message = signal("M", *arguments, fds=fds, **options)
        elif kind == 1:
            message = signal("M", *arguments, fds=fds, destination=to, **options)
        else:
            message = peer_call(to, "M", *arguments, fds=fds, **options)
        if pick.random() < 0.2:
            message.plus((REPLY_SERIAL, "u", pick.randrange(1, 30)))
            message.type = pick.choice([2, 3, 4, 9])
        self.say(client, message)

    def ask(self, client: RawClient) -> None:
        pick = self.random
        name, rule = pick.choice(self.names), pick.choice(RULES)
        self.say(
            client,
            pick.choice(
                [
                    call("Hello"), call("ListNames"), call("ReleaseName", "s", name),
                    call("RequestName", "su", name, pick.randrange(8)), call("AddMatch", "s", rule),
                    call("AddMatch", "s", rule), call("RemoveMatch", "s", rule),
                    call("StartServiceByName", "su", pick.choice(STARTED), 0),
                    call("GetConnectionCredentials", "s", name),
                    call("ListQueuedOwners", "s", name),
                    call("GetConnectionStats", "s", name, interface=DEBUG),
                    call("GetAllMatchRules", interface=DEBUG), call("GetStats", interface=DEBUG),
                    call("UpdateActivationEnvironment", "a{ss}", {name: rule}),
                    call("Introspect", interface=f"{BUS}.Introspectable"),
                    call("GetAll", "s", BUS, interface=f"{BUS}.Properties"),
                    call("Ping", destination=None, interface=f"{BUS}.Peer"),
                ]
            ),
        )  # fmt: skip

    def watch(self, client: RawClient) -> None:
        if self.random.random() < 0.2:
            rules = self.random.choices(RULES, k=self.random.randrange(3))
            self.say(client, call("BecomeMonitor", "asu", rules, 0, interface=MONITORING))

    def reload(self, client: RawClient) -> None:
        if self.random.random() < 0.1:
            self.say(client, call("ReloadConfig"))

    def nonsense(self, client: RawClient) -> None:
        if self.random.random() < 0.05:
            self.write(client, self.random.randbytes(self.random.randrange(1, 200)))

    DEEDS: tuple[Callable[[Crowd, RawClient], None], ...] = (
        talk, talk, talk, talk, ask, ask, ask, read, read, watch, reload, nonsense,
    )  # fmt: skip

    def play(self, deeds: int) -> None:
        self.file = os.memfd_create("kit")
        try:
            for _ in range(deeds):
                self.act()
                if self.random.random() < 0.02 and self.clients:
                    self.leave(self.random.choice(self.clients))
        finally:
            os.close(self.file)
            for client in list(self.clients):
                self.leave(client)


class Anything(Victim):
    """A daemon with services that do no good, and low limits."""

    def __init__(self) -> None:
        super(Victim, self).__init__(
            "afdbus", busconfig("<servicedir>{directory}/services</servicedir>", **LIMITS)
        )

    strict = True


@pytest.fixture(scope="module")
def anything() -> Iterator[Anything]:
    daemon = Anything()
    folder = daemon.directory / "services"
    folder.mkdir()
    for name, command in zip(STARTED, EXECS, strict=True):
        text = f"[D-BUS Service]\nName={name}\nExec={command}\n"
        (folder / f"{name}.service").write_text(text)
    daemon.watch()
    yield daemon
    daemon.stop()


@pytest.mark.parametrize("seed", range(12))
def test_anything(anything: Anything, seed: int) -> None:
    Crowd(anything, seed).play(600)
    anything.settle()
    assert "bug:" not in anything.log()
