"""The smallest rule that answers a question: it fits this question, and none of its neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
from policies import CALL, DRIVER, ERROR, RETURN, SIGNAL, Scratch

from afdbus.policy.decide import Question
from afdbus.policy.explain import SOME, limits_of, remedy
from afdbus.policy.rules import MessageRule, OwnRule
from afdbus.policy.ruleset import PeerPolicy
from afdbus.policy.written import EVERYBODY, Holder, busconfig, written

NAMES = {":1.7", "x.y", "x.z"}

A_CALL = Question(CALL, "/x", "i.g", "M", destination="x.y", receiver=NAMES, sender={":1.1"})
A_SIGNAL = A_CALL._replace(type=SIGNAL)
BROADCAST = Question(SIGNAL, "/x", "i.g", "M", receiver={":1.7"}, sender={":1.1", "s.s"})
A_RETURN = Question(RETURN, reply=True, requested=True, destination=":1.7", receiver={":1.7"})
AN_ERROR = Question(
    ERROR, error_name="e.E", reply=True, requested=True, destination="x.y", receiver=NAMES
)
TO_DRIVER = Question(CALL, "/", DRIVER, "M", destination=DRIVER)
TO_START = Question(CALL, "/", "i.g", "M", destination="x.y")
FROM_DRIVER = Question(SIGNAL, "/", DRIVER, "M", receiver={":1.7"}, destination=":1.7")


def fits(rule: MessageRule, question: Question) -> bool:
    if rule.allow:
        judge = PeerPolicy([rule])
        ask = judge.may_receive if rule.receiving else judge.may_send
        return ask(question).allowed
    # Without the rule everything is allowed.
    judge = PeerPolicy([MessageRule(True, rule.receiving, eavesdrop=True), rule])
    ask = judge.may_receive if rule.receiving else judge.may_send
    return not ask(question).allowed


QUESTIONS = {
    "call": A_CALL,
    "signal": A_SIGNAL,
    "broadcast": BROADCAST,
    "return": A_RETURN,
    "unrequested return": A_RETURN._replace(requested=False),
    "error": AN_ERROR,
    "unrequested error": AN_ERROR._replace(requested=False),
    "to the driver": TO_DRIVER,
    "to be started": TO_START,
    "from the driver": FROM_DRIVER,
    "no interface": A_CALL._replace(interface=None),
    "no interface, some path": A_CALL._replace(interface=None, path=SOME),
    "some member": A_CALL._replace(member=SOME),
    "call with a reply serial": A_CALL._replace(reply=True),
    "overheard": A_CALL._replace(eavesdropping=True),
    "with descriptors": A_CALL._replace(fds=2),
    "a signal that is said to be a reply": A_SIGNAL._replace(reply=True, requested=True),
}


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("receiving", [True, False])
@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_it_answers_the_question(question: Question, receiving: bool, allow: bool) -> None:
    for count_fds in (False, True):
        rule = remedy(question, receiving=receiving, allow=allow, count_fds=count_fds)
        assert rule.allow is allow
        assert fits(rule, question)
        assert not rule.resets, "it would throw away all the others"


def test_it_allows_no_other_call() -> None:
    rule = remedy(A_CALL, receiving=False)
    assert written(rule) == (
        '<allow send_destination="x.y" send_path="/x" send_interface="i.g" send_member="M" '
        'send_type="method_call"/>'
    )
    for other in (
        {"path": "/y"},
        {"interface": "i.h"},
        {"interface": None},
        {"member": "N"},
        {"type": SIGNAL},
        {"type": RETURN, "reply": True},
        {"reply": True},
        {"destination": "x.w", "receiver": {":1.8", "x.w"}},
    ):
        assert not fits(rule, A_CALL._replace(**other)), other  # type: ignore[arg-type]
    assert fits(rule, A_CALL._replace(destination="x.z")), "the same service by another name"
    assert PeerPolicy([rule]).may_receive(A_CALL).allowed is False
    assert limits_of(rule, A_CALL) == []


def test_what_is_left_open_is_no_condition() -> None:
    rule = remedy(A_CALL._replace(path=SOME, member=SOME), receiving=False)
    assert (rule.path, rule.member, rule.interface) == (None, None, "i.g")


def test_signals_to_a_service_are_no_broadcasts() -> None:
    rule = remedy(A_SIGNAL, receiving=False)
    assert fits(rule, A_SIGNAL)
    assert not fits(rule, A_SIGNAL._replace(destination=None))
    rule = remedy(BROADCAST, receiving=False)
    assert fits(rule, BROADCAST)
    assert not fits(rule, BROADCAST._replace(destination="x.y"))
    assert written(rule) == (
        '<allow send_path="/x" send_interface="i.g" send_member="M" send_type="signal" '
        'send_broadcast="true"/>'
    )
    assert limits_of(rule, BROADCAST) == []


def test_errors_go_by_their_name() -> None:
    rule = remedy(AN_ERROR, receiving=False)
    assert written(rule) == ('<allow send_destination="x.y" send_error="e.E" send_type="error"/>')
    assert not fits(rule, AN_ERROR._replace(error_name="e.F"))
    assert not fits(rule, AN_ERROR._replace(requested=False))


def test_receiving_goes_by_the_sender() -> None:
    rule = remedy(BROADCAST, receiving=True)
    assert (rule.receiving, rule.name, rule.broadcast) == (True, "s.s", None)
    assert not fits(rule, BROADCAST._replace(sender={":1.1"}))
    assert remedy(FROM_DRIVER, receiving=True).name == DRIVER


def test_descriptors() -> None:
    question = A_CALL._replace(fds=2)
    assert fits(remedy(question, receiving=False), A_CALL)
    exact = remedy(question, receiving=False, count_fds=True)
    assert [fits(exact, A_CALL._replace(fds=fds)) for fds in range(4)] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("question", "receiving", "words"),
    [
        (A_RETURN, False, "no well-known name"),
        (A_CALL, True, "no well-known name"),
        (A_CALL._replace(interface=None), False, "every interface"),
        (A_CALL._replace(member=SOME), False, "every member"),
        (AN_ERROR._replace(requested=False), False, "asked for"),
        (BROADCAST._replace(eavesdropping=True), True, "addressed to this peer"),
    ],
)
def test_what_cannot_be_said_narrower_is_told(
    question: Question, receiving: bool, words: str
) -> None:
    told = limits_of(remedy(question, receiving=receiving), question)
    assert any(words in sentence for sentence in told), told


def test_a_file_reads_back(tmp_path: Path) -> None:
    rules = [
        remedy(question, receiving=receiving)
        for question in QUESTIONS.values()
        for receiving in (False, True)
    ]
    odd = OwnRule(True, 'a&<">\n\t\x85\u2028b')
    text = busconfig(
        [(EVERYBODY, [*rules, odd]), (Holder("user", "root"), [OwnRule(False, "a.b", True)])],
        ["one --- two", "a line\nand another -->"],
    )
    scratch = Scratch(tmp_path)
    scratch.file("written.conf", text.encode())
    buckets = scratch.config("<include>written.conf</include>").ruleset.buckets
    bare = [rule._replace(file="", line=0) for rule in buckets.default]
    assert bare == [*rules, odd]
    assert [written(rule) for rule in buckets.users[0]] == ['<deny own_prefix="a.b"/>']
