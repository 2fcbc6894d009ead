"""Every launcher's exact command line, as recorded, and some of the launchers themselves.

A launcher waits for what it reads (address, pid, the end of the starter) and connects at once.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import RawClient
from places import ADDRESS, Place, ended, line, mount_namespaces

Program = Callable[[str], str]

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


def pipe_to(process: Callable[[int], subprocess.Popen[str]]) -> tuple[subprocess.Popen[str], str]:
    """Start it with the writing end of a pipe; all that it writes there until it closes it."""
    reader, writer = os.pipe()
    started = process(writer)
    os.close(writer)
    with open(reader) as pipe:
        return started, pipe.read()


def is_served(address: str) -> None:
    with RawClient(address.rstrip("\n")) as client:
        client.authenticate()
        client.hello()


def test_as_gtestdbus(place: Place) -> None:
    process, told = pipe_to(
        lambda writer: place.start(
            f"--print-address={writer}", place.configure(), pass_fds=[writer]
        )
    )
    assert ADDRESS.fullmatch(told.rstrip("\n"))
    assert told.endswith("\n")
    is_served(told)
    assert process.poll() is None


def test_as_dbus_run_session(place: Place) -> None:
    process, told = pipe_to(
        lambda writer: place.start(
            "--nofork", "--print-address", str(writer), "--session", pass_fds=[writer]
        )
    )
    is_served(told)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")


def test_as_dbus_run_session_with_a_file(place: Place) -> None:
    config = place.configure().removeprefix("--config-file=")
    process, told = pipe_to(
        lambda writer: place.start(
            "--nofork", "--print-address", str(writer), "--config-file", config, pass_fds=[writer]
        )
    )
    is_served(told)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")


@pytest.mark.parametrize("syslog", ["--syslog", "--syslog-only"])
@pytest.mark.parametrize("config", ["--session", "--config-file"])
def test_as_dbus_launch(place: Place, syslog: str, config: str) -> None:
    which = [config]
    if config == "--config-file":
        which.append(place.configure().removeprefix("--config-file="))
    addresses, pids = os.pipe(), os.pipe()
    descriptors = "--print-pid", str(pids[1]), "--print-address", str(addresses[1])
    process = place.start(syslog, "--fork", *descriptors, *which, pass_fds=[pids[1], addresses[1]])
    os.close(pids[1])
    os.close(addresses[1])
    with open(pids[0]) as pipe:
        pid = int(pipe.read())
    place.pids.append(pid)
    with open(addresses[0]) as pipe:
        is_served(pipe.read())
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    os.kill(pid, signal.SIGTERM)
    ended(pid)


def test_as_dbusmock(place: Place) -> None:
    process = place.start(place.configure(), "--print-pid=1")
    assert line(process) == f"{process.pid}\n"
    is_served(place.address)


def test_as_old_dbusmock(place: Place) -> None:
    lines, pid = place.fork(place.configure())
    assert len(lines) == 2
    assert ADDRESS.fullmatch(lines[0])
    is_served(lines[0])
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}


def test_as_python_sdbus(place: Place) -> None:
    config = place.configure("<pidfile>{directory}/pid</pidfile>")
    process = place.start("--config-file", config.removeprefix("--config-file="), "--fork")
    process.communicate(timeout=60)
    assert process.returncode == 0
    pid = int((place.path / "pid").read_text())
    place.pids.append(pid)
    is_served(place.address)
    os.kill(pid, signal.SIGTERM)
    ended(pid)
    assert sorted(path.name for path in place.path.iterdir()) == ["bus.conf"]


ACCESSIBILITY = """
  <type>accessibility</type>
  <servicedir>/usr/share/dbus-1/accessibility-services</servicedir>
  <listen>unix:tmpdir=/tmp</listen>
"""


def test_as_at_spi_bus_launcher(place: Place) -> None:
    (place.path / "at-spi").mkdir()
    where = f"unix:path={place.path}/at-spi/bus_77"
    _, told = pipe_to(
        lambda writer: place.start(
            place.configure(ACCESSIBILITY),
            "--nofork",
            "--print-address",
            str(writer),
            f"--address={where}",
            pass_fds=[writer],
        )
    )
    assert told.startswith(where + ",guid=")
    is_served(told)


# systemd's units and sockets

PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """What systemd does for a service: opens its sockets, starts it, hears when it is ready."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(place.path / "notify"))
        (place.path / "notify").chmod(0o777)
        self.notices.settimeout(30)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.place.path / "bus"))
            (self.place.path / "bus").chmod(0o666)
            listening.listen()
            fd = listening.fileno()
            return self.place.start(
                *arguments,
                before=[sys.executable, "-c", PASS, str(fd)],
                pass_fds=[fd],
                env={
                    **os.environ,
                    "LISTEN_FDS": "1",
                    "LISTEN_FDNAMES": "dbus.socket",
                    "NOTIFY_SOCKET": str(self.place.path / "notify"),
                    "INVOCATION_ID": "0" * 32,
                },
            )

    def hear(self) -> str:
        return self.notices.recv(1000).decode()


