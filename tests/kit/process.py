"""A daemon of ours as a process, with any arguments."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from kit.client import TIMEOUT
from kit.daemon import DAEMONS


class Process:
    """A daemon of ours with any arguments; `lines` are what it has printed as its addresses."""

    def __init__(
        self, arguments: list[str], count: int, command: list[str] | None = None, **more: str
    ) -> None:
        """Wait until `count` addresses are printed.  `more` is added to the environment."""
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [
                *(command or []), *DAEMONS["afdbus"],
                "--nofork", f"--print-address={writing}", *arguments,
            ],
            pass_fds=[writing],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "AFDBUS_STRICT": "1", **more},
        )  # fmt: skip
        os.close(writing)
        with open(reading) as lines:
            self.lines = [lines.readline().rstrip("\n") for _ in range(count)]
            self.rest = lines.read()

    def stop(self) -> str:
        """What it has written to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, errors
        return str(errors)


Run = Callable[..., Process]


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[Process] = []

    def begin(
        arguments: list[str], count: int, command: list[str] | None = None, **more: str
    ) -> Process:
        started.append(Process(arguments, count, command, **more))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
