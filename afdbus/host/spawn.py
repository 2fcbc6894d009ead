"""Programs started by the daemon, and the news of their end.

posix_spawn(3) instead of `subprocess`: nothing to import, no code of ours between fork and exec,
and a program that cannot be executed is an OSError at once.  All descriptors but the standard ones
are close-on-exec, ours and those received.  A pidfd tells of the end without SIGCHLD.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator, Mapping

from afdbus.host.process import reset_oom_score

# What belongs to this process and not to those it starts (systemd.exec(5), sd_notify(3),
# sd_listen_fds(3)), as in dbus-daemon.
_OURS = (
    b"INVOCATION_ID",
    b"JOURNAL_STREAM",
    b"LISTEN_FDNAMES",
    b"LISTEN_FDS",
    b"LISTEN_PID",
    b"NOTIFY_SOCKET",
)


def inherited_environment() -> dict[bytes, bytes]:
    """Our own environment as far as it concerns the programs that we start."""
    environment = {name: value for name, value in os.environb.items() if name not in _OURS}
    if b"LC_CTYPE" in environment and not _was_given(b"LC_CTYPE"):
        # Python sets it for itself where there is no locale (PEP 538).
        del environment[b"LC_CTYPE"]
    return environment


def _was_given(name: bytes) -> bool:
    """Whether our starter has put the variable into our environment; if unknown, it has."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return any(entry.startswith(name + b"=") for entry in file.read().split(b"\0"))
    except FileNotFoundError:  # no /proc
        return True


class Child:
    """A running program.  `fd` is readable once it has ended; then `reap` must be called."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd

    def kill(self) -> None:
        """Send SIGKILL, which cannot hit anybody else: until `reap` the number is its own.

        What a setuid helper has become may be out of our reach; then nothing happens.
        """
        if self.fd >= 0:
            with contextlib.suppress(PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Send SIGTERM to it and to what it has started in its session."""
        with contextlib.suppress(PermissionError):
            os.killpg(self.pid, signal.SIGTERM)

    def reap(self) -> int:
        """The exit status of a program that has ended, or the negative number of the signal."""
        _, status = os.waitpid(self.pid, 0)
        self.leave()
        return os.waitstatus_to_exitcode(status)

    def leave(self) -> None:
        """Do not look after it any more."""
        os.close(self.fd)
        self.fd = -1


def spawn(
    arguments: list[bytes],
    environment: Mapping[bytes, bytes],
    nofile: tuple[int, int] | None = None,
    output: tuple[int, int] | None = None,
) -> Child:
    """Start `arguments[0]`, a path, in a session of its own.  Raises OSError.

    `nofile`: the RLIMIT_NOFILE (soft, hard) it is to have; None: ours.  `output`: what it is
    to have as standard output and error; None: ours.
    """
    if not arguments[0]:
        raise FileNotFoundError(2, os.strerror(2))
    files = [] if output is None else [(os.POSIX_SPAWN_DUP2, output[n], n + 1) for n in (0, 1)]
    with _soft_limit(nofile):
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            environment,
            file_actions=files,
            setsid=True,
            setsigmask=(),
            # Python ignores SIGXFSZ.  SIGPIPE stays ignored: so it is in what dbus-daemon starts.
            setsigdef=(signal.SIGXFSZ,),
        )
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    _normalise(pid, nofile)
    return Child(pid, fd)


@contextlib.contextmanager
def _soft_limit(nofile: tuple[int, int] | None) -> Iterator[None]:
    """What is started meanwhile has the soft limit from its first instruction on."""
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    if nofile is None or nofile == ours:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile[0], ours[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, ours)


def _normalise(pid: int, nofile: tuple[int, int] | None) -> None:
    """Take from a child what was meant for the bus alone: its hard limit, its immortality."""
    # It may have ended, or changed its user.
    with contextlib.suppress(OSError):
        if nofile is not None and resource.prlimit(pid, resource.RLIMIT_NOFILE) != nofile:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, nofile)
    reset_oom_score(pid)
