"""What a configuration answers to a question: whose rules decide, which one, and how many fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from afdbus.config.load import Text, compose
from afdbus.config.model import Config
from afdbus.host.users import Users
from afdbus.policy.decide import Question, Verdict
from afdbus.policy.explain import SOME
from afdbus.policy.rules import MAX_RULE_FDS, MessageRule, OwnRule, Rule
from afdbus.policy.ruleset import Bucket
from afdbus.tools.people import Person
from afdbus.tools.questions import Asked


class Step(NamedTuple):
    """One look into somebody's rules.  `side`: "send", "receive", "own" or "connect"."""

    side: str
    who: Person
    verdict: Verdict
    buckets: list[Bucket]

    @property
    def holder(self) -> Bucket | None:
        """The bucket of the deciding rule."""
        rule = self.verdict.rule
        for bucket in self.buckets:
            if any(rule is other for other in bucket.rules):
                return bucket
        return None

    def is_about(self, rule: Rule) -> bool:
        """Whether it is a rule of this side."""
        if isinstance(rule, MessageRule):
            return self.side == ("receive" if rule.receiving else "send")
        return self.side == ("own" if isinstance(rule, OwnRule) else "connect")

    def messages(self) -> list[MessageRule]:
        """The rules of this side, the strongest last, those that a later one throws away too."""
        rules = (rule for bucket in self.buckets for rule in bucket.rules)
        return [rule for rule in rules if isinstance(rule, MessageRule) and self.is_about(rule)]


class Answers:
    """A configuration that can be asked."""

    def __init__(self, config: Config, users: Users) -> None:
        self.config = config
        self._users = users

    @classmethod
    def of(
        cls, users: Users, *parts: str | Text, texts: Mapping[str, str] | None = None
    ) -> Answers:
        """Those of a file, or whatever `compose` takes.  Raises `ConfigError`."""
        return cls(compose(*parts, texts=texts), users)

    def steps(self, asked: Asked) -> list[Step]:
        """All that has to be allowed, in the order in which a bus asks."""
        if asked.kind == "connect":
            return [self._connecting(asked.who)]
        if asked.question is None:
            return [self._owning(asked.who, asked.name)]
        if asked.kind == "receive":
            return [self.message("receive", asked.who, asked.question)]
        first = self.message("send", asked.who, asked.question)
        if asked.receiver is None:
            return [first]
        return [first, self.message("receive", asked.receiver, asked.question)]

    def deciding(self, asked: Asked) -> Step:
        """The first step that is denied, or else the first."""
        steps = self.steps(asked)
        return next((step for step in steps if not step.verdict.allowed), steps[0])

    def message(self, side: str, who: Person, question: Question) -> Step:
        policy = self.config.ruleset.for_peer(who.identity)
        index = policy.send if side == "send" else policy.receive
        verdict = index.decide(question)._replace(matched=index.matched(question))
        return Step(side, who, verdict, self.config.ruleset.buckets_of(who.identity))

    def _owning(self, who: Person, name: str) -> Step:
        index = self.config.ruleset.for_peer(who.identity).own
        verdict = index.decide(name)._replace(matched=index.matched(name))
        return Step("own", who, verdict, self.config.ruleset.buckets_of(who.identity))

    def _connecting(self, who: Person) -> Step:
        verdict = self.config.ruleset.may_connect(who.identity, self.own_uid())
        buckets = self.config.ruleset.buckets
        everybody = [
            Bucket("context", "default", buckets.default),
            Bucket("context", "mandatory", buckets.mandatory),
        ]
        return Step("connect", who, verdict, everybody)

    def own_uid(self) -> int:
        """The user that the bus runs as: its `<user>`, or whoever asks."""
        name = self.config.user
        uid = None if name is None else self._users.uid_of(name)
        return os.geteuid() if uid is None else uid

    def may_connect(self, who: Person) -> bool:
        return self._connecting(who).verdict.allowed


def rests_on_fds(answers: Answers, step: Step, question: Question) -> bool:
    """Whether another number of descriptors could get another answer."""
    bounds = {0, 1}
    for rule in step.messages():
        if rule.min_fds or rule.max_fds != MAX_RULE_FDS:
            bounds |= {rule.min_fds - 1, rule.min_fds, rule.max_fds, rule.max_fds + 1}
    others = (question._replace(fds=fds) for fds in bounds if 0 <= fds <= MAX_RULE_FDS)
    return any(_otherwise(answers, step, other) is not None for other in others)


# What may be left open: the field of a question, the condition of a rule, which the option is
# called after.
_OPEN = (("path", "path"), ("member", "member"), ("error_name", "error"))


def rests_on(answers: Answers, step: Step, question: Question) -> tuple[list[str], Rule] | None:
    """What was left open and matters, and the rule that decides otherwise if it is as it says."""
    left_open = [pair for pair in _OPEN if getattr(question, pair[0]) == SOME]
    rules = step.messages()
    # Only a rule behind the one that decides can decide otherwise.
    deciding = [place for place, rule in enumerate(rules) if rule is step.verdict.rule]
    for rule in reversed(rules[deciding[0] if deciding else 0 :]):
        if rule.allow == step.verdict.allowed:
            continue
        pairs = [pair for pair in left_open if getattr(rule, pair[1]) is not None]
        if pairs:
            named = {field: getattr(rule, condition) for field, condition in pairs}
            verdict = _otherwise(answers, step, question._replace(**named))
            if verdict is not None and verdict.rule is not None:
                return [condition for _, condition in pairs], verdict.rule
    return None


def _otherwise(answers: Answers, step: Step, question: Question) -> Verdict | None:
    verdict = answers.message(step.side, step.who, question).verdict
    return None if verdict.allowed == step.verdict.allowed else verdict
