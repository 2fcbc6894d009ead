"""A configuration in the making: what one file has said so far.

Each file has a draft of its own, which is merged into the including file's only when the file is
through: a file that breaks half way leaves nothing behind, neither rules nor limits.
"""

from __future__ import annotations

from afdbus.config.model import ServiceDirectory
from afdbus.limits import Limits
from afdbus.policy.rules import Rule


class Draft:
    """Mutable; the fields are those of `Config` and of `Buckets`."""

    __slots__ = (
        "allow_anonymous",
        "apparmor",
        "at_console",
        "auth",
        "default",
        "directories",
        "files",
        "fork",
        "groups",
        "keep_umask",
        "limits",
        "listen",
        "mandatory",
        "not_at_console",
        "pidfile",
        "selinux",
        "servicedirs",
        "servicehelper",
        "syslog",
        "type",
        "user",
        "users",
    )

    def __init__(self, limits: Limits) -> None:
        """`limits` as they are where the file is included."""
        self.limits = limits
        self.type: str | None = None
        self.user: str | None = None
        self.pidfile: str | None = None
        self.servicehelper: str | None = None
        self.apparmor: str | None = None
        self.fork = False
        self.keep_umask = False
        self.syslog = False
        self.allow_anonymous = False
        self.listen: list[str] = []
        self.auth: list[str] = []
        self.files: list[str] = []
        self.directories: list[str] = []
        self.servicedirs: dict[str, ServiceDirectory] = {}
        self.selinux: dict[str, str] = {}
        self.default: list[Rule] = []
        self.mandatory: list[Rule] = []
        self.at_console: list[Rule] = []
        self.not_at_console: list[Rule] = []
        self.users: dict[int, list[Rule]] = {}
        self.groups: dict[int, list[Rule]] = {}

    def add_servicedir(self, directory: ServiceDirectory) -> None:
        """Append a directory; one that is there already keeps its place and the milder flags."""
        before = self.servicedirs.get(directory.path)
        if before is not None:
            directory = ServiceDirectory(
                before.path,
                before.strict and directory.strict,
                before.watched or directory.watched,
            )
        self.servicedirs[directory.path] = directory

    def absorb(self, included: Draft) -> None:
        """Add what an included file has said, at this point of the reading order."""
        self.limits = included.limits
        # The last one wins.
        self.type = self.type if included.type is None else included.type
        self.user = self.user if included.user is None else included.user
        self.pidfile = self.pidfile if included.pidfile is None else included.pidfile
        if included.servicehelper is not None:
            self.servicehelper = included.servicehelper
        self.apparmor = self.apparmor if included.apparmor is None else included.apparmor
        # Once said is said.  (dbus-daemon forgets <syslog/> in an included file.)
        self.fork |= included.fork
        self.keep_umask |= included.keep_umask
        self.syslog |= included.syslog
        self.allow_anonymous |= included.allow_anonymous
        self.listen += included.listen
        self.auth += included.auth
        self.files += included.files
        self.directories += included.directories
        for directory in included.servicedirs.values():
            self.add_servicedir(directory)
        self.selinux.update(included.selinux)
        self.default += included.default
        self.mandatory += included.mandatory
        self.at_console += included.at_console
        self.not_at_console += included.not_at_console
        for uid, rules in included.users.items():
            self.users.setdefault(uid, []).extend(rules)
        for gid, rules in included.groups.items():
            self.groups.setdefault(gid, []).extend(rules)
