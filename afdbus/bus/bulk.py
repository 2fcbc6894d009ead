"""The road's side track: for long messages, whose bodies are never copied, and for those that must
be counted as their receiver has a backlog.  They go by their plan, too.

Where a long body is checked in steps (P1) other messages travel in between, so that the plan is
looked for again when the frame is delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus.finding import find
from afdbus.bus.message import SEPARATE
from afdbus.bus.plan import Kind
from afdbus.errors import ProtocolViolation
from afdbus.wire.header import parse

if TYPE_CHECKING:
    from afdbus.bus.outbox import Outbox
    from afdbus.bus.peer import Peer
    from afdbus.bus.plan import Plan


Frame = bytes | bytearray


def _plan(peer: Peer, frame: Frame, head: int) -> Plan | None:
    start = bytes(frame[:head])
    return find(peer, start, 0, head, int.from_bytes(start[:4], "little"))


def signature(peer: Peer, frame: Frame, head: int) -> tuple[str, bool]:
    """The signature of the frame's body, and whether it is little-endian.

    Raises ProtocolViolation if the header is invalid.
    """
    plan = _plan(peer, frame, head)
    header = parse(frame, 0, head) if plan is None else plan.header
    return header.signature, header.little


def travel(plan: Plan, peer: Peer, frame: bytes, head: int) -> bool:
    """Check the body of a frame and bring it on its way as the plan says; false if it may not.

    Raises ProtocolViolation.
    """
    if plan.check is None or len(frame) > peer.bus.limits.max_message_size:
        return False
    if not plan.check(frame, head, len(frame)):
        raise ProtocolViolation("a body that does not fit its signature")
    return deliver_by(plan, peer, frame, head)


def deliver(peer: Peer, frame: Frame, head: int) -> bool:
    """Bring a frame with a valid body on its way, if a plan says how; whether it does."""
    plan = _plan(peer, frame, head)
    return plan is not None and deliver_by(plan, peer, frame, head)


def deliver_by(plan: Plan, peer: Peer, frame: Frame, head: int) -> bool:
    """Do what the plan says, if it holds: the checks of a hit, as on the road."""
    limits = peer.bus.limits
    receiver = plan.receiver
    box = plan.box
    order = "little" if plan.header.little else "big"
    serial = int.from_bytes(frame[8:12], order)  # type: ignore[arg-type]
    if receiver is None or box is None or not serial or plan.version != receiver.version:
        return False
    if box.blocked and not box.takes_more(limits):
        return False
    out = bytes(frame[:12]) + plan.rest
    if plan.kind == Kind.CALL:
        if serial in plan.calls or peer.open_calls >= limits.max_replies_per_connection:
            return False
        plan.calls[serial] = None
        peer.open_calls += 1
    elif plan.kind == Kind.REPLY:
        raw = bytes(frame[plan.serial_at : plan.serial_at + 4])
        answered = int.from_bytes(raw, order)  # type: ignore[arg-type]
        asked = answered in plan.calls
        if not answered or not (plan.when_asked if asked else plan.when_unasked):
            return False
        if asked:
            del plan.calls[answered]
            receiver.open_calls -= 1
        out += raw + plan.tail
    elif plan.kind != Kind.SEND:
        return False
    _push(box, out, memoryview(frame)[head:], peer)
    return True


def _push(box: Outbox, head: bytes, body: memoryview, sender: Peer) -> None:
    if len(body) <= SEPARATE:
        # A view and the frame behind it would cost three times what the sender is charged for.
        box.push(head + body)
    else:
        box.push(head)
        box.push(body)
    if box.blocked:
        box.charge(len(head) + len(body), sender)
