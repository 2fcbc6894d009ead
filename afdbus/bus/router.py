"""Where a message goes: to the driver, to one peer, to all who want it, or back as an error.

The order of the cases is that of dbus-daemon's bus_dispatch().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus import activation, delivery, lifecycle, planning, systemd
from afdbus.bus.driver import calls, local
from afdbus.errors import ACCESS_DENIED, NAME_HAS_NO_OWNER, BusError, ProtocolViolation
from afdbus.wire.header import NO_AUTO_START, SIGNAL, TYPE_NAMES
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.message import Message
    from afdbus.bus.plan import Plan


def dispatch(bus: Bus, message: Message, header_size: int) -> Plan | None:
    """Do with `message` what is to be done; returns a plan for the next one like it, if there may
    be one.  Refusals are answered; raises ProtocolViolation where the sender must go."""
    sender = message.sender
    assert sender is not None
    if sender.monitor:
        _forbid_monitor(bus, message)
    try:
        plan = _route(bus, message)
    except BusError as error:
        delivery.send_error(bus, sender, message.serial, error)
        return None
    if plan is None or not planning.may_plan(bus, message, header_size):
        return None
    return plan


def _route(bus: Bus, message: Message) -> Plan | None:
    header = message.header
    sender = message.sender
    assert sender is not None
    destination = header.destination
    if destination is None and header.type != SIGNAL:
        # Meant for the other end of this very connection; not seen by monitors, as there.
        local.answer(bus, message)
        return None
    if destination == BUS_NAME:
        if systemd.is_failure(header):
            try:
                return _to_driver(bus, message)
            finally:
                # Monitors see first whom it concerns, as there.
                delivery.capture(bus, message, None)
        if not sender.name and lifecycle.is_hello(header):
            try:
                return _to_driver(bus, message)  # which shows it as well
            except BusError:
                delivery.capture(bus, message, None)
                raise
        delivery.capture(bus, message, None)
        return _to_driver(bus, message)
    if not sender.name:
        delivery.capture(bus, message, None)
        raise ProtocolViolation("a message for others before Hello")
    if destination is None:
        delivery.capture(bus, message, None)
        cells, receivers, denied = delivery.broadcast(bus, message)
        return planning.plan_broadcast(bus, message, cells, receivers, denied)
    receiver = bus.names.owners.get(destination)
    if receiver is None:
        try:
            if header.flags & NO_AUTO_START:
                raise BusError(NAME_HAS_NO_OWNER, f'Name "{destination}" does not exist')
            activation.activate(bus, message, destination)
        finally:
            # Monitors see first what systemd is asked for, as there.
            delivery.capture(bus, message, None)
        return None
    delivery.capture(bus, message, receiver)
    delivery.to_peer(bus, message, receiver)
    return planning.plan_unicast(message, receiver)


def _to_driver(bus: Bus, message: Message) -> Plan | None:
    header = message.header
    sender = message.sender
    assert sender is not None
    if not sender.name:
        if header.type > SIGNAL:
            raise BusError(ACCESS_DENIED, "Message bus will not accept messages of unknown type\n")
        if not lifecycle.is_hello(header):
            raise BusError(
                ACCESS_DENIED,
                "Client tried to send a message other than Hello without being registered",
            )
    else:
        delivery.refuse(bus, message, None, None, False)
    came_in = not sender.name
    ruleset = bus.ruleset
    try:
        method = calls.handle(bus, message)
    except BusError as error:
        if message.lessons and bus.trial is not None:
            bus.trial.learn_from_refusal(message, error)
        raise
    delivery.learn(bus, message)
    heard = message.renamed(sender.name) if came_in else message  # a Hello gave the name
    for peer in delivery.overhearers(bus, heard, None):
        delivery.push(heard, peer)
    if method is None or bus.ruleset is not ruleset:
        return None  # or it was allowed by rules that hold no more
    return planning.plan_driver(message, method)


def _forbid_monitor(bus: Bus, message: Message) -> None:
    """A monitor that sends probably answers what it overhears; it is cut off, as there."""
    header = message.header
    sender = message.sender
    assert sender is not None
    type_ = TYPE_NAMES[header.type] if header.type <= SIGNAL else "invalid"
    bus.journal.warning(
        f"Monitoring connection {sender.name} ({bus.host.describe(sender.identity)}) is not "
        "allowed to send messages; closing it. Please fix the monitor to not do that. "
        f'(message type="{type_}" interface="{header.interface or "(unset)"}" '
        f'member="{header.member or "(unset)"}" error name="{header.error_name or "(unset)"}" '
        f'destination="{header.destination or BUS_NAME}")'
    )
    raise ProtocolViolation("a monitor sent a message")
