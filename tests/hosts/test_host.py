"""`afdbus.Host`: buses inside a trio program."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from kit import ClosedError, RawClient, busconfig, call

import afdbus
from afdbus import BusClosedError, Host, HostedBus
from afdbus.config.load import load
from afdbus.errors import ConfigError


def in_trio(test: Callable[[Host], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in trio, with a host."""

    async def main() -> None:
        with trio.fail_after(60):
            async with Host() as host:
                await test(host)

    def run() -> None:
        trio.run(main)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def client_of(bus: HostedBus) -> RawClient:
    def connect() -> RawClient:
        client = RawClient(bus.address)
        client.join()
        return client

    return await trio.to_thread.run_sync(connect)


def test_importing_the_package_imports_no_trio() -> None:
    code = "import sys, afdbus; print(*sorted({'trio', 'lxml', 'socket'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_package_has_what_it_says() -> None:
    """And whoever wants a thread needs no trio."""
    code = (
        "import sys, afdbus; afdbus.ThreadHost().open().close(); "
        "print(*sorted({'trio', 'asyncio'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
    for name in afdbus.__all__:
        assert name in dir(afdbus)
        assert getattr(afdbus, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        afdbus.nonsense  # noqa: B018


@in_trio
async def test_a_bus_has_address_name_and_guid(host: Host) -> None:
    bus = await host.create_bus()
    assert bus.address == f"unix:abstract={bus.name},guid={bus.guid}"
    assert bus.env() == {"DBUS_SESSION_BUS_ADDRESS": bus.address}
    assert host.buses == (bus,)
    with await client_of(bus) as client:
        assert await trio.to_thread.run_sync(client.bus, "GetId") is not None
        assert (await trio.to_thread.run_sync(client.bus, "GetId")).args == (bus.guid,)


@in_trio
async def test_the_system_type_has_the_other_variable(host: Host) -> None:
    bus = await host.create_bus(type="system")
    assert bus.env() == {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
    with await client_of(bus) as client:
        (answer,) = await trio.to_thread.run_sync(
            client.exchange, call("RequestName", "su", "com.example.A", 0)
        )
        assert answer.error_name == "org.freedesktop.DBus.Error.AccessDenied"


@in_trio
async def test_names_with_odd_characters_are_escaped(host: Host) -> None:
    bus = await host.create_bus("a b/é\udcff;,%")
    assert bus.address.startswith("unix:abstract=a%20b/%c3%a9%ff%3b%2c%25,guid=")
    (await client_of(bus)).close()


@in_trio
async def test_what_can_be_no_name_is_refused(host: Host) -> None:
    for name in ("", "a\0b", "x" * 108):
        with pytest.raises(ValueError, match="not a name"):
            await host.create_bus(name)
    name = "x" * (107 - len(str(id(host)))) + str(id(host))
    (await client_of(await host.create_bus(name))).close()


@in_trio
async def test_a_live_name_is_not_taken(host: Host) -> None:
    first = await host.create_bus()
    with await client_of(first) as client:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await host.create_bus(first.name)
        assert caught.value.errno == errno.EADDRINUSE
        await trio.to_thread.run_sync(client.alive)
    assert host.buses == (first,)


@in_trio
async def test_wait_for_name(host: Host) -> None:
    bus = await host.create_bus()
    found: list[str] = []

    async def wait() -> None:
        found.append(await bus.wait_for_name("com.example.Late"))

    with await client_of(bus) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            await trio.to_thread.run_sync(client.own, "com.example.Late")
        assert found == [client.name, client.name]
        assert await bus.wait_for_name("com.example.Late") == client.name


@in_trio
async def test_waiting_for_a_name_ends_with_the_bus(host: Host) -> None:
    bus = await host.create_bus()
    told: list[str] = []

    async def wait() -> None:
        with pytest.raises(BusClosedError):
            await bus.wait_for_name("com.example.Never")
        told.append("closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await bus.aclose()
    assert told == ["closed"]
    with pytest.raises(BusClosedError):
        await bus.wait_for_name("com.example.Never")


@in_trio
async def test_a_closed_bus_is_gone(host: Host) -> None:
    bus, other = await host.create_bus(), await host.create_bus()
    client, neighbour = await client_of(bus), await client_of(other)
    await bus.aclose()
    await bus.aclose()
    assert bus.closed
    assert host.buses == (other,)
    with client, neighbour:
        await trio.to_thread.run_sync(client.closed)
        await trio.to_thread.run_sync(neighbour.alive)
    with pytest.raises(ConnectionRefusedError):
        RawClient(bus.address)
    again = await host.create_bus(bus.name)
    assert again.guid != bus.guid


@in_trio
async def test_statistics(host: Host) -> None:
    bus = await host.create_bus()
    with await client_of(bus) as client:
        await trio.to_thread.run_sync(client.own, "com.example.A")
        await trio.to_thread.run_sync(client.match, "type='signal'")
        now = bus.statistics()
        (connection,) = now.connections
        assert connection[:2] == (client.name, ("com.example.A",))
        assert now.names == {"com.example.A": client.name}
        assert (now.match_rules, now.children, now.dropped, now.incomplete) == (1, (), 0, 0)


@in_trio
async def test_a_configuration_as_text(host: Host) -> None:
    text = busconfig('<limit name="max_names_per_connection">2</limit>')
    bus = await host.create_bus(config=text)
    with await client_of(bus) as client:
        assert await trio.to_thread.run_sync(client.own, "com.example.A") == 1
        answer = await trio.to_thread.run_sync(
            client.exchange, call("RequestName", "su", "com.example.B", 0)
        )
        assert answer[-1].error_name == "org.freedesktop.DBus.Error.LimitsExceeded"


def test_a_configuration_by_its_path_or_value(tmp_path: Path) -> None:
    file = tmp_path / "bus.conf"
    file.write_text(busconfig("<type>system</type>"))

    async def main() -> None:
        async with Host() as host:
            for config in (file, str(file), load(str(file))):
                bus = await host.create_bus(config=config)
                assert "DBUS_SYSTEM_BUS_ADDRESS" in bus.env()

    trio.run(main)


@in_trio
async def test_a_wrong_configuration_names_file_and_line(host: Host) -> None:
    with pytest.raises(ConfigError, match="<config>, line 2: Element <nonsense>"):
        await host.create_bus(config="<busconfig>\n<nonsense/></busconfig>")
    with pytest.raises(ConfigError, match="<policy>"):
        await host.create_bus(policy="<nonsense/>")
    with pytest.raises(ConfigError, match="No such file"):
        await host.create_bus(config="/nonexistent/bus.conf")
    assert host.buses == ()


@in_trio
async def test_messages_show_a_refusal_with_its_rule(host: Host) -> None:
    policy = '<policy context="default">\n<deny own="com.example.Mine"/></policy>'
    bus = await host.create_bus(policy=policy, messages=100)
    with await client_of(bus) as client:
        answer = await trio.to_thread.run_sync(
            client.exchange, call("RequestName", "su", "com.example.Mine", 0)
        )
        assert answer[-1].error_name == "org.freedesktop.DBus.Error.AccessDenied"
    text = "\n".join(bus.messages)
    assert "org.freedesktop.DBus.RequestName('com.example.Mine', 0)" in text
    assert '[<deny own="com.example.Mine"/> <policy>:2]' in text
    assert "org.freedesktop.DBus.Error.AccessDenied" in text


@in_trio
async def test_messages_are_bounded_and_off_unless_asked(host: Host) -> None:
    quiet, bus = await host.create_bus(), await host.create_bus(messages=10)
    with await client_of(bus) as client, await client_of(quiet) as other:
        for _ in range(20):
            await trio.to_thread.run_sync(client.sync)
            await trio.to_thread.run_sync(other.sync)
    assert len(bus.messages) == 10
    assert quiet.messages == []


def test_an_error_of_the_program_comes_out_as_it_is() -> None:
    async def main() -> None:
        async with Host() as host:
            await host.create_bus()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trio.run(main)


def test_cancelling_the_program_closes_the_buses() -> None:
    addresses: list[str] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with Host() as host:
                addresses.append((await host.create_bus()).address)
                scope.cancel()
                with pytest.raises(trio.Cancelled):
                    await host.create_bus()
                await trio.sleep_forever()
        assert scope.cancelled_caught

    trio.run(main)
    with pytest.raises(ConnectionRefusedError):
        RawClient(addresses[0])


def test_a_closed_host_makes_no_buses_and_may_be_opened_again() -> None:
    async def main() -> None:
        host = Host()
        with pytest.raises(BusClosedError):
            await host.create_bus()
        for _ in range(2):
            async with host:
                bus = await host.create_bus()
                with pytest.raises(RuntimeError, match="open already"):
                    await host.__aenter__()
            assert bus.closed
        with pytest.raises(BusClosedError):
            await host.create_bus()

    trio.run(main)


def test_two_hosts_in_one_run_do_not_notice_each_other() -> None:
    async def main() -> None:
        async with Host() as outer:
            bus = await outer.create_bus()
            with await client_of(bus) as client:
                async with Host() as inner:
                    (await client_of(await inner.create_bus())).close()
                await trio.to_thread.run_sync(client.alive)
                await bus.aclose()
                with pytest.raises(ClosedError):
                    await trio.to_thread.run_sync(client.bus, "GetId")

    trio.run(main)
