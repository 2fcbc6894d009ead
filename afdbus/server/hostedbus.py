"""One bus of a host in somebody's own program: what the program can see of it and do with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import trio

from afdbus.errors import BusClosedError
from afdbus.identity import Identity
from afdbus.server.listeners import printable

if TYPE_CHECKING:
    from afdbus.server.busserver import BusServer
    from afdbus.server.listener import Listener
    from afdbus.server.traffic import Traffic

_VARIABLES = {"system": "DBUS_SYSTEM_BUS_ADDRESS"}


class ConnectionInfo(NamedTuple):
    """A client: its unique name, the names it owns or queues for, user and process if known."""

    name: str
    names: tuple[str, ...]
    uid: int | None
    pid: int | None
    is_monitor: bool


class BusStatistics(NamedTuple):
    """A bus at one moment.

    `connections` have said Hello, `incomplete` ones have not.  `names` are the well-known names
    with the unique names of their owners, `match_rules` the rules of all clients.  `children` are
    the processes of services that the bus started; of a closed bus those that it left running.
    `messages` counts all that was kept for `HostedBus.messages` since the start, `dropped` messages
    that a full receiver has missed, `violations` clients that were cut off for breaking the
    protocol.
    """

    connections: tuple[ConnectionInfo, ...]
    incomplete: int
    names: dict[str, str]
    match_rules: int
    children: tuple[int, ...]
    messages: int
    dropped: int
    violations: int


class HostedBus:
    """A bus made by `Host.create_bus`; use it in the trio run of its host only.

    `name` is the name in the abstract namespace without the NUL, `guid` the id of the bus,
    `address` what clients connect to.
    """

    def __init__(
        self,
        name: str,
        server: BusServer,
        listeners: Sequence[Listener],
        traffic: Traffic | None,
        close: Callable[[HostedBus], None],
    ) -> None:
        self.name = name
        self.guid = server.bus.guid
        self.address = printable(listeners)
        self._server = server
        self._traffic = traffic
        self._close = close
        self._closed = False
        self._left: tuple[int, ...] = ()  # children, when it was closed
        self._waiting: dict[str, trio.Event] = {}
        self._change = trio.Event()
        server.bus.on_owner = self._has_owner
        server.on_farewell = self._has_changed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{' closed' if self._closed else ''}>"

    @property
    def closed(self) -> bool:
        return self._closed

    def env(self) -> dict[str, str]:
        """The variable that leads clients here: of the system bus if the bus is of that type."""
        variable = _VARIABLES.get(self._server.bus.type or "", "DBUS_SESSION_BUS_ADDRESS")
        return {variable: self.address}

    @property
    def messages(self) -> list[str]:
        """The last messages and refusals, a line each, the oldest first.

        Empty unless `create_bus` was told how many to keep.  What was sent before is in.
        """
        self._settle()
        return [] if self._traffic is None else self._traffic.lines()

    def statistics(self) -> BusStatistics:
        """What there is at this moment, and what was counted since the start.

        What clients did before, such as to close a connection, was done.
        """
        self._settle()
        bus = self._server.bus
        return BusStatistics(
            connections=tuple(
                ConnectionInfo(
                    peer.name,
                    tuple(peer.names),
                    peer.identity.uid,
                    peer.identity.pid,
                    peer.monitor,
                )
                for peer in bus.peers.values()
            ),
            incomplete=bus.incomplete,
            names={name: bus.names.owners[name].name for name in bus.names.queues},
            match_rules=bus.rule_count,
            children=self._left or tuple(self._server.children),
            messages=0 if self._traffic is None else self._traffic.count,
            dropped=bus.dropped,
            violations=self._server.violations,
        )

    async def wait_for_name(self, name: str) -> str:
        """Wait until somebody owns `name`; returns the owner's unique name.

        Raises BusClosedError when the bus is closed before.
        """
        owners = self._server.bus.names.owners
        self._settle()
        while name not in owners:
            self._check_open()
            await self._waiting.setdefault(name, trio.Event()).wait()
        self._check_open()
        owner = owners[name].name
        # What is known already is told even to those who have no time.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return owner

    async def wait_until(self, holds: Callable[[BusStatistics], bool]) -> None:
        """Wait until `holds(statistics())`: asked now, and whenever a name, unique ones included,
        gets an owner or a connection ends.

        Raises BusClosedError when the bus is closed before.
        """
        while True:
            self._check_open()
            if holds(self.statistics()):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            await self._change.wait()

    def _has_owner(self, name: str) -> None:
        event = self._waiting.pop(name, None)
        if event is not None:
            event.set()
        self._has_changed()

    def _has_changed(self) -> None:
        if self._change.statistics().tasks_waiting:
            self._change.set()
            self._change = trio.Event()

    def _settle(self) -> None:
        if not self._closed:
            self._server.loop.settle()

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
        self._check_open()
        user = os.geteuid() if uid is None else uid
        identity = Identity(
            uid=user,
            pid=os.getpid() if pid is None else pid,
            gids=None if gids is None else tuple(sorted(set(gids))),
            command="(virtual)",
            virtual=True,
        )
        ours, theirs = socket.socketpair()
        self._server.adopt(ours, identity)
        return theirs

    async def aclose(self) -> None:
        """Close every connection and give up the name.  Closing twice does nothing."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """`aclose` without letting other tasks run."""
        if not self._closed:
            self._closed = True
            self._left = tuple(self._server.children)
            self._close(self)
            for event in self._waiting.values():
                event.set()
            self._waiting.clear()
            self._has_changed()

    def abandon(self) -> None:
        """Its host was left to the parent of this process."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError(f"the bus {self.name!r} is closed")
