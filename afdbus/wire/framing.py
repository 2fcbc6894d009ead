"""What has come of messages that are not whole yet, and the descriptors that came with them.

The road walks over whole messages in the very bytes that `recv` gave; only the rest behind them is
kept here.  A message above LARGE is collected in a buffer of its own that grows with what came and
never with what was promised (P3): sixteen bytes that announce 128 MiB cost sixteen bytes.
"""

from __future__ import annotations

from collections import deque

from afdbus.wire.fds import close_all

# What one recv asks for.
READ = 65536
# From this size on, in bytes, it is cheaper to read a message alone than to copy it.
LONG = 32 * 1024
# A message up to this size is walked over in place: it is what holds 64 KiB and a header.
LARGE = READ + 8192


class Framer:
    """Bytes and descriptors of one connection between two reads."""

    __slots__ = ("fds", "filled", "large", "rest", "total")

    def __init__(self) -> None:
        self.rest = b""
        self.fds: deque[int] | None = None
        self.large: bytearray | None = None
        self.filled = 0
        self.total = 0

    def begin(self, data: bytes, total: int) -> None:
        """Collect a message of `total` bytes, of which `data` has come."""
        self.rest = b""
        self.large = bytearray(min(total, 2 * max(len(data), LARGE)))
        self.large[: len(data)] = data
        self.filled = len(data)
        self.total = total

    def room(self) -> memoryview:
        """Where the next bytes of the large message belong; to be released after use."""
        assert self.large is not None
        size = len(self.large)
        if self.filled == size:
            # Doubling: never more than twice of what came, and exact for the last step.
            self.large.extend(bytes(min(self.total - size, size)))
        return memoryview(self.large)[self.filled :]

    def advance(self, count: int) -> bool:
        """`count` bytes were put into `room`; whether the message is whole now."""
        self.filled += count
        return self.filled == self.total

    def finish(self) -> bytearray:
        """The whole large message."""
        assert self.large is not None
        large, self.large = self.large, None
        return large

    def receive_fds(self, numbers: list[int]) -> None:
        """Keep descriptors that came; each header takes as many as it names."""
        if self.fds is None:
            self.fds = deque()
        self.fds.extend(numbers)

    def take_fds(self, count: int) -> list[int] | None:
        """The first `count` descriptors, or None when fewer have come."""
        if self.fds is None or len(self.fds) < count:
            return None
        taken = [self.fds.popleft() for _ in range(count)]
        if not self.fds:
            self.fds = None
        return taken

    def close(self) -> None:
        """Drop everything; descriptors nobody took are closed."""
        self.rest = b""
        self.large = None
        if self.fds is not None:
            close_all(self.fds)
            self.fds = None
