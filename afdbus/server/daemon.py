"""The daemon: one loop, its buses, and the signals.

Who starts a bus waits for its first answer.  So the loop serves by itself at first.  Once nobody
has anything to say trio is imported beside it, and it goes on as trio's task.  All that it waits
for is a descriptor in its epoll set or a timer, so nothing is lost between the two.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from afdbus.bus.overflow import FullReceiver, Way
from afdbus.bus.trial import Trial
from afdbus.config.load import compose, load
from afdbus.config.model import Config, Sources
from afdbus.errors import BusError, ConfigError
from afdbus.host.journal import Prefixed
from afdbus.host.keyring import CookieKeyring
from afdbus.host.systemd import notify
from afdbus.host.users import Users
from afdbus.server.beside import import_beside
from afdbus.server.buses import Buses
from afdbus.server.busserver import BusServer
from afdbus.server.collector import Collector
from afdbus.server.keeper import Keeper
from afdbus.server.launcher import Starting
from afdbus.server.learning import EVERY
from afdbus.server.loop import Loop
from afdbus.server.options import SIGNALS
from afdbus.server.signals import Signals
from afdbus.server.watch import Watch

if TYPE_CHECKING:
    from afdbus.host.journal import Journal
    from afdbus.server.boundbus import BoundBus
    from afdbus.server.options import Options

# What takes the loop over; where privileges are dropped it is imported before.
TASK = "afdbus.server.task"
# Seconds without a message after which it is imported: nobody waits for an answer then, and the
# many daemons that are started for one test each never come to it.
QUIET = 0.5
# Seconds after which the files of the configuration are watched: by then who has waited for the bus
# was answered.
SOON = 0.1


def run_daemon(options: Options, buses: list[BoundBus], journal: Journal) -> int:
    """Serve the buses until SIGTERM (or SIGINT); returns the exit status.

    What comes before was done by the caller: they are bound, their addresses are printed,
    privileges are dropped, SIGNALS are blocked.
    """
    # Where our starter ignores it, which is inherited, no child can be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    daemon = Daemon(options, buses, journal)
    daemon.run()
    return daemon.status


class Daemon:
    """The process that serves the buses."""

    def __init__(self, options: Options, buses: list[BoundBus], journal: Journal) -> None:
        self.status = 0
        self._ended = False
        self._options = options
        self._journal = journal
        self._lessons = options.lessons
        self._users = Users()
        self._loop = Loop(journal)
        self._buses = Buses(self._loop, journal, CookieKeyring(self._users))
        starting = Starting(
            options.nofile, journal.syslog, options.systemd_activation, options.privileged
        )
        trial = self._on_trial()
        when_full = FullReceiver(cast("Way", options.full_receiver))
        keeper = Keeper(self._loop, journal, self._buses, when_full, trial)
        # For each configuration file: what it said, what watches it, and which buses are to read
        # it again.
        self._memories = {bus.config_file: bus.config.memory for bus in buses}
        self._watches: dict[str, Watch] = {}
        self._readers: dict[str, list[BusServer]] = {}
        for bus in buses:
            file = bus.config_file
            server = self._buses.serve(
                bus.config,
                partial(self._read, file),
                bus.listeners,
                guid=bus.listeners[0].guid if bus.name else None,
                journal=Prefixed(journal, f"[{bus.name}] ") if bus.name else journal,
                starting=starting,
                full_receiver=when_full,
            )
            server.bus.trial = trial
            # Whoever starts services as other users knows the configuration of the first only.
            starting = starting._replace(privileged=None)
            if file not in self._watches:
                self._watches[file] = Watch(self._loop, journal, partial(self._reload, file))
                self._watches[file].follow(bus.config.sources)
            self._readers.setdefault(file, []).append(server)
            keeper.add(bus.name, server, str(bus))
        self._learn()

    def run(self) -> None:
        """Serve until the end."""
        loop = self._loop
        signals = Signals(loop, SIGNALS, self._signalled)
        # Whatever came since the start was kept back until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.idler = Collector()
        self._report_ready()
        loop.timers.call_at(loop.timers.clock() + SOON, self._watch)
        import_beside(loop, TASK, loop.stop, QUIET)
        loop.serve()
        if not self._ended:
            signals.unlisten()
            loop.idler = Collector()  # what was imported is looked at no more
            from afdbus.server import task

            task.serve(loop, signals.listen)
        notify("STOPPING=1")
        self._write_lessons()
        for watch in self._watches.values():
            watch.close()
        self._buses.close()
        signals.close()
        self._loop.close()

    def _watch(self) -> None:
        for watch in self._watches.values():
            watch.begin()

    def _report_ready(self) -> None:
        notify("READY=1")
        fd = self._options.ready_fd
        if fd is not None:
            with contextlib.suppress(OSError):  # nobody waits for it
                os.write(fd, b"READY=1\n")
                os.close(fd)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._write_lessons()
            for file in self._readers:
                self._reload(file)
            return
        if number == signal.SIGINT:
            # dbus-daemon leaves its files behind; a shell is told the same.
            self.status = 128 + signal.SIGINT
        self._ended = True
        self._loop.stop()

    def _on_trial(self) -> Trial | None:
        """For the policies of all buses: what they deny is let pass, if that is asked for."""
        if not self._options.permissive and self._lessons is None:
            return None
        self._journal.warning("The policy is on trial: what it denies is let pass")
        return Trial(None if self._lessons is None else self._lessons.learned)

    def _learn(self) -> None:
        """Write down what was learned, now and as long as we live."""
        if self._lessons is not None:
            self._write_lessons()
            self._loop.timers.call_at(self._loop.timers.clock() + EVERY, self._learn)

    def _write_lessons(self) -> None:
        if self._lessons is not None:
            self._lessons.write(self._users, self._journal)

    def _read(self, file: str) -> Config:
        """The configuration as it is now, for whoever asked for a reload; raises ConfigError."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._loop.again(lambda: notify("READY=1"))  # by then it holds, or is refused
        self._users.flush()
        watch = self._watches[file]
        watch.reading()
        sources = Sources()
        try:
            # Buses with names of their own need no <listen>.
            read = compose if self._options.buses else load
            config = read(file, sources=sources, memory=self._memories[file])
        except ConfigError:
            watch.follow(sources, also=True)
            raise
        self._memories[file] = config.memory
        watch.follow(sources)
        return config

    def _reload(self, file: str) -> None:
        for server in self._buses:
            if server not in self._readers[file]:
                continue
            with contextlib.suppress(BusError):  # the log says why
                server.reload()
