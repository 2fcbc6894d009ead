"""The standard interfaces of the driver's object: Peer, Introspectable, Properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from afdbus.bus.driver.table import Answer, Interface, introspection
from afdbus.errors import PROPERTY_READ_ONLY, UNKNOWN_INTERFACE, UNKNOWN_PROPERTY, BusError
from afdbus.wire.encode import encode

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.driver.table import Property
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header


def features(bus: Bus) -> list[str]:
    """The property Features: what a client can rely on beyond the basic specification."""
    found = ["ActivatableServicesChanged", "HeaderFiltering"]
    if bus.systemd_activation:
        found.append("SystemdActivation")
    return found


def interfaces(bus: Bus) -> list[str]:
    """The property Interfaces: the interfaces that a client cannot take for granted."""
    return [interface.name for interface in bus.interfaces if interface.listed]


def _interface(bus: Bus, name: str) -> Interface:
    for interface in bus.interfaces:
        if interface.name == name:
            return interface
    raise BusError(UNKNOWN_INTERFACE, f'Interface "{name}" not found')


def _property(bus: Bus, interface: str, name: str) -> Property:
    for found in _interface(bus, interface).properties:
        if found.name == name:
            return found
    raise BusError(UNKNOWN_PROPERTY, f'Property "{interface}.{name}" not found')


def get(peer: Peer, header: Header, interface: str, name: str) -> Answer:
    found = _property(peer.bus, interface, name)
    return encode("v", (found.type, found.getter(peer.bus)))


def get_all(peer: Peer, header: Header, interface: str) -> Answer:
    return encode(
        "a{sv}",
        {
            found.name: (found.type, found.getter(peer.bus))
            for found in _interface(peer.bus, interface).properties
        },
    )


def set_(peer: Peer, header: Header, interface: str, name: str, value: Any) -> Answer:
    _property(peer.bus, interface, name)
    raise BusError(PROPERTY_READ_ONLY, f"Property '{interface}.{name}' cannot be set")


def introspect(peer: Peer, header: Header) -> Answer:
    return encode("s", introspection(peer.bus.interfaces, header.path or ""))


def get_machine_id(peer: Peer, header: Header) -> Answer:
    return encode("s", peer.bus.host.machine_id())


def ping(peer: Peer, header: Header) -> Answer:
    return b""
