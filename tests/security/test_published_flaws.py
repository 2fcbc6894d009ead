"""What clients once did to message buses, done again: docs/security.md tells the stories.

Both daemons are attacked, and both must show what the corrected dbus-daemon does; some attacks are
for ours alone, as dbus-daemon does not survive them.  After each, others find the bus as it was.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import (
    BUS,
    ClosedError,
    Daemon,
    Message,
    RawClient,
    Received,
    busconfig,
    call,
    method_return,
    peer_call,
    signal,
)
from kit.daemon import DAEMONS, OPEN_POLICY

from afdbus.config.load import load
from afdbus.identity import Identity

Start = Callable[..., Daemon]

SIGNATURE, PATH, MEMBER, DESTINATION = 8, 1, 3, 6
DENIED = f"{BUS}.Error.AccessDenied"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
NOBODY = 65534


def policy(*rules: str) -> str:
    """The open policy and these rules, which come later and so count."""
    return OPEN_POLICY.replace("</policy>", "\n".join([*rules, "</policy>"]))


def become_monitor(client: RawClient, *rules: str) -> RawClient:
    client.exchange(call("BecomeMonitor", "asu", list(rules), 0, interface=f"{BUS}.Monitoring"))
    client.read_until(lambda m: m.brief == ("signal", "NameLost", client.name), "its NameLost")
    return client


def say(client: RawClient, message: Message) -> list[Received]:
    """Send it; answers what the bus has to say to it."""
    client.send(message)
    return client.sync()


# -- bytes that are no message


def with_signature(to: RawClient, signature: bytes, body: bytes) -> bytes:
    """A call whose signature may be none; signatures are written as what they are, bytes."""
    message = peer_call(to.name).plus((SIGNATURE, "g", "x" * len(signature)))
    message.body = body
    mark = b"\x01g\0" + bytes([len(signature)]) + b"x" * len(signature)
    data = message.pack(1)
    assert data.count(mark) == 1
    return data.replace(mark, mark[:4] + signature)


def refused(daemon: Daemon, signature: bytes, body: bytes = b"") -> None:
    alice, bob = daemon.connect(), daemon.connect()
    alice.send_bytes(with_signature(bob, signature, body))
    assert alice.closed() == []
    assert bob.sync() == []


@pytest.mark.parametrize(
    "signature", ["a{", "a{}", "a{s}", "a{sss}", "a{vs}", "a{(s)s}", "{ss}", "()", "a", "(", ")"]
)
def test_cve_2008_3834_malformed_signatures(daemon: Daemon, signature: str) -> None:
    refused(daemon, signature.encode(), bytes(16))


@pytest.mark.parametrize(
    "signature", ["a" * 33 + "y", "(" * 33 + "y" + ")" * 33, "a(" * 33 + "y" + ")" * 33]
)
def test_cve_2009_1189_signatures_nested_too_deep(daemon: Daemon, signature: str) -> None:
    refused(daemon, signature.encode(), bytes(16))


@pytest.mark.parametrize("signature", ["a{s(y})", "(a{sy)}", "a{s(as})", "a{y(y}y)"])
def test_cve_2022_42010_crossed_brackets(daemon: Daemon, signature: str) -> None:
    refused(daemon, signature.encode(), bytes(16))


@pytest.mark.parametrize(
    ("signature", "size"), [("an", 3), ("ai", 5), ("ax", 12), ("ad", 1), ("a(ii)", 12), ("ab", 2)]
)
def test_cve_2022_42011_array_length_no_multiple(daemon: Daemon, signature: str, size: int) -> None:
    """The length of an array of fixed elements, and as many bytes as it says."""
    start = 8 if signature[1] in "xd(" else 4
    body = size.to_bytes(4, "little").ljust(start, b"\0") + bytes(size)
    refused(daemon, signature.encode(), body)


@pytest.mark.parametrize("depth", [65, 5_000, 200_000])
def test_cve_2010_4352_variants_nested_by_thousands(daemon: Daemon, depth: int) -> None:
    refused(daemon, b"v", b"\x01v\0" * depth + b"\x01y\0\0")


# -- the other byte order


def test_cve_2022_42012_descriptors_in_the_other_byte_order(
    alice: RawClient, bob: RawClient
) -> None:
    fd = os.memfd_create("kit")
    body = "a{sv}", {"key": ("ah", [0])}
    alice.send(peer_call(bob.name, "M", "h(v)" + body[0], 0, (("h", 0),), body[1],
                         little=False, fds=[fd]))  # fmt: skip
    os.close(fd)
    received = bob.receive_call()
    assert received.args == (0, (("h", 0),), body[1])
    assert len(received.fds) == 1
    os.close(received.fds[0])
    bob.send(method_return(received, "u", 7))
    assert alice.read().args == (7,)


# -- who may


def test_cve_2006_6107_rules_of_others_cannot_be_removed(alice: RawClient, bob: RawClient) -> None:
    rule = "type='signal',member='S'"
    alice.match(rule)
    for text in (rule, "member='S',type='signal'"):
        assert bob.bus("RemoveMatch", "s", text).error_name == f"{BUS}.Error.MatchRuleNotFound"
    bob.send(signal("S"))
    assert alice.read("the signal").brief == ("signal", "S")


def test_cve_2008_0595_no_interface_is_not_the_one_that_is_allowed(start: Start) -> None:
    daemon = start(
        policy=policy(
            '<deny send_type="method_call"/>',
            f'<allow send_destination="{BUS}"/>',
            '<allow send_interface="com.example.Open"/>',
        )
    )
    alice, bob = daemon.connect(), daemon.connect()
    for interface in (None, "com.example.Closed"):
        assert alice.ask(peer_call(bob.name, interface=interface)).error_name == DENIED
    alice.send(peer_call(bob.name, interface="com.example.Open"))
    assert alice.sync() == []
    assert [message.interface for message in bob.sync()] == ["com.example.Open"]


def test_cve_2008_4311_nobody_calls_services_of_a_system_bus(kind: str) -> None:
    """The policy that we install for it.  Only what names the machine's own places is cut out."""
    text = (Path(__file__).parents[2] / "config" / "system.conf").read_text()
    for element in ("user", "pidfile", "servicehelper", "includedir", "include"):
        text = re.sub(rf"<{element}\b[^>]*>[^<]*</{element}>", "", text)
    text = re.sub(r"<(fork|syslog|standard_system_servicedirs)/>", "", text)
    text = text.replace("unix:path=/run/dbus/system_bus_socket", "unix:path={directory}/bus")
    text = text.replace("<type>system</type>", "")
    with Daemon(kind, text) as daemon:
        alice, bob = daemon.connect(), daemon.connect()
        assert bob.bus("RequestName", "su", "com.example.Service", 0).error_name == DENIED
        for destination in (bob.name, BUS):
            refusal = alice.ask(peer_call(destination, "Method", "s", "x"))
            assert refusal.error_name == DENIED, destination
        alice.send(signal("S", destination=bob.name))
        assert alice.sync() == []
        assert [message.brief for message in bob.sync()] == [("signal", "S")]


