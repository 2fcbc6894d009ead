"""One bus of a host in somebody's own program: what the program can see of it and do with it.

Everything here is for the thread in which the host's loop runs, and waits for nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from afdbus.errors import BusClosedError
from afdbus.identity import Identity
from afdbus.server.listeners import printable

if TYPE_CHECKING:
    from afdbus.server.busserver import BusServer
    from afdbus.server.listener import Listener
    from afdbus.server.traffic import Traffic

_VARIABLES = {"system": "DBUS_SYSTEM_BUS_ADDRESS"}


class ConnectionInfo(NamedTuple):
    """A client: its unique name, the names it owns or queues for, user and process if known.

    `dropped` counts the messages that it has missed since its queue was full.
    """

    name: str
    names: tuple[str, ...]
    uid: int | None
    pid: int | None
    is_monitor: bool
    dropped: int


class BusStatistics(NamedTuple):
    """A bus at one moment.

    `connections` have said Hello, `incomplete` ones have not.  `names` are the well-known names
    with the unique names of their owners, `match_rules` the rules of all clients.  `children` are
    the processes of services that the bus started; those of a closed bus were told to end.
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


class BusHandle:
    """A bus.  `name` is its name in the abstract namespace, without the NUL; `guid` its id,
    `address` what clients connect to."""

    def __init__(
        self,
        name: str,
        server: BusServer,
        listeners: Sequence[Listener],
        traffic: Traffic | None,
        close: Callable[[BusHandle], None],
    ) -> None:
        self.name = name
        self.guid = server.bus.guid
        self.address = printable(listeners)
        self.server = server
        self._traffic = traffic
        self._close = close
        self._closed = False
        self._watchers: list[Callable[[], None]] = []
        server.bus.on_change = self._has_changed
        server.on_farewell = self._has_changed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{' closed' if self._closed else ''}>"

    @property
    def closed(self) -> bool:
        return self._closed

    def env(self) -> dict[str, str]:
        """The variable that leads clients here: of the system bus if the bus is of that type."""
        variable = _VARIABLES.get(self.server.bus.type or "", "DBUS_SESSION_BUS_ADDRESS")
        return {variable: self.address}

    @property
    def messages(self) -> list[str]:
        """The last messages and refusals; what was sent before is in."""
        self._settle()
        return [] if self._traffic is None else self._traffic.lines()

    def statistics(self) -> BusStatistics:
        """What there is at this moment; what clients did before, such as to leave, was done."""
        self._settle()
        bus = self.server.bus
        return BusStatistics(
            connections=tuple(
                ConnectionInfo(
                    peer.name,
                    tuple(peer.names),
                    peer.identity.uid,
                    peer.identity.pid,
                    peer.monitor,
                    peer.dropped,
                )
                for peer in bus.peers.values()
            ),
            incomplete=bus.incomplete,
            names={name: bus.names.owners[name].name for name in bus.names.queues},
            match_rules=bus.rule_count,
            children=tuple(self.server.children),
            messages=0 if self._traffic is None else self._traffic.count,
            dropped=bus.dropped,
            violations=self.server.violations,
        )

    def owner(self, name: str) -> str | None:
        """The unique name of who owns `name` now.  Raises BusClosedError."""
        self._settle()  # may well close it
        self._check_open()
        peer = self.server.bus.names.owners.get(name)
        return None if peer is None else peer.name

    def holds(self, condition: Callable[[BusStatistics], bool]) -> bool | None:
        """Whether `condition(statistics())`; None for no.  Raises BusClosedError."""
        now = self.statistics()
        self._check_open()
        return condition(now) or None

    def when_changed(self, tell: Callable[[], None]) -> None:
        """Call `tell`, once, when a name (unique ones included) has come or gone, a client has
        become a monitor, a connection has ended, or the bus is closed.

        Raises BusClosedError, also where asking has served the loop for so long that it was closed.
        """
        self._check_open()
        self._watchers.append(tell)

    def forget(self, tell: Callable[[], None]) -> None:
        """Do not call it any more, if it was not called yet."""
        if tell in self._watchers:
            self._watchers.remove(tell)

    def _has_changed(self) -> None:
        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for tell in watchers:
                tell()

    def _settle(self) -> None:
        if not self.server.loop.closed:
            self.server.loop.settle()

    def socket(
        self,
        uid: int | None = None,
        gids: Sequence[int] | None = None,
        pid: int | None = None,
    ) -> socket.socket:
        """A socket on which the bus takes whoever speaks for that user; see `HostedBus.socket`."""
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
        self.server.adopt(ours, identity)
        return theirs

    def close(self) -> None:
        """Close every connection and give up the name.  Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._close(self)
            self._has_changed()

    def abandon(self) -> None:
        """Its host was left to the parent of this process."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError(f"the bus {self.name!r} is closed")
