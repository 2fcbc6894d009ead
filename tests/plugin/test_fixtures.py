"""The fixtures: what a test gets, how long it lives, what the environment says meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]


def test_nothing_heavy_is_imported_until_a_fixture_is_used(run: Run) -> None:
    """Everybody who has afdbus installed loads the plugin in every run."""
    result = run(
        """
        import sys

        def heavy():
            return [name for name in ("trio", "lxml", "afdbus.server") if name in sys.modules]

        def test_before():
            import afdbus.pytest_plugin
            assert heavy() == []

        def test_after(dbus_session):
            assert heavy() == ["lxml", "afdbus.server"]
        """,
        head="",
    )
    result.assert_outcomes(passed=2)


def test_the_plugin_imports_little_by_itself() -> None:
    program = "import sys, pytest; b = set(sys.modules); import afdbus.pytest_plugin; "
    program += "print(*set(sys.modules) - b)"
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    loaded = set(run.stdout.decode().split())
    assert {name.split(".")[0] for name in loaded} <= {"afdbus", "secrets", "hmac", "random"}
    ours = {name.split(".")[1] for name in loaded if name.startswith("afdbus.")}
    assert ours == {"errors", "pytest_plugin"}


def test_a_session_bus_for_each_test(run: Run) -> None:
    result = run(
        """
        import subprocess
        BEFORE = dict(os.environ)
        seen = []

        @pytest.mark.parametrize("number", range(3))
        def test_it(dbus_session, number):
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == dbus_session.address
            assert dbus_session.env() == {"DBUS_SESSION_BUS_ADDRESS": dbus_session.address}
            assert dbus_session.address not in seen
            seen.append(dbus_session.address)
            with open_dbus_connection("SESSION") as one, open_dbus_connection("SESSION") as two:
                assert (one.unique_name, two.unique_name) == (":1.0", ":1.1")
                assert call(one, message_bus.RequestName("com.example.Same")) == 1
                assert dbus_session.wait_for_name("com.example.Same", 60) == ":1.0"
                assert "RequestName('com.example.Same', 0)" in "".join(dbus_session.messages)

        def test_after():
            BEFORE["PYTEST_CURRENT_TEST"] = os.environ["PYTEST_CURRENT_TEST"]
            assert dict(os.environ) == BEFORE
            assert len(seen) == 3
            for address in seen:
                with pytest.raises(ConnectionRefusedError):
                    open_dbus_connection(address)
        """
    )
    result.assert_outcomes(passed=4)


def test_a_system_bus(run: Run) -> None:
    result = run(
        """
        def test_closed(dbus_system):
            assert os.environ["DBUS_SYSTEM_BUS_ADDRESS"] == dbus_system.address
            with open_dbus_connection("SYSTEM") as connection:
                answer = call(connection, message_bus.RequestName("com.example.A"))
                assert "not allowed to own" in answer

        @pytest.mark.dbus(policy='<policy context="default"><allow own="com.example.A"/></policy>')
        def test_opened(dbus_system):
            with open_dbus_connection("SYSTEM") as connection:
                assert call(connection, message_bus.RequestName("com.example.A")) == 1

        def test_both(dbus_buses):
            session, system = dbus_buses
            assert dbus_buses.session is session and dbus_buses.system is system
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == session.address
            assert os.environ["DBUS_SYSTEM_BUS_ADDRESS"] == system.address
            assert session.address != system.address

        def test_after():
            assert "DBUS_SYSTEM_BUS_ADDRESS" not in os.environ
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == "unix:path=/nonexistent"
        """
    )
    result.assert_outcomes(passed=4)


def test_a_bus_lives_as_long_as_who_made_it(run: Run) -> None:
    result = run(
        """
        @pytest.fixture(scope="session")
        def forever(dbus_bus_factory):
            return dbus_bus_factory("forever")

        @pytest.fixture(scope="module")
        def long(dbus_bus_factory):
            bus = dbus_bus_factory("long", export=True)
            yield bus
            assert not bus.closed

        @pytest.fixture
        def short(long, dbus_bus_factory):
            return dbus_bus_factory("short")

        made = []

        @pytest.mark.parametrize("number", range(2))
        def test_it(forever, long, short, dbus_bus_factory, number):
            own = [dbus_bus_factory(), dbus_bus_factory("own"), dbus_bus_factory("own")]
            buses = [forever, long, short, *own]
            assert len({bus.address for bus in buses}) == 6
            assert own[1].name.startswith("own-")
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == long.address
            for bus in made:
                assert bus.closed == (bus not in buses)
            made.extend(buses)

        def test_sub(request, dbus_session):
            long = request.getfixturevalue("long")
            assert made[1] is long
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == dbus_session.address

        @pytest.fixture(scope="class")
        def middle(dbus_bus_factory):
            return dbus_bus_factory(type="system")

        class TestClass:
            def test_one(self, middle, long):
                made.append(middle)
                assert "DBUS_SYSTEM_BUS_ADDRESS" in middle.env()

            def test_two(self, middle):
                assert made[-1] is middle
                assert not middle.closed

        def test_last(long):
            assert made[-1].closed
            assert not long.closed
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == long.address
        """
    )
    result.assert_outcomes(passed=6)


def test_other_buses_are_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that dbus-run-session unsets."""
    for name in ("SESSION_BUS_PID", "SESSION_BUS_WINDOWID", "STARTER_ADDRESS", "STARTER_BUS_TYPE"):
        monkeypatch.setenv(f"DBUS_{name}", "x")
    result = run(
        """
        def names():
            return {name[5:] for name in os.environ if name.startswith("DBUS_")}

        BEFORE = {"SESSION_BUS_ADDRESS", "SESSION_BUS_PID", "SESSION_BUS_WINDOWID",
                  "STARTER_ADDRESS", "STARTER_BUS_TYPE"}

        def test_session(dbus_session):
            assert names() == {"SESSION_BUS_ADDRESS"}

        def test_between():
            assert names() == BEFORE

        def test_system(dbus_system):
            assert names() == {"SESSION_BUS_ADDRESS", "SESSION_BUS_PID", "SESSION_BUS_WINDOWID",
                               "SYSTEM_BUS_ADDRESS"}

        def test_both(dbus_system, dbus_session):
            assert names() == {"SESSION_BUS_ADDRESS", "SYSTEM_BUS_ADDRESS"}

        def test_after():
            assert names() == BEFORE
        """
    )
    result.assert_outcomes(passed=5)


@pytest.mark.parametrize("order", ["monkeypatch, dbus_session", "dbus_session, monkeypatch"])
def test_nobody_puts_back_the_address_of_a_bus_that_is_gone(run: Run, order: str) -> None:
    result = run(
        f"""
        def test_it({order}):
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/mine")

        def test_delete({order}):
            monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")

        def test_plain(dbus_session):
            os.environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/mine"

        def test_after():
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == "unix:path=/nonexistent"
        """,
        "--setup-show",
    )
    result.assert_outcomes(passed=4)
