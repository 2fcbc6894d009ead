"""What only root and the daemon's own user may ask of the driver, whatever policy says."""

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
