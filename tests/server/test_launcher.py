"""How services are started: what they get, where they print, how their end is noticed."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from afdbus.config.services import Service
from afdbus.errors import SPAWN_EXEC_FAILED, SPAWN_FILE_INVALID, SPAWN_SERVICE_NOT_FOUND, BusError
from afdbus.host import systemd
from afdbus.host.spawn import Child
from afdbus.server.launcher import ServiceLauncher, Starting
from afdbus.server.loop import Loop

NAME = "com.example.Started"


class FakeLoop:
    """Descriptors with their handlers, served when the test says."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int], None]] = {}

    def register(self, fd: int, handler: Callable[[int], None]) -> None:
        self.handlers[fd] = handler

    def unregister(self, fd: int) -> None:
        del self.handlers[fd]

    def serve(self) -> None:
        ready, _, _ = select.select(list(self.handlers), [], [], 60)
        assert ready
        for fd in ready:
            self.handlers[fd](select.EPOLLIN)


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def launcher(loop: FakeLoop, **rest: Any) -> ServiceLauncher:
    given = {"address": "unix:path=/x", "type_": "session", "helper": None}
    return ServiceLauncher(cast("Loop", loop), **{**given, **rest})


def service(command: str, user: str | None = None) -> Service:
    return Service(NAME, command, user, None, None, "/f")


def run(
    loop: FakeLoop, launcher: ServiceLauncher, script: str, **environment: str
) -> BusError | None:
    ends: list[BusError | None] = []
    launcher.start(service(f"/bin/sh -c '{script}'"), environment, ends.append)
    assert not ends
    while not ends:
        loop.serve()
    assert not loop.handlers
    return ends[0]


def test_the_end_is_told(loop: FakeLoop) -> None:
    for script, error in (("exit 3", "exited with status 3"), ("kill -9 $$", "received signal 9")):
        end = run(loop, launcher(loop), script)
        assert end is not None
        assert end.text == f"Process {NAME} {error}"
    assert run(loop, launcher(loop), "exit 0") is None


def test_arguments_and_environment(loop: FakeLoop, tmp_path: Path) -> None:
    script = f"echo $A $DBUS_STARTER_ADDRESS $DBUS_STARTER_BUS_TYPE >{tmp_path}/out"
    assert run(loop, launcher(loop), script, A="1", DBUS_STARTER_ADDRESS="no") is None
    assert (tmp_path / "out").read_text() == "1 unix:path=/x session\n"


@pytest.mark.parametrize("type_", ["session", "system", "other", None])
def test_which_bus_it_is(
    loop: FakeLoop, tmp_path: Path, type_: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SESSION_BUS_ADDRESS", "SYSTEM_BUS_ADDRESS", "STARTER_BUS_TYPE"):
        monkeypatch.delenv(f"DBUS_{name}", raising=False)
    script = f"env >{tmp_path}/out"
    assert run(loop, launcher(loop, type_=type_), script) is None
    lines = (tmp_path / "out").read_text().splitlines()
    assert ("DBUS_SESSION_BUS_ADDRESS=unix:path=/x" in lines) is (type_ == "session")
    assert ("DBUS_SYSTEM_BUS_ADDRESS=unix:path=/x" in lines) is (type_ == "system")
    assert (f"DBUS_STARTER_BUS_TYPE={type_}" in lines) is (type_ is not None)


def test_what_cannot_be_executed_leaves_nothing(loop: FakeLoop) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BusError) as caught:
        launcher(loop).start(service("/nonexistent"), {}, pytest.fail)
    assert (caught.value.name, caught.value.text) == (
        SPAWN_EXEC_FAILED,
        f"Failed to execute program {NAME}: No such file or directory",
    )
    assert not loop.handlers
    assert os.listdir("/proc/self/fd") == before


