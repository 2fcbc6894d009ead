"""Client libraries in this process: jeepney (blocking, asyncio, trio) and dbus-fast (asyncio)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
import trio
from jeepney import (
    DBusAddress,
    MatchRule,
    Properties,
    message_bus,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.io.asyncio import DBusRouter as AsyncioRouter
from jeepney.io.asyncio import open_dbus_connection as open_asyncio
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.io.trio import open_dbus_connection as open_trio
from jeepney.io.trio import open_dbus_router
from kit import Daemon
from kit.client import TIMEOUT

OBJECT = "/com/example/Object"
INTERFACE = "com.example.Interface"
NAME = "com.example.Name"
EMITTER = DBusAddress(OBJECT, interface=INTERFACE)


def address(name: str) -> DBusAddress:
    return DBusAddress(OBJECT, bus_name=name, interface=INTERFACE)


# -- jeepney, blocking


@pytest.fixture
def first(daemon: Daemon) -> Iterator[DBusConnection]:
    with open_dbus_connection(daemon.address, enable_fds=True) as connection:
        yield connection


@pytest.fixture
def second(daemon: Daemon) -> Iterator[DBusConnection]:
    with open_dbus_connection(daemon.address, enable_fds=True) as connection:
        yield connection


def test_jeepney_names(first: DBusConnection) -> None:
    reply = first.send_and_get_reply(message_bus.RequestName(NAME), timeout=TIMEOUT)
    assert reply.body == (1,)
    reply = first.send_and_get_reply(message_bus.GetNameOwner(NAME), timeout=TIMEOUT)
    assert reply.body == (first.unique_name,)
    assert first.send_and_get_reply(message_bus.ReleaseName(NAME), timeout=TIMEOUT).body == (1,)


def test_jeepney_call_and_answer(first: DBusConnection, second: DBusConnection) -> None:
    value = {"k": ("(ias)", (5, ["a", "b"]))}
    first.send(new_method_call(address(second.unique_name), "Method", "sa{sv}", ("x", value)))
    received = second.receive(timeout=TIMEOUT)
    while received.body[0] == second.unique_name:  # its NameAcquired
        received = second.receive(timeout=TIMEOUT)
    assert received.body == ("x", value)
    second.send(new_method_return(received, "as", (["y"],)))
    second.send(new_error(received, "com.example.Error", "s", ("text",)))
    bodies = [first.receive(timeout=TIMEOUT).body for _ in range(3)]
    assert bodies == [(first.unique_name,), (["y"],), ("text",)]


def test_jeepney_signals(first: DBusConnection, second: DBusConnection) -> None:
    rule = MatchRule(type="signal", interface=INTERFACE, member="Signal", path=OBJECT)
    first.send_and_get_reply(message_bus.AddMatch(rule), timeout=TIMEOUT)
    with first.filter(rule) as queue:
        second.send(new_signal(EMITTER, "Other"))
        second.send(new_signal(EMITTER, "Signal", "s", ("text",)))
        assert first.recv_until_filtered(queue, timeout=TIMEOUT).body == ("text",)


def test_jeepney_fds(first: DBusConnection, second: DBusConnection) -> None:
    rule = MatchRule(type="signal", interface=INTERFACE)
    second.send_and_get_reply(message_bus.AddMatch(rule), timeout=TIMEOUT)
    reading, writing = os.pipe()
    with second.filter(rule) as queue:
        first.send(new_signal(EMITTER, "Signal", "h", (writing,)))
        os.close(writing)
        received = second.recv_until_filtered(queue, timeout=TIMEOUT)
    with received.body[0].to_file("w") as file:
        file.write("through the bus")
    with open(reading) as file:
        assert file.read() == "through the bus"


def test_jeepney_properties(first: DBusConnection) -> None:
    reply = first.send_and_get_reply(Properties(message_bus).get("Features"), timeout=TIMEOUT)
    assert "HeaderFiltering" in reply.body[0][1]


def test_jeepney_large(first: DBusConnection, second: DBusConnection) -> None:
    data = os.urandom(1 << 20)
    rule = MatchRule(type="signal", interface=INTERFACE)
    second.send_and_get_reply(message_bus.AddMatch(rule), timeout=TIMEOUT)
    first.send(new_signal(EMITTER, "Signal", "ay", (data,)))
    with second.filter(rule) as queue:
        assert second.recv_until_filtered(queue, timeout=TIMEOUT).body == (data,)


# -- jeepney, asyncio and trio


def test_jeepney_asyncio(daemon: Daemon) -> None:
    async def talk() -> None:
        async with asyncio.timeout(TIMEOUT):
            client, service = await open_asyncio(daemon.address), await open_asyncio(daemon.address)
            async with client, service, AsyncioRouter(client) as router:
                call = new_method_call(address(service.unique_name), "Method", "i", (20,))
                answers = [asyncio.ensure_future(router.send_and_get_reply(call)) for _ in range(5)]
                for number in range(5):
                    while (received := await service.receive()).body != (20,):
                        pass
                    await service.send(new_method_return(received, "i", (number,)))
                assert [(await answer).body for answer in answers] == [(n,) for n in range(5)]

    asyncio.run(talk())


def test_jeepney_trio(daemon: Daemon) -> None:
    async def talk() -> None:
        with trio.fail_after(TIMEOUT):
            service = await open_trio(daemon.address)
            async with service, open_dbus_router(daemon.address) as router:
                rule = MatchRule(type="signal", interface=INTERFACE)
                await router.send_and_get_reply(message_bus.AddMatch(rule))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(service.send, new_signal(EMITTER, "Signal", "s", ("text",)))
                    with router.filter(rule) as queue:
                        assert (await queue.receive()).body == ("text",)

    trio.run(talk)


# -- dbus-fast


def test_dbus_fast(daemon: Daemon) -> None:
    from dbus_fast import Message, MessageType, NameFlag, RequestNameReply, Variant
    from dbus_fast.aio import MessageBus
    from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

    class Example(ServiceInterface):
        def __init__(self) -> None:
            super().__init__(INTERFACE)
            self.value = "first"

        @dbus_method()
        def Concat(self, parts: "as", more: "a{sv}") -> s:  # noqa: F722, F821, N802
            return "".join(parts) + "".join(str(value.value) for value in more.values())

        @dbus_property()
        def Value(self) -> s:  # noqa: F821, N802
            return self.value

        @Value.setter
        def Value(self, value: s) -> None:  # noqa: F821, N802
            self.value = value
            self.emit_properties_changed({"Value": value})

        @dbus_signal()
        def Happened(self, what: str) -> s:  # noqa: F821, N802
            return what

    async def talk() -> None:
        async with asyncio.timeout(TIMEOUT):
            service = await MessageBus(bus_address=daemon.address).connect()
            client = await MessageBus(bus_address=daemon.address, negotiate_unix_fd=True).connect()
            example = Example()
            service.export(OBJECT, example)
            granted = await service.request_name(NAME)
            assert granted == RequestNameReply.PRIMARY_OWNER
            refused = await client.request_name(NAME, NameFlag.DO_NOT_QUEUE)
            assert refused == RequestNameReply.EXISTS
            description = await client.introspect(NAME, OBJECT)
            proxy = client.get_proxy_object(NAME, OBJECT, description)
            interface = proxy.get_interface(INTERFACE)
            more = {"k": Variant("u", 5)}
            assert await interface.call_concat(["a", "b"], more) == "ab5"
            assert await interface.get_value() == "first"
            changed = asyncio.get_running_loop().create_future()
            happened = asyncio.get_running_loop().create_future()
            properties = proxy.get_interface("org.freedesktop.DBus.Properties")
            properties.on_properties_changed(lambda *args: changed.set_result(args))
            interface.on_happened(happened.set_result)
            await client.call(
                Message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
            )  # the rules are set
            await interface.set_value("second")
            example.Happened("this")
            assert (await changed)[:2] == (INTERFACE, {"Value": Variant("s", "second")})
            assert await happened == "this"
            reply = await client.call(Message(NAME, "/nowhere", INTERFACE, "Concat"))
            assert reply is not None
            assert reply.message_type is MessageType.ERROR
            for bus in (client, service):
                bus.disconnect()
                await bus.wait_for_disconnect()

    asyncio.run(talk())
