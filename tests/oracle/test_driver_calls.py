"""Every method of org.freedesktop.DBus with good and bad arguments: answers, error names, texts.

The expectations were read off dbus-daemon 1.14.10 and run against it and against ours.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from kit import BUS, BUS_PATH, Daemon, Message, RawClient, call

INVALID_ARGS = "InvalidArgs"
NO_OWNER = "NameHasNoOwner"
UNKNOWN_METHOD = "UnknownMethod"
UNKNOWN_INTERFACE = "UnknownInterface"

PEER = f"{BUS}.Peer"
INTROSPECTABLE = f"{BUS}.Introspectable"
PROPERTIES = f"{BUS}.Properties"
MONITORING = f"{BUS}.Monitoring"
STATS = f"{BUS}.Debug.Stats"
TOO_LONG = "a." + "b" * 254

SIGNATURES = {
    (BUS, "Hello"): "",
    (BUS, "RequestName"): "su",
    (BUS, "ReleaseName"): "s",
    (BUS, "StartServiceByName"): "su",
    (BUS, "UpdateActivationEnvironment"): "a{ss}",
    (BUS, "NameHasOwner"): "s",
    (BUS, "ListNames"): "",
    (BUS, "ListActivatableNames"): "",
    (BUS, "AddMatch"): "s",
    (BUS, "RemoveMatch"): "s",
    (BUS, "GetNameOwner"): "s",
    (BUS, "ListQueuedOwners"): "s",
    (BUS, "GetConnectionUnixUser"): "s",
    (BUS, "GetConnectionUnixProcessID"): "s",
    (BUS, "GetAdtAuditSessionData"): "s",
    (BUS, "GetConnectionSELinuxSecurityContext"): "s",
    (BUS, "ReloadConfig"): "",
    (BUS, "GetId"): "",
    (BUS, "GetConnectionCredentials"): "s",
    (PROPERTIES, "Get"): "ss",
    (PROPERTIES, "GetAll"): "s",
    (PROPERTIES, "Set"): "ssv",
    (INTROSPECTABLE, "Introspect"): "",
    (MONITORING, "BecomeMonitor"): "asu",
    (STATS, "GetStats"): "",
    (STATS, "GetConnectionStats"): "s",
    (STATS, "GetAllMatchRules"): "",
    (PEER, "GetMachineId"): "",
    (PEER, "Ping"): "",
}
"""All methods of the driver with their arguments, in the reference's order."""

VALUES = {"s": ["x"], "u": [1], "ss": ["a.b", "c.d"], "su": ["a.b", 0], "us": [0, "a.b"]}


@pytest.fixture
def taken(alice: RawClient) -> RawClient:
    """Somebody who owns com.example.Taken."""
    assert alice.own("com.example.Taken") == 1
    return alice


def error_of(message: Message, client: RawClient) -> tuple[str, str]:
    """The error that answers a message: its name without the common prefix, and its text."""
    kind, name, text = client.ask(message).brief
    assert kind == "error"
    assert name.startswith(f"{BUS}.Error."), name
    return name.removeprefix(f"{BUS}.Error."), text


