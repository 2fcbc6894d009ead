"""Writes outboxes: one bounded write for each receiver and batch (P7, P27, P29)."""

from __future__ import annotations

import errno
import socket
from array import array
from typing import TYPE_CHECKING, Protocol

from afdbus.bus.outbox import Batch, FdPiece, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from afdbus.bus.peer import Peer

# What one write joins at the most, and what one receiver gets in one turn, in bytes.
JOIN = 256 * 1024
TURN = 1024 * 1024
# Pieces in one sendmsg: half of the kernel's UIO_MAXIOV.
VECTOR = 512
# Below this, joining is cheaper than a vector.
SMALL = 32 * 1024


class Writer(Protocol):
    """A connection, as far as writing to it goes."""

    sock: socket.SocketType

    def want_write(self, wanted: bool) -> None:
        """Whether to be told when the socket takes more."""

    def write_again(self) -> None:
        """There is more to write, and the socket may take it: in the next pass."""

    def write_failed(self) -> None:
        """The other end is gone; what it sent before still counts."""

    def relieve(self, senders: Sequence[Peer]) -> None:
        """Messages of these paused senders were written."""


def flush(touched: Batch, failed: Callable[[Outbox], None]) -> None:
    """Write every touched outbox, as far as its socket takes it, and forget that it was touched.

    One whose socket was full is not among them: a thousand subscribers that do not read would cost
    as many failing writes for each signal.

    `failed` is called, in the handler, for an outbox in whose writing a bug of ours shows (P5).
    """
    write = touched.write
    for box in touched:
        data = box.piece
        if data is None:
            continue  # it was drained or shut since
        try:
            # In one frame, as a broadcast comes here by the dozen: 0.25 us for each receiver.
            try:
                if not box.more:
                    box.piece = None
                    sent = write(box.fd, data)
                    if sent == len(data):
                        continue
                elif box.fds or len(box.more) >= VECTOR:
                    drain(box)
                    continue
                else:
                    pieces = box.pieces()
                    size = sum(map(len, pieces))
                    if size <= SMALL:
                        sent = write(box.fd, b"".join(pieces))  # type: ignore[arg-type]
                    else:
                        sent = _writer(box).sock.sendmsg(pieces)  # type: ignore[arg-type]
                    if sent == size:
                        box.piece = None
                        box.more.clear()
                        continue
            except BlockingIOError:
                sent = 0
            except OSError:
                _writer(box).write_failed()
                continue
            box.piece = data  # it was taken out for the usual case, in which it is gone
            box.block()
            _writer(box).relieve(box.wrote(sent))
            _writer(box).want_write(True)
        except Exception:
            failed(box)
    touched.clear()


def _writer(box: Outbox) -> Writer:
    return box.port  # type: ignore[return-value]


def drain(box: Outbox) -> None:
    """Write a backlog, as far as the socket takes it and the turn goes."""
    if box.shut:
        return
    waiting = box.blocked
    if not waiting:
        box.block()
    writer = _writer(box)
    relieved: list[Peer] = []
    backlog = box.backlog
    assert backlog is not None
    budget = TURN
    while backlog and budget > 0:
        try:
            if isinstance(backlog[0], FdPiece):
                sent = _send_fds(writer.sock, backlog[0])
                relieved += box.spend_fds()
            else:
                sent = _send_vector(writer.sock, box)
        except BlockingIOError:
            writer.want_write(True)
            break
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS and isinstance(backlog[0], FdPiece):
                # Descriptors nested too deep: the message is lost, its receiver is not
                # (CVE-2014-3532).
                relieved += box.skip()
                continue
            writer.write_failed()
            return
        budget -= sent
        relieved += box.wrote(sent)
    if not backlog:
        box.unblock()
        if waiting:
            writer.want_write(False)
    elif budget <= 0:
        writer.write_again()
    if relieved:
        writer.relieve(relieved)


def _send_fds(sock: socket.SocketType, piece: FdPiece) -> int:
    """A piece with descriptors starts a sendmsg of its own."""
    rights = array("i", piece.fds.numbers)
    return sock.sendmsg([piece.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _send_vector(sock: socket.SocketType, box: Outbox) -> int:
    """Write the first pieces without descriptors: up to 256 KiB, or one larger piece."""
    vector: list[bytes | memoryview] = []
    size = 0
    skip = box.offset
    for piece in box.backlog or ():
        if isinstance(piece, FdPiece) or len(vector) == VECTOR or size >= JOIN:
            break
        vector.append(memoryview(piece)[skip:] if skip else piece)
        size += len(piece) - skip
        skip = 0
    if len(vector) == 1:
        return sock.send(vector[0])
    if size <= SMALL:
        return sock.send(b"".join(vector))
    return sock.sendmsg(vector)
