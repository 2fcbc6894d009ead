"""Finds the plan for a header that the road does not find at its first try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus.peer import NO_PLANS
from afdbus.bus.plan import Plans

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.bus.plan import Plan

# Where the serial of a reply lies if its field is the first.
FIRST_FIELD = 20


def find(peer: Peer, data: bytes, pos: int, body: int, word: int) -> Plan | None:
    """Look for a plan everywhere: among those for headers that are alike, in the old generation,
    under the key that tells types and flags apart, among those that peers share, and for a reply
    with its serial at any offset."""
    if peer.alike is not None:
        plan = peer.alike.find(data, pos, body, word)
        if plan is not None:
            return plan
    if word & 0xFE00 == 0x0200:
        return _for_reply(peer, data, pos, body, word)
    key = data[pos + 12 : body]
    told_apart = data[pos : pos + 4] + key
    plan = peer.plans.lookup(key, told_apart, word)
    if plan is None:
        plan = peer.shared.lookup(key, told_apart, word)
        if plan is not None and peer.name:
            peer.plans.add(told_apart if key in peer.plans.young else key, plan)
    return plan


def _for_reply(peer: Peer, data: bytes, pos: int, body: int, word: int) -> Plan | None:
    if peer.reply_plans is None:
        return None
    for at, plans in peer.reply_plans.items():
        key = data[pos + 12 : pos + at] + data[pos + at + 4 : body]
        plan = plans.lookup(key, data[pos : pos + 4] + key, word)
        if plan is not None:
            if at == FIRST_FIELD:
                if peer.replies is NO_PLANS:
                    peer.replies = Plans()
                peer.replies.add(data[pos + FIRST_FIELD + 4 : body], plan)
            return plan
    return None
