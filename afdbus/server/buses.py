"""The buses of one process: each is made, served and closed by itself, all on one loop.

They share the loop, the log and the keyring, and nothing that a client could see (S2, S3).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from afdbus.server.busserver import BusServer
from afdbus.server.launcher import DEFAULT, Starting
from afdbus.wire.address import new_guid

if TYPE_CHECKING:
    from afdbus.bus.ports import Journal
    from afdbus.config.model import Config
    from afdbus.sasl.mechanisms import Keyring
    from afdbus.server.listeners import Listener
    from afdbus.server.loop import Loop


class Buses:
    """The buses that are served, in the order in which they were made.

    `starting` is how services are started, for all of them.
    """

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        keyring: Keyring | None,
        starting: Starting = DEFAULT,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._keyring = keyring
        self._starting = starting
        self._servers: dict[BusServer, None] = {}

    def __iter__(self) -> Iterator[BusServer]:
        return iter(list(self._servers))

    def serve(self, config: Config, config_file: str, listeners: list[Listener]) -> BusServer:
        """Serve a new bus on `listeners`, which are its own from now on."""
        server = BusServer(
            self._loop,
            config,
            config_file,
            listeners,
            guid=new_guid(),
            own_uid=os.geteuid(),
            journal=self._journal,
            keyring=self._keyring,
            starting=self._starting,
        )
        self._servers[server] = None
        return server

    def close_one(self, server: BusServer) -> None:
        """Close one bus with its connections and listeners; the others do not notice."""
        del self._servers[server]
        server.close()

    def close(self) -> None:
        """Close them all."""
        for server in self:
            self.close_one(server)