@pytest.mark.parametrize(
    ("interface", "member", "wrong"),
    [
        (interface, member, wrong)
        for (interface, member), right in SIGNATURES.items()
        for wrong in ["", *VALUES]
        if wrong != right
    ],
)
def test_wrong_arguments(alice: RawClient, interface: str, member: str, wrong: str) -> None:
    right = SIGNATURES[interface, member]
    message = call(member, wrong, *VALUES.get(wrong, []), interface=interface)
    text = f"Call to {member} has wrong args ({wrong}, expected {right})\n"
    assert error_of(message, alice) == (INVALID_ARGS, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", 'Requested bus name "" is not valid'),
        ("nodots", 'Requested bus name "nodots" is not valid'),
        ("com..x", 'Requested bus name "com..x" is not valid'),
        ("com.1x", 'Requested bus name "com.1x" is not valid'),
        ("com.exämple", 'Requested bus name "com.exämple" is not valid'),
        (TOO_LONG, f'Requested bus name "{TOO_LONG}" is not valid'),
        (":1.5", "Cannot acquire a service starting with ':' such as \":1.5\""),
        (
            BUS,
            'Connection "{self}" is not allowed to own the service "org.freedesktop.DBus"'
            "because it is reserved for D-Bus' use only",
        ),
    ],
)
def test_request_name_refused(alice: RawClient, name: str, text: str) -> None:
    answer = error_of(call("RequestName", "su", name, 0), alice)
    assert answer == (INVALID_ARGS, text.replace("{self}", alice.name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", 'Given bus name "" is not valid'),
        ("nodots", 'Given bus name "nodots" is not valid'),
        (":1.5", "Cannot release a service starting with ':' such as \":1.5\""),
        ("{self}", "Cannot release a service starting with ':' such as \"{self}\""),
        (BUS, f"Cannot release the {BUS} service because it is owned by the bus"),
    ],
)
def test_release_name_refused(alice: RawClient, name: str, text: str) -> None:
    name, text = (part.replace("{self}", alice.name) for part in (name, text))
    assert error_of(call("ReleaseName", "s", name), alice) == (INVALID_ARGS, text)


def test_release_name_answers(taken: RawClient, bob: RawClient) -> None:
    assert bob.bus("ReleaseName", "s", "com.example.None").brief == ("return", 2)
    assert bob.bus("ReleaseName", "s", "com.example.Taken").brief == ("return", 3)


@pytest.mark.parametrize("flags", [0, 7, 0xFFFFFFFF])
@pytest.mark.parametrize("name", ["com.example.None", "", ":1.5", "nodots", BUS])
def test_start_service_without_services(alice: RawClient, name: str, flags: int) -> None:
    assert error_of(call("StartServiceByName", "su", name, flags), alice) == (
        "ServiceUnknown",
        f"The name {name} was not provided by any .service files",
    )


def test_start_service_looks_for_a_service_file_first(taken: RawClient, bob: RawClient) -> None:
    """Only a name with a service file is ALREADY_RUNNING; one that is merely owned is unknown."""
    for name in ("com.example.Taken", taken.name):
        assert error_of(call("StartServiceByName", "su", name, 0), bob) == (
            "ServiceUnknown",
            f"The name {name} was not provided by any .service files",
        )


ABSENT = ["com.example.None", "", ":1.999999", "nodots"]


@pytest.mark.parametrize("name", ABSENT)
@pytest.mark.parametrize(
    ("member", "what"),
    [
        ("GetNameOwner", "owner"),
        ("ListQueuedOwners", "owners"),
        ("GetConnectionUnixUser", "UID"),
        ("GetConnectionUnixProcessID", "PID"),
        ("GetConnectionCredentials", "credentials"),
        ("GetAdtAuditSessionData", "audit session data"),
        ("GetConnectionSELinuxSecurityContext", "security context"),
    ],
)
def test_about_an_absent_name(alice: RawClient, member: str, what: str, name: str) -> None:
    text = f"Could not get {what} of name '{name}': no such name"
    assert error_of(call(member, "s", name), alice) == (NO_OWNER, text)


@pytest.mark.parametrize("name", ABSENT)
def test_name_has_owner_is_never_an_error(alice: RawClient, name: str) -> None:
    assert alice.bus("NameHasOwner", "s", name).brief == ("return", False)


def test_about_names_that_are_there(taken: RawClient, bob: RawClient, daemon: Daemon) -> None:
    owners = {"com.example.Taken": taken.name, taken.name: taken.name, BUS: BUS}
    for name, owner in owners.items():
        pid = daemon.pid if name == BUS else os.getpid()
        assert bob.bus("NameHasOwner", "s", name).brief == ("return", True)
        assert bob.bus("GetNameOwner", "s", name).brief == ("return", owner)
        assert bob.bus("ListQueuedOwners", "s", name).brief == ("return", [owner])
        assert bob.bus("GetConnectionUnixUser", "s", name).brief == ("return", os.geteuid())
        assert bob.bus("GetConnectionUnixProcessID", "s", name).brief == ("return", pid)


