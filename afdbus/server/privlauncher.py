"""The bus's end of the privileged launcher (`privileged.py`): names go there, ends come back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from afdbus.errors import SPAWN_FAILED, BusError
from afdbus.server import spawnerrors
from afdbus.server.loop import Loop
from afdbus.server.privileged import REPORT, REQUEST, Privileged


class PrivilegedChild:
    """A service that the other process was asked to start."""

    __slots__ = ("_launcher", "_number")

    def __init__(self, launcher: PrivilegedLauncher, number: int) -> None:
        self._launcher = launcher
        self._number = number

    def kill(self) -> None:
        self._launcher.kill(self._number)


class PrivilegedLauncher:
    """Asks that process, whose socket is ours from now on."""

    def __init__(self, loop: Loop, process: Privileged) -> None:
        self._loop = loop
        self._sock = sock = process.sock
        self._pid = process.pid
        self._number = 0
        self._waiting: dict[int, tuple[str, Callable[[BusError | None], None]]] = {}
        loop.register(sock.fileno(), self._read)

    def start(self, name: str, ended: Callable[[BusError | None], None]) -> PrivilegedChild:
        """Start the service called `name`; `ended` as for `Launcher.start`.  Raises BusError."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        try:
            self._sock.send(REQUEST.pack(self._number) + name.encode())
        except OSError as error:  # it does not read, or is gone
            raise _gone(name, error.strerror or "") from None
        self._waiting[self._number] = name, ended
        return PrivilegedChild(self, self._number)

    def kill(self, number: int) -> None:
        if number in self._waiting:
            with contextlib.suppress(OSError):  # it is gone, and nobody is there who could
                self._sock.send(REQUEST.pack(number))

    def _read(self, _: int) -> None:
        try:
            report = self._sock.recv(REPORT.size)
        except ConnectionResetError:
            report = b""
        if not report:
            self.close()
            os.waitpid(self._pid, 0)
            lost, self._waiting = self._waiting, {}
            for name, ended in lost.values():
                ended(_gone(name, "it has ended"))
            return
        number, code = REPORT.unpack(report)
        name, ended = self._waiting.pop(number)
        ended(spawnerrors.of_helper(name, code))

    def close(self) -> None:
        """The end of the bus: the other process notices, and ends as well."""
        if self._sock.fileno() >= 0:
            self._loop.unregister(self._sock.fileno())
            self._sock.close()

    def abandon(self) -> None:
        """In a forked child: it is not ours."""
        self._sock.close()


def _gone(name: str, why: str) -> BusError:
    return BusError(SPAWN_FAILED, f"Cannot start {name}: nobody starts services any more ({why})")
