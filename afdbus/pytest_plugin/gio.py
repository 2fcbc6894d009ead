"""What GLib needs when its bus ends.

Gio.bus_get() hands out one connection for the whole process.  Whoever keeps it would end the
process by SIGTERM, as soon as GLib notices that the bus is gone (exit-on-close).  And what has
happened to a connection waits in the main context: until it is dispatched there the connection
lives on, and the next Gio.bus_get() would hand it out again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afdbus import ThreadBus

_TYPES = {"DBUS_SESSION_BUS_ADDRESS": "SESSION", "DBUS_SYSTEM_BUS_ADDRESS": "SYSTEM"}
# Sources that are dispatched at most: some are ready for ever.
_DISPATCHES = 100


def release(bus: ThreadBus) -> None:
    """Let go of the process's shared connection to `bus`, which is still exported."""
    gio: Any = sys.modules.get("gi.repository.Gio")
    glib: Any = sys.modules.get("gi.repository.GLib")
    if gio is None or glib is None:
        return
    if any(who.pid == os.getpid() for who in bus.statistics().connections):
        for variable in bus.env():
            # If there is none any more this makes one, which does no harm.
            connection = gio.bus_get_sync(getattr(gio.BusType, _TYPES[variable]), None)
            if connection.get_guid() == bus.guid and not connection.is_closed():
                connection.set_exit_on_close(False)
                connection.close_sync(None)
    context = glib.MainContext.default()
    for _ in range(_DISPATCHES):
        if not context.iteration(False):
            break
