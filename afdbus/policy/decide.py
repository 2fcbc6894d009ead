"""Decisions: of all the rules that fit a question, the last one counts (dbus-daemon(1), "policy").

Rules are filed by the other party's name and by interface, each file with the latest rule first,
so that among hundreds of rules a decision looks at a handful; `_fits` has all other conditions, in
the order of the manual.  A test compares this with reading all rules one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from afdbus.policy.rules import MAX_RULE_FDS, SIGNAL, MessageRule, OwnRule, Rule

DRIVER = "org.freedesktop.DBus"


class Question(NamedTuple):
    """One message on its way to one receiver.

    The header fields are as they are in the message, None where absent.  `reply`: it has a
    REPLY_SERIAL (whatever its type); `requested`: it answers an open call.  `fds`: how many
    descriptors it carries.  `receiver`: all names that the receiving peer owns or waits for, its
    unique name included (a set or dict: each once, quick to search); None for the driver and for a
    peer that is still to be started, which go by `destination`.  `sender`: the same for the
    sending peer, None for the driver.  `eavesdropping`: the message is addressed to another.
    """

    type: int
    path: str | None = None
    interface: str | None = None
    member: str | None = None
    error_name: str | None = None
    destination: str | None = None
    reply: bool = False
    requested: bool = False
    fds: int = 0
    receiver: Collection[str] | None = None
    sender: Collection[str] | None = None
    eavesdropping: bool = False


class Verdict(NamedTuple):
    """What was decided, by which rule (None: no rule fitted, which denies).

    `matched`: how many rules fitted; counted only where it is told, for denials and with `log`.
    `log`: the deciding rule has log="true".
    """

    allowed: bool
    matched: int = 0
    rule: Rule | None = None
    log: bool = False


def prefixes(name: str) -> Iterator[str]:
    """All prefixes that fit `name` word by word: of a.b.c these are a, a.b and a.b.c itself."""
    dot = name.find(".")
    while dot >= 0:
        yield name[:dot]
        dot = name.find(".", dot + 1)
    yield name


def _fits(rule: MessageRule, question: Question) -> bool:
    """All conditions but interface and the other party's name, which the index has looked at."""
    if rule.type and rule.type != question.type:
        return False
    if rule.receiving and rule.eavesdrop != question.eavesdropping:
        # allow: true means "overheard, too"; deny: true means "only when overheard".
        if rule.allow:
            if question.eavesdropping:
                return False
        elif rule.eavesdrop:
            return False
    if question.reply:
        # allow: true means "only when requested"; deny: false means "only when not requested".
        if question.requested:
            if not rule.allow and not rule.requested_reply:
                return False
        elif rule.allow and rule.requested_reply and not rule.eavesdrop:
            return False
    # An absent path, member or error name fits.
    if rule.path is not None and question.path is not None and rule.path != question.path:
        return False
    if rule.member is not None and question.member is not None and rule.member != question.member:
        return False
    if (
        rule.error is not None
        and question.error_name is not None
        and rule.error != question.error_name
    ):
        return False
    if rule.broadcast is not None and rule.broadcast != (
        question.destination is None and question.type == SIGNAL
    ):
        return False
    return (
        rule.min_fds == 0 and rule.max_fds == MAX_RULE_FDS
    ) or rule.min_fds <= question.fds <= rule.max_fds


def _covers_any(prefix: str, names: Collection[str]) -> bool:
    below = prefix + "."
    return prefix in names or any(name.startswith(below) for name in names)


# Up to so many prefixes they are looked for among many names, one after the other.
_FEW_PREFIXES = 16

# A rule's place in the order, the rule, and the verdict if it allows and that is all.
_Entry = tuple[int, MessageRule, Verdict]


class _File:
    """Rules about the same other party, by interface; each list with the latest first."""

    __slots__ = ("by_interface", "denials", "plain")

    def __init__(self) -> None:
        self.plain: list[_Entry] = []
        self.by_interface: dict[str, list[_Entry]] = {}
        self.denials: list[_Entry] = []  # those with an interface: a message without one fits

    def add(self, entry: _Entry) -> None:
        rule = entry[1]
        if rule.interface is None:
            self.plain.append(entry)
            return
        self.by_interface.setdefault(rule.interface, []).append(entry)
        if not rule.allow:
            self.denials.append(entry)


