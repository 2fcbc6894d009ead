"""As the bus of a whole system, under the distribution's own configuration."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import DAEMONS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a system bus is started by root")

DEMO = Path(__file__).parents[2] / "contrib" / "system-bus-demo"
CONFIG = "/usr/share/dbus-1/system.conf"
HELPER = "/usr/lib/dbus-1.0/dbus-daemon-launch-helper"
ASKED = ("com.example.Echo", "org.freedesktop.hostname1")


def demo(kind: str, config: str = CONFIG) -> list[str]:
    """What the demonstration says of this daemon, without numbers of processes."""
    only = [word for name in ASKED for word in ("--only", name)]
    command = [str(DEMO), *only, *DAEMONS[kind], f"--config-file={config}"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False
    )
    lines = done.stdout.splitlines()[1:]
    return [" ".join(word for word in line.split() if not word.isdigit()) for line in lines]


@pytest.fixture
def expected(program: Callable[[str], str]) -> list[str]:
    """What it says of dbus-daemon."""
    for name in ("dbus-daemon", "dbus-test-tool", "busctl", "unshare", HELPER):
        program(name)
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc"]
    mount = ["mount", "-t", "tmpfs", "tmpfs", "/run"]
    if subprocess.run([*namespaces, *mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces of our own are not allowed here")
    lines = demo("dbus-daemon")
    if len(lines) != 3 or any(line.startswith("NO") for line in lines):
        pytest.skip(f"dbus-daemon is no system bus here: {lines}")
    assert lines[0] == "ok com.example.Echo, process of nobody:"
    assert lines[2] == "the bus runs as messagebus"
    return lines


def test_services_are_started_by_the_setuid_helper(expected: list[str]) -> None:
    assert demo("afdbus") == expected


def test_services_are_started_without_a_helper(expected: list[str], tmp_path: Path) -> None:
    text, count = re.subn("<servicehelper>.*</servicehelper>", "", Path(CONFIG).read_text())
    assert count == 1
    config = tmp_path / "system.conf"
    folder = Path(CONFIG).parent
    config.write_text(text.replace("<includedir>system.d", f"<includedir>{folder}/system.d"))
    assert demo("afdbus", str(config)) == expected
