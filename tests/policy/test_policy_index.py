"""The indexes answer what reading all rules in order would answer."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from afdbus.policy.decide import DRIVER, MessageIndex, OwnIndex, Question, Verdict, prefixes
from afdbus.policy.rules import MAX_RULE_FDS, MessageRule, OwnRule

NAMES = ["a", "a.b", "a.b.c", "ab", ":1.1", ":1", "org.freedesktop.DBus", ""]
some_name = st.sampled_from(NAMES)
maybe = st.one_of(st.none(), st.sampled_from(["x", "y"]))
names = st.one_of(st.none(), st.frozensets(some_name, max_size=6))
flag = st.booleans()


@st.composite
def message_rules(draw: st.DrawFn) -> list[MessageRule]:
    receiving = draw(flag)
    rules = [
        MessageRule(
            allow=draw(flag),
            receiving=receiving,
            type=draw(st.integers(0, 4)),
            path=draw(maybe),
            interface=draw(maybe),
            member=draw(maybe),
            error=draw(maybe),
            name=draw(st.one_of(st.none(), some_name)),
            prefix=not receiving and draw(flag),
            broadcast=None if receiving else draw(st.sampled_from([None, True, False])),
            requested_reply=draw(flag),
            eavesdrop=draw(flag),
            min_fds=draw(st.sampled_from([0, 0, 1])),
            max_fds=draw(st.sampled_from([MAX_RULE_FDS, 1])),
            line=line,
        )
        for line in range(draw(st.integers(0, 12)))
    ]
    return [rule if rule.name is not None else rule._replace(prefix=False) for rule in rules]


questions = st.builds(
    Question,
    type=st.integers(1, 5),
    path=maybe,
    interface=maybe,
    member=maybe,
    error_name=maybe,
    destination=st.one_of(st.none(), some_name),
    reply=flag,
    requested=flag,
    fds=st.integers(0, 2),
    receiver=names,
    sender=names,
    eavesdropping=flag,
)


def fits(rule: MessageRule, question: Question) -> bool:
    """The language, once more: every condition of a rule, as the measured semantics have it."""
    if rule.receiving:
        names = {DRIVER} if question.sender is None else set(question.sender)
    elif question.receiver is not None:
        names = set(question.receiver)
    else:
        names = set() if question.destination is None else {question.destination}
    if rule.prefix:
        named = any(name == rule.name or name.startswith(f"{rule.name}.") for name in names)
    else:
        named = rule.name is None or rule.name in names
    if question.interface is None:
        interface = rule.interface is None or not rule.allow
    else:
        interface = rule.interface in (None, question.interface)
    overheard = (
        not rule.receiving
        or (rule.allow and (rule.eavesdrop or not question.eavesdropping))
        or (not rule.allow and (question.eavesdropping or not rule.eavesdrop))
    )
    replies = not question.reply or (
        question.requested or not rule.requested_reply or rule.eavesdrop
        if rule.allow
        else rule.requested_reply or not question.requested
    )
    broadcast = question.type == 4 and question.destination is None
    return (
        named
        and interface
        and overheard
        and replies
        and rule.type in (0, question.type)
        and (rule.path is None or question.path in (None, rule.path))
        and (rule.member is None or question.member in (None, rule.member))
        and (rule.error is None or question.error_name in (None, rule.error))
        and rule.broadcast in (None, broadcast)
        and rule.min_fds <= question.fds <= rule.max_fds
    )


def last_of(rules: list[MessageRule], question: Question) -> tuple[bool, int, object]:
    """Every rule in its order; a bare one makes all before it forgotten."""
    allowed, matched, deciding = False, 0, None
    for rule in rules:
        if rule.resets:
            allowed, matched, deciding = False, 0, None
        if fits(rule, question):
            allowed, matched, deciding = rule.allow, matched + 1, rule
    return allowed, matched, deciding


@given(message_rules(), st.lists(questions, min_size=1, max_size=8))
def test_messages(rules: list[MessageRule], asked: list[Question]) -> None:
    index = MessageIndex(rules, bool(rules) and rules[0].receiving)
    for question in asked:
        allowed, matched, deciding = last_of(rules, question)
        verdict = index.decide(question)
        assert verdict == Verdict(allowed, 0 if allowed else matched, deciding, False)


own_rules = st.builds(
    OwnRule, st.booleans(), st.one_of(st.none(), some_name), st.booleans(), line=st.integers(1, 99)
).map(lambda rule: rule._replace(prefix=rule.prefix and rule.name is not None))


@given(st.lists(own_rules, max_size=10), some_name)
@example([OwnRule(True, "a", True), OwnRule(False, "a.b"), OwnRule(True, "a", True)], "a.b")
def test_names(rules: list[OwnRule], name: str) -> None:
    allowed, matched, deciding = False, 0, None
    for rule in rules:
        if rule.resets:
            matched = 0
        if rule.resets or (name == rule.name or (rule.prefix and name.startswith(f"{rule.name}."))):
            allowed, matched, deciding = rule.allow, matched + 1, rule
    verdict = OwnIndex(rules).decide(name)
    assert verdict == Verdict(allowed, 0 if allowed else matched, deciding)


def test_prefixes() -> None:
    assert list(prefixes("a.bc.d")) == ["a", "a.bc", "a.bc.d"]
    assert list(prefixes(":1.10")) == [":1", ":1.10"]
    assert list(prefixes("")) == [""]
    assert list(prefixes(".a.")) == ["", ".a", ".a."]


def test_a_decision_among_many_rules_asks_few() -> None:
    """500 services with a rule each: only those of the receiver, and the general ones, are read."""
    asked: list[MessageRule] = []

    class Watched(MessageRule):
        @property
        def type(self) -> int:  # type: ignore[override]
            asked.append(self)
            return 0

    general = [Watched(False, False, path="/x")]
    rules = [Watched(True, False, name=f"s{i}.x", interface=f"i{i % 7}.x") for i in range(500)]
    question = Question(1, interface="i3.x", destination="s3.x", receiver={":1.1", "s3.x"})
    index = MessageIndex(general + rules, False)
    asked.clear()
    assert index.decide(question).allowed
    assert len(set(map(id, asked))) <= 2
