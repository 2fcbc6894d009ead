"""What comes before the first message: the nonce of nonce-tcp, then the handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.errors import ProtocolViolation

if TYPE_CHECKING:
    from afdbus.sasl.server import ServerHandshake


# What one read asks for: the lines are short, and nobody has earned more memory yet.
HANDSHAKE_READ = 2048


class Greeting:
    """The greeting of one connection.

    `unsent`: what is still to be written to the other end; it is written before more is read, so
    it stays small.
    """

    __slots__ = ("_nonce", "handshake", "unsent")

    def __init__(self, handshake: ServerHandshake, nonce: bytes | None) -> None:
        self.handshake = handshake
        self.unsent = b""
        self._nonce = nonce or b""

    def receive(self, data: bytes) -> bool:
        """Bytes of the other end; whether the handshake is done.

        Raises ProtocolViolation where it must be closed, after `unsent` was offered to it.
        """
        expected = self._nonce[: len(data)]
        if expected:
            if not data.startswith(expected):
                raise ProtocolViolation("another nonce")
            self._nonce = self._nonce[len(expected) :]
            data = data[len(expected) :]
        try:
            self.unsent += self.handshake.receive(data)
        except ProtocolViolation as violation:
            self.unsent += getattr(violation, "farewell", b"")
            raise
        return self.handshake.done
