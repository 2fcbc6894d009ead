"""afdbus: a D-Bus message bus, one per bound name.

The rooms, from the ground up (imports go down only):

    errors limits identity   the words everybody speaks
    wire                     bytes and values: names, signatures, headers, bodies, frames, addresses
    sasl                     the handshake, line in, line out
    policy                   who may: question in, verdict out
    host                     the Linux underneath: credentials, users, keyring, log, process
    config                   dbus-1 XML becomes one value (lxml)
    bus                      the bus itself: peers, names, match rules, the road, the driver; no I/O
    server                   the loop, alone or in trio, connections, listeners, timers, signals
    client tools cli         the doors

`Host` (for trio) and `ThreadHost` (for all others) make buses inside one's own program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afdbus.errors import BusClosedError
    from afdbus.server.host import Host, HostedBus
    from afdbus.server.hostedbus import BusStatistics, ConnectionInfo
    from afdbus.server.recipe import BusOptions
    from afdbus.server.threadhost import ThreadBus, ThreadHost

__version__ = "0.1.0"

# Imported when first asked for: importing afdbus costs next to nothing, trio does not.
_WHERE = {
    "BusClosedError": "errors",
    "BusOptions": "server.recipe",
    "BusStatistics": "server.hostedbus",
    "ConnectionInfo": "server.hostedbus",
    "Host": "server.host",
    "HostedBus": "server.host",
    "ThreadBus": "server.threadhost",
    "ThreadHost": "server.threadhost",
}

__all__ = [
    "BusClosedError",
    "BusOptions",
    "BusStatistics",
    "ConnectionInfo",
    "Host",
    "HostedBus",
    "ThreadBus",
    "ThreadHost",
]


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
