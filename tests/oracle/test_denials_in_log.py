"""What the log says of denials: dbus-daemon's lines, and besides the rule that has decided."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from kit import BUS, Daemon, busconfig, call, method_return, peer_call, signal

RULES = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <deny own="com.example.Denied"/>
    <deny send_interface="com.example.No"/>
    <deny send_interface="com.example.No" send_member="Logged" log="true"/>
    <deny receive_interface="com.example.Deaf"/>
    <allow send_interface="com.example.Log" log="true"/>
    <allow send_interface="com.example.Log" send_member="Not" log="yes"/>
    <allow receive_interface="com.example.Log" receive_member="Heard" log="true"/>
    <deny receive_interface="org.freedesktop.DBus" receive_member="NameLost"/>
    <deny receive_interface="org.freedesktop.DBus" receive_member="NameOwnerChanged"/>
    <deny send_type="method_return" send_requested_reply="true"/>
  </policy>"""

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")


@pytest.fixture
def guarded(kind: str) -> Iterator[Daemon]:
    with Daemon(kind, busconfig(policy=RULES)) as running:
        yield running


class Log:
    """The lines about denials, each as its first words, member and reason."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.alice = daemon.connect()
        self.bob = daemon.connect()

    def lines(self) -> list[tuple[str, str, str]]:
        """All of them, after one that is caused here: the log is written by and by."""
        self.alice.sync()
        self.bob.sync()
        marker = "com.example.Marker"
        self.alice.ask(peer_call(self.bob.name, marker.rpartition(".")[2], interface=None))
        self.daemon.until_logged('member="Marker"')
        found = []
        for line in self.daemon.log().splitlines():
            match = re.search(
                r'((?:Rejected|Would)[^;]*);.* member="([^"]*)".* destination="[^"]*" '
                r"\((?:uid=[^\]]*|bus)\)(?: \[(.*)\])?$",
                line,
            )
            if match is not None and match[2] != "Marker":
                found.append((match[1], match[2], match[3] or ""))
        return found

    def reason(self, rule: str) -> str:
        """What our log adds; dbus-daemon's has nothing of the kind."""
        if self.daemon.kind != "afdbus":
            return ""
        text = self.daemon.config_file.read_text()
        line = text[: text.index(rule)].count("\n") + 1
        return f"{rule} {self.daemon.config_file}:{line}"


@pytest.fixture
def log(guarded: Daemon) -> Log:
    return Log(guarded)


NO = '<deny send_interface="com.example.No"/>'
DEAF = '<deny receive_interface="com.example.Deaf"/>'


def test_calls_and_unicast_signals(log: Log) -> None:
    alice, bob = log.alice, log.bob
    alice.send(peer_call(bob.name, "A", interface="com.example.No"))
    alice.send(signal("B", destination=bob.name, interface="com.example.No"))
    alice.send(peer_call(bob.name, "C", interface="com.example.Deaf"))
    alice.send(peer_call(BUS, "D", interface="com.example.No"))
    send, receive = "Rejected send message, ", "Rejected receive message, "
    assert log.lines() == [
        (send + "2 matched rules", "A", log.reason(NO)),
        (send + "2 matched rules", "B", log.reason(NO)),
        (receive + "2 matched rules", "C", log.reason(DEAF)),
        (send + "2 matched rules", "D", log.reason(NO)),
    ]


def test_the_answer_says_nothing_of_it(log: Log) -> None:
    answer = log.alice.ask(peer_call(log.bob.name, interface="com.example.No"))
    (text,) = answer.args
    assert text.endswith(")")
    assert ".conf" not in text


def test_broadcasts_are_dropped_in_silence(log: Log) -> None:
    alice, bob = log.alice, log.bob
    bob.match("type='signal'")
    alice.send(signal("A", interface="com.example.No"))
    alice.send(signal("B", interface="com.example.Deaf"))
    alice.send(signal("Logged", interface="com.example.No"))
    assert bob.briefs() == []
    assert log.lines() == []


def test_messages_of_the_bus(log: Log) -> None:
    """An addressed signal is told; NameOwnerChanged, which is for all, is not."""
    log.bob.match("type='signal'")
    log.alice.own("com.example.A")
    log.alice.exchange(call("ReleaseName", "s", "com.example.A"))
    rule = '<deny receive_interface="org.freedesktop.DBus" receive_member="NameLost"/>'
    assert log.lines() == [
        ("Rejected receive message, 2 matched rules", "NameLost", log.reason(rule)),
    ]


def test_replies(log: Log) -> None:
    log.alice.send(peer_call(log.bob.name))
    log.bob.ask(method_return(log.bob.receive_call()))
    rule = '<deny send_type="method_return" send_requested_reply="true"/>'
    assert log.lines() == [
        ("Rejected send message, 2 matched rules", "(unset)", log.reason(rule))
    ]


def test_log_true_is_told_each_time_and_lets_pass(log: Log) -> None:
    """On send rules that allow, with this very word; a broadcast once for each who gets it."""
    alice, bob = log.alice, log.bob
    carol = log.daemon.connect()
    for _ in range(3):
        alice.send(peer_call(bob.name, "A", interface="com.example.Log"))
    alice.send(peer_call(bob.name, "Not", interface="com.example.Log"))
    alice.send(peer_call(bob.name, "Heard", interface="com.example.Log"))
    assert alice.sync() == []
    assert [brief[1] for brief in bob.briefs()] == ["A"] * 3 + ["Not", "Heard"]
    bob.match("type='signal'")
    carol.match("type='signal'")
    for _ in range(2):
        alice.send(signal("B", interface="com.example.Log"))
    assert alice.sync() == []
    assert bob.briefs() == carol.briefs() == [("signal", "B")] * 2
    alice.send(peer_call(bob.name, "Logged", interface="com.example.No"))
    rule = log.reason('<allow send_interface="com.example.Log" log="true"/>')
    would = "Would reject message, 2 matched rules"
    denied = '<deny send_interface="com.example.No" send_member="Logged" log="true"/>'
    assert log.lines() == [
        *[(would, "A", rule)] * 3,
        (would, "Heard", rule),
        *[(would, "B", rule)] * 4,
        ("Rejected send message, 3 matched rules", "Logged", log.reason(denied)),
    ]


# -- what dbus-daemon does not log


@pytest.fixture
def ours() -> Iterator[Daemon]:
    with Daemon("afdbus", busconfig(policy=RULES)) as running:
        yield running


def test_names(ours: Daemon) -> None:
    log = Log(ours)
    answer = log.alice.bus("RequestName", "su", "com.example.Denied", 0)
    rule = log.reason('<deny own="com.example.Denied"/>')
    ours.until_logged(f"{answer.args[0]} [{rule}]\n")


@ROOT
def test_connections_less_and_less_often() -> None:
    """Strangers must not fill the log."""
    policy = f'{RULES}<policy context="mandatory"><deny user="65534"/></policy>'
    with Daemon("afdbus", busconfig(policy=policy)) as ours:
        rule = Log(ours).reason('<deny user="65534"/>')
        for _ in range(9):
            assert ours.join(uid=65534).closed() == []
        ours.until_logged(", the 8th time [")
        log = ours.log()
    lines = [line for line in log.splitlines() if "Rejected connection, 2 matched" in line]
    assert len(lines) == 4
    assert all("(uid=65534 pid=" in line and line.endswith(f"[{rule}]") for line in lines)
