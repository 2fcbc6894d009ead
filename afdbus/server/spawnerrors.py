"""What is told of the end of a program that was started: none if it succeeded.

A setuid helper (`<servicehelper>`) tells by its exit status why it could not start a service; the
statuses are those of dbus-daemon-launch-helper.  It becomes the service, so a status of that is
taken for one of the helper's, as in dbus-daemon.
"""

from __future__ import annotations

from afdbus import errors
from afdbus.errors import BusError

# Those that we use as well.
CONFIG_INVALID = 3
SETUP_FAILED = 4
NAME_INVALID = 5
NOT_FOUND = 6
FILE_INVALID = 8
EXEC_FAILED = 9
INVALID_ARGS = 10

_HELPER = {
    2: (errors.NO_MEMORY, "Launcher could not run (out of memory)"),
    CONFIG_INVALID: (
        errors.SPAWN_CONFIG_INVALID,
        "Invalid configuration (missing or empty <user>?)",
    ),
    SETUP_FAILED: (errors.SPAWN_SETUP_FAILED, "Failed to setup environment correctly"),
    NAME_INVALID: (errors.SPAWN_SERVICE_NOT_VALID, "Bus name is not valid or missing"),
    NOT_FOUND: (errors.SPAWN_SERVICE_NOT_FOUND, "Bus name not found in system service directory"),
    7: (
        errors.SPAWN_PERMISSIONS_INVALID,
        "The permission of the setuid helper is not correct",
    ),
    FILE_INVALID: (
        errors.SPAWN_PERMISSIONS_INVALID,
        "The service file is incorrect or does not have all required attributes",
    ),
    EXEC_FAILED: (
        errors.SPAWN_EXEC_FAILED,
        "Cannot launch daemon, file not found or permissions invalid",
    ),
    INVALID_ARGS: (errors.INVALID_ARGS, "Invalid arguments to command line"),
    11: (
        errors.SPAWN_CHILD_SIGNALED,
        "Launched child was signaled, it probably crashed",
    ),
}


def of_program(name: str, code: int) -> BusError | None:
    """`code`: the exit status of the program for `name`, or the negative number of a signal."""
    if code < 0:
        return BusError(errors.SPAWN_CHILD_SIGNALED, f"Process {name} received signal {-code}")
    if code > 0:
        return BusError(errors.SPAWN_CHILD_EXITED, f"Process {name} exited with status {code}")
    return None


def of_helper(name: str, code: int) -> BusError | None:
    """The same of a helper."""
    if code in _HELPER:
        return BusError(*_HELPER[code])
    if code > 0:
        text = f"Launch helper exited with unknown return code {code}"
        return BusError(errors.SPAWN_CHILD_EXITED, text)
    return of_program(name, code)
