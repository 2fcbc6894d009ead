"""Calls that wait for their reply.

A call is noted with its caller, as (serial, callee); who may owe whom is noted once a plan, so that
neither noting nor answering costs more than one dictionary access.  Any addressed message with a
REPLY_SERIAL takes the slot it names, whatever its type (P11.6).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from afdbus.errors import ACCESS_DENIED, LIMITS_EXCEEDED, BusError

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.peer import Peer

NO_ANSWER = "Message recipient disconnected from message bus without replying"
# Deadlines kept before the answered calls among them are looked for.
_COMPACT = 1024

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


def _is_open(entry: tuple[float, int, Peer, tuple[int, Peer]]) -> bool:
    """Whether this very call is not answered: the slot may have been freed and taken again."""
    deadline, _, caller, slot = entry
    return caller.calls.get(slot) is deadline


class Replies:
    """The reply_timeout of one bus; empty where it is "never", as by default."""

    __slots__ = ("_bus", "_compact_at", "_count", "_deadlines", "_wake_at")

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        # A heap; the count keeps peers from being compared.
        self._deadlines: list[tuple[float, int, Peer, tuple[int, Peer]]] = []
        self._count = 0
        self._compact_at = _COMPACT
        self._wake_at = inf

    def expect(self, caller: Peer, callee: Peer, serial: int) -> None:
        """Note a call that `check` has passed."""
        introduce(caller, callee)
        timeout = self._bus.limits.reply_timeout
        if timeout <= 0:
            caller.calls[serial, callee] = None
            return
        deadline = self._bus.clock() + timeout / 1000
        caller.calls[serial, callee] = deadline
        self._count += 1
        heappush(self._deadlines, (deadline, self._count, caller, (serial, callee)))
        if len(self._deadlines) > self._compact_at:
            self._compact()
        self._wake()

    def expire(self) -> list[tuple[Peer, int]]:
        """Drop what is overdue; returns the callers with the serials of those calls."""
        self._wake_at = inf
        now = self._bus.clock()
        overdue = []
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heappop(self._deadlines)
            if _is_open(entry):
                _, _, caller, slot = entry
                del caller.calls[slot]
                overdue.append((caller, slot[0]))
        self._wake()
        return overdue

    def _wake(self) -> None:
        """Ask to be called when the first deadline is over, once."""
        if self._deadlines and self._deadlines[0][0] < self._wake_at:
            self._wake_at = self._deadlines[0][0]
            self._bus.wake_at(self._wake_at)

    def _compact(self) -> None:
        """Forget answered calls, as many as there are open ones at the most (P17)."""
        self._deadlines = [entry for entry in self._deadlines if _is_open(entry)]
        heapify(self._deadlines)
        self._compact_at = max(_COMPACT, 2 * len(self._deadlines))

    def forget(self, peer: Peer) -> list[tuple[Peer, int]]:
        """`peer` leaves: drop its own calls; returns who waited in vain for it, with serials.

        The latest call comes first, as there.
        """
        peer.calls.clear()
        for callee in peer.callees or ():
            if callee.callers is not None:
                callee.callers.pop(peer, None)
        orphans = []
        for caller in reversed(peer.callers or {}):
            slots = [slot for slot in reversed(caller.calls) if slot[1] is peer]
            for slot in slots:
                del caller.calls[slot]
                orphans.append((caller, slot[0]))
            if caller.callees is not None:
                caller.callees.pop(peer, None)
        peer.callees = peer.callers = None
        return orphans
