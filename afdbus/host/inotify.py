"""inotify(7) by way of libc: Python has no module for it.

Only what watching directories needs: no recursion, no cookies.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import NamedTuple

# <sys/inotify.h>
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
OVERFLOW = 0x4000
IGNORED = 0x8000
MASK_ADD = 0x20000000

_head = Struct("iIII")
_READ = 64 * 1024


class Event(NamedTuple):
    """`watch` is the number that `add` gave, -1 with OVERFLOW; `name` is empty for the watched
    thing itself."""

    watch: int
    mask: int
    name: str


class Inotify:
    """An inotify instance.  `fd` is readable when there are events."""

    __slots__ = ("_errno", "_libc", "fd")

    def __init__(self) -> None:
        """Raises OSError (EMFILE where the user has too many)."""
        # Not before it is needed: it is slow to import, and trio has done it by then.
        import ctypes

        self._errno = ctypes.get_errno
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def add(self, path: str, mask: int) -> int:
        """Watch `path`; returns the number of the watch, for the same thing always the same.

        Raises OSError (ENOSPC where the user has too many).
        """
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask), path)

    def remove(self, watch: int) -> None:
        """End a watch, which may have ended by itself."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """All events that there are."""
        events: list[Event] = []
        while True:
            try:
                data = os.read(self.fd, _READ)
            except BlockingIOError:
                return events
            at = 0
            while at < len(data):
                watch, mask, _, size = _head.unpack_from(data, at)
                at += _head.size
                name = os.fsdecode(data[at : at + size].rstrip(b"\0"))
                events.append(Event(watch, mask, name))
                at += size

    def close(self) -> None:
        os.close(self.fd)

    def _checked(self, result: int, path: str | None = None) -> int:
        if result < 0:
            number = self._errno()
            raise OSError(number, os.strerror(number), path)
        return result
