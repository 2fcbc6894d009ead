"""What comes before the first message: the nonce of nonce-tcp, then the handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.errors import ProtocolViolation
from afdbus.server.loop import IN, OUT

if TYPE_CHECKING:
    from afdbus.sasl.server import ServerHandshake
    from afdbus.server.connection import Connection


# What one read asks for: the lines are short, and nobody has earned more memory yet.
HANDSHAKE_READ = 2048


class Greeting:
    """The greeting of one connection: it hears of the socket until the handshake is done.

    What is to be said is written before more is read, so it stays small.  Descriptors that come
    along vanish, as none were agreed upon: so a plain `recv` does (1.1 us less than `recvmsg`).
    """

    __slots__ = ("_connection", "_handshake", "_nonce", "_unsent")

    def __init__(
        self, connection: Connection, handshake: ServerHandshake, nonce: bytes | None
    ) -> None:
        self._connection = connection
        self._handshake = handshake
        self._nonce = nonce or b""
        self._unsent = b""

    def on_event(self, _event: int) -> None:
        """The loop's news about the descriptor."""
        connection = self._connection
        if self._unsent:
            self._send(b"")
            if not self._unsent:
                connection.set_interest(IN)
            return
        try:
            data = connection.sock.recv(HANDSHAKE_READ)
        except BlockingIOError:
            return
        except OSError:
            connection.close()
            return
        if not data:
            connection.close()
            return
        try:
            answer = self._receive(data)
        except ProtocolViolation as violation:
            self._send(getattr(violation, "farewell", b""))
            connection.close()
            return
        if answer:
            self._send(answer)
        if self._handshake.done:
            # Its outbox waits for room from now on, and it is read.
            connection.begin(self._handshake, self._unsent)

    def _receive(self, data: bytes) -> bytes:
        """What is to be answered.  Raises ProtocolViolation where the connection must be closed,
        after its `farewell` was offered to the other end."""
        expected = self._nonce[: len(data)]
        if expected:
            if not data.startswith(expected):
                raise ProtocolViolation("another nonce")
            self._nonce = self._nonce[len(expected) :]
            data = data[len(expected) :]
        return self._handshake.receive(data)

    def _send(self, answer: bytes) -> None:
        unsent = self._unsent + answer
        try:
            sent = self._connection.sock.send(unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._connection.close()
            return
        self._unsent = unsent[sent:]
        if self._unsent:
            # Nothing more is read until all is written.
            self._connection.set_interest(OUT)
