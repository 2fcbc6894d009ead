"""A bus that gives up being one, to show what is left then: `benchmarks/floor.py` measures it.

It is afdbus until it has a plan for what a client sends.  From then on it passes on what it reads
from that client to the receivers of the plan, and looks at nothing: no header, no body, no room.

With `--least` it does for calls and signals what no bus can do without: it looks whether it has
read a whole message, finds by the header what was decided about it and whether that is right still,
checks the body, says who it is from, and looks whether the sockets have taken it.  If anything is
not as usual it gives up.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from os import write
from struct import Struct

from afdbus import daemon_cli
from afdbus.bus.peer import Peer
from afdbus.bus.plan import Plan
from afdbus.server.connection import Connection
from afdbus.server.intake import ANCILLARY, FLAGS
from afdbus.wire.framing import READ
from afdbus.wire.header import FIXED

_as_a_bus = Connection.on_event
_unpack = Struct("<IIII").unpack_from

Handler = Callable[[int], None]


def unicasts_and_broadcasts(*stores: dict[bytes, Plan]) -> Iterator[Plan]:
    """The plans that are not for a call of the bus."""
    for store in stores:
        for plan in store.values():
            if plan.casts or plan.box is not None:
                yield plan


def descriptors(plan: Plan) -> list[int]:
    """Whom it is for."""
    return [box.fd for box in plan.casts or (plan.box,) if box is not None]


def relay(connection: Connection, fds: list[int]) -> Handler:
    recvmsg = connection.sock.recvmsg

    def pass_on(event: int) -> None:
        data, _, _, _ = recvmsg(READ, ANCILLARY, FLAGS)
        if not data:
            _as_a_bus(connection, event)
        for _ in map(write, fds, repeat(data)):
            pass

    return pass_on


def least(connection: Connection, peer: Peer, fds: list[int]) -> Handler:
    recvmsg = connection.sock.recvmsg
    plans = peer.plans.young
    versions = peer.bus.versions

    def pass_on(event: int) -> None:
        data, _, _, _ = recvmsg(READ, ANCILLARY, FLAGS)
        if not data:
            _as_a_bus(connection, event)
            return
        word, size, serial, fields = _unpack(data)
        body = FIXED + (fields + 7 & ~7)
        after = body + size
        plan = plans[data[12:body]]
        if (
            plan.word != word
            or not serial
            or after != len(data)
            or (plan.casts and plan.total != versions.total and not versions.confirm(plan))
            or (plan.check is not None and not plan.check(data, body, after))
        ):
            raise ValueError("not as usual")
        piece = data[:12] + plan.rest + data[body:]
        if sum(map(write, fds, repeat(piece))) != len(piece) * len(fds):
            raise ValueError("a socket is full")

    return pass_on


def on_event(connection: Connection, event: int) -> None:
    data = connection.sock.recv(READ, socket.MSG_PEEK)
    _as_a_bus(connection, event)
    peer = connection.peer
    if peer is None:
        return
    hand_over = connection._server.loop.hand_over
    if LEAST:
        for plan in unicasts_and_broadcasts(peer.plans.young):
            hand_over(connection.fd, least(connection, peer, descriptors(plan)))
            return
    replies = (peer.reply_plans or {}).values()
    stores = (peer.plans.young, *(plans.young for plans in replies))
    for plan in unicasts_and_broadcasts(*stores):
        for box in plan.casts or (plan.box,):
            assert box is not None
            box.piece = data  # as long as what will follow: clients measure the first only
        hand_over(connection.fd, relay(connection, descriptors(plan)))
        return


if __name__ == "__main__":
    LEAST = "--least" in sys.argv
    if LEAST:
        sys.argv.remove("--least")
    Connection.on_event = on_event  # type: ignore[assignment, method-assign]
    sys.exit(daemon_cli.main())
