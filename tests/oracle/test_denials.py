"""What a policy forbids, in the reference's words, and who is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import (
    BUS,
    ERROR,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    Daemon,
    Message,
    RawClient,
    busconfig,
    call,
    method_return,
    peer_call,
    signal,
)
from kit.message import DESTINATION, ERROR_NAME, REPLY_SERIAL

DENIED = f"{BUS}.Error.AccessDenied"
INTERFACE = "com.example.Interface"

RULES = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <deny own="com.example.Denied"/>
    <deny own_prefix="com.example.prefix"/>
    <deny send_interface="com.example.No"/>
    <deny send_destination="com.example.Dest" send_interface="com.example.There"/>
    <deny receive_interface="com.example.Deaf"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"
          send_member="ListNames"/>
    <deny send_type="signal" send_path="/forbidden"/>
    <deny send_interface="com.example.Fds" min_fds="1"/>
    <allow send_interface="com.example.No" send_member="Really"/>
  </policy>"""


@pytest.fixture(scope="module")
def guarded(kind: str) -> Iterator[Daemon]:
    with Daemon(kind, busconfig(policy=RULES)) as running:
        running.watch()
        yield running


@pytest.fixture
def alice(guarded: Daemon) -> Iterator[RawClient]:
    yield guarded.connect()
    guarded.settle()


@pytest.fixture
def bob(guarded: Daemon, alice: RawClient) -> RawClient:
    return guarded.connect()


def process() -> str:
    """Who we are, as the bus says it: 50 bytes of the command line."""
    command = Path("/proc/self/cmdline").read_bytes()[:50].rstrip(b"\0").replace(b"\0", b" ")
    return f'(uid={os.geteuid()} pid={os.getpid()} comm="{command.decode()}")'


def denial(
    side: str,
    matched: int,
    sender: RawClient,
    to: str,
    *,
    kind: str = "method_call",
    interface: str = INTERFACE,
    member: str = "Method",
    error: str = "(unset)",
    requested: int = 0,
    of_bus: bool = False,
) -> tuple[str, str, str]:
    return (
        "error",
        DENIED,
        f'Rejected {side} message, {matched} matched rules; type="{kind}", '
        f'sender="{sender.name}" {process()} interface="{interface}" member="{member}" '
        f'error name="{error}" requested_reply="{requested}" destination="{to}" '
        + ("(bus)" if of_bus else process()),
    )


def test_send_interface(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name, interface="com.example.No")
    expected = denial("send", 2, alice, bob.name, interface="com.example.No")
    assert alice.ask(message).brief == expected
    assert bob.sync() == []


def test_the_last_rule_counts(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, "Really", interface="com.example.No"))
    assert alice.sync() == []
    assert bob.briefs() == [("call", "Really")]


def test_without_interface_a_deny_rule_fits(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name, interface=None)
    found = alice.ask(message)
    assert found.error_name == DENIED
    assert 'interface="(unset)" member="Method"' in found.args[0]


def test_without_reply_the_sender_is_told_all_the_same(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name, interface="com.example.No", flags=NO_REPLY_EXPECTED)
    assert alice.ask(message).error_name == DENIED


def test_unicast_signal(alice: RawClient, bob: RawClient) -> None:
    message = signal("S", destination=bob.name, interface="com.example.No")
    expected = denial(
        "send", 2, alice, bob.name, kind="signal", interface="com.example.No", member="S"
    )
    assert alice.ask(message).brief == expected


def test_broadcast_is_dropped_in_silence(alice: RawClient, bob: RawClient) -> None:
    bob.match("")
    for message in (
        signal("S", interface="com.example.No"),
        signal("S", interface="com.example.Deaf"),
        signal("S", path="/forbidden"),
        signal("T"),
    ):
        alice.send(message)
    assert alice.sync() == []
    assert bob.briefs() == [("signal", "T")]


def test_receive_interface(alice: RawClient, bob: RawClient) -> None:
    message = peer_call(bob.name, interface="com.example.Deaf")
    expected = denial("receive", 2, alice, bob.name, interface="com.example.Deaf")
    assert alice.ask(message).brief == expected
    assert bob.sync() == []


def test_send_destination(alice: RawClient, bob: RawClient) -> None:
    """By whatever name: all names of the receiver count."""
    alice.send(peer_call(bob.name, interface="com.example.There"))
    assert alice.sync() == []
    bob.own("com.example.Dest")
    for name in ("com.example.Dest", bob.name):
        message = peer_call(name, interface="com.example.There")
        expected = denial("send", 2, alice, name, interface="com.example.There")
        assert alice.ask(message).brief == expected


def test_to_the_bus(alice: RawClient) -> None:
    expected = denial(
        "send", 2, alice, BUS, interface=BUS, member="ListNames", of_bus=True
    )  # fmt: skip
    assert alice.bus("ListNames").brief == expected
    alice.alive()


def test_absent_names_are_not_put_to_the_policy(alice: RawClient) -> None:
    message = peer_call("com.example.None", interface="com.example.No")
    assert alice.ask(message).error_name == f"{BUS}.Error.ServiceUnknown"


@pytest.mark.parametrize(
    "name", ["com.example.Denied", "com.example.prefix", "com.example.prefix.More"]
)
def test_own(alice: RawClient, name: str) -> None:
    text = (
        f'Connection "{alice.name}" is not allowed to own the service "{name}" due to security '
        "policies in the configuration file"
    )
    assert alice.bus("RequestName", "su", name, 0).brief == ("error", DENIED, text)