def test_credentials(taken: RawClient, bob: RawClient, daemon: Daemon) -> None:
    groups = sorted({os.getegid(), *os.getgroups()})
    for name in ("com.example.Taken", taken.name):
        reply = bob.bus("GetConnectionCredentials", "s", name)
        assert reply.signature == "a{sv}"
        # a label is there where a security module is
        (credentials,) = reply.args
        credentials.pop("LinuxSecurityLabel", None)
        if credentials.pop("ProcessFD", None):
            os.close(reply.fds[0])
        assert list(credentials.items()) == [
            ("ProcessID", ("u", os.getpid())),
            ("UnixUserID", ("u", os.geteuid())),
            ("UnixGroupIDs", ("au", groups)),
        ]


SO_PEERPIDFD = 77


def has_process_fds() -> bool:
    """Whether the kernel gives the pidfd of who has connected (since 6.5)."""
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        except OSError:
            return False
        return True


def test_process_fd(daemon: Daemon, alice: RawClient, kind: str) -> None:
    """For who has agreed to take descriptors, as in dbus-daemon since 1.15.8."""
    reply = alice.bus("GetConnectionCredentials", "s", alice.name)
    if kind == "dbus-daemon" and "ProcessFD" not in reply.args[0]:
        assert reply.unix_fds == 0
        return
    if not has_process_fds():
        assert "ProcessFD" not in reply.args[0]
        return
    assert reply.args[0]["ProcessFD"] == ("h", 0)
    (fd,) = reply.fds
    told = Path(f"/proc/self/fdinfo/{fd}").read_text()
    os.close(fd)
    assert f"\nPid:\t{os.getpid()}\n" in told
    for _ in range(3):  # the same call again
        again = alice.bus("GetConnectionCredentials", "s", alice.name)
        assert again.unix_fds == 1
        os.close(again.fds[0])
    bus = alice.bus("GetConnectionCredentials", "s", BUS)
    assert bus.unix_fds == 0
    assert "ProcessFD" not in bus.args[0]
    without = daemon.connect(unix_fds=False)
    reply = without.bus("GetConnectionCredentials", "s", alice.name)
    assert reply.unix_fds == 0
    assert "ProcessFD" not in reply.args[0]


def test_credentials_of_an_anonymous_client(start: Callable[..., Daemon]) -> None:
    """Of what the socket says only the process is kept."""
    daemon = start("<allow_anonymous/>", auth="ANONYMOUS")
    alice, bob = daemon.dial(), daemon.dial()
    for client in (alice, bob):
        client.send_bytes(b"\0")
        client.send_line("AUTH ANONYMOUS")
        assert client.read_line().startswith("OK ")
        client.send_line("BEGIN")
        client.hello()
    (credentials,) = bob.bus("GetConnectionCredentials", "s", alice.name).args
    assert credentials == {"ProcessID": ("u", os.getpid())}
    assert bob.bus("GetConnectionUnixProcessID", "s", alice.name).args == (os.getpid(),)
    assert error_of(call("GetConnectionUnixUser", "s", alice.name), bob) == (
        "Failed",
        f"Could not determine UID for '{alice.name}'",
    )


def test_credentials_of_the_bus(alice: RawClient, daemon: Daemon) -> None:
    (credentials,) = alice.bus("GetConnectionCredentials", "s", BUS).args
    credentials.pop("LinuxSecurityLabel", None)
    assert list(credentials.items()) == [
        ("ProcessID", ("u", daemon.pid)),
        ("UnixUserID", ("u", os.geteuid())),
    ]


@pytest.mark.parametrize("name", ["com.example.Taken", BUS, "{taken}"])
def test_audit_data_unknown(taken: RawClient, bob: RawClient, name: str) -> None:
    name = name.replace("{taken}", taken.name)
    assert error_of(call("GetAdtAuditSessionData", "s", name), bob) == (
        "AdtAuditDataUnknown",
        f"Could not determine audit session data for '{name}'",
    )


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="there are contexts here")
@pytest.mark.parametrize("name", ["com.example.Taken", BUS, "{taken}"])
def test_selinux_context_unknown(taken: RawClient, bob: RawClient, name: str) -> None:
    name = name.replace("{taken}", taken.name)
    assert error_of(call("GetConnectionSELinuxSecurityContext", "s", name), bob) == (
        "SELinuxSecurityContextUnknown",
        f"Could not determine security context for '{name}'",
    )


