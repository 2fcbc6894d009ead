"""Our daemon on a kernel that fails where it is told to, run as a program by the tests.

The file named by `FAULTS` holds three numbers: which call (its place in `CALLS`), the error, and
the how many-th call from now on fails; that one counts down, and at 0 nothing fails any more.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from afdbus import daemon_cli

CALLS = ["accept", "recv", "recvmsg", "recvmsg_into", "send", "sendmsg"]
FAULT = struct.Struct("iii")


def fail_at(memory: mmap.mmap, place: int, call: Callable[..., Any]) -> Callable[..., Any]:
    def perhaps(*arguments: Any) -> Any:
        which, error, countdown = FAULT.unpack_from(memory)
        if which == place and countdown:
            FAULT.pack_into(memory, 0, which, error, countdown - 1)
            if countdown == 1:
                raise OSError(error, os.strerror(error))
        return call(*arguments)

    return perhaps


class Connected(socket.SocketType):
    """The socket of a newcomer."""


if __name__ == "__main__":
    with open(os.environ["FAULTS"], "r+b") as file:
        faults = mmap.mmap(file.fileno(), FAULT.size)
    for number, name in enumerate(CALLS):
        kind, method = (socket.socket, "_accept") if name == "accept" else (Connected, name)
        setattr(kind, method, fail_at(faults, number, getattr(kind, method)))
    socket.SocketType = Connected  # type: ignore[misc]
    sys.exit(daemon_cli.main())
