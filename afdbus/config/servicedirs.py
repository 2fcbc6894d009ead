"""The standard directories of .service files (dbus-daemon(1), 1.14)."""

from __future__ import annotations

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
    return os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir


def transient() -> list[str]:
    """$XDG_RUNTIME_DIR/dbus-1/services, made if it is not there; nothing without that variable.

    Raises OSError if the runtime directory is not ours alone, or the directory cannot be made.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime is None:
        return []
    status = os.stat(runtime)
    if status.st_uid != os.geteuid():
        raise PermissionError(
            f"{runtime} directory is owned by user {status.st_uid}, not {os.geteuid()}"
        )
    if status.st_mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH):
        raise PermissionError(f"{runtime} directory is not private to the user")
    for directory in (f"{runtime}/dbus-1", f"{runtime}/dbus-1/services"):
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
    return [f"{runtime}/dbus-1/services"]
