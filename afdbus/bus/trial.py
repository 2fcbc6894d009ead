"""A policy on trial: what it denies is let pass and logged, and perhaps learned from.

That holds for owning, sending and receiving; not for what no policy gives: privileged methods, and
copies for those who eavesdrop, on whom nobody depends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from afdbus.bus.judge import because, log, question
from afdbus.errors import (
    ACCESS_DENIED,
    INVALID_ARGS,
    UNKNOWN_INTERFACE,
    UNKNOWN_METHOD,
    BusError,
)
from afdbus.policy.explain import remedy
from afdbus.policy.rules import OwnRule, Rule

if TYPE_CHECKING:
    from afdbus.bus.judge import Denial
    from afdbus.bus.learned import Learned
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer
    from afdbus.policy.decide import Verdict

# Answers of the bus after which it was no use that the call was let pass.
_IN_VAIN = (ACCESS_DENIED, INVALID_ARGS, UNKNOWN_INTERFACE, UNKNOWN_METHOD)


class Lesson(NamedTuple):
    """What a message needed: `rule` for the user of `holder`, against `verdict`."""

    holder: Peer
    rule: Rule
    verdict: Verdict


class Trial:
    """Lets pass what policy denies.  `learned`: where to note what would have been needed."""

    __slots__ = ("_learned", "_message", "_told")

    def __init__(self, learned: Learned | None) -> None:
        self._learned = learned
        # The last message, and the rules that would have denied it.
        self._message: Message | None = None
        self._told: set[tuple[bool, Rule | None]] = set()

    def let_pass(
        self, denial: Denial, message: Message, receiver: Peer | None, requested: bool
    ) -> None:
        """Log what would be denied, of a broadcast once for each rule and not for each receiver.

        It is learned from when it comes to something.
        """
        verdict = denial.verdict
        assert verdict is not None
        receiving = denial.complaint == "Rejected receive message"
        message.logged = True
        if message is not self._message:
            self._message = message
            self._told.clear()
        if message.header.destination is not None or (receiving, verdict.rule) not in self._told:
            self._told.add((receiving, verdict.rule))
            would = denial._replace(complaint=denial.complaint.replace("Rejected", "Would deny"))
            log(would, message, receiver, requested)
        holder = receiver if receiving else message.sender
        if self._learned is not None and holder is not None:
            asked = question(message, receiver, requested, False)
            rule = remedy(asked, receiving=receiving)
            if message.lessons is None:
                message.lessons = []
            message.lessons.append(Lesson(holder, rule, verdict))

    def let_own(self, peer: Peer, name: str, verdict: Verdict) -> None:
        """Log that `peer` has got a name that it should not."""
        peer.bus.journal.security(
            f'Would deny: connection "{peer.name}" is not allowed to own the service "{name}" due '
            f"to security policies in the configuration file{because(verdict)}"
        )
        self._learn(Lesson(peer, OwnRule(True, name), verdict), peer)

    def learn(self, message: Message) -> None:
        """`message` was delivered: it is known what for."""
        for lesson in message.lessons or ():
            # Who has sent it answers for what others have to receive.
            self._learn(lesson, message.sender or lesson.holder)
        message.lessons = None

    def learn_from_refusal(self, message: Message, refusal: BusError) -> None:
        """The bus has answered a call with an error, which may be what was asked for."""
        if refusal.name not in _IN_VAIN:
            self.learn(message)

    def _learn(self, lesson: Lesson, causer: Peer) -> None:
        if self._learned is None:
            return
        holder, rule, verdict = lesson
        uid = holder.identity.uid
        if uid is None:
            self._learned.leave_out()
            return
        after = ""
        mandatory = False
        decided = verdict.rule
        if decided is not None:
            buckets = holder.bus.ruleset.buckets
            late = (*buckets.at_console, *buckets.not_at_console, *buckets.mandatory)
            mandatory = any(decided is other for other in late)
            if mandatory or any(decided is other for other in buckets.users.get(uid, ())):
                after = because(verdict).strip(" []")
        self._learned.note(None if mandatory else uid, rule, causer.identity.uid, after)
