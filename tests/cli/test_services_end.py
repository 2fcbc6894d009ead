"""What becomes of services when the daemon ends."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest
from kit import Daemon, busconfig, call
from kit.client import TIMEOUT

NAME = "com.example.Long"


def ended(pidfd: int, seconds: float = TIMEOUT) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


@pytest.mark.parametrize("type_", ["session", "system"])
def test_they_end_with_a_session_bus_and_not_with_a_system_bus(
    type_: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / f"{NAME}.service").write_text(
        f"[D-BUS Service]\nName={NAME}\nExec=/bin/sh -c 'echo $$ >{fifo}; exec sleep 1000'\n"
    )
    config = busconfig(f"<servicedir>{tmp_path}</servicedir>")
    daemon = Daemon("afdbus", config.replace("<type>session", f"<type>{type_}"))
    pidfd = -1
    try:
        daemon.connect().send(call("StartServiceByName", "su", NAME, 0))
        pid = int(fifo.read_text())
        pidfd = os.pidfd_open(pid)
    finally:
        daemon.stop()
    try:
        if type_ == "session":
            assert ended(pidfd)
        else:
            assert not ended(pidfd, 0)
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