@ROOT
def test_hardening_1_9_6_the_environment_belongs_to_the_owner(start: Start) -> None:
    daemon = start()
    stranger = daemon.connect(uid=NOBODY)
    update = call("UpdateActivationEnvironment", "a{ss}", {"LD_PRELOAD": "/tmp/evil.so"})
    assert stranger.ask(update).error_name == DENIED
    stranger.alive()


def test_cve_2013_2168_text_is_no_format(start: Start) -> None:
    daemon = start(max_match_rules_per_connection=1)
    alice = daemon.connect()
    evil = "%s%s%n%99999999d%p%"
    alice.match(f"arg0='{evil}'")
    for member, signature in (
        ("RequestName", "su"), ("ReleaseName", "s"), ("GetNameOwner", "s"),
        ("StartServiceByName", "su"), ("AddMatch", "s"), ("RemoveMatch", "s"),
        ("ListQueuedOwners", "s"), ("GetConnectionCredentials", "s"),
    ):  # fmt: skip
        answer = alice.ask(call(member, signature, *[evil, 0][: len(signature)]))
        assert answer.brief[0] == "error", member
        name, text = answer.brief[1:]
        assert evil in text or name.endswith((".LimitsExceeded", "MatchRuleInvalid")), answer
    get = call("Get", "ss", evil, evil, interface=f"{BUS}.Properties")
    assert evil in alice.ask(get).brief[2]
    alice.alive()


# -- before anybody is somebody


