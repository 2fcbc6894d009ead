"""Where configuration files are."""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def session_config() -> str:
    """The path of the file for `--session`."""
    return _own("session.conf")


def system_config() -> str:
    """The path of the file for `--system`."""
    return _own("system.conf")


def _own(name: str) -> str:
    # Run from the source tree they lie in its top folder, installed inside the package.
    tree = os.path.join(os.path.dirname(_PACKAGE), "config", name)
    return tree if os.path.exists(tree) else os.path.join(_PACKAGE, "data", name)


def beside(file: str, path: str) -> str:
    """`path` as written in `file`: relative to the folder of that file."""
    return os.path.join(os.path.dirname(file) or ".", path)
