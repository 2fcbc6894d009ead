"""`afdbus.ThreadHost`: buses in a thread, for programs of any kind."""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref

import pytest
import trio
from kit import ClosedError, RawClient, method_return, peer_call, signal
from kit.hosted import Connect

from afdbus import BusClosedError, BusStatistics, ThreadHost


def test_two_clients_talk(host: ThreadHost, connect: Connect) -> None:
    bus = host.create_bus()
    assert bus.address == f"unix:abstract={bus.name},guid={bus.guid}"
    assert bus.env() == {"DBUS_SESSION_BUS_ADDRESS": bus.address}
    assert host.buses == (bus,)
    alice, bob = connect(bus), connect(bus)
    bob.own("com.example.Bob")
    assert bus.wait_for_name("com.example.Bob", timeout=60) == bob.name
    serial = alice.send(peer_call("com.example.Bob", "Method", "s", "hello"))
    asked = bob.receive_call()
    bob.send(method_return(asked, "s", "there"))
    answer = alice.read()
    assert (answer.reply_serial, answer.args) == (serial, ("there",))


def test_errors_come_out_as_they_are(host: ThreadHost, connect: Connect) -> None:
    bus = host.create_bus()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        host.create_bus(bus.name)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(TimeoutError, match=r"nobody owns com\.example\.Never"):
        bus.wait_for_name("com.example.Never", timeout=0)
    client = connect(bus)
    client.own("com.example.A")
    assert bus.wait_for_name("com.example.A", timeout=0) == client.name


def test_closing_a_bus(host: ThreadHost, connect: Connect) -> None:
    bus, other = host.create_bus(messages=5), host.create_bus()
    client, neighbour = connect(bus), connect(other)
    bus.close()
    bus.close()
    assert bus.closed
    assert host.buses == (other,)
    client.closed()
    neighbour.alive()
    assert len(bus.messages) == 5
    assert bus.statistics().connections == ()
    with pytest.raises(BusClosedError):
        bus.wait_for_name("com.example.A", timeout=60)
    with pytest.raises(BusClosedError):
        bus.socket()


def test_a_closed_host_is_closed() -> None:
    with ThreadHost() as host:
        bus = host.create_bus(messages=5)
        client = RawClient(bus.address)
        client.join()
        assert host.is_open
    assert not host.is_open
    host.close()
    with client:
        client.closed()
    assert bus.closed
    assert bus.messages
    assert bus.env() == {"DBUS_SESSION_BUS_ADDRESS": bus.address}
    bus.close()
    with pytest.raises(BusClosedError):
        host.create_bus()
    with pytest.raises(RuntimeError, match="opened before"):
        host.open()
    with pytest.raises(ConnectionRefusedError):
        RawClient(bus.address)


def test_whoever_waits_for_a_name_hears_of_the_end() -> None:
    told: list[str] = []

    def wait() -> None:
        try:
            bus.wait_for_name("com.example.Never")
        except BusClosedError as error:
            told.append(type(error).__name__)

    with ThreadHost() as host:
        bus = host.create_bus()
        waiting = [threading.Thread(target=wait) for _ in range(4)]
        for thread in waiting:
            thread.start()
    for thread in waiting:
        thread.join()
    assert told == ["BusClosedError"] * 4


def test_many_threads_use_one_host(host: ThreadHost) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                bus = host.create_bus()
                with RawClient(bus.address) as client:
                    assert client.join() == ":1.0"
                    client.own("com.example.Same")
                    assert bus.wait_for_name("com.example.Same", timeout=60) == ":1.0"
                    bus.close()
                    client.closed()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert host.buses == ()


def leavings() -> tuple[int, int]:
    """How many descriptors there are, and threads of hosts: trio's come and go by themselves."""
    names = [thread.name for thread in threading.enumerate()]
    return len(os.listdir("/proc/self/fd")), names.count("afdbus")


def test_several_hosts_leave_no_thread_and_no_descriptor() -> None:
    gc.collect()
    before = leavings()
    for _ in range(3):
        with ThreadHost() as one, ThreadHost() as two:
            buses = [host.create_bus() for host in (one, two) for _ in range(5)]
            clients = [RawClient(bus.address) for bus in buses]
            for client in clients[::2]:
                client.join()
            for client in clients:
                client.close()
        assert leavings() == before


