"""A daemon that is started as its launchers start it, the reference or ours."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from kit import DAEMONS, busconfig

ADDRESS = re.compile(r"unix:path=([^,;]+),guid=[0-9a-f]{32}")


class Place:
    """A directory with a configuration, and the processes started with it."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.pids: list[int] = []
        self.processes: list[subprocess.Popen[str]] = []

    def configure(self, more: str = "") -> str:
        text = busconfig(more, listen="unix:path={directory}/bus")
        config = self.path / "bus.conf"
        config.write_text(text.replace("{directory}", str(self.path)))
        return f"--config-file={config}"

    @property
    def address(self) -> str:
        """Where `configure` tells it to listen."""
        return f"unix:path={self.path}/bus"

    @property
    def command(self) -> list[str]:
        return DAEMONS[self.kind]

    def script(self) -> str:
        """The daemon as one program, for launchers that want a path."""
        path = self.path / "daemon"
        path.write_text(f'#!/bin/sh\nexec {shlex.join(self.command)} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def start(
        self,
        *arguments: str,
        command: Sequence[str] | None = None,
        before: Sequence[str] = (),
        **options: object,
    ) -> subprocess.Popen[str]:
        """Start it; standard output and error are pipes.

        `command` stands for the daemon's own, `before` is a program that is to exec it.
        """
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        process = subprocess.Popen(  # type: ignore[call-overload]
            [*before, *(command or self.command), *arguments], text=True, **{**pipes, **options}
        )
        self.processes.append(process)
        return process  # type: ignore[no-any-return]

    def fork(self, *arguments: str) -> tuple[list[str], int]:
        """Run it with --fork until the starter exits: the lines printed, the daemon's pid."""
        done = self.start("--fork", "--print-address=1", "--print-pid=1", *arguments)
        out, err = done.communicate(timeout=60)
        assert done.returncode == 0, err
        lines = out.splitlines()
        self.pids.append(int(lines[1]))
        return lines, int(lines[1])

    def is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.path / "bus")) == 0

    def answer(self) -> bytes:
        """What the daemon says to a client; when it says something it has started wholly."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path / "bus"))
            client.sendall(b"\0AUTH\r\n")
            return client.recv(100)

    def clean(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for pid in self.pids:
            if (Path("/proc") / str(pid)).exists():
                os.kill(pid, signal.SIGKILL)


def mount_namespaces() -> None:
    """Skip where we may not have our own view of the file system."""
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip("no mount namespaces here")


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], 30)[0], "it does not end"
    finally:
        os.close(pidfd)
