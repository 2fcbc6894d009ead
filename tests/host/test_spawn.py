"""Programs started without a shell, watched until their end."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from afdbus.host.spawn import Child, inherited_environment, spawn

PATH = {b"PATH": os.environb[b"PATH"]}


def shell(script: str, nofile: tuple[int, int] | None = None, **environment: str) -> Child:
    added = {name.encode(): value.encode() for name, value in environment.items()}
    return spawn([b"/bin/sh", b"-c", script.encode()], PATH | added, nofile)


def end(child: Child) -> int:
    """Wait for the end, as the loop does."""
    ended, _, _ = select.select([child.fd], [], [], 60)
    assert ended
    return child.reap()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 77", 77), ("kill -9 $$", -9)])
def test_the_end_is_told(script: str, code: int) -> None:
    child = shell(script)
    assert end(child) == code
    assert child.fd == -1


def test_kill() -> None:
    child = shell("exec sleep 1000")
    child.kill()
    assert end(child) == -signal.SIGKILL
    child.kill()  # nobody, then


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user one has to be root")
def test_what_is_out_of_reach_is_left_alone() -> None:
    """As what a setuid helper has become may be."""
    child = shell("exec sleep 1000")
    os.setresuid(65534, 65534, 0)
    try:
        child.kill()
        child.end()
    finally:
        os.setresuid(0, 0, 0)
    assert not select.select([child.fd], [], [], 0)[0]
    child.kill()
    assert end(child) == -signal.SIGKILL


@pytest.mark.parametrize("program", ["", "/nonexistent", "/", "/etc/passwd"])
def test_what_cannot_be_executed(program: str) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is the next line's matter
        spawn([program.encode()], {})
    assert isinstance(caught.value, FileNotFoundError | PermissionError)
    assert caught.value.strerror
    assert os.listdir("/proc/self/fd") == before


def test_p34_a_session_and_limits_of_its_own(tmp_path: Path) -> None:
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = f"ulimit -Sn >{tmp_path}/soft; cut -d' ' -f6 /proc/$$/stat >{tmp_path}/sid"
    child = shell(asked, (123, ours[1]))
    assert end(child) == 0
    assert (tmp_path / "soft").read_text() == "123\n"
    assert int((tmp_path / "sid").read_text()) == child.pid
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == ours


def test_p34_blocked_signals_are_not_inherited(tmp_path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
    try:
        child = shell(f"exec cat /proc/self/status >{tmp_path}/status")
        assert end(child) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGHUP])
    status = (tmp_path / "status").read_text()
    assert "SigBlk:\t0000000000000000\n" in status


def environment_of_a_process(**variables: str) -> set[str]:
    """The names that a process with just these variables would pass on."""
    program = "from afdbus.host.spawn import *; print(b' '.join(inherited_environment()).decode())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": os.pathsep.join(sys.path), **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    return set(found.stdout.split()) - {"PYTHONPATH"}


def test_p34_what_is_the_daemons_own_is_not_passed_on() -> None:
    own = ["JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"]
    own.append("INVOCATION_ID")
    variables = dict.fromkeys([*own, "OTHER", "LANG"], "1")
    assert environment_of_a_process(**variables) == {"OTHER", "LANG"}


def test_a_locale_that_python_has_chosen_is_not_passed_on() -> None:
    assert environment_of_a_process() == set()
    assert environment_of_a_process(LC_CTYPE="C.UTF-8") == {"LC_CTYPE"}


def test_bytes_that_are_no_text_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environb, b"ODD", b"\xff=\n")
    child = spawn(
        [b"/bin/sh", b"-c", f'printf %s "$ODD" >{tmp_path}/odd'.encode()], inherited_environment()
    )
    assert end(child) == 0
    assert (tmp_path / "odd").read_bytes() == b"\xff=\n"
