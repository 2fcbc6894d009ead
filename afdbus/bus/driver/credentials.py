"""Who is behind a name: GetConnectionCredentials and its older relatives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from afdbus.bus.driver.table import Answer
from afdbus.errors import (
    ADT_AUDIT_DATA_UNKNOWN,
    FAILED,
    NAME_HAS_NO_OWNER,
    SELINUX_SECURITY_CONTEXT_UNKNOWN,
    UNIX_PROCESS_ID_UNKNOWN,
    BusError,
)
from afdbus.identity import Identity
from afdbus.wire.encode import encode
from afdbus.wire.fds import Fds
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header


def _identity(peer: Peer, name: str, wanted: str) -> Identity:
    """The identity of the owner of `name`; of the daemon itself for the bus's own name."""
    if name == BUS_NAME:
        return Identity(uid=peer.bus.own_uid, pid=os.getpid())
    owner = peer.bus.names.owners.get(name)
    if owner is None:
        raise BusError(
            NAME_HAS_NO_OWNER, f"Could not get {wanted} of name '{name}': no such name"
        )
    return owner.identity


def unix_user(peer: Peer, header: Header, name: str) -> Answer:
    uid = _identity(peer, name, "UID").uid
    if uid is None:
        raise BusError(FAILED, f"Could not determine UID for '{name}'")
    return encode("u", uid)


def unix_process_id(peer: Peer, header: Header, name: str) -> Answer:
    pid = _identity(peer, name, "PID").pid
    if pid is None:
        raise BusError(UNIX_PROCESS_ID_UNKNOWN, f"Could not determine PID for '{name}'")
    return encode("u", pid)


def adt_audit_session_data(peer: Peer, header: Header, name: str) -> Answer:
    """Solaris's audit data, which no Linux system has."""
    _identity(peer, name, "audit session data")
    raise BusError(
        ADT_AUDIT_DATA_UNKNOWN, f"Could not determine audit session data for '{name}'"
    )


def selinux_context(peer: Peer, header: Header, name: str) -> Answer:
    """As on a bus without SELinux; the label is in GetConnectionCredentials."""
    _identity(peer, name, "security context")
    raise BusError(
        SELINUX_SECURITY_CONTEXT_UNKNOWN, f"Could not determine security context for '{name}'"
    )


def credentials(peer: Peer, header: Header, name: str) -> Answer:
    identity = _identity(peer, name, "credentials")
    fds = None
    found: dict[str, tuple[str, Any]] = {}
    if identity.pid is not None:
        found["ProcessID"] = ("u", identity.pid)
    if identity.uid is not None:
        found["UnixUserID"] = ("u", identity.uid)
    if identity.gids is not None:
        found["UnixGroupIDs"] = ("au", list(identity.gids))
    if identity.label is not None:
        # With the terminating NUL: the convention for texts of unknown encoding.
        found["LinuxSecurityLabel"] = ("ay", identity.label + b"\0")
    owner = peer.bus.names.owners.get(name)
    if owner is not None and identity.pid is not None and peer.can_fds:
        # dbus-daemon has it since 1.15.8, and takes it when the peer connects
        process = None if identity.virtual else peer.bus.host.process_fd(owner.port)
        if process is not None:
            found["ProcessFD"] = ("h", 0)
            fds = Fds([process])
    body = encode("a{sv}", found)
    return body if fds is None else (body, fds)
