"""Rules that never decide, because whatever they fit a later rule fits, too.

Looked for is one later rule that covers all of the earlier; several that cover it together are not
found.  Rules are filed by what they have conditions about and by the values of these, so the work
grows with the number of rules and not with its square.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from afdbus.policy.decide import prefixes
from afdbus.policy.rules import MESSAGE_TYPES, SIGNAL, ConnectRule, MessageRule, OwnRule, Rule
from afdbus.wire.names import (
    is_bus_name,
    is_error_name,
    is_interface_name,
    is_member_name,
    is_object_path,
    is_well_known_name,
)

_REPLIES = (MESSAGE_TYPES["method_return"], MESSAGE_TYPES["error"])

_Value: TypeAlias = int | str | bool | tuple[str, bool] | None
_Values: TypeAlias = tuple[_Value, ...]
_NAME = 5  # the place of the other party's name among the values


class Shadow(NamedTuple):
    """`rule` never decides; `by` does instead, or has thrown it away."""

    rule: Rule
    by: Rule


def shadows(rules: Iterable[Rule], stronger: Iterable[Rule] = ()) -> Iterator[Shadow]:
    """Those among `rules` that never decide, the last one first.

    `rules` are in their order, the last one the strongest; behind them come the `stronger`.
    """
    later = _Later()
    for rule in reversed([*stronger]):
        later.add(rule)
    for rule in reversed([*rules]):
        by = later.covering(rule)
        if by is not None:
            yield Shadow(rule, by)
        later.add(rule)


def fits_nothing(rule: Rule) -> str | None:
    """Why no message, and no name, can ever fit; None if some can."""
    if isinstance(rule, ConnectRule):
        return None
    if rule.name is not None:
        # A prefix may be one word, which no bus name is.
        name = f"{rule.name}.x" if rule.prefix else rule.name
        can_be = is_well_known_name if isinstance(rule, OwnRule) else is_bus_name
        if not can_be(name):
            return f'"{rule.name}" is no name that can be owned'
    if isinstance(rule, OwnRule):
        return None
    if rule.min_fds > rule.max_fds:
        return "min_fds is greater than max_fds"
    if rule.broadcast and rule.type not in (0, SIGNAL):
        return "only signals are broadcast"
    # A message without the field fits, so a wrong value alone does not make a rule fit nothing.
    always_there = rule.type not in (0, *_REPLIES)
    found = bad_value(rule)
    if found is not None and (
        (always_there and found[0] in ("path", "member"))
        or (rule.allow and found[0] == "interface")
    ):
        return found[1]
    return None


def bad_value(rule: MessageRule) -> tuple[str, str] | None:
    """The first condition with a value that no message has: the condition, and what is wrong."""
    for what, value, can_be in (
        ("path", rule.path, is_object_path),
        ("interface", rule.interface, is_interface_name),
        ("member", rule.member, is_member_name),
        ("error", rule.error, is_error_name),
    ):
        if value is not None and not can_be(value):
            return what, f'"{value}" can be no {what} of a message'
    return None


class _Later:
    """The rules behind the one that is looked at."""

    def __init__(self) -> None:
        self._messages = {False: _Messages(), True: _Messages()}
        self._own = _Own()
        self._connect: dict[tuple[bool, int | None] | None, ConnectRule] = {}

    def add(self, rule: Rule) -> None:
        """Put a rule before all that are there."""
        if isinstance(rule, MessageRule):
            self._messages[rule.receiving].add(rule)
        elif isinstance(rule, OwnRule):
            self._own.add(rule)
        else:
            key = None if rule.number is None else (rule.group, rule.number)
            self._connect.setdefault(key, rule)

    def covering(self, rule: Rule) -> Rule | None:
        if isinstance(rule, MessageRule):
            return self._messages[rule.receiving].covering(rule)
        if isinstance(rule, OwnRule):
            return self._own.covering(rule)
        return self._connect.get(None) or self._connect.get((rule.group, rule.number))


class _Own:
    def __init__(self) -> None:
        self._reset: OwnRule | None = None
        self._names: dict[tuple[str, bool], OwnRule] = {}

    def add(self, rule: OwnRule) -> None:
        if rule.name is None:
            self._reset = self._reset or rule
        else:
            self._names.setdefault((rule.name, rule.prefix), rule)

    def covering(self, rule: OwnRule) -> OwnRule | None:
        if self._reset is not None or rule.name is None:
            return self._reset
        for key in _covering_names(rule.name, rule.prefix):
            if key in self._names:
                return self._names[key]
        return None


def _covering_names(name: str, prefix: bool) -> Iterator[tuple[str, bool]]:
    """The names, and prefixes of names, that fit whatever this one fits."""
    if not prefix:
        yield name, False
    for shorter in prefixes(name):
        yield shorter, True


class _Messages:
    """The send or the receive rules."""

    def __init__(self) -> None:
        self._reset: MessageRule | None = None
        # By which values there are; then by these values; then by what else there is to a rule.
        self._files: dict[int, dict[_Values, dict[tuple[bool, int], _Ranges]]] = {}
        self._prefixes: set[str] = set()

    def add(self, rule: MessageRule) -> None:
        if rule.resets:
            self._reset = self._reset or rule
        if fits_nothing(rule) is not None:
            return
        values = _values(rule)
        mask = _mask(values)
        file = self._files.setdefault(mask, {}).setdefault(values, {})
        file.setdefault((rule.allow, _reach(rule)), _Ranges()).add(rule)
        if rule.prefix and rule.name is not None:
            self._prefixes.add(rule.name)

    def covering(self, rule: MessageRule) -> MessageRule | None:
        if self._reset is not None:
            return self._reset
        values = _values(rule)
        mask = _mask(values)
        reach = _reach(rule)
        for other, files in self._files.items():
            if other & ~mask:
                continue  # it has a condition that the rule has not
            for key in self._keys(values, other):
                for (allow, its_reach), ranges in files.get(key, {}).items():
                    if reach & ~its_reach:
                        continue
                    # An allow with an interface does not fit a message without one; a deny does.
                    if allow and not rule.allow and key[2] is not None:
                        continue
                    found = ranges.covering(rule)
                    if found is not None:
                        return found
        return None

    def _keys(self, values: _Values, mask: int) -> Iterator[_Values]:
        """The values reduced to those in the mask; with each name that fits all they do."""
        key = [value if mask >> place & 1 else None for place, value in enumerate(values)]
        name = key[_NAME]
        if not isinstance(name, tuple):
            yield tuple(key)
            return
        for covering in _covering_names(*name):
            if covering == name or covering[0] in self._prefixes:
                key[_NAME] = covering
                yield tuple(key)


def _values(rule: MessageRule) -> _Values:
    """The conditions, with what one of them says about another: only signals are broadcast."""
    kind, broadcast = rule.type or None, rule.broadcast
    if broadcast:
        kind = kind or SIGNAL
    elif kind not in (None, SIGNAL):
        broadcast = False
    return (
        kind,
        rule.path,
        rule.interface,
        rule.member,
        rule.error,
        None if rule.name is None else (rule.name, rule.prefix),
        broadcast,
    )


def _mask(values: _Values) -> int:
    return sum(1 << place for place, value in enumerate(values) if value is not None)


def _reach(rule: MessageRule) -> int:
    """Which of these kinds of messages the rule can fit, a bit for each (see `decide`):

    no replies, replies that were asked for, and that were not; the same, overheard.
    """
    if rule.broadcast or rule.type not in (0, *_REPLIES):
        replies = 0b001  # as nobody else sends replies
    else:
        if rule.allow:
            unrequested = not rule.requested_reply or rule.eavesdrop
            replies = 0b111 if unrequested else 0b011
        else:
            replies = 0b111 if rule.requested_reply else 0b101
        if rule.type:
            replies &= 0b110
    if not rule.receiving:
        return replies
    own = rule.allow or not rule.eavesdrop
    overheard = rule.eavesdrop or not rule.allow
    return (replies if own else 0) | (replies << 3 if overheard else 0)


class _Ranges:
    """Rules that differ in their range of descriptors only: those that no other's contains."""

    __slots__ = ("_lows", "_rules")

    def __init__(self) -> None:
        # Both by ascending min_fds, and so by ascending max_fds.
        self._lows: list[int] = []
        self._rules: list[MessageRule] = []

    def covering(self, rule: MessageRule) -> MessageRule | None:
        place = bisect_right(self._lows, rule.min_fds)
        if place and self._rules[place - 1].max_fds >= rule.max_fds:
            return self._rules[place - 1]
        return None

    def add(self, rule: MessageRule) -> None:
        if self.covering(rule) is not None:
            return
        place = bisect_right(self._lows, rule.min_fds)
        start = place
        if start and self._lows[start - 1] == rule.min_fds:
            start -= 1
        end = start
        while end < len(self._rules) and self._rules[end].max_fds <= rule.max_fds:
            end += 1
        self._lows[start:end] = [rule.min_fds]
        self._rules[start:end] = [rule]
