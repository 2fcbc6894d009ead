"""What a process does once when it becomes a daemon: descriptors, limits, fork, pid file, user.

All of it happens before any thread, called by `daemon_cli` in dbus-daemon's order.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import signal
import stat
from collections.abc import Callable, Iterable

from afdbus.errors import ACCESS_DENIED

ENOUGH_FDS = 65536  # dbus-daemon's measure
_CLOCK_SLACK = 2.0  # seconds by which the clocks of files and processes may differ


class StartError(Exception):
    """The daemon cannot start; the text is dbus-daemon's."""


def prepare_descriptors() -> None:
    """Give 0, 1 and 2 a meaning (stdin is /dev/null) and keep all others from children.

    To be done first: a socket that became descriptor 1 would be lost when becoming a daemon.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        null = os.dup(null)
    os.dup2(null, 0)
    for fd in (1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(null, fd)
    os.close(null)
    for fd in _descriptors():
        with contextlib.suppress(OSError):  # the list names its own descriptor, which is closed
            if fd > 2:
                os.set_inheritable(fd, False)


def _descriptors() -> Iterable[int]:
    """The descriptors that are open, and perhaps some that are not."""
    try:
        return map(int, os.listdir("/proc/self/fd"))
    except FileNotFoundError:  # no /proc
        return range(min(os.sysconf("SC_OPEN_MAX"), ENOUGH_FDS))


def raise_fd_limit() -> tuple[tuple[int, int], str | None]:
    """Allow as many descriptors as we may have, and as root at least ENOUGH_FDS.

    Returns the former (soft, hard) limits, which children are to have again, and what could not
    be done, None if all could.
    """
    former = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    complaint = None
    if os.getuid() == 0 and resource.RLIM_INFINITY != hard < ENOUGH_FDS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (ENOUGH_FDS, ENOUGH_FDS))
        except (OSError, ValueError):  # without CAP_SYS_RESOURCE
            complaint = (
                f"{ACCESS_DENIED}: Failed to set fd limit to {ENOUGH_FDS}: Operation not permitted"
            )
        else:
            return former, None
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return former, complaint


def reset_oom_score(pid: int) -> None:
    """Take from a process that we started the protection from the kernel's killer that is meant
    for the bus; a score that makes it likelier to be killed stays, as in dbus-daemon."""
    # It may have ended, or changed its user.
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/oom_score_adj", "r+b", buffering=0) as file,
    ):
        if file.read(1) == b"-":
            file.write(b"0")


def print_line(fd: int, line: str) -> None:
    """Tell `line` to whoever started us, in one write; close `fd` unless it is a standard one.

    Raises StartError.
    """
    data = os.fsencode(line) + b"\n"
    try:
        written = os.write(fd, data)
    except OSError as error:
        raise StartError(f"Writing to pipe: {error.strerror}") from None
    if written < len(data):
        raise StartError("Printing message bus address: did not write all bytes")
    if fd > 2:
        os.close(fd)


def daemonise(keep_umask: bool) -> Callable[[], None]:
    """Go on in a child with a session of its own, in the root directory, with umask 022.

    Returns, in the child, a function: it parts from the standard descriptors and lets the parent
    exit with status 0, so call it once all that the starter waits for is done.  Until then errors
    still reach the starter's terminal.  If the child ends before, the parent exits with 1.
    """
    os.chdir("/")
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        raise StartError(f"Failed to fork daemon: {error.strerror}") from None
    if child != 0:
        _wait_for_child(reader, writer)
    os.close(reader)
    os.setsid()
    if not keep_umask:
        os.umask(0o022)

    def part() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1) if os.environ.get("DBUS_DEBUG_OUTPUT") else (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        with contextlib.suppress(BrokenPipeError):  # the parent was killed while it waited
            os.write(writer, b"1")
        os.close(writer)

    return part


def _wait_for_child(reader: int, writer: int) -> None:
    """The parent's end: it leaves without cleaning up, since everything is the child's now."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(writer)
        if os.read(reader, 1):
            status = 0
    finally:
        os._exit(status)


def find_user(user: str) -> tuple[int, int]:
    """The uid and primary gid of `<user>`, a name or a number.  Raises StartError."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        try:
            entry = pwd.getpwuid(int(user))
        except (KeyError, ValueError, OverflowError):
            raise StartError(f'Could not get UID and GID for username "{user}"') from None
    return entry.pw_uid, entry.pw_gid


def become(uid: int, gid: int) -> None:
    """Drop privileges for good, supplementary groups included.  Raises StartError.

    Without privileges there are none to drop, and nothing happens: dbus-daemon does not insist on
    being the configured user then.
    """
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise StartError(f"Failed to change to user {uid}, group {gid}: {error.strerror}") from None


class PidFile:
    """The file of `<pidfile>`: `check` before anything is bound, `write`, at the end `remove`."""

    __slots__ = ("_identity", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None

    def check(self) -> str | None:
        """Make way if the process that wrote the file is gone; then the answer is a notice.

        Raises StartError if it may be there still.  dbus-daemon leaves every such file in the way.
        """
        if not os.path.lexists(self.path):
            return None
        if not self._is_stale():
            raise StartError(
                f'The pid file "{self.path}" exists, if the message bus is not running, '
                "remove this file"
            )
        with contextlib.suppress(OSError):  # `write` will say what is the matter
            os.unlink(self.path)
        return f'The pid file "{self.path}" was left by a process that is gone; it is replaced'

    def _is_stale(self) -> bool:
        """Whether the file names a process that is gone.  When in doubt it is not."""
        # Neither a link elsewhere nor a pipe, which would keep us waiting (P40).
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with open(os.open(self.path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return False
                pid = int(file.read(32))
        except (OSError, ValueError):
            return False
        if pid == os.getpid():  # usual in containers, where each start gives the same numbers
            return True
        started = _start_time(pid)
        if started is None and not os.path.exists("/proc/self"):
            return False
        return started is None or started > status.st_mtime + _CLOCK_SLACK

    def write(self) -> None:
        """Write our pid.  Raises StartError, also if the file exists."""
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartError(f'Failed to open "{self.path}": {error.strerror}') from None
        status = os.fstat(fd)
        self.path = os.path.abspath(self.path)
        self._identity = (status.st_dev, status.st_ino)
        try:
            os.write(fd, b"%d\n" % os.getpid())
        except OSError as error:
            raise StartError(f'Failed to write to "{self.path}": {error.strerror}') from None
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove the file if we wrote it and it is still the same."""
        # It may be out of reach since privileges were dropped.
        with contextlib.suppress(OSError):
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self.path)


def _start_time(pid: int) -> float | None:
    """When process `pid` was started, in seconds since 1970; None if there is none (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # after the name, which is in parentheses and may contain anything
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    with open("/proc/stat", "rb") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    return booted + ticks / os.sysconf("SC_CLK_TCK")
