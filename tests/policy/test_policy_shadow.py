"""Rules that never decide, found by an index, against looking at every message there can be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
from policies import CALL, DRIVER, ERROR, RETURN, SIGNAL

from afdbus.policy.decide import MessageIndex, OwnIndex, Question
from afdbus.policy.rules import MAX_RULE_FDS, ConnectRule, MessageRule, OwnRule
from afdbus.policy.shadow import bad_value, fits_nothing, shadows

NAMES = ["x.y", "x.y.z", "q.r"]
# For each condition its values in rules; None is none.
CONDITIONS: dict[str, list[Any]] = {
    "type": [0, CALL, RETURN, ERROR, SIGNAL],
    "path": [None, "/", "/x"],
    "interface": [None, "i.g", "i.h"],
    "member": [None, "M", "N"],
    "error": [None, "e.E", "e.F"],
    "party": [(None, False), ("x", True), *product(NAMES, (False, True))],
    "broadcast": [None, True, False],
    "requested_reply": [False, True],
    "eavesdrop": [False, True],
    "fds": [(0, MAX_RULE_FDS), (0, 0), (1, 2), (1, MAX_RULE_FDS), (2, 2)],
}
# For each condition the values in messages, one that no rule names among them.
MESSAGES: dict[str, list[Any]] = {
    "type": [CALL, RETURN, ERROR, SIGNAL],
    "path": [None, "/", "/x", "/o"],
    "interface": [None, "i.g", "i.h", "i.o"],
    "member": [None, "M", "N", "O"],
    "error": [None, "e.E", "e.F", "e.O"],
    "party": [
        (),
        ("x.y",),
        ("x.y.z",),
        ("q.r",),
        ("o.o",),
        ("x.y", "q.r"),
        ("x.w",),
        ("x.y.z.w",),
        ("q.r.s",),
    ],
    "broadcast": [False, True],
    "requested_reply": [False, True],
    "eavesdrop": [False, True],
    "fds": [0, 1, 2, 3],
}
ALWAYS = {"type"}  # a rule's other conditions mean more or less by it
REPLIES = (RETURN, ERROR)


def some_rules(dice: random.Random, about: Sequence[str], receiving: bool) -> list[MessageRule]:
    rules = []
    for _ in range(10):
        picked = {what: dice.choice(CONDITIONS[what]) for what in about}
        name, prefix = picked.pop("party", (None, False))
        low, high = picked.pop("fds", (0, MAX_RULE_FDS))
        if receiving:
            name, prefix = None if name == "x" else name, False
            picked.pop("broadcast", None)
        elif picked.get("broadcast"):
            name, prefix = None, False
        rules.append(
            MessageRule(
                allow=dice.random() < 0.5, receiving=receiving, name=name, prefix=prefix,
                min_fds=low, max_fds=high, **picked,
            )
        )  # fmt: skip
    return rules


def all_messages(about: Sequence[str]) -> Iterator[Question]:
    for values in product(*(MESSAGES[what] for what in about)):
        message = dict(zip(about, values, strict=True))
        kinds = [message["type"]] if "type" in about else MESSAGES["type"]
        for kind in kinds:
            if message.get("broadcast") and kind != SIGNAL:
                continue
            names = message.get("party", ("o.o",))
            replies = [(False, False)] if kind not in REPLIES else [(True, False), (True, True)]
            for reply, requested in replies:
                if "requested_reply" in about and requested != message["requested_reply"]:
                    continue
                for overheard in (False, True) if "eavesdrop" in about else (False,):
                    yield Question(
                        kind,
                        message.get("path", "/o"),
                        message.get("interface", "i.o"),
                        message.get("member", "O"),
                        message.get("error", "e.O"),
                        None if message.get("broadcast") else DRIVER,
                        reply,
                        requested,
                        message.get("fds", 0),
                        names,
                        names,
                        overheard,
                    )


@pytest.mark.parametrize("receiving", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_what_is_found_is_what_every_message_says(seed: int, receiving: bool) -> None:
    dice = random.Random(seed)
    others = [what for what in CONDITIONS if what not in ALWAYS]
    # requested_reply and eavesdrop have no neutral value: they are in all messages
    about = [*ALWAYS, *dice.sample(others, 3)]
    about += [what for what in ("requested_reply", "eavesdrop") if what not in about]
    rules = some_rules(dice, about, receiving)
    messages = list(dict.fromkeys(all_messages(about)))
    indices = [MessageIndex([rule], receiving) for rule in rules]
    fitting = [
        {number for number, message in enumerate(messages) if index.matched(message)}
        for index in indices
    ]
    expected = set()
    for place in range(len(rules)):
        for later in range(place + 1, len(rules)):
            if rules[later].resets or (fitting[place] and fitting[place] <= fitting[later]):
                expected.add(place)
    found = {}
    for shadow in shadows(rules):
        (place,) = [number for number, rule in enumerate(rules) if rule is shadow.rule]
        found[place] = shadow.by
    # What fits none of these messages may be covered or not.
    possible = {place for place in range(len(rules)) if fitting[place]}
    resets = [place for place, rule in enumerate(rules) if rule.resets]
    erased = set(range(max(resets, default=0)))
    assert set(found) & (possible | erased) == expected & (possible | erased)
    whole = MessageIndex(rules, receiving)
    deciding = {id(whole.decide(message).rule) for message in messages}
    assert not deciding & {id(rules[place]) for place in found}


@pytest.mark.parametrize("seed", range(30))
def test_own_rules(seed: int) -> None:
    dice = random.Random(seed)
    names = [None, "x", "x.y", "x.y.z", "q.r"]
    rules = []
    for _ in range(8):
        name = dice.choice(names)
        rules.append(OwnRule(dice.random() < 0.5, name, name is not None and dice.random() < 0.5))
    universe = ["x", "x.y", "x.y.z", "x.y.w", "x.w", "q.r", "q.r.s", "o.o"]
    fitting = [{name for name in universe if OwnIndex([rule]).matched(name)} for rule in rules]
    expected = {
        place
        for place, rule in enumerate(rules)
        if any(
            later.resets or fitting[place] <= fitting[place + 1 + distance]
            for distance, later in enumerate(rules[place + 1 :])
        )
    }
    found = {id(shadow.rule) for shadow in shadows(rules)}
    assert found == {id(rules[place]) for place in expected}


def test_connect_rules() -> None:
    rules = [
        ConnectRule(True, number=1),
        ConnectRule(False, group=True, number=1),
        ConnectRule(False, number=2),
        ConnectRule(True, number=1),
    ]
    assert [shadow.rule for shadow in shadows(rules)] == [rules[0]]
    assert [*shadows(rules, [ConnectRule(True)])] == [
        (rule, ConnectRule(True)) for rule in reversed(rules)
    ]


def test_stronger_rules_are_looked_at_but_not_told_of() -> None:
    rule = OwnRule(True, "a.b", line=1)
    stronger = [OwnRule(True, "a.b", line=2), OwnRule(True, "a.b", line=3)]
    assert [*shadows([rule], stronger)] == [(rule, stronger[1])]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (MessageRule(True, False, name="x"), "no name"),
        (MessageRule(True, False, name=""), "no name"),
        (MessageRule(True, False, name="", prefix=True), "no name"),
        (MessageRule(True, False, name="a.", prefix=True), "no name"),
        (MessageRule(True, False, type=CALL, min_fds=2, max_fds=1), "min_fds"),
        (MessageRule(True, False, type=CALL, broadcast=True), "broadcast"),
        (MessageRule(True, False, type=CALL, path="x"), "path"),
        (MessageRule(True, False, interface="x"), "interface"),
        (MessageRule(False, False, type=SIGNAL, interface="i.g", member="m-m"), "member"),
        (OwnRule(True, "a"), "no name"),
        (OwnRule(True, ":1.1"), "no name"),
    ],
)
def test_what_fits_nothing(rule: MessageRule | OwnRule, words: str) -> None:
    assert words in (fits_nothing(rule) or "")


@pytest.mark.parametrize(
    "rule",
    [
        MessageRule(True, False, name=":1.1"),
        MessageRule(True, False, name="x", prefix=True),
        MessageRule(False, False, interface="x"),
        MessageRule(False, False, path="x"),
        MessageRule(False, False, error="x"),
        OwnRule(True, "x", True),
        OwnRule(True),
        ConnectRule(True),
    ],
)
def test_what_fits_something(rule: MessageRule | OwnRule | ConnectRule) -> None:
    assert fits_nothing(rule) is None


def test_bad_values() -> None:
    assert bad_value(MessageRule(False, False, error="x")) == (
        "error", '"x" can be no error of a message'
    )  # fmt: skip
    assert bad_value(MessageRule(False, False, path="/", member="M", interface="i.g")) is None
