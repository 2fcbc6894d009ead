"""The programs that people have: libdbus's, GLib's and systemd's clients on both daemons."""

from __future__ import annotations

import os
import signal as signals
import subprocess
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from kit import BUS, Daemon, RawClient, Received, error, method_return, peer_call, signal
from kit.client import TIMEOUT

Program = Callable[[str], str]
OBJECT = "/com/example/Object"
NAME = "com.example.Name"


@pytest.fixture
def service(daemon: Daemon) -> RawClient:
    """Somebody to talk to: answers by `serve`."""
    client = daemon.connect()
    assert client.own(NAME) == 1
    return client


class Running:
    """A program on the bus."""

    alive: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, daemon: Daemon, *command: str) -> None:
        environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": daemon.address, "LC_ALL": "C"}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.alive.append(self.process)

    def output(self) -> str:
        """What it wrote until its end, which must be a success."""
        try:
            text, _ = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            text, _ = self.process.communicate()
            raise AssertionError(f"the program hangs; it wrote:\n{text}") from None
        assert self.process.returncode == 0, text
        return text

    def interrupted(self) -> str:
        """Stop it; what it wrote."""
        self.process.send_signal(signals.SIGTERM)
        return self.process.communicate(timeout=TIMEOUT)[0]


@pytest.fixture(autouse=True)
def programs_end(daemon: Daemon) -> Iterator[None]:
    """No program outlives its test, also if that fails."""
    yield
    while Running.alive:
        process = Running.alive.pop()
        process.kill()
        process.communicate()


def run(daemon: Daemon, *command: str) -> str:
    return Running(daemon, *command).output()


def serve(service: RawClient, answer: Callable[[Received], None]) -> Received:
    """Wait for the call of `Method`; everything else (Introspect, Ping) is unknown here."""
    while True:
        received = service.receive_call()
        if received.member == "Method":
            answer(received)
            return received
        service.send(error(received, f"{BUS}.Error.UnknownMethod", "not here"))


# -- libdbus


@pytest.fixture
def dbus_send(daemon: Daemon, program: Program) -> list[str]:
    return [program("dbus-send"), f"--bus={daemon.address}", "--print-reply"]


def test_dbus_send_to_the_bus(daemon: Daemon, dbus_send: list[str], service: RawClient) -> None:
    text = run(daemon, *dbus_send, f"--dest={BUS}", "/org/freedesktop/DBus", f"{BUS}.ListNames")
    assert f'string "{NAME}"' in text
    assert f'string "{service.name}"' in text


def test_dbus_send_call_and_answer(
    daemon: Daemon, dbus_send: list[str], service: RawClient
) -> None:
    values = ["string:text", "int64:-5", "array:string:a,b", "dict:string:int32:k,7"]
    running = Running(daemon, *dbus_send, f"--dest={NAME}", OBJECT, "com.example.I.Method", *values)
    received = serve(service, lambda m: service.send(method_return(m, "v", ("as", ["one", "two"]))))
    assert received.args == ("text", -5, ["a", "b"], {"k": 7})
    text = running.output()
    assert "method return" in text
    assert 'string "two"' in text


def test_dbus_send_error(daemon: Daemon, program: Program, service: RawClient) -> None:
    running = Running(
        daemon, program("dbus-send"), f"--bus={daemon.address}", "--print-reply",
        f"--dest={NAME}", OBJECT, "com.example.I.Method",
    )  # fmt: skip
    serve(service, lambda m: service.send(error(m, "com.example.Error", "the text")))
    text, _ = running.process.communicate(timeout=TIMEOUT)
    assert text == "Error com.example.Error: the text\n"
    assert running.process.returncode == 1


def test_dbus_send_signal(daemon: Daemon, program: Program, service: RawClient) -> None:
    service.match("interface='com.example.I'")
    run(
        daemon, program("dbus-send"), f"--bus={daemon.address}", "--type=signal", OBJECT,
        "com.example.I.Signal", "string:text",
    )  # fmt: skip
    assert service.read().brief == ("signal", "Signal", "text")


def test_dbus_monitor(daemon: Daemon, program: Program, alice: RawClient, bob: RawClient) -> None:
    stdbuf = program("stdbuf")
    running = Running(
        daemon, stdbuf, "-oL", program("dbus-monitor"), "--address", daemon.address,
        "interface='com.example.Interface'",
    )  # fmt: skip
    assert running.process.stdout is not None
    while "NameLost" not in (line := running.process.stdout.readline()):
        assert line, "dbus-monitor ended"
    alice.send(peer_call(bob.name, "Watched", "s", "text", flags=1))
    alice.send(signal("Broadcast"))
    alice.sync()
    seen = []
    while "member=Broadcast" not in (line := running.process.stdout.readline()):
        assert line, "dbus-monitor ended"
        seen.append(line)
    running.interrupted()
    text = "".join(seen)
    assert f"sender={alice.name} -> destination={bob.name}" in text
    assert "member=Watched" in text
    assert 'string "text"' in text
    assert len(bob.sync()) == 1


