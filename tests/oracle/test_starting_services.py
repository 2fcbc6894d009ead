"""Services that are started for who calls them: the same on both daemons.

What is started is a shell that waits until the test says how it shall end; the name is taken by a
client of the test.  So nothing depends on who is quicker.
"""

from __future__ import annotations

import os
import signal as signals
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit import (
    BUS,
    NO_AUTO_START,
    RawClient,
    Received,
    call,
    peer_call,
    signal,
)
from kit.client import TIMEOUT
from kit.commandlines import SPLIT, UNCLOSED
from kit.servicefiles import BROKEN, READ, SERVICE
from kit.services import NAME, Services, wait_for_end


def join(services: Services, count: int) -> list[RawClient]:
    return [services.daemon.connect() for _ in range(count)]


def start(name: str = NAME) -> Any:
    return call("StartServiceByName", "su", name, 0)


def request(name: str = NAME) -> Any:
    return call("RequestName", "su", name, 0)


def refusal(messages: list[Received]) -> tuple[str, str]:
    """Name and text of the error that is the only message."""
    (message,) = messages
    kind, name, text = message.brief
    assert kind == "error"
    return name.removeprefix("org.freedesktop.DBus.Error."), text


def error_of(client: RawClient, message: Any) -> tuple[str, str]:
    return refusal(client.exchange(message))


def unknown(name: str) -> tuple[str, str]:
    return "ServiceUnknown", f"The name {name} was not provided by any .service files"


# -- names


def test_which_names_can_be_started(services: Services) -> None:
    (alice,) = join(services, 1)
    for number, (content, _) in enumerate(READ):
        (services.home / "services" / f"{number}.service").write_bytes(content)
    for number, content in enumerate(BROKEN):
        (services.home / "services" / f"broken{number}.service").write_bytes(content)
    (services.home / "services" / "no.txt").write_bytes(SERVICE % b"com.example.NoService")
    assert alice.exchange(call("ReloadConfig"))[-1].brief == ("return",)
    (names,) = alice.bus("ListActivatableNames").args
    assert names[0] == BUS
    assert sorted(names[1:]) == sorted(name for _, name in READ)


@pytest.mark.parametrize(("size", "found"), [(128 * 1024, True), (128 * 1024 + 1, False)])
def test_large_files(services: Services, size: int, found: bool) -> None:
    (alice,) = join(services, 1)
    content = SERVICE % NAME.encode()
    content += b"#" * (size - len(content))
    (services.home / "services" / "x.service").write_bytes(content)
    expected = ("Spawn.ChildExited", f"Process {NAME} exited with status 1")
    assert error_of(alice, start()) == (expected if found else unknown(NAME))


def test_files_come_and_go_without_a_reload(services: Services) -> None:
    (alice,) = join(services, 1)
    assert error_of(alice, start()) == unknown(NAME)
    path = services.provide(NAME, "/bin/false")
    assert error_of(alice, start())[0] == "Spawn.ChildExited"
    services.provide(NAME, "/nonexistent")
    # dbus-daemon compares whole seconds
    os.utime(path, (os.stat(path).st_mtime + 10,) * 2)
    assert error_of(alice, start())[0] == "Spawn.ExecFailed"
    path.unlink()
    assert error_of(alice, start()) == unknown(NAME)


def test_a_reload_is_told_even_if_it_fails(services: Services) -> None:
    alice, bob = join(services, 2)
    bob.match("member='ActivatableServicesChanged'")
    services.daemon.config_file.write_text("<nonsense>")
    assert error_of(alice, call("ReloadConfig"))[0] == "Failed"
    assert ("signal", "ActivatableServicesChanged") in bob.briefs()


def test_sighup_reads_the_files(services: Services) -> None:
    (alice,) = join(services, 1)
    alice.match("member='ActivatableServicesChanged'")
    services.provide(NAME, "/bin/false")
    os.kill(services.daemon.pid, signals.SIGHUP)
    while True:
        told = alice.read("ActivatableServicesChanged")
        assert told.member == "ActivatableServicesChanged"
        answer = alice.exchange(call("ListActivatableNames"))[-1]
        if NAME in answer.args[0]:
            break


# -- starting


