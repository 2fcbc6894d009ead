"""The straight road: from the bytes of one read to the outboxes of the receivers.

One function on purpose: as five layers it costs 0.8 us a message instead of 0.5.  A message
whose header was seen before finds its plan and is done; whatever is rare - a header never seen, a
byte order or size of its own, a full receiver, a refusal - leaves by `one`, the layered way through
router and delivery, which does the same in full.  A test drives both with the same traffic and
compares every outbox.

What a header cannot know is checked on each hit (P11): serial, body, open calls and replies, room.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from afdbus.bus import bulk, delivery, router
from afdbus.bus.cast import FEW, at_once, burst, is_named
from afdbus.bus.driver import calls
from afdbus.bus.finding import find
from afdbus.bus.message import Message, incoming
from afdbus.bus.plan import CASTS, Kind
from afdbus.bus.planning import keep
from afdbus.errors import ProtocolViolation
from afdbus.wire.check import check_body
from afdbus.wire.checker import checker
from afdbus.wire.decode import string_arguments
from afdbus.wire.fds import Fds
from afdbus.wire.header import FIXED, frame_length, parse

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.bus.plan import Plan

# The fixed part of a header and eight bytes of its fields, of which every message has as many.
_unpack = Struct("<IIIIII").unpack_from
_LEAST = 24
_word_at = Struct("<I").unpack_from
# The code, signature and padding of REPLY_SERIAL, if it is the first field.
_SERIAL_FIRST = int.from_bytes(b"\5\1u\0", "little")

# Plain numbers: comparing with a member of an IntEnum costs twice as much.
_CALL, _SEND, _CAST, _REPLY, _DRIVER = map(int, Kind)

# How many messages of one turn may take the layered way or call the bus: some 10 us each, unless
# there are 50,000 names to list or 10,000 receivers; so for how long, in seconds, as well (P4).
# A ping waits for two such turns at the most.  With 1 ms the p99 of one beside a flood of AddMatch
# is 3.1 ms, with 0.3 ms 0.8, dbus-daemon 2.3; that costs who floods some 6 % of what it gets done.
TURN = 100
TURN_TIME = 0.0003


def travel(peer: Peer, data: bytes) -> int:
    """Bring every whole message in `data` on its way.

    Returns the position of what is left; its complement (`~`), a negative number, if whole messages
    may be left since the turn is over.  Raises ProtocolViolation; what went before it in `data` is
    done.
    """
    bus = peer.bus
    touched = bus.touched
    young = peer.plans.young
    before: Plan | None = None
    turn = TURN
    until = 0.0
    pos = 0
    end = len(data)
    last = end - _LEAST
    while pos <= last:
        word, size, serial, fields, first, answered = _unpack(data, pos)
        body = pos + FIXED + (fields + 7 & ~7)
        after = body + size
        if after > end:
            plan: Plan | None = None
        elif word & 0xFE00 != 0x0200:
            plan = young.get(data[pos + 12 : body])
        elif first == _SERIAL_FIRST:
            # Half of all replies: 0.26 us less than to look through the offsets.
            plan = peer.replies.young.get(data[pos + _LEAST : body])
            if plan is not None and plan.fields != fields:
                plan = None
        else:
            plan = None
        if plan is None or plan.word != word:
            before = None
            plan = None if after > end else find(peer, data, pos, body, word)
            young = peer.plans.young
            if plan is not None and plan.serial_at:
                (answered,) = _word_at(data, pos + plan.serial_at)
        if plan is None or not serial:
            done = one(peer, data, pos)
            if done == pos:
                break
            pos = done
        elif size and after - pos > bus.longest_in_place:
            if bulk.travel(plan, peer, data[pos:after], body - pos):
                pos = after
                continue
            pos = one(peer, data, pos)
        else:
            check = plan.check
            if check is None:
                if size:
                    raise ProtocolViolation("a body without a signature")
            elif not check(data, body, after):
                raise ProtocolViolation("a body that does not fit its signature")
            kind = plan.kind
            if kind == _CALL:
                box = plan.box
                made = plan.calls
                if (
                    plan.version == box.version  # type: ignore[union-attr]
                    and serial not in made
                    and peer.open_calls < bus.most_calls
                ):
                    made[serial] = None
                    peer.open_calls += 1
                    piece = data[pos : pos + 12] + plan.rest
                    if size:
                        piece += data[body:after]
                    if box.piece is None:  # type: ignore[union-attr]
                        box.piece = piece  # type: ignore[union-attr]
                        touched.append(box)  # type: ignore[arg-type]
                    else:
                        box.more.append(piece)  # type: ignore[union-attr]
                    pos = after
                    continue
            elif kind == _REPLY:
                box = plan.box
                made = plan.calls
                asked = answered in made
                if plan.version == box.version and (  # type: ignore[union-attr]
                    plan.when_asked if asked else plan.when_unasked and answered
                ):
                    if asked:
                        del made[answered]
                        plan.receiver.open_calls -= 1  # type: ignore[union-attr]
                    # In one go: 0.15 us less than to put slices together.
                    piece = plan.pack(word, size, serial, plan.rest, answered, plan.tail)
                    if size:
                        piece += data[body:after]
                    if box.piece is None:  # type: ignore[union-attr]
                        box.piece = piece  # type: ignore[union-attr]
                        touched.append(box)  # type: ignore[arg-type]
                    else:
                        box.more.append(piece)  # type: ignore[union-attr]
                    pos = after
                    continue
            elif kind == _CAST:
                if plan.total == bus.versions.total or bus.versions.confirm(plan):
                    casts = plan.casts
                    whole = piece = data[pos : pos + 12] + plan.rest + data[body:after]
                    more: list[bytes] | tuple[()] = ()
                    if (
                        after <= last
                        and (plan is before or len(casts) >= FEW)
                        and (plan.values is not None or not plan.arguments)
                    ):
                        most = turn * CASTS // (len(casts) or 1)
                        more, after = burst(
                            plan, data, pos, body, after, bus.longest_in_place, most
                        )
                        if more:
                            whole = b"".join((piece, *more))
                    if after == end and not touched and len(touched.news) == 1:
                        at_once(plan, whole, piece, more, peer)
                    else:
                        for box in casts:
                            if box.blocked:
                                for one_of_them in (piece, *more):
                                    delivery.push_counted(bus, box, one_of_them, peer)
                            elif box.piece is None:
                                box.piece = whole
                                touched.append(box)
                            else:
                                box.more.append(whole)
                    if plan.arguments and (
                        plan.values is None or is_named(plan.values, data, body)
                    ):
                        _cast_by_arguments(peer, plan, data, pos, body, after, piece)
                    before = plan
                    pos = after
                    if plan.weight:
                        turn -= plan.weight * (1 + len(more))
                        if turn <= 0:
                            break
                    continue
            elif kind == _SEND:
                box = plan.box
                if plan.version == box.version:  # type: ignore[union-attr]
                    piece = data[pos : pos + 12] + plan.rest
                    if size:
                        piece += data[body:after]
                    if box.piece is None:  # type: ignore[union-attr]
                        box.piece = piece  # type: ignore[union-attr]
                        touched.append(box)  # type: ignore[arg-type]
                    else:
                        box.more.append(piece)  # type: ignore[union-attr]
                    pos = after
                    continue
            if kind == _DRIVER:
                repeated = calls.planned(peer, plan, data, body, after, serial)
                pos = after
                if repeated:
                    continue
            elif (
                plan.box is not None
                and plan.box.blocked
                and bulk.deliver_by(plan, peer, data[pos:after], body - pos)
            ):
                # It waits behind a full socket, and is counted.
                pos = after
                continue
            else:
                # The hit must not be taken: the layered way says why, and what to do instead.
                pos = one(peer, data, pos)
        if not peer.alive:
            return end
        young = peer.plans.young
        turn -= 1
        now = bus.clock()
        if not until:
            until = now + TURN_TIME
        if turn <= 0 or now >= until:
            turn = 0
            break
    else:
        return pos
    return ~pos if turn <= 0 else pos


def one(peer: Peer, data: bytes, pos: int) -> int:
    """Bring the message at `pos` on its way in full; returns where it ends, or `pos` if it is not
    whole yet.  Raises ProtocolViolation."""
    head, end = frame_length(data, pos, peer.bus.limits.max_message_size)
    if end > len(data):
        return pos
    whole(peer, data[pos:end], head - pos, checked=False)
    return end


def whole(peer: Peer, frame: bytes | bytearray, head: int, *, checked: bool) -> None:
    """Route one whole message with a header of `head` bytes; `checked`: its body is known valid."""
    bus = peer.bus
    header = parse(frame, 0, head)
    if not checked:
        if not header.signature:
            if len(frame) != head:
                raise ProtocolViolation("a body without a signature")
        elif isinstance(frame, bytes):
            if not checker(header.signature, header.little)(frame, head, len(frame)):
                raise ProtocolViolation("a body that does not fit its signature")
        else:
            check_body(header.signature, header.little, frame, head, len(frame))
    fds = None
    if header.unix_fds:
        if header.unix_fds > bus.limits.max_message_unix_fds:
            raise ProtocolViolation(f"{header.unix_fds} file descriptors")
        numbers = peer.port.take_fds(header.unix_fds)
        if numbers is None:
            raise ProtocolViolation("fewer file descriptors than the header says")
        fds = Fds(numbers)
    try:
        message = incoming(header, peer, frame, head, fds)
        plan = router.dispatch(bus, message, head)
        if plan is not None and peer.alive:
            keep(message, bytes(frame[12:head]), plan)
    finally:
        if fds is not None:
            fds.release()


def _cast_by_arguments(
    peer: Peer, plan: Plan, data: bytes, pos: int, body: int, after: int, piece: bytes
) -> None:
    """The receivers of a broadcast who have rules about its arguments, usually none."""
    header = plan.header
    highest = max([cell.highest for cell in plan.arguments])
    found = string_arguments(header.signature, header.little, data, body, after, highest)
    for cell in plan.arguments:
        if cell.may_fit(found):
            break
    else:
        return
    head = data[pos : pos + 12] + plan.rest
    serial = int.from_bytes(data[pos + 8 : pos + 12], "little")
    message = Message(header, peer, serial, head, data[body:after])
    delivery.cast_by_arguments(peer.bus, message, plan, piece)
