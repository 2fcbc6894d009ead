"""As the bus of a whole system, under the distribution's own configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import DAEMONS

DEMO = Path(__file__).parents[2] / "contrib" / "system-bus-demo"
CONFIG = "/usr/share/dbus-1/system.conf"
HERE = Path(sys.prefix)
HELPER = "/usr/lib/dbus-1.0/dbus-daemon-launch-helper"
ASKED = ("com.example.Echo", "org.freedesktop.hostname1")


def demo(kind: str, *options: str) -> list[str]:
    """What the demonstration says of this daemon, without numbers of processes."""
    only = [word for name in ASKED for word in ("--only", name)]
    command = [str(DEMO), *only, *DAEMONS[kind], f"--config-file={CONFIG}", *options]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False
    )
    lines = done.stdout.splitlines()[1:]
    return [" ".join(word for word in line.split() if not word.isdigit()) for line in lines]


@pytest.mark.skipif(os.geteuid() != 0, reason="a system bus is started by root")
def test_services_are_started_by_the_setuid_helper(program: Callable[[str], str]) -> None:
    for name in ("dbus-daemon", "dbus-test-tool", "busctl", "unshare", HELPER):
        program(name)
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc"]
    mount = ["mount", "-t", "tmpfs", "tmpfs", "/run"]
    if subprocess.run([*namespaces, *mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces of our own are not allowed here")
    if not all(folder.stat().st_mode & 1 for folder in (HERE, *HERE.parents)):
        pytest.skip(f"messagebus may not read {HERE}")
    theirs = demo("dbus-daemon")
    if len(theirs) != 3 or any(line.startswith("NO") for line in theirs):
        pytest.skip(f"dbus-daemon is no system bus here: {theirs}")
    assert demo("afdbus") == theirs
    assert theirs[0] == "ok com.example.Echo, process of nobody:"
    assert theirs[2] == "the bus runs as messagebus"
