"""A bus in memory: no socket, no loop, no clock but the test's; its outboxes are written by the
real `flush` into sockets that take as much as the test says."""

from __future__ import annotations

import array
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from kit import busconfig, call
from kit.journal import FakeJournal

from afdbus.bus import lifecycle
from afdbus.bus.bus import Bus
from afdbus.bus.outbox import Batch, FdPiece, Outbox
from afdbus.bus.peer import Peer
from afdbus.bus.ports import Service
from afdbus.bus.road import travel
from afdbus.config.load import load
from afdbus.config.model import Config
from afdbus.errors import BusError, ProtocolViolation
from afdbus.identity import Identity
from afdbus.server.flush import drain, flush

PLENTY = 1 << 40
ROOT = Identity(uid=0, gid=0, gids=(0,), pid=1, command="test")
NOBODY = Identity(uid=65534, gid=65534, gids=(65534,), pid=2, command="test")


def configuration(folder: Path, more: str = "", **rest: Any) -> Config:
    """What `busconfig` describes, loaded."""
    file = folder / "bus.conf"
    file.write_text(busconfig(more, listen="unix:tmpdir=/tmp", **rest))
    return load(str(file))


class FakeHost:
    """A machine on which everybody looks alike; `reload` takes the configuration put there."""

    def __init__(self) -> None:
        self.bus: Bus | None = None
        self.next: Config | None = None

    def machine_id(self) -> str:
        return "0" * 32

    def process_fd(self, port: object) -> int | None:
        return None

    def describe(self, identity: Identity) -> str:
        return f"uid={identity.uid}"

    def reload(self) -> None:
        assert self.bus is not None
        if self.next is not None:
            self.bus.configure(self.next.limits, self.next.ruleset)


class FakeService(NamedTuple):
    name: str
    exec: str
    user: str | None = None
    systemd_service: str | None = None


class FakeServices:
    """Names and the commands that provide them, or the units."""

    def __init__(self) -> None:
        self.commands: dict[str, str] = {}
        self.units: dict[str, str] = {}

    def names(self) -> list[str]:
        return list(self.commands)

    def find(self, name: str) -> FakeService | None:
        command = self.commands.get(name)
        if command is None:
            return None
        return FakeService(name, command, systemd_service=self.units.get(name))


class FakeChild:
    """A program that runs until the test calls `ended` with what is to be told of it."""

    def __init__(
        self, name: str, environment: dict[str, str], ended: Callable[[BusError | None], None]
    ):
        self.name = name
        self.environment = environment
        self.ended = ended
        self.killed = False

    def kill(self) -> None:
        self.killed = True


class FakeLauncher:
    """Starts nothing but keeps what it was asked to; `refusal` is raised instead."""

    def __init__(self) -> None:
        self.uses_helper = False
        self.refusal: BusError | None = None
        self.children: list[FakeChild] = []

    def start(
        self,
        service: Service,
        environment: Mapping[str, str],
        ended: Callable[[BusError | None], None],
    ) -> FakeChild:
        if self.refusal is not None:
            raise self.refusal
        self.children.append(FakeChild(service.name, dict(environment), ended))
        return self.children[-1]


class FakeConnection:
    """Port, writer and socket of one peer.  `room` is how many bytes the socket still takes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sock = self
        self.peer: Peer | None = None
        self.room = PLENTY
        self.broken = False
        self.written = bytearray()
        # Where in `written` descriptors came, and which.
        self.passed: list[tuple[int, list[int]]] = []
        self.fds: list[int] = []
        self.rest = b""
        self.closed = False
        self.resumed = 0
        self.writable_wanted = False

    # Port

    def close(self) -> None:
        self.world.leave(self)

    def cut(self) -> None:
        self.close()

    def active(self) -> None:
        pass

    def resume(self) -> None:
        self.resumed += 1

    def take_fds(self, count: int) -> list[int] | None:
        if len(self.fds) < count:
            return None
        taken, self.fds = self.fds[:count], self.fds[count:]
        return taken

    # Writer

    def want_write(self, wanted: bool) -> None:
        self.writable_wanted = wanted

    def write_again(self) -> None:
        self.world.again.append(self)

    def write_failed(self) -> None:
        assert self.peer is not None
        self.relieve(self.peer.outbox.close())

    def relieve(self, senders: Sequence[Peer]) -> None:
        for sender in senders:
            self.world.bus.relieve(sender)

    # socket

    def send(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise BrokenPipeError
        count = min(self.room, len(data))
        if not count:
            raise BlockingIOError
        self.room -= count
        self.written += data[:count]
        return count

    def sendmsg(
        self,
        vector: Sequence[bytes | memoryview],
        ancillary: Sequence[tuple[int, int, array.array[int]]] = (),
    ) -> int:
        at = len(self.written)
        count = self.send(b"".join(vector))
        for _, _, numbers in ancillary:
            self.passed.append((at, list(numbers)))
        return count

    # what a test looks at

    def waiting(self) -> bytes:
        """What is queued and not written."""
        assert self.peer is not None
        box = self.peer.outbox
        pieces = [*(box.backlog or ()), *box.pieces()]
        data = b"".join(
            b"<%r>" % piece.fds.numbers + piece.data if isinstance(piece, FdPiece) else piece
            for piece in pieces
        )
        return data[box.offset :] if box.backlog else data


def _raise(_box: Outbox) -> None:
    """A bug in writing is one of the test's run."""
    raise  # noqa: PLE0704 - called from an except clause only


