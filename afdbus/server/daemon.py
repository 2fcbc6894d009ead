"""The daemon's trio program: one loop, its buses, and the signals."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import trio

from afdbus.errors import BusError
from afdbus.host.keyring import CookieKeyring
from afdbus.host.systemd import notify
from afdbus.host.users import Users
from afdbus.server.buses import Buses
from afdbus.server.collector import Collector
from afdbus.server.launcher import Starting
from afdbus.server.loop import LINGER, Loop
from afdbus.server.options import SIGNALS

if TYPE_CHECKING:
    from afdbus.config.model import Config
    from afdbus.host.journal import Journal
    from afdbus.server.listeners import Listener
    from afdbus.server.options import Options


def run_daemon(
    options: Options, config: Config, listeners: list[Listener], journal: Journal
) -> int:
    """Serve one bus until SIGTERM (or SIGINT); returns the exit status.

    Everything before trio was done by the caller: `listeners` listen, their addresses are printed,
    privileges are dropped.
    """
    # Where our starter ignores it, which is inherited, no child can be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    daemon = Daemon(options, config, listeners, journal)
    trio.run(daemon.run)
    return daemon.status


class Daemon:
    """The process that serves one bus."""

    def __init__(
        self, options: Options, config: Config, listeners: list[Listener], journal: Journal
    ) -> None:
        self.status = 0
        self._options = options
        self._users = Users()
        self._loop = Loop(journal, LINGER)
        self._buses = Buses(
            self._loop,
            journal,
            CookieKeyring(self._users),
            Starting(options.nofile, journal.syslog, options.systemd_activation),
        )
        self._buses.serve(config, options.config_file, listeners)

    async def run(self) -> None:
        self._loop.on_idle = Collector()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            self._report_ready()
            await self._loop.run()
            nursery.cancel_scope.cancel()
        notify("STOPPING=1")
        self._buses.close()
        self._loop.close()

    def _report_ready(self) -> None:
        notify("READY=1")
        fd = self._options.ready_fd
        if fd is not None:
            os.write(fd, b"READY=1\n")
            os.close(fd)

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            # Whatever came since the start was kept back until now.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload()
                    continue
                if number == signal.SIGINT:
                    # dbus-daemon leaves its files behind; a shell is told the same.
                    self.status = 128 + signal.SIGINT
                self._loop.stop()
                return

    def _reload(self) -> None:
        self._users.flush()
        for server in self._buses:
            with contextlib.suppress(BusError):  # the log says why
                server.reload()
        self._loop.flush()
