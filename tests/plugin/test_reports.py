"""What a failing test tells of its bus, and what is said of things left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]


def section(result: pytest.RunResult, title: str) -> list[str]:
    """The lines of a section of a report; empty if there is none."""
    lines = iter(result.outlines)
    found = []
    if any(line.strip("-").strip() == title for line in lines):
        for line in lines:
            if line.startswith(("---", "===", "___")):
                break
            found.append(line)
    return found


def test_a_failing_test_shows_its_messages(run: Run) -> None:
    result = run(
        """
        def test_it(dbus_session):
            with open_dbus_connection("SESSION") as connection:
                call(connection, message_bus.RequestName("com.example.A"))
                assert 0

        def test_good(dbus_session):
            open_dbus_connection("SESSION").close()
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    lines = section(result, "D-Bus messages on dbus_session (call)")
    assert any(":1.0 -> org.freedesktop.DBus method_call 2" in line for line in lines)
    assert any("NameAcquired('com.example.A')" in line for line in lines)
    assert "\n".join(result.outlines).count("D-Bus messages on") == 1


def test_a_denial_shows_its_rule(run: Run) -> None:
    result = run(
        """
        POLICY = '''
        <policy context="default">
          <deny own="com.example.Mine"/>
        </policy>'''
        OPEN = '''
        <policy context="default">
          <allow send_destination="*"/>
          <allow receive_sender="*"/>
        </policy>'''

        @pytest.mark.dbus(policy=POLICY)
        def test_text(dbus_session):
            with open_dbus_connection("SESSION") as connection:
                assert call(connection, message_bus.RequestName("com.example.Mine")) == 1

        def test_file(dbus_bus_factory, tmp_path):
            file = tmp_path / "bus.conf"
            file.write_text(f"<busconfig>{POLICY}{OPEN}</busconfig>")
            bus = dbus_bus_factory("mine", config=file)
            with open_dbus_connection(bus.address) as connection:
                assert call(connection, message_bus.RequestName("com.example.Mine")) == 1
        """
    )
    result.assert_outcomes(failed=2)
    rule = '<deny own="com.example.Mine"/>'
    for title, place in (
        ("dbus_session (call)", " <policy>:3]"),
        ("mine (call)", "/bus.conf:3]"),
    ):
        (line,) = (x for x in section(result, f"D-Bus messages on {title}") if "refused:" in x)
        assert line.startswith('refused: Connection ":1.0" is not allowed to own the service')
        assert f"[{rule} " in line
        assert line.endswith(place)


def test_a_long_lived_bus_shows_the_messages_of_the_failing_test(run: Run) -> None:
    result = run(
        """
        @pytest.fixture(scope="module")
        def long(dbus_bus_factory):
            return dbus_bus_factory("long")

        @pytest.fixture(scope="module")
        def idle(dbus_bus_factory):
            return dbus_bus_factory("idle")

        @pytest.mark.parametrize("number", range(3))
        def test_it(long, idle, number):
            with open_dbus_connection(long.address) as connection:
                call(connection, message_bus.RequestName(f"com.example.A{number}"))
                assert number != 1
        """
    )
    result.assert_outcomes(passed=2, failed=1)
    told = "\n".join(section(result, "D-Bus messages on long (call)"))
    assert "'com.example.A1'" in told
    assert "com.example.A0" not in told
    assert section(result, "D-Bus messages on idle (call)") == []


def test_the_report_of_a_setup_or_teardown(run: Run) -> None:
    result = run(
        """
        def use():
            open_dbus_connection("SESSION").close()

        @pytest.fixture
        def bad(dbus_session):
            use()
            assert 0

        def test_setup(bad):
            pass

        @pytest.fixture
        def late(dbus_session):
            yield
            use()
            assert 0

        def test_teardown(late):
            pass

        def test_closed(dbus_session):
            use()
            dbus_session.close()
            assert 0
        """
    )
    result.assert_outcomes(passed=1, failed=1, errors=2)
    for phase in ("setup", "teardown", "call"):
        assert section(result, f"D-Bus messages on dbus_session ({phase})")


def test_how_many_messages_are_shown(run: Run) -> None:
    source = """
        def test_it(dbus_session):
            open_dbus_connection("SESSION").close()
            assert 0
        """
    title = "D-Bus messages on dbus_session (call)"
    assert len(section(run(source, "--afdbus-messages=2"), title)) == 2
    assert len(section(run(source, ini="afdbus_messages = 3"), title)) == 3
    assert section(run(source, "--afdbus-messages=0", ini="afdbus_messages = 3"), title) == []


LEAK = """
        kept = []

        def test_it(dbus_session):
            connection = open_dbus_connection("SESSION")
            call(connection, message_bus.RequestName("com.example.A"))
            kept.append(connection)
"""
LEFT = "left behind on dbus_session: :1.0 of this process, which owns or waits for com.example.A"


def test_connections_left_behind_are_a_warning(run: Run) -> None:
    result = run(LEAK, "-Wdefault", ini="afdbus_grace = 0")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines([f"*test_it.py:*: LeftBehindWarning: {LEFT}"])


def test_connections_left_behind_can_be_a_failure(run: Run) -> None:
    for arguments, ini in (
        (["--afdbus-leaks=fail"], ""),
        ([], "afdbus_leaks = fail"),
        ([], ""),  # the warning is an error
    ):
        result = run(LEAK, *arguments, ini=f"afdbus_grace = 0\n{ini}")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines([f"*{LEFT}"])


def test_connections_left_behind_can_be_nothing(run: Run) -> None:
    run(LEAK, "--afdbus-leaks=ignore").assert_outcomes(passed=1)
    run(LEAK, ini="afdbus_leaks = ignore").assert_outcomes(passed=1)
    marked = LEAK.replace("def test_it", '@pytest.mark.dbus(leaks="ignore")\n        def test_it')
    run(marked, "--afdbus-leaks=fail").assert_outcomes(passed=1)


def test_a_failed_test_is_not_blamed_for_what_it_left(run: Run) -> None:
    result = run(LEAK + "            assert 0\n", "--afdbus-leaks=fail")
    result.assert_outcomes(failed=1)


def test_a_connection_without_hello_is_left_behind(run: Run) -> None:
    result = run(
        """
        import socket
        kept = []

        def test_it(dbus_session):
            kept.append(socket.socket(socket.AF_UNIX))
            kept[0].connect("\\0" + dbus_session.name)
        """,
        "--afdbus-leaks=fail",
        ini="afdbus_grace = 0",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*: 1 without a name, which have not said Hello"])


def test_what_is_only_forgotten_is_not_left_behind(run: Run) -> None:
    """A cycle that nobody holds any more."""
    result = run(
        """
        def test_it(dbus_session):
            connection = open_dbus_connection("SESSION")
            connection.itself = connection
        """,
        "--afdbus-leaks=fail",
        "-Wignore::ResourceWarning",
        ini="afdbus_grace = 0",
    )
    result.assert_outcomes(passed=1)


def test_who_closes_late_has_time_for_it(run: Run) -> None:
    """Clients close in other threads, and in other processes; the check waits for the event."""
    result = run(
        """
        import threading
        from afdbus.pytest_plugin import keeper

        def test_it(dbus_session, monkeypatch):
            connection = open_dbus_connection("SESSION")
            asked = keeper.connections_left

            def late(*arguments):
                threading.Timer(0.1, connection.close).start()
                return asked(*arguments)

            keeper.connections_left = late
        """,
        "--afdbus-leaks=fail",
        ini="afdbus_grace = 60",
    )
    result.assert_outcomes(passed=1)
