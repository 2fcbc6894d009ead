"""Clients of all kinds on the buses of the plugin, and other plugins beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

STRICT = "--afdbus-leaks=fail"


def test_asyncio(run: Run) -> None:
    """By pytest-asyncio: the test and its fixture, and a loop that outlives the test."""
    result = run(
        """
        import asyncio
        import pytest_asyncio
        from dbus_fast import Message, MessageType
        from dbus_fast.aio import MessageBus
        from jeepney.io.asyncio import open_dbus_router

        @pytest_asyncio.fixture
        async def service(dbus_session):
            bus = await MessageBus().connect()

            def answer(message):
                if message.member == "Double":
                    return Message.new_method_return(message, "i", [2 * message.body[0]])

            bus.add_message_handler(answer)
            await bus.request_name("com.example.Service")
            yield bus
            bus.disconnect()

        @pytest.mark.asyncio
        async def test_it(service, dbus_session):
            client = await MessageBus().connect()
            owner = await asyncio.to_thread(dbus_session.wait_for_name, "com.example.Service", 60)
            assert owner == service.unique_name
            call = Message(destination="com.example.Service", path="/", member="Double",
                           signature="i", body=[21])
            reply = await client.call(call)
            assert reply.body == [42]
            client.disconnect()

        @pytest.mark.asyncio(loop_scope="module")
        @pytest.mark.parametrize("number", range(2))
        async def test_jeepney(dbus_session, number):
            async with open_dbus_router() as router:
                reply = await router.send_and_get_reply(message_bus.RequestName("com.example.A"))
                assert reply.body == (1,)
        """,
        "-p", "pytest_asyncio.plugin",
        STRICT,
        ini="asyncio_default_fixture_loop_scope = function",
    )  # fmt: skip
    result.assert_outcomes(passed=3)


def test_anyio_and_pytest_trio(run: Run) -> None:
    """A trio program beside the host's own."""
    source = """
        import trio
        from jeepney.io.trio import open_dbus_router

        @pytest.mark.MARK
        async def test_it(dbus_session):
            async with open_dbus_router() as router:
                reply = await router.send_and_get_reply(message_bus.RequestName("com.example.A"))
                assert reply.body == (1,)
                owner = await trio.to_thread.run_sync(dbus_session.wait_for_name, "com.example.A")
                assert owner == router.unique_name
                assert dbus_session.statistics().names == {"com.example.A": owner}

        @pytest.fixture
        def anyio_backend():
            return "trio"
        """
    result = run(source.replace("MARK", "trio"), "-p", "pytest_trio.plugin", STRICT)
    result.assert_outcomes(passed=1)
    result = run(source.replace("MARK", "anyio"), "-p", "anyio.pytest_plugin", STRICT)
    result.assert_outcomes(passed=1)


