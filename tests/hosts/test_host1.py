"""P39: org.afdbus.Host1 and `afdbus bus`: buses made and closed while a daemon runs."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit import BUS, Message, RawClient, Received, busconfig, call, signal
from kit.hosted import Connect, fresh_name
from kit.process import Process, Run, run

from afdbus import ThreadHost
from afdbus.server import keeper

__all__ = ["run"]

HOST = "org.afdbus.Host1"
ERROR = f"{BUS}.Error."


@pytest.fixture
def daemon(run: Run, tmp_path: Path) -> Process:
    file = tmp_path / "bus.conf"
    file.write_text(busconfig(listen="unix:tmpdir=/tmp"))
    return run([f"--config-file={file}"], 1)


@pytest.fixture
def alice(daemon: Process, connect: Connect) -> RawClient:
    return connect(daemon.lines[0])


def ask(client: RawClient, member: str, *rest: Any, **more: Any) -> Received:
    return client.exchange(call(member, *rest, interface=HOST, **more))[-1]


def create(client: RawClient, name: str = "", config: str = "") -> str:
    answer = ask(client, "CreateBus", "ss", name, config)
    assert answer.brief[0] == "return", answer
    address: str = answer.args[0]
    return address


def test_p39_a_bus_is_made_and_closed(daemon: Process, alice: RawClient, connect: Connect) -> None:
    name = fresh_name("a b")
    address = create(alice, name)
    assert address.startswith(f"unix:abstract={name.replace(' ', '%20')},guid=")
    one, two = connect(address), connect(address)
    assert (one.name, two.name) == (":1.0", ":1.1")
    assert one.bus("GetId").args[0] == address.partition("guid=")[2]
    assert ask(alice, "ListBuses").args == ([("", daemon.lines[0]), (name, address)],)
    assert ask(alice, "CloseBus", "s", name).args == ()
    one.closed()
    two.closed()
    alice.alive()
    assert ask(alice, "ListBuses").args == ([("", daemon.lines[0])],)
    assert create(alice, name) != address


def test_p39_made_buses_know_nothing_of_it(alice: RawClient, connect: Connect) -> None:
    client = connect(create(alice))
    assert ask(client, "ListBuses").error_name == f"{ERROR}UnknownInterface"


def test_p39_a_configuration_is_text(alice: RawClient, connect: Connect, tmp_path: Path) -> None:
    policy = "<policy context='default'><allow own='*'/><allow send_destination='*'/>"
    policy += "<allow receive_sender='*'/><deny own='com.example.A'/></policy>"
    text = f"<busconfig><type>system</type>{policy}</busconfig>"
    client = connect(create(alice, "", text))
    answer = client.bus("RequestName", "su", "com.example.A", 0)
    assert answer.error_name == f"{ERROR}AccessDenied"
    assert client.own("com.example.B") == 1
    file = tmp_path / "bus.conf"
    for wrong in (str(file), "nonsense", "<busconfig>", "<busconfig><nonsense/></busconfig>"):
        answer = ask(alice, "CreateBus", "ss", "", wrong)
        assert answer.error_name == f"{ERROR}InvalidArgs", wrong
    assert len(ask(alice, "ListBuses").args[0]) == 2


def test_made_buses_are_as_the_daemon_s_others(
    run: Run, connect: Connect, tmp_path: Path
) -> None:
    """What the command line says of all buses holds for them, too."""
    file = tmp_path / "bus.conf"
    file.write_text(busconfig(listen="unix:tmpdir=/tmp"))
    daemon = run([f"--config-file={file}", "--permissive", "--full-receiver=disconnect"], 1)
    limits = "<limit name='max_outgoing_bytes'>20000</limit>"
    policy = "<policy context='default'><allow send_destination='*'/><allow receive_sender='*'/>"
    text = f"<busconfig>{limits}{policy}<deny own='*'/></policy></busconfig>"
    address = create(connect(daemon.lines[0]), "", text)
    sender, receiver = connect(address), connect(address)
    assert receiver.own("com.example.Denied") == 1
    receiver.match("member='Flood'")
    for _ in range(300):  # more than the kernel keeps
        sender.send(signal("Flood", "ay", bytes(5000)))
        sender.sync()
    sender.until_gone(receiver.name)


OUTSIDE = [
    "<user>root</user>", "<fork/>", "<pidfile>/tmp/x</pidfile>",
    "<servicehelper>/bin/true</servicehelper>", "<listen>unix:path=/tmp/x</listen>",
    "<listen>tcp:</listen>", "<include>/etc/shadow</include>", "<includedir>/etc</includedir>",
    "<include ignore_missing='yes'>/etc/shadow</include>", "<servicedir>/root</servicedir>",
    "<standard_system_servicedirs/>", "<standard_session_servicedirs/>", "<syslog/>",
    "<keep_umask/>",
]  # fmt: skip


def test_p39_what_would_act_outside_the_bus_is_refused(alice: RawClient) -> None:
    for element in OUTSIDE:
        answer = ask(alice, "CreateBus", "ss", "", f"<busconfig>\n{element}</busconfig>")
        assert answer.error_name == f"{ERROR}InvalidArgs", element
        assert "is not allowed here" in answer.args[0]
        assert "line 2" in answer.args[0]


def test_p39_an_entity_hides_nothing(alice: RawClient) -> None:
    text = (
        "<!DOCTYPE busconfig [<!ENTITY x '<user>root</user>'>]>"
        "<busconfig>&x;</busconfig>"
    )
    assert ask(alice, "CreateBus", "ss", "", text).error_name == f"{ERROR}InvalidArgs"
    # of a file there is nothing, as in configuration files: else its text would be an error
    text = "<!DOCTYPE busconfig [<!ENTITY x SYSTEM '/etc/passwd'>]><busconfig>&x;</busconfig>"
    create(alice, "", text)
    huge = "<busconfig><!--" + "x" * (1 << 20) + "--></busconfig>"
    assert ask(alice, "CreateBus", "ss", "", huge).error_name == f"{ERROR}InvalidArgs"


def test_p39_names_that_cannot_be(alice: RawClient, connect: Connect) -> None:
    name = fresh_name()
    connect(create(alice, name))
    assert ask(alice, "CreateBus", "ss", name, "").error_name == f"{ERROR}AddressInUse"
    assert ask(alice, "CreateBus", "ss", "x" * 108, "").error_name == f"{ERROR}InvalidArgs"
    assert ask(alice, "CloseBus", "s", "none").error_name == f"{ERROR}Failed"


def test_p39_the_primary_bus_is_not_closed(alice: RawClient, run: Run, tmp_path: Path) -> None:
    assert ask(alice, "CloseBus", "s", "").error_name == f"{ERROR}AccessDenied"
    names = [fresh_name(), fresh_name()]
    file = tmp_path / "bus.conf"
    other = run([f"--bus={name}={file}" for name in names], 2)
    with RawClient(other.lines[1]) as client:
        client.join()
        assert ask(client, "CloseBus", "s", names[0]).error_name == f"{ERROR}AccessDenied"
        # a bus that closes itself answers first
        assert ask(client, "CloseBus", "s", names[1]).args == ()
        client.closed()
    with RawClient(other.lines[0]) as client:
        client.join()


def test_p39_only_the_own_user_and_root(
    daemon: Process, alice: RawClient, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else for a moment")
    nobody = pwd.getpwnam("nobody").pw_uid
    with RawClient(daemon.lines[0], uid=nobody) as client:
        client.join()
        for member, *rest in (("CreateBus", "ss", "", ""), ("CloseBus", "s", "a"), ("ListBuses",)):
            assert ask(client, member, *rest).error_name == f"{ERROR}AccessDenied"
    assert len(ask(alice, "ListBuses").args[0]) == 1
    errors = daemon.stop()
    assert "rejected attempt to call CreateBus by connection :1.1" in errors


def test_p39_virtual_identities_cannot(host: ThreadHost) -> None:
    bus = host.create_bus()
    with RawClient(bus.socket(uid=0)) as client:
        client.join()
        # A host inside a program has its own ways, so there is no such interface at all.
        assert ask(client, "ListBuses").error_name == f"{ERROR}UnknownInterface"


def test_p39_the_number_of_buses_is_bounded(alice: RawClient) -> None:
    """So is what a mistake in a loop may cost."""
    for _ in range(keeper.MAX_BUSES):
        alice.send(call("CreateBus", "ss", "", "", interface=HOST, flags=1))
    made = [answer.args[0] for answer in alice.sync()]
    assert len(set(made)) == keeper.MAX_BUSES
    answer = ask(alice, "CreateBus", "ss", "", "")
    assert answer.error_name == f"{ERROR}LimitsExceeded"
    name = ask(alice, "ListBuses").args[0][1][0]
    ask(alice, "CloseBus", "s", name)
    create(alice)


def test_p39_it_shows_nowhere(alice: RawClient) -> None:
    """Clients see what dbus-daemon would show."""
    introspect = call("Introspect", interface=f"{BUS}.Introspectable")
    assert "afdbus" not in alice.exchange(introspect)[-1].args[0]
    properties = call("GetAll", "s", BUS, interface=f"{BUS}.Properties")
    assert "afdbus" not in repr(alice.exchange(properties)[-1].args)
    # without an interface it is as unknown as there
    nameless = Message.without(call("ListBuses"), 2)
    assert alice.exchange(nameless)[-1].error_name == f"{ERROR}UnknownMethod"
    elsewhere = ask(alice, "ListBuses", path="/elsewhere")
    assert elsewhere.error_name == f"{ERROR}UnknownInterface"
    wrong = ask(alice, "ListBuses", "s", "x")
    assert wrong.error_name == f"{ERROR}InvalidArgs"
    assert ask(alice, "Nothing").error_name == f"{ERROR}UnknownMethod"


# -- afdbus bus


def afdbus(*words: str, address: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address}
    return subprocess.run(
        [sys.executable, "-m", "afdbus", "bus", *words],
        capture_output=True, text=True, check=False, env=environment, timeout=60,
    )  # fmt: skip


def test_the_command(daemon: Process, connect: Connect, tmp_path: Path) -> None:
    address = daemon.lines[0]
    name = fresh_name()
    made = afdbus("create", name, address=address)
    assert (made.returncode, made.stderr) == (0, "")
    client = connect(made.stdout.rstrip("\n"))
    file = tmp_path / "made.conf"
    file.write_text("<busconfig><type>session</type></busconfig>")
    other = afdbus("--address", address, "create", "--config-file", str(file))
    assert other.stdout.startswith("unix:abstract=afdbus-")
    listed = afdbus("list", address=address).stdout.splitlines()
    assert listed[:2] == [f"\t{address}", f"{name}\t{made.stdout.rstrip()}"]
    assert len(listed) == 3
    assert afdbus("close", name, address=address).returncode == 0
    client.closed()


def test_the_command_says_what_is_wrong(daemon: Process, tmp_path: Path) -> None:
    address = daemon.lines[0]
    gone = afdbus("close", "none", address=address)
    assert (gone.returncode, gone.stderr) == (
        1, 'afdbus bus: org.freedesktop.DBus.Error.Failed: There is no bus "none"\n',
    )  # fmt: skip
    for words, where in (
        (["list"], ""),
        (["list"], f"unix:path={tmp_path}/none"),
        (["list"], "tcp:host=localhost"),
        (["create", "--config-file", "/nonexistent"], address),
        ([], address),
    ):
        run = afdbus(*words, address=where)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr
