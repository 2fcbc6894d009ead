"""Services whose end the test decides, on either daemon.

What is started is a shell that waits until the test says how it shall end; the name is taken by a
client of the test.  So nothing depends on who is quicker.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Any

from kit.client import TIMEOUT
from kit.daemon import Daemon, busconfig

NAME = "com.example.Started"
DIRECTORY = "<servicedir>{directory}/services</servicedir>"


class Services:
    """A daemon with a directory of services, and what its programs do there."""

    def __init__(self, kind: str, **config: Any) -> None:
        self.daemon = Daemon(kind, busconfig(DIRECTORY, **config))
        self.home = self.daemon.directory
        (self.home / "services").mkdir()
        self.fifos: dict[str, int] = {}
        self.daemon.watch()

    def provide(self, name: str, command: str, file: str = "") -> Path:
        path = self.home / "services" / (file or f"{name}.service")
        # whole at once: dbus-daemon may look at any time
        new = self.home / "new"
        new.write_text(f"[D-BUS Service]\nName={name}\nExec={escaped(command)}\n")
        new.rename(path)
        return path

    def wait(self, name: str = NAME, tag: str = "program") -> None:
        """Provide a program that tells that it was started, and waits to be told its end."""
        fifo = self.home / f"{tag}.fifo"
        os.mkfifo(fifo)
        self.fifos[tag] = os.open(fifo, os.O_RDWR)
        self.provide(
            name,
            f"/bin/sh -c 'echo $$ >>{self.home}/{tag}.started; read end <{fifo}; "
            "case $end in kill) kill -9 $$;; esac; exit $end'",
        )

    def end(self, how: str | int, tag: str = "program") -> None:
        """Let the program end: with a status, or by SIGKILL."""
        os.write(self.fifos[tag], f"{how}\n".encode())

    def started(self, tag: str = "program") -> list[int]:
        """The pids of the programs that have been started so far."""
        file = self.home / f"{tag}.started"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def until_started(self, count: int = 1, tag: str = "program") -> None:
        """Wait until so many were.

        Who takes the name before has dbus-daemon forget the program, which may then never be.
        """
        deadline = time.monotonic() + TIMEOUT
        while len(self.started(tag)) < count:
            assert time.monotonic() < deadline, f"{tag} was not started"

    def text(self, file: str) -> str:
        return (self.home / file).read_text()

    def stop(self) -> None:
        """Whoever still waits for its end is let go; then the daemon ends."""
        for tag, fifo in self.fifos.items():
            os.write(fifo, b"0\n" * 10)
            for pid in self.started(tag):
                wait_for_end(pid)
            os.close(fifo)
        self.daemon.stop()


def wait_for_end(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([fd], [], [], TIMEOUT)
    os.close(fd)
    assert ended, "a program that was started goes on"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
