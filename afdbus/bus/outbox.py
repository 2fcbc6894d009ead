"""What waits to be written to one peer.

The road puts the first piece into `piece`, where mostly it stays alone, and the others into `more`;
the loop writes each touched outbox once a batch (`server/flush.py`).  Only a peer whose socket is
full has a `backlog`, and only then is anything counted: what a batch adds before the first full
socket is bounded by the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from afdbus.wire.fds import Fds

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.limits import Limits

# What a queued piece costs us beyond its bytes: the object and its place in the queue (P30).
PIECE_COST = 100

# No plan has it.
_NO_VERSION = -1


class FdPiece:
    """A whole message with descriptors: it starts a sendmsg of its own."""

    __slots__ = ("data", "fds", "sender")

    def __init__(self, data: bytes | memoryview, fds: Fds, sender: Peer | None) -> None:
        self.data = data
        self.fds = fds
        self.sender = sender

    def __len__(self) -> int:
        return len(self.data)

    def queued(self) -> int:
        """It waits in an outbox: its descriptors, counted here, are charged to the sender."""
        count = len(self.fds.numbers)
        if self.sender is not None:
            self.sender.charge_fds(count)
        return count

    def unqueued(self) -> int:
        """The descriptors were sent, or never will be.  Returns their count."""
        count = len(self.fds.numbers)
        if self.sender is not None:
            self.sender.charged_fds -= count
        self.fds.release()
        return count


Piece = bytes | memoryview | FdPiece
Write = Callable[[int, bytes | memoryview], int]


class Batch(list["Outbox"]):
    """The outboxes with something to write, in the order in which they got it.

    `write` is what writes to a descriptor, `os.write`.  `news` are the events that the loop's pass
    is about, if it is about events: if there is but one, nothing else will be written in this pass.
    """

    __slots__ = ("news", "write")

    def __init__(self, write: Write) -> None:
        super().__init__()
        self.write = write
        self.news: Sequence[object] = ()


class Outbox:
    """The pieces for one peer, in order: `piece` and then `more`, or a `backlog` while `blocked`.

    `touched` is the batch that it belongs to.  While `blocked` (the socket was full), `size` is the
    number of bytes that wait, and `charges` says whose they are: pairs of bytes and sender, in the
    order of the pieces; the sender is None for what nobody is charged for.
    `waiting` are the senders that are not read from until no more waits here than `room` allows.
    `version` is the peer's, unless it is blocked: then no plan goes by it.
    """

    __slots__ = (
        "backlog",
        "blocked",
        "charges",
        "fd",
        "fds",
        "more",
        "offset",
        "peak_fds",
        "peak_size",
        "peer",
        "piece",
        "port",
        "room",
        "shut",
        "size",
        "touched",
        "version",
        "waiting",
    )

    def __init__(self, touched: Batch) -> None:
        self.touched = touched
        # A slot for the one that is alone: 0.1 us less than to append to a list and pop it.
        self.piece: bytes | memoryview | None = None
        self.more: list[Piece] = []
        self.version = 0
        self.blocked = False
        self.shut = False
        self.fds = 0
        self.size = 0
        self.peak_fds = self.peak_size = 0
        self.offset = 0
        self.backlog: deque[Piece] | None = None
        self.charges: deque[tuple[int, Peer | None]] | None = None
        self.waiting: dict[Peer, None] | None = None
        self.room: Limits | None = None
        self.peer: Peer | None = None
        # The server's: who writes this outbox, and its descriptor, as os.write is 0.07 us quicker
        # than a socket's send.
        self.port: object = None
        self.fd = -1

    def is_full(self, limits: Limits) -> bool:
        """Whether more waits here than `limits` allow; the last message may exceed them."""
        return self.size > limits.max_outgoing_bytes or self.fds > limits.max_outgoing_unix_fds

    def takes_more(self, limits: Limits) -> bool:
        """Whether one more message may be appended to the backlog."""
        return not self.shut and not self.is_full(limits)

    def push(self, piece: Piece) -> None:
        """Append one piece (a whole message, or the next part of one)."""
        if self.shut:
            if isinstance(piece, FdPiece):
                piece.fds.release()
            return
        if self.blocked:
            assert self.backlog is not None
            self.backlog.append(piece)
        elif self.piece is not None:
            self.more.append(piece)
        else:
            self.touched.append(self)
            if isinstance(piece, FdPiece):
                self.piece = b""
                self.more.append(piece)
            else:
                self.piece = piece
        if isinstance(piece, FdPiece):
            self.fds += piece.queued()
            self.peak_fds = max(self.peak_fds, self.fds)

    def charge(self, count: int, sender: Peer | None) -> None:
        """Count `count` bytes that were just pushed while the socket is full."""
        if self.shut:
            return
        assert self.charges is not None
        self.size += count
        self.peak_size = max(self.peak_size, self.size)
        self.charges.append((count, sender))
        if sender is not None:
            sender.charge(count + PIECE_COST)

    def block(self) -> None:
        """The socket is full: what is left goes into the backlog and is counted from now on."""
        self._turn_blocked(True)
        self.version = _NO_VERSION
        self.backlog = deque(self.pieces())
        self.piece = None
        self.more.clear()
        self.size = sum(map(len, self.backlog))
        self.peak_size = max(self.peak_size, self.size)
        self.charges = deque([(self.size, None)])

    def pieces(self) -> list[Piece]:
        """What was pushed since the last writing."""
        return [self.piece, *self.more] if self.piece else [*self.more]

    def wrote(self, count: int) -> list[Peer]:
        """`count` bytes of the backlog were written; returns paused senders who are relieved."""
        assert self.backlog is not None
        self.size -= count
        left = count
        while left:
            piece = self.backlog[0]
            rest = len(piece) - self.offset
            if left < rest:
                self.offset += left
                break
            left -= rest
            self.offset = 0
            self.backlog.popleft()
        relieved = self._discharge(count)
        if self.waiting is not None and self.room is not None and not self.is_full(self.room):
            relieved += self.waiting
            self.waiting = None
        return relieved

    def spend_fds(self) -> list[Peer]:
        """The descriptors of the first piece were sent with its first bytes; the rest is bytes."""
        assert self.backlog is not None
        piece = self.backlog[0]
        assert isinstance(piece, FdPiece)
        self.backlog[0] = piece.data
        self.fds -= piece.unqueued()
        return [piece.sender] if piece.sender is not None and piece.sender.paused else []

    def skip(self) -> list[Peer]:
        """Drop the first piece, of which nothing was written yet, with its descriptors."""
        assert self.backlog is not None
        piece = self.backlog.popleft()
        if isinstance(piece, FdPiece):
            self.fds -= piece.unqueued()
        self.size -= len(piece)
        return self._discharge(len(piece))

    def _discharge(self, count: int) -> list[Peer]:
        assert self.charges is not None
        relieved: list[Peer] = []
        while count:
            left, sender = self.charges[0]
            if left > count:
                self.charges[0] = (left - count, sender)
                if sender is not None:
                    sender.charged -= count
                break
            count -= left
            self.charges.popleft()
            if sender is not None:
                sender.discharge(left + PIECE_COST)
                if sender.paused:
                    relieved.append(sender)
        return relieved

    def unblock(self) -> None:
        """Everything was written."""
        self._turn_blocked(False)
        self.version = self.peer.version if self.peer is not None else _NO_VERSION
        self.backlog = None
        self.charges = None
        self.size = 0
        self.offset = 0

    def _turn_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        if self.peer is not None:
            self.peer.bus.versions.total += 1

    def close(self) -> list[Peer]:
        """Shut for good: nothing is pushed or written any more.  Returns relieved senders."""
        self.shut = True
        relieved: dict[Peer, None] = {}
        for piece in [*(self.backlog or ()), *self.pieces()]:
            if isinstance(piece, FdPiece):
                piece.unqueued()
                if piece.sender is not None:
                    relieved[piece.sender] = None
        for count, sender in self.charges or ():
            if sender is not None:
                sender.discharge(count + PIECE_COST)
                relieved[sender] = None
        relieved.update(self.waiting or {})
        self.waiting = None
        self.piece = None
        self.more.clear()
        self.fds = 0
        self.unblock()
        # Whoever appends without asking `push` looks at this first.
        self._turn_blocked(True)
        self.version = _NO_VERSION
        self.peer = None
        self.fd = -1
        return [sender for sender in relieved if sender.paused]
