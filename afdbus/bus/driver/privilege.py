"""What not everybody may ask of the driver, whatever policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.errors import ACCESS_DENIED, BusError

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header


def check_privileged(peer: Peer, header: Header) -> None:
    """Raises AccessDenied unless the peer is root or the daemon's own user, and logs it."""
    uid = peer.identity.uid
    if uid is not None and uid in (0, peer.bus.own_uid):
        return
    bus = peer.bus
    text = (
        f"rejected attempt to call {header.member} by connection {peer.name or '(inactive)'} "
        f"({bus.host.describe(peer.identity)}) with "
        + ("unknown uid" if uid is None else f"uid {uid}")
    )
    bus.journal.security(text)
    raise BusError(ACCESS_DENIED, text)


def check_real(peer: Peer, deed: str) -> None:
    """Raises AccessDenied, and logs it, if the peer's identity was made up by a test (P38).

    For all that acts outside the bus, whoever the peer pretends to be.
    """
    if peer.identity.virtual:
        text = f"{peer.name} has a virtual identity and may not {deed}"
        peer.bus.journal.security(text)
        raise BusError(ACCESS_DENIED, text)