def test_list_names(taken: RawClient, bob: RawClient, daemon: Daemon) -> None:
    assert daemon.control is not None
    reply = bob.bus("ListNames")
    assert reply.signature == "as"
    assert reply.args[0][0] == BUS
    expected = [BUS, daemon.control.name, taken.name, bob.name, "com.example.Taken"]
    assert sorted(reply.args[0]) == sorted(expected)


def test_list_activatable_names(alice: RawClient) -> None:
    reply = alice.bus("ListActivatableNames")
    assert reply.signature == "as"
    assert reply.brief == ("return", [BUS])


@pytest.mark.parametrize("path", [BUS_PATH, "/", "/x/y"])
@pytest.mark.parametrize("interface", [BUS, None])
def test_get_id_on_any_path_with_or_without_interface(
    alice: RawClient, path: str, interface: str | None
) -> None:
    (first,) = alice.bus("GetId").args
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert alice.ask(call("GetId", path=path, interface=interface)).brief == ("return", first)


def test_id_is_not_the_guid_of_the_address(alice: RawClient, daemon: Daemon) -> None:
    guid = re.search("guid=([0-9a-f]{32})", daemon.address)
    assert guid is not None
    assert alice.bus("GetId").args[0] != guid[1]


def test_reply_header(alice: RawClient) -> None:
    serial = alice.send(call("GetId"))
    reply = alice.read()
    assert (reply.sender, reply.destination, reply.reply_serial) == (BUS, alice.name, serial)
    assert reply.flags == 1, "replies want no reply"
    assert reply.path is reply.interface is reply.member is None


def test_error_header(alice: RawClient) -> None:
    serial = alice.send(call("GetNameOwner", "s", "com.example.None"))
    reply = alice.read()
    assert (reply.sender, reply.destination, reply.reply_serial) == (BUS, alice.name, serial)
    assert reply.flags == 1, "errors want no reply"


def test_second_hello(alice: RawClient) -> None:
    assert error_of(call("Hello"), alice) == ("Failed", "Already handled an Hello message")


def test_reload_config(alice: RawClient) -> None:
    assert alice.bus("ReloadConfig").brief == ("return",)


def test_reload_config_is_told_before_it_is_answered(alice: RawClient, bob: RawClient) -> None:
    for client in (alice, bob):
        client.match(f"sender='{BUS}',member='ActivatableServicesChanged'")
    told, answer = alice.exchange(call("ReloadConfig"))
    assert told.brief == ("signal", "ActivatableServicesChanged")
    assert (told.path, told.interface, told.destination) == (BUS_PATH, BUS, None)
    assert answer.brief == ("return",)
    assert bob.briefs() == [("signal", "ActivatableServicesChanged")]


def test_no_reply_expected_is_answered_all_the_same(alice: RawClient) -> None:
    alice.send(call("GetId", flags=1))
    assert alice.read().brief[0] == "return"


@pytest.mark.parametrize("environment", [{}, {"A": "b"}, {"": "b", "X=Y": "c"}])
def test_update_activation_environment(alice: RawClient, environment: dict[str, str]) -> None:
    reply = alice.bus("UpdateActivationEnvironment", "a{ss}", environment)
    assert reply.brief == ("return",)


@pytest.mark.parametrize("interface", [BUS, None])
def test_update_activation_environment_elsewhere(alice: RawClient, interface: str | None) -> None:
    message = call(
        "UpdateActivationEnvironment", "a{ss}", {"A": "b"}, path="/x", interface=interface
    )
    assert error_of(message, alice) == (
        "AccessDenied",
        "Method 'UpdateActivationEnvironment' is only available at the canonical object path "
        "'/org/freedesktop/DBus'",
    )


