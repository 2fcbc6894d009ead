"""What a configuration says, as one immutable value."""

from __future__ import annotations

from typing import NamedTuple

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


class Config(NamedTuple):
    """One configuration with everything it includes; fields after the elements of the same name.

    `listen` in the order of reading (dbus-daemon prints the last one first); `auth` empty means
    all mechanisms; `selinux` pairs names with contexts; `apparmor` is "enabled", "disabled" or
    "required".  `warnings`: what was skipped, and why, a sentence each.  `files` that were read;
    `directories` whose changes should cause a reload; `includedirs` in the order of reading.
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
    directories: tuple[str, ...]
    includedirs: tuple[str, ...]
