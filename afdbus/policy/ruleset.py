"""Whose rules count: the buckets of a configuration and the policy of one peer.

dbus-daemon(1): all default policies, then those of the peer's groups, of its user, those for
users at or not at the console, and the mandatory ones; inside a bucket the order of reading.
Where the manual leaves the order of groups open, dbus-daemon takes them by ascending number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from afdbus.identity import Identity
from afdbus.policy.decide import MessageIndex, OwnIndex, Question, Verdict
from afdbus.policy.rules import ConnectRule, MessageRule, OwnRule, Rule


class Users(Protocol):
    """What the policy must know of the system's users."""

    def groups_of(self, uid: int) -> Sequence[int] | None:
        """The groups of a user by the user database; None when there is no such user."""

    def at_console(self, uid: int) -> bool:
        """Whether the user sits at the machine."""


_NO_ONE: Mapping[int, Sequence[Rule]] = MappingProxyType({})


class Buckets(NamedTuple):
    """The rules of a configuration, each list in the order of reading."""

    default: Sequence[Rule] = ()
    groups: Mapping[int, Sequence[Rule]] = _NO_ONE
    users: Mapping[int, Sequence[Rule]] = _NO_ONE
    at_console: Sequence[Rule] = ()
    not_at_console: Sequence[Rule] = ()
    mandatory: Sequence[Rule] = ()


class Bucket(NamedTuple):
    """The rules of one kind of `<policy>`, the values of its attribute put together.

    `attribute` and `value` as in the file, but that users and groups are numbers.
    """

    attribute: str
    value: str
    rules: Sequence[Rule]


class PeerPolicy:
    """The rules that hold for one peer (or for all that are alike to the rules)."""

    __slots__ = ("own", "receive", "send")

    def __init__(self, rules: Sequence[Rule]) -> None:
        """`rules` in their order, the last one the strongest; connect rules are passed over."""
        self.own = OwnIndex([rule for rule in rules if isinstance(rule, OwnRule)])
        messages = [rule for rule in rules if isinstance(rule, MessageRule)]
        self.send = MessageIndex([rule for rule in messages if not rule.receiving], False)
        self.receive = MessageIndex([rule for rule in messages if rule.receiving], True)

    def may_own(self, name: str) -> Verdict:
        return self.own.decide(name)

    def may_send(self, question: Question) -> Verdict:
        return self.send.decide(question)

    def may_receive(self, question: Question) -> Verdict:
        return self.receive.decide(question)


class Ruleset:
    """All the rules of a bus. Immutable but for memos of the peers' policies and of values."""

    __slots__ = ("_connect", "_memo", "_users", "_values", "buckets")

    def __init__(self, buckets: Buckets, users: Users) -> None:
        self.buckets = buckets
        self._users = users
        everybody = (*buckets.default, *buckets.mandatory)
        self._connect = tuple(rule for rule in everybody if isinstance(rule, ConnectRule))
        # At most one entry for each combination of buckets, however many peers there are.
        self._memo: dict[tuple[object, ...], PeerPolicy] = {}
        self._values: dict[str, frozenset[str]] = {}

    def for_users(self, users: Users) -> Ruleset:
        """The same rules, where the users may be in other groups now."""
        other = Ruleset(self.buckets, users)
        other._memo = self._memo
        return other

    def may_connect(self, identity: Identity, own_uid: int) -> Verdict:
        """Whether this user may connect to a bus that runs as `own_uid`.

        Groups are those of the user database, not the process's, and a user that the database
        does not know is refused whatever the rules say: so does dbus-daemon.  Whoever comes
        without a uid is not a question for the rules (see `<allow_anonymous>`) and is refused.
        Whom a test made up is in the groups that it says, and welcome where no rule is about that.
        """
        if identity.uid is None:
            return Verdict(False)
        if identity.virtual and not self._connect:
            return Verdict(True)
        groups: Sequence[int] | None = identity.gids if identity.virtual else None
        if groups is None:
            groups = self._users.groups_of(identity.uid)
        if groups is None:
            return Verdict(False)
        verdict = Verdict(identity.uid == own_uid)
        for rule in self._connect:
            if rule.number is not None:
                if rule.group:
                    if rule.number not in groups:
                        continue
                elif rule.number != identity.uid:
                    continue
            verdict = Verdict(rule.allow, verdict.matched + 1, rule)
        return verdict

    def is_user(self, uid: int) -> bool:
        """Whether the user database knows this user."""
        return self._users.groups_of(uid) is not None

    def knows(self, identity: Identity) -> bool:
        """Whether all that a peer's policy hangs on can be found out.

        It cannot where the kernel did not tell the groups of the process and the user is gone.
        """
        return (
            identity.gids is not None
            or identity.uid is None
            or not self.buckets.groups
            or self.is_user(identity.uid)
        )

    def values(self, condition: str) -> frozenset[str]:
        """The values of one condition (path, interface, member, error) in all rules of all peers:
        others are all the same to the policy."""
        values = self._values.get(condition)
        if values is None:
            b = self.buckets
            lists = (b.default, *b.groups.values(), *b.users.values(), b.at_console,
                     b.not_at_console, b.mandatory)  # fmt: skip
            rules = [rule for rules in lists for rule in rules if isinstance(rule, MessageRule)]
            found = [getattr(rule, condition) for rule in rules]
            values = self._values[condition] = frozenset(filter(None, found))
        return values

    def for_peer(self, identity: Identity) -> PeerPolicy:
        """The policy of a peer, by its uid and its process's groups."""
        buckets = self.buckets_of(identity)
        key = tuple((bucket.attribute, bucket.value) for bucket in buckets)
        policy = self._memo.get(key)
        if policy is None:
            rules = [rule for bucket in buckets for rule in bucket.rules]
            policy = self._memo[key] = PeerPolicy(rules)
        return policy

    def buckets_of(self, identity: Identity) -> list[Bucket]:
        """The rules that hold for a peer, the strongest last; what has none is left out."""
        buckets = self.buckets
        uid, gids = identity.uid, identity.gids
        if gids is None:  # no SO_PEERGROUPS: the user database has to do
            gids = () if uid is None else tuple(self._users.groups_of(uid) or ())
        found = [Bucket("context", "default", buckets.default)]
        for gid in sorted({gid for gid in gids if gid in buckets.groups}):
            found.append(Bucket("group", str(gid), buckets.groups[gid]))
        if uid is not None and uid in buckets.users:
            found.append(Bucket("user", str(uid), buckets.users[uid]))
        if uid is not None and (buckets.at_console or buckets.not_at_console):
            seated = self._users.at_console(uid)
            rules = buckets.at_console if seated else buckets.not_at_console
            found.append(Bucket("at_console", "true" if seated else "false", rules))
        found.append(Bucket("context", "mandatory", buckets.mandatory))
        return found
