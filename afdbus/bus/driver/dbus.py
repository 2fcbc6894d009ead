"""org.freedesktop.DBus: names, match rules, activation, reload (D-Bus specification, "Message Bus
Messages").  Texts of errors are dbus-daemon's, which clients and tests are known to compare."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from afdbus.bus import activation, lifecycle, match, ownership
from afdbus.bus.driver.privilege import check_privileged, check_real
from afdbus.bus.driver.table import Answer
from afdbus.bus.judge import because
from afdbus.errors import (
    ACCESS_DENIED,
    INVALID_ARGS,
    LIMITS_EXCEEDED,
    MATCH_RULE_NOT_FOUND,
    NAME_HAS_NO_OWNER,
    BusError,
)
from afdbus.wire import names
from afdbus.wire.encode import encode
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header

_u32 = Struct("<I").pack
_TRUE, _FALSE = _u32(1), _u32(0)


def hello(peer: Peer, header: Header) -> Answer:
    bus = peer.bus
    lifecycle.hello(bus, peer)
    peer.port.active()
    return peer.encoded_name, lambda: lifecycle.introduce(bus, peer)


def request_name(peer: Peer, header: Header, name: str, flags: int) -> Answer:
    bus = peer.bus
    who = peer.name
    if not names.is_bus_name(name):
        raise BusError(INVALID_ARGS, f'Requested bus name "{name}" is not valid')
    if name[0] == ":":
        raise BusError(
            INVALID_ARGS, f"Cannot acquire a service starting with ':' such as \"{name}\""
        )
    if name == BUS_NAME:
        raise BusError(
            INVALID_ARGS,
            f'Connection "{who}" is not allowed to own the service "{BUS_NAME}"because '
            "it is reserved for D-Bus' use only",
        )
    verdict = peer.policy.may_own(name)
    if not verdict.allowed and bus.trial is None:
        text = (
            f'Connection "{who}" is not allowed to own the service "{name}" due '
            "to security policies in the configuration file"
        )
        bus.journal.security(text + because(verdict))
        raise BusError(ACCESS_DENIED, text)
    limit = bus.limits.max_names_per_connection
    # The unique name counts, and so do places in queues.
    if len(peer.names) + 1 >= limit:
        text = (
            f'Connection "{who}" is not allowed to own more services '
            "(increase limits in configuration file if required; "
            f"max_names_per_connection={limit})"
        )
        bus.journal.warning(text)
        raise BusError(LIMITS_EXCEEDED, text)
    if not verdict.allowed and bus.trial is not None:
        bus.trial.let_own(peer, name, verdict)
    held = len(peer.names)
    answer, change = bus.names.request(peer, name, flags)
    if len(peer.names) != held:
        peer.peak_names = max(peer.peak_names, len(peer.names))
        bus.peak_names_per_peer = max(bus.peak_names_per_peer, len(peer.names) + 1)
    if change is not None:
        ownership.announce(bus, change)
    elif len(peer.names) != held:
        # To wait for a name counts in policy like owning it (P12).
        peer.changed()
    return _u32(answer)


def release_name(peer: Peer, header: Header, name: str) -> Answer:
    if not names.is_bus_name(name):
        raise BusError(INVALID_ARGS, f'Given bus name "{name}" is not valid')
    if name[0] == ":":
        raise BusError(
            INVALID_ARGS, f"Cannot release a service starting with ':' such as \"{name}\""
        )
    if name == BUS_NAME:
        raise BusError(
            INVALID_ARGS,
            f"Cannot release the {BUS_NAME} service because it is owned by the bus",
        )
    bus = peer.bus
    held = len(peer.names)
    answer, change = bus.names.release(peer, name)
    if change is not None:
        ownership.announce(bus, change)
    elif len(peer.names) != held:
        peer.changed()
    return _u32(answer)


def start_service_by_name(peer: Peer, call: Message, name: str, flags: int) -> Answer | None:
    answer = activation.start(peer.bus, call, name)
    return None if answer is None else _u32(answer)


def update_activation_environment(
    peer: Peer, header: Header, environment: dict[str, str]
) -> Answer:
    check_real(peer, "set the environment of services")
    bus = peer.bus
    if bus.launcher.uses_helper:
        raise BusError(ACCESS_DENIED, "Cannot change activation environment on a system bus.")
    bus.environment.update(environment)
    if bus.systemd_activation:
        activation.tell_systemd(bus, environment)
    return b""


def name_has_owner(peer: Peer, header: Header, name: str) -> Answer:
    return _TRUE if name in peer.bus.names.owners or name == BUS_NAME else _FALSE


def list_names(peer: Peer, header: Header) -> Answer:
    return encode("as", [BUS_NAME, *peer.bus.names.owners])


def list_activatable_names(peer: Peer, header: Header) -> Answer:
    return encode("as", [BUS_NAME, *peer.bus.services.names()])


def add_match(peer: Peer, header: Header, text: str) -> Answer:
    bus = peer.bus
    limit = bus.limits.max_match_rules_per_connection
    if peer.rule_count >= limit:
        complaint = (
            f'Connection "{peer.name}" is not allowed to add more match rules '
            "(increase limits in configuration file if required; "
            f"max_match_rules_per_connection={limit})"
        )
        bus.journal.warning(complaint)
        raise BusError(LIMITS_EXCEEDED, complaint)
    rule = match.parse(text)
    if rule.eavesdrop:
        check_privileged(peer, header)
    bus.add_rule(peer, rule)
    return b""


def remove_match(peer: Peer, header: Header, text: str) -> Answer:
    if not peer.bus.remove_rule(peer, match.parse(text)):
        raise BusError(
            MATCH_RULE_NOT_FOUND,
            "The given match rule wasn't found and can't be removed",
        )
    return b""


def get_name_owner(peer: Peer, header: Header, name: str) -> Answer:
    owner = peer.bus.names.owners.get(name)
    if owner is not None:
        return owner.encoded_name
    if name == BUS_NAME:
        return encode("s", BUS_NAME)
    raise BusError(NAME_HAS_NO_OWNER, f"Could not get owner of name '{name}': no such name")


def list_queued_owners(peer: Peer, header: Header, name: str) -> Answer:
    if name == BUS_NAME:
        return encode("as", [BUS_NAME])
    queue = peer.bus.names.queue(name)
    if not queue:
        raise BusError(NAME_HAS_NO_OWNER, f"Could not get owners of name '{name}': no such name")
    return encode("as", [owner.name for owner in queue])


def reload_config(peer: Peer, header: Header) -> Answer:
    check_real(peer, "reload the configuration")
    peer.bus.host.reload()
    return b""


def get_id(peer: Peer, header: Header) -> Answer:
    return encode("s", peer.bus.guid)
