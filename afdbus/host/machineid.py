"""The machine id (machine-id(5); D-Bus specification, "UUIDs", `Peer.GetMachineId`).

Where it is looked for, what passes for one, and what is said if there is none, are dbus-daemon's.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from afdbus.errors import ACCESS_DENIED, FAILED, FILE_NOT_FOUND, BusError

PATHS: Final = ("/var/lib/dbus/machine-id", "/etc/machine-id")

INVALID_FILE_CONTENT: Final = "org.freedesktop.DBus.Error.InvalidFileContent"

_DIGITS: Final = 32
_NAMES: Final = {
    errno.ENOENT: FILE_NOT_FOUND,
    errno.EACCES: ACCESS_DENIED,
    errno.EPERM: ACCESS_DENIED,
}
_HEX: Final = b"0123456789abcdefABCDEF"
_MAX_FILE: Final = 1024 * 1024  # dbus-daemon


def machine_id(paths: tuple[str, ...] = PATHS) -> str:
    """The machine id, 32 lower-case hex digits, from the first of `paths` that has one.

    Raises BusError, named for what is wrong with the last of them, as dbus-daemon answers.
    """
    problems: list[BusError] = []
    for path in paths:
        try:
            return _read(path)
        except BusError as problem:
            problems.append(problem)
    raise BusError(
        problems[-1].name,
        "D-Bus library appears to be incorrectly set up: see the manual page for dbus-uuidgen "
        f"to correct this issue. ({'; '.join(problem.text for problem in problems)})",
    )


def _read(path: str) -> str:
    content = _content(path).strip(b" \t\r\n")
    if len(content) != _DIGITS:
        raise BusError(
            INVALID_FILE_CONTENT,
            f"UUID file '{path}' should contain a hex string of length {_DIGITS}, "
            f"not length {len(content)}, with no other text",
        )
    digits = content[: len(content) - len(content.lstrip(_HEX))]
    if not digits:
        raise BusError(INVALID_FILE_CONTENT, f"UUID file '{path}' contains invalid hex data")
    count = (len(digits) + 1) // 2
    if count != _DIGITS // 2:
        raise BusError(
            INVALID_FILE_CONTENT,
            f"UUID file '{path}' contains {count} bytes of hex-encoded data "
            f"instead of {_DIGITS // 2}",
        )
    # The last digit may be no digit: dbus-daemon takes a zero for it.
    return digits.decode("ascii").lower().ljust(_DIGITS, "0")


def _content(path: str) -> bytes:
    try:
        # Without waiting for the writer of a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BusError(
            _NAMES.get(error.errno or 0, FAILED), f'Failed to open "{path}": {error.strerror}'
        ) from None
    try:
        status = os.fstat(fd)
        if status.st_size > _MAX_FILE:
            raise BusError(FAILED, f'File size {status.st_size} of "{path}" is too large.')
        if not stat.S_ISREG(status.st_mode):
            raise BusError(FAILED, f'"{path}" is not a regular file')
        return os.read(fd, _MAX_FILE)
    finally:
        os.close(fd)
