"""Real daemons: the reference's and ours, started and stopped in one way."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.client import TIMEOUT, RawClient
from kit.waiting import until

DAEMONS = {
    "dbus-daemon": [shutil.which("dbus-daemon") or "dbus-daemon"],
    "afdbus": [sys.executable, "-m", "afdbus.daemon_cli"],
}

OPEN_POLICY = """
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>"""

DOCTYPE = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">"""


def busconfig(
    more: str = "",
    *,
    listen: str = "unix:path={directory}/bus",
    auth: str | None = "EXTERNAL",
    policy: str = OPEN_POLICY,
    **limits: int,
) -> str:
    """The text of a configuration file; `{directory}` in `listen` becomes the daemon's own."""
    lines = [DOCTYPE, "<busconfig>", "  <type>session</type>", f"  <listen>{listen}</listen>"]
    if auth is not None:
        lines.append(f"  <auth>{auth}</auth>")
    lines += [policy, more]
    lines += [f'  <limit name="{name}">{value}</limit>' for name, value in limits.items()]
    return "\n".join([*lines, "</busconfig>", ""])


def group_alive(group: int) -> bool:
    """Whether a process of that process group still runs.

    What has ended and waits for an init that does not care runs no more.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


class Daemon:
    """A running daemon.  `address` as printed, `pid`, `directory` (its own, removed at the end)."""

    def __init__(self, kind: str, config: str | None = None, arguments: list[str] | None = None):
        """Start `kind` with the text of a configuration; wait until it has printed its address."""
        self.kind = kind
        # not pytest's tmp_path: a socket path has at most 107 bytes, and other users must enter
        self.directory = Path(tempfile.mkdtemp(prefix="bus-"))
        self.directory.chmod(0o755)
        self.config_file = self.directory / "bus.conf"
        text = busconfig() if config is None else config
        self.config_file.write_text(text.replace("{directory}", str(self.directory)))
        self.stderr_file = self.directory / "stderr"
        self.clients: list[RawClient] = []
        self.control: RawClient | None = None
        self.idle_names: list[str] = []
        self.idle_fds = 0
        self.address = ""
        self.arrived = False
        self.process = self.start([f"--config-file={self.config_file}", *(arguments or [])])
        self.pid = self.process.pid

    def environment(self) -> dict[str, str]:
        drop = ("DBUS_", "LISTEN_", "NOTIFY_SOCKET")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
        # a bug of ours in one peer's turn shall end the daemon under test, loudly (P5)
        return {**kept, "AFDBUS_STRICT": "1", "XDG_RUNTIME_DIR": str(self.directory)}

    def start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        reading, writing = os.pipe()
        try:
            with self.stderr_file.open("wb") as stderr:
                process = subprocess.Popen(
                    [*DAEMONS[self.kind], "--nofork", f"--print-address={writing}", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=[writing],
                    env=self.environment(),
                    start_new_session=True,
                )
            os.close(writing)
            writing = -1
            line = self.read_line(reading)
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        if not line.endswith("\n"):
            self.abandon(process)
            raise AssertionError(f"{self.kind} printed no address: {line!r}\n{self.log()}")
        self.address = line.rstrip("\n").split(";")[0]
        return process

    def read_line(self, fd: int) -> str:
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], TIMEOUT)[0]:
                break
            piece = os.read(fd, 4096)
            if not piece:
                break
            line += piece
        return line.decode()

    def log(self) -> str:
        text = self.stderr_file.read_text(errors="replace") if self.stderr_file.exists() else ""
        return f"--- what {self.kind} wrote:\n{text}---"

    def until_logged(self, *texts: str) -> None:
        """Wait until all the texts are in the log, which is written by and by."""
        until(
            lambda: all(text in self.log() for text in texts),
            lambda: f"not logged: {[t for t in texts if t not in self.log()]}\n{self.log()}",
        )

    def reconfigure(self, client: RawClient, text: str) -> None:
        """Let `client`, who is on the bus, have another configuration read.

        So a deadline can be short for what comes, where what was before need not be quick.
        """
        self.config_file.write_text(text.replace("{directory}", str(self.directory)))
        answer = client.bus("ReloadConfig")
        assert answer.brief == ("return",), answer

    # -- clients

    def dial(self, uid: int | None = None, gids: Sequence[int] | None = None) -> RawClient:
        """A connection on which nothing was said yet."""
        client = RawClient(self.address, uid, gids)
        self.clients.append(client)
        return client

    def join(
        self, *, unix_fds: bool = True, uid: int | None = None, gids: Sequence[int] | None = None
    ) -> RawClient:
        """A client that is authenticated but has not said Hello."""
        client = self.dial(uid, gids)
        client.authenticate(unix_fds)
        return client

    def connect(self, *, unix_fds: bool = True, uid: int | None = None) -> RawClient:
        """A client on the bus, with a unique name."""
        client = self.join(unix_fds=unix_fds, uid=uid)
        client.hello()
        return client

    def open_fds(self) -> int:
        self.arrive()
        return self.count_fds()

    def count_fds(self, what: str = "") -> int:
        """How many descriptors it has open, those only whose name begins with `what`."""
        found = 0
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += os.readlink(path).startswith(what)
        return found

    def arrive(self) -> None:
        """Wait until ours has come to trio, if somebody wants to measure it.

        It serves before, but has not yet opened all its descriptors, nor taken all its memory.
        """
        if self.arrived or self.kind == "dbus-daemon":
            return
        deadline = time.monotonic() + TIMEOUT
        while self.count_fds("anon_inode:[eventpoll]") < 2:
            assert time.monotonic() < deadline, f"it does not come to trio\n{self.log()}"
            select.select([], [], [], 0.005)
        # Whoever is answered from now on is answered by a loop in trio.
        with RawClient(self.address) as visitor:
            visitor.send_bytes(b"\0")
            visitor.send_line("AUTH")
            visitor.read_line()
            fds = self.count_fds()
        while self.count_fds() >= fds:
            assert time.monotonic() < deadline, f"the visitor is still there\n{self.log()}"
        self.arrived = True

    def settle(self) -> None:
        """Close the clients of a test and wait until the daemon has forgotten them all.

        A descriptor or a name that stays is a leak, and fails.
        """
        if self.control is None:
            return
        for client in self.clients:
            client.close()
        self.clients.clear()
        deadline = time.monotonic() + TIMEOUT
        while True:
            self.control.sync()
            names = sorted(self.control.bus("ListNames").args[0])
            fds = self.open_fds()
            if names == self.idle_names and fds <= self.idle_fds:
                return
            if time.monotonic() > deadline:
                expected = self.idle_names, self.idle_fds
                self.idle_names, self.idle_fds = names, fds  # told once is enough
                raise AssertionError(
                    f"left behind: names and number of descriptors are {names, fds} instead of "
                    f"{expected}\n{self.log()}"
                )

    def watch(self) -> None:
        """From now on `settle` compares with the present."""
        self.control = RawClient(self.address)
        self.control.authenticate()
        self.control.hello()
        self.idle_names = sorted(self.control.bus("ListNames").args[0])
        self.idle_fds = self.open_fds()

    # -- the end

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """SIGTERM; the daemon must exit with 0, take its socket along and leave no process."""
        try:
            assert self.process.poll() is None, (
                f"{self.kind} ended by itself with {self.process.returncode}\n{self.log()}"
            )
            self.process.send_signal(signal.SIGTERM)
            try:
                status = self.process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{self.kind} ignores SIGTERM\n{self.log()}") from None
            assert status == 0, f"{self.kind} exited with {status}\n{self.log()}"
            left = [path.name for path in self.directory.iterdir() if path.is_socket()]
            assert not left, f"sockets left behind: {left}"
            # dbus-daemon's babysitters notice its end by themselves.
            deadline = time.monotonic() + TIMEOUT
            while group_alive(self.pid):
                assert time.monotonic() < deadline, "processes left behind"
        finally:
            self.abandon(self.process)
            if self.control is not None:
                self.control.close()
            for client in self.clients:
                client.close()
            shutil.rmtree(self.directory)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop()