class World:
    """One bus and those who are connected to it."""

    def __init__(self, config: Config, *, plans: bool = True) -> None:
        self.plans = plans
        self.now = 0.0
        self.wake_ups: list[float] = []
        self.journal = FakeJournal()
        self.host = FakeHost()
        self.services = FakeServices()
        self.launcher = FakeLauncher()
        self.touched = Batch(self._write)
        self.again: list[FakeConnection] = []
        self.connections: list[FakeConnection] = []
        self.bus = Bus(
            guid="1" * 32,
            limits=config.limits,
            ruleset=config.ruleset,
            own_uid=0,
            clock=lambda: self.now,
            journal=self.journal,
            host=self.host,
            services=self.services,
            launcher=self.launcher,
            touched=self.touched,
            wake_at=self.wake_ups.append,
            type_="session",
        )
        self.bus.strict = True
        self.host.bus = self.bus

    def join(self, identity: Identity = ROOT, *, can_fds: bool = True) -> FakeConnection:
        """A connection that has not said Hello."""
        connection = FakeConnection(self)
        peer = lifecycle.welcome(self.bus, identity, connection, can_fds)
        peer.outbox.port = connection
        peer.outbox.fd = len(self.connections)
        connection.peer = peer
        self.connections.append(connection)
        return connection

    def connect(self, identity: Identity = ROOT, *, can_fds: bool = True) -> FakeConnection:
        """A connection with a unique name."""
        connection = self.join(identity, can_fds=can_fds)
        self.say(connection, call("Hello").pack(1))
        self.flush()
        return connection

    def say(self, connection: FakeConnection, *messages: bytes) -> None:
        """The peer sends whole messages: all in one read, or one by one where plans are off."""
        if not self.plans:
            for message in messages:
                if not connection.closed:
                    self.bus.forget_plans()
                    self._travel(connection, message)
        else:
            self._travel(connection, b"".join(messages))

    def _travel(self, connection: FakeConnection, data: bytes) -> None:
        peer = connection.peer
        assert peer is not None
        pos = -1
        try:
            while pos < 0 and peer.alive:
                pos = travel(peer, data)
                data = data[~pos if pos < 0 else pos :]
        except ProtocolViolation:
            self.leave(connection)
        else:
            assert not data, "part of a message is left"

    def _write(self, fd: int, data: bytes | memoryview) -> int:
        return self.connections[fd].send(data)

    def leave(self, connection: FakeConnection) -> None:
        assert connection.peer is not None
        lifecycle.farewell(self.bus, connection.peer)
        connection.closed = True

    def flush(self) -> None:
        """What the loop does at the end of a pass."""
        flush(self.touched, _raise)
        while self.again:
            waiting, self.again = self.again, []
            for connection in waiting:
                assert connection.peer is not None
                drain(connection.peer.outbox)

    def widen(self, connection: FakeConnection, room: int) -> None:
        """The socket takes `room` bytes more, or PLENTY; the loop is told if it asked to be."""
        connection.room = min(PLENTY, connection.room + room)
        assert connection.peer is not None
        if connection.writable_wanted and not connection.closed:
            drain(connection.peer.outbox)
            self.flush()


def unframed(data: bytes) -> list[bytes]:
    """The whole messages in what was written to one connection; nothing may be left."""
    messages = []
    while data:
        order = "little" if data[:1] == b"l" else "big"
        body, fields = (int.from_bytes(data[at : at + 4], order) for at in (4, 12))  # type: ignore[arg-type]
        size = 16 + (fields + 7 & ~7) + body
        assert len(data) >= size
        messages.append(data[:size])
        data = data[size:]
    return messages


def without_numbers(text: str) -> str:
    return re.sub(r"\d+", "N", text)


def lines(deed: Callable[[], object]) -> int:
    """How many lines of Python are executed: a clock that does not depend on the machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        deed()
    finally:
        sys.settrace(before)
    return count
