"""A bus that gives up being one, to show what is left then: `benchmarks/floor.py` measures it.

It is afdbus until it has a plan for what a client sends.  From then on it passes on what it reads
from that client to the receivers of the plan, and looks at nothing: no header, no body, no room.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from os import write

from afdbus import daemon_cli
from afdbus.bus.outbox import Outbox
from afdbus.bus.peer import Peer
from afdbus.server.connection import Connection
from afdbus.server.intake import ANCILLARY, FLAGS
from afdbus.wire.framing import READ

_as_a_bus = Connection.on_event


def receivers(peer: Peer) -> tuple[Outbox, ...]:
    """Who gets what the peer sends, by the first plan that is not for a call of the bus."""
    for plans in (peer.plans, *(peer.reply_plans or {}).values()):
        for plan in plans.young.values():
            if plan.casts or plan.box is not None:
                return plan.casts or (plan.box,)  # type: ignore[return-value]
    return ()


def relay(connection: Connection, boxes: tuple[Outbox, ...]) -> Callable[[int], None]:
    recvmsg = connection.sock.recvmsg
    fds = [box.fd for box in boxes]

    def pass_on(event: int) -> None:
        data, _, _, _ = recvmsg(READ, ANCILLARY, FLAGS)
        if not data:
            _as_a_bus(connection, event)
        for fd in fds:
            write(fd, data)

    return pass_on


def on_event(connection: Connection, event: int) -> None:
    data = connection.sock.recv(READ, socket.MSG_PEEK)
    _as_a_bus(connection, event)
    if connection.peer is not None and (boxes := receivers(connection.peer)):
        for box in boxes:
            box.piece = data  # as long as what will follow: clients measure the first only
        loop = connection._server.loop
        loop.hand_over(connection.fd, relay(connection, boxes))


if __name__ == "__main__":
    Connection.on_event = on_event  # type: ignore[assignment, method-assign]
    sys.exit(daemon_cli.main())
