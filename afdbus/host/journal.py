"""The log of a daemon: standard error, the system log, or both.

A bus must not stand still because nobody reads its standard error or because syslogd hangs, and
it must not make either non-blocking, since both are shared with others.  So one thread writes, a
bounded queue lies before it, and what does not fit is counted and told later.
"""

from __future__ import annotations

import os
import socket
import threading
from queue import SimpleQueue

MAX_QUEUED = 4096  # lines
MAX_LINE = 2048  # characters; the rest of a line is cut
_SYSLOG = "/dev/log"
_TAG = "dbus-daemon"  # by which filters of the system log know a message bus

# syslog(3): facility and level, as dbus-daemon uses them
_DAEMON_INFO = 3 << 3 | 6
_DAEMON_WARNING = 3 << 3 | 4
_DAEMON_CRITICAL = 3 << 3 | 2
_AUTH_NOTICE = 4 << 3 | 5


class Journal:
    """The log: `info`, `warning`, `security` and `error` neither block nor raise.

    The writing thread begins with the first line, so there must be none before a fork.  `prefix`
    is put before each text.  `syslog` tells whether the lines go there.
    """

    __slots__ = (
        "_failed",
        "_overflow",
        "_queue",
        "_socket",
        "_stderr",
        "_thread",
        "prefix",
        "syslog",
    )

    def __init__(self, *, stderr: bool = True, syslog: bool = False, prefix: str = "") -> None:
        self.prefix = prefix
        self._stderr = stderr
        self.syslog = syslog
        self._queue: SimpleQueue[tuple[int, str] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._overflow = 0  # lines for which there was no room
        self._failed = 0  # lines that nobody took

    @property
    def lost(self) -> int:
        """How many lines were not written."""
        return self._overflow + self._failed

    def info(self, text: str) -> None:
        """Something worth knowing, such as a reload."""
        self._put(_DAEMON_INFO, text)

    def warning(self, text: str) -> None:
        """Something that somebody should look at."""
        self._put(_DAEMON_WARNING, text)

    def security(self, text: str) -> None:
        """Something that was refused."""
        self._put(_AUTH_NOTICE, text)

    def error(self, text: str) -> None:
        """Something after which the daemon cannot go on."""
        self._put(_DAEMON_CRITICAL, text)

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued, for at most `timeout` seconds, and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout)

    def _put(self, priority: int, text: str) -> None:
        if self._queue.qsize() >= MAX_QUEUED:
            self._overflow += 1
            return
        if self._thread is None:
            # daemon: a reader who never reads must not keep the process alive
            self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
            self._thread.start()
        self._queue.put((priority, one_line(self.prefix + text)))

    def _write_all(self) -> None:
        told = 0
        going_on = True
        while going_on:
            entry = self._queue.get()
            going_on = entry is not None
            if entry is not None and not self._write(*entry):
                self._failed += 1
            missing = self._overflow - told
            if missing and self._queue.empty():
                text = f"{self.prefix}{missing} lines of this log were lost"
                if self._write(_DAEMON_WARNING, text):
                    told += missing
        self._disconnect()

    def _write(self, priority: int, line: str) -> bool:
        """Give the line to all who should have it; whether anybody took it."""
        written = False
        if self._stderr:
            written = _write_stderr(f"{_TAG}[{os.getpid()}]: {line}\n")
        if self.syslog:
            written = self._send(f"<{priority}>{_TAG}[{os.getpid()}]: {line}") or written
        return written

    def _send(self, datagram: str) -> bool:
        """Send a datagram to the system log, connecting (again) if necessary."""
        data = datagram.encode("utf-8", "replace")
        for _ in range(2):  # the second time if syslogd was started anew
            try:
                if self._socket is None:
                    self._socket = socket.socket(
                        socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                    )
                    self._socket.connect(_SYSLOG)
                self._socket.send(data)
            except BlockingIOError:
                return False
            except OSError:
                self._disconnect()
            else:
                return True
        return False

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Prefixed:
    """A journal for a part of the process: what it says is told with a prefix of its own."""

    __slots__ = ("_journal", "_prefix")

    def __init__(self, journal: Journal, prefix: str) -> None:
        self._journal = journal
        self._prefix = prefix

    def info(self, text: str) -> None:
        self._journal.info(self._prefix + text)

    def warning(self, text: str) -> None:
        self._journal.warning(self._prefix + text)

    def security(self, text: str) -> None:
        self._journal.security(self._prefix + text)


def _write_stderr(line: str) -> bool:
    data = line.encode("utf-8", "replace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:  # closed, a full disk, made non-blocking by somebody else: the line is lost
        return False
    return True


def one_line(text: str) -> str:
    """`text` as one harmless line: what is not printable is escaped, what is long is cut.

    Texts contain what clients sent; that must not begin new lines or speak to a terminal.
    """
    if len(text) > MAX_LINE:
        text = text[:MAX_LINE] + "..."
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
