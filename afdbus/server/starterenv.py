"""What a service is told of the bus that starts it (D-Bus specification, "Starting Services")."""

from __future__ import annotations

_BUS_ADDRESS = {
    "session": "DBUS_SESSION_BUS_ADDRESS",
    "system": "DBUS_SYSTEM_BUS_ADDRESS",
}


def about_bus(address: str, type_: str | None) -> dict[str, str]:
    """The variables that tell of a bus of this type at this address."""
    about = {"DBUS_STARTER_ADDRESS": address}
    if type_ is not None:
        about["DBUS_STARTER_BUS_TYPE"] = type_
    if type_ in _BUS_ADDRESS:
        about[_BUS_ADDRESS[type_]] = address
    return about
