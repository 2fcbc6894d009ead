"""A policy on trial: what it denies passes and is told, and what was learned allows just that."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from busworld import NOBODY, ROOT, FakeConnection, World, configuration, unframed
from kit import (
    BUS,
    ERROR,
    NO_AUTO_START,
    Message,
    Received,
    call,
    method_return,
    peer_call,
    signal,
)

from afdbus.bus.learned import Learned
from afdbus.bus.trial import Trial

CLOSED = """
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow receive_sender="org.freedesktop.DBus"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow own_prefix="com.example.Free"/>
    <deny send_destination="org.freedesktop.DBus" send_member="GetNameOwner" send_path="*"
          send_interface="org.freedesktop.DBus"/>
    <deny send_interface="com.example.Denied"/>
    <deny receive_sender="org.freedesktop.DBus" receive_interface="org.freedesktop.DBus"
          receive_member="NameOwnerChanged"/>
    <deny send_destination="org.freedesktop.DBus"
          send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>"""

FREE = "com.example.Free"


class Stage:
    """Two clients of nobody's and a service of root's under a closed policy."""

    def __init__(self, folder: Path, learned: Learned | None, files: str = "") -> None:
        self.learned = learned
        more = f"<includedir>{files}</includedir>" if files else ""
        self.world = World(configuration(folder, more, policy=CLOSED))
        if learned is not None:
            self.world.bus.trial = Trial(learned)
        self.alice, self.carol = self.world.connect(NOBODY), self.world.connect(NOBODY)
        self.bob = self.world.connect(ROOT)
        self.serial = 100
        self.say(self.bob, call("RequestName", "su", FREE, 0))

    def say(self, who: FakeConnection, message: Message) -> int:
        self.serial += 1
        self.world.say(who, message.pack(self.serial))
        self.world.flush()
        return self.serial

    def heard(self, who: FakeConnection) -> list[Received]:
        """What was written to this client since the last question, but for news of its names."""
        data = bytes(who.written)
        who.written.clear()
        messages = [Received(one) for one in unframed(data)]
        return [one for one in messages if one.member not in ("NameAcquired", "NameLost")]

    def lines(self) -> list[str]:
        """The log of denials since the last question."""
        lines = [line for line in self.world.journal.lines if line.startswith("security: ")]
        self.world.journal.lines.clear()
        return [line.removeprefix("security: ") for line in lines]

    def text(self) -> str:
        assert self.learned is not None
        return self.learned.text(lambda uid: pwd.getpwuid(uid).pw_name)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path, Learned())
    for who in (made.alice, made.bob, made.carol):
        made.heard(who)
    made.lines()
    return made


def test_a_call_and_its_answer(stage: Stage) -> None:
    for _ in range(3):
        serial = stage.say(stage.alice, peer_call(FREE, "Get"))
        (received,) = stage.heard(stage.bob)
        assert received.member == "Get"
        stage.say(stage.bob, method_return(received))
        (answer,) = stage.heard(stage.alice)
        assert answer.reply_serial == serial
        # Each time, so there is no plan for it: sent, received, and the answer received.
        first, second, third = stage.lines()
        assert first.startswith("Would deny send message, 0 matched rules; ")
        assert first.endswith(" [no rule fits]")
        assert second.startswith("Would deny receive message, ")
        assert third.startswith("Would deny receive message, ")
    assert '<allow send_destination="com.example.Free" send_path="/com/example/Object" ' in (
        stage.text()
    )


def test_the_rule_that_denies_is_told(stage: Stage) -> None:
    stage.say(stage.alice, peer_call(FREE, interface="com.example.Denied"))
    assert [one.interface for one in stage.heard(stage.bob)] == ["com.example.Denied"]
    assert '[<deny send_interface="com.example.Denied"/> ' in stage.lines()[0]


def test_a_broadcast(stage: Stage) -> None:
    stage.say(stage.bob, call("AddMatch", "s", "type='signal',interface='com.example.Interface'"))
    stage.say(stage.carol, call("AddMatch", "s", "arg0='x'"))
    stage.heard(stage.bob), stage.heard(stage.carol)
    for _ in range(2):
        stage.say(stage.alice, signal("S", "s", "x"))
        assert [one.member for one in stage.heard(stage.bob)] == ["S"]
        assert [one.member for one in stage.heard(stage.carol)] == ["S"]
        # Two receivers, who are denied alike: once to send, once to receive.
        assert len(stage.lines()) == 2
    assert 'send_broadcast="true"' in stage.text()


def test_a_name(stage: Stage) -> None:
    for _ in range(2):
        stage.say(stage.alice, call("RequestName", "su", "com.example.Mine", 0))
        assert stage.heard(stage.alice)[-1].args[0] in (1, 4)
        (line,) = stage.lines()
        assert line.startswith("Would deny: connection ")
        assert line.endswith(" [no rule fits]")
    assert '<allow own="com.example.Mine"/>' in stage.text()


def test_messages_of_the_bus(stage: Stage) -> None:
    stage.say(stage.alice, call("AddMatch", "s", "member='NameOwnerChanged'"))
    stage.heard(stage.alice)
    stage.say(stage.bob, call("RequestName", "su", "com.example.Free.More", 0))
    assert [one.member for one in stage.heard(stage.alice)] == ["NameOwnerChanged"]
    (line,) = stage.lines()
    assert line.startswith("Would deny receive message, 2 matched rules; ")
    assert 'receive_member="NameOwnerChanged"' in stage.text()


# -- what does not pass, or teaches nothing


def nothing_learned(stage: Stage) -> bool:
    return "<policy" not in stage.text()


def refused(stage: Stage, message: Message) -> str:
    stage.say(stage.alice, message)
    (answer,) = stage.heard(stage.alice)
    assert answer.type == ERROR
    assert answer.error_name is not None
    return answer.error_name.rpartition(".")[2]


MONITORING = f"{BUS}.Monitoring"
REFUSED: dict[str, tuple[Message, str]] = {
    "a privileged method": (
        call("BecomeMonitor", "asu", [], 0, interface=MONITORING), "AccessDenied",
    ),
    "a method that does not exist": (call("Nope", interface=MONITORING), "UnknownMethod"),
    "wrong arguments": (call("GetNameOwner", "u", 1), "InvalidArgs"),
    "a name that nobody has": (peer_call("com.example.None"), "ServiceUnknown"),
    "a name that is not to be started": (
        peer_call("com.example.None", flags=NO_AUTO_START), "NameHasNoOwner",
    ),
    "a name that cannot be one": (call("RequestName", "su", "nodot", 0), "InvalidArgs"),
    "the name of the bus": (call("RequestName", "su", BUS, 0), "InvalidArgs"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_policy_could_allow(stage: Stage, what: str) -> None:
    message, error = REFUSED[what]
    assert refused(stage, message) == error
    assert nothing_learned(stage)


def test_an_error_that_is_an_answer_teaches(stage: Stage) -> None:
    assert refused(stage, call("GetNameOwner", "s", "com.example.None")) == "NameHasNoOwner"
    assert 'send_member="GetNameOwner"' in stage.text()


def test_one_name_too_many(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Learned())
    stage.world.bus.limits = stage.world.bus.limits._replace(max_names_per_connection=1)
    stage.heard(stage.alice), stage.lines()
    assert refused(stage, call("RequestName", "su", "com.example.Mine", 0)) == "LimitsExceeded"
    assert stage.lines() == []
    assert nothing_learned(stage)


def test_who_eavesdrops_hears_no_more_than_before(stage: Stage) -> None:
    stage.say(stage.bob, call("AddMatch", "s", "eavesdrop='true',interface='com.example.Secret'"))
    stage.heard(stage.bob)
    stage.say(stage.alice, call("RequestName", "su", "com.example.Free.Mine", 0))
    secret = peer_call("com.example.Free.Mine", "Get", interface="com.example.Secret")
    stage.say(stage.carol, secret)
    assert [one.member for one in stage.heard(stage.alice)][-1] == "Get"
    assert stage.heard(stage.bob) == []
    assert 'user="root"' not in stage.text()


def test_who_may_not_come_in(stage: Stage) -> None:
    """The door is not a matter of the trial: the ruleset is asked as ever."""
    stranger = NOBODY._replace(uid=4_000_000_000)
    assert not stage.world.bus.ruleset.may_connect(stranger, 0).allowed


def test_for_whom_no_policy_can_be(stage: Stage) -> None:
    """A client without a user has the policy of all."""
    stranger = stage.world.connect(NOBODY._replace(uid=None, gid=None, gids=()))
    stage.say(stranger, peer_call(FREE, "Get"))
    text = stage.text()
    assert "INCOMPLETE: clients without a user" in text
    # The service would have to receive it, which is another matter.
    assert 'user="root"' in text
    assert "send_destination" not in text


# -- what was learned


Deed = Callable[[Stage], tuple[FakeConnection, Message]]


def _fresh(what: Callable[..., Message], *args: Any, **rest: Any) -> Deed:
    return lambda stage: (stage.alice, what(*args, **rest))


OBSERVED: dict[str, Deed] = {
    "call": _fresh(peer_call, FREE, "Get"),
    "denied call": _fresh(peer_call, FREE, "Get", interface="com.example.Denied"),
    "unicast signal": _fresh(signal, "S", destination=FREE),
    "to the bus": _fresh(call, "GetNameOwner", "s", FREE),
    "own": _fresh(call, "RequestName", "su", "com.example.Mine", 0),
    "unasked reply": lambda stage: (
        stage.alice,
        peer_call(FREE, "Get").plus((5, "u", 77)),
    ),
}
OTHERS: dict[str, Deed] = {
    "another member": _fresh(peer_call, FREE, "Set"),
    "another path": _fresh(peer_call, FREE, "Get", path="/other"),
    "another interface": _fresh(peer_call, FREE, "Get", interface="com.example.Other"),
    "another signal": _fresh(signal, "T", destination=FREE),
    "another name": _fresh(call, "RequestName", "su", "com.example.Yours", 0),
    "by somebody else": lambda stage: (stage.bob, call("GetNameOwner", "s", FREE)),
}


def denied(stage: Stage, deed: Deed) -> bool:
    who, message = deed(stage)
    stage.lines()
    stage.say(who, message)
    return any(line.startswith(("Rejected", "Connection")) for line in stage.lines())


@pytest.mark.parametrize("what", OBSERVED)
def test_it_allows_what_was_seen_and_no_more(tmp_path: Path, what: str) -> None:
    """The file is put where the configuration includes it, and the trial is over."""
    files = tmp_path / "learned.d"
    files.mkdir()
    before = Stage(tmp_path, None, str(files))
    assert denied(before, OBSERVED[what])
    trial = Stage(tmp_path, Learned(), str(files))
    assert not denied(trial, OBSERVED[what])
    (files / "learned.conf").write_text(trial.text())
    after = Stage(tmp_path, None, str(files))
    assert after.world.bus.ruleset.buckets.users
    assert not denied(after, OBSERVED[what])
    for other, deed in OTHERS.items():
        assert denied(after, deed) == denied(before, deed), other