@pytest.mark.parametrize("options", [[], ["--queue=50"], ["--flood"], ["--no-reply"]])
def test_dbus_test_tool_spam(daemon: Daemon, program: Program, options: list[str]) -> None:
    tool = program("dbus-test-tool")
    echo = Running(daemon, tool, "echo", "--session", "--name=com.example.Echo")
    daemon.connect().until_owned("com.example.Echo")
    run(daemon, tool, "spam", "--session", "--dest=com.example.Echo", "--count=500", *options)
    echo.interrupted()


# -- GDBus


@pytest.fixture
def gdbus(program: Program) -> str:
    return program("gdbus")


def test_gdbus_introspect(daemon: Daemon, gdbus: str) -> None:
    text = run(
        daemon, gdbus, "introspect", "--address", daemon.address, "--dest", BUS,
        "--object-path", "/org/freedesktop/DBus",
    )  # fmt: skip
    for word in ("RequestName", "NameOwnerChanged", "BecomeMonitor", "Features", "GetMachineId"):
        assert word in text


def test_gdbus_call_and_answer(daemon: Daemon, gdbus: str, service: RawClient) -> None:
    running = Running(
        daemon, gdbus, "call", "--session", "--dest", NAME, "--object-path", OBJECT,
        "--method", "com.example.I.Method", "'text'", "<int64 5>", "{'k': <[1.5]>}",
    )  # fmt: skip
    received = serve(service, lambda m: service.send(method_return(m, "(bs)", (True, "answer"))))
    assert received.args == ("text", ("x", 5), {"k": ("ad", [1.5])})
    assert running.output() == "((true, 'answer'),)\n"


def test_gdbus_emit(daemon: Daemon, gdbus: str, service: RawClient) -> None:
    service.match("interface='com.example.I'")
    run(
        daemon, gdbus, "emit", "--session", "--object-path", OBJECT,
        "--signal", "com.example.I.Signal", "'text'",
    )  # fmt: skip
    assert service.read().brief == ("signal", "Signal", "text")


def test_gdbus_wait(daemon: Daemon, gdbus: str, alice: RawClient) -> None:
    running = Running(daemon, gdbus, "wait", "--session", "--timeout", "10", "com.example.Late")
    assert alice.own("com.example.Late") == 1
    running.output()


# -- sd-bus (the whole handshake with Hello in one packet)


@pytest.fixture
def busctl(program: Program) -> list[str]:
    return [program("busctl"), "--user", "--no-pager"]


def test_busctl_list(daemon: Daemon, busctl: list[str], service: RawClient) -> None:
    lines = run(daemon, *busctl, "list").splitlines()
    (line,) = [line for line in lines if line.startswith(NAME)]
    assert str(os.getpid()) in line.split()
    assert service.name in line.split()


def test_busctl_call_and_answer(daemon: Daemon, busctl: list[str], service: RawClient) -> None:
    running = Running(
        daemon, *busctl, "call", NAME, OBJECT, "com.example.I", "Method", "sas", "text", "2",
        "a", "b",
    )  # fmt: skip
    received = serve(service, lambda m: service.send(method_return(m, "ai", [1, 2, 3])))
    assert received.args == ("text", ["a", "b"])
    assert running.output() == "ai 3 1 2 3\n"


def test_busctl_properties(daemon: Daemon, busctl: list[str]) -> None:
    text = run(daemon, *busctl, "get-property", BUS, "/org/freedesktop/DBus", BUS, "Interfaces")
    assert f'"{BUS}.Monitoring"' in text


def test_busctl_introspect(daemon: Daemon, busctl: list[str]) -> None:
    text = run(daemon, *busctl, "introspect", BUS, "/org/freedesktop/DBus")
    assert ".RequestName" in text
    assert ".Features" in text


def test_busctl_status(daemon: Daemon, busctl: list[str], service: RawClient) -> None:
    text = run(daemon, *busctl, "status", NAME)
    assert f"PID={os.getpid()}" in text
    assert f"UniqueName={service.name}" in text


def test_busctl_emit(daemon: Daemon, busctl: list[str], service: RawClient) -> None:
    service.match("interface='com.example.I'")
    run(daemon, *busctl, "emit", OBJECT, "com.example.I", "Signal", "s", "text")
    assert service.read().brief == ("signal", "Signal", "text")


def test_busctl_monitor(
    daemon: Daemon, busctl: list[str], program: Program, alice: RawClient, bob: RawClient
) -> None:
    """sd-bus becomes a monitor; what it sees it writes as JSON, a line each."""
    running = Running(daemon, program("stdbuf"), "-oL", *busctl, "--json=short", "monitor")
    assert running.process.stdout is not None
    while "Monitoring bus message stream" not in (line := running.process.stdout.readline()):
        assert line, "busctl ended"
    alice.send(peer_call(bob.name, "Watched", "s", "text", flags=1))
    alice.sync()
    while '"member":"Watched"' not in (line := running.process.stdout.readline()):
        assert line, "busctl ended"
    running.interrupted()
    assert f'"sender":"{alice.name}"' in line
    assert '"data":["text"]' in line