@pytest.mark.parametrize(
    ("interface", "member", "error"),
    [
        (BUS, "Nope", UNKNOWN_METHOD),
        (BUS, "Dune", UNKNOWN_METHOD),
        (BUS, "BecomeMonitor", UNKNOWN_METHOD),
        (None, "Nope", UNKNOWN_METHOD),
        (PEER, "Nope", UNKNOWN_METHOD),
        (PEER, "ListNames", UNKNOWN_METHOD),
        (INTROSPECTABLE, "Nope", UNKNOWN_METHOD),
        (PROPERTIES, "Nope", UNKNOWN_METHOD),
        (MONITORING, "Nope", UNKNOWN_METHOD),
        (STATS, "Nope", UNKNOWN_METHOD),
        ("com.example.Interface", "Nope", UNKNOWN_INTERFACE),
        ("com.example.Interface", "Hello", UNKNOWN_INTERFACE),
        (f"{BUS}.Verbose", "EnableVerbose", UNKNOWN_INTERFACE),
        (f"{BUS}.Containers1", "AddServer", UNKNOWN_INTERFACE),
        ("org.freedesktop.systemd1.Activator", "ActivationFailure", UNKNOWN_INTERFACE),
    ],
)
@pytest.mark.parametrize("signature", ["", "s"])
def test_unknown_method(
    alice: RawClient, interface: str | None, member: str, error: str, signature: str
) -> None:
    message = call(member, signature, *VALUES.get(signature, []), interface=interface)
    text = f"{BUS} does not understand message {member}"
    assert error_of(message, alice) == (error, text)


@pytest.mark.parametrize(
    ("interface", "member", "signature", "args"),
    [
        (PROPERTIES, "Get", "ss", [BUS, "Features"]),
        (PROPERTIES, "Get", "ss", [BUS, "Nope"]),
        (PROPERTIES, "GetAll", "s", [BUS]),
        (PROPERTIES, "Set", "ssv", [BUS, "Features", ("as", [])]),
        (MONITORING, "BecomeMonitor", "asu", [[], 0]),
        (STATS, "GetStats", "", []),
        (STATS, "GetConnectionStats", "s", ["com.example.None"]),
        (STATS, "GetAllMatchRules", "", []),
    ],
)
def test_only_on_the_canonical_path(
    alice: RawClient, interface: str, member: str, signature: str, args: list[Any]
) -> None:
    message = call(member, signature, *args, interface=interface, path="/x")
    text = f"{BUS} does not understand message {member}"
    assert error_of(message, alice) == (UNKNOWN_INTERFACE, text)


@pytest.mark.parametrize("path", [BUS_PATH, "/", "/x/y"])
def test_peer_on_any_path(alice: RawClient, path: str) -> None:
    assert alice.ask(call("Ping", interface=PEER, path=path)).brief == ("return",)
    reply = alice.ask(call("GetMachineId", interface=PEER, path=path))
    assert re.fullmatch("[0-9a-f]{32}", reply.args[0])


def test_methods_of_all_interfaces_are_found_without_interface(alice: RawClient) -> None:
    assert alice.ask(call("Ping", interface=None)).brief == ("return",)
    message = call("Get", "ss", BUS, "Features", interface=None)
    assert alice.ask(message).signature == "v"
    message = call("Get", "ss", BUS, "Features", interface=None, path="/x")
    assert error_of(message, alice)[0] in (UNKNOWN_METHOD, UNKNOWN_INTERFACE)


def test_properties(alice: RawClient) -> None:
    def get(name: str) -> Any:
        return alice.ask(call("Get", "ss", BUS, name, interface=PROPERTIES)).args[0]

    features, interfaces = get("Features"), get("Interfaces")
    optional = {"AppArmor", "SELinux", "SystemdActivation"}
    assert features[0] == interfaces[0] == "as"
    assert set(features[1]) - optional == {"ActivatableServicesChanged", "HeaderFiltering"}
    assert set(interfaces[1]) >= {MONITORING, STATS}
    everything = alice.ask(call("GetAll", "s", BUS, interface=PROPERTIES))
    assert everything.signature == "a{sv}"
    assert everything.args == ({"Features": features, "Interfaces": interfaces},)


@pytest.mark.parametrize("interface", [PEER, INTROSPECTABLE, PROPERTIES, MONITORING, STATS])
def test_interfaces_without_properties(alice: RawClient, interface: str) -> None:
    assert alice.ask(call("GetAll", "s", interface, interface=PROPERTIES)).args == ({},)
    message = call("Get", "ss", interface, "Features", interface=PROPERTIES)
    text = f'Property "{interface}.Features" not found'
    assert error_of(message, alice) == ("UnknownProperty", text)


