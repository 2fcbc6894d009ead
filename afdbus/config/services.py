""".service files: which names can be started, and how (dbus-daemon(1), "<servicedir>").

`parse` is pure; `ServiceFiles` keeps what the directories say.  dbus-daemon looks again whenever a
name is asked for, not only at a reload: a program that was just installed can be started at once.
So does this, but a name that nothing provides must not cost a walk through all files each time:
within `PATIENCE` of the last walk only directories that have changed are a reason for another.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from afdbus.config.memory import Stamp, stamp_of
from afdbus.config.model import ServiceDirectory
from afdbus.errors import ConfigError

# dbus-daemon's, in bytes.
MAX_FILE = 128 * 1024
# In seconds: after which time a file that was overwritten in place is noticed at the latest, and
# within which two changes of a directory may bear the same time.
PATIENCE = 1.0

_GROUP = "D-BUS Service"
_KEY = re.compile("[-A-Za-z0-9]+")
_ESCAPE = re.compile(r"\\(.?)")
_ESCAPES = {"s": " ", "t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


class Service(NamedTuple):
    """What one file says; `user`, `systemd_service`, `apparmor_label` are None if it does not.

    `name` may be any text: nobody checks it before it is asked for.  `path` is the file.
    """

    name: str
    exec: str
    user: str | None
    systemd_service: str | None
    apparmor_label: str | None
    path: str


def parse(data: bytes, path: str) -> Service:
    """The service that a file with the content `data` describes.  Raises ConfigError.

    Of groups and keys that are there twice the first counts; unknown ones are ignored, but must
    be well-formed.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigError("invalid UTF-8", path)
    entries = _entries(text, path)
    for key in ("Name", "Exec"):
        if key not in entries:
            raise ConfigError(f'No "{key}" key in .service file', path)
    return Service(
        entries["Name"],
        entries["Exec"],
        entries.get("User"),
        entries.get("SystemdService"),
        entries.get("AssumedAppArmorLabel"),
        path,
    )


def _entries(text: str, path: str) -> dict[str, str]:
    """Keys and values of the first group of services."""
    entries: dict[str, str] = {}
    groups: list[str] = []
    # Not splitlines(), which knows more ends of lines than these.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith("["):
            groups.append(_group(line, path, number))
        elif not line.strip(" \t\f") or line.startswith("#"):
            continue
        elif not groups:
            raise ConfigError("invalid service file: key=value before [Section]", path, number)
        else:
            entry = _entry(line, path, number)
            if entry is not None and groups[-1] == _GROUP and groups.count(_GROUP) == 1:
                entries.setdefault(*entry)
    return entries


def _group(line: str, path: str, number: int) -> str:
    name = line[1:-1]
    if not name or not line.endswith("]"):
        raise ConfigError("Invalid syntax for section header", path, number)
    if not all(" " <= char <= "~" and char not in "[]" for char in name):
        raise ConfigError("Invalid characters in section name", path, number)
    return name


def _entry(line: str, path: str, number: int) -> tuple[str, str] | None:
    """Key and value; None for a translation, `Key[language]=`."""
    match = _KEY.match(line)
    if match is None:
        raise ConfigError("Empty key name", path, number)
    key, rest = match[0], line[match.end() :]
    if rest.startswith("["):
        return None
    rest = rest.lstrip(" ")
    if not rest:
        raise ConfigError("No '=' in key/value pair", path, number)
    if rest[0] != "=":
        raise ConfigError("Invalid characters in key name", path, number)

    def unescape(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            raise ConfigError("Text to be unescaped had invalid escape sequence", path, number)
        return _ESCAPES[escape[1]]

    # Blanks at the end belong to the value, as there.
    return key, _ESCAPE.sub(unescape, rest[1:].lstrip(" "))


class _File(NamedTuple):
    """A file as it was read: what tells whether it is still the same, and the service, None if it
    is no use.  `sure`: the stamp cannot be that of a later state as well."""

    stamp: Stamp
    service: Service | None
    sure: bool


class _Directory:
    """One directory as it was when it was last walked through."""

    __slots__ = ("changed", "files", "path", "strict")

    def __init__(self, directory: ServiceDirectory) -> None:
        self.path = directory.path
        self.strict = directory.strict
        # When it was changed last; None if it may have been since without showing it.
        self.changed: int | None = None
        # By name, in the directory's order.
        self.files: dict[str, _File] = {}


class ServiceFiles:
    """All services of one bus.  `warn` is told once of each file that is skipped."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._directories: list[_Directory] = []
        self._services: dict[str, tuple[Stamp, Service]] = {}
        self._walked = 0.0

    def reload(self, directories: Iterable[ServiceDirectory]) -> None:
        """Read these anew; the first directory that provides a name wins.

        What has surely not changed is not parsed again (100 files: 1.6 ms, now 0.4); what was
        skipped is, and told again.
        """
        before = {directory.path: directory for directory in self._directories}
        self._directories = [_Directory(directory) for directory in directories]
        for directory in self._directories:
            known = before.get(directory.path)
            if known is not None and known.strict == directory.strict:
                directory.files = {
                    name: file
                    for name, file in known.files.items()
                    if file.sure and file.service is not None
                }
        self._walk()

    def names(self) -> list[str]:
        """All names that can be started, as of the last look."""
        return list(self._services)

    def find(self, name: str) -> Service | None:
        """Who provides `name` now, if anybody does."""
        found = self._services.get(name)
        stale = self._is_stale() if found is None else _stamp(found[1].path) != found[0]
        if stale:
            self._walk()
            found = self._services.get(name)
        return None if found is None else found[1]

    def _is_stale(self) -> bool:
        return time.monotonic() - self._walked >= PATIENCE or any(
            directory.changed is None or directory.changed != _changed(directory.path)
            for directory in self._directories
        )

    def _walk(self) -> None:
        self._services = {}
        for directory in self._directories:
            self._look_into(directory)
            for stamp, service, _ in directory.files.values():
                if service is not None:
                    self._services.setdefault(service.name, (stamp, service))
        self._walked = time.monotonic()

    def _look_into(self, directory: _Directory) -> None:
        changed = _changed(directory.path)
        recent = time.time_ns() - PATIENCE * 1e9
        directory.changed = None if changed > recent else changed
        try:
            names = os.listdir(directory.path)
        except OSError:  # it need not be there, nor be ours to read
            names = []
        files = {}
        for name in names:
            if not name.endswith(".service"):
                continue
            path = f"{directory.path}/{name}"
            stamp = _stamp(path)
            known = directory.files.get(name)
            if stamp is None:
                continue
            if known is None or known.stamp != stamp:
                sure = stamp.is_sure()
                known = _File(stamp, self._read(path, name, directory.strict), sure)
            files[name] = known
        directory.files = files

    def _read(self, path: str, name: str, strict: bool) -> Service | None:
        try:
            service = parse(_content(path), path)
        except (ConfigError, OSError) as error:
            self._warn(f"Service file skipped: {error}")
            return None
        if strict and name != f"{service.name}.service":
            self._warn(
                f'Service file "{path}" should have been named "{service.name}.service": '
                "not loading it"
            )
            return None
        return service


def _content(path: str) -> bytes:
    # Without O_NONBLOCK a named pipe would hold up the whole bus.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigError("not a regular file", path)
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ConfigError("Desktop file size is too large", path)
    return data


def _stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def _changed(path: str) -> int:
    """When the directory was changed last, in nanoseconds since 1970; 0 if there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