@pytest.mark.parametrize(
    "first",
    [
        b"", b"\0", b"\0\r\n", b"\0\n", b"\xff", b"\0\0\0", b"BEGIN\r\n", b"\0BEGIN\r\n",
        b"\0AUTH", b"\0AUTH\r\nBEGIN\r\n", b"\0DATA\r\n", b"\0" + b"x" * 16383,
        b"\0" + b"x" * 16384, b"\0" + b"x" * 16385 + b"\r\n", b"\0" + b"\r\n" * 5,
        b"\0NEGOTIATE_UNIX_FD\r\n", b"\0AUTH EXTERNAL 0\r\n", b"\0" + b"A\0B\r\n" * 3,
        b"\0AUTH EXTERNAL " + b"3" * 16000 + b"\r\n",
    ],
    ids=lambda data: f"{bytes(data[:24])!r}-{len(data)}",
)  # fmt: skip
def test_dbus_421_anything_before_authentication(daemon: Daemon, first: bytes) -> None:
    """And what is left over comes together with the next bytes, or in single ones."""
    whole, single = daemon.dial(), daemon.dial()
    whole.send_bytes(first + first)
    try:
        for place in range(min(len(first), 100)):
            single.send_bytes(first[place : place + 1])
    except ClosedError:
        assert first[:1] != b"\0", "only a first byte that is not NUL is an end at once"
    for client in (whole, single):
        client.close()
    daemon.connect().alive()


# -- what the bus cannot deliver, while somebody watches


def test_cve_2023_34969_an_answer_that_may_not_be_received(start: Start) -> None:
    """The bus's own error for a client that may have none, with a monitor on the bus."""
    rule = f'receive_type="error" receive_sender="{BUS}" receive_requested_reply="true"'
    daemon = start(policy=policy(f"<deny {rule}/>"))
    alice, watcher = daemon.connect(), become_monitor(daemon.connect())
    alice.send(call("GetNameOwner", "s", "com.example.None"))
    alice.alive()
    seen = watcher.read_until(lambda m: m.member == "GetId", "the call after it")
    assert [m.brief[1] for m in seen if m.brief[0] == "error"][:1] == [
        f"{BUS}.Error.NameHasNoOwner"
    ]


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Start:
    """Start a daemon of ours; dbus-daemon 1.14.10 does not survive the attack."""
    running: list[Daemon] = []

    def begin(**rest: object) -> Daemon:
        daemon = Daemon("afdbus", busconfig(**rest))  # type: ignore[arg-type]
        request.addfinalizer(daemon.stop)
        running.append(daemon)
        return daemon

    return begin


def test_unpublished_a_broadcast_of_the_bus_that_policy_keeps_from_a_subscriber(
    ours: Start,
) -> None:
    rule = f'receive_sender="{BUS}" receive_interface="{BUS}" receive_member="NameOwnerChanged"'
    daemon = ours(policy=policy(f"<deny {rule}/>"))
    alice, watcher = daemon.connect(), daemon.connect()
    alice.match("member='NameOwnerChanged'")
    become_monitor(watcher)
    bob = daemon.connect()
    bob.own("com.example.Name")
    bob.close()
    alice.until_gone(bob.name)
    assert alice.sync() == []
    seen = watcher.read_until(
        lambda m: m.brief == ("signal", "NameOwnerChanged", bob.name, bob.name, ""), "the end"
    )
    assert ("signal", "NameOwnerChanged", "com.example.Name", "", bob.name) in [
        m.brief for m in seen
    ]


def test_unpublished_a_broadcast_of_the_bus_for_a_full_subscriber(ours: Start) -> None:
    daemon = ours(max_outgoing_bytes=20_000)
    alice, deaf, watcher = (daemon.connect() for _ in range(3))
    deaf.match("member='NameOwnerChanged'")
    become_monitor(watcher, "member='NameOwnerChanged'")
    sent = 0
    # the second message is smaller than the signal: what has no room for it has none for that
    for body in (bytes(10_000), b""):
        while not (told := say(alice, peer_call(deaf.name, "M", "ay", body, flags=1))):
            sent += 1
            assert sent < 10_000, "as if there were no limit"
        assert told[0].error_name == f"{BUS}.Error.LimitsExceeded"
    for _ in range(3):
        bob = daemon.connect()
        bob.close()
        alice.until_gone(bob.name)
    for _ in range(sent):
        deaf.read_until(lambda m: m.member == "M", "what there was room for")
    assert deaf.sync() == []
    seen = watcher.read_until(
        lambda m: m.brief == ("signal", "NameOwnerChanged", bob.name, bob.name, ""), "the end"
    )
    assert len([m for m in seen if m.member == "NameOwnerChanged"]) == 6
    deaf.alive()


# -- what ended dbus-broker


def test_broker_v25_monitors_with_rules_and_names_come_and_go(daemon: Daemon) -> None:
    alice = daemon.connect()
    alice.match("type='signal'")
    for turn in range(5):
        client = daemon.connect()
        for _ in range(3):
            client.match("member='S'")
            client.match("type='signal',arg0='x'")
        client.own("com.example.Name")
        become_monitor(client, *["member='S'"] * 3, "", *["type='signal'"] * (turn + 1))
        alice.send(signal("S", "s", "x"))
        assert [m.member for m in client.read_until(lambda m: m.member == "S", "the signal")] != []
        client.close()
        alice.sync()
    daemon.connect().alive()


