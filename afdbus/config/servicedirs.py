"""The standard directories of .service files (dbus-daemon(1), 1.14)."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat

_DATADIR = "/usr/share"  # where dbus-daemon's own data are in every distribution

SYSTEM = tuple(
    f"{directory}/dbus-1/system-services" for directory in ("/usr/local/share", _DATADIR, "/lib")
)


def session() -> list[str]:
    """The directories of `<standard_session_servicedirs/>` that are watched, best first."""
    home = os.environ.get("XDG_DATA_HOME")
    directories = [home] if home else [f"{_home()}/.local/share"]
    # Empty entries and blanks around an entry are dropped, as dbus-daemon does.
    searched = os.environ.get("XDG_DATA_DIRS") or f"/usr/local/share:{_DATADIR}"
    directories += [entry.strip() for entry in searched.split(":") if entry.strip()]
    return [f"{directory}/dbus-1/services" for directory in (*directories, _DATADIR)]


def _home() -> str:
    try:
        # Not $HOME, as there: what sudo leaves in it may belong to somebody else.
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # usual in containers
        return os.environ.get("HOME", "/")


def transient() -> list[str]:
    """$XDG_RUNTIME_DIR/dbus-1/services, made if it is not there; nothing without that variable.

    Raises OSError if one of the directories is not ours, others may write to it, or it cannot be
    made.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime is None:
        return []
    _check_own("XDG_RUNTIME_DIR", runtime)
    for directory in (f"{runtime}/dbus-1", f"{runtime}/dbus-1/services"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        _check_own("XDG_RUNTIME_DIR subdirectory", directory)
    return [f"{runtime}/dbus-1/services"]


def _check_own(what: str, directory: str) -> None:
    status = os.stat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f'{what} "{directory}" is not a directory')
    if status.st_uid != os.geteuid():
        raise PermissionError(
            f'{what} "{directory}" is owned by uid {status.st_uid}, not our uid {os.geteuid()}'
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f'{what} "{directory}" can be written by others (mode 0{status.st_mode:o})'
        )