@pytest.mark.parametrize(
    ("member", "signature", "args", "error", "text"),
    [
        ("Get", "ss", [BUS, "Nope"], "UnknownProperty", f'Property "{BUS}.Nope" not found'),
        ("Get", "ss", [BUS, ""], "UnknownProperty", f'Property "{BUS}." not found'),
        ("Get", "ss", ["com.a", "Features"], UNKNOWN_INTERFACE, 'Interface "com.a" not found'),
        ("Get", "ss", ["", "Features"], UNKNOWN_INTERFACE, 'Interface "" not found'),
        ("GetAll", "s", ["com.a"], UNKNOWN_INTERFACE, 'Interface "com.a" not found'),
        ("GetAll", "s", [""], UNKNOWN_INTERFACE, 'Interface "" not found'),
        (
            "Set",
            "ssv",
            [BUS, "Features", ("as", [])],
            "PropertyReadOnly",
            f"Property '{BUS}.Features' cannot be set",
        ),
        (
            "Set",
            "ssv",
            [BUS, "Features", ("u", 7)],
            "PropertyReadOnly",
            f"Property '{BUS}.Features' cannot be set",
        ),
        (
            "Set",
            "ssv",
            [BUS, "Nope", ("as", [])],
            "UnknownProperty",
            f'Property "{BUS}.Nope" not found',
        ),
        (
            "Set",
            "ssv",
            ["com.a", "Features", ("as", [])],
            UNKNOWN_INTERFACE,
            'Interface "com.a" not found',
        ),
    ],
)
def test_properties_refused(
    alice: RawClient, member: str, signature: str, args: list[Any], error: str, text: str
) -> None:
    message = call(member, signature, *args, interface=PROPERTIES)
    assert error_of(message, alice) == (error, text)


def introspection(client: RawClient, path: str) -> ElementTree.Element:
    reply = client.ask(call("Introspect", interface=INTROSPECTABLE, path=path))
    assert reply.signature == "s"
    return ElementTree.fromstring(reply.args[0])


def test_introspection_lists_every_method(alice: RawClient) -> None:
    node = introspection(alice, BUS_PATH)
    found = {
        (interface.get("name"), method.get("name")): "".join(
            arg.get("type", "") for arg in method.findall("arg") if arg.get("direction") != "out"
        )
        for interface in node.findall("interface")
        for method in interface.findall("method")
    }
    expected = dict(SIGNATURES)
    assert {key: found.get(key) for key in expected} == expected
    assert all(name.startswith("org.afdbus.") for name, _ in found.keys() - expected.keys())


def test_introspection_lists_the_answers(alice: RawClient) -> None:
    node = introspection(alice, BUS_PATH)
    answers = {
        method.get("name"): "".join(
            arg.get("type", "") for arg in method.findall("arg") if arg.get("direction") == "out"
        )
        for interface in node.findall("interface")
        for method in interface.findall("method")
    }
    expected = {
        "Hello": "s", "RequestName": "u", "ReleaseName": "u", "StartServiceByName": "u",
        "UpdateActivationEnvironment": "", "NameHasOwner": "b", "ListNames": "as",
        "ListActivatableNames": "as", "AddMatch": "", "RemoveMatch": "", "GetNameOwner": "s",
        "ListQueuedOwners": "as", "GetConnectionUnixUser": "u", "GetConnectionUnixProcessID": "u",
        "GetAdtAuditSessionData": "ay", "GetConnectionSELinuxSecurityContext": "ay",
        "ReloadConfig": "", "GetId": "s", "GetConnectionCredentials": "a{sv}", "Get": "v",
        "GetAll": "a{sv}", "Set": "", "Introspect": "s", "BecomeMonitor": "", "GetStats": "a{sv}",
        "GetConnectionStats": "a{sv}", "GetAllMatchRules": "a{sas}", "GetMachineId": "s",
        "Ping": "",
    }  # fmt: skip
    assert {name: answers.get(name) for name in expected} == expected


