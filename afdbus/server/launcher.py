"""Starts the services of one bus, as its own user or by a setuid helper, and watches them.

"Traditional activation" of dbus-daemon(1).  The programs are in a session of their own.  Those of a
session bus are told to end when it does, since not all notice it by themselves; those of a system
bus may go on and meet the next one.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from afdbus.bus.ports import Service
from afdbus.config import commandline
from afdbus.errors import SPAWN_EXEC_FAILED, SPAWN_FILE_INVALID, BusError
from afdbus.host.spawn import Child, inherited_environment, spawn
from afdbus.host.systemd import journal_stream
from afdbus.server import spawnerrors
from afdbus.server.loop import Loop
from afdbus.server.privileged import Privileged
from afdbus.server.privlauncher import PrivilegedChild, PrivilegedLauncher
from afdbus.server.starterenv import about_bus

# syslog(3)
_WARNING, _INFO = 4, 6


class Starting(NamedTuple):
    """How a process starts services, whatever bus they are for.

    `nofile`: the (soft, hard) RLIMIT_NOFILE they are to have, None for ours.  `journals`: what they
    print goes to the journal, if there is one, and not where our own output goes.  `by_systemd`:
    systemd starts those that are units.  `privileged`: this process starts those whose file names
    a user, as that user.  `mortal`: they end with their bus, even if it is a system bus.
    """

    nofile: tuple[int, int] | None = None
    journals: bool = False
    by_systemd: bool = False
    privileged: Privileged | None = None
    mortal: bool = False


DEFAULT = Starting()


class ServiceLauncher:
    """The bus's launcher.

    `address` and `type_` are what a service is told of its bus.  `helper` is the program of
    `<servicehelper>`, to which nothing is told but the name: it looks for the service file by
    itself and starts what that says as the user that it names.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        address: str,
        type_: str | None,
        helper: str | None,
        starting: Starting = DEFAULT,
    ) -> None:
        self._loop = loop
        self._helper = helper
        self._starting = starting
        self._environment = inherited_environment()
        self._about = about_bus(address, type_)
        self._privileged = (
            None if starting.privileged is None else PrivilegedLauncher(loop, starting.privileged)
        )
        self._children: dict[int, Child] = {}
        self._closed = False
        self._end_with_us = starting.mortal or (type_ != "system" and helper is None)

    @property
    def children(self) -> list[int]:
        """The processes that were started and have not ended."""
        return [child.pid for child in self._children.values()]

    @property
    def uses_helper(self) -> bool:
        return self._helper is not None

    def start(
        self,
        service: Service,
        environment: Mapping[str, str],
        ended: Callable[[BusError | None], None],
    ) -> Child | PrivilegedChild:
        if self._privileged is not None and service.user is not None:
            return self._privileged.start(service.name, ended)
        command = service.exec
        if self._helper is not None:
            if service.user is None:
                raise BusError(
                    SPAWN_FILE_INVALID, "Cannot do system-bus activation with no user\n"
                )
            command = f"{self._helper} {service.name}"
        arguments = [word.encode() for word in commandline.split(command)]
        try:
            with self._output(service.name) as output:
                child = spawn(
                    arguments, self._environment_of(environment), self._starting.nofile, output
                )
        except OSError as error:
            raise BusError(
                SPAWN_EXEC_FAILED, f"Failed to execute program {service.name}: {error.strerror}"
            ) from None
        self._children[child.fd] = child
        tell = spawnerrors.of_helper if self._helper is not None else spawnerrors.of_program

        def reap(_: int) -> None:
            self._forget(child)
            code = child.reap()
            if not self._closed:
                ended(tell(service.name, code))

        self._loop.register(child.fd, reap)
        return child

    @contextlib.contextmanager
    def _output(self, name: str) -> Iterator[tuple[int, int] | None]:
        """Where a service is to print; None: where we do."""
        with contextlib.ExitStack() as opened:
            streams = []
            if self._starting.journals:
                with contextlib.suppress(OSError):  # there is no journal everywhere
                    for priority in (_INFO, _WARNING):
                        streams.append(journal_stream(name, priority))
                        opened.callback(os.close, streams[-1])
            yield (streams[0], streams[1]) if len(streams) == 2 else None

    def _environment_of(self, added: Mapping[str, str]) -> dict[bytes, bytes]:
        """The environment of a service: ours, what clients have added, what is true of the bus."""
        environment = dict(self._environment)
        for name, value in {**added, **self._about}.items():
            # A client's name may contain the equals sign, at which whoever reads it would split.
            true_name, _, rest = f"{name}={value}".encode().partition(b"=")
            if true_name:
                environment[true_name] = rest
        return environment

    def _forget(self, child: Child) -> None:
        del self._children[child.fd]
        self._loop.unregister(child.fd)

    def close(self) -> None:
        """Tell the programs to end, and nobody of their end any more; or leave them alone."""
        self._closed = True
        if self._privileged is not None:
            self._privileged.close()
        for child in list(self._children.values()):
            if self._end_with_us:
                child.end()
            else:
                self._leave(child)

    def wait(self, deadline: float) -> None:
        """Wait until they have ended, or the monotonic time is `deadline`; then leave the rest."""
        poll = select.poll()
        for fd in self._children:
            poll.register(fd, select.POLLIN)
        while self._children and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                poll.unregister(fd)
                child = self._children[fd]
                self._forget(child)
                child.reap()
        for child in list(self._children.values()):
            self._leave(child)

    def _leave(self, child: Child) -> None:
        self._forget(child)
        child.leave()

    def abandon(self) -> None:
        """In a forked child: they are not ours."""
        if self._privileged is not None:
            self._privileged.abandon()
        for child in self._children.values():
            child.leave()