class MessageIndex:
    """The send rules, or the receive rules, of a peer."""

    __slots__ = ("_all", "_any", "_by_name", "_by_prefix", "_receiving")

    def __init__(self, rules: Sequence[MessageRule], receiving: bool) -> None:
        """`rules` in their order, the last one the strongest."""
        self._receiving = receiving
        self._any = _File()
        self._by_name: dict[str, _File] = {}
        self._by_prefix: dict[str, _File] = {}
        for place in range(len(rules) - 1, -1, -1):
            rule = rules[place]
            if rule.name is None:
                file = self._any
            else:
                files = self._by_prefix if rule.prefix else self._by_name
                file = files.setdefault(rule.name, _File())
            file.add((place, rule, Verdict(True, 0, rule)))
            if rule.resets:
                break
        # As most session buses have it: no rule names anybody or an interface (0.6 us a question).
        simple = not (self._by_name or self._by_prefix or self._any.by_interface)
        self._all = [self._any.plain] if simple else None

    def decide(self, question: Question) -> Verdict:
        best: _Entry | None = None
        for entries in self._candidates(question):
            for entry in entries:
                if best is not None and entry[0] < best[0]:
                    break
                if _fits(entry[1], question):
                    best = entry
                    break
        if best is None:
            return Verdict(False)
        rule = best[1]
        if rule.allow and not rule.log:
            return best[2]
        return Verdict(rule.allow, self.matched(question), rule, rule.log)

    def matched(self, question: Question) -> int:
        """How many rules fit, those before a resetting rule aside."""
        candidates = self._candidates(question)
        return sum(_fits(entry[1], question) for entries in candidates for entry in entries)

    def _candidates(self, question: Question) -> list[list[_Entry]]:
        """The rules that fit by the other party's name and by interface, each of them once."""
        if self._all is not None:
            return self._all
        files = [self._any]
        names, text = question.receiver, question.destination
        if self._receiving:
            names, text = question.sender, DRIVER
        if names is None:
            names = () if text is None else (text,)
        by_name = self._by_name
        if len(names) <= len(by_name):
            files += [by_name[name] for name in names if name in by_name]
        else:
            files += [file for name, file in by_name.items() if name in names]
        if self._by_prefix:
            files += self._with_prefix(names)
        # An absent interface fits no allow rule but every deny rule; path, member and error differ.
        interface = question.interface
        if interface is None:
            return [entries for file in files for entries in (file.plain, file.denials)]
        others = [file.by_interface[interface] for file in files if interface in file.by_interface]
        return [file.plain for file in files] + others

    def _with_prefix(self, names: Collection[str]) -> list[_File]:
        by_prefix = self._by_prefix
        # A peer may have thousands of names, and rules with a prefix are rare (P9).
        if len(by_prefix) <= _FEW_PREFIXES and len(by_prefix) < len(names):
            return [file for prefix, file in by_prefix.items() if _covers_any(prefix, names)]
        found = {prefix for name in names for prefix in prefixes(name)}
        return [by_prefix[prefix] for prefix in found if prefix in by_prefix]


class OwnIndex:
    """The own rules of a peer: the last one for each name, each prefix, and for any name."""

    __slots__ = ("_any", "_by_name", "_by_prefix", "_rules")

    def __init__(self, rules: Sequence[OwnRule]) -> None:
        self._rules: list[OwnRule] = []
        self._any: int | None = None
        self._by_name: dict[str, int] = {}
        self._by_prefix: dict[str, int] = {}
        for rule in rules:
            if rule.resets:
                self._rules.clear()
                self._by_name.clear()
                self._by_prefix.clear()
            place = len(self._rules)
            self._rules.append(rule)
            if rule.name is None:
                self._any = place
            elif rule.prefix:
                self._by_prefix[rule.name] = place
            else:
                self._by_name[rule.name] = place

    def decide(self, name: str) -> Verdict:
        places = [] if self._any is None else [self._any]
        if name in self._by_name:
            places.append(self._by_name[name])
        if self._by_prefix:
            places += [self._by_prefix[p] for p in prefixes(name) if p in self._by_prefix]
        if not places:
            return Verdict(False)
        rule = self._rules[max(places)]
        if rule.allow:
            return Verdict(True, 0, rule)
        return Verdict(False, self.matched(name), rule)

    def matched(self, name: str) -> int:
        """How many rules fit, those before a resetting rule aside."""
        return sum(self._covers(rule, name) for rule in self._rules)

    @staticmethod
    def _covers(rule: OwnRule, name: str) -> bool:
        if rule.name is None:
            return True
        return rule.name in prefixes(name) if rule.prefix else rule.name == name
