"""May this message go from here to there?  Questions only: nothing is changed by asking.

The order of the checks is that of dbus-daemon's bus_context_check_security_policy: the sender's
rules, the receiver's rules, room in the receiver's queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from afdbus.errors import ACCESS_DENIED, LIMITS_EXCEEDED, BusError
from afdbus.policy.decide import Question
from afdbus.policy.written import written
from afdbus.wire.header import SIGNAL, TYPE_NAMES
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer
    from afdbus.policy.decide import Verdict

FULL = "Rejected: destination has a full message queue"


class Denial(NamedTuple):
    """Why a message does not go to a receiver."""

    error: str
    complaint: str
    verdict: Verdict | None


def question(
    message: Message, receiver: Peer | None, requested: bool, eavesdropping: bool
) -> Question:
    """The question that policy answers about `message` on its way to `receiver` (None: the bus)."""
    header = message.header
    sender = message.sender
    return Question(
        header.type,
        header.path,
        header.interface,
        header.member,
        header.error_name,
        header.destination,
        header.reply_serial != 0,
        requested,
        header.unix_fds,
        None if receiver is None else receiver.all_names(),
        None if sender is None else sender.all_names(),
        eavesdropping,
    )


def judge(
    message: Message, receiver: Peer | None, addressed: Peer | None, requested: bool
) -> Denial | None:
    """Whether `message` may go to `receiver` (None: the driver), which need not be `addressed`.

    `requested` says that it answers an open call.  Raises BusError for a message of a type unknown
    to the specification, which no policy can allow.  Where the policy is on trial its denials are
    none, but for copies for those who eavesdrop.
    """
    header = message.header
    if header.type > SIGNAL:
        raise BusError(
            ACCESS_DENIED, "Message bus will not accept messages of unknown type\n"
        )
    if message.sender is None:
        assert receiver is not None
        if receiver.name:
            overheard = receiver is not addressed and message.header.destination is not None
            verdict = _judge_own(message, receiver, overheard)
            if not verdict.allowed:
                denial = Denial(ACCESS_DENIED, "Rejected receive message", verdict)
                trial = None if overheard else receiver.bus.trial
                if trial is None:
                    return denial
                trial.let_pass(denial, message, receiver, requested)
        return _room(receiver)
    asked = question(
        message, receiver, requested, receiver is not addressed and header.destination is not None
    )
    trial = None if asked.eavesdropping else message.sender.bus.trial
    verdict = message.sender.policy.may_send(asked)
    if not verdict.allowed:
        denial = Denial(ACCESS_DENIED, "Rejected send message", verdict)
        if trial is None:
            return denial
        trial.let_pass(denial, message, receiver, requested)
    elif verdict.log:
        message.logged = True
        would = Denial(ACCESS_DENIED, "Would reject message", verdict)
        log(would, message, receiver, requested)
    if receiver is None:
        return None
    verdict = receiver.policy.may_receive(asked)
    if not verdict.allowed:
        denial = Denial(ACCESS_DENIED, "Rejected receive message", verdict)
        if trial is None:
            return denial
        trial.let_pass(denial, message, receiver, requested)
    return _room(receiver)


def _room(receiver: Peer) -> Denial | None:
    bus = receiver.bus
    if bus.overflows.drops and receiver.outbox.is_full(bus.limits):
        return Denial(LIMITS_EXCEEDED, FULL, None)
    return None


def _judge_own(message: Message, receiver: Peer, eavesdropping: bool) -> Verdict:
    """May `receiver` have this message of the driver?

    The driver's messages are of few kinds, and rules see no more of them than is in the key; all
    its replies are asked for.  So each kind is asked about once for each policy.
    """
    header = message.header
    key = (
        receiver.policy,
        header.type,
        header.interface,
        header.member,
        header.error_name,
        eavesdropping,
    )
    verdicts = receiver.bus.own_verdicts
    verdict = verdicts.get(key)
    if verdict is None:
        requested = header.reply_serial != 0 and not eavesdropping
        verdict = receiver.policy.may_receive(
            question(message, receiver, requested, eavesdropping)
        )
        verdicts[key] = verdict
    return verdict


def surely_allowed(
    receiver: Peer, type_: int, interface: str | None, member: str | None
) -> bool:
    """Whether policy is known to let such a message of the driver through to `receiver`, who has a
    name; if not, `judge` has to be asked.

    Then the bytes can be pushed without a Message to ask about: churn -20 us a connection.
    """
    bus = receiver.bus
    if bus.trial is not None:
        return False
    verdict = bus.own_verdicts.get((receiver.policy, type_, interface, member, None, False))
    return verdict is not None and verdict.allowed


def complaint(denial: Denial, message: Message, receiver: Peer | None, requested: bool) -> str:
    """The text of a denial, as dbus-daemon words it."""
    header = message.header
    sender = message.sender
    describe = (receiver or sender or message).bus.host.describe  # type: ignore[union-attr]
    if sender is None:
        who, whose = "(unset)", "(bus)"
    else:
        who, whose = sender.name, describe(sender.identity)
    whom = "bus" if receiver is None else describe(receiver.identity)
    matched = 0 if denial.verdict is None else denial.verdict.matched
    return (
        f"{denial.complaint}, {matched} matched rules; "
        f'type="{TYPE_NAMES[header.type]}", sender="{who}" ({whose}) '
        f'interface="{header.interface or "(unset)"}" member="{header.member or "(unset)"}" '
        f'error name="{header.error_name or "(unset)"}" requested_reply="{int(requested)}" '
        f'destination="{header.destination or BUS_NAME}" ({whom})'
    )


def because(verdict: Verdict) -> str:
    """What the log, and never a client, is told besides: the rule that has decided, and where it
    was written."""
    rule = verdict.rule
    if rule is None:
        return " [no rule fits]"
    return f" [{written(rule)} {rule.file}:{rule.line}]"


def log(denial: Denial, message: Message, receiver: Peer | None, requested: bool) -> str:
    """Log a denial with its reason; returns its text, which has none."""
    text = complaint(denial, message, receiver, requested)
    verdict = denial.verdict
    peer = message.sender or receiver
    assert peer is not None
    peer.bus.journal.security(text if verdict is None else text + because(verdict))
    return text
