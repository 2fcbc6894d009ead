"""Buses inside a trio program: `async with Host() as host: bus = await host.create_bus()`.

Each bus is bound to a name of its own in the abstract namespace of Unix sockets, costs no process,
and real clients connect to it.  The loop is one of the program's tasks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import trio

from afdbus.errors import BusClosedError
from afdbus.server import task
from afdbus.server.hostedbus import BusHandle, BusStatistics
from afdbus.server.hosting import Hosting
from afdbus.server.recipe import BusOptions

T = TypeVar("T")


class HostedBus:
    """A bus made by `Host.create_bus`; use it in the trio run of its host only.

    `name` is its name in the abstract namespace, without the NUL; `guid` its id, `address` what
    clients connect to.
    """

    def __init__(self, handle: BusHandle) -> None:
        self.name = handle.name
        self.guid = handle.guid
        self.address = handle.address
        self._handle = handle

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{' closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def env(self) -> dict[str, str]:
        """The variable that leads clients here: of the system bus if the bus is of that type."""
        return self._handle.env()

    @property
    def messages(self) -> list[str]:
        """The last messages and refusals, a line each, the oldest first.

        Empty unless `create_bus` was told how many to keep.  What was sent before is in.
        """
        return self._handle.messages

    def statistics(self) -> BusStatistics:
        """What there is at this moment, and what was counted since the start.

        What clients did before, such as to close a connection, was done.
        """
        return self._handle.statistics()

    async def wait_for_name(self, name: str) -> str:
        """Wait until somebody owns `name`; returns the owner's unique name.

        Raises BusClosedError when the bus is closed before.
        """
        return await self._answer(lambda: self._handle.owner(name))

    async def wait_until(self, holds: Callable[[BusStatistics], bool]) -> None:
        """Wait until `holds(statistics())`: asked now, and whenever a name, unique ones included,
        comes or goes, a client becomes a monitor, or a connection ends.

        Raises BusClosedError when the bus is closed before.
        """
        await self._answer(lambda: self._handle.holds(holds))

    async def _answer(self, question: Callable[[], T | None]) -> T:
        """Ask again after each change until there is an answer."""
        while (answer := question()) is None:
            event = trio.Event()
            self._handle.when_changed(event.set)
            try:
                await event.wait()
            finally:
                self._handle.forget(event.set)
        # What is known already is told even to those who have no time.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return answer

    def socket(
        self,
        uid: int | None = None,
        gids: Sequence[int] | None = None,
        pid: int | None = None,
    ) -> socket.socket:
        """A socket on which the bus takes whoever speaks for the user `uid` in the groups `gids`.

        Our own user and process unless given; without `gids` the groups of the user database.  In
        the handshake the client may claim any uid.  Such an identity decides what policy allows;
        it can do nothing outside the bus, whoever it pretends to be: reload it, start programs,
        make buses.  The socket is the caller's to close.
        """
        return self._handle.socket(uid, gids, pid)

    async def aclose(self) -> None:
        """Close every connection and give up the name.  Closing twice does nothing."""
        self._handle.close()
        await trio.lowlevel.checkpoint()


class Host:
    """The buses of one program, in one trio run.

    Everything that is said of it holds for the trio run in which it was entered; other threads
    want a `ThreadHost`.  The host's log is Python's `logging`, as "afdbus".
    """

    def __init__(self) -> None:
        self._hosting: Hosting | None = None
        self._buses: dict[BusHandle, HostedBus] = {}

    async def __aenter__(self) -> Self:
        if self._hosting is not None:
            raise RuntimeError("this host is open already")
        self._hosting = Hosting()
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        nursery.start_soon(task.run, self._hosting.loop, name="afdbus")
        self._scope = nursery.cancel_scope
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        hosting, self._hosting = self._hosting, None
        assert hosting is not None
        hosting.close()
        self._buses.clear()
        self._scope.cancel()
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if error is not None and group.exceptions == (error,):
                return False  # nothing went wrong here: it is raised as it was
            raise
        finally:
            hosting.loop.close()

    @property
    def buses(self) -> tuple[HostedBus, ...]:
        """The buses that are open, in the order in which they were made."""
        return tuple(bus for bus in self._buses.values() if not bus.closed)

    async def create_bus(
        self, name: str | None = None, **options: Unpack[BusOptions]
    ) -> HostedBus:
        """Bind the abstract name `name`, a random one if it is None, and serve a bus there.

        The options are those of `BusOptions`.  Raises OSError (EADDRINUSE) if the name is taken,
        ValueError if it can be none, ConfigError where the configuration is wrong.
        """
        await trio.lowlevel.checkpoint()
        # No checkpoint from here on: a bus that was made is returned.
        if self._hosting is None:
            raise BusClosedError("the host is not open")
        handle = self._hosting.create(name, options)
        self._buses = {old: bus for old, bus in self._buses.items() if not old.closed}
        self._buses[handle] = HostedBus(handle)
        return self._buses[handle]
