"""The log: lines as dbus-daemon writes them, and P33: it neither blocks nor ends the bus."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from afdbus.host import journal as module
from afdbus.host.journal import MAX_LINE, MAX_QUEUED, Journal, one_line

PID = os.getpid()


@contextmanager
def stderr() -> Iterator[Callable[[], str]]:
    """Descriptor 2 is a pipe; calling reads what is in it, until everybody has let go of it."""
    saved = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)

    def read() -> str:
        os.dup2(saved, 2)
        with open(reader, closefd=False) as pipe:
            return pipe.read()

    try:
        yield read
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(reader)


@pytest.fixture
def syslog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """A system log that listens."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must not be long
    monkeypatch.setattr(module, "_SYSLOG", "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("log")
        yield listening


def test_lines_on_stderr() -> None:
    with stderr() as read:
        journal = Journal(prefix="[system] ")
        journal.info("one")
        journal.warning("two")
        journal.security("three")
        journal.error("four")
        journal.close()
        assert read() == "".join(
            f"dbus-daemon[{PID}]: [system] {text}\n" for text in ("one", "two", "three", "four")
        )
        assert journal.lost == 0


def test_lines_for_syslog(syslog: socket.socket) -> None:
    with stderr() as read:
        journal = Journal(stderr=False, syslog=True)
        journal.info("one")
        journal.security("two")
        journal.close()
        assert syslog.recv(1000) == f"<30>dbus-daemon[{PID}]: one".encode()
        assert syslog.recv(1000) == f"<37>dbus-daemon[{PID}]: two".encode()
        assert read() == ""


def test_lines_for_both(syslog: socket.socket) -> None:
    with stderr() as read:
        journal = Journal(syslog=True)
        journal.warning("one")
        journal.close()
        assert syslog.recv(1000) == f"<28>dbus-daemon[{PID}]: one".encode()
        assert read() == f"dbus-daemon[{PID}]: one\n"


def test_a_new_syslogd_is_found(syslog: socket.socket) -> None:
    journal = Journal(stderr=False, syslog=True)
    journal.info("one")
    syslog.recv(1000)
    syslog.close()
    os.unlink("log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as successor:
        successor.bind("log")
        journal.info("two")
        journal.close()
        assert b"two" in successor.recv(1000)
    assert journal.lost == 0


FILL = """
import os
from afdbus.host.journal import Journal
journal = Journal()
said = 0
while not journal.lost:
    journal.info("x" * 100)
    said += 1
print(said, journal.lost, os.get_blocking(2), flush=True)
journal.close(timeout={timeout})
"""


def fill(timeout: float) -> subprocess.Popen[str]:
    """A process that logs until a line is lost, since nobody reads, and then closes its log."""
    return subprocess.Popen(
        [sys.executable, "-c", FILL.format(timeout=timeout)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_p33_a_reader_who_does_not_read_stops_nobody() -> None:
    with fill(timeout=0) as process:
        assert process.stdout is not None
        said, lost, blocking = process.stdout.read().split()
        assert process.wait() == 0  # although nobody has read a line yet
        assert int(said) > MAX_QUEUED
        assert lost == "1"
        # The mode of stderr is shared with the parent and not ours to change.
        assert blocking == "True"


def test_p33_what_was_lost_is_told() -> None:
    with fill(timeout=60) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = int(process.stdout.readline().split()[0])
        lines = process.stderr.read().splitlines()
    assert len(lines) == said  # one was lost, one tells so
    assert lines[-1] == f"dbus-daemon[{process.pid}]: 1 lines of this log were lost"


def test_p33_a_full_or_missing_syslog_stops_nobody(syslog: socket.socket) -> None:
    journal = Journal(stderr=False, syslog=True)
    for _ in range(2000):
        journal.info("x" * 1000)
    journal.close(timeout=30)
    assert journal.lost > 0
    syslog.close()
    missing = Journal(stderr=False, syslog=True)
    missing.info("nobody listens")
    missing.close(timeout=30)
    assert missing.lost == 1


def test_p33_a_closed_stderr_stops_nobody() -> None:
    saved = os.dup(2)
    os.close(2)
    try:
        journal = Journal()
        journal.info("nobody reads")
        journal.close(timeout=30)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert journal.lost == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a plain: 'line'", "a plain: 'line'"),
        ("Grüße", "Grüße"),
        ("one\ntwo\r\n", "one\\ntwo\\r\\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\0b\u2028c\u202ed", "a\\x00b\\u2028c\\u202ed"),
        ("\udcff", "\\udcff"),
        ("%s %n {0}", "%s %n {0}"),
        ("x" * MAX_LINE, "x" * MAX_LINE),
        ("x" * (MAX_LINE + 1), "x" * MAX_LINE + "..."),
    ],
)
def test_p33_what_clients_send_stays_on_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
    assert line.isprintable()


def test_no_thread_before_the_first_line() -> None:
    before = set(threading.enumerate())
    journal = Journal()
    assert before.issuperset(threading.enumerate())
    journal.close()
