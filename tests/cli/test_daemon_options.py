"""The command line of dbus-daemon: what is understood, and what is said about the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import DAEMONS, busconfig

from afdbus.config.paths import session_config, system_config
from afdbus.daemon_cli import parse_options

F = "/etc/bus.conf"
GOOD = [
    (["--session"], {"config_file": session_config()}),
    (["--system"], {"config_file": system_config()}),
    ([f"--config-file={F}"], {"config_file": F}),
    (["--config-file", F], {"config_file": F}),
    (["--config-file", "--session"], {"config_file": session_config()}),
    (["--config-file=", "--session"], {"config_file": session_config()}),
    (["--session", "--print-address"], {"print_address": 1}),
    (["--session", "--print-address="], {"print_address": 1}),
    (["--session", "--print-address", ""], {"print_address": 1}),
    (["--session", "--print-address=5"], {"print_address": 5}),
    (["--nofork", "--print-address", "9", "--session"], {"print_address": 9, "fork": False}),
    (["--print-address", "--session"], {"print_address": 1}),
    (["--print-address", "--print-pid", "7", "--session"], {"print_address": 1, "print_pid": 7}),
    (["--print-pid", "--print-address", "7", "--session"], {"print_address": 7, "print_pid": 1}),
    (["--session", "--print-pid=0x1F"], {"print_pid": 31}),
    (["--session", "--print-pid=010"], {"print_pid": 8}),
    (["--session", "--print-pid= +3"], {"print_pid": 3}),
    (["--session", "--ready-fd=3"], {"ready_fd": 3}),
    (["--session", "--ready-fd", "3"], {"ready_fd": 3}),
    (["--session", "--fork"], {"fork": True}),
    (["--session", "--fork", "--nofork"], {"fork": False}),
    (["--session", "--nofork", "--fork"], {"fork": True}),
    (["--session", "--nopidfile"], {"pidfile": False}),
    (["--session", "--syslog"], {"syslog": True, "syslog_only": False}),
    (["--session", "--syslog-only"], {"syslog": True, "syslog_only": True}),
    (["--session", "--syslog-only", "--nosyslog"], {"syslog": False}),
    (["--session", "--nosyslog", "--syslog"], {"syslog": True}),
    (["--session", "--address=unix:abstract=a"], {"address": "unix:abstract=a"}),
    (["--session", "--address", "systemd:"], {"address": "systemd:"}),
    (["--session", "--address="], {"address": ""}),
    (
        [
            "--system",
            "--address=systemd:",
            "--nofork",
            "--nopidfile",
            "--systemd-activation",
            "--syslog-only",
        ],
        {
            "config_file": system_config(),
            "address": "systemd:",
            "fork": False,
            "pidfile": False,
            "systemd_activation": True,
            "syslog": True,
            "syslog_only": True,
        },
    ),
]
DEFAULTS = {
    "address": "",
    "fork": None,
    "pidfile": True,
    "print_address": None,
    "print_pid": None,
    "ready_fd": None,
    "syslog": None,
    "syslog_only": False,
    "systemd_activation": False,
}


@pytest.mark.parametrize(("arguments", "expected"), GOOD)
def test_understood(arguments: list[str], expected: dict[str, object]) -> None:
    options = parse_options(arguments)
    # "--syslog-only --nosyslog" leaves the former without meaning
    names = (DEFAULTS | expected).keys() - ({"syslog_only"} if options.syslog is False else set())
    assert {name: getattr(options, name) for name in names} == {
        name: (DEFAULTS | expected)[name] for name in names
    }


def test_the_configuration_file_is_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_options(["--config-file=a.conf"]).config_file == str(tmp_path / "a.conf")


# what is refused: dbus-daemon is asked the same

REFUSED = [
    [],
    ["--bogus"],
    ["argument"],
    ["--"],
    ["-x"],
    ["-h"],
    ["--help"],
    ["-?"],
    ["--fork=yes", "--session"],
    ["--nofork", "--print-address"],
    ["--config-file"],
    ["--config-file="],
    ["--session", "--system"],
    ["--system", "--session"],
    ["--session", "--session"],
    ["--session", "--config-file=F"],
    ["--config-file", "F", "--system"],
    ["--config-file=F", "--config-file=G"],
    ["--config-file", "F", "--config-file", "G"],
    ["--session", "--address=unix:path=/a", "--address=unix:path=/b"],
    ["--session", "--address", "unix:path=/a", "--address", "unix:path=/b"],
    ["--session", "--print-address=1", "--print-address=2"],
    ["--session", "--print-pid=1", "--print-pid", "2"],
    ["--session", "--print-address=x"],
    ["--session", "--print-address=-1"],
    ["--session", "--print-address=1x"],
    ["--session", "--print-address", "08"],
    ["--session", "--print-address=2147483648"],
    ["--session", "--print-address=0x"],
    ["--session", "--print-address=0b1"],
    ["--session", "--print-address=1_0"],
    ["--session", "--print-pid=99999999999999999999"],
    ["--session", "--print-pid=1 "],
    ["--session", "--print-pid=\uff11"],
    ["--session", "5"],
    ["--ready-event-handle=3", "--session"],
    ["--config-file=/no/such/file"],
    ["--session", "--print-address=999"],
    ["--session", "--print-pid=999"],
    ["--session", "--address=bogus"],
    ["--session", "--address=unix:path=/no/where/bus", "--print-address"],
]


def told(kind: str, arguments: list[str]) -> tuple[int, str, str]:
    """Exit status, standard output and error, without what differs by nature."""
    done = subprocess.run(
        [*DAEMONS[kind], *arguments],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    err = done.stderr.replace(" [--ready-fd=DESCRIPTOR]", "")
    err = re.sub(r"^dbus(-daemon)?\[\d+\]: ", "", err)
    err = re.sub(r"\S+/(session|system)\.conf", r"\1.conf", err)
    # Ours names the file twice, since it may have been included.
    err = err.replace("/no/such/file: Failed to open", "Failed to open")
    # libdbus ends some of its texts with a newline, to which its log adds one.
    return done.returncode, done.stdout, re.sub(r"\n+$", "\n", err)


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_refused_as_by_the_reference(arguments: list[str], program: Callable[[str], str]) -> None:
    program("dbus-daemon")
    reference = told("dbus-daemon", arguments)
    assert reference[0] == 1
    assert told("afdbus", arguments) == reference


BUSY = [
    ("<user>no-such-user</user>", 'Could not get UID and GID for username "no-such-user"', True),
    ("<pidfile>/no/where/pid</pidfile>", 'Failed to open "/no/where/pid": No such file', True),
    ("<pidfile>{directory}/bus.conf</pidfile>", "exists, if the message bus is not running", False),
    ("<listen>unix:path=/no/where/bus</listen>", "Failed to bind socket", False),
    ("<listen>bogus:</listen>", "Unknown address type 'bogus'", False),
    ("<auth>BOGUS</auth>", 'Unsupported auth mechanism "BOGUS"', False),
]


@pytest.mark.parametrize("fork", ["--fork", "--nofork"])
@pytest.mark.parametrize(("more", "complaint", "printed"), BUSY)
def test_what_fails_after_the_configuration_was_read(
    kind: str, more: str, complaint: str, printed: bool, fork: str, tmp_path: Path
) -> None:
    config = tmp_path / "bus.conf"
    text = busconfig(more.replace("{directory}", str(tmp_path)), listen="unix:tmpdir=/tmp")
    config.write_text(text)
    done = subprocess.run(
        [*DAEMONS[kind], f"--config-file={config}", "--print-address", fork],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"Failed to start message bus: {complaint}" in re.sub(
        r'The pid file ".*" |Error in file /.*bus\.conf(, line \d+)?: ', "", done.stderr
    )
    assert done.stdout.startswith("unix:path=/tmp/dbus-") is printed
    left = re.match("unix:path=([^,]+),", done.stdout)
    if left and kind == "afdbus":
        assert not os.path.lexists(left[1])


def test_version(kind: str) -> None:
    status, out, err = told(kind, ["--version", "--whatever"])
    assert (status, err) == (0, "")
    # as configure scripts find it
    assert re.match(r"D-Bus Message Bus Daemon (\d+)\.(\d+)\.(\d+)\b", out)


def test_introspection(program: Callable[[str], str]) -> None:
    program("dbus-daemon")
    status, out, err = told("afdbus", ["--introspect"])
    assert (status, err) == (0, "")
    reference = told("dbus-daemon", ["--introspect"])[1]
    assert out == reference


def test_p32_light_imports_before_the_address_is_printed() -> None:
    code = "import sys; import afdbus.daemon_cli, afdbus.config.load; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    # (inspect is loaded by lxml)
    heavy = {"trio", "asyncio", "argparse", "dataclasses", "logging", "subprocess"}
    assert heavy.isdisjoint(modules)


def test_p32_light_imports_before_the_first_client_is_served() -> None:
    code = "import sys; import afdbus.daemon_cli, afdbus.server.daemon; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    heavy = {"trio", "asyncio", "hashlib", "_hashlib", "ssl"}
    assert heavy.isdisjoint(modules)
