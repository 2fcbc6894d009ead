"""What happens to a message whose receiver does not read: a choice of whoever makes the bus.

`drop-in` is dbus-daemon's way: an addressed message is refused, a broadcast passes the receiver by.
`disconnect` ends the receiver's connection, so that whoever lives has missed nothing.  `block`
takes the message and reads nothing more from its sender until there is room, and ends the
receiver's connection if that takes too long.  Monitors miss messages in any case (P15).
Whatever is not delivered is counted, and the log says so (S30 to S33).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.peer import Peer

Way = Literal["drop-in", "disconnect", "block"]


class FullReceiver(NamedTuple):
    """`timeout`: how many seconds a sender waits at the most where the way is `block`."""

    way: Way = "drop-in"
    timeout: float = 10.0


DROP_IN = FullReceiver()


class Overflows:
    """The full receivers of one bus.  `drops`: whether messages are refused or pass them by."""

    __slots__ = ("_bus", "_full_receiver", "_stuck", "drops")

    def __init__(self, bus: Bus, full_receiver: FullReceiver) -> None:
        self.drops = full_receiver.way == "drop-in"
        self._bus = bus
        self._full_receiver = full_receiver
        # For whom somebody waits, and until when at the most.
        self._stuck: dict[Peer, float] = {}

    def admit(self, receiver: Peer, payer: Peer | None) -> bool:
        """Whether `receiver`, who is full, gets one more message all the same.

        `payer` is who must wait for it then: its sender, or for an answer of the bus the receiver
        itself; None for what nobody can be made to wait for.
        """
        if self.drops or receiver.monitor:
            self._bus.drop(receiver)
            return False
        if self._full_receiver.way == "disconnect":
            self._cut(receiver)
            return False
        if payer is None:
            self._bus.drop(receiver)
            return False
        self._wait(receiver, payer)
        return True

    def _wait(self, receiver: Peer, payer: Peer) -> None:
        box = receiver.outbox
        if box.waiting is None:
            box.waiting = {}
            box.room = self._bus.limits
            deadline = self._bus.clock() + self._full_receiver.timeout
            self._stuck[receiver] = deadline
            self._bus.wake_at(deadline)
        box.waiting[payer] = None
        if payer.waits_for is None:
            payer.waits_for = {}
        payer.waits_for[box] = None

    def _cut(self, receiver: Peer) -> None:
        bus = self._bus
        bus.drop(receiver)
        bus.journal.warning(
            f"Connection {receiver.name} ({bus.host.describe(receiver.identity)}) does not read "
            f"and is closed: {receiver.outbox.size} bytes wait for it"
        )
        for sender in receiver.outbox.close():
            bus.relieve(sender)
        receiver.port.cut()

    def expire(self) -> None:
        """Give up receivers for whom somebody has waited too long."""
        now = self._bus.clock()
        for receiver, deadline in list(self._stuck.items()):
            if receiver.outbox.waiting is None:
                del self._stuck[receiver]
            elif deadline <= now:
                del self._stuck[receiver]
                self._cut(receiver)


def may_go_on(sender: Peer) -> bool:
    """Whether none of the receivers that `sender` waits for is full any more."""
    if sender.waits_for:
        for box in list(sender.waits_for):
            if box.waiting is None or sender not in box.waiting:
                del sender.waits_for[box]
    return not sender.waits_for
