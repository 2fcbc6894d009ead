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
"""

__version__ = "0.1.0"
