"""Buses inside a trio program: `async with Host() as host: bus = await host.create_bus()`.

Each bus is bound to a name of its own in the abstract namespace of Unix sockets, costs no process,
and real clients connect to it.  The loop is shared with the program's other tasks, so it never
lingers (P23), and leaves signals and the garbage collector alone.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self

import trio

from afdbus.config.load import Text, compose
from afdbus.config.model import Config, ServiceDirectory
from afdbus.config.standard import STANDARD
from afdbus.errors import BusClosedError
from afdbus.server import task
from afdbus.server.buses import Buses
from afdbus.server.hostedbus import HostedBus
from afdbus.server.loop import Loop
from afdbus.server.ownname import bind_name, random_name
from afdbus.server.pythonlog import PythonLog
from afdbus.server.traffic import Traffic

BusType = Literal["session", "system"]
Configuration = str | os.PathLike[str] | Config | None


class Host:
    """The buses of one program, in one trio run.

    Everything that is said of it holds for the trio run in which it was entered; other threads
    want a `ThreadHost`.  The host's log is Python's `logging`, as "afdbus".
    """

    def __init__(self) -> None:
        self._buses: dict[HostedBus, None] = {}
        self._open = False
        # Buses with the same configuration share one value, policies and all.
        self._configs: dict[tuple[str | Text, ...], Config] = {}

    # -- life ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._open

    async def __aenter__(self) -> Self:
        if self._open:
            raise RuntimeError("this host is open already")
        self._log = PythonLog()
        self._loop = Loop(self._log)
        self._served = Buses(self._loop, self._log, None)
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        nursery.start_soon(task.run, self._loop, name="afdbus")
        self._scope = nursery.cancel_scope
        self._open = True
        _open_hosts.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._open = False
        _open_hosts.discard(self)
        for bus in self.buses:
            bus.close()
        self._loop.stop()
        self._scope.cancel()
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if error is not None and group.exceptions == (error,):
                return False  # nothing went wrong here: it is raised as it was
            raise
        finally:
            self._served.close()
            self._loop.close()

    def abandon(self) -> None:
        """In a forked child: let go of all sockets without a word to anybody, so that names and
        connections are the parent's alone."""
        self._open = False
        for bus in self.buses:
            bus.abandon()
        self._served.abandon()
        self._loop.close()

    # -- buses ---------------------------------------------------------------------------------

    @property
    def buses(self) -> tuple[HostedBus, ...]:
        """The buses that are open, in the order in which they were made."""
        return tuple(self._buses)

    async def create_bus(
        self,
        name: str | None = None,
        *,
        config: Configuration = None,
        policy: str | None = None,
        type: BusType = "session",  # noqa: A002 - the word of the configuration file
        services: Sequence[str | os.PathLike[str]] = (),
        messages: int = 0,
    ) -> HostedBus:
        """Bind the abstract name `name`, a random one if it is None, and serve a bus there.

        `config` is the text of a configuration (it begins with "<"), the path of one, or a value
        that was loaded before; its `<listen>` elements, user, pid file and the like do not count.
        Without one the bus is open, as a session bus is, or closed as a system bus is, by `type`;
        only our own user may connect, and no service directory of the machine is read.  `policy`
        is `<policy>` elements that come after everything else.  `services` are directories with
        service files, besides those of the configuration.  `messages`: how many of the last
        messages to keep for `HostedBus.messages`; all are slower for it.

        Raises OSError (EADDRINUSE) if the name is taken, ValueError if it can be none, ConfigError.
        """
        await trio.lowlevel.checkpoint()
        # No checkpoint from here on: a bus that was made is returned.
        return self.create(
            name, config=config, policy=policy, type=type, services=services, messages=messages
        )

    def create(
        self,
        name: str | None,
        *,
        config: Configuration,
        policy: str | None,
        type: BusType,  # noqa: A002
        services: Sequence[str | os.PathLike[str]],
        messages: int,
    ) -> HostedBus:
        """`create_bus` without letting other tasks run."""
        if not self._open:
            raise BusClosedError("the host is not open")
        reread = self._reader(config, policy, type, services)
        value = reread()
        if name is None:
            name = random_name()
        listener = bind_name(name)
        traffic = Traffic(messages) if messages else None
        log = PythonLog(f"[{name}] ", traffic)
        try:
            server = self._served.serve(value, reread, [listener], guid=listener.guid, journal=log)
        except BaseException:
            listener.close()
            raise
        if traffic is not None:
            server.bus.watch(traffic.message)
        bus = HostedBus(name, server, [listener], traffic, self._close)
        self._buses[bus] = None
        return bus

    def _close(self, bus: HostedBus) -> None:
        del self._buses[bus]
        self._served.close_one(bus._server)

    # -- configurations ------------------------------------------------------------------------

    def _reader(
        self,
        config: Configuration,
        policy: str | None,
        type_: BusType,
        services: Sequence[str | os.PathLike[str]],
    ) -> Callable[[], Config]:
        """What reads the configuration of a bus, the first time and whenever it is reloaded."""
        directories = tuple(ServiceDirectory(os.path.abspath(path)) for path in services)
        if isinstance(config, Config):
            if policy is not None:
                raise ValueError("a policy can be added to the text or the path of a configuration")
            return partial(_with_services, config, directories)
        parts: list[str | Text] = []
        if config is None:
            parts.append(STANDARD[type_])
        elif isinstance(config, str) and config.lstrip().startswith("<"):
            parts.append(Text("<config>", config))
        else:
            parts.append(os.path.abspath(config))
        if policy is not None:
            parts.append(Text("<policy>", f"<busconfig>{policy}</busconfig>"))
        return lambda: _with_services(self._composed(tuple(parts)), directories)

    def _composed(self, parts: tuple[str | Text, ...]) -> Config:
        """The configuration that the parts make up; remembered if no file has a part in it."""
        known = self._configs.get(parts)
        if known is not None:
            return known
        config = compose(*parts)
        if not config.files and not config.directories:
            if len(self._configs) >= 64:
                self._configs.clear()
            self._configs[parts] = config
        return config


def _with_services(config: Config, directories: tuple[ServiceDirectory, ...]) -> Config:
    return config._replace(servicedirs=(*config.servicedirs, *directories))


# Those of this process; a child of it must not keep their sockets.
_open_hosts: weakref.WeakSet[Host] = weakref.WeakSet()


def _abandon_all() -> None:
    for host in list(_open_hosts):
        host.abandon()
    _open_hosts.clear()


os.register_at_fork(after_in_child=_abandon_all)
