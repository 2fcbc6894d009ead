"""One connection: its socket, its handshake, the framer between two reads, its peer on the bus.

In a turn everything that is wrong with the other end shows as a ProtocolViolation or an OSError,
and both end the connection here.  Anything else is a bug of ours and ends it in `loop.py`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from afdbus.bus import lifecycle
from afdbus.bus.road import travel
from afdbus.errors import ProtocolViolation
from afdbus.server.examination import Examination
from afdbus.server.flush import drain
from afdbus.server.intake import ANCILLARY, FLAGS, HEAVY_READ, TRUNCATED, Intake, is_much
from afdbus.server.loop import GONE, IN, NEWS, OUT
from afdbus.wire.framing import READ

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.identity import Identity
    from afdbus.sasl.server import ServerHandshake
    from afdbus.server.busserver import BusServer

# What a message before Hello may measure: nobody has earned more memory yet (P3).
NAMELESS = 1024 * 1024


class Connection:
    """A client's connection, from accept to close; `Greeting` hears of its socket at first."""

    __slots__ = (
        "_checking",
        "_closed",
        "_heavy",
        "_hungry",
        "_identity",
        "_intake",
        "_interest",
        "_plain",
        "_recvmsg",
        "_server",
        "fd",
        "peer",
        "sock",
    )

    def __init__(self, server: BusServer, sock: socket.SocketType, identity: Identity) -> None:
        self._server = server
        self.sock = sock
        self.fd = sock.fileno()
        self.peer: Peer | None = None
        self._intake = Intake(sock)
        self._recvmsg = self._intake.recvmsg
        self._identity = identity
        self._interest: int | None = IN
        # Nothing out of the ordinary: between messages, light, with no descriptors waiting.  Then
        # the loop has news only, as long as a read leaves nothing in the socket: 0.2 us a read.
        self._plain = False
        self._heavy = False  # its last read brought a lot
        self._hungry = False  # whole messages wait in the framer
        self._closed = False
        self._checking: Examination | None = None

    # -- events ------------------------------------------------------------------------------

    def on_event(self, event: int) -> None:
        """The loop's news about our descriptor, once the handshake is done."""
        if event == IN and self._plain:
            # Nine reads in ten, in one frame instead of five: 1.2 us a message.  Nothing is left in
            # the socket unless a read is full or stopped behind descriptors, and who has said its
            # last words is no plain event.
            peer = self.peer
            try:
                data, ancillary, flags, _ = self._recvmsg(READ, ANCILLARY, FLAGS)
                if ancillary or flags & TRUNCATED:
                    self._intake.take_ancillary(ancillary, flags)
                pos = travel(peer, data)  # type: ignore[arg-type]
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            except ProtocolViolation as violation:
                self._violated(violation)
                return
            if (
                pos != len(data) or pos >= HEAVY_READ or not pos or ancillary
                or peer.charged or peer.waits_for  # type: ignore[union-attr]
            ):  # fmt: skip
                self._after_read(data, pos)
            return
        if event & OUT:
            if self.peer is not None:
                drain(self.peer.outbox)
            if not event & (IN | GONE) or self._closed:
                return
        if self._interest is None or not self._interest & IN:
            # Gone while it is paused: an event that would come for ever (P20).  What it sent
            # before still counts and is read when it may go on.
            self.set_interest(None)
        elif self._heavy:
            self._server.loop.wait_turn(self)
        else:
            self._read(READ)

    def turn(self) -> None:
        """Our turn among the heavy ones."""
        if self._closed or (self.peer is not None and self.peer.paused):
            return
        if self._checking is not None:
            self._go_on_checking()
        elif self._hungry:
            self._hungry = False
            data = self._intake.rest
            self._intake.rest = b""
            self._travel(data)
        else:
            self._read(HEAVY_READ)
        if self._is_deaf():
            self._server.loop.wait_turn(self)

    def _is_deaf(self) -> bool:
        """Nothing can be written to it any more: it is read to the end of what it has sent."""
        return not self._closed and self.peer is not None and self.peer.outbox.shut

    def _read(self, size: int) -> None:
        if self._hungry or self._checking is not None:
            self._server.loop.wait_turn(self)
            return
        try:
            if self._intake.large is not None:
                self._read_large()
                return
            room = self._intake.next_size(size)
            data = self._intake.receive(room)
        except BlockingIOError:
            self._heavy = False
            if self._is_deaf():
                self.close()
            return
        except OSError:
            self.close()
            return
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        if not data:
            self.close()
            return
        full = len(data) == room
        rest = self._intake.rest
        if rest:
            data = rest + data
            self._intake.rest = b""
        self._heavy = full or is_much(data, size)
        self._travel(data)

    def _after_read(self, data: bytes, pos: int) -> None:
        """What is left to do after a read that turned out to be not the usual one."""
        if not data:
            self.close()
            return
        self._heavy = len(data) == READ or is_much(data, READ)
        self._after_travel(data, pos)

    # -- the handshake is done -----------------------------------------------------------------

    def begin(self, handshake: ServerHandshake, unsent: bytes) -> None:
        """Let it in, if it may come in; `unsent`: what is still to be written to it."""
        if self._closed:
            return
        server = self._server
        identity = self._identity
        if handshake.uid != identity.uid:
            # Whoever it says it is, the process is known.
            identity = identity._replace(uid=handshake.uid, gid=None, gids=None, label=None)
        if not server.door.admits(identity, handshake.mechanism):
            self.close()
            return
        bus = server.bus
        peer = lifecycle.welcome(bus, identity, self, handshake.unix_fds)
        if handshake.unix_fds:
            self._intake.max_fds = bus.limits.max_message_unix_fds
        self.peer = peer
        peer.outbox.port = self
        peer.outbox.fd = self.fd
        server.loop.hand_over(self.fd, self.on_event)
        if unsent:
            # The outbox waits for room from now on, and we read.
            peer.outbox.push(unsent)
            self.set_interest(IN)
        self._travel(handshake.leftover)

    # -- messages ----------------------------------------------------------------------------

    def _travel(self, data: bytes) -> None:
        peer = self.peer
        assert peer is not None
        try:
            pos = travel(peer, data)
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        self._after_travel(data, pos)

    def _after_travel(self, data: bytes, pos: int) -> None:
        if self._closed:
            return
        spent = pos < 0
        if spent:
            pos = ~pos
            self._heavy = True
        if pos == len(data):
            self._intake.nothing_left(pos)
        else:
            if spent:
                self._intake.rest = data[pos:]
                self._hungry = True
                self._server.loop.wait_turn(self)
            else:
                limit = self._server.bus.limits.max_message_size
                if self.peer is not None and not self.peer.name:
                    limit = min(limit, NAMELESS)
                try:
                    self._intake.keep(data[pos:], limit)
                except ProtocolViolation as violation:
                    self._violated(violation)
                    return
        assert self.peer is not None
        self._after_turn(self.peer)

    def _after_turn(self, peer: Peer) -> None:
        """Back-pressure, and the time that descriptors may wait for their message."""
        if peer.has_to_wait():
            peer.paused = True
            self.set_interest((self._interest or 0) & ~IN)
        fds = self._intake.fds
        if fds is None:
            self._server.fds_taken(self)
        elif len(fds) > peer.bus.limits.max_message_unix_fds and not self._hungry:
            self._violated(ProtocolViolation("more file descriptors than messages take"))
        else:
            self._server.fds_wait(self)
        if self._closed:
            return
        plain = (
            self._interest == IN
            and self._intake.is_plain()
            and not self._heavy
            and not self._hungry
        )
        if plain:
            # Again, too, if it was before: there are news if anything is left in the socket.
            self._server.loop.modify(self.fd, NEWS)
        elif self._plain and self._interest is not None:
            self._server.loop.modify(self.fd, self._interest)
        self._plain = plain

    def _read_large(self) -> None:
        count, frame = self._intake.receive_large()
        assert self.peer is not None
        if not count:
            self.close()
        elif frame is None:
            # Bytes are bounded by what was announced, descriptors are not.
            self._after_turn(self.peer)
        else:
            self._checking = Examination(self.peer, frame)
            self._go_on_checking()

    def _go_on_checking(self) -> None:
        assert self._checking is not None
        try:
            if not self._checking.turn():
                self._server.loop.wait_turn(self)
                return
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        self._checking = None
        if self.peer is not None:  # else it was closed meanwhile
            self._after_turn(self.peer)

    # -- the bus's port ----------------------------------------------------------------------

    def cut(self) -> None:
        self._server.loop.again(self.close)

    def active(self) -> None:
        self._server.completed(self)

    def take_fds(self, count: int) -> list[int] | None:
        return self._intake.take_fds(count)

    def resume(self) -> None:
        self.set_interest((self._interest or 0) | IN)
        if self._hungry or self._checking is not None or self._is_deaf():
            self._server.loop.wait_turn(self)

    # -- writing -----------------------------------------------------------------------------

    def want_write(self, wanted: bool) -> None:
        if self._interest is not None:
            self.set_interest(self._interest | OUT if wanted else self._interest & ~OUT)

    def write_again(self) -> None:
        self._server.loop.again(self._drain)

    def _drain(self) -> None:
        if self.peer is not None and not self._closed:
            drain(self.peer.outbox)

    def write_failed(self) -> None:
        # Nothing more can reach it.  What it sent before is still read, turn by turn; the end of
        # that is the end of the connection, whether or not it has closed its own side.
        if self.peer is not None:
            for sender in self.peer.outbox.close():
                self._server.bus.relieve(sender)
        self.want_write(False)
        self._server.loop.wait_turn(self)

    def relieve(self, senders: Sequence[Peer]) -> None:
        for sender in senders:
            self._server.bus.relieve(sender)

    # -- the end -----------------------------------------------------------------------------

    def set_interest(self, interest: int | None) -> None:
        """What the loop tells us about; None: nothing, not even that the other end is gone."""
        loop = self._server.loop
        if interest == self._interest or self._closed:
            return
        if interest is None:
            loop.unregister(self.fd)
        elif self._interest is None:
            loop.register(self.fd, self.on_event, self, interest)
        else:
            loop.modify(self.fd, interest)
        self._interest = interest
        self._plain = False

    def _violated(self, violation: ProtocolViolation) -> None:
        self._server.violated(self, violation)
        self.close()

    def abort(self) -> None:
        # Its outbox may be what is broken: nothing more is written.
        self.write_failed()
        self.close()

    def close(self) -> None:
        """End the connection; what is queued for it is offered to the socket once."""
        if self._closed:
            return
        server = self._server
        peer = self.peer
        if peer is not None and peer.outbox.piece is not None:
            drain(peer.outbox)
        self.set_interest(None)
        self._closed = True
        server.loop.drop_turn(self)
        self._checking = None
        if peer is not None:
            lifecycle.farewell(server.bus, peer)
            # They point at each other; without this only the garbage collector could part them.
            self.peer = None
        self._intake.close()
        server.forget(self)
        with contextlib.suppress(OSError):  # it may be gone already
            self.sock.shutdown(socket.SHUT_RDWR)
        server.loop.close_later(self.sock)
