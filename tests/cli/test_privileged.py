"""Our own privileged launcher: a bus that has dropped its privileges starts services as others."""

from __future__ import annotations

import grp
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import BUS, DAEMONS, Daemon, busconfig, call, peer_call
from kit.client import TIMEOUT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")

NAME = "com.example.Served"
USER = "daemon"  # who is neither root nor the bus, and exists everywhere


class World:
    """A bus of nobody's, and a directory that is root's alone."""

    def __init__(self, folder: Path, type_: str = "system", **config: Any) -> None:
        self.services = folder / "services"
        self.services.mkdir()
        self.out = folder / "out"
        self.out.mkdir()
        self.out.chmod(0o777)
        text = busconfig(
            f"<user>nobody</user><servicedir>{self.services}</servicedir>",
            listen="unix:abstract={directory}/bus",
            **config,
        )
        self.daemon = Daemon("afdbus", text.replace("<type>session", f"<type>{type_}"))
        self.daemon.connect()  # then it is there: the address is printed before
        self.launcher = 0
        for pid in children(self.daemon.pid):
            assert not self.launcher
            self.launcher = pid

    def provide(self, command: str, name: str = NAME, more: str = f"User={USER}") -> Path:
        file = self.services / f"{name}.service"
        file.write_text(f"[D-BUS Service]\nName={name}\nExec={command}\n{more}\n")
        return file

    def wait_for(self, file: str) -> str:
        """What a service has written there, by renaming a finished file."""
        deadline = time.monotonic() + TIMEOUT
        while not (self.out / file).exists():
            assert time.monotonic() < deadline, f"no {file}\n{self.daemon.log()}"
        return (self.out / file).read_text()


