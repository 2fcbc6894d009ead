"""The buses of one process: each is made, served and closed by itself, all on one loop.

They share the loop, the log and the keyring, and nothing that a client could see (S2, S3).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from afdbus.bus.overflow import DROP_IN, FullReceiver
from afdbus.server.busserver import BusServer
from afdbus.server.launcher import DEFAULT, Starting
from afdbus.wire.address import new_guid

# How long the end waits for services that were told of it, in seconds.
PATIENCE = 1.0

if TYPE_CHECKING:
    from afdbus.bus.ports import Journal
    from afdbus.config.model import Config
    from afdbus.sasl.mechanisms import Keyring
    from afdbus.server.listener import Listener
    from afdbus.server.loop import Loop


class Buses:
    """The buses that are served, in the order in which they were made."""

    def __init__(self, loop: Loop, journal: Journal, keyring: Keyring | None) -> None:
        self._loop = loop
        self._journal = journal
        self._keyring = keyring
        self._servers: dict[BusServer, None] = {}
        # Closed, but not all of their services have ended.
        self._ending: list[BusServer] = []

    def __iter__(self) -> Iterator[BusServer]:
        return iter(list(self._servers))

    def serve(
        self,
        config: Config,
        reread: Callable[[], Config],
        listeners: list[Listener],
        *,
        guid: str | None = None,
        journal: Journal | None = None,
        starting: Starting = DEFAULT,
        full_receiver: FullReceiver = DROP_IN,
    ) -> BusServer:
        """Serve a new bus on `listeners`, which are its own from now on.

        `reread` is what a reload calls; `guid` is the bus's id, `journal` its log if not ours.
        """
        server = BusServer(
            self._loop,
            config,
            reread,
            listeners,
            guid=guid or new_guid(),
            own_uid=os.geteuid(),
            journal=journal or self._journal,
            keyring=self._keyring,
            starting=starting,
            full_receiver=full_receiver,
        )
        self._servers[server] = None
        return server

    def close_one(self, server: BusServer) -> None:
        """Close one bus with its connections and listeners; the others do not notice."""
        del self._servers[server]
        server.close()
        self._ending = [closed for closed in (*self._ending, server) if closed.children]

    def close(self) -> None:
        """Close them all, and give their services a moment to end."""
        for server in self:
            self.close_one(server)
        deadline = time.monotonic() + PATIENCE
        for server in self._ending:
            server.wait_for_services(deadline)
        self._ending.clear()

    def abandon(self) -> None:
        """In a forked child: close our copies of their sockets, and tell nobody."""
        for server in (*self, *self._ending):
            server.abandon()
        self._servers.clear()