def test_introspection_lists_signals_and_properties(alice: RawClient) -> None:
    node = introspection(alice, BUS_PATH)
    signals = {
        signal.get("name"): "".join(arg.get("type", "") for arg in signal.findall("arg"))
        for signal in node.findall(f"interface[@name='{BUS}']/signal")
    }
    assert signals == {
        "NameOwnerChanged": "sss",
        "NameLost": "s",
        "NameAcquired": "s",
        "ActivatableServicesChanged": "",
    }
    changed = node.find(f"interface[@name='{PROPERTIES}']/signal[@name='PropertiesChanged']")
    assert changed is not None
    assert [arg.get("type") for arg in changed.findall("arg")] == ["s", "a{sv}", "as"]
    properties = {
        item.get("name"): (item.get("type"), item.get("access"))
        for item in node.findall(f"interface[@name='{BUS}']/property")
    }
    assert properties == {"Features": ("as", "read"), "Interfaces": ("as", "read")}


def test_introspection_leads_to_the_bus(alice: RawClient) -> None:
    """Off the canonical path: the interfaces that answer everywhere, and the way at the root."""
    everywhere = {BUS, INTROSPECTABLE, PEER}
    for path in ("/", "/x"):
        node = introspection(alice, path)
        assert {item.get("name") for item in node.findall("interface")} == everywhere
    children = [child.get("name") for child in introspection(alice, "/").findall("node")]
    assert children == ["org/freedesktop/DBus"]
    assert introspection(alice, "/x").findall("node") == []


STANDARD_STATS = [
    "Serial", "ListMemPoolUsedBytes", "ListMemPoolCachedBytes", "ListMemPoolAllocatedBytes",
    "ActiveConnections", "IncompleteConnections", "MatchRules", "PeakMatchRules",
    "PeakMatchRulesPerConnection", "BusNames", "PeakBusNames", "PeakBusNamesPerConnection",
]  # fmt: skip


def numbers(stats: dict[str, tuple[str, Any]]) -> dict[str, int]:
    assert {type_ for type_, _ in stats.values()} == {"u"}
    return {key: value for key, (_, value) in stats.items()}


def test_stats(start: Callable[..., Daemon]) -> None:
    daemon = start()
    alice, bob = daemon.connect(), daemon.connect()
    alice.own("com.example.A")
    alice.own("com.example.B")
    bob.match("member='A'")
    bob.match("member='B'")
    assert bob.bus("RemoveMatch", "s", "member='A'").brief == ("return",)
    alice.match("member='A'")
    bob.own("com.example.A")
    daemon.connect().close()
    half_way = daemon.join()
    half_way.bus("NameHasOwner", "s", "com.example.A")  # refused, but it is there
    alice.until_owned(":1.2", owned=False)
    reply = bob.ask(call("GetStats", interface=STATS))
    assert reply.signature == "a{sv}"
    stats = numbers(reply.args[0])
    assert list(stats) == STANDARD_STATS
    for key in STANDARD_STATS[:4]:
        del stats[key]
    assert stats == {
        "ActiveConnections": 2,
        "IncompleteConnections": 1,
        "MatchRules": 2,
        "PeakMatchRules": 2,
        "PeakMatchRulesPerConnection": 2,
        "BusNames": 5,  # the unique names, two owned ones and a place in a queue
        "PeakBusNames": 6,
        "PeakBusNamesPerConnection": 3,
    }


