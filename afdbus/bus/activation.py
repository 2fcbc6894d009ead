"""Names without an owner: this bus knows no service files, so nothing can be started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.errors import SERVICE_UNKNOWN, BusError

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.message import Message


def not_provided(name: str) -> BusError:
    """The error for a name that nothing provides."""
    return BusError(
        SERVICE_UNKNOWN, f"The name {name} was not provided by any .service files"
    )


def activate(bus: Bus, message: Message, name: str) -> None:
    """Hold `message` until `name` has an owner; raises BusError if nothing can provide it."""
    raise not_provided(name)
