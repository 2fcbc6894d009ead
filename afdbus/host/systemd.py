"""The conventions of systemd that a daemon needs, without libsystemd.

sd_listen_fds(3): descriptors that were opened for us; sd_notify(3): telling that we are ready;
sd_journal_stream_fd(3): the journal as a file.  All are a few environment variables and lines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

LISTEN_FDS_START = 3
JOURNAL = "/run/systemd/journal/stdout"
_ONE_LINE = {ord("\n"): " "}
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def listen_fds() -> list[tuple[int, str]]:
    """The descriptors passed to this process, made close-on-exec, with their names; empty if there
    are none.  One without a name is "unknown", as for sd_listen_fds_with_names(3).

    The variables are gone afterwards, so neither a second call nor a child takes them again.
    Raises OSError (EINVAL, EBADF) if the variables are nonsense or the descriptors not open.
    """
    pid, count, names = [os.environ.pop(name, None) for name in _VARIABLES]
    if pid is None or count is None or _positive(pid) != os.getpid():
        return []
    fds = range(LISTEN_FDS_START, LISTEN_FDS_START + _positive(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    told = names.split(":") if names else []
    return list(zip(fds, told + ["unknown"] * len(fds), strict=False))


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number == 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return number


def notify(state: str) -> None:
    """Send `state` (lines of NAME=VALUE, e.g. "READY=1") to the service manager, if there is one.

    Never blocks; a manager that does not listen is not our trouble: nothing is raised.
    """
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return
    with (
        contextlib.suppress(OSError),  # sd_notify(3) advises to ignore failures
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.sendto(state.encode(), "\0" + where[1:] if where[0] == "@" else where)


def journal_stream(identifier: str, priority: int) -> int:
    """A descriptor; each line written there is an entry of the journal.

    Its owner closes it.  Raises OSError if there is no journal, or none that answers at once.
    """
    # Unit, priority, no priorities in the lines, not forwarded to syslog, kmsg or console.
    head = f"{identifier.translate(_ONE_LINE)}\n\n{priority}\n0\n0\n0\n0\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as stream:
        stream.connect(JOURNAL)
        stream.shutdown(socket.SHUT_RD)
        stream.send(head.encode())
        stream.setblocking(True)
        return stream.detach()