def children(parent: int) -> Iterator[int]:
    """The pids of a process's children."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # gone meanwhile
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            yield int(stat.parent.name)


def has_ended(pidfd: int, seconds: float = TIMEOUT) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that others may enter, as pytest's may not be."""
    path = Path(tempfile.mkdtemp(prefix="bus-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def begin(folder: Path) -> Iterator[Callable[..., World]]:
    running: list[World] = []

    def start(**config: Any) -> World:
        running.append(World(folder, **config))
        return running[-1]

    yield start
    for world in running:
        world.daemon.stop()


def start(name: str = NAME) -> Any:
    return call("StartServiceByName", "su", name, 0)


def test_cve_2012_3524_a_service_is_its_users_own(begin: Callable[..., World]) -> None:
    world = begin()
    script = world.out / "script"
    script.write_text(
        "#!/bin/sh\nenv -0 >environment\ncat /proc/self/status >status\n"
        "cat /proc/self/limits >limits\ncat /proc/self/oom_score_adj >oom\n"
        "umask >umask\necho $$ >pid\nmv pid done\nexec sleep 1000\n"
    )
    script.chmod(0o755)
    world.provide(f"/bin/sh -c 'cd {world.out}; ls /proc/self/fd >fds; exec ./script'")
    alice, bob = world.daemon.connect(), world.daemon.connect()
    alice.send(peer_call(NAME, "A"))
    pid = int(world.wait_for("done"))
    try:
        environment = (world.out / "environment").read_bytes().split(b"\0")
        found = dict(entry.decode().split("=", 1) for entry in environment if entry)
        for name in ("PWD", "OLDPWD", "SHLVL", "_"):  # the shell's
            found.pop(name, None)
        assert found == {
            "DBUS_STARTER_ADDRESS": world.daemon.address,
            "DBUS_STARTER_BUS_TYPE": "system",
            "DBUS_SYSTEM_BUS_ADDRESS": world.daemon.address,
        }
        status = dict(
            line.split(":\t", 1) for line in (world.out / "status").read_text().splitlines()
        )
        user = pwd.getpwnam(USER)
        assert status["Uid"].split() == [str(user.pw_uid)] * 4
        assert status["Gid"].split() == [str(user.pw_gid)] * 4
        groups = {group.gr_gid for group in grp.getgrall() if USER in group.gr_mem}
        assert {int(gid) for gid in status["Groups"].split()} == groups | {user.pw_gid}
        assert int(status["CapEff"], 16) == 0
        assert int(status["SigBlk"], 16) == 0
        (files,) = [
            line
            for line in (world.out / "limits").read_text().splitlines()
            if line.startswith("Max open files")
        ]
        assert files in Path("/proc/self/limits").read_text().splitlines()
        # the last one is the directory that was read
        assert (world.out / "fds").read_text().split() == ["0", "1", "2", "3"]
        assert (world.out / "oom").read_text() == "0\n"
        assert (world.out / "umask").read_text() == "0022\n"
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
    # killed before it had the name
    expected = "Spawn.ChildSignaled", f"Process {NAME} received signal 9"
    answer = alice.read()
    assert (answer.brief[1].removeprefix(f"{BUS}.Error."), answer.brief[2]) == expected
    assert bob.own(NAME) == 1


def test_what_cannot_be_started(begin: Callable[..., World]) -> None:
    world = begin()
    alice = world.daemon.connect()
    world.provide("/bin/false")
    assert alice.refusal(start()) == (
        "Spawn.ChildExited",
        "Launch helper exited with unknown return code 1",
    )
    world.provide("/nonexistent", "com.example.A")
    assert alice.refusal(start("com.example.A"))[0] == "Spawn.ExecFailed"
    world.provide("/bin/false", "com.example.B", "User=who is that")
    assert alice.refusal(start("com.example.B"))[0] == "Spawn.FailedToSetup"
    world.provide("'", "com.example.C")
    assert alice.refusal(start("com.example.C"))[0] == "InvalidArgs"
    world.provide("/bin/false", "com.example.D").chmod(0o666)
    assert alice.refusal(start("com.example.D")) == (
        "Spawn.PermissionsInvalid",
        "The service file is incorrect or does not have all required attributes",
    )
    assert f"{world.services}/com.example.D.service: not root's alone" in world.daemon.log()
    file = world.provide("/bin/false", "com.example.E")
    file.rename(world.services / "x.service")
    assert alice.refusal(start("com.example.E")) == (
        "Spawn.ServiceNotFound",
        "Bus name not found in system service directory",
    )


def test_without_a_user_it_is_the_bus_s_own(begin: Callable[..., World]) -> None:
    world = begin()
    alice = world.daemon.connect()
    world.provide(f"/bin/sh -c 'id -un >{world.out}/done; exit 3'", more="")
    expected = "Spawn.ChildExited", f"Process {NAME} exited with status 3"
    assert alice.refusal(start()) == expected
    assert (world.out / "done").read_text() == "nobody\n"


def test_what_takes_too_long_is_killed(begin: Callable[..., World]) -> None:
    world = begin(service_start_timeout=300)
    alice = world.daemon.connect()
    world.provide("/bin/sleep 1000")
    assert alice.refusal(start())[0] == "TimedOut"
    deadline = time.monotonic() + TIMEOUT
    while list(children(world.launcher)):
        assert time.monotonic() < deadline


def test_the_launcher_holds_nothing_of_the_bus(begin: Callable[..., World]) -> None:
    world = begin()
    folder = Path(f"/proc/{world.launcher}")
    held = {fd.name: os.readlink(fd) for fd in (folder / "fd").iterdir()}
    others = [where for fd, where in held.items() if fd not in "012"]
    assert len(others) == 1
    assert others[0].startswith("socket:")
    status = (folder / "status").read_text().splitlines()
    assert "Uid:\t0\t0\t0\t0" in status
    assert "Threads:\t1" in status
    assert os.readlink(folder / "cwd") == "/"
    status = Path(f"/proc/{world.daemon.pid}/status").read_text().splitlines()
    assert "Uid:\t65534\t65534\t65534\t65534" in status


def test_the_launcher_does_not_hold_the_starters_output(folder: Path) -> None:
    """Who starts a daemon may read what it prints to the end."""
    config = folder / "bus.conf"
    config.write_text(busconfig("<user>nobody</user>", listen=f"unix:abstract={folder}/bus"))
    done = subprocess.run(
        [*DAEMONS["afdbus"], "--fork", f"--config-file={config}", "--print-pid=1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True,
    )  # fmt: skip
    daemon = int(done.stdout)
    pidfd = os.pidfd_open(daemon)
    os.kill(daemon, signal.SIGTERM)
    assert has_ended(pidfd)
    os.close(pidfd)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("type_", ["session", "system"])
def test_the_launcher_ends_with_the_bus(folder: Path, type_: str, how: signal.Signals) -> None:
    world = World(folder, type_)
    world.provide(f"/bin/sh -c 'echo $$ >{world.out}/x; mv {world.out}/x {world.out}/done; "
                  "exec sleep 1000'")  # fmt: skip
    pidfds = [os.pidfd_open(world.launcher)]
    try:
        world.daemon.connect().send(start())
        pid = int(world.wait_for("done"))
        pidfds.append(os.pidfd_open(pid))
        if how == signal.SIGTERM:
            world.daemon.stop()
        else:
            world.daemon.process.kill()
            world.daemon.process.wait()
            with pytest.raises(AssertionError, match="ended by itself"):
                world.daemon.stop()
        assert has_ended(pidfds[0])
        if type_ == "session":
            assert has_ended(pidfds[1])
        else:
            assert not has_ended(pidfds[1], 0)
            os.kill(pid, signal.SIGKILL)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def test_the_bus_lives_on_without_its_launcher(begin: Callable[..., World]) -> None:
    world = begin()
    world.provide("/bin/sleep 1000")
    alice = world.daemon.connect()
    alice.send(start())
    alice.sync()
    service: list[int] = []
    deadline = time.monotonic() + TIMEOUT
    while not service:
        assert time.monotonic() < deadline
        service = list(children(world.launcher))
    os.kill(world.launcher, signal.SIGKILL)
    try:
        answer = alice.read()
        assert answer.brief[1] == f"{BUS}.Error.Spawn.Failed"
        assert list(children(world.daemon.pid)) == []  # it was waited for
        assert alice.refusal(start())[0] == "Spawn.Failed"
        alice.alive()
    finally:
        os.kill(service[0], signal.SIGKILL)


PROGRAM = """
import os, select, sys
from afdbus.server import privileged
config, *names = sys.argv[1:]
_, sock = privileged.fork(privileged.Terms(config, {}, (1024, 1024), False, False), silent=False)
sock.setblocking(True)
for number, name in enumerate(names):
    sock.send(privileged.REQUEST.pack(number) + os.fsencode(name))
    answer, code = privileged.REPORT.unpack(sock.recv(100))
    assert answer == number
    print(code)
sock.send(privileged.REQUEST.pack(7))  # nothing to kill there
sock.send(b"x")
assert sock.recv(100) == b""
print("end", os.wait()[1])
"""


def test_p34_a_bus_that_has_been_taken_over_has_names_alone_to_say(tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.mkdir()
    (tmp_path / "x.service").write_text("[D-BUS Service]\nName=x\nExec=/bin/true\nUser=root\n")
    config = tmp_path / "bus.conf"
    config.write_text(busconfig(f"<servicedir>{services}</servicedir>", listen="unix:tmpdir=/tmp"))
    names = [
        "../x", f"{tmp_path}/x", "..", ".", "x", ":1.1", "a.b/../../x", "a.b\n",
        "a.\udcff", "a" * 300, "com.example.None",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(config), *names],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split() == ["5"] * (len(names) - 1) + ["6", "end", "0"]
    # a broken configuration starts nothing
    config.write_text("nonsense")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(config), NAME],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["3", "end", "0"]
    assert str(config) in done.stderr


def test_a_helper_that_is_named_leaves_nothing_to_do(tmp_path: Path) -> None:
    config = busconfig(
        "<user>nobody</user><servicehelper>/bin/false</servicehelper>",
        listen="unix:abstract={directory}/bus",
    )
    with Daemon("afdbus", config) as daemon:
        daemon.connect()
        assert list(children(daemon.pid)) == []
