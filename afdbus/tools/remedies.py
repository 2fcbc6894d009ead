"""The smallest file that would turn a verdict, and where it has to lie to do so.

Whether it does is not reasoned out but tried: the configuration is loaded once more with the file
in it, and asked again.  The order of files in an `<includedir>` is nobody's to choose, so the file
has to do its work when it is the first to be read there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from afdbus.config.load import Text
from afdbus.host.users import Users
from afdbus.policy.decide import DRIVER
from afdbus.policy.explain import limits_of, remedy
from afdbus.policy.rules import ConnectRule, MessageRule, OwnRule, Rule
from afdbus.policy.ruleset import Bucket
from afdbus.policy.written import EVERYBODY, Holder, busconfig, written
from afdbus.tools.answers import Answers, Step, rests_on_fds
from afdbus.tools.people import SOMEBODY
from afdbus.tools.questions import Asked, described

MANDATORY = Holder("context", "mandatory")

# What the bus itself gives to root and its own user only, whatever policies say.
PRIVILEGED = frozenset({"UpdateActivationEnvironment", "BecomeMonitor"})


class Remedy(NamedTuple):
    """`text`: the file, empty if there is none; `path`: where it does its work.

    `at_end`: no `<includedir>` will do, it has to be included behind everything else.
    `remarks`: what else is to be said, a sentence each.
    """

    text: str
    path: str
    at_end: bool
    remarks: tuple[str, ...]


def find(path: str, answers: Answers, asked: Asked, users: Users) -> Remedy:
    """What turns the answer to `asked` by the configuration file `path`, which `answers` knows."""
    steps = answers.steps(asked)
    allow = any(not step.verdict.allowed for step in steps)
    wrong = [step for step in steps if not step.verdict.allowed] if allow else steps[:1]
    remarks: list[str] = []
    policies: dict[Holder, list[Rule]] = {}
    sides = set()
    for step in wrong:
        holder = step.who.holder
        if holder is None:
            remarks.append(_nameless(step))
            continue
        rule = _rule(answers, asked, step, allow)
        if asked.question is not None and isinstance(rule, MessageRule):
            remarks += limits_of(rule, asked.question)
        if isinstance(rule, ConnectRule):
            holder = EVERYBODY
        policies.setdefault(holder, []).append(rule)
        sides.add(step.side)
    if not policies:
        return Remedy("", "", False, tuple(remarks))
    trial = _Trial(path, asked, users, allow, frozenset(sides))
    variants = [policies]
    if asked.kind == "connect":  # such a rule is about one user in the mandatory policy, too
        variants.append({MANDATORY: policies[EVERYBODY]})
    return _placed(trial, reversed(answers.config.includedirs), variants, remarks)


def _rule(answers: Answers, asked: Asked, step: Step, allow: bool) -> Rule:
    if step.side == "own":
        return OwnRule(allow, asked.name)
    if step.side == "connect":
        return ConnectRule(allow, number=step.who.identity.uid)
    assert asked.question is not None
    return remedy(
        asked.question,
        receiving=step.side == "receive",
        allow=allow,
        count_fds=rests_on_fds(answers, step, asked.question),
    )


def _nameless(step: Step) -> str:
    if step.who is SOMEBODY:
        return (
            "The receiver's rules deny it. Name its user (--to-user) to learn what would allow it."
        )
    return (
        f"{step.who} is not in the user database: no policy can be for this user, who cannot "
        "connect either."
    )


class _Trial(NamedTuple):
    """What is tried, and when it is a success: all these sides answer `allow`."""

    path: str
    asked: Asked
    users: Users
    allow: bool
    sides: frozenset[str]

    def failing(self, answers: Answers) -> Step | None:
        """The first side that answers as before; None for a success."""
        for step in answers.steps(self.asked):
            if step.side in self.sides and step.verdict.allowed is not self.allow:
                return step
        return None


def _placed(
    trial: _Trial,
    directories: Iterable[str],
    variants: list[dict[Holder, list[Rule]]],
    remarks: list[str],
) -> Remedy:
    """The policies as a file, at the first place where they are a success."""
    places = [_free(directory) for directory in directories]
    failing: Step | None = None
    for policies in variants:
        text = busconfig(policies.items(), [f"For the question: {described(trial.asked)}."])
        for place in places:
            with_it = Answers.of(trial.users, trial.path, texts={place: text})
            if trial.failing(with_it) is None:
                return Remedy(text, place, False, tuple(remarks))
        at_end = Answers.of(trial.users, trial.path, Text("", text))
        failing = trial.failing(at_end)
        if failing is None:
            return Remedy(text, _free(os.path.dirname(trial.path)), True, tuple(remarks))
    assert failing is not None
    return Remedy("", "", False, (*remarks, _hopeless(failing)))


def _free(directory: str) -> str:
    """The path of a file that is not there yet."""
    number = 1
    while True:
        name = "remedy.conf" if number == 1 else f"remedy-{number}.conf"
        path = os.path.join(directory, name)
        if not os.path.lexists(path):
            return path
        number += 1


def _hopeless(step: Step) -> str:
    """Why no policy of this user's will do: what stands behind it."""
    bucket, rule = step.holder, step.verdict.rule
    if rule is None:
        # Nothing fits any more: a later rule has thrown the remedy away with all others.
        for bucket in reversed(step.buckets):
            for rule in reversed(bucket.rules):
                if not isinstance(rule, ConnectRule) and rule.resets and step.is_about(rule):
                    return _change(rule, bucket, "throws away all rules before it, and")
    assert rule is not None
    assert bucket is not None
    return _change(rule, bucket, "decides, and")


def _change(rule: Rule, bucket: Bucket, what: str) -> str:
    return (
        f"No rule for this user alone helps: {written(rule)} at {rule.file}:{rule.line} {what} "
        f"counts after all rules for users, as it is in <policy {bucket.attribute}="
        f'"{bucket.value}">. It is there that something has to be changed.'
    )


def beyond(asked: Asked) -> list[str]:
    """What policies do not decide."""
    question = asked.question
    if question is None or asked.kind != "send" or question.destination != DRIVER:
        return []
    if question.member in PRIVILEGED:
        return [
            f"Whatever policies say, {question.member} is for root and the user of the bus only."
        ]
    return []
