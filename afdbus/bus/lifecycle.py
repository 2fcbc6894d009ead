"""The life of a peer on the bus: welcome, Hello, perhaps monitor, farewell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from afdbus.bus import delivery, ownership
from afdbus.bus.match import MatchRule
from afdbus.bus.outbox import Outbox
from afdbus.bus.peer import Peer
from afdbus.bus.replies import NO_ANSWER
from afdbus.errors import FAILED, LIMITS_EXCEEDED, NO_REPLY, BusError
from afdbus.wire.header import METHOD_CALL
from afdbus.wire.message import BUS_INTERFACE

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.ports import Port
    from afdbus.identity import Identity
    from afdbus.wire.header import Header


def welcome(bus: Bus, identity: Identity, port: Port, can_fds: bool) -> Peer:
    """A connection whose handshake is done; it has no name and may only call Hello."""
    outbox = Outbox(bus.touched)
    return Peer(bus, identity, bus.policy_for(identity), outbox, port, can_fds)


def is_hello(header: Header) -> bool:
    """Whether a message to the bus is the one that must come first."""
    return (header.type, header.interface, header.member) == (METHOD_CALL, BUS_INTERFACE, "Hello")


def hello(bus: Bus, peer: Peer) -> None:
    """Give the peer its unique name; raises BusError when it has one or limits are reached.

    Telling the world is the next step (`introduce`): the answer to Hello comes before all else.
    """
    if peer.name:
        raise BusError(FAILED, "Already handled an Hello message")
    limits = bus.limits
    if len(bus.peers) >= limits.max_completed_connections:
        raise _limit(
            bus,
            "The maximum number of active connections has been reached",
            f"max_completed_connections={limits.max_completed_connections}",
        )
    uid = peer.identity.uid
    if uid is not None:
        if bus.users.get(uid, 0) >= limits.max_connections_per_user:
            raise _limit(
                bus,
                f"The maximum number of active connections for UID {uid} has been reached",
                f"max_connections_per_user={limits.max_connections_per_user}",
            )
        bus.users[uid] = bus.users.get(uid, 0) + 1
    # The configuration may be another than when it came.
    peer.policy = bus.policy_for(peer.identity)
    peer.activate(bus.next_unique_name())
    bus.peers[peer.name] = peer


def _limit(bus: Bus, text: str, limit: str) -> BusError:
    bus.journal.warning(f"{text} ({limit})")
    return BusError(LIMITS_EXCEEDED, text)


def introduce(bus: Bus, peer: Peer) -> None:
    """Tell the world of a new unique name."""
    ownership.announce(bus, bus.names.add_unique(peer))


def become_monitor(bus: Bus, peer: Peer, rules: list[MatchRule]) -> None:
    """From now on the peer sees what `rules` say and is nobody's partner any more."""
    bus.journal.info(
        f"Connection {peer.name} ({bus.host.describe(peer.identity)}) became a monitor."
    )
    bus.remove_rules(peer)
    # As there: names in the order of asking, the unique name first.
    ownership.announce(bus, bus.names.drop_unique(peer))
    for name in list(peer.names):
        _, change = bus.names.release(peer, name)
        if change is not None:
            ownership.announce(bus, change)
    _forget_calls(bus, peer)
    peer.monitor = True
    bus.add_monitor(peer, rules)


def _forget_calls(bus: Bus, peer: Peer) -> None:
    for caller, serial in bus.replies.forget(peer):
        delivery.send_error(bus, caller, serial, BusError(NO_REPLY, NO_ANSWER))


def _drop_names(bus: Bus, peer: Peer) -> None:
    """Each name is given up and announced, the last one asked for first, the unique name last."""
    for name in reversed(list(peer.names)):
        _, change = bus.names.release(peer, name)
        if change is not None:
            ownership.announce(bus, change)
    if peer.name and not peer.monitor:
        ownership.announce(bus, bus.names.drop_unique(peer))


def _close_outbox(bus: Bus, peer: Peer) -> None:
    for sender in peer.outbox.close():
        bus.relieve(sender)


def _drop_account(bus: Bus, peer: Peer) -> None:
    if not peer.name:
        return
    del bus.peers[peer.name]
    uid = peer.identity.uid
    if uid is not None:
        bus.users[uid] -= 1
        if not bus.users[uid]:
            del bus.users[uid]


def _drop_held(bus: Bus, peer: Peer) -> None:
    bus.activations.forget(peer)


def _drop_rules(bus: Bus, peer: Peer) -> None:
    peer.changed()
    bus.remove_rules(peer)
    bus.remove_monitor(peer)


# In the order of dbus-daemon's bus_connection_disconnected().
_STEPS: tuple[Callable[[Bus, Peer], None], ...] = (
    _close_outbox,
    _drop_rules,
    _drop_names,
    _forget_calls,
    _drop_held,
    _drop_account,
)


def farewell(bus: Bus, peer: Peer) -> None:
    """Forget the peer, whatever the reason; what others must know they are told.

    Each step is guarded: a bug in one must not keep the others from being done (P5).
    """
    if not peer.alive:
        return
    peer.alive = False
    for step in _STEPS:
        try:
            step(bus, peer)
        except Exception:
            bus.bug(f"farewell of {peer!r}")
            if bus.strict:
                raise
