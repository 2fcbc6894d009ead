"""Starting and ending a daemon as its launchers do, the reference and ours."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kit import DAEMONS, RawClient, call
from places import ADDRESS, Place, ended, line, mount_namespaces

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")

def test_address_and_pid_on_descriptors_of_their_own(place: Place) -> None:
    addresses, pids = os.pipe(), os.pipe()
    process = place.start(
        "--print-pid",
        str(pids[1]),
        "--print-address",
        str(addresses[1]),
        place.configure(),
        pass_fds=[pids[1], addresses[1]],
    )
    os.close(pids[1])
    os.close(addresses[1])
    with open(addresses[0]) as pipe:
        assert ADDRESS.fullmatch(pipe.read().rstrip("\n"))
    with open(pids[0]) as pipe:
        assert pipe.read() == f"{process.pid}\n"


def test_the_last_listen_is_printed_first(place: Place) -> None:
    config = place.configure(
        "<listen>unix:path={directory}/two</listen><listen>unix:path={directory}/three</listen>"
    )
    told = line(place.start(config, "--print-address")).split(";")
    assert [Path(match[1]).name for one in told if (match := ADDRESS.match(one))] == [
        "three",
        "two",
        "bus",
    ]
    assert len({one.partition("guid=")[2] for one in told}) == 3


def test_address_overrides_listen(place: Place) -> None:
    where = place.path / "other"
    process = place.start(place.configure(), f"--address=unix:path={where}", "--print-address")
    told = ADDRESS.match(line(process))
    assert told
    assert told[1] == str(where)
    assert not place.is_listening()


def test_fork_in_the_configuration(place: Place) -> None:
    process = place.start(place.configure("<fork/>"), "--print-pid")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    place.pids.append(int(out))
    assert int(out) != process.pid


def test_nofork_beats_the_configuration(place: Place) -> None:
    process = place.start(place.configure("<fork/>"), "--print-pid", "--nofork")
    assert int(line(process)) == process.pid


@pytest.mark.parametrize(("more", "umask"), [("", "0022"), ("<keep_umask/>", "0077")])
def test_umask_of_a_forked_daemon(place: Place, more: str, umask: str) -> None:
    before = os.umask(0o077)
    try:
        _, pid = place.fork(place.configure(more))
    finally:
        os.umask(before)
    assert place.answer()
    assert f"Umask:\t{umask}\n" in Path(f"/proc/{pid}/status").read_text()


def test_umask_of_one_in_the_foreground_stays(place: Place) -> None:
    process = place.start(place.configure(), "--print-pid", umask=0o027)
    line(process)
    assert "Umask:\t0027\n" in Path(f"/proc/{process.pid}/status").read_text()


def test_standard_descriptors_may_be_closed(place: Place) -> None:
    reader, writer = os.pipe()
    command = [*DAEMONS[place.kind], place.configure(), f"--print-address={writer}"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], pass_fds=[writer], text=True
    )
    place.processes.append(process)
    os.close(writer)
    with open(reader) as pipe:
        assert ADDRESS.fullmatch(pipe.readline().rstrip("\n"))
    assert place.is_listening()
    for fd in 0, 1, 2:
        assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"


def test_the_fd_limit_is_raised(place: Place) -> None:
    process = place.start(place.configure(), "--print-pid")
    line(process)
    place.answer()
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    soft, hard = re.search(r"Max open files +(\S+) +(\S+)", limits).groups()  # type: ignore[union-attr]
    assert soft == hard or int(soft) >= 65536


# Nothing can be written anywhere; no machine id, no system log, no /proc, no environment.
BARE = """
mount -o remount,ro,bind / &&
mount -t tmpfs -o ro tmpfs /run &&
mount -t tmpfs -o ro tmpfs /dev/shm &&
for file in /etc/machine-id /var/lib/dbus/machine-id; do
    test ! -e $file || mount --bind /dev/null $file || exit
