"""Where configuration files are."""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# dbus-daemon's: it names the user and the helper of this distribution, which are not the same
# everywhere.  Nothing in a session.conf is.
_SYSTEM = "/usr/share/dbus-1/system.conf"


def session_config() -> str:
    """The path of the file for `--session`."""
    return shipped("session.conf")


def system_config() -> str:
    """The path of the file for `--system`."""
    return _SYSTEM if os.path.exists(_SYSTEM) else shipped("system.conf")


def shipped(name: str) -> str:
    """The path of a file that comes with us."""
    # Run from the source tree they lie in its top folder, installed inside the package.
    tree = os.path.join(os.path.dirname(_PACKAGE), "config", name)
    return tree if os.path.exists(tree) else os.path.join(_PACKAGE, "data", name)


def beside(file: str, path: str) -> str:
    """`path` as written in `file`: relative to the folder of that file."""
    return os.path.join(os.path.dirname(file) or ".", path)
