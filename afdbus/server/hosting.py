"""What hosts inside somebody's own program have in common, whoever drives their loop."""

from __future__ import annotations

import os
import weakref

from afdbus.errors import BusClosedError
from afdbus.server.buses import Buses
from afdbus.server.hostedbus import BusHandle
from afdbus.server.launcher import Starting
from afdbus.server.loop import Loop
from afdbus.server.ownname import bind_name, random_name
from afdbus.server.pythonlog import PythonLog
from afdbus.server.recipe import BusOptions, Recipes, full_receiver
from afdbus.server.traffic import Traffic
from afdbus.wire.address import new_guid


class Hosting:
    """A loop and its buses, in the thread that made it.

    The log is Python's, as "afdbus".  Signals and the garbage collector are the program's.
    """

    def __init__(self) -> None:
        log = PythonLog()
        self.is_open = True
        self.loop = Loop(log)
        self._served = Buses(self.loop, log, None)
        self._handles: dict[BusHandle, None] = {}
        self._recipes = Recipes()
        _open.add(self)

    @property
    def buses(self) -> list[BusHandle]:
        """The buses that are open, in the order in which they were made."""
        return list(self._handles)

    def create(self, name: str | None, options: BusOptions) -> BusHandle:
        """Bind a name and serve a bus there; raises as `Host.create_bus` does."""
        if not self.is_open:
            raise BusClosedError("the host is closed")
        reread = self._recipes.reader(options)
        when_full = full_receiver(options)
        # Read before anybody can come (S6).
        config = reread()
        if name is None:
            name = random_name()
        listener = bind_name(name, new_guid())
        traffic = Traffic(options["messages"]) if options.get("messages") else None
        server = self._served.serve(
            config,
            reread,
            [listener],
            guid=listener.guid,
            journal=PythonLog(f"[{name}] ", traffic),
            starting=Starting(mortal=True),
            full_receiver=when_full,
        )
        if traffic is not None:
            server.bus.watch(traffic)
        handle = BusHandle(name, server, [listener], traffic, self._close_one)
        self._handles[handle] = None
        return handle

    def _close_one(self, handle: BusHandle) -> None:
        del self._handles[handle]
        self._served.close_one(handle.server)

    def close(self) -> None:
        """Close all buses, and make none any more."""
        self.is_open = False
        _open.discard(self)
        for handle in self.buses:
            handle.close()
        self._served.close()
        self.loop.stop()

    def abandon(self) -> None:
        """In a forked child: let go of all sockets without a word to anybody, so that names and
        connections are the parent's alone."""
        self.is_open = False
        for handle in self.buses:
            handle.abandon()
        self._served.abandon()
        self.loop.close()


_open: weakref.WeakSet[Hosting] = weakref.WeakSet()


def _abandon_all() -> None:
    for hosting in list(_open):
        hosting.abandon()
    _open.clear()


os.register_at_fork(after_in_child=_abandon_all)
