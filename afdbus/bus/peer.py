"""One connection, as the bus sees it: who it is, what it owns, asked for and is owed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from afdbus.bus.overflow import may_go_on
from afdbus.bus.plan import Plans
from afdbus.wire.message import destination_field

if TYPE_CHECKING:
    from afdbus.bus.alike import Alike
    from afdbus.bus.bus import Bus
    from afdbus.bus.match import MatchRule
    from afdbus.bus.outbox import Outbox
    from afdbus.bus.ports import Port
    from afdbus.identity import Identity
    from afdbus.policy.ruleset import PeerPolicy

# From so many rules on it is cheaper to make all plans for broadcasts void than those they concern.
_MANY_RULES = 256

# Up to so many names a list is quicker than looking them up.
_FEW_NAMES = 8

# For who has sent no reply yet.
NO_PLANS = Plans()

# Serial of a call that is not answered -> when it times out, or None.
Calls = dict[int, float | None]


class _AllNames(Collection[str]):
    """The names of a peer that has many, which are not copied for each question (P9)."""

    __slots__ = ("_peer",)

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __len__(self) -> int:
        return len(self._peer.names) + 1

    def __iter__(self) -> Iterator[str]:
        yield self._peer.name
        yield from self._peer.names

    def __contains__(self, name: object) -> bool:
        return name == self._peer.name or name in self._peer.names


class Peer:
    """A connected client.

    `name` is its unique name, empty before Hello.  `names` are the well-known names it owns or
    queues for, in the order of asking.  `open_calls` is how many calls it made that are not
    answered; `callees` has them, and `callers` those that it owes an answer.  `version` changes
    with whatever may change a decision about a message addressed to it.  `charged` bytes and
    `charged_fds` descriptors of its messages wait in the outboxes of others; `waits_for` are those
    of them that it has overfilled.  `dropped` counts the messages that it has missed.
    """

    __slots__ = (
        "__weakref__",
        "alike",
        "alive",
        "bus",
        "callees",
        "callers",
        "can_fds",
        "charged",
        "charged_fds",
        "charged_messages",
        "destination",
        "dropped",
        "identity",
        "may_have_replies",
        "misses",
        "monitor",
        "name",
        "names",
        "open_calls",
        "outbox",
        "paused",
        "peak_charged",
        "peak_charged_fds",
        "peak_names",
        "peak_rules",
        "plans",
        "policy",
        "port",
        "replies",
        "reply_plans",
        "rule_count",
        "rules",
        "serial",
        "shared",
        "version",
        "waits_for",
    )

    def __init__(
        self,
        bus: Bus,
        identity: Identity,
        policy: PeerPolicy,
        outbox: Outbox,
        port: Port,
        can_fds: bool,
    ) -> None:
        self.bus = bus
        self.identity = identity
        self.policy = policy
        self.outbox = outbox
        outbox.peer = self
        self.port = port
        self.can_fds = can_fds
        self.alive = True
        self.monitor = False
        self.name = ""
        self.destination = b""
        self.names: dict[str, None] = {}
        self.rules: dict[MatchRule, int] = {}
        self.rule_count = 0
        self.peak_rules = 0
        self.peak_names = 0
        self.open_calls = 0
        # In order: who is answered first is not left to chance.
        self.callers: dict[Peer, Calls] | None = None
        self.callees: dict[Peer, Calls] | None = None
        self.version = 0
        self.plans = Plans()
        # Plans for calls of the bus, shared with all peers that may do the same: those without a
        # name, or those with the same policy.
        self.shared = bus.nameless
        # Replies carry a changing serial: one set of plans for each offset of it (P13).
        self.reply_plans: dict[int, Plans] | None = None
        # Those with the serial in their first field, once more, by what follows it.
        self.replies = NO_PLANS
        # How many headers were new since plans were forgotten, and what is for many of them.
        self.misses = 0
        self.alike: Alike | None = None
        # Whether policy lets the replies of the driver through; None: not asked yet.
        self.may_have_replies: bool | None = None
        self.charged = 0
        self.charged_fds = 0
        self.charged_messages = 0
        self.peak_charged = self.peak_charged_fds = 0
        self.paused = False
        self.dropped = 0
        self.waits_for: dict[Outbox, None] | None = None
        self.serial = 0

    def __repr__(self) -> str:
        return f"<Peer {self.name or '(inactive)'}>"

    def activate(self, name: str) -> None:
        """Hello: from now on the peer has a unique name."""
        self.name = name
        self.destination = destination_field(name)
        self.shared = self.bus.shared_plans(self.policy)

    @property
    def encoded_name(self) -> bytes:
        """The unique name as a body of a message."""
        return self.destination[4:]  # the field is a byte and a signature more

    def next_serial(self) -> int:
        """The serial of the next message that the bus itself sends to this peer."""
        self.serial = serial = self.serial % 0xFFFFFFFF + 1
        return serial

    def all_names(self) -> Collection[str]:
        """The unique name and all names the peer owns or queues for: what policy looks at."""
        if len(self.names) > _FEW_NAMES:
            return _AllNames(self)
        return [self.name, *self.names]

    def changed(self) -> None:
        """A decision about messages to or from this peer may be another now."""
        self.version += 1
        if not self.outbox.blocked:
            self.outbox.version = self.version
        self.forget_plans()
        if not self.rules:
            return
        versions = self.bus.versions
        if len(self.rules) > _MANY_RULES:
            # One for all: with 50,000 rules each RequestName would cost 10 ms (P9).
            versions.bump(None, None)
            return
        for rule in self.rules:
            versions.bump(rule.interface, rule.member)

    def has_to_wait(self) -> bool:
        """Whether so much that it has sent waits for others that it must not send more now."""
        limits = self.bus.limits
        return (
            self.charged >= (limits.max_incoming_bytes or 1)
            or self.charged_fds >= (limits.max_incoming_unix_fds or 1)
            or (self.waits_for is not None and not may_go_on(self))
        )

    def charge(self, count: int) -> None:
        """A message of this peer, of `count` bytes, waits for a receiver."""
        self.charged += count
        self.charged_messages += 1
        self.peak_charged = max(self.peak_charged, self.charged)

    def discharge(self, count: int) -> None:
        """The last `count` bytes of such a message were written, or never will be."""
        self.charged -= count
        self.charged_messages -= 1

    def charge_fds(self, count: int) -> None:
        self.charged_fds += count
        self.peak_charged_fds = max(self.peak_charged_fds, self.charged_fds)

    def forget_plans(self) -> None:
        if self.plans.young or self.plans.old:
            self.plans.clear()
        self.misses = 0
        self.alike = None
        self.replies = NO_PLANS
        if self.reply_plans is not None:
            for plans in self.reply_plans.values():
                plans.clear()
