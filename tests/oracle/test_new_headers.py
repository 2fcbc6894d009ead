"""Headers that never repeat: after hundreds of them, what is different about one still counts.

The reference remembers nothing; who takes headers for alike has to do as it does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit import (
    BUS,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    Daemon,
    Message,
    RawClient,
    peer_call,
    signal,
)
from kit.message import DESTINATION, ERROR, ERROR_NAME, MEMBER, REPLY_SERIAL

COUNT = 300
"""New headers after which whoever can has taken them for alike."""


def silent(to: str, member: str = "Method", **rest: str) -> Message:
    return peer_call(to, member, flags=NO_REPLY_EXPECTED, **rest)


def call_with(which: str, value: str, to: str) -> Message:
    """A call in which this field has the value."""
    if which == "member, last":
        return silent(to).without(MEMBER).plus((MEMBER, "s", value))
    return silent(to, **{which: value})


STARTS = {"path": "/x/y", "interface": "a.b", "member": "M", "member, last": "M"}


def varied(alice: RawClient, bob: RawClient, which: str) -> None:
    for number in range(COUNT):
        alice.send(call_with(which, f"{STARTS[which]}{number}", bob.name))
    assert alice.sync() == []
    field = "member" if which == "member, last" else which
    assert [getattr(m, field) for m in bob.sync()] == [
        f"{STARTS[which]}{number}" for number in range(COUNT)
    ]


@pytest.mark.parametrize(
    ("which", "bad"),
    [
        ("path", ""),
        ("path", "/x/"),
        ("path", "x"),
        ("path", "/ä"),
        ("path", "/org/freedesktop/DBus/Local"),
        ("interface", "a"),
        ("interface", "a..b"),
        ("interface", "a." + "b" * 254),
        ("interface", f"{BUS}.Local"),
        ("member", "M.N"),
        ("member", "0"),
        ("member", "M" * 256),
        ("member, last", "M-"),
        ("member, last", "M\0"),
    ],
)
def test_one_that_is_invalid(alice: RawClient, bob: RawClient, which: str, bad: str) -> None:
    varied(alice, bob, which)
    alice.send(call_with(which, bad, bob.name))
    assert alice.closed() == []
    assert bob.sync() == []


@pytest.mark.parametrize("which", ["path", "member, last"])
def test_one_with_padding_that_is_not_zero(alice: RawClient, bob: RawClient, which: str) -> None:
    varied(alice, bob, which)
    packed = bytearray(call_with(which, f"{STARTS[which]}1", bob.name).pack(7))
    at = packed.index(f"{STARTS[which]}1\0".encode()) + len(STARTS[which]) + 2
    assert packed[at] == 0
    packed[at] = 1
    alice.send_bytes(bytes(packed))
    assert alice.closed() == []
    assert bob.sync() == []


POLICY = """<policy context="default"><allow user="*"/><allow own="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/><allow send_type="method_return"/>
    <allow send_type="error"/><allow receive_type="method_call"/><allow receive_type="signal"/>
    <allow receive_type="method_return"/><allow receive_type="error"/>
    <deny send_type="method_call" send_path="/special"/>
    <deny send_type="method_call" send_interface="com.example.Interface" send_member="Special"/>
    <deny receive_type="method_call" receive_interface="a.special"/>
    <deny send_type="method_call" send_destination="com.example.Deaf"
          send_interface="com.example.Interface"/>
  </policy>"""


@pytest.mark.parametrize(
    ("which", "special"),
    [("path", "/special"), ("interface", "a.special"), ("member", "Special"),
     ("member, last", "Special")],
)  # fmt: skip
def test_one_that_the_policy_names(
    start: Callable[..., Daemon], which: str, special: str
) -> None:
    daemon = start(policy=POLICY)
    alice, bob = daemon.connect(), daemon.connect()
    varied(alice, bob, which)
    for _ in range(3):
        refused = alice.ask(call_with(which, special, bob.name))
        assert refused.error_name == f"{BUS}.Error.AccessDenied"
    assert bob.sync() == []
    varied(alice, bob, which)


def test_a_receiver_that_the_policy_names(start: Callable[..., Daemon]) -> None:
    daemon = start(policy=POLICY)
    alice, *others = (daemon.connect() for _ in range(6))
    for number in range(COUNT):
        alice.send(silent(others[number % 5].name))
    assert alice.sync() == []
    assert [len(other.sync()) for other in others] == [COUNT // 5] * 5
    others[2].own("com.example.Deaf")
    for number, other in enumerate(others):
        if number == 2:
            assert alice.ask(silent(other.name)).error_name == f"{BUS}.Error.AccessDenied"
        else:
            alice.send(silent(other.name))
    assert alice.sync() == []
    assert [len(other.sync()) for other in others] == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("rule", "special"),
    [
        ("path='/special'", "/special"),
        ("path_namespace='/special'", "/special/one"),
        ("path_namespace='/x/y7'", "/x/y7"),
    ],
)
def test_a_path_that_a_receiver_wants(
    alice: RawClient, bob: RawClient, rule: str, special: str
) -> None:
    bob.match(f"type='signal',interface='a.b',{rule}")
    for number in range(100, 100 + COUNT):
        alice.send(signal("M", path=f"/x/y{number}", interface="a.b"))
    for _ in range(2):
        alice.send(signal("M", path=special, interface="a.b"))
        alice.send(signal("M", path="/x/y", interface="a.b"))
    assert alice.sync() == []
    assert [m.path for m in bob.sync()] == [special] * 2


def test_errors_with_names_and_serials_of_their_own(alice: RawClient, bob: RawClient) -> None:
    for number in range(1, COUNT):
        fields = [(ERROR_NAME, "s", f"a.b{'c' * (number % 20)}{number}"),
                  (REPLY_SERIAL, "u", number), (DESTINATION, "s", bob.name)]  # fmt: skip
        alice.send(Message(ERROR, fields))
    assert alice.sync() == []
    assert [(m.error_name, m.reply_serial) for m in bob.sync()] == [
        (f"a.b{'c' * (number % 20)}{number}", number) for number in range(1, COUNT)
    ]
    fields = [(ERROR_NAME, "s", "a.bc"), (REPLY_SERIAL, "u", 0), (DESTINATION, "s", bob.name)]
    alice.send(Message(ERROR, fields))
    assert alice.closed() == []
    assert bob.sync() == []


def test_answers_to_many_take_the_call_of_each(start: Callable[..., Daemon]) -> None:
    daemon = start()
    server, *callers = (daemon.connect() for _ in range(20))
    for _ in range(20):
        for caller in callers:
            caller.send(peer_call(server.name))
        for call in [server.receive_call() for _ in callers]:
            fields = [(DESTINATION, "s", call.sender), (REPLY_SERIAL, "u", call.serial)]
            server.send(Message(METHOD_RETURN, fields))
    assert server.sync() == []
    for caller in callers:
        assert [m.brief for m in caller.sync()] == [("return",)] * 20
    # All are answered: nobody is told that the server has left.
    server.close()
    for caller in callers:
        assert caller.sync() == []