@pytest.fixture
def manager(place: Place) -> Iterator[Manager]:
    manager = Manager(place)
    yield manager
    manager.notices.close()


def reload_command(place: Place, program: Program) -> list[str]:
    return [
        program("dbus-send"),
        "--print-reply",
        f"--bus={place.address}",
        "--type=method_call",
        "--dest=org.freedesktop.DBus",
        "/",
        "org.freedesktop.DBus.ReloadConfig",
    ]


def served_by(manager: Manager, which: str, program: Program) -> int:
    """Start it as `which` (--system, --session) by systemd, reload and end it; its uid."""
    place = manager.place
    process = manager.start(
        which,
        "--address=systemd:",
        "--nofork",
        "--nopidfile",
        "--systemd-activation",
        "--syslog-only",
    )
    assert manager.hear() == "READY=1"
    uid = Path(f"/proc/{process.pid}").stat().st_uid
    is_served(place.address)
    for command in (reload_command(place, program), ["sh", "-c", f"kill -HUP {process.pid}"]):
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        told = manager.hear()
        assert told.startswith("RELOADING=1")
        if place.kind == "afdbus":
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told)
        assert manager.hear() == "READY=1"
    process.terminate()
    assert manager.hear() == "STOPPING=1"
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert (place.path / "bus").is_socket(), "it is systemd's and stays"
    return uid


def test_as_systemds_user_unit(manager: Manager, program: Program) -> None:
    assert served_by(manager, "--session", program) == os.geteuid()


def user_of_the_system_bus() -> int:
    try:
        return pwd.getpwnam("messagebus").pw_uid
    except KeyError:
        pytest.skip("there is no user messagebus")


@only_root
def test_as_systemds_system_unit(manager: Manager, program: Program) -> None:
    program("dbus-daemon")  # it comes with that user and with system.conf
    assert served_by(manager, "--system", program) == user_of_the_system_bus()


# It runs start-stop-daemon, which does no more than that.  `read` waits for the test.
INIT = """
mount -t tmpfs tmpfs /run || exit
mkdir /run/dbus
chown messagebus /run/dbus
"$@" || exit
cat /run/dbus/pid
read go
kill "$(cat /run/dbus/pid)"
read gone
ls /run/dbus
"""


@only_root
def test_as_init_d(place: Place, program: Program) -> None:
    """In a mount namespace of its own, since the system bus is at a fixed place."""
    program("dbus-daemon")
    user_of_the_system_bus()
    mount_namespaces()
    process = place.start(
        "--system",
        before=["unshare", "--mount", "/bin/sh", "-c", INIT, "sh"],
        stdin=subprocess.PIPE,
    )
    told = line(process)
    assert told, process.communicate(timeout=30)
    pid = int(told)
    place.pids.append(pid)
    is_served(f"unix:path=/proc/{pid}/root/run/dbus/system_bus_socket")
    assert Path(f"/proc/{pid}").stat().st_uid == user_of_the_system_bus()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    ended(pid)
    out, err = process.communicate("\n", timeout=30)
    assert (process.returncode, out) == (0, ""), err


# the launchers themselves


def test_dbus_run_session(place: Place, program: Program) -> None:
    launcher = program("dbus-run-session")
    asked = subprocess.run(
        [
            launcher,
            f"--dbus-daemon={place.script()}",
            "--",
            *(program("dbus-send"), "--session", "--print-reply=literal"),
            *("--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetNameOwner"),
            "string:org.freedesktop.DBus",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert asked.stdout.strip() == "org.freedesktop.DBus"


GTESTDBUS = """
import gi
gi.require_version("Gio", "2.0")
from gi.repository import Gio
for _ in range(3):
    bus = Gio.TestDBus.new(Gio.TestDBusFlags.NONE)
    bus.up()
    connection = Gio.bus_get_sync(Gio.BusType.SESSION)
    print(connection.get_unique_name(), bus.get_bus_address() is not None)
    del connection
    bus.down()
"""


def test_gtestdbus(place: Place, program: Program) -> None:
    python = program("/usr/bin/python3")  # the one that has Debian's gi
    program("gdbus")
    if subprocess.run([python, "-c", "import gi"], capture_output=True, check=False).returncode:
        program("python3-gi")
    told = subprocess.run(
        [python, "-c", GTESTDBUS],
        env={**os.environ, "G_TEST_DBUS_DAEMON": place.script()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    names = [one.split() for one in told.stdout.splitlines()]
    assert len(names) == 3
    assert all(name.startswith(":") and there == "True" for name, there in names)
