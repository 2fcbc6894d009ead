"""`<servicehelper>`: another program starts the services, and its exit status tells what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit import Daemon, busconfig, call, peer_call

NAME = "com.example.Helped"
DIRECTORY = "<servicedir>{directory}/services</servicedir>"


@pytest.fixture
def begin(kind: str) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon with a helper, a shell script: `begin(script)`."""
    running: list[Daemon] = []

    def start(script: str, helper: str = "{directory}/helper", **config: Any) -> Daemon:
        more = f"{DIRECTORY}<servicehelper>{helper}</servicehelper>"
        daemon = Daemon(kind, busconfig(more, **config))
        running.append(daemon)
        program = daemon.directory / "helper"
        program.write_text(f"#!/bin/sh\n{script}\n".replace("{directory}", str(daemon.directory)))
        program.chmod(0o755)
        (daemon.directory / "services").mkdir()
        provide(daemon, NAME, "User=root\n")
        return daemon

    yield start
    for daemon in running:
        daemon.stop()


def provide(daemon: Daemon, name: str, more: str) -> None:
    file = daemon.directory / "services" / f"{name}.service"
    file.write_text(f"[D-BUS Service]\nName={name}\nExec=/bin/false\n{more}")


def start(name: str = NAME) -> Any:
    return call("StartServiceByName", "su", name, 0)


def told(code: int) -> tuple[str, str]:
    """What is told of a helper's exit status."""
    return {
        2: ("NoMemory", "Launcher could not run (out of memory)"),
        3: ("Spawn.ConfigInvalid", "Invalid configuration (missing or empty <user>?)"),
        4: ("Spawn.FailedToSetup", "Failed to setup environment correctly"),
        5: ("Spawn.ServiceNotValid", "Bus name is not valid or missing"),
        6: ("Spawn.ServiceNotFound", "Bus name not found in system service directory"),
        7: ("Spawn.PermissionsInvalid", "The permission of the setuid helper is not correct"),
        8: (
            "Spawn.PermissionsInvalid",
            "The service file is incorrect or does not have all required attributes",
        ),
        9: ("Spawn.ExecFailed", "Cannot launch daemon, file not found or permissions invalid"),
        10: ("InvalidArgs", "Invalid arguments to command line"),
        11: ("Spawn.ChildSignaled", "Launched child was signaled, it probably crashed"),
    }.get(code, ("Spawn.ChildExited", f"Launch helper exited with unknown return code {code}"))


def test_exit_statuses(begin: Callable[..., Daemon]) -> None:
    daemon = begin("exit $(cat {directory}/code)")
    alice = daemon.connect()
    for code in (*range(1, 13), 127, 255):
        (daemon.directory / "code").write_text(str(code))
        assert alice.refusal(start()) == told(code), code


def test_a_helper_that_is_killed(begin: Callable[..., Daemon]) -> None:
    alice = begin("kill -9 $$").connect()
    expected = "Spawn.ChildSignaled", f"Process {NAME} received signal 9"
    assert alice.refusal(start()) == expected


@pytest.mark.parametrize("helper", ["/nonexistent", "/etc/passwd"])
def test_no_helper(begin: Callable[..., Daemon], helper: str) -> None:
    alice = begin("", helper).connect()
    name, text = alice.refusal(peer_call(NAME, "A"))
    assert name == "Spawn.ExecFailed"
    assert text.startswith(f"Failed to execute program {NAME}: ")


def test_the_helper_gets_the_name_alone(begin: Callable[..., Daemon]) -> None:
    daemon = begin("echo $# $1 >{directory}/out; env -0 >{directory}/environment; exit 1")
    alice = daemon.connect()
    alice.refusal(start())
    assert (daemon.directory / "out").read_text() == f"1 {NAME}\n"
    environment = (daemon.directory / "environment").read_text()
    found = dict(entry.split("=", 1) for entry in environment.split("\0") if entry)
    assert found["DBUS_STARTER_ADDRESS"] == daemon.address
    assert found["DBUS_STARTER_BUS_TYPE"] == "session"


def test_the_helper_is_a_command_line(begin: Callable[..., Daemon]) -> None:
    script = "printf '%s|' \"$@\" >{directory}/out; exit 1"
    daemon = begin(script, "{directory}/helper 'a  b' c")
    alice = daemon.connect()
    alice.refusal(start())
    assert (daemon.directory / "out").read_text() == f"a  b|c|{NAME}|"


def test_without_a_user_nothing_is_started(begin: Callable[..., Daemon]) -> None:
    daemon = begin("touch {directory}/out; exit 1")
    alice = daemon.connect()
    provide(daemon, "com.example.Userless", "")
    for message in (start("com.example.Userless"), peer_call("com.example.Userless", "A")):
        assert alice.refusal(message) == (
            "Spawn.FileInvalid",
            "Cannot do system-bus activation with no user\n",
        )
    assert not (daemon.directory / "out").exists()


def test_cve_2012_3524_the_environment_is_nobodys_to_change(begin: Callable[..., Daemon]) -> None:
    alice = begin("exit 1").connect()
    assert alice.refusal(call("UpdateActivationEnvironment", "a{ss}", {"A": "1"})) == (
        "AccessDenied",
        "Cannot change activation environment on a system bus.",
    )


def test_success_is_not_told_and_the_name_is_waited_for(begin: Callable[..., Daemon]) -> None:
    daemon = begin("exit 0")
    alice, bob = daemon.connect(), daemon.connect()
    alice.send(start())
    alice.send(peer_call(NAME, "A"))
    assert alice.sync() == []
    came = bob.exchange(call("RequestName", "su", NAME, 0))
    assert [message.brief for message in came[1:]] == [("call", "A"), ("return", 1)]
    assert alice.briefs() == [("return", 1)]


def test_without_systemd_the_helper_starts_units_as_well(begin: Callable[..., Daemon]) -> None:
    daemon = begin("exit 6")
    alice = daemon.connect()
    provide(daemon, "com.example.Unit", "SystemdService=x.service\nUser=root\n")
    assert alice.refusal(start("com.example.Unit"))[0] == "Spawn.ServiceNotFound"