def test_glib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the connection that GLib shares is kept: it would end the whole process."""
    packages = "/usr/lib/python3/dist-packages"
    probe = [sys.executable, "-c", "from gi.repository import Gio"]
    found = subprocess.run(probe, env={**os.environ, "PYTHONPATH": packages}, check=False)
    if found.returncode != 0:
        assert os.environ.get("AFDBUS_TEST_REQUIRE") != "1", "python3-gi is not installed"
        pytest.skip("python3-gi is not installed for this Python")
    result = run(
        f"""
        sys.path.append({packages!r})
        from gi.repository import Gio, GLib

        kept = []

        @pytest.mark.parametrize("number", range(2))
        def test_tidy(dbus_session, number):
            connection = Gio.bus_get_sync(Gio.BusType.SESSION)
            assert connection.get_guid() == dbus_session.guid
            loop = GLib.MainLoop()
            Gio.bus_own_name_on_connection(
                connection, "com.example.A", 0, lambda *_: loop.quit(), None
            )
            loop.run()
            assert dbus_session.wait_for_name("com.example.A", 60) == connection.get_unique_name()
            connection.close_sync()

        @pytest.mark.dbus(leaks="ignore")
        def test_untidy(dbus_buses):
            for type_ in (Gio.BusType.SESSION, Gio.BusType.SYSTEM):
                kept.append(Gio.bus_get_sync(type_))

        def test_after():
            "Nobody is killed when GLib notices the end of its bus."
            assert [connection.is_closed() for connection in kept] == [True, True]
            context = GLib.MainContext.default()
            while context.iteration(False):
                pass
        """,
        STRICT, "-Wdefault",  # PyGObject has a few
        ini="afdbus_grace = 60",
    )  # fmt: skip
    result.assert_outcomes(passed=4)


def test_other_processes(run: Run, program: Callable[[str], str]) -> None:
    program("dbus-send")
    result = run(
        """
        import subprocess

        COMMAND = ["dbus-send", "--session", "--print-reply=literal", "--dest=org.freedesktop.DBus",
                   "/", "org.freedesktop.DBus.GetId"]

        def test_inherited(dbus_session):
            assert subprocess.check_output(COMMAND, text=True).split() == [dbus_session.guid]

        def test_given(dbus_session, dbus_bus_factory):
            bus = dbus_bus_factory()
            told = subprocess.check_output(COMMAND, env={**os.environ, **bus.env()}, text=True)
            assert told.split() == [bus.guid]

        def test_left(dbus_session):
            "Who is ended at the end of the test has time to go."
            command = ["dbus-monitor", "--session"]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as monitor:
                dbus_session.wait_until(lambda now: any(c.is_monitor for c in now.connections), 60)
                monitor.terminate()
        """,
        STRICT,
        ini="afdbus_grace = 60",
    )
    result.assert_outcomes(passed=3)


def test_services_are_started_and_ended(run: Run) -> None:
    result = run(
        """
        import textwrap

        SERVICE = '''
            import sys
            from jeepney import message_bus
            from jeepney.io.blocking import open_dbus_connection
            connection = open_dbus_connection("SESSION")
            connection.send(message_bus.RequestName(sys.argv[1]))
            try:
                while True:
                    connection.receive()
            except Exception:
                pass
        '''
        children = []

        @pytest.fixture
        def program(tmp_path):
            file = tmp_path / "a service.py"
            file.write_text(textwrap.dedent(SERVICE))
            return [sys.executable, str(file)]

        def start(bus, name):
            with open_dbus_connection(bus.address) as connection:
                assert call(connection, message_bus.StartServiceByName(name)) == 1
            children.extend(bus.statistics().children)

        def test_it(dbus_bus_factory, program):
            bus = dbus_bus_factory(services={"com.example.A": [*program, "com.example.A"]})
            start(bus, "com.example.A")
            assert len(children) == 1

        def test_directory(dbus_bus_factory, program, tmp_path):
            (tmp_path / "b.service").write_text(
                "[D-BUS Service]\\nName=com.example.B\\n"
                f"Exec={program[0]} '{program[1]}' com.example.B\\n"
            )
            start(dbus_bus_factory(services=[tmp_path]), "com.example.B")
            assert len(children) == 2

        @pytest.fixture
        def marked(request, program):
            services = {"com.example.C": [*program, "com.example.C"]}
            request.applymarker(pytest.mark.dbus(services=services))

        def test_closed(marked, dbus_session):
            start(dbus_session, "com.example.C")
            dbus_session.close()
            assert len(children) == 3

        def test_all_are_gone():
            for pid in children:
                with pytest.raises(ProcessLookupError):
                    os.kill(pid, 0)

        @pytest.mark.dbus(services={"com.example.A": "/nonexistent"})
        def test_no_program(dbus_session):
            pass

        """,
        STRICT,
        ini="afdbus_grace = 60",
    )
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*FileNotFoundError: *'/nonexistent'"])


def test_a_service_that_does_not_end_is_killed(run: Run) -> None:
    result = run(
        """
        PROGRAM = [
            "import signal",
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "from jeepney import message_bus",
            "from jeepney.io.blocking import open_dbus_connection",
            "connection = open_dbus_connection('SESSION')",
            "connection.send(message_bus.RequestName('com.example.A'))",
            "while True: signal.pause()",
        ]
        COMMAND = [sys.executable, "-c", "\\n".join(PROGRAM)]
        children = []

        @pytest.mark.dbus(services={"com.example.A": COMMAND})
        def test_it(dbus_session):
            with open_dbus_connection("SESSION") as connection:
                assert call(connection, message_bus.StartServiceByName("com.example.A")) == 1
            children.extend(dbus_session.statistics().children)

        def test_after():
            (pid,) = children
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        """,
        STRICT,
        ini="afdbus_grace = 0",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.re_match_lines([r"left behind on dbus_session: process \d+, a service that did "])


def test_unittest(run: Run) -> None:
    result = run(
        """
        import unittest

        @pytest.mark.usefixtures("dbus_session")
        class TestEnvironment(unittest.TestCase):
            def test_it(self):
                with open_dbus_connection("SESSION") as connection:
                    self.assertEqual(connection.unique_name, ":1.0")

        @pytest.mark.dbus(policy='<policy context="default"><allow own="com.example.A"/></policy>')
        class TestBus(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _bus(self, dbus_system):
                self.bus = dbus_system

            def test_it(self):
                with open_dbus_connection(self.bus.address) as connection:
                    self.assertEqual(call(connection, message_bus.RequestName("com.example.A")), 1)
        """,
        STRICT,
    )
    result.assert_outcomes(passed=2)


def test_xdist(run: Run) -> None:
    """Also where all ask for the same name."""
    result = run(
        """
        @pytest.fixture(scope="session")
        def shared(dbus_bus_factory):
            return dbus_bus_factory("com.example.shared")

        @pytest.mark.parametrize("number", range(12))
        def test_it(dbus_session, shared, dbus_bus_factory, number):
            for bus in (dbus_session, shared, dbus_bus_factory("com.example.own")):
                with open_dbus_connection(bus.address) as connection:
                    call(connection, message_bus.RequestName("com.example.A"))
            assert number != 7
        """,
        "-n", "2", STRICT,
    )  # fmt: skip
    result.assert_outcomes(passed=11, failed=1)
    result.stdout.fnmatch_lines(
        ["*- D-Bus messages on dbus_session (call) -*", "*RequestName('com.example.A', 0)*"]
    )


def test_virtual_credentials(run: Run) -> None:
    result = run(
        """
        from jeepney.auth import Authenticator, BEGIN
        from jeepney.io.blocking import DBusConnection
        from jeepney.low_level import Parser

        POLICY = '''
        <policy user="root"><allow own="com.example.Root"/></policy>
        <policy group="root"><allow own="com.example.Group"/></policy>
        '''

        def request(sock, name):
            with sock:
                authenticator = Authenticator()
                for line in authenticator:
                    sock.sendall(line)
                    authenticator.feed(sock.recv(1000))
                sock.sendall(BEGIN)
                with DBusConnection(sock) as connection:
                    return call(connection, message_bus.RequestName(name))

        @pytest.mark.dbus("system", policy=POLICY)
        def test_it(dbus_system):
            assert request(dbus_system.socket(uid=0), "com.example.Root") == 1
            assert request(dbus_system.socket(uid=1, gids=[0]), "com.example.Group") == 1
            for who in ({"uid": 1}, {"uid": 1, "gids": [5]}):
                assert "not allowed" in request(dbus_system.socket(**who), "com.example.Root")
                assert "not allowed" in request(dbus_system.socket(**who), "com.example.Group")
        """,
        STRICT,
    )
    result.assert_outcomes(passed=1)
