"""What traffic would need to be allowed: rules are noted one by one and make up a whole policy.

Nobody may fill the memory, nor the share of others: each user has so many rules to cause, whoever
they are for, and what is too long is not kept.  What was left out is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from afdbus.policy.rules import MessageRule, OwnRule, Rule
from afdbus.policy.written import Holder, busconfig

MAX_USERS = 256
MAX_RULES = 1000  # that one user causes
MAX_TEXT = 255  # characters of a path; a name has no more in any case

# From so many paths on they are taken for numbers and the like, and any path is allowed.
MANY_PATHS = 8

# The first remark in each such file.
ABOUT = "What was sent, received or owned and would not have been allowed, as afdbus learned it."

MANDATORY = Holder("context", "mandatory")


class Learned:
    """Rules by the user they are for; None stands for the mandatory policy.

    `changes` counts what has become of use for `text`.
    """

    __slots__ = ("_after", "_caused", "_lost", "_rules", "_without_user", "changes")

    def __init__(self) -> None:
        self.changes = 0
        self._rules: dict[int | None, dict[Rule, None]] = {}
        # How many rules each user has caused.
        self._caused: dict[int | None, int] = {}
        # Whose further rules are missing.
        self._lost: dict[int | None, None] = {}
        self._without_user = False
        # Rules, with their places, that must be read before.
        self._after: dict[str, None] = {}

    def keep(self, holder: int | None, rules: Iterable[Rule]) -> None:
        """Add what was learned before, which is nobody's to answer for."""
        kept = self._rules.setdefault(holder, {})
        for rule in rules:
            kept[rule._replace(file="", line=0)] = None

    def note(self, holder: int | None, rule: Rule, causer: int | None, after: str = "") -> None:
        """Add a rule for `holder` that traffic of the user `causer` needs.

        `after`: a rule with its place that has to be read before this one for it to count.
        """
        known = self._rules.get(holder, {})
        wide = _without_path(rule)
        if rule in known or wide in known:
            return
        caused = self._caused.get(causer, 0)
        if (
            caused >= MAX_RULES
            or (caused == 0 and len(self._caused) >= MAX_USERS)
            or (isinstance(rule, MessageRule) and len(rule.path or "") > MAX_TEXT)
        ):
            if causer not in self._lost and len(self._lost) < MAX_USERS:
                self._lost[causer] = None
                self.changes += 1
            return
        self._caused[causer] = caused + 1
        if after and len(self._after) < MAX_RULES:
            self._after[after] = None
        known = self._rules.setdefault(holder, known)
        alike = [other for other in known if _without_path(other) == wide]
        if len(alike) >= MANY_PATHS:
            for other in alike:
                del known[other]
            rule = wide
        known[rule] = None
        self.changes += 1

    def leave_out(self) -> None:
        """Somebody without a user would need a rule, which only all could have."""
        if not self._without_user:
            self._without_user = True
            self.changes += 1

    def text(self, name_of: Callable[[int], str]) -> str:
        """All of it as a file for an `<includedir>`; `name_of` gives a user's name."""

        def holder(uid: int | None) -> Holder:
            return MANDATORY if uid is None else Holder("user", name_of(uid))

        remarks = [ABOUT]
        for uid in self._lost:
            who = "Clients without a user" if uid is None else f"User {name_of(uid)}"
            remarks.append(f"INCOMPLETE: {who} caused more than is kept; the rest is missing.")
        if self._without_user:
            remarks.append(
                "INCOMPLETE: clients without a user need rules, which would be for everybody."
            )
        remarks += [f"This must be read after {place}" for place in self._after]
        # In an order of their own, so that the same rules are the same text.
        policies = [
            (holder(uid), sorted(self._rules[uid], key=_place))
            for uid in sorted(self._rules, key=lambda uid: -1 if uid is None else uid)
            if self._rules[uid]
        ]
        return busconfig(policies, remarks)


def _without_path(rule: Rule) -> Rule:
    """The rule for any path."""
    if not isinstance(rule, MessageRule) or rule.path is None:
        return rule
    return rule._replace(path=None)


def _place(rule: Rule) -> tuple[bool, str]:
    return isinstance(rule, OwnRule), repr(rule)
