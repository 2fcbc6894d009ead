"""The configuration of one bus while it runs: what holds, and how it is read again.

dbus-daemon(1), SIGHUP and ReloadConfig.  Everything is read first and then swapped in within one
turn of the loop, so that no message is judged by half of each; a file that cannot be used leaves
the old configuration as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from afdbus.bus import activation
from afdbus.config.model import MissingFile
from afdbus.errors import FAILED, FILE_NOT_FOUND, BusError, ConfigError

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.ports import Journal
    from afdbus.config.model import Config
    from afdbus.config.services import ServiceFiles


class Configuration:
    """What holds for one bus; `config` is the value as of now, `reread` gives the next one or
    raises ConfigError."""

    __slots__ = ("_journal", "_reread", "_services", "config")

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        services: ServiceFiles,
        journal: Journal,
    ) -> None:
        self.config = config
        self._reread = reread
        self._services = services
        self._journal = journal

    def reload(self, bus: Bus) -> None:
        """Read everything again and swap it in, or keep the old and raise BusError, which says why.

        The log is told in either case.
        """
        try:
            self._swap(bus, self._read())
        except BusError as error:
            self._journal.info(f"Unable to reload configuration: {error.text}")
            raise
        except Exception as error:  # P5: a bug in reading costs the new configuration, not the bus
            bus.bug("reload")
            if bus.strict:
                raise
            raise BusError(FAILED, f"Unable to reload configuration: {error!r}") from error
        finally:
            # Also where the old is kept, as there.
            activation.tell_reloaded(bus)

    def _swap(self, bus: Bus, config: Config) -> None:
        for warning in config.warnings:
            self._journal.warning(warning)
        bus.configure(config.limits, config.ruleset)
        self._services.reload(config.servicedirs)
        # The others hold from the start to the end.
        self.config = config._replace(
            auth=self.config.auth,
            type=self.config.type,
            listen=self.config.listen,
        )
        self._journal.info("Reloaded configuration")

    def _read(self) -> Config:
        try:
            return self._reread()
        except MissingFile as error:
            raise BusError(FILE_NOT_FOUND, str(error)) from error
        except ConfigError as error:
            raise BusError(FAILED, str(error)) from error
