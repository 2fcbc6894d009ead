"""Calls without a destination: meant for the other end of this very connection, which is we.

dbus-daemon leaves them to its library, and so these answers have neither sender nor policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.errors import UNKNOWN_METHOD, BusError
from afdbus.wire.encode import encode
from afdbus.wire.header import ERROR, METHOD_CALL, METHOD_RETURN
from afdbus.wire.message import build

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.message import Message

PEER = "org.freedesktop.DBus.Peer"


def answer(bus: Bus, message: Message) -> None:
    """Answer a call without destination; anything else without one is ignored."""
    header = message.header
    peer = message.sender
    assert peer is not None
    if header.type != METHOD_CALL:
        return
    signature, body = "", b""
    error_name = None
    try:
        if header.interface == PEER:
            if header.member == "GetMachineId":
                signature, body = "s", encode("s", bus.host.machine_id())
            elif header.member != "Ping":
                raise BusError(
                    UNKNOWN_METHOD,
                    "Unknown method invoked on org.freedesktop.DBus.Peer interface",
                )
        else:
            raise BusError(
                UNKNOWN_METHOD,
                f'Method "{header.member}" with signature "{header.signature}" on interface '
                f"\"{header.interface or '(null)'}\" doesn't exist\n",
            )
    except BusError as error:
        error_name = error.name
        signature, body = "s", encode("s", error.text)
    data = build(
        METHOD_RETURN if error_name is None else ERROR,
        peer.next_serial(),
        error_name=error_name,
        reply_serial=message.serial,
        destination=header.sender,
        sender=None,
        signature=signature,
        body=body,
    )
    peer.outbox.push(data)
    if peer.outbox.blocked:
        peer.outbox.charge(len(data), None)
