"""What packagers' checkers find in policies, and what only a bus knows: rules without effect.

A rule of a service's file stands among the rules of all others.  So what it does not say holds
for every service: an interface without a destination is everybody's interface.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from afdbus.config.check import Checked, Finding, check
from afdbus.config.draft import Draft
from afdbus.policy.decide import prefixes
from afdbus.policy.rules import ConnectRule, MessageRule, OwnRule, Rule
from afdbus.policy.shadow import Shadow, bad_value, fits_nothing, shadows
from afdbus.policy.written import written

# The checks, and what each finds.
CHECKS = {
    "error": "what a bus refuses to read",
    "warning": "what a bus warns of when it reads it",
    "unknown-user": "a user who is not in the user database: the rule or policy is dropped",
    "unknown-group": "a group that is not in the group database: the rule or policy is dropped",
    "at_console": "a policy for users at the console, which is deprecated",
    "ignored": "an attribute or a rule that has no effect where it is",
    "no-destination": "a rule about sending that names no destination: it is about all services",
    "no-sender": "a rule about receiving that names no sender: it is about all services",
    "receive-allowed": "an <allow> for receiving, which is allowed without it",
    "own-by-all": "a name that every user may own",
    "no-access": "a name that may be owned, while no rule allows to call its owner",
    "resets": "a rule about everything, which throws away all rules before it",
    "eavesdrop": "a rule about messages that are addressed to another",
    "bad-name": "a condition with a value that no message can have",
    "unreachable": "a rule that can never fit",
    "shadowed": "a rule that never decides, since a later one does or has thrown it away",
}


class Placed(NamedTuple):
    """A rule in the bucket it is in (`everybody`: that of all users, default or mandatory)."""

    rule: Rule
    everybody: bool


def lint(path: str) -> list[Finding]:
    """The findings in a file and all that it includes, or in the files of a directory."""
    checked = check(path)
    findings = [*checked.findings, *_about_rules(checked)]
    findings += (_shadowed(shadow) for shadow in _shadows(checked.draft))
    return sorted(set(findings), key=lambda finding: (finding.file, finding.line, finding.kind))


def _about_rules(checked: Checked) -> Iterator[Finding]:
    """What can be said of each rule alone, or by the names that the others allow."""
    draft = checked.draft
    # A session bus trusts its user; rules about all services are a main file's business.
    of_session = draft.type == "session"
    main = checked.files[0] if draft.listen else None
    placed = [*_placed(draft)]
    callable_ = _Callable(placed)
    for rule, everybody in placed:
        found: list[tuple[str, str]] = []
        dead = fits_nothing(rule)
        if dead is not None:
            found.append(("unreachable", dead))
        if isinstance(rule, MessageRule):
            found += _about_message(rule, rule.file == main, of_session)
            bad = bad_value(rule)
            if bad is not None and dead is None:
                found.append(("bad-name", bad[1]))
        elif isinstance(rule, OwnRule) and rule.allow and not of_session:
            name = "any name" if rule.name is None else rule.name
            if everybody:
                found.append(("own-by-all", f"every user may own {name}"))
            if not callable_.has(rule):
                found.append(("no-access", f"no rule allows to call the owner of {name}"))
        for kind, text in found:
            yield Finding(rule.file, rule.line, f"{written(rule)}: {text}", kind)


def _about_message(rule: MessageRule, in_main: bool, of_session: bool) -> Iterator[tuple[str, str]]:
    if of_session:
        return
    if rule.eavesdrop:
        yield "eavesdrop", "it is about messages that are addressed to another"
    if in_main:
        return
    if rule.resets:
        yield "resets", "it is about everything, and throws away all rules before it"
    elif rule.name is None and not rule.broadcast:
        if rule.receiving:
            yield "no-sender", "without receive_sender it is about all services"
        else:
            yield "no-destination", "without send_destination it is about all services"
    if rule.receiving and rule.allow and not rule.eavesdrop and rule.requested_reply:
        yield "receive-allowed", "receiving is allowed unless a rule denies it"


class _Callable:
    """The names whose owners somebody may call."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        rules = [
            rule
            for rule, _ in placed
            if isinstance(rule, MessageRule) and rule.allow and not rule.receiving
        ]
        self._all = any(rule.name is None and rule.type in (0, 1) for rule in rules)
        self._names = {rule.name for rule in rules if rule.name is not None and not rule.prefix}
        self._prefixes = {rule.name for rule in rules if rule.name is not None and rule.prefix}
        self._parents = {part for name in self._names for part in prefixes(name)}

    def has(self, rule: OwnRule) -> bool:
        """Whether a rule allows to call an owner of a name that `rule` lets somebody own."""
        if self._all or rule.name is None or rule.name in self._names:
            return True
        if rule.prefix and rule.name in self._parents:
            return True
        return not self._prefixes.isdisjoint(prefixes(rule.name))


def _placed(draft: Draft) -> Iterator[Placed]:
    for rules in (draft.default, draft.mandatory):
        yield from (Placed(rule, True) for rule in rules)
    for rules in _others(draft):
        yield from (Placed(rule, False) for rule in rules)


def _others(draft: Draft) -> list[list[Rule]]:
    """The buckets that do not hold for everybody."""
    return [
        *draft.users.values(),
        *draft.groups.values(),
        draft.at_console,
        draft.not_at_console,
    ]


def _shadows(draft: Draft) -> Iterator[Shadow]:
    """Rules without effect for whomever they are: only the mandatory ones come after all others."""
    yield from shadows(draft.mandatory)
    connect = [rule for rule in draft.mandatory if isinstance(rule, ConnectRule)]
    others = [rule for rule in draft.mandatory if not isinstance(rule, ConnectRule)]
    for rules in (draft.default, *_others(draft)):
        for shadow in shadows(rules, [*others, *connect]):
            if _order_is_certain(shadow):
                yield shadow


def _order_is_certain(shadow: Shadow) -> bool:
    """Files of one directory may be read in any order."""
    first, second = shadow.rule.file, shadow.by.file
    return first == second or os.path.dirname(first) != os.path.dirname(second)


def _shadowed(shadow: Shadow) -> Finding:
    rule, by = shadow
    resets = not isinstance(by, ConnectRule) and by.resets
    what = "it is thrown away by" if resets else "what it fits is decided by"
    text = f"{written(rule)}: {what} {written(by)} at {by.file}:{by.line}"
    return Finding(rule.file, rule.line, text, "shadowed")
