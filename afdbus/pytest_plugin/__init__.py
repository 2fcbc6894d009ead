"""The pytest plugin: a message bus for each test, in the test's own process.

pytest loads this module wherever afdbus is installed, so nothing here or in `keeper` imports more
than pytest has itself; the bus is imported when the first fixture asks for one.  How long a bus
lives, and what is told of it, is in `keeper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from afdbus.pytest_plugin.factory import BusFactory
from afdbus.pytest_plugin.keeper import Keeper
from afdbus.pytest_plugin.leftovers import LEAKS, LeftBehindWarning
from afdbus.pytest_plugin.marks import MARKER, wishes

if TYPE_CHECKING:
    from afdbus import ThreadBus

__all__ = ["BothBuses", "BusFactory", "LeftBehindWarning"]

_KEEPER = pytest.StashKey[Keeper]()


class BothBuses(NamedTuple):
    """What `dbus_buses` is: both buses of a desktop."""

    session: ThreadBus
    system: ThreadBus


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("afdbus", "message buses for tests")
    group.addoption(
        "--afdbus-leaks",
        choices=LEAKS,
        help="what to do about connections and processes that a test leaves on its bus "
        "(ini: afdbus_leaks, default: warn)",
    )
    group.addoption(
        "--afdbus-messages",
        type=int,
        metavar="N",
        help="how many of the last messages of a bus a failing test shows "
        "(ini: afdbus_messages, default: 50)",
    )
    parser.addini(
        "afdbus_leaks",
        "connections and processes that a test leaves on its bus: warn, fail or ignore",
        default="warn",
    )
    parser.addini(
        "afdbus_messages", "how many of the last messages a failing test shows", default="50"
    )
    parser.addini(
        "afdbus_grace",
        "how many seconds clients that are about to close may take at the end of a test",
        default="2",
    )
    parser.addini(
        "afdbus_services",
        "directories with service files for dbus_session and dbus_system",
        type="paths",
        default=[],
    )
    parser.addini(
        "afdbus_session_config",
        "configuration file of dbus_session, from the root directory (default: all is allowed)",
        default="",
    )
    parser.addini(
        "afdbus_system_config",
        "configuration file of dbus_system, from the root directory (default: as a system bus)",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    keeper = config.stash[_KEEPER] = Keeper(config)
    config.pluginmanager.register(keeper, "afdbus-keeper")


def pytest_unconfigure(config: pytest.Config) -> None:
    keeper = config.stash.get(_KEEPER, None)
    if keeper is not None:
        keeper.close()


@pytest.fixture(scope="session")
def dbus_bus_factory(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> BusFactory:
    """Make message buses: `bus = dbus_bus_factory("name", policy=..., services=...)`.

    A bus lives as long as the fixture, of whatever scope, or the test that made it.  All arguments
    may be left out:

    name: what the bus is called in reports, and the beginning of its address.
    type: "session" (the default: everything is allowed) or "system" (nothing is, as there).
    config: a dbus-daemon configuration, its text or path, instead.
    policy: <policy> elements that come after everything else.
    services: directories with service files, or {"com.example.Name": ["program", "argument"]}.
    messages: how many of the last messages a failing test shows.
    leaks: "warn", "fail" or "ignore" what is left on the bus at its end.
    export: let the environment lead clients here (DBUS_SESSION_BUS_ADDRESS or
    DBUS_SYSTEM_BUS_ADDRESS, by type) as long as the bus lives.
    """
    return BusFactory(pytestconfig.stash[_KEEPER], tmp_path_factory)


@pytest.fixture
def dbus_session(request: pytest.FixtureRequest, dbus_bus_factory: BusFactory) -> ThreadBus:
    """A session bus of the test's own; DBUS_SESSION_BUS_ADDRESS leads there while it lives.

    Clients of any kind connect to it, in this process or in others: sync, asyncio, trio, GLib.
    `.address`; `.env()` for subprocesses that do not inherit the environment;
    `.wait_for_name(name, timeout)`; `.messages`: the last messages, readable;
    `.socket(uid=, gids=, pid=)`: a connection of somebody else; `.statistics()`.
    `@pytest.mark.dbus(...)` changes it.
    """
    return dbus_bus_factory.standard("session", "dbus_session", wishes(request.node, "session"))


@pytest.fixture
def dbus_system(request: pytest.FixtureRequest, dbus_bus_factory: BusFactory) -> ThreadBus:
    """A system bus of the test's own; DBUS_SYSTEM_BUS_ADDRESS leads there while it lives.

    Its policy is that of a system bus: nobody may own a name or call a service until a <policy>
    says so; see `@pytest.mark.dbus(policy=...)`.  `.socket(uid=0)` is a connection that the bus
    takes for root's.  Everything else is as with `dbus_session`.
    """
    return dbus_bus_factory.standard("system", "dbus_system", wishes(request.node, "system"))


@pytest.fixture
def dbus_buses(dbus_session: ThreadBus, dbus_system: ThreadBus) -> BothBuses:
    """A session bus and a system bus: `dbus_buses.session`, `dbus_buses.system`."""
    return BothBuses(dbus_session, dbus_system)
