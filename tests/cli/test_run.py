"""`afdbus run`: a bus for one command, of which nothing is left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import busconfig

import afdbus

AFDBUS = [sys.executable, "-m", "afdbus"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose socket lies in /tmp, under a name that only this test uses."""
    path = tmp_path / "bus.conf"
    path.write_text(busconfig(listen=f"unix:abstract=afdbus-run-{os.getpid()}"))
    return path


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AFDBUS, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def begin(config: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], int]]]:
    """Start `afdbus run` with a shell script; gives it, and the pid of the bus it started."""
    begun: list[subprocess.Popen[str]] = []

    def start(script: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [*AFDBUS, "run", "--config-file", str(config), "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        [bus] = [pid for pid in map(int, children) if os.getsid(pid) == pid]
        return process, bus

    yield start
    for process in begun:
        with contextlib.suppress(ProcessLookupError):  # nothing was left
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def assert_gone(pidfd: int) -> None:
    """The process behind a pidfd ends."""
    assert select.select([pidfd], [], [], 30)[0], "it is still running"
    os.close(pidfd)


def test_the_command_finds_the_bus(config: Path, program: Callable[[str], str]) -> None:
    done = run(
        *("run", "--config-file", str(config), "--", program("dbus-send"), "--session"),
        *("--print-reply", "--dest=org.freedesktop.DBus", "/"),
        "org.freedesktop.DBus.ListNames",
    )
    assert 'string "org.freedesktop.DBus"' in done.stdout
    assert done.returncode == 0


def test_the_environment(config: Path) -> None:
    others = {
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/other",
        "DBUS_SESSION_BUS_PID": "1",
        "DBUS_SESSION_BUS_WINDOWID": "2",
        "DBUS_STARTER_ADDRESS": "unix:path=/other",
        "DBUS_STARTER_BUS_TYPE": "session",
        "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/system",
        "MINE": "kept",
    }
    done = run("run", "--config-file", str(config), "env", **others)
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert variables["DBUS_SESSION_BUS_ADDRESS"].startswith("unix:abstract=afdbus-run-")
    assert variables["DBUS_SYSTEM_BUS_ADDRESS"] == "unix:path=/system"
    assert variables["MINE"] == "kept"
    assert not {"DBUS_SESSION_BUS_PID", "DBUS_SESSION_BUS_WINDOWID"} & variables.keys()
    assert not {"DBUS_STARTER_ADDRESS", "DBUS_STARTER_BUS_TYPE"} & variables.keys()


def test_the_session_bus_is_the_default_and_leaves_no_socket() -> None:
    done = run("run", "sh", "-c", "echo $DBUS_SESSION_BUS_ADDRESS")
    path = done.stdout.removeprefix("unix:path=").partition(",")[0]
    assert path.startswith("/tmp/dbus-")
    assert not os.path.lexists(path)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_the_exit_status_is_the_commands(config: Path, script: str, status: int) -> None:
    done = run("run", f"--config-file={config}", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (status, "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "/no/such/command"], "afdbus: cannot run /no/such/command: No such file"),
        (["run", "/etc/passwd"], "afdbus: cannot run /etc/passwd: Permission denied"),
        (["run", "--config-file", "/no/such/file", "true"], "afdbus: the bus did not start"),
        (["run"], "afdbus run: no COMMAND given"),
        (["run", "--"], "afdbus run: no COMMAND given"),
        (["run", "--bogus", "true"], "unrecognized arguments: --bogus"),
        (["bogus"], "invalid choice: 'bogus'"),
        ([], "afdbus: the following arguments are required: COMMAND"),
    ],
)
def test_our_own_errors(arguments: list[str], complaint: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (127, "")
    assert complaint in done.stderr


def test_options_of_the_command_are_not_ours(config: Path) -> None:
    done = run("run", "--config-file", str(config), "echo", "--config-file", "--", "-h")
    assert done.stdout == "--config-file -- -h\n"


def test_version() -> None:
    assert run("--version").stdout == f"afdbus {afdbus.__version__}\n"


def test_input_and_descriptors_reach_the_command(config: Path) -> None:
    reader, writer = os.pipe()
    done = subprocess.run(
        [*AFDBUS, "run", "--config-file", str(config), "sh", "-c", f"cat >/dev/fd/{writer}"],
        input=b"hello",
        pass_fds=[writer],
        timeout=60,
        check=True,
    )
    os.close(writer)
    assert done.returncode == 0
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"hello"


Begin = Callable[[str], tuple[subprocess.Popen[str], int]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_command_and_bus(begin: Begin, number: signal.Signals) -> None:
    process, bus = begin("echo ready; exec sleep 1000")
    watched = os.pidfd_open(bus)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert_gone(watched)


def test_a_signal_reaches_the_command(begin: Begin) -> None:
    script = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.01; done"
    process, _ = begin(script)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (5, "caught\n")


def test_what_is_ignored_stays_ignored(config: Path) -> None:
    script = "kill -HUP $PPID; kill -HUP $$; exit 4"
    done = subprocess.run(
        [
            *("sh", "-c", 'trap "" HUP; exec "$@"', "sh"),
            *(*AFDBUS, "run", "--config-file", str(config), "sh", "-c", script),
        ],
        timeout=60,
        check=False,
    )
    assert done.returncode == 4


def test_p34_nothing_is_left_when_we_are_killed(begin: Begin) -> None:
    process, bus = begin("echo ready; exec sleep 1000")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    [command] = [pid for pid in map(int, children) if pid != bus]
    watched = os.pidfd_open(bus)
    process.kill()
    try:
        assert_gone(watched)
    finally:
        os.kill(command, signal.SIGKILL)


def test_a_bus_that_dies_is_told(config: Path) -> None:
    done = run(
        *("run", "--config-file", str(config), "sh", "-c"),
        "for pid in $(cat /proc/$PPID/task/$PPID/children); do "
        "[ $pid = $$ ] || bus=$pid; done; kill -9 $bus; "
        "while kill -0 $bus 2>/dev/null; do sleep 0.01; done; exit 6",
    )
    assert done.returncode == 6
    assert "afdbus: the bus has ended" in done.stderr


HANGING = """
import os, time
from afdbus import cli, daemon_cli
def hang(arguments):
    print(os.getpid(), flush=True)
    time.sleep(1000)
daemon_cli.main = hang
raise SystemExit(cli.main(["run", "true"]))
"""


def test_a_signal_while_the_bus_starts() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        watched = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert_gone(watched)