def test_a_call_waits_for_the_name(services: Services) -> None:
    alice, carol, bob = join(services, 3)
    services.wait()
    alice.send(peer_call(NAME, "A"))
    alice.send(signal("B", destination=NAME))
    alice.sync()
    carol.send(peer_call(NAME, "C"))
    carol.sync()
    alice.send(peer_call(NAME, "D"))
    assert alice.sync() == []
    services.until_started()
    came = bob.exchange(request())
    assert [message.brief for message in came] == [
        ("signal", "NameAcquired", NAME),
        ("call", "A"),
        ("signal", "B"),
        ("call", "C"),
        ("call", "D"),
        ("return", 1),
    ]
    assert [m.sender for m in came[1:5]] == [alice.name, alice.name, carol.name, alice.name]
    assert alice.sync() == carol.sync() == []
    assert len(services.started()) == 1


def test_starting_by_name(services: Services) -> None:
    alice, carol, bob = join(services, 3)
    services.wait()
    alice.match("member='NameOwnerChanged',arg0namespace='com.example'")
    first = alice.send(start())
    alice.sync()
    carol.send(start())
    carol.sync()
    services.until_started()
    assert bob.exchange(request())[-1].brief == ("return", 1)
    changed, answer = alice.sync()
    assert changed.member == "NameOwnerChanged"
    assert (answer.brief, answer.reply_serial, answer.sender) == (("return", 1), first, BUS)
    assert carol.briefs() == [("return", 1)]
    assert alice.ask(start()).brief == ("return", 2)
    assert len(services.started()) == 1


def test_what_runs_without_a_file_cannot_be_started(services: Services) -> None:
    alice, bob = join(services, 2)
    bob.own(NAME)
    assert error_of(alice, start()) == unknown(NAME)
    assert error_of(alice, start(BUS)) == unknown(BUS)
    assert error_of(alice, start("")) == unknown("")
    assert error_of(alice, start(bob.name)) == unknown(bob.name)


def test_no_auto_start(services: Services) -> None:
    (alice,) = join(services, 1)
    services.wait()
    refused = error_of(alice, peer_call(NAME, "A", flags=NO_AUTO_START))
    assert refused == ("NameHasNoOwner", f'Name "{NAME}" does not exist')
    assert services.started() == []


def test_a_monitor_sees_a_message_once_and_before_all_that_follows(services: Services) -> None:
    alice, bob, watcher = join(services, 3)
    services.wait()
    become = call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring")
    assert watcher.exchange(become)[-1].brief == ("return",)
    alice.send(peer_call(NAME, "A"))
    alice.send(start())
    alice.sync()
    services.until_started()
    bob.exchange(request())
    answer = bob.exchange(call("GetId"))[-1]
    seen = watcher.read_until(lambda m: m.raw == answer.raw, "the answer to GetId")
    seen = [m for m in seen if m.member != "ActivatableServicesChanged"]
    seen = seen[next(n for n, m in enumerate(seen) if m.member == "A") :]
    assert [message.brief[:2] for message in seen[:2]] == [
        ("call", "A"),
        ("call", "StartServiceByName"),
    ]
    own = next(n for n, m in enumerate(seen) if m.member == "RequestName")
    assert [(m.brief[:2], m.destination) for m in seen[own : own + 5]] == [
        (("call", "RequestName"), BUS),
        (("signal", "NameOwnerChanged"), None),
        (("return", 1), alice.name),
        (("signal", "NameAcquired"), bob.name),
        (("return", 1), bob.name),
    ]


# -- failing


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (3, ("Spawn.ChildExited", f"Process {NAME} exited with status 3")),
        ("kill", ("Spawn.ChildSignaled", f"Process {NAME} received signal 9")),
    ],
)
def test_the_program_ends(services: Services, how: str | int, expected: tuple[str, str]) -> None:
    alice, carol = join(services, 2)
    services.wait()
    alice.send(peer_call(NAME, "A"))
    alice.send(start())
    alice.sync()
    carol.send(peer_call(NAME, "C"))
    carol.sync()
    services.end(how)
    assert refusal([alice.read()]) == refusal([alice.read()]) == expected
    assert refusal([carol.read()]) == expected


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("/nonexistent", "No such file or directory"),
        ("nonexistent", "No such file or directory"),
        ("", "No such file or directory"),
        ("''", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
        ("/", "Permission denied"),
        ("/etc/passwd/x", "Not a directory"),
        ("{home}/script", "Exec format error"),
    ],
)
def test_no_program(services: Services, command: str, text: str) -> None:
    (alice,) = join(services, 1)
    (services.home / "script").write_text("exit 0\n")
    (services.home / "script").chmod(0o755)
    services.provide(NAME, command.replace("{home}", str(services.home)))
    expected = ("Spawn.ExecFailed", f"Failed to execute program {NAME}: {text}")
    assert error_of(alice, start()) == expected
    assert error_of(alice, peer_call(NAME, "A")) == expected


