"""org.afdbus.Host1: buses made and closed while a daemon runs, for its own user and root (P39).

The reference has nothing like it, so it shows nowhere: not in introspection data, not in the
property Interfaces, and not to a call that names no interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus.driver.privilege import check_privileged, check_real
from afdbus.bus.driver.table import PRIVILEGED, Answer, Method
from afdbus.errors import UNKNOWN_INTERFACE, UNKNOWN_METHOD, BusError
from afdbus.wire.encode import encode
from afdbus.wire.message import BUS_NAME, BUS_PATH

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.bus.ports import BusKeeper
    from afdbus.wire.header import Header

INTERFACE = "org.afdbus.Host1"


def find(peer: Peer, header: Header) -> Method:
    """The method that a call with this interface means.

    Raises BusError: AccessDenied to all but root and the daemon's own user, if they are real.
    """
    if peer.bus.keeper is None or header.path != BUS_PATH:
        raise BusError(
            UNKNOWN_INTERFACE, f"{BUS_NAME} does not understand message {header.member}"
        )
    check_privileged(peer, header)
    check_real(peer, "make or close buses")
    for method in _METHODS:
        if method.name == header.member:
            return method
    raise BusError(UNKNOWN_METHOD, f"{BUS_NAME} does not understand message {header.member}")


def _keeper(peer: Peer) -> BusKeeper:
    keeper = peer.bus.keeper
    assert keeper is not None
    return keeper


def create_bus(peer: Peer, header: Header, name: str, config: str) -> Answer:
    return encode("s", _keeper(peer).create(name, config))


def close_bus(peer: Peer, header: Header, name: str) -> Answer:
    # It may be the very bus that is asked: it answers first.
    return b"", _keeper(peer).closing(name)


def list_buses(peer: Peer, header: Header) -> Answer:
    return encode("a(ss)", _keeper(peer).buses())


_METHODS = (
    Method("CreateBus", "ss", "s", create_bus, PRIVILEGED),
    Method("CloseBus", "s", "", close_bus, PRIVILEGED),
    Method("ListBuses", "", "a(ss)", list_buses, PRIVILEGED),
)
