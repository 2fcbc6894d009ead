"""The policies of Debian's services: they load, and are explained as dbus-daemon decides.

They are looked for where AFDBUS_TEST_POLICIES says (the packages unpacked, see .ci/run), or else
among the files of this system; what is not installed is not tested then.  Each is put behind the
rules of a system bus, and all that it has rules about, and what stands beside it, is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import MAIN, ME, afdbus, explain
from kit import NO_REPLY_EXPECTED, Daemon, Message, RawClient, busconfig, call, peer_call, signal

from afdbus.config.check import check
from afdbus.config.load import compose
from afdbus.host.users import Users
from afdbus.policy.rules import SIGNAL, MessageRule, OwnRule, Rule
from afdbus.policy.ruleset import Buckets
from afdbus.tools.answers import Answers
from afdbus.tools.questions import asked

Fields = dict[str, object]

UNPACKED = os.environ.get("AFDBUS_TEST_POLICIES")
# By package, since a test that finds nothing would not be noticed.
FILES = {
    "accountsservice": ["org.freedesktop.Accounts"],
    "avahi-daemon": ["avahi-dbus"],
    "bluez": ["bluetooth"],
    "colord": ["org.freedesktop.ColorManager"],
    "modemmanager": ["org.freedesktop.ModemManager1"],
    "network-manager": ["nm-dispatcher", "nm-priv-helper", "org.freedesktop.NetworkManager"],
    "polkitd": ["org.freedesktop.PolicyKit1"],
    "rtkit": ["org.freedesktop.RealtimeKit1"],
    "systemd": [
        "org.freedesktop.hostname1",
        "org.freedesktop.locale1",
        "org.freedesktop.login1",
        "org.freedesktop.network1",
        "org.freedesktop.systemd1",
        "org.freedesktop.timedate1",
    ],
    "udisks2": ["org.freedesktop.UDisks2"],
    "upower": ["org.freedesktop.UPower"],
    "wpasupplicant": ["wpa_supplicant"],
}


def found() -> dict[str, Path]:
    """The files that are there, by their names without ending."""
    folders = [Path(UNPACKED or "/") / part / "dbus-1/system.d" for part in ("usr/share", "etc")]
    return {
        name: folder / f"{name}.conf"
        for names in FILES.values()
        for name in names
        for folder in folders
        if (folder / f"{name}.conf").exists()
    }


POLICIES = found()


def test_all_are_there() -> None:
    if UNPACKED is None:
        pytest.skip("AFDBUS_TEST_POLICIES is not set: only what is installed is tested")
    assert set(POLICIES) == {name for names in FILES.values() for name in names}


# Whoever we are, we have to own the names to be called.
OWN = '<policy context="mandatory"><allow own_prefix="org"/><allow own_prefix="fi"/></policy>'

each = pytest.mark.parametrize("path", POLICIES.values(), ids=list(POLICIES))


def site(path: Path, more: str = "") -> str:
    main = re.sub("<includedir>.*</includedir>", f"<include>{path}</include>", MAIN)
    return busconfig(policy=main + more)


def rules_of(path: Path, config: Path) -> list[Rule]:
    """All rules of the file, for whomever they are."""
    buckets: Buckets = compose(str(config)).ruleset.buckets
    lists = [
        buckets.default,
        buckets.mandatory,
        buckets.at_console,
        buckets.not_at_console,
        *buckets.users.values(),
        *buckets.groups.values(),
    ]
    return [rule for rules in lists for rule in rules if rule.file == str(path)]


@each
def test_it_loads(path: Path, program: Callable[[str], str]) -> None:
    """Users that this system does not have are warned of."""
    findings = check(str(path)).findings
    assert {finding.kind for finding in findings} <= {"unknown-user", "unknown-group"}
    program("dbus-daemon")
    with Daemon("dbus-daemon", site(path)) as daemon:
        daemon.connect()


@pytest.mark.skipif(not POLICIES, reason="none of these packages is installed or unpacked")
def test_they_load_together(kind: str) -> None:
    includes = "".join(f"<include>{path}</include>" for path in POLICIES.values())
    policy = re.sub("<includedir>.*</includedir>", includes, MAIN)
    with Daemon(kind, busconfig(policy=policy)) as daemon:
        daemon.connect()
        run = afdbus("config", "check", daemon.config_file)
        assert run.returncode == 0
        assert f"\n{len(POLICIES) + 1} files, 0 errors, " in f"\n{run.stdout}"


@each
def test_who_may_own_the_names(path: Path, program: Callable[[str], str]) -> None:
    program("dbus-daemon")
    with Daemon("dbus-daemon", site(path)) as daemon:
        answers = Answers.of(Users(), str(daemon.config_file))
        rules = rules_of(path, daemon.config_file)
        names = {rule.name for rule in rules if rule.name is not None}
        names |= {"com.example.Other"}
        for uid in uids():
            client = daemon.connect(uid=None if uid == os.geteuid() else uid)
            for name in sorted(names):
                reply = client.exchange(call("RequestName", "su", name, 4))[-1]
                fields = {**who(uid), "own": name}
                verdict = answers.deciding(asked(fields, Users())).verdict
                assert (reply.brief == ("return", 1)) == verdict.allowed, (uid, name)
                client.exchange(call("ReleaseName", "s", name))


def uids() -> list[int]:
    """Ourselves, and somebody else if that can be."""
    return [os.geteuid(), 65534] if os.geteuid() == 0 else [os.geteuid()]


def who(uid: int, prefix: str = "") -> Fields:
    """The user by number, in the groups of this process (of which a client is a part)."""
    return {f"{prefix}uid": uid, f"{prefix}gids": [os.getegid(), *os.getgroups()]}


def messages_about(rules: list[Rule], names: list[str]) -> Iterator[tuple[str, Fields]]:
    """For each rule a message that it is about, and its neighbours: the way, and the fields."""
    alike = {rule._replace(allow=True, file="", line=0): None for rule in rules}
    for rule in alike:
        if not isinstance(rule, MessageRule):
            continue
        for interface in dict.fromkeys((rule.interface or "com.example.I", "com.example.J")):
            for member in dict.fromkeys((rule.member or "M", "Other")):
                for kind in ("method_call", "signal"):
                    yield (
                        "receive" if rule.receiving else "send",
                        {
                            "type": kind,
                            "interface": interface,
                            "member": member,
                            "path": rule.path or "/x",
                            "destination": rule.name or names[0],
                        },
                    )
    yield "send", {"type": "method_call", "member": "M", "path": "/x", "destination": names[0]}


def message_of(fields: Fields, destination: str) -> Message:
    rest = {"path": fields["path"], "interface": fields.get("interface")}
    member = str(fields["member"])
    if fields["type"] == "signal":
        return signal(member, destination=destination, **rest)  # type: ignore[arg-type]
    # Nobody answers, and calls that wait for an answer are limited.
    return peer_call(destination, member, flags=NO_REPLY_EXPECTED, **rest)


def fate(sender: RawClient, receiver: RawClient, message: Message) -> tuple[str, int]:
    """ "sent", or the side that refuses; how many rules fitted then."""
    serial = sender.send(message)
    errors = [m for m in sender.sync() if m.reply_serial == serial]
    came = [m for m in receiver.sync() if m.sender == sender.name]
    assert len(errors) + len(came) == 1
    if came:
        return "sent", 0
    match = re.match(r"Rejected (\w+) message, (\d+) matched rules;", errors[0].args[0])
    assert match, errors
    return match[1], int(match[2])


@each
def test_messages(path: Path, program: Callable[[str], str]) -> None:
    program("dbus-daemon")
    with Daemon("dbus-daemon", site(path, OWN)) as daemon:
        answers = Answers.of(Users(), str(daemon.config_file))
        rules = rules_of(path, daemon.config_file)
        owned = [rule.name for rule in rules if isinstance(rule, OwnRule) and rule.name]
        named = [rule.name for rule in rules if rule.name is not None]
        names = list(dict.fromkeys([*owned, *named]))
        services = {name: daemon.connect() for name in names}
        for name, service in services.items():
            assert service.own(name) == 1
        sides = set()
        for uid in uids():
            client = daemon.connect(uid=None if uid == os.geteuid() else uid)
            for way, fields in messages_about(rules, names):
                name = str(fields["destination"])
                sender, receiver, to = client, services[name], name
                question = {**fields, **who(uid), **who(os.geteuid(), "to_"), "send": True}
                if way == "receive":
                    sender, receiver, to = services[name], client, client.name
                    question |= {**who(os.geteuid()), **who(uid, "to_")}
                    question |= {"destination": to, "sender": [sender.name, name]}
                step = answers.deciding(asked(question, Users()))
                expected = ("sent", 0)
                if not step.verdict.allowed:
                    expected = (step.side, step.verdict.matched)
                assert fate(sender, receiver, message_of(fields, to)) == expected, question
                sides.add(expected[0])
        # Root may use them all.
        assert "sent" in sides or os.geteuid() != 0


@each
def test_the_command_explains_it(path: Path, program: Callable[[str], str]) -> None:
    """One question for each, which dbus-daemon answers as well: may root call the service?"""
    program("dbus-daemon")
    with Daemon("dbus-daemon", site(path, OWN)) as daemon:
        rules = rules_of(path, daemon.config_file)
        rule = next(
            rule
            for rule in rules
            if isinstance(rule, MessageRule)
            and rule.name is not None
            and not rule.receiving
            and rule.type != SIGNAL
        )
        assert rule.name is not None
        fields = {
            "type": "method_call", "path": "/", "destination": rule.name,
            "interface": rule.interface or "com.example.I", "member": rule.member or "M",
        }  # fmt: skip
        groups = [f"--gid={gid}" for gid in {os.getegid(), *os.getgroups()}]
        options = [f"--{name}={value}" for name, value in fields.items()]
        answer = explain(daemon.config_file, f"--user={ME}", *groups, "--send", *options)
        client, service = daemon.connect(), daemon.connect()
        assert service.own(rule.name) == 1
        message = message_of(fields, rule.name)
        expected = ("sent", 0) if answer["allowed"] else (answer["side"], answer["matched"])
        assert fate(client, service, message) == expected
        assert answer["rule"] is not None
        assert answer["file"] in (str(path), str(daemon.config_file))
