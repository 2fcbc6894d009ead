"""The buses of a daemon that is starting: bound, told to whoever waits, and not served yet.

All `<listen>` elements of one configuration lead to one bus, as in dbus-daemon, except that each
`afdbus:` makes a bus of its own with the same configuration (AF_DBUS: one bus per bound name).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from afdbus.errors import AddressError
from afdbus.server.listener import Listener
from afdbus.server.listeners import Passed, bind_all, printable
from afdbus.wire.address import OWN_METHOD, unescape

if TYPE_CHECKING:
    from afdbus.config.model import Config
    from afdbus.server.options import Options


class WantedBus(NamedTuple):
    """A configuration, the file it is from, and the addresses that take the place of its own."""

    config: Config
    config_file: str
    addresses: Sequence[str] = ()


class BoundBus(NamedTuple):
    """`name` is empty for a bus that is not one of its own."""

    name: str
    config: Config
    config_file: str
    listeners: list[Listener]

    def __str__(self) -> str:
        return printable(self.listeners)


def wanted_buses(options: Options) -> list[WantedBus]:
    """What the command line asks for; the configuration of the first is that of the process.

    Raises ConfigError, AddressError.
    """
    # lxml takes its time, which neither --version nor a mistake in the options need wait for.
    from afdbus.config.load import compose, load

    if not options.buses:
        addresses = [options.address] if options.address else ()
        return [WantedBus(load(options.config_file), options.config_file, addresses)]
    wanted = [(file or options.config_file, own_address(name)) for name, file in options.buses]
    if options.address:
        wanted.insert(0, (options.config_file, options.address))
    configs = {file: compose(file) for file, _ in wanted}
    return [WantedBus(configs[file], file, [address]) for file, address in wanted]


def own_address(name: str) -> str:
    """The address of a bus of its own by the escaped `name`, a random one if that is empty.

    Raises AddressError.
    """
    unescape(name)  # which finds whatever would end it before its end
    return f"{OWN_METHOD}:name={name}" if name else f"{OWN_METHOD}:"


def bind_buses(wanted: Iterable[WantedBus]) -> list[BoundBus]:
    """Bind all addresses.  Of each configuration the bus without a name comes first.

    Raises AddressError; nothing is left behind then.
    """
    passed = Passed()
    buses: list[BoundBus] = []
    try:
        for want in wanted:
            listeners = bind_all(want.addresses or want.config.listen, passed)
            # One text has one guid, and may be several sockets.
            groups: dict[str, list[Listener]] = {}
            for listener in listeners:
                key = "" if listener.own_name is None else listener.guid
                groups.setdefault(key, []).append(listener)
            in_order = list(groups)[::-1]  # `bind_all` gives the last address first
            for key in sorted(in_order, key=bool):
                name = groups[key][0].own_name or ""
                buses.append(BoundBus(name, want.config, want.config_file, groups[key]))
    except AddressError:
        for bus in buses:
            for listener in bus.listeners:
                listener.close()
        raise
    return buses
