"""The daemon: one loop, its buses, and the signals.

Who starts a bus waits for its first answer.  So the loop serves by itself at first, while trio is
imported beside it; then it goes on as trio's task.  All that it waits for is a descriptor in its
epoll set or a timer, so nothing is lost between the two.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from afdbus.config.load import load
from afdbus.config.model import Sources
from afdbus.errors import BusError, ConfigError
from afdbus.host.keyring import CookieKeyring
from afdbus.host.systemd import notify
from afdbus.host.users import Users
from afdbus.server.beside import import_beside
from afdbus.server.buses import Buses
from afdbus.server.collector import Collector
from afdbus.server.launcher import Starting
from afdbus.server.loop import Loop
from afdbus.server.options import SIGNALS
from afdbus.server.signals import Signals
from afdbus.server.watch import Watch

if TYPE_CHECKING:
    from afdbus.config.model import Config
    from afdbus.host.journal import Journal
    from afdbus.server.listener import Listener
    from afdbus.server.options import Options

# What takes the loop over; where privileges are dropped it is imported before.
TASK = "afdbus.server.task"


def run_daemon(
    options: Options, config: Config, listeners: list[Listener], journal: Journal
) -> int:
    """Serve one bus until SIGTERM (or SIGINT); returns the exit status.

    What comes before was done by the caller: `listeners` listen, their addresses are printed,
    privileges are dropped, SIGNALS are blocked.
    """
    # Where our starter ignores it, which is inherited, no child can be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    daemon = Daemon(options, config, listeners, journal)
    daemon.run()
    return daemon.status


class Daemon:
    """The process that serves one bus."""

    def __init__(
        self, options: Options, config: Config, listeners: list[Listener], journal: Journal
    ) -> None:
        self.status = 0
        self._ended = False
        self._options = options
        self._users = Users()
        self._loop = Loop(journal)
        self._buses = Buses(
            self._loop,
            journal,
            CookieKeyring(self._users),
            Starting(
                options.nofile, journal.syslog, options.systemd_activation, options.privileged
            ),
        )
        self._buses.serve(config, self._read, listeners)
        self._watch = Watch(self._loop, journal, self._reload)
        self._watch.follow(config.sources)

    def run(self) -> None:
        """Serve until the end."""
        loop = self._loop
        signals = Signals(loop, SIGNALS, self._signalled)
        # Whatever came since the start was kept back until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._report_ready()
        import_beside(loop, TASK, loop.stop)
        loop.serve()
        if not self._ended:
            signals.share()
            loop.on_idle = Collector()
            from afdbus.server import task

            task.serve(loop)
        notify("STOPPING=1")
        self._watch.close()
        self._buses.close()
        signals.close()
        self._loop.close()

    def _report_ready(self) -> None:
        notify("READY=1")
        fd = self._options.ready_fd
        if fd is not None:
            os.write(fd, b"READY=1\n")
            os.close(fd)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
            return
        if number == signal.SIGINT:
            # dbus-daemon leaves its files behind; a shell is told the same.
            self.status = 128 + signal.SIGINT
        self._ended = True
        self._loop.stop()

    def _read(self) -> Config:
        """The configuration as it is now, for whoever asked for a reload; raises ConfigError."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._loop.again(lambda: notify("READY=1"))  # by then it holds, or is refused
        self._users.flush()
        self._watch.reading()
        sources = Sources()
        try:
            config = load(self._options.config_file, sources)
        except ConfigError:
            self._watch.follow(sources, also=True)
            raise
        self._watch.follow(sources)
        return config

    def _reload(self) -> None:
        for server in self._buses:
            with contextlib.suppress(BusError):  # the log says why
                server.reload()
