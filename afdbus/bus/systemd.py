"""What the bus and systemd tell one another where services are units (`--systemd-activation`).

The bus asks by a signal that is addressed to systemd (D-Bus specification, "Starting Services with
systemd"), since it is no caller of anybody's methods and expects no answer: the name appears, or
`ActivationFailure` comes.  Texts are those of dbus-daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus.driver.privilege import check_privileged
from afdbus.bus.message import Message
from afdbus.errors import FAILED, BusError
from afdbus.wire import message as wire
from afdbus.wire.decode import decode
from afdbus.wire.encode import encode
from afdbus.wire.header import METHOD_CALL, NO_REPLY_EXPECTED, SIGNAL, Header
from afdbus.wire.names import is_interface_name

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus

NAME = "org.freedesktop.systemd1"
ACTIVATOR = "org.freedesktop.systemd1.Activator"


def activation_request(bus: Bus, unit: str) -> Message:
    """Start `unit`, please."""
    return _own(bus, SIGNAL, wire.BUS_PATH, ACTIVATOR, "ActivationRequest", "s", unit)


def set_environment(bus: Bus, variables: dict[str, str], to: str) -> Message:
    """What UpdateActivationEnvironment has set is to hold for units, too; `to`: systemd's name."""
    return _own(
        bus,
        METHOD_CALL,
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "SetEnvironment",
        "as",
        [f"{name}={value}" for name, value in variables.items()],
        to,
    )


def _own(
    bus: Bus,
    type_: int,
    path: str,
    interface: str,
    member: str,
    signature: str,
    value: object,
    destination: str = NAME,
) -> Message:
    header = Header(True, type_, NO_REPLY_EXPECTED)
    header.path, header.interface, header.member = path, interface, member
    header.destination, header.sender, header.signature = destination, wire.BUS_NAME, signature
    serial = bus.next_serial()
    body = encode(signature, value)
    head = wire.build(
        type_,
        serial,
        path=path,
        interface=interface,
        member=member,
        destination=destination,
        signature=signature,
        body=body,
    )[: -len(body)]
    return Message(header, None, serial, head, body)


def is_failure(header: Header) -> bool:
    """Whether it is an ActivationFailure."""
    return (
        header.type == SIGNAL
        and header.interface == ACTIVATOR
        and header.member == "ActivationFailure"
    )


def activation_failed(bus: Bus, message: Message) -> None:
    """ActivationFailure: a unit cannot be started.  Raises BusError for who has no say in it.

    Only systemd is believed, and only if it may do everything anyhow (CVE-2015-0245).
    """
    header = message.header
    peer = message.sender
    assert peer is not None
    check_privileged(peer, header)
    if bus.names.owners.get(NAME) is not peer:
        bus.journal.security(
            f"Ignoring forged ActivationFailure message from connection {peer.name} "
            f"({bus.host.describe(peer.identity)})"
        )
        return
    if not bus.systemd_activation:
        bus.journal.warning(
            "Ignoring unexpected ActivationFailure message while not using systemd activation"
        )
        return
    if header.signature != "sss":  # which ends dbus-daemon
        bus.journal.warning("Ignoring ActivationFailure message with wrong arguments")
        return
    body = message.body
    unit, name, text = decode("sss", header.little, bytes(body), 0, len(body))
    bus.journal.info(f"Activation via systemd failed for unit '{unit}': {text}")
    # Names of errors are made like those of interfaces; for others dbus-daemon ends, too.
    bus.activations.fail_unit(unit, BusError(name if is_interface_name(name) else FAILED, text))
