"""The files for service managers: what they are looked over by, and whether what they say works."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from afdbus.config.paths import session_config, system_config
from afdbus.daemon_cli import parse_options

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "config" / "systemd"
# Where a distribution puts it.
PROGRAM = "/usr/bin/afdbus-daemon"


def start_command(unit: Path) -> list[str]:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    return shlex.split(parser["Service"]["ExecStart"])


@pytest.mark.parametrize(
    ("scope", "which", "config"),
    [("system", "--system", system_config()), ("user", "--session", session_config())],
)
def test_units_start_what_dbus_daemons_units_start(scope: str, which: str, config: str) -> None:
    """`test_launchers.py` tries it."""
    program, *arguments = start_command(UNITS / scope / "afdbus.service")
    assert program == PROGRAM
    assert arguments == [
        which,
        "--address=systemd:",
        "--nofork",
        "--nopidfile",
        "--systemd-activation",
        "--syslog-only",
    ]
    assert parse_options(arguments).config_file == config


@pytest.mark.parametrize("scope", ["system", "user"])
def test_systemd_finds_nothing_wrong_with_the_units(
    scope: str, tmp_path: Path, program: Callable[[str], str]
) -> None:
    names = []
    for unit in sorted((UNITS / scope).iterdir()):
        names.append(str(tmp_path / unit.name))
        Path(names[-1]).write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    (tmp_path / "dbus.service").symlink_to("afdbus.service")  # as enabling it does
    told = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", f"--{scope}", *names],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Of units that are installed here it may have much to say.
    ours = [line for line in told.stderr.splitlines() if str(tmp_path) in line or "afdbus" in line]
    assert ours == []
    assert told.returncode == 0, told.stderr


def test_systemd_understands_the_user(program: Callable[[str], str]) -> None:
    told = subprocess.run(
        [program("systemd-sysusers"), "--dry-run", ROOT / "config/sysusers.d/afdbus.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_the_script_for_openrc(program: Callable[[str], str]) -> None:
    """Its variables make a command that we understand; it is a shell's, and OpenRC reads it so."""
    script = ROOT / "contrib/openrc/afdbus.initd"
    told = subprocess.run(
        [program("sh"), "-euc", 'AFDBUS_ARGS=; . "$1"; echo $command $command_args', "sh", script],
        capture_output=True,
        text=True,
        check=True,
    )
    program_, *arguments = told.stdout.split()
    assert program_ == PROGRAM
    options = parse_options(arguments)
    assert (options.config_file, options.fork, options.pidfile) == (system_config(), False, False)