def test_closing_while_clients_send(host: ThreadHost, connect: Connect) -> None:
    bus, other = host.create_bus(), host.create_bus()
    neighbour = connect(other)
    stopped = threading.Event()

    def send(client: RawClient) -> None:
        try:
            while True:
                client.send(signal("Changed", "s", "x" * 1000))
        except ClosedError:
            stopped.set()

    clients = [connect(bus) for _ in range(4)]
    for client in clients:
        client.match("type='signal'")
    threads = [threading.Thread(target=send, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    clients[0].read()
    bus.close()
    for thread in threads:
        thread.join()
    assert stopped.is_set()
    neighbour.alive()


def test_a_forked_child_keeps_nothing(host: ThreadHost, connect: Connect) -> None:
    """Else the name would stay bound, and clients would not hear of the end."""
    bus = host.create_bus()
    client = connect(bus)
    reading, writing = os.pipe()
    holding, release = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(release)
            client.sock.close()
            host.close()
            try:
                host.create_bus()
            except BusClosedError:
                os.write(writing, b"closed")
                os.read(holding, 1)
                status = 0
        finally:
            os._exit(status)
    os.close(writing)
    os.close(holding)
    with open(reading, "rb") as told:
        assert told.read(6) == b"closed"
        client.alive()
        bus.close()
        client.closed()
        host.create_bus(bus.name)
        os.close(release)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_was_sent_before_is_in(host: ThreadHost, connect: Connect) -> None:
    """And who has closed is gone: nobody has to wait before he asks."""
    bus = host.create_bus(messages=1)
    client, other = connect(bus), connect(bus)
    for number in range(50):
        client.send(signal("Changed", "u", number))
        assert bus.messages[-1].endswith(f"Changed({number})")
    other.close()
    assert [who.name for who in bus.statistics().connections] == [client.name]


def test_waiting_until_something_holds(host: ThreadHost, connect: Connect) -> None:
    bus = host.create_bus()

    def are_two(now: BusStatistics) -> bool:
        return len(now.connections) == 2

    waiting = threading.Thread(target=bus.wait_until, args=[are_two, 60])
    waiting.start()
    connect(bus)
    connect(bus)
    waiting.join()
    bus.wait_until(are_two, timeout=0)
    with RawClient(bus.address), pytest.raises(TimeoutError):
        bus.wait_until(lambda now: now.incomplete == 0, timeout=0)
    bus.wait_until(lambda now: now.incomplete == 0, timeout=60)
    with pytest.raises(ZeroDivisionError):
        bus.wait_until(lambda now: 1 // 0 == 0)


def test_a_bus_may_be_closed_by_with(host: ThreadHost, connect: Connect) -> None:
    with host.create_bus() as bus:
        client = connect(bus)
    assert bus.closed
    client.closed()


def test_a_trio_task_may_ask(host: ThreadHost, connect: Connect) -> None:
    async def ask() -> None:
        bus = host.create_bus(messages=5)
        client = connect(bus)
        client.own("com.example.A")
        assert await trio.to_thread.run_sync(bus.wait_for_name, "com.example.A") == client.name
        assert bus.wait_for_name("com.example.A") == client.name
        assert len(bus.messages) == 5
        bus.close()

    trio.run(ask)


def test_messages_tell_of_broadcasts_that_somebody_may_not_have(
    host: ThreadHost, connect: Connect
) -> None:
    """No client is told, and no log either."""
    rule = '<deny receive_interface="com.example.Interface" receive_member="Secret"/>'
    bus = host.create_bus(policy=f'<policy context="default">{rule}</policy>', messages=5)
    alice, bob = connect(bus), connect(bus)
    bob.match("type='signal'")
    alice.send(signal("Secret"))
    refusal = bus.messages[-1]
    assert refusal.startswith("refused: Rejected receive message, 2 matched rules")
    assert refusal.endswith(f"[{rule} <policy>:1]")


def test_a_bus_that_is_closed_while_it_is_asked(
    host: ThreadHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking serves the loop for a moment, in which another thread may have it closed; whoever
    waits from then on would wait for ever."""
    bus = host.create_bus()
    monkeypatch.setattr(bus._handle, "_settle", bus._handle.close)
    with pytest.raises(BusClosedError):
        bus.wait_for_name("com.example.Never", timeout=60)
    other = host.create_bus()
    monkeypatch.setattr(other._handle, "_settle", other._handle.close)
    with pytest.raises(BusClosedError):
        other.wait_until(lambda now: False, timeout=60)


def test_a_closed_bus_is_let_go(host: ThreadHost) -> None:
    """Although time would still run for clients that were half way in."""
    gone = []
    for _ in range(3):
        bus = host.create_bus()
        with RawClient(bus.address) as client, RawClient(bus.address):
            client.join()
        gone.append(weakref.ref(bus._handle.server))
        bus.close()
    del bus
    host.create_bus()
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]
