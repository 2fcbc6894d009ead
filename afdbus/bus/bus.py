"""One bus: everything that belongs to one bound name hangs from here, and nothing is global."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from afdbus.bus import delivery
from afdbus.bus.activation import Activations
from afdbus.bus.driver.interfaces import INTERFACES
from afdbus.bus.matchindex import MatchIndex
from afdbus.bus.names import Names
from afdbus.bus.overflow import DROP_IN, FullReceiver, Overflows
from afdbus.bus.plan import Plans
from afdbus.bus.replies import TIMEOUT, Replies
from afdbus.bus.versions import Versions
from afdbus.errors import NO_REPLY, BusError
from afdbus.wire.framing import LONG

if TYPE_CHECKING:
    from afdbus.bus.match import MatchRule
    from afdbus.bus.outbox import Batch
    from afdbus.bus.peer import Peer
    from afdbus.bus.ports import BusKeeper, Clock, Host, Journal, Launcher, Services, Tap
    from afdbus.bus.trial import Trial
    from afdbus.identity import Identity
    from afdbus.limits import Limits
    from afdbus.policy.decide import Verdict
    from afdbus.policy.ruleset import PeerPolicy, Ruleset

# After :1.4294967295 unique names go on with :2.0 (dbus-daemon at INT_MAX).
_MAX_MINOR = 2**31 - 1


class Bus:
    """The state of one bus.

    `guid` is the bus's id (GetId).  `own_uid` is the daemon's.  `touched` is the loop's batch of
    outboxes that have something to be written.  `wake_at` is called with a time of `clock` at which
    `expire` is to be called.  `systemd_activation`: services that are units are started by systemd.
    `strict`: a bug is raised and not only logged.
    """

    def __init__(
        self,
        *,
        guid: str,
        limits: Limits,
        ruleset: Ruleset,
        own_uid: int,
        clock: Clock,
        journal: Journal,
        host: Host,
        services: Services,
        launcher: Launcher,
        touched: Batch,
        wake_at: Callable[[float], None],
        type_: str | None = None,
        full_receiver: FullReceiver = DROP_IN,
        systemd_activation: bool = False,
    ) -> None:
        self.guid = guid
        self._limit(limits)
        self.ruleset = ruleset
        self.own_uid = own_uid
        self.clock = clock
        self.journal = journal
        self.host = host
        self.services = services
        self.launcher = launcher
        self.wake_at = wake_at
        self.type = type_
        self.systemd_activation = systemd_activation
        self.interfaces = INTERFACES
        # Where buses are made and closed while the process runs.
        self.keeper: BusKeeper | None = None
        self.strict = bool(os.environ.get("AFDBUS_STRICT"))

        self.peers: dict[str, Peer] = {}
        self.users: dict[int, int] = {}
        self.incomplete = 0
        self.names = Names()
        self.rules = MatchIndex()
        # Rules with eavesdrop='true', once more, and the monitors' rules.
        self.eavesdropping = MatchIndex()
        self.monitor_rules = MatchIndex()
        self.monitors: dict[Peer, list[MatchRule]] = {}
        # Whoever made the bus may be shown all that monitors can see, and be told whenever a name,
        # unique ones included, has come or gone, or a peer has become a monitor.
        self.tap: Tap | None = None
        self.on_change: Callable[[], None] = lambda: None
        # While its policy is on trial, what that denies is let pass.
        self.trial: Trial | None = None
        # Somebody sees every message: none may take the road, which shows them to nobody.
        self.watched = False
        self.replies = Replies(self)
        self.activations = Activations(self)
        self.overflows = Overflows(self, full_receiver)
        self.versions = Versions()
        self.touched = touched

        self.dropped = 0
        self.bugs = 0
        self.rule_count = 0
        self.peak_rules = 0
        self.peak_rules_per_peer = 0
        self.peak_names_per_peer = 0
        self._major, self._minor = 1, -1
        self._serial = 0
        self._stats_serial = -1
        # What UpdateActivationEnvironment has set.
        self.environment: dict[str, str] = {}
        # Plans for Hello, and for other calls of the bus by peers with the same policy: a client
        # that has just come does what all do (churn: -60 us a connection).
        self.nameless = Plans()
        self._shared: dict[PeerPolicy, Plans] = {}
        # What the policies say of the driver's own messages, of which there are few kinds (P19).
        self.own_verdicts: dict[tuple[object, ...], Verdict] = {}
        self._policies: dict[tuple[int | None, tuple[int, ...] | None], PeerPolicy] = {}
        # Whether some peer is judged by a policy that is not of `ruleset`.
        self.keeps_old_policies = False

    def _limit(self, limits: Limits) -> None:
        self.limits = limits
        # The longest message that may travel in place, in bytes.
        self.longest_in_place = min(limits.max_message_size, LONG)
        # How many of its calls may be open; 40 ns less than to ask `limits`.
        self.most_calls = limits.max_replies_per_connection

    # -- numbers -----------------------------------------------------------------------------

    def next_unique_name(self) -> str:
        """A unique name never used before on this bus (S10)."""
        self._minor += 1
        if self._minor > _MAX_MINOR:
            self._major, self._minor = self._major + 1, 0
        return f":{self._major}.{self._minor}"

    def next_serial(self) -> int:
        """The serial of the bus's next broadcast."""
        self._serial = self._serial % 0xFFFFFFFF + 1
        return self._serial

    def next_stats_serial(self) -> int:
        """Counts the answers of Debug.Stats, from 0."""
        self._stats_serial += 1
        return self._stats_serial

    def drop(self, receiver: Peer) -> None:
        """A message was not delivered since the receiver's queue is full (S32)."""
        self.dropped += 1
        receiver.dropped = count = receiver.dropped + 1
        if not count & count - 1:
            # At 1, 2, 4, 8: the log must not be filled by whoever does not read.
            self.journal.warning(
                f"Connection {receiver.name} ({self.host.describe(receiver.identity)}) has missed "
                f"{count} messages since its queue is full"
            )

    # -- policy ------------------------------------------------------------------------------

    def policy_for(self, identity: Identity) -> PeerPolicy:
        """The rules for a peer; peers with the same uid and groups share them."""
        key = (identity.uid, identity.gids)
        policy = self._policies.get(key)
        if policy is None:
            if len(self._policies) >= 256:
                self._policies.clear()
                self._shared.clear()
                self.own_verdicts.clear()
            policy = self._policies[key] = self.ruleset.for_peer(identity)
        return policy

    def shared_plans(self, policy: PeerPolicy) -> Plans:
        """The plans that all peers with this policy share."""
        plans = self._shared.get(policy)
        if plans is None:
            plans = self._shared[policy] = Plans()
        return plans

    def configure(self, limits: Limits, ruleset: Ruleset) -> None:
        """Swap in a new configuration; live peers are judged by it from the next message on.

        A peer for whom no policy can be made, since its user is gone, keeps the old one.
        """
        # First all questions: whatever goes wrong with them leaves the old configuration whole.
        policies: dict[tuple[int | None, tuple[int, ...] | None], PeerPolicy | None] = {}
        for peer in self.peers.values():
            identity = peer.identity
            key = (identity.uid, identity.gids)
            if key not in policies:
                known = ruleset.knows(identity)
                policies[key] = ruleset.for_peer(identity) if known else None
        self._limit(limits)
        self.ruleset = ruleset
        self.keeps_old_policies = None in policies.values()
        self._policies.clear()
        self._shared.clear()
        self.own_verdicts.clear()
        for peer in self.peers.values():
            identity = peer.identity
            policy = policies[identity.uid, identity.gids]
            if policy is None:
                self.journal.warning(
                    f'Unable to reload policy for connection "{peer.name}" '
                    f"({self.host.describe(identity)}), keeping current policy: "
                    f"the groups of uid {identity.uid} are unknown"
                )
            else:
                peer.policy = policy
            peer.shared = self.shared_plans(peer.policy)
            peer.may_have_replies = None
            self.relieve(peer)
        self.forget_plans()

    # -- rules -------------------------------------------------------------------------------

    def add_rule(self, peer: Peer, rule: MatchRule) -> None:
        """AddMatch."""
        count = peer.rules.get(rule, 0)
        peer.rules[rule] = count + 1
        peer.rule_count += 1
        peer.peak_rules = max(peer.peak_rules, peer.rule_count)
        self.rule_count += 1
        self.peak_rules = max(self.peak_rules, self.rule_count)
        self.peak_rules_per_peer = max(self.peak_rules_per_peer, peer.rule_count)
        if not count:
            self._index(peer, rule, MatchIndex.add)

    def remove_rule(self, peer: Peer, rule: MatchRule) -> bool:
        """RemoveMatch: one of the equal rules goes; whether there was one."""
        count = peer.rules.get(rule, 0)
        if not count:
            return False
        peer.rule_count -= 1
        self.rule_count -= 1
        if count > 1:
            peer.rules[rule] = count - 1
        else:
            del peer.rules[rule]
            self._index(peer, rule, MatchIndex.remove)
        return True

    def remove_rules(self, peer: Peer) -> None:
        """All rules of a peer go."""
        self.rule_count -= peer.rule_count
        peer.rule_count = 0
        for rule in peer.rules:
            self._index(peer, rule, MatchIndex.remove)
        peer.rules.clear()

    def _index(
        self, peer: Peer, rule: MatchRule, deed: Callable[[MatchIndex, Peer, MatchRule], None]
    ) -> None:
        if rule.eavesdrop:
            # While anybody eavesdrops there are no plans, so only the first makes a difference.
            if not self.eavesdropping:
                self.forget_plans()
            deed(self.eavesdropping, peer, rule)
        if rule.destination is not None:
            return  # fits no broadcast, and unicasts only to eavesdrop
        deed(self.rules, peer, rule)
        sender = None if rule.sender is None else self.names.owners.get(rule.sender)
        if rule.sender is None:
            self.versions.bump(rule.interface, rule.member)
        elif sender is not None:
            sender.forget_plans()

    def add_monitor(self, peer: Peer, rules: list[MatchRule]) -> None:
        rules = list(dict.fromkeys(rules))
        self.monitors[peer] = rules
        for rule in rules:
            self.monitor_rules.add(peer, rule)
        self.watched = True
        self.forget_plans()
        self.on_change()

    def remove_monitor(self, peer: Peer) -> None:
        for rule in self.monitors.pop(peer, ()):
            self.monitor_rules.remove(peer, rule)
        self.watched = bool(self.monitors) or self.tap is not None

    def watch(self, tap: Tap) -> None:
        """Show `tap` every message that a monitor without rules would see."""
        self.tap = tap
        self.watched = True
        self.forget_plans()

    def forget_plans(self) -> None:
        """Every decision may be another now."""
        for peer in self.peers.values():
            peer.forget_plans()
            peer.shared.clear()  # which need not be one of these any more
        for plans in (self.nameless, *self._shared.values()):
            plans.clear()

    # -- time and accounts -------------------------------------------------------------------

    def expire(self) -> None:
        """Answer the calls whose reply_timeout is over, and those for a name that does not come."""
        self.activations.expire()
        self.overflows.expire()
        for caller, serial in self.replies.expire():
            delivery.send_error(self, caller, serial, BusError(NO_REPLY, TIMEOUT))

    def relieve(self, sender: Peer) -> None:
        """Some of a paused sender's messages were delivered or dropped: may it go on?"""
        if sender.paused and not sender.has_to_wait():
            sender.paused = False
            if sender.alive:
                sender.port.resume()

    def bug(self, what: str) -> None:
        """Log and count the exception being handled, which is a bug of ours; the bus lives (P5)."""
        self.bugs += 1
        self.journal.warning(f"bug in {what}:\n{traceback.format_exc()}")
