"""Turns what was decided about one message into a plan for the next with the same header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus import plan as plans
from afdbus.bus.alike import MANY, Alike
from afdbus.bus.driver.table import ABOUT_NAMES, FIRST
from afdbus.bus.judge import question
from afdbus.bus.plan import CASTS, Kind, Plan, Plans, packer
from afdbus.bus.replies import introduce
from afdbus.wire.checker import checker
from afdbus.wire.header import ERROR, FIXED, METHOD_CALL, METHOD_RETURN, NO_REPLY_EXPECTED

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.cell import Cell
    from afdbus.bus.driver.table import Method
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer

# Replies put REPLY_SERIAL at few different offsets; a client that plays with them gets no plans.
_MAX_OFFSETS = 8


def may_plan(bus: Bus, message: Message, header_size: int) -> bool:
    """Whether a plan may stand for messages with this header at all.

    Not for headers larger than worth keeping (P8), descriptors, what policy wants logged each time,
    and not while anybody watches (P15): watched traffic takes the layered way.
    """
    header = message.header
    return (
        header_size <= plans.MAX_HEADER
        and len(header.path or "") <= plans.MAX_VALUE
        and not header.unix_fds
        and not message.logged
        and not bus.watched
        and not bus.eavesdropping
    )


def _plan(kind: Kind, message: Message) -> Plan:
    header = message.header
    check = checker(header.signature, header.little) if header.signature else None
    word = int.from_bytes(message.head[:4], "little")
    plan = Plan(kind, word, header, check)
    plan.rest = message.head[12:]
    return plan


def plan_unicast(message: Message, receiver: Peer) -> Plan | None:
    """A plan for messages like this one, which was delivered to `receiver`."""
    header = message.header
    sender = message.sender
    assert sender is not None
    if header.reply_serial:
        return _plan_reply(message, sender, receiver)
    if header.type == METHOD_CALL and not header.flags & NO_REPLY_EXPECTED:
        if sender.bus.limits.reply_timeout > 0:
            return None  # each has a deadline of its own
        plan = _plan(Kind.CALL, message)
        plan.calls = introduce(sender, receiver)
    else:
        plan = _plan(Kind.SEND, message)
    plan.receiver = receiver
    plan.version = receiver.version
    plan.box = receiver.outbox
    return plan


def _plan_reply(message: Message, sender: Peer, receiver: Peer) -> Plan | None:
    header = message.header
    # The road looks for replies by their type; a call or signal with a REPLY_SERIAL is too rare.
    if header.type not in (METHOD_RETURN, ERROR) or not header.reply_serial_at:
        return None
    plan = _plan(Kind.REPLY, message)
    plan.receiver = receiver
    plan.version = receiver.version
    plan.box = receiver.outbox
    plan.calls = introduce(receiver, sender)
    plan.serial_at = header.reply_serial_at
    # The outgoing header has the same fields but for SENDER and unknown ones, which may have stood
    # before this one.
    at = FIXED
    for field in header.fields:
        if field[0] == 5:
            at += 4
            break
        at += len(field)
    plan.rest, plan.tail = message.head[12:at], message.head[at + 4 :]
    plan.pack = packer(len(plan.rest), len(plan.tail))
    plan.when_asked = _allowed(message, receiver, True)
    plan.when_unasked = _allowed(message, receiver, False)
    return plan


def _allowed(message: Message, receiver: Peer, requested: bool) -> bool:
    sender = message.sender
    assert sender is not None
    asked = question(message, receiver, requested, False)
    send = sender.policy.may_send(asked)
    return send.allowed and not send.log and receiver.policy.may_receive(asked).allowed


def plan_broadcast(
    bus: Bus, message: Message, cells: list[Cell], receivers: list[Peer], denied: list[Peer]
) -> Plan:
    """A plan for signals like this one; `cells` have the rules that also look at arguments."""
    header = message.header
    plan = _plan(Kind.CAST, message)
    plan.casts = tuple(peer.outbox for peer in receivers)
    plan.arguments = tuple(cells)
    if header.little and header.signature.startswith("s"):
        values = [cell.first_arguments() for cell in cells]
        if None not in values:
            plan.values = tuple(one for one in values if one is not None)
    plan.decided = frozenset(receivers) | frozenset(denied)
    plan.cells = bus.versions.cells(header.interface, header.member)
    plan.stamp = bus.versions.stamp(plan.cells)
    plan.note(bus.versions.total)
    plan.weight = len(receivers) // CASTS
    return plan


def plan_driver(message: Message, method: Method) -> Plan:
    """A plan for calls of one method of the bus that this peer may call."""
    plan = _plan(Kind.DRIVER, message)
    plan.method = method
    if method.flags & ABOUT_NAMES and message.sender is not None:
        plan.answers = message.sender.bus.names.answers(method.name)
    return plan


def keep(message: Message, fields: bytes, plan: Plan) -> None:
    """File the plan under the incoming header's `fields` (from byte 12 on)."""
    sender = message.sender
    assert sender is not None
    if plan.method is not None:
        # Calls of the bus are judged alike for all peers with the same policy.
        found = sender.bus.nameless if plan.method.flags & FIRST else sender.shared
    elif _is_kept_for_all_alike(sender, message, fields, plan):
        return
    elif plan.serial_at:
        offset = plan.serial_at - 12
        plan.fields = int.from_bytes(fields[:4], "little")
        if sender.reply_plans is None:
            sender.reply_plans = {}
        offsets = sender.reply_plans
        if plan.serial_at not in offsets:
            if len(offsets) >= _MAX_OFFSETS:
                return
            offsets[plan.serial_at] = Plans()
        found = offsets[plan.serial_at]
        fields = fields[:offset] + fields[offset + 4 :]
    else:
        found = sender.plans
    present = found.young.get(fields)
    if present is not None and present.word != plan.word:
        # The same fields with another type or other flags: both are kept (P11.1).
        fields = plan.word.to_bytes(4, "little") + fields
    found.add(fields, plan)


def _is_kept_for_all_alike(sender: Peer, message: Message, fields: bytes, plan: Plan) -> bool:
    sender.misses += 1
    if sender.misses <= MANY or sender.bus.keeps_old_policies:
        return False
    if sender.alike is None:
        sender.alike = Alike(sender)
    return sender.alike.learn(message, fields, plan)
