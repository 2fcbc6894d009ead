"""Tells the world who owns a name now: NameLost, NameOwnerChanged, NameAcquired, in that order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus import delivery
from afdbus.bus import message as messages
from afdbus.wire.encode import encode
from afdbus.wire.message import BUS_INTERFACE

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.names import NameChange
    from afdbus.bus.peer import Peer


def announce(bus: Bus, change: NameChange) -> None:
    """Send the signals of one change, and to a new owner what was held for it.

    Decisions that hung on it are void from now on.
    """
    for peer in (change.old, change.new):
        if peer is not None:
            peer.changed()
    old, new = change.old, change.new
    # Who is leaving hears nothing more, but monitors see that it was told.
    if old is not None and (old.alive or bus.watched):
        _tell(bus, old, "NameLost", change.name)
    delivery.broadcast_own(
        bus,
        BUS_INTERFACE,
        "NameOwnerChanged",
        "sss",
        (change.name, old.name if old else "", new.name if new else ""),
    )
    bus.on_change()
    if new is not None:
        bus.activations.answer(change.name)
        _tell(bus, new, "NameAcquired", change.name)
        bus.activations.deliver(change.name, new)


def _tell(bus: Bus, peer: Peer, member: str, name: str) -> None:
    body = encode("s", name)
    signal = messages.own_signal(peer.next_serial(), peer, BUS_INTERFACE, member, "s", body)
    delivery.send_own(bus, signal, peer)