done
mount -t tmpfs -o ro tmpfs /proc || exit
exec env -i "$@"
"""


@only_root
def test_on_a_bare_system(place: Place) -> None:
    mount_namespaces()
    process = place.start(
        place.configure("<syslog/>"),
        f"--address=unix:abstract={place.path}",
        "--print-address",
        before=["unshare", "--mount", "/bin/sh", "-c", BARE, "sh"],
    )
    with RawClient(line(process).rstrip("\n")) as client:
        client.authenticate()
        client.hello()
        machine = client.ask(call("GetMachineId", interface="org.freedesktop.DBus.Peer"))
        assert machine.brief[0] == "error"
        client.alive()
    process.terminate()
    assert process.wait(30) == 0


# The system log, in a mount namespace of its own since it is at a fixed place.
SYSTEM_LOG = """
mkdir "$0/dev" && mount --bind /dev "$0/dev" && mount -t tmpfs tmpfs /dev &&
for file in null zero random urandom; do
    touch /dev/$file && mount --bind "$0/dev/$file" /dev/$file || exit
done
ln -s "$0/log" /dev/log
exec "$@"
"""


@only_root
@pytest.mark.parametrize(
    ("option", "configured", "on_stderr"),
    [("--syslog-only", "", False), ("--syslog", "", True), ("--nofork", "<syslog/>", True)],
)
def test_lines_of_the_system_log(
    place: Place, option: str, configured: str, on_stderr: bool
) -> None:
    mount_namespaces()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(place.path / "log"))
        log.settimeout(30)
        process = place.start(
            place.configure(configured),
            option,
            "--print-address",
            before=["unshare", "--mount", "/bin/sh", "-c", SYSTEM_LOG, str(place.path)],
        )
        assert line(process)
        place.answer()
        process.send_signal(signal.SIGHUP)
        told = ""
        while "Reloaded" not in told:
            # libc writes the time, which whoever receives it knows
            told = re.sub(r"^(<\d+>)\w{3} [ \d]\d \d\d:\d\d:\d\d ", r"\1", log.recv(1000).decode())
    text = f"[session uid={os.geteuid()} pid={process.pid}] Reloaded configuration"
    assert told == f"<30>dbus-daemon[{process.pid}]: {text}"
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert (text in err) == on_stderr


@only_root
def test_privileges_are_dropped(place: Place) -> None:
    process = place.start(place.configure("<user>nobody</user>"), "--print-pid")
    line(process)
    assert place.answer().startswith(b"REJECTED")
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(r"^Uid:(\t65534){4}$", status, re.MULTILINE)
    assert re.search(r"^Groups:\s*$", status, re.MULTILINE)


# pid file


def test_pid_file_is_written_and_removed(place: Place) -> None:
    process = place.start(
        place.configure("<pidfile>{directory}/pid</pidfile>"), "--print-pid", "--nofork"
    )
    assert line(process) == (place.path / "pid").read_text() == f"{process.pid}\n"
    place.answer()
    process.terminate()
    assert process.wait(30) == 0
    assert not (place.path / "pid").exists()


def test_nopidfile(place: Place) -> None:
    config = place.configure("<pidfile>{directory}/pid</pidfile>")
    (place.path / "pid").write_text("1\n")
    process = place.start(config, "--print-pid", "--nopidfile")
    assert line(process) == f"{process.pid}\n"
    place.answer()
    process.terminate()
    assert process.wait(30) == 0
    assert (place.path / "pid").read_text() == "1\n"


def test_p40_a_live_daemons_pid_file(place: Place) -> None:
    config = place.configure("<pidfile>{directory}/pid</pidfile>")
    first = place.start(config, "--print-pid")
    line(first)
    where = f"--address=unix:path={place.path}/other"
    second = place.start(config, where, "--print-address")
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out) == (1, "")
    assert "exists, if the message bus is not running, remove this file" in err
    assert (place.path / "pid").read_text() == f"{first.pid}\n"
    assert not (place.path / "other").exists()


# the end


@pytest.mark.parametrize("fork", [False, True])
def test_sigterm_is_an_orderly_end(place: Place, fork: bool) -> None:
    if fork:
        _, pid = place.fork(place.configure())
    else:
        process = place.start(place.configure(), "--print-pid")
        pid = int(line(process))
    place.answer()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.path / "bus"))
        os.kill(pid, signal.SIGTERM)
        if fork:
            ended(pid)
        else:
            assert process.wait(30) == 0
    assert not os.path.lexists(place.path / "bus")


OURS = pytest.mark.parametrize("kind", ["afdbus"], indirect=True)


@OURS
def test_sigterm_at_any_time_is_an_orderly_end(place: Place) -> None:
    # dbus-daemon has a gap here, but a short one; ours still imports when the address is printed.
    config = place.configure()
    delays = (0.0, 0.01, 0.03, 0.05, 0.07, 0.09, 0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.17, 0.2)
    for delay in delays:
        process = place.start(config, "--print-address")
        line(process)
        with subprocess.Popen(["sleep", str(delay)]) as waiting:
            waiting.wait()
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert not os.path.lexists(place.path / "bus")


@OURS
def test_p40_a_stale_pid_file_is_replaced_and_it_is_said(place: Place) -> None:
    config = place.configure("<pidfile>{directory}/pid</pidfile>")
    first = place.start(config, "--print-pid")
    line(first)
    first.kill()
    first.wait()
    second = place.start(config, "--print-pid")
    assert line(second) == f"{second.pid}\n" == (place.path / "pid").read_text()
    place.answer()
    second.terminate()
    _, err = second.communicate(timeout=30)
    assert f'The pid file "{place.path}/pid" was left by a process that is gone' in err


@OURS
def test_p40_a_second_bus_does_not_take_the_socket(place: Place) -> None:
    config = place.configure()
    line(place.start(config, "--print-address"))
    second = place.start(config, "--print-address")
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out) == (1, "")
    assert f'Failed to bind socket "{place.path}/bus": Address already in use' in err
    assert place.is_listening()


@OURS
def test_ready_fd(place: Place) -> None:
    reader, writer = os.pipe()
    place.start(place.configure(), f"--ready-fd={writer}", pass_fds=[writer])
    os.close(writer)
    with open(reader) as pipe:
        assert pipe.read() == "READY=1\n"


@OURS
@pytest.mark.parametrize("descriptor", ["nobody reads", "none"])
def test_ready_fd_that_nobody_waits_for(place: Place, descriptor: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    number = 999 if descriptor == "none" else writer
    process = place.start(place.configure(), f"--ready-fd={number}", pass_fds=[writer])
    os.close(writer)
    assert process.stderr is not None
    while not place.is_listening():
        assert process.poll() is None
    place.answer()
    process.terminate()
    assert process.wait(30) == 0


@OURS
@only_root
def test_p31_everything_is_imported_before_privileges_go(place: Place) -> None:
    """A copy of the package that only root can read is enough for a daemon of another user."""
    import afdbus

    private = place.path / "private"
    private.mkdir(mode=0o700)
    shutil.copytree(Path(afdbus.__file__).parent, private / "afdbus")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "afdbus.daemon_cli"),
            place.configure("<user>nobody</user>"),
            "--print-address",
        ],
        cwd=private,
        env={**os.environ, "PYTHONPATH": str(private)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    place.processes.append(process)
    line(process)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.path / "bus"))
        client.sendall(b"\0AUTH EXTERNAL 30\r\n")
        assert client.recv(100).startswith(b"OK ")
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_p22_ctrl_c_ends_in_order(place: Place) -> None:
    """Whatever is going on, and told to the shell as it expects; dbus-daemon leaves its files."""
    process = place.start(place.configure(), "--print-address")
    line(process)
    place.answer()
    for _ in range(20):
        process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if place.kind == "dbus-daemon":
        assert process.returncode == -signal.SIGINT
        return
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in errors
    assert sorted(path.name for path in place.path.iterdir()) == ["bus.conf"]
