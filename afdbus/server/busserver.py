"""One bus with its listeners and connections, on a loop it may share with others."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from afdbus.bus.bus import Bus
from afdbus.bus.overflow import DROP_IN, FullReceiver
from afdbus.config.services import ServiceFiles
from afdbus.errors import ProtocolViolation
from afdbus.host.credentials import command_of, identity_of, process_fd_of
from afdbus.host.machineid import machine_id
from afdbus.identity import Identity
from afdbus.sasl.server import ServerHandshake
from afdbus.server.connection import Connection
from afdbus.server.door import Door
from afdbus.server.greeting import Greeting
from afdbus.server.launcher import DEFAULT, ServiceLauncher, Starting
from afdbus.server.listeners import printable
from afdbus.server.reload import Configuration
from afdbus.server.timers import Call, Deadlines

if TYPE_CHECKING:
    from afdbus.bus.ports import Journal, Port
    from afdbus.config.model import Config
    from afdbus.sasl.mechanisms import Keyring
    from afdbus.server.listener import Listener
    from afdbus.server.loop import Loop

# Newcomers accepted in one pass, so that a crowd at the door holds up nobody inside (P4).
ACCEPTS = 16
# How long accepting rests when the process or the kernel is out of descriptors, in seconds (P21).
REST = 1.0

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BusServer:
    """Accepts, greets and watches the connections of one bus.

    `reread` gives the configuration that a reload is to bring; raises ConfigError.  `own_uid` is
    the user the daemon runs as.  `starting` is how its services are started.
    """

    def __init__(
        self,
        loop: Loop,
        config: Config,
        reread: Callable[[], Config],
        listeners: list[Listener],
        *,
        guid: str,
        own_uid: int,
        journal: Journal,
        keyring: Keyring | None,
        starting: Starting = DEFAULT,
        full_receiver: FullReceiver = DROP_IN,
    ) -> None:
        self.loop = loop
        self.journal = journal
        self.violations = 0
        # Called when a connection was closed.
        self.on_farewell: Callable[[], None] = lambda: None
        self._listeners = listeners
        self._keyring = keyring
        self._own_uid = own_uid
        self._listening = False
        self._resting = False
        self._closed = False
        self._connections: dict[Connection, None] = {}
        timers = loop.timers
        self._incomplete: Deadlines[Connection] = Deadlines(
            timers, lambda: self.bus.limits.auth_timeout, Connection.close
        )
        self._fds: Deadlines[Connection] = Deadlines(
            timers, lambda: self.bus.limits.pending_fd_timeout, Connection.close
        )
        self._services = ServiceFiles(journal.warning)
        self._services.reload(config.servicedirs)
        self._configuration = Configuration(config, reread, self._services, journal)
        self._launcher = ServiceLauncher(
            loop,
            address=printable(listeners),
            type_=config.type,
            helper=config.servicehelper,
            starting=starting,
        )
        self.bus = Bus(
            guid=guid,
            limits=config.limits,
            ruleset=config.ruleset,
            own_uid=own_uid,
            clock=timers.clock,
            journal=journal,
            host=self,
            services=self._services,
            launcher=self._launcher,
            touched=loop.touched,
            wake_at=lambda when: timers.call_at(when, self._expire),
            type_=config.type,
            systemd_activation=starting.by_systemd,
            full_receiver=full_receiver,
        )
        self._expire = Call(self.bus.expire)
        self.door = Door(self.bus, allow_anonymous=config.allow_anonymous)
        self._check_listening()

    # -- listening ---------------------------------------------------------------------------

    def _check_listening(self) -> None:
        """Newcomers wait in the kernel's queue while too many are half way in, or we rest."""
        self.bus.incomplete = incomplete = len(self._incomplete)
        wanted = (
            not self._closed
            and not self._resting
            and incomplete < self.bus.limits.max_incomplete_connections
        )
        if wanted == self._listening:
            return
        self._listening = wanted
        for listener in self._listeners:
            fd = listener.socket.fileno()
            if wanted:
                self.loop.register(fd, lambda _, who=listener: self._knock(who))  # type: ignore[misc]
            else:
                self.loop.unregister(fd)

    def _knock(self, listener: Listener) -> None:
        self.loop.accept_last(lambda: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        # One by one, as to find nobody left costs 4.4 us; unless it is long to the next pass.
        for _ in range(ACCEPTS if self.loop.crowded else 1):
            if not self._listening:
                return
            try:
                sock = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._rest(error)
                    return
                continue  # the newcomer left, or a firewall refused it
            self._admit(sock, listener)

    def _rest(self, error: OSError) -> None:
        self.journal.warning(f"Cannot accept a connection: {error.strerror}")
        self._resting = True
        self._check_listening()
        self.loop.timers.call_at(self.loop.timers.clock() + REST, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._check_listening()

    def _admit(self, sock: socket.SocketType, listener: Listener) -> None:
        try:
            if sock.family == socket.AF_UNIX:
                identity = identity_of(sock)
            else:
                identity = Identity()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()  # gone already
            return
        self._greet(sock, identity, listener)

    def adopt(self, sock: socket.socket, identity: Identity) -> None:
        """Take one end of a socket pair, which is ours from now on, for a newcomer that is
        `identity`."""
        sock.setblocking(False)
        self._greet(sock, identity, self._listeners[0])

    def _greet(self, sock: socket.SocketType, identity: Identity, listener: Listener) -> None:
        handshake = ServerHandshake(
            identity,
            listener.guid,
            mechanisms=self._configuration.config.auth or None,
            own_uid=self._own_uid,
            allow_fds=sock.family == socket.AF_UNIX,
            keyring=self._keyring,
        )
        connection = Connection(self, sock, identity)
        greeting = Greeting(connection, handshake, listener.nonce)
        self._connections[connection] = None
        self._incomplete.add(connection)
        self.loop.register(connection.fd, greeting.on_event, connection)
        self._check_listening()

    # -- what a connection asks for ------------------------------------------------------------

    def completed(self, connection: Connection) -> None:
        """It has said Hello."""
        self._incomplete.discard(connection)
        self._check_listening()

    def fds_wait(self, connection: Connection) -> None:
        """Descriptors came whose message is not whole yet; the time for it runs once."""
        self._fds.add(connection)

    def fds_taken(self, connection: Connection) -> None:
        if self._fds:
            self._fds.discard(connection)

    def violated(self, connection: Connection, violation: ProtocolViolation) -> None:
        """Its bytes were not D-Bus; it is about to be closed."""
        self.violations += 1
        peer = connection.peer
        who = peer.name if peer is not None and peer.name else "(inactive)"
        self.journal.info(f"Connection {who} broke the protocol and is closed: {violation}")

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        del self._connections[connection]
        self._incomplete.discard(connection)
        self._fds.discard(connection)
        self._resting = False
        self._check_listening()
        self.on_farewell()

    # -- the bus's host ------------------------------------------------------------------------

    @property
    def children(self) -> list[int]:
        """The processes of the services that were started and have not ended."""
        return self._launcher.children

    def machine_id(self) -> str:
        return machine_id()

    def describe(self, identity: Identity) -> str:
        parts = []
        if identity.uid is not None:
            parts.append(f"uid={identity.uid}")
        if identity.pid is not None:
            command = identity.command or command_of(identity.pid)
            parts.append(f'pid={identity.pid} comm="{command}"')
        if identity.label is not None:
            parts.append(f'label="{identity.label.decode(errors="backslashreplace")}"')
        return " ".join(parts)

    def process_fd(self, port: Port) -> int | None:
        return process_fd_of(port.sock) if isinstance(port, Connection) else None

    def reload(self) -> None:
        """Read everything first; then swap at once, or keep the old and say why (BusError)."""
        self._configuration.reload(self.bus)
        self._check_listening()

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """End every connection, then listen no more: no second bus can take the name while old
        peers still talk on this one (S8).

        As there, nobody is told that a callee has gone without an answer: all are.
        """
        self._closed = True
        self._check_listening()
        for connection in self._connections:
            if connection.peer is not None:
                self.bus.replies.give_up(connection.peer)
        for connection in list(self._connections):
            connection.close()
        self._launcher.close()
        self.loop.flush()
        # A timer that is not due yet must not keep a bus that is gone in memory.
        self._incomplete.close()
        self._fds.close()
        self._expire.call_off()
        for listener in self._listeners:
            listener.close()

    def wait_for_services(self, deadline: float) -> None:
        """After `close`: wait for those that were told to end, until the monotonic `deadline`."""
        self._launcher.wait(deadline)

    def abandon(self) -> None:
        """In a forked child: close our copies of the sockets, and tell nobody."""
        self._launcher.abandon()
        for connection in self._connections:
            connection.sock.close()
        for listener in self._listeners:
            listener.socket.close()
