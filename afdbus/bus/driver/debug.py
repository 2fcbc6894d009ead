"""org.freedesktop.DBus.Debug.Stats: only reads what the rest keeps count of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from afdbus.bus.driver.table import Answer
from afdbus.errors import INVALID_ARGS, NAME_HAS_NO_OWNER, BusError
from afdbus.wire.encode import encode
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header


def _numbers(values: dict[str, int]) -> dict[str, tuple[str, Any]]:
    return {name: ("u", min(value, 0xFFFFFFFF)) for name, value in values.items()}


def get_stats(peer: Peer, header: Header) -> Answer:
    """The standard keys; the pool of list links is the reference's own and stays empty here."""
    bus = peer.bus
    stats = {
        "Serial": bus.next_stats_serial(),
        "ListMemPoolUsedBytes": 0,
        "ListMemPoolCachedBytes": 0,
        "ListMemPoolAllocatedBytes": 0,
        "ActiveConnections": len(bus.peers),
        "IncompleteConnections": bus.incomplete,
        "MatchRules": bus.rule_count,
        "PeakMatchRules": bus.peak_rules,
        "PeakMatchRulesPerConnection": bus.peak_rules_per_peer,
        "BusNames": bus.names.places,
        "PeakBusNames": bus.names.peak,
        "PeakBusNamesPerConnection": max(bus.peak_names_per_peer, 1),
    }
    return encode("a{sv}", _numbers(stats))


def get_connection_stats(peer: Peer, header: Header, name: str) -> Answer:
    bus = peer.bus
    if name == BUS_NAME:
        raise BusError(
            INVALID_ARGS,
            "GetConnectionStats is not meaningful for the "
            f'message bus "{BUS_NAME}" itself',
        )
    other = bus.names.owners.get(name)
    if other is None:
        raise BusError(
            NAME_HAS_NO_OWNER, f"Could not get statistics of name '{name}': no such name"
        )
    box = other.outbox
    stats = _numbers(
        {
            "Serial": bus.next_stats_serial(),
            "MatchRules": other.rule_count,
            "PeakMatchRules": other.peak_rules,
            "BusNames": len(other.names) + 1,
            "PeakBusNames": other.peak_names + 1,
        }
    )
    stats["UniqueName"] = ("s", other.name)
    # Incoming is what waits for others to read it; whatever is not delayed is never counted.
    stats |= _numbers(
        {
            "IncomingMessages": other.charged_messages,
            "IncomingBytes": other.charged,
            "IncomingFDs": other.charged_fds,
            "PeakIncomingBytes": other.peak_charged,
            "PeakIncomingFDs": other.peak_charged_fds,
            "OutgoingMessages": len(box.backlog or ()) + len(box.pieces()),
            "OutgoingBytes": box.size,
            "OutgoingFDs": box.fds,
            "PeakOutgoingBytes": box.peak_size,
            "PeakOutgoingFDs": box.peak_fds,
        }
    )
    return encode("a{sv}", stats)


def get_all_match_rules(peer: Peer, header: Header) -> Answer:
    rules: dict[str, list[str]] = {}
    for name, other in peer.bus.peers.items():
        rules[name] = [str(rule) for rule, count in other.rules.items() for _ in range(count)]
    return encode("a{sas}", rules)