def test_cve_2022_31212_unclosed_quotes(services: Services) -> None:
    (alice,) = join(services, 1)
    for number, command in enumerate(UNCLOSED):
        name = f"com.example.N{number}"
        services.provide(name, command)
        assert error_of(alice, start(name)) == (
            "InvalidArgs",
            "Unclosed quotes in command line",
        ), command


def test_arguments(services: Services) -> None:
    """The first word becomes the program, the others are what it gets."""
    (alice,) = join(services, 1)
    program = services.home / "program"
    program.write_text(
        f"#!/bin/sh\nfor a; do printf '%s|' \"$a\"; done >{services.home}/out\nexit 7\n"
    )
    program.chmod(0o755)
    for number, (command, arguments) in enumerate(SPLIT):
        before, _, after = command.partition("a")
        assert not before.strip()
        name = f"com.example.N{number}"
        services.provide(name, f"{before}{program}{after}")
        assert error_of(alice, start(name)) == (
            "Spawn.ChildExited",
            f"Process {name} exited with status 7",
        )
        assert services.text("out") == "".join(f"{argument}|" for argument in arguments[1:])


@pytest.mark.parametrize("command", ["/bin/true", None])
def test_the_name_does_not_come_in_time(
    begin: Callable[..., Services], command: str | None
) -> None:
    services = begin(service_start_timeout=300)
    alice, bob = join(services, 2)
    if command is None:
        services.wait()
    else:
        services.provide(NAME, command)
    text = f"Failed to activate service '{NAME}': timed out (service_start_timeout=300ms)"
    assert error_of(alice, start()) == ("TimedOut", text)
    assert error_of(alice, peer_call(NAME, "A")) == ("TimedOut", text)
    assert bob.exchange(request())[-1].brief == ("return", 1)
    for pid in services.started():
        wait_for_end(pid)  # it was killed


def test_limit(begin: Callable[..., Services]) -> None:
    services = begin(max_pending_service_starts=2)
    alice, bob = join(services, 2)
    services.wait()
    services.wait("com.example.Other", "other")
    alice.send(peer_call(NAME, "A"))
    alice.send(peer_call(NAME, "B"))
    alice.sync()

    def refused(name: str) -> tuple[str, str]:
        return (
            "LimitsExceeded",
            "The maximum number of pending activations has been reached, activation of "
            f"{name} failed (max_pending_service_starts=2)",
        )

    assert error_of(alice, peer_call(NAME, "C")) == refused(NAME)
    assert error_of(alice, start("com.example.Other")) == refused("com.example.Other")
    assert error_of(alice, start("com.example.None")) == refused("com.example.None")
    services.until_started()
    bob.exchange(request())
    alice.send(start("com.example.Other"))
    assert alice.sync() == []
    services.until_started(1, "other")


# -- policy, descriptors, and who leaves

POLICY = f"""
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_type="method_call"/><allow receive_type="method_call"/>
    <allow receive_type="error"/><allow receive_type="method_return"/>
    <allow receive_type="signal"/>
    <deny send_destination="{NAME}" send_interface="com.example.Unsent"/>
    <deny receive_interface="com.example.Unreceived" receive_type="method_call"/>
  </policy>"""


def test_policy(begin: Callable[..., Services]) -> None:
    services = begin(policy=POLICY)
    alice, bob = join(services, 2)
    services.wait()
    name, text = error_of(alice, peer_call(NAME, "A", interface="com.example.Unsent"))
    assert name == "AccessDenied"
    assert text.startswith("Rejected send message, 2 matched rules; ")
    assert text.endswith(f'requested_reply="0" destination="{NAME}" (bus)')
    assert services.started() == []
    alice.send(peer_call(NAME, "A", interface="com.example.Unreceived"))
    alice.send(peer_call(NAME, "B"))
    services.until_started()
    came = bob.exchange(request())
    assert [message.brief for message in came] == [
        ("signal", "NameAcquired", NAME),
        ("call", "B"),
        ("return", 1),
    ]
    name, text = refusal(alice.sync())
    assert name == "AccessDenied"
    assert text.startswith("Rejected receive message, 2 matched rules; ")


def test_p29_descriptors_wait_with_their_message(services: Services) -> None:
    alice, bob = join(services, 2)
    services.wait()
    fd = os.memfd_create("kit")
    os.write(fd, b"content")
    alice.send(peer_call(NAME, "A", "h", 0, fds=[fd]))
    os.close(fd)
    services.until_started()
    came = bob.exchange(request())
    assert os.pread(came[1].fds[0], 100, 0) == b"content"
    os.close(came[1].fds[0])
    services.end(0)
    wait_for_end(services.started()[0])
    services.daemon.settle()


