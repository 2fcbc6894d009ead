"""Service files that only root could have written, read anew for each question.

What is started as another user must not depend on anything that somebody else can change: neither
the file nor any directory on the way to it (P40).  The file is opened once, and looked at and read
by its descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from afdbus.config.services import MAX_FILE, Service, parse
from afdbus.errors import ConfigError


def find(name: str, directories: Iterable[str]) -> Service | None:
    """The service of the first directory that has a file called after `name`; None if there is
    none.

    Raises ConfigError for a file that anybody but root could have changed, or with another name
    inside.
    """
    for directory in directories:
        path = os.path.realpath(f"{directory}/{name}.service")
        try:
            data = _read(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(error.strerror or "cannot be read", path) from None
        service = parse(data, path)
        if service.name != name:
            raise ConfigError(f"the name is {service.name} and not {name}", path)
        return service
    return None


def _read(path: str) -> bytes:
    # No link, since the path is real, and no waiting for a pipe.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("not a regular file", path)
        if not _is_roots(status) or not _is_safe(os.path.dirname(path)):
            raise ConfigError("not root's alone", path)
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ConfigError("Desktop file size is too large", path)
    return data


def _is_roots(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_safe(directory: str) -> bool:
    """Whether nobody but root can put another file or directory into its place."""
    while True:
        status = os.lstat(directory)
        # Where the sticky bit is set, what is root's stays.
        if not _is_roots(status) and not (status.st_uid == 0 and status.st_mode & stat.S_ISVTX):
            return False
        if directory == "/":
            return True
        directory = os.path.dirname(directory)
