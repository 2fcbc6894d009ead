"""A name of the abstract namespace that becomes a bus of its own (AF_DBUS: bind and listen).

Names are bytes; as text, bytes that are no UTF-8 are surrogates, as in file names (PEP 383).
"""

from __future__ import annotations

import os
import socket

from afdbus.server.listener import Listener
from afdbus.wire.address import OWN_METHOD, Address

# sockaddr_un has 108 bytes, of which the first is the NUL.  libdbus's clients take 98 only.
MAX_NAME = 107

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def random_name() -> str:
    """A name that nobody else has: 100 random bits."""
    number = int.from_bytes(os.urandom(13), "little")
    letters = []
    for _ in range(20):
        number, digit = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[digit])
    return "afdbus-" + "".join(letters)


def bind_name(name: str, guid: str) -> Listener:
    """Listen on the abstract name `name`; clients are told `guid`.

    Raises ValueError for what can be no name, OSError (EADDRINUSE) where it is taken.
    """
    raw = name.encode("utf-8", "surrogateescape")
    if not raw or b"\0" in raw or len(raw) > MAX_NAME:
        raise ValueError(f"not a name of 1 to {MAX_NAME} bytes without NUL: {name!r}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(b"\0" + raw)
        listening.listen(socket.SOMAXCONN)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, os.strerror(error.errno or 0), name) from None
    address = Address("unix", {"abstract": name})
    return Listener(listening, address, guid, OWN_METHOD, own_name=name)