def test_broker_v19_quotas_of_any_size(start: Start) -> None:
    """Sums with the largest limits that a configuration can have overflow nowhere."""
    names = [
        "max_incoming_bytes", "max_outgoing_bytes", "max_incoming_unix_fds",
        "max_outgoing_unix_fds", "max_completed_connections", "max_connections_per_user",
        "max_names_per_connection", "max_match_rules_per_connection", "max_replies_per_connection",
        "max_pending_service_starts",
    ]  # fmt: skip
    daemon = start(**dict.fromkeys(names, 2**31 - 1))
    alice, bob = daemon.connect(), daemon.connect()
    alice.match("member='S'")
    alice.own("com.example.Name")
    bob.send(signal("S", "ay", bytes(100_000)))
    bob.alive()
    assert len(alice.sync()) == 1
    bob.send(peer_call(alice.name))
    alice.send(method_return(alice.receive_call()))
    assert bob.read().brief == ("return",)


def test_broker_v37_every_argument_can_be_asked_for(alice: RawClient, bob: RawClient) -> None:
    """argN for all N, and not only for the first."""
    letters = [f"v{number}" for number in range(64)]
    message = signal("S", "s" * 64, *letters)
    for number in range(64):
        alice.match(f"member='S',arg{number}='v{number}'")
        bob.send(message)
        bob.sync()
        assert len(alice.sync()) == 1, number
        rule = f"member='S',arg{number}='v{number}'"
        assert alice.bus("RemoveMatch", "s", rule).brief == ("return",)
        alice.match(f"member='S',arg{number}='v{(number + 1) % 64}'")
        bob.send(message)
        bob.sync()
        assert alice.sync() == [], number


def test_broker_v35_broken_files_at_a_reload(start: Start) -> None:
    daemon = start("<servicedir>{directory}/services</servicedir>")
    alice, directory = daemon.connect(), daemon.directory / "services"
    directory.mkdir()
    good = daemon.config_file.read_bytes()
    broken = [
        b"",
        b"\0" * 100,
        b"<",
        good[:-20],
        good.replace(b"<listen>", b"<listen"),
        b"\xff" * 9,
    ]
    for number, text in enumerate(broken):
        (directory / f"{number}.service").write_bytes(text)
        daemon.config_file.write_bytes(text)
        assert alice.exchange(call("ReloadConfig"))[-1].brief[0] == "error", text
    daemon.config_file.write_bytes(good)
    assert alice.exchange(call("ReloadConfig"))[-1].brief == ("return",)
    assert alice.bus("ListActivatableNames").args[0] == [BUS]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"<", b"<busconfig>", b"<busconfig/>" * 2, b"\0" * 1000,
        b"<busconfig><limit></busconfig>", b"<busconfig>" * 20_000,
        b"<!DOCTYPE busconfig [<!ENTITY a '&a;'>]><busconfig>&a;</busconfig>",
        b"<busconfig><limit name='a'>" + b"9" * 9999 + b"</limit></busconfig>",
    ],
    ids=range(9),
)  # fmt: skip
def test_cve_2022_31213_no_configuration_at_all(kind: str, tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "bus.conf"
    file.write_bytes(text)
    command = [*DAEMONS[kind], "--nofork", f"--config-file={file}", "--print-address"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") < 5
    assert "Traceback" not in ended.stderr


def test_dbus_416_a_directory_is_listened_in_by_path(start: Start) -> None:
    """An abstract name could be reached from any sandbox with the network of the host."""
    daemon = start(listen="unix:tmpdir={directory}")
    assert daemon.address.startswith(f"unix:path={daemon.directory}/")
    daemon.connect().alive()


def test_cve_2020_35512_two_names_of_one_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules for either name are rules for the number, in the order of the file."""
    entry = pwd.struct_passwd(("", "x", 54321, 54321, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", {"first": entry, "second": entry}.__getitem__)
    (tmp_path / "bus.conf").write_text(
        "<busconfig><listen>unix:tmpdir=/tmp</listen>"
        '<policy user="first"><allow own="com.example.A"/><allow own="com.example.B"/></policy>'
        '<policy user="second"><deny own="com.example.B"/><allow own="com.example.C"/></policy>'
        "</busconfig>"
    )
    peer = load(str(tmp_path / "bus.conf")).ruleset.for_peer(Identity(uid=54321, gids=(54321,)))
    owns = [letter for letter in "ABCD" if peer.may_own(f"com.example.{letter}").allowed]
    assert owns == ["A", "C"]
