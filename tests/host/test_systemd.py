"""sd_listen_fds(3) and sd_notify(3), as far as a daemon needs them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from afdbus.host.systemd import listen_fds, notify

VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@pytest.mark.parametrize(("pid", "count"), [(None, None), (None, "1"), (str(os.getppid()), "1")])
def test_descriptors_of_others_are_not_taken(
    pid: str | None, count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(VARIABLES, (pid, count, "a:b"), strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert not listen_fds()
    assert not [name for name in VARIABLES if name in os.environ]


def test_descriptors_that_are_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "999999")
    with pytest.raises(OSError, match="Bad file descriptor"):
        listen_fds()


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    path = f"/tmp/notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path if abstract else path)
        try:
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if abstract else path)
            notify("READY=1\nSTATUS=on")
        finally:
            if not abstract:
                os.unlink(path)
        assert manager.recv(100) == b"READY=1\nSTATUS=on"


@pytest.mark.parametrize("where", [None, "", "relative", "/no/where", "@nobody", "/" + "x" * 200])
def test_notify_without_a_manager(where: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if where is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
    notify("READY=1")


def test_notify_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"notify-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        for _ in range(1000):  # more than a socket holds
            notify("READY=1")
        assert manager.recv(100) == b"READY=1"
