"""Calls that wait for their reply.

The calls of one peer to another are noted together, by serial.  A plan knows where, so that to note
or to answer one costs no more than one dictionary access; and when somebody leaves, only his calls
are looked at.  Any addressed message with a REPLY_SERIAL takes the slot it names, whatever its type
(P11.6).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from afdbus.errors import ACCESS_DENIED, LIMITS_EXCEEDED, BusError

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.peer import Calls, Peer

NO_ANSWER = "Message recipient disconnected from message bus without replying"
# Deadlines kept before the answered calls among them are looked for.
_COMPACT = 1024

TIMEOUT = "Message did not receive a reply (timeout by message bus)"


def introduce(caller: Peer, callee: Peer) -> Calls:
    """Where the calls of `caller` are noted that `callee` owes an answer."""
    calls = between(caller, callee)
    if calls is None:
        calls = {}
        if callee.callers is None:
            callee.callers = {}
        callee.callers[caller] = calls
        if caller.callees is None:
            caller.callees = {}
        caller.callees[callee] = calls
    return calls


def between(caller: Peer, callee: Peer) -> Calls | None:
    """The same, if there ever was one."""
    return None if caller.callees is None else caller.callees.get(callee)


def take(caller: Peer, callee: Peer, serial: int) -> bool:
    """`callee` answers: whether that was awaited, as it is no more."""
    calls = between(caller, callee)
    if calls is None or serial not in calls:
        return False
    del calls[serial]
    caller.open_calls -= 1
    return True


def check(caller: Peer, callee: Peer, serial: int) -> None:
    """Whether one more call may be noted; raises BusError if not."""
    if serial in (between(caller, callee) or ()):
        raise BusError(
            ACCESS_DENIED,
            "Message has the same reply serial as a currently-outstanding existing method call",
        )
    limit = caller.bus.limits.max_replies_per_connection
    if caller.open_calls >= limit:
        bus = caller.bus
        bus.journal.warning(
            f'The maximum number of pending replies for "{caller.name}" '
            f"({bus.host.describe(caller.identity)}) has been reached "
            f"(max_replies_per_connection={limit})"
        )
        raise BusError(
            LIMITS_EXCEEDED, "The maximum number of pending replies per connection has been reached"
        )


def _is_open(entry: tuple[float, int, Peer, Calls, int]) -> bool:
    """Whether this very call is not answered: the slot may have been freed and taken again."""
    deadline, _, _, calls, serial = entry
    return calls.get(serial) is deadline


class Replies:
    """The reply_timeout of one bus; empty where it is "never", as by default."""

    __slots__ = ("_bus", "_compact_at", "_count", "_deadlines", "_wake_at")

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        # A heap; the count keeps peers from being compared.
        self._deadlines: list[tuple[float, int, Peer, Calls, int]] = []
        self._count = 0
        self._compact_at = _COMPACT
        self._wake_at = inf

    def expect(self, caller: Peer, callee: Peer, serial: int) -> None:
        """Note a call that `check` has passed."""
        calls = introduce(caller, callee)
        caller.open_calls += 1
        timeout = self._bus.limits.reply_timeout
        if timeout <= 0:
            calls[serial] = None
            return
        deadline = calls[serial] = self._bus.clock() + timeout / 1000
        self._count += 1
        heappush(self._deadlines, (deadline, self._count, caller, calls, serial))
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
                _, _, caller, calls, serial = entry
                del calls[serial]
                caller.open_calls -= 1
                overdue.append((caller, serial))
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

    def give_up(self, caller: Peer) -> None:
        """Drop the calls of a peer: nobody owes it an answer."""
        for calls in (caller.callees or {}).values():
            calls.clear()
        caller.open_calls = 0

    def forget(self, peer: Peer) -> list[tuple[Peer, int]]:
        """`peer` leaves: drop its own calls; returns who waited in vain for it, with serials.

        The latest call comes first, as there.
        """
        self.give_up(peer)
        for callee in peer.callees or ():
            if callee.callers is not None:
                callee.callers.pop(peer, None)
        orphans = []
        for caller, calls in reversed((peer.callers or {}).items()):
            orphans += [(caller, serial) for serial in reversed(calls)]
            caller.open_calls -= len(calls)
            calls.clear()
            if caller.callees is not None:
                caller.callees.pop(peer, None)
        peer.callees = peer.callers = None
        return orphans
