"""org.freedesktop.DBus.Monitoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus import lifecycle, match
from afdbus.bus.driver.table import Answer
from afdbus.errors import INVALID_ARGS, BusError

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header


def become_monitor(peer: Peer, header: Header, texts: list[str], flags: int) -> Answer:
    """The peer loses its names and rules and sees, from its answer on, what `texts` describe."""
    if flags:
        raise BusError(INVALID_ARGS, "BecomeMonitor does not support any flags yet")
    # Monitors eavesdrop, whatever their rules say; no rules is one that fits everything.
    rules = [match.parse(text)._replace(eavesdrop=True) for text in texts or [""]]
    return b"", lambda: lifecycle.become_monitor(peer.bus, peer, rules)
