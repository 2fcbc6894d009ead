"""Calls that wait for their reply.

A call is noted with its caller, as (serial, callee); who may owe whom is noted once a plan, so that
neither noting nor answering costs more than one dictionary access.  Any addressed message with a
REPLY_SERIAL takes the slot it names, whatever its type (P11.6).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from afdbus.errors import ACCESS_DENIED, LIMITS_EXCEEDED, BusError

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.peer import Peer

NO_ANSWER = "Message recipient disconnected from message bus without replying"
TIMEOUT = "Message did not receive a reply (timeout by message bus)"


def introduce(caller: Peer, callee: Peer) -> None:
    """From now on `caller` may have calls that `callee` owes an answer."""
    if callee.callers is None:
        callee.callers = {}
    callee.callers[caller] = None
    if caller.callees is None:
        caller.callees = {}
    caller.callees[callee] = None


def check(caller: Peer, callee: Peer, serial: int) -> None:
    """Whether one more call may be noted; raises BusError if not."""
    if (serial, callee) in caller.calls:
        raise BusError(
            ACCESS_DENIED,
            "Message has the same reply serial as a currently-outstanding existing method call",
        )
    limit = caller.bus.limits.max_replies_per_connection
    if len(caller.calls) >= limit:
        bus = caller.bus
        bus.journal.warning(
            f'The maximum number of pending replies for "{caller.name}" '
            f"({bus.host.describe(caller.identity)}) has been reached "
            f"(max_replies_per_connection={limit})"
        )
        raise BusError(
            LIMITS_EXCEEDED, "The maximum number of pending replies per connection has been reached"
        )


class Replies:
    """The reply_timeout of one bus; empty where it is "never", as by default."""

    __slots__ = ("_bus", "_deadlines")

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        # All wait equally long, so the order of asking is the order of the deadlines.
        self._deadlines: deque[tuple[float, Peer, tuple[int, Peer]]] = deque()

    def expect(self, caller: Peer, callee: Peer, serial: int) -> None:
        """Note a call that `check` has passed."""
        introduce(caller, callee)
        timeout = self._bus.limits.reply_timeout
        if timeout <= 0:
            caller.calls[serial, callee] = None
            return
        deadline = self._bus.clock() + timeout / 1000
        caller.calls[serial, callee] = deadline
        self._deadlines.append((deadline, caller, (serial, callee)))
        self._bus.wake_at(deadline)

    def expire(self) -> list[tuple[Peer, int]]:
        """Drop what is overdue; returns the callers with the serials of those calls."""
        now = self._bus.clock()
        overdue = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, caller, slot = self._deadlines.popleft()
            # The very deadline: the slot may have been freed and taken again since.
            if caller.calls.get(slot) is deadline:
                del caller.calls[slot]
                overdue.append((caller, slot[0]))
        if self._deadlines:
            self._bus.wake_at(self._deadlines[0][0])
        return overdue

    def forget(self, peer: Peer) -> list[tuple[Peer, int]]:
        """`peer` leaves: drop its own calls; returns who waited in vain for it, with serials."""
        peer.calls.clear()
        for callee in peer.callees or ():
            if callee.callers is not None:
                callee.callers.pop(peer, None)
        orphans = []
        for caller in peer.callers or ():
            slots = [slot for slot in caller.calls if slot[1] is peer]
            for slot in slots:
                del caller.calls[slot]
                orphans.append((caller, slot[0]))
            if caller.callees is not None:
                caller.callees.pop(peer, None)
        peer.callees = peer.callers = None
        return orphans
