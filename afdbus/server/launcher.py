"""Starts the services of one bus as its own user, and watches them.

"Traditional activation" of dbus-daemon(1), as on a session bus.  The programs are in a session of
their own and outlive the daemon, as there: they notice the end of the bus by themselves.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from afdbus.bus.ports import Service
from afdbus.config import commandline
from afdbus.errors import SPAWN_EXEC_FAILED, SPAWN_FAILED, BusError
from afdbus.host.spawn import Child, inherited_environment, spawn
from afdbus.host.systemd import journal_stream
from afdbus.server.loop import Loop

# syslog(3)
_WARNING, _INFO = 4, 6

_BUS_ADDRESS = {
    "session": "DBUS_SESSION_BUS_ADDRESS",
    "system": "DBUS_SYSTEM_BUS_ADDRESS",
}


class ServiceLauncher:
    """The bus's launcher.

    `address` and `type_` are what a service is told of its bus.  `helper` is the program of
    `<servicehelper>`; where there is one, the bus's own user must not run services, and nothing is
    started.  `nofile`: the (soft, hard) RLIMIT_NOFILE of services, None for ours.  `journals`: what
    they print goes to the journal, if there is one, and not where our own output goes.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        address: str,
        type_: str | None,
        helper: str | None,
        nofile: tuple[int, int] | None,
        journals: bool,
    ) -> None:
        self._loop = loop
        self._helper = helper
        self._nofile = nofile
        self._journals = journals
        self._environment = inherited_environment()
        self._about = {"DBUS_STARTER_ADDRESS": address}
        if type_ is not None:
            self._about["DBUS_STARTER_BUS_TYPE"] = type_
        if type_ in _BUS_ADDRESS:
            self._about[_BUS_ADDRESS[type_]] = address
        self._children: dict[int, Child] = {}

    @property
    def may_set_environment(self) -> bool:
        return self._helper is None

    def start(
        self, service: Service, environment: Mapping[str, str], ended: Callable[[int], None]
    ) -> Child:
        if self._helper is not None:
            raise BusError(
                SPAWN_FAILED,
                f"Cannot start {service.name}: no service is started by {self._helper}",
            )
        arguments = [word.encode() for word in commandline.split(service.exec)]
        try:
            with self._output(service.name) as output:
                child = spawn(
                    arguments, self._environment_of(environment), self._nofile, output
                )
        except OSError as error:
            raise BusError(
                SPAWN_EXEC_FAILED, f"Failed to execute program {service.name}: {error.strerror}"
            ) from None
        self._children[child.fd] = child
        self._loop.register(child.fd, lambda _: self._reap(child, ended))
        return child

    @contextlib.contextmanager
    def _output(self, name: str) -> Iterator[tuple[int, int] | None]:
        """Where a service is to print; None: where we do."""
        with contextlib.ExitStack() as opened:
            streams = []
            if self._journals:
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

    def _reap(self, child: Child, ended: Callable[[int], None]) -> None:
        self._forget(child)
        ended(child.reap())

    def _forget(self, child: Child) -> None:
        del self._children[child.fd]
        self._loop.unregister(child.fd)

    def close(self) -> None:
        """Watch nobody any more."""
        for child in list(self._children.values()):
            self._forget(child)
            child.leave()