def test_a_helper_is_told_the_name_and_nothing_else(loop: FakeLoop, tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    helper.write_text(f'#!/bin/sh\necho "$#" "$@" >{tmp_path}/out\nexit 6\n')
    helper.chmod(0o755)
    started = launcher(loop, helper=str(helper))
    assert started.uses_helper
    ends: list[BusError | None] = []
    started.start(service("/bin/false", "root"), {}, ends.append)
    loop.serve()
    assert (tmp_path / "out").read_text() == f"1 {NAME}\n"
    assert ends[0] is not None
    assert ends[0].name == SPAWN_SERVICE_NOT_FOUND


def test_a_helper_does_not_start_what_has_no_user(loop: FakeLoop) -> None:
    with pytest.raises(BusError) as caught:
        launcher(loop, helper="/nonexistent").start(service("/bin/false"), {}, pytest.fail)
    assert caught.value.name == SPAWN_FILE_INVALID


def test_programs_of_a_system_bus_outlive_it(loop: FakeLoop) -> None:
    before = os.listdir("/proc/self/fd")
    started = launcher(loop, type_="system")
    child = started.start(service("/bin/sleep 1000"), {}, pytest.fail)
    started.close()
    assert isinstance(child, Child)
    assert not loop.handlers
    assert os.listdir("/proc/self/fd") == before
    os.kill(child.pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == -signal.SIGTERM


def start_family(
    loop: FakeLoop, started: ServiceLauncher, folder: Path, script: str
) -> tuple[Child, int]:
    """A shell that writes the pid of a program to OUT, and a pidfd of that program."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    command = f"/bin/sh -c '{script}'".replace("OUT", str(fifo))
    child = started.start(service(command), {}, pytest.fail)
    pidfd = os.pidfd_open(int(fifo.read_text()))
    assert isinstance(child, Child)
    return child, pidfd


def has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 60)[0])


def test_programs_of_a_session_bus_end_with_it(loop: FakeLoop, tmp_path: Path) -> None:
    """With what they have started in their session."""
    before = os.listdir("/proc/self/fd")
    started = launcher(loop)
    child, grandchild = start_family(loop, started, tmp_path, "sleep 1000 & echo $! >OUT; wait")
    started.close()
    started.wait(time.monotonic() + 100)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)  # it was
    assert has_ended(grandchild)
    os.close(grandchild)
    assert not loop.handlers
    assert os.listdir("/proc/self/fd") == before


def test_who_does_not_end_is_not_waited_for(loop: FakeLoop, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    started = launcher(loop)
    script = 'trap "" TERM; echo $$ >OUT; while :; do sleep 1000; done'
    child, pidfd = start_family(loop, started, tmp_path, script)
    started.close()
    started.wait(time.monotonic())
    assert not loop.handlers
    os.killpg(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    os.close(pidfd)
    assert os.listdir("/proc/self/fd") == before


def test_who_ends_later_is_reaped_while_the_loop_runs(loop: FakeLoop) -> None:
    started = launcher(loop)
    child = started.start(service("/bin/sleep 1000"), {}, pytest.fail)
    started.close()
    while loop.handlers:
        loop.serve()
    assert isinstance(child, Child)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)
    started.wait(time.monotonic() + 100)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A journal that listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(60)
        listener.bind(str(tmp_path / "journal"))
        listener.listen()
        monkeypatch.setattr(systemd, "JOURNAL", str(tmp_path / "journal"))
        yield listener


def read_to_end(journal: socket.socket) -> str:
    stream, _ = journal.accept()
    with stream, stream.makefile() as file:
        return file.read()


def test_what_is_printed_goes_to_the_journal(loop: FakeLoop, journal: socket.socket) -> None:
    before = os.listdir("/proc/self/fd")
    started = launcher(loop, starting=Starting(journals=True))
    assert run(loop, started, "echo out; echo err >&2") is None
    assert os.listdir("/proc/self/fd") == before
    assert read_to_end(journal) == f"{NAME}\n\n6\n0\n0\n0\n0\nout\n"
    assert read_to_end(journal) == f"{NAME}\n\n4\n0\n0\n0\n0\nerr\n"


def test_a_name_cannot_forge_the_head_of_a_stream(journal: socket.socket) -> None:
    os.close(systemd.journal_stream("a\nb", 3))
    assert read_to_end(journal) == "a b\n\n3\n0\n0\n0\n0\n"


def test_without_a_journal_it_prints_where_we_do(
    loop: FakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "JOURNAL", str(tmp_path / "none"))
    script = f"readlink /proc/$$/fd/1 >{tmp_path}/out; readlink /proc/$$/fd/2 >>{tmp_path}/out"
    assert run(loop, launcher(loop, starting=Starting(journals=True)), script) is None
    assert (tmp_path / "out").read_text().splitlines()[-1] == os.readlink("/proc/self/fd/2")