def test_connection_stats(taken: RawClient, bob: RawClient) -> None:
    taken.match("type='signal'")
    reply = bob.ask(call("GetConnectionStats", "s", "com.example.Taken", interface=STATS))
    assert reply.signature == "a{sv}"
    (stats,) = reply.args
    assert list(stats) == [
        *("Serial", "MatchRules", "PeakMatchRules", "BusNames", "PeakBusNames", "UniqueName"),
        *("IncomingMessages", "IncomingBytes", "IncomingFDs"),
        *("PeakIncomingBytes", "PeakIncomingFDs"),
        *("OutgoingMessages", "OutgoingBytes", "OutgoingFDs"),
        *("PeakOutgoingBytes", "PeakOutgoingFDs"),
    ]
    assert stats.pop("UniqueName") == ("s", taken.name)
    counts = numbers(stats)
    assert counts["MatchRules"] == counts["PeakMatchRules"] == 1
    assert counts["BusNames"] == counts["PeakBusNames"] == 2
    # nothing waits for anybody; what has waited depends on the machine
    for key in ("Incoming", "Outgoing"):
        assert counts[f"{key}Messages"] == counts[f"{key}Bytes"] == counts[f"{key}FDs"] == 0


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        (
            "com.example.None",
            NO_OWNER,
            "Could not get statistics of name 'com.example.None': no such name",
        ),
        (
            BUS,
            INVALID_ARGS,
            f'GetConnectionStats is not meaningful for the message bus "{BUS}" itself',
        ),
    ],
)
def test_connection_stats_refused(alice: RawClient, name: str, error: str, text: str) -> None:
    message = call("GetConnectionStats", "s", name, interface=STATS)
    assert error_of(message, alice) == (error, text)


def test_all_match_rules(taken: RawClient, bob: RawClient) -> None:
    taken.match("type='signal',member='A'")
    reply = bob.ask(call("GetAllMatchRules", interface=STATS))
    assert reply.signature == "a{sas}"
    (rules,) = reply.args
    assert rules[taken.name] == ["type='signal',member='A'"]
    assert rules[bob.name] == []


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        (([], 1), INVALID_ARGS, "BecomeMonitor does not support any flags yet"),
        (
            (["bad"], 0),
            "MatchRuleInvalid",
            "Match rule has a key with no subsequent '=' character",
        ),
        ((["type='signal'", "type='x'"], 0), "MatchRuleInvalid", None),
    ],
)
def test_become_monitor_refused(
    alice: RawClient, args: tuple[list[str], int], error: str, text: str | None
) -> None:
    message = call("BecomeMonitor", "asu", *args, interface=MONITORING)
    found = error_of(message, alice)
    assert found[0] == error
    assert text is None or found[1] == text
    alice.alive()


# -- calls without destination reach the peer's own handler, not the driver


@pytest.mark.parametrize("path", [BUS_PATH, "/x"])
@pytest.mark.parametrize("signature", ["", "s"])
def test_peer_without_destination(alice: RawClient, path: str, signature: str) -> None:
    values = VALUES.get(signature, [])
    message = call("Ping", signature, *values, interface=PEER, path=path, destination=None)
    reply = alice.ask(message)
    assert reply.brief == ("return",)
    reply = alice.ask(call("GetMachineId", interface=PEER, path=path, destination=None))
    assert reply.brief == alice.ask(call("GetMachineId", interface=PEER)).brief


@pytest.mark.parametrize(
    ("member", "signature", "interface"),
    [
        ("Hello", "", BUS),
        ("GetId", "s", BUS),
        ("Foo", "", "a.b"),
        ("Foo", "", None),
        ("Ping", "", None),
    ],
)
def test_call_without_destination(
    alice: RawClient, member: str, signature: str, interface: str | None
) -> None:
    message = call(
        member, signature, *VALUES.get(signature, []), interface=interface, destination=None
    )
    shown = "(null)" if interface is None else interface
    text = f'Method "{member}" with signature "{signature}" on interface "{shown}" doesn\'t exist\n'
    assert error_of(message, alice) == (UNKNOWN_METHOD, text)


def test_unknown_peer_method_without_destination(alice: RawClient) -> None:
    message = call("Nope", interface=PEER, destination=None)
    text = f"Unknown method invoked on {PEER} interface"
    assert error_of(message, alice) == (UNKNOWN_METHOD, text)


@pytest.mark.parametrize("destination", ["com.example.None", ":1.999999", ":"])
def test_nobody_there(alice: RawClient, destination: str) -> None:
    message = call("Foo", destination=destination, interface="com.example.Interface")
    text = f"The name {destination} was not provided by any .service files"
    assert error_of(message, alice) == ("ServiceUnknown", text)
    message.flags = 2  # NO_AUTO_START
    text = f'Name "{destination}" does not exist'
    assert error_of(message, alice) == (NO_OWNER, text)