def test_p29_descriptors_of_a_failure_are_closed(services: Services) -> None:
    (alice,) = join(services, 1)
    services.provide(NAME, "/bin/false")
    fd = os.memfd_create("kit")
    alice.send(peer_call(NAME, "A", "h", 0, fds=[fd]))
    os.close(fd)
    assert refusal([alice.read()])[0] == "Spawn.ChildExited"
    services.daemon.settle()


def test_what_waits_leaves_with_its_sender(services: Services) -> None:
    alice, carol, bob = join(services, 3)
    services.wait()
    alice.send(peer_call(NAME, "A"))
    alice.send(start())
    alice.sync()
    carol.send(peer_call(NAME, "C"))
    carol.sync()
    alice.close()
    carol.until_gone(alice.name)
    services.until_started()
    came = bob.exchange(request())
    assert [message.brief for message in came] == [
        ("signal", "NameAcquired", NAME),
        ("call", "C"),
        ("return", 1),
    ]


# -- what a program finds


def test_environment(services: Services) -> None:
    (alice,) = join(services, 1)
    services.provide(NAME, f"/bin/sh -c 'env -0 >{services.home}/out; exit 1'")
    added = {"ADDED": "1 \n", "X=Y": "Z", "": "nothing", "DBUS_STARTER_ADDRESS": "no"}
    assert alice.bus("UpdateActivationEnvironment", "a{ss}", added).brief == ("return",)
    assert error_of(alice, start())[0] == "Spawn.ChildExited"
    found = dict(entry.split("=", 1) for entry in services.text("out").split("\0") if entry)
    ours = services.daemon.environment()
    # what a shell makes, and what pytest has changed meanwhile
    for name in ("PWD", "OLDPWD", "SHLVL", "_", "PYTEST_CURRENT_TEST"):
        found.pop(name, None)
        ours.pop(name, None)
    address = services.daemon.address
    assert found == ours | {
        "ADDED": "1 \n",
        "X": "Y=Z",
        "DBUS_STARTER_ADDRESS": address,
        "DBUS_STARTER_BUS_TYPE": "session",
        "DBUS_SESSION_BUS_ADDRESS": address,
    }


@pytest.mark.parametrize(("ours", "expected"), [("-500", "0"), ("0", "0"), ("300", "300")])
def test_p34_the_protection_from_the_killer_is_not_inherited(
    services: Services, ours: str, expected: str
) -> None:
    """To be likelier killed is."""
    try:
        Path(f"/proc/{services.daemon.pid}/oom_score_adj").write_text(ours)
    except PermissionError:
        pytest.skip("we may not protect a process")
    (alice,) = join(services, 1)
    services.wait()
    alice.send(start())
    services.until_started()
    (pid,) = services.started()
    deadline = time.monotonic() + TIMEOUT
    while (found := Path(f"/proc/{pid}/oom_score_adj").read_text()) != f"{expected}\n":
        assert time.monotonic() < deadline, found
        alice.alive()
    services.end(1)
    assert alice.read().brief[0] == "error"


def test_p34_what_a_program_inherits(services: Services) -> None:
    (alice,) = join(services, 1)
    services.provide(
        NAME, f"/bin/sh -c 'exec cat /proc/self/status /proc/self/limits >{services.home}/out'"
    )
    services.provide("com.example.List", f"/bin/sh -c 'exec ls /proc/self/fd >{services.home}/fds'")
    # the end of what succeeds is not told
    for name, file, end in ((NAME, "out", "realtime timeout"), ("com.example.List", "fds", "3\n")):
        alice.send(start(name))
        deadline = time.monotonic() + TIMEOUT
        while not (services.home / file).exists() or end not in services.text(file):
            assert time.monotonic() < deadline, f"no {file}"
    lines = dict(line.split(":", 1) for line in services.text("out").splitlines() if ":" in line)
    assert int(lines["SigBlk"], 16) == 0
    ignored = int(lines["SigIgn"], 16)
    assert ignored >> signals.SIGPIPE - 1 & 1, "dbus-daemon ignores it, and so do its children"
    for number in (signals.SIGTERM, signals.SIGHUP, signals.SIGXFSZ, signals.SIGCHLD):
        assert not ignored >> number - 1 & 1, number
    (files,) = [line for line in services.text("out").splitlines() if "Max open files" in line]
    assert files in Path("/proc/self/limits").read_text().splitlines()
    # its own directory is the fourth
    assert services.text("fds").split() == ["0", "1", "2", "3"]
