"""`afdbus shim DIR`: a program named dbus-daemon that is afdbus, for what looks into PATH only.

It is a script of the shell that becomes the daemon by exec, so the pid is the one that the starter
knows.  It names the interpreter that runs us: an environment in PATH need not be active.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile

from afdbus.tools.command import BAD, GOOD

NAME = "dbus-daemon"
_MARK = "# Written by `afdbus shim`: afdbus in the place of dbus-daemon."


def main(argv: list[str]) -> int:
    """Do what the arguments (after `shim`) say: the exit status."""
    parser = argparse.ArgumentParser(
        prog="afdbus shim",
        description=f"Put a program named {NAME} into DIR, which is made if it is not there, and "
        f"print its path. It is afdbus-daemon. A {NAME} that is there already is left alone.",
    )
    parser.add_argument("directory", metavar="DIR")
    path = os.path.join(os.path.abspath(parser.parse_args(argv).directory), NAME)
    try:
        put(path)
    except OSError as error:
        print(f"afdbus: {error.filename or path}: {error.strerror}", file=sys.stderr)
        return BAD
    print(path)
    return GOOD


def put(path: str) -> None:
    """Write the script to `path`, over an earlier one.  Raises OSError; FileExistsError if there
    is something that is not ours."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path) and not _is_ours(path):
        raise FileExistsError(17, "is there already, and not ours", path)
    # Whole or not at all: somebody may be starting it.
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{NAME}-")
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(script())
            os.fchmod(fd, 0o755)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def script() -> str:
    """What it is."""
    # -P: nothing is imported from the directory in which it happens to be started
    command = shlex.join([sys.executable, "-P", "-m", "afdbus.daemon_cli"])
    return f'#!/bin/sh\n{_MARK}\nexec {command} "$@"\n'


def _is_ours(path: str) -> bool:
    with (
        contextlib.suppress(OSError),
        open(path, encoding="utf-8", errors="surrogateescape") as file,
    ):
        return file.read(200).startswith(f"#!/bin/sh\n{_MARK}\n")
    return False
