"""The buses of a daemon that come and go while it runs (see `bus/driver/host1.py`)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from afdbus.config.restricted import restricted
from afdbus.errors import (
    ACCESS_DENIED,
    ADDRESS_IN_USE,
    FAILED,
    INVALID_ARGS,
    LIMITS_EXCEEDED,
    BusError,
    ConfigError,
)
from afdbus.host.journal import Prefixed
from afdbus.server.listeners import printable
from afdbus.server.ownname import bind_name, random_name
from afdbus.wire.address import new_guid

if TYPE_CHECKING:
    from afdbus.bus.overflow import FullReceiver
    from afdbus.bus.trial import Trial
    from afdbus.host.journal import Journal
    from afdbus.server.buses import Buses
    from afdbus.server.busserver import BusServer
    from afdbus.server.loop import Loop

# How many buses may be made at the same time: enough for a test run, and bounded (P39).
MAX_BUSES = 512


class Keeper:
    """Makes, closes and lists buses; those of the start are told to `add`, the first one being
    the primary, which stays.  `full_receiver` and `trial` hold for all buses of the daemon."""

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        buses: Buses,
        full_receiver: FullReceiver,
        trial: Trial | None,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._served = buses
        self._full_receiver = full_receiver
        self._trial = trial
        self._primary: BusServer | None = None
        # By its name, "" for one that has none: each with its address.
        self._buses: dict[str, tuple[BusServer, str]] = {}
        self._made: set[str] = set()

    def add(self, name: str, server: BusServer, address: str) -> None:
        """A bus of the start."""
        if self._primary is None:
            self._primary = server
        self._buses[name] = (server, address)
        server.bus.keeper = self

    def create(self, name: str, config: str) -> str:
        """Make a bus on the abstract name `name`, a random one if it is empty; its address."""
        if len(self._made) >= MAX_BUSES:
            raise BusError(LIMITS_EXCEEDED, f"There are {MAX_BUSES} buses already")
        try:
            value = restricted(config)
            listener = bind_name(name or random_name(), new_guid())
        except (ConfigError, ValueError) as error:
            raise BusError(INVALID_ARGS, str(error)) from error
        except OSError as error:
            kind = ADDRESS_IN_USE if error.errno == errno.EADDRINUSE else LIMITS_EXCEEDED
            raise BusError(kind, f'"{name}": {error.strerror}') from error
        name = listener.own_name or ""
        server = self._served.serve(
            value,
            lambda: value,
            [listener],
            guid=listener.guid,
            journal=Prefixed(self._journal, f"[{name}] "),
            full_receiver=self._full_receiver,
        )
        server.bus.trial = self._trial
        address = printable([listener])
        self._buses[name] = (server, address)
        self._made.add(name)
        self._journal.info(f"Made the bus '{name}'")
        return address

    def closing(self, name: str) -> Callable[[], None]:
        """What closes the bus; raises BusError if there is none, or it may not be closed."""
        found = self._buses.get(name)
        if found is None:
            raise BusError(FAILED, f'There is no bus "{name}"')
        server = found[0]
        if server is self._primary:
            raise BusError(ACCESS_DENIED, "The first bus of a daemon ends with it")
        # Not in the turn of one of its own peers.
        return lambda: self._loop.again(lambda: self._close(name, server))

    def _close(self, name: str, server: BusServer) -> None:
        if self._buses.get(name, (None,))[0] is server:
            del self._buses[name]
            self._made.discard(name)
            self._served.close_one(server)
            self._journal.info(f"Closed the bus '{name}'")

    def buses(self) -> list[tuple[str, str]]:
        """Names and addresses; the name is empty for a bus that is not one of its own."""
        return [(name, address) for name, (_, address) in self._buses.items()]
