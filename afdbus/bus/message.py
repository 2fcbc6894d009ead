"""A message on its way through the bus: its header judged, its true sender stamped."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from afdbus.bus.outbox import FdPiece, Piece
from afdbus.wire import message as wire
from afdbus.wire.decode import string_arguments
from afdbus.wire.header import (
    ERROR,
    FIXED,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    SIGNAL,
    Header,
    stamp,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from afdbus.bus.peer import Peer
    from afdbus.bus.trial import Lesson
    from afdbus.wire.fds import Fds

# What an error calls its receiver before Hello, as dbus-daemon does.
NOT_ACTIVE = ":not.active.yet"

# Larger bodies travel as a piece of their own and are never copied (P7).
SEPARATE = 16 * 1024


class Message:
    """Header, head (the outgoing header's bytes), body and descriptors; `sender` None: the bus.

    `logged`: policy wants each such message in the log, so no plan may stand for it (P11.9).
    `lessons`: what a policy on trial would have needed for it (`trial.py`).
    """

    __slots__ = (
        "_arguments", "_looked_at", "_whole", "body", "fds", "head", "header", "lessons", "logged",
        "sender", "serial",
    )  # fmt: skip

    def __init__(
        self,
        header: Header,
        sender: Peer | None,
        serial: int,
        head: bytes,
        body: bytes | memoryview,
        fds: Fds | None = None,
    ) -> None:
        self.header = header
        self.sender = sender
        self.serial = serial
        self.head = head
        self.body = body
        self.fds = fds
        self.logged = False
        self.lessons: list[Lesson] | None = None
        self._whole: Sequence[bytes | memoryview] | None = None
        self._arguments: list[tuple[str, str] | None] = []
        self._looked_at = 0

    def __len__(self) -> int:
        return len(self.head) + len(self.body)

    def pieces(self, payer: Peer | None) -> Sequence[Piece]:
        """What is pushed into the outbox of one receiver, in order; all share the same bytes.

        `payer`: who is charged for the descriptors while they wait.
        """
        if self._whole is None:
            if self.fds is not None or len(self.body) <= SEPARATE:
                self._whole = [self.head + bytes(self.body)]
            else:
                self._whole = [self.head, self.body]
        if self.fds is None:
            return self._whole
        self.fds.hold()
        return [FdPiece(self._whole[0], self.fds, payer)]

    def renamed(self, name: str) -> Message:
        """The same message as from `name`."""
        head = self.head[:12] + stamp(self.header, name)
        return Message(self.header, self.sender, self.serial, head, self.body, self.fds)

    def arguments(self, count: int) -> list[tuple[str, str] | None]:
        """The first `count` arguments: (type, text) for strings, paths, signatures, or None."""
        if self._looked_at < count:
            # There may be fewer, and then it is no use to look again.
            self._looked_at = count
            header, body = self.header, self.body
            self._arguments = string_arguments(
                header.signature, header.little, body, 0, len(body), count
            )
        return self._arguments


def incoming(
    header: Header, sender: Peer, frame: bytes | bytearray, head: int, fds: Fds | None
) -> Message:
    """The message in `frame`, whose header of `head` bytes was parsed into `header`.

    The body of a frame above the size of one read, a bytearray, is never copied.
    """
    order = "little" if header.little else "big"
    serial = int.from_bytes(frame[8:12], order)  # type: ignore[arg-type]
    stamped = bytes(frame[:12]) + stamp(header, sender.name or NOT_ACTIVE)
    body = frame[head:] if isinstance(frame, bytes) else memoryview(frame)[head:]
    return Message(header, sender, serial, stamped, body, fds)


def _own(type_: int, data: bytes, body: bytes, signature: str) -> Message:
    header = Header(True, type_, data[2])
    header.sender = wire.BUS_NAME
    header.signature = signature
    head = len(data) - len(body)
    serial = int.from_bytes(data[8:12], "little")
    return Message(header, None, serial, data[:head], data[head:])


def own_return(
    serial: int,
    to: Peer,
    reply_serial: int,
    signature: str,
    body: bytes,
    fds: Fds | None = None,
) -> Message:
    """A reply of the driver."""
    if fds is None:
        data = wire.method_return(serial, reply_serial, to.destination, signature, body)
    else:
        data = wire.build(METHOD_RETURN, serial, reply_serial=reply_serial, destination=to.name,
                          signature=signature, body=body, fds=len(fds.numbers))  # fmt: skip
    message = _own(METHOD_RETURN, data, body, signature)
    message.header.reply_serial = reply_serial
    message.header.destination = to.name or None
    if fds is not None:
        message.header.unix_fds = len(fds.numbers)
        message.fds = fds
    return message


def own_error(serial: int, to: str | None, reply_serial: int, name: str, text: str) -> Message:
    """An error of the driver."""
    data = wire.error(serial, reply_serial, to, name, text)
    header = Header(True, ERROR, data[2])
    header.sender = wire.BUS_NAME
    header.error_name = name
    header.reply_serial = reply_serial
    header.destination = to
    header.signature = "s"
    head = FIXED + (int.from_bytes(data[12:16], "little") + 7 & ~7)
    return Message(header, None, serial, data[:head], data[head:])


def own_signal(
    serial: int, to: Peer | None, interface: str, member: str, signature: str, body: bytes
) -> Message:
    """A signal of the driver, from its object path; a broadcast where `to` is None."""
    destination = b"" if to is None else to.destination
    data = wire.signal(serial, destination, interface, member, signature, body)
    message = _own(SIGNAL, data, body, signature)
    header = message.header
    header.path, header.interface, header.member = wire.BUS_PATH, interface, member
    header.destination = None if to is None else to.name
    return message


@cache  # of the driver's signals there are a handful
def own_signal_header(interface: str, member: str, signature: str) -> Header:
    """What `own_signal` has for a header of a broadcast, to find out whether anybody wants it: to
    be looked at only."""
    header = Header(True, SIGNAL, NO_REPLY_EXPECTED)
    header.path, header.interface, header.member = wire.BUS_PATH, interface, member
    header.signature = signature
    return header