def test_own_prefix_ends_at_a_dot(alice: RawClient) -> None:
    assert alice.own("com.example.prefixes") == 1


def test_min_fds(alice: RawClient, bob: RawClient) -> None:
    alice.send(peer_call(bob.name, interface="com.example.Fds"))
    assert alice.sync() == []
    fd = os.memfd_create("kit")
    found = alice.ask(peer_call(bob.name, interface="com.example.Fds", fds=[fd]))
    os.close(fd)
    assert found.error_name == DENIED


@pytest.mark.parametrize("times", [1, 20])
def test_p11_refusal_is_no_open_call(alice: RawClient, bob: RawClient, times: int) -> None:
    for _ in range(times):
        message = peer_call(bob.name, interface="com.example.No", serial=7000)
        assert alice.ask(message).error_name == DENIED
    alice.send(peer_call(bob.name, serial=7000))
    assert alice.sync() == []


# -- replies, where they are judged

REPLIES = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>"""


@pytest.fixture(scope="module")
def strict(kind: str) -> Iterator[Daemon]:
    with Daemon(kind, busconfig(policy=REPLIES)) as running:
        running.watch()
        yield running


@pytest.fixture
def dave(strict: Daemon) -> Iterator[RawClient]:
    yield strict.connect()
    strict.settle()


@pytest.fixture
def erin(strict: Daemon, dave: RawClient) -> RawClient:
    return strict.connect()


def test_reply_that_was_asked_for(dave: RawClient, erin: RawClient) -> None:
    dave.send(peer_call(erin.name))
    erin.send(method_return(erin.receive_call()))
    assert erin.sync() == []
    assert dave.briefs() == [("return",)]


@pytest.mark.parametrize("what", ["method_return", "error", "method_call", "signal"])
def test_reply_that_nobody_asked_for(dave: RawClient, erin: RawClient, what: str) -> None:
    """Whatever has a REPLY_SERIAL is one."""
    fields = [(DESTINATION, "s", dave.name), (REPLY_SERIAL, "u", 777)]
    name = [(ERROR_NAME, "s", "com.example.Error")]
    nothing = {"interface": "(unset)", "member": "(unset)"}
    message, words = {
        "method_return": (Message(METHOD_RETURN, fields), nothing),
        "error": (Message(ERROR, fields + name), nothing | {"error": "com.example.Error"}),
        "method_call": (peer_call(dave.name).plus(fields[1]), {}),
        "signal": (signal("Method", destination=dave.name).plus(fields[1]), {}),
    }[what]
    assert erin.ask(message).brief == denial("send", 0, erin, dave.name, kind=what, **words)
    assert dave.sync() == []


def test_second_reply(dave: RawClient, erin: RawClient) -> None:
    dave.send(peer_call(erin.name))
    received = erin.receive_call()
    erin.send(method_return(received))
    assert erin.ask(method_return(received)).error_name == DENIED
    assert dave.briefs() == [("return",)]


def test_reply_to_a_call_that_wanted_none(dave: RawClient, erin: RawClient) -> None:
    dave.send(peer_call(erin.name, flags=NO_REPLY_EXPECTED))
    assert erin.ask(method_return(erin.receive_call())).error_name == DENIED
    assert dave.sync() == []


def test_reply_of_a_stranger_leaves_the_call_open(
    strict: Daemon, dave: RawClient, erin: RawClient
) -> None:
    """It does not use up the open call."""
    frank = strict.connect()
    dave.send(peer_call(erin.name, serial=500))
    received = erin.receive_call()
    assert frank.ask(method_return(received)).error_name == DENIED
    erin.send(method_return(received))
    assert erin.sync() == []
    assert dave.briefs() == [("return",)]


# -- privileges that no policy gives


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")


@ROOT
@pytest.mark.parametrize(
    "message",
    [
        call("AddMatch", "s", "eavesdrop='true'"),
        call("UpdateActivationEnvironment", "a{ss}", {"A": "b"}),
        call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring"),
        call("BecomeMonitor", "asu", ["bad"], 7, interface=f"{BUS}.Monitoring"),
    ],
    ids=["AddMatch", "UpdateActivationEnvironment", "BecomeMonitor", "BecomeMonitor-bad"],
)
def test_for_the_privileged_only(guarded: Daemon, alice: RawClient, message: Message) -> None:
    nobody = guarded.connect(uid=65534)
    member = {code: value for code, _, value in message.fields}[3]
    who = process().replace("uid=0 ", "uid=65534 ")
    text = f"rejected attempt to call {member} by connection {nobody.name} {who} with uid 65534"
    message.serial = None
    assert nobody.ask(message).brief == ("error", DENIED, text)


@ROOT
def test_open_to_all(guarded: Daemon, alice: RawClient) -> None:
    nobody = guarded.connect(uid=65534)
    nobody.match("eavesdrop='false'")
    assert nobody.ask(call("GetStats", interface=f"{BUS}.Debug.Stats")).brief[0] == "return"
    assert nobody.exchange(call("ReloadConfig"))[-1].brief == ("return",)


@ROOT
def test_cve_2005_0201_connecting_is_refused_after_begin(kind: str) -> None:
    """Without a rule only the daemon's own uid gets in: OK, BEGIN, and the connection ends."""
    policy = RULES.replace('<allow user="*"/>', "")
    with Daemon(kind, busconfig(policy=policy)) as daemon:
        nobody = daemon.join(uid=65534)
        assert nobody.closed() == []
        daemon.connect()
