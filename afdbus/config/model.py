"""What a configuration says, as one immutable value."""

from __future__ import annotations

import time
from typing import NamedTuple

from afdbus.config.memory import Memory
from afdbus.errors import ConfigError
from afdbus.limits import Limits
from afdbus.policy.ruleset import Ruleset


class MissingFile(ConfigError):  # noqa: N818 - named for what happened
    """`path` had to be there and is not (dbus-daemon's error name for it is FileNotFound)."""

    def __init__(self, path: str, file: str, line: int | None = None) -> None:
        super().__init__(f'Failed to open "{path}": No such file or directory', file, line)
        self.path = path


class ServiceDirectory(NamedTuple):
    """Where .service files are looked for.

    `strict`: a file counts only if it is called after the name it provides; `watched`: changes
    are noticed at once, not only by a reload.
    """

    path: str
    strict: bool = False
    watched: bool = True


# CLOCK_REALTIME_COARSE, which the times of files are taken from.
_FILE_CLOCK = 5


class Sources:
    """Where a configuration comes from: what was looked at, whether it was there or not.

    `files` and `directories` are paths in the order of reading.  `begun`: when the reading began,
    in seconds since 1970, by the clock of files.
    """

    __slots__ = ("begun", "directories", "files")

    def __init__(self) -> None:
        self.begun = time.clock_gettime(_FILE_CLOCK)
        self.files: dict[str, None] = {}
        self.directories: dict[str, None] = {}


class Config(NamedTuple):
    """One configuration with everything it includes; fields after the elements of the same name.

    `listen` in the order of reading (dbus-daemon prints the last one first); `auth` empty means
    all mechanisms; `selinux` pairs names with contexts; `apparmor` is "enabled", "disabled" or
    "required".  `warnings`: what was skipped, and why, a sentence each.  `files` that were read;
    `directories` whose changes should cause a reload; `includedirs` in the order of reading.
    `memory` makes it quick to read it again.
    """

    type: str | None
    user: str | None
    fork: bool
    keep_umask: bool
    syslog: bool
    pidfile: str | None
    listen: tuple[str, ...]
    auth: tuple[str, ...]
    allow_anonymous: bool
    limits: Limits
    ruleset: Ruleset
    servicedirs: tuple[ServiceDirectory, ...]
    servicehelper: str | None
    apparmor: str
    selinux: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    files: tuple[str, ...]
    sources: Sources
    includedirs: tuple[str, ...]
    memory: Memory
