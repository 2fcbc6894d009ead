"""One listening socket, with the files that were made for it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afdbus.wire.address import Address


class File:
    """A file or directory we made: it is removed only if it is still the same one."""

    __slots__ = ("_identity", "_path")

    def __init__(self, path: str) -> None:
        # absolute, since a daemon changes its directory
        self._path = os.path.abspath(path)
        status = os.lstat(self._path)
        self._identity = (status.st_dev, status.st_ino)

    def remove(self) -> None:
        # It may be gone already, or be out of our reach since privileges were dropped.
        with contextlib.suppress(OSError):
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                remove = os.rmdir if stat.S_ISDIR(status.st_mode) else os.unlink
                remove(self._path)


class Listener:
    """One listening socket, which it owns, and the files that belong to it.

    `address`: what a client connects to, without guid; `str` gives it with the guid.  `method`:
    the method it was bound by ("systemd" says nothing about the kind of socket).  `nonce`: what a
    client has to send first, None except for nonce-tcp.  `own_name`: the name of the bus that
    this listener makes; None where it leads to the bus of the whole configuration.
    """

    __slots__ = (
        "_family",
        "_files",
        "_protocol",
        "address",
        "guid",
        "method",
        "nonce",
        "own_name",
        "socket",
    )

    def __init__(
        self,
        listening: socket.socket,
        address: Address,
        guid: str,
        method: str,
        files: Iterable[File] = (),
        nonce: bytes | None = None,
        own_name: str | None = None,
    ) -> None:
        listening.setblocking(False)
        self.socket = listening
        self._family = int(listening.family)
        self._protocol = listening.proto
        self.address = str(address)
        self.guid = guid
        self.method = method
        self.nonce = nonce
        self.own_name = own_name
        self._files = tuple(files)

    def __str__(self) -> str:
        return f"{self.address},guid={self.guid}"

    def accept(self) -> socket.SocketType:
        """The socket of a newcomer, which does not block.  Raises OSError."""
        # As `socket.accept`, but for asking itself for its own family and type (1.9 us).
        fd, _ = self.socket._accept()  # type: ignore[attr-defined]
        accepted = socket.SocketType(self._family, socket.SOCK_STREAM, self._protocol, fd)
        accepted.setblocking(False)
        return accepted

    def close(self) -> None:
        """Listen no more; remove our files, unless something else has taken their place."""
        self.socket.close()
        for file in self._files:
            file.remove()
