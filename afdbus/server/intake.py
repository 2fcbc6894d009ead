"""Reads one socket: bytes and descriptors into the framer."""

from __future__ import annotations

import array
import socket
from typing import Literal

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_FDS
from afdbus.wire.fds import close_all
from afdbus.wire.framing import LARGE, LONG, READ, Framer
from afdbus.wire.header import FIXED, frame_length

ANCILLARY = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
# Plain numbers, as members of IntFlag are slow to compute with.
FLAGS = int(socket.MSG_CMSG_CLOEXEC)
TRUNCATED = int(socket.MSG_CTRUNC)

# What one read of a heavy peer asks for, so that a flood is served in small turns (P4).
HEAVY_READ = 16 * 1024
# As many messages in such a read make a peer heavy, too, which is more than have to be under way
# for the sake of throughput: they take as long as a large read (eight who flood, p99 of a ping
# beside them: 28 ms, now 0.4).  It stays heavy while a read brings so many (one who floods with
# new headers: 1.7 ms, now 1.0).
MANY = 65
MANY_STILL = 16

# The largest header, in bytes.
MAX_HEADER = 2 * READ

Ancillary = list[tuple[int, int, bytes]]


class Intake(Framer):
    """A framer that fills itself from a socket.

    `max_fds`: how many descriptors may come at once; None where they were not negotiated, and then
    they vanish.
    """

    __slots__ = ("_ask", "_long", "_sock", "max_fds", "passes_fds", "recvmsg")

    def __init__(self, sock: socket.SocketType) -> None:
        super().__init__()
        self._sock = sock
        self.recvmsg = sock.recvmsg
        self.passes_fds = sock.family == socket.AF_UNIX
        self.max_fds: int | None = None
        # What the next read asks for, in bytes, if it is to bring one long message; or 0.
        self._ask = 0
        # What the last long message measured.
        self._long = 0

    def is_plain(self) -> bool:
        """Whether the next read is like most: of a socket with descriptors, between messages."""
        return (
            self.passes_fds
            and self.fds is None
            and self.large is None
            and not self.rest
            and not self._ask
        )

    def next_size(self, size: int) -> int:
        """What to read, in bytes, if nothing speaks against `size`: what is left of a long message,
        or as much as the one before, so that each comes in one read and is not copied (64 KiB: 20
        us, else 36)."""
        return self._ask or size

    def receive(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end.  Raises BlockingIOError, OSError,
        ProtocolViolation."""
        if not self.passes_fds:
            return self._sock.recv(size)
        data, ancillary, flags, _ = self.recvmsg(size, ANCILLARY, FLAGS)
        if ancillary or flags & TRUNCATED:
            self.take_ancillary(ancillary, flags)
        return data

    def receive_large(self) -> tuple[int, bytearray | None]:
        """Read on in a large message: how many bytes came, and the message once it is whole."""
        with self.room() as room:
            if self.passes_fds:
                count, ancillary, flags, _ = self._sock.recvmsg_into([room], ANCILLARY, FLAGS)
                if ancillary or flags & TRUNCATED:
                    self.take_ancillary(ancillary, flags)
            else:
                count = self._sock.recv_into(room)
        return count, self.finish() if self.advance(count) else None

    def take_ancillary(self, ancillary: Ancillary, flags: int) -> None:
        """Keep descriptors that came; too many of them are closed and are a ProtocolViolation."""
        numbers = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        if flags & TRUNCATED:
            close_all(numbers)
            raise ProtocolViolation("more file descriptors than fit")
        if self.max_fds is None:
            close_all(numbers)
        elif len(numbers) > self.max_fds:
            close_all(numbers)
            raise ProtocolViolation(f"{len(numbers)} file descriptors at once")
        else:
            self.receive_fds(list(numbers))

    def keep(self, rest: bytes, limit: int) -> None:
        """Keep the beginning of a message, which the rest is read for.

        Raises ProtocolViolation if it announces one beyond `limit` bytes, or none at all.

        dbus-daemon takes a header of up to 64 MiB.  Ours is judged in one go, at some 200 ms a
        MiB, so one beyond MAX_HEADER, for which nobody has a use, is a violation (P1).
        """
        if len(rest) >= FIXED:
            head, end = frame_length(rest, 0, limit)
            if head > MAX_HEADER:
                raise ProtocolViolation(f"a header of {head} bytes")
            if end > LARGE:
                self.begin(rest, end)
                return
            self._long = end if end >= LONG else 0
            self._ask = end - len(rest) if self._long else 0
        self.rest = rest

    def nothing_left(self, size: int) -> None:
        """Nothing was left of a read of `size` bytes."""
        if size < LONG:
            self._long = 0
        self._ask = self._long


def is_much(data: bytes, size: int) -> bool:
    """Whether a read of up to `size` bytes brought so much that others come before the next one.

    Messages are counted by the length of the first, and nobody knows yet whether it is one.
    """
    still = size <= HEAVY_READ
    if not still and len(data) < HEAVY_READ:
        return False
    order: Literal["little", "big"] = "little" if data[:1] == b"l" else "big"
    length = FIXED + int.from_bytes(data[4:8], order) + int.from_bytes(data[12:16], order)
    return len(data) >= (MANY_STILL if still else MANY) * length
