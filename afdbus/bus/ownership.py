"""Tells the world who owns a name now: NameLost, NameOwnerChanged, NameAcquired, in that order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus import delivery
from afdbus.bus import message as messages
from afdbus.bus.judge import surely_allowed
from afdbus.wire.encode import encode_text
from afdbus.wire.header import SIGNAL
from afdbus.wire.message import BUS_INTERFACE, signal

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.names import NameChange
    from afdbus.bus.peer import Peer


def announce(bus: Bus, change: NameChange) -> None:
    """Send the signals of one change, and to a new owner what was held for it.

    Decisions that hung on it are void from now on.
    """
    name, old, new = change
    if old is not None and old.alive:  # else all that hung on it is void already
        old.changed()
    if new is not None:
        new.changed()
    # Who is leaving hears nothing more, but monitors see that it was told.
    if old is not None and (old.alive or bus.watched):
        _tell(bus, old, "NameLost", name)
    delivery.broadcast_own(
        bus,
        BUS_INTERFACE,
        "NameOwnerChanged",
        "sss",
        (name, "" if old is None else old.name, "" if new is None else new.name),
    )
    bus.on_change()
    if new is not None:
        bus.activations.answer(name)
        _tell(bus, new, "NameAcquired", name)
        bus.activations.deliver(name, new)


def _tell(bus: Bus, peer: Peer, member: str, name: str) -> None:
    body = encode_text(name)
    serial = peer.next_serial()
    box = peer.outbox
    if (
        bus.watched
        or box.blocked
        or box.fds
        or not surely_allowed(peer, SIGNAL, BUS_INTERFACE, member)
    ):
        message = messages.own_signal(serial, peer, BUS_INTERFACE, member, "s", body)
        delivery.send_own(bus, message, peer)
    else:
        # The same without a Message.
        box.push(signal(serial, peer.destination, BUS_INTERFACE, member, "s", body))
