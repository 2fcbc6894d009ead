"""What tests do to their bus that nobody has asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]

STRICT = "--afdbus-leaks=fail"


def test_a_test_closes_its_bus(run: Run) -> None:
    result = run(
        """
        def test_it(dbus_session):
            connection = open_dbus_connection("SESSION")
            dbus_session.close()
            with connection, pytest.raises(ConnectionResetError):
                while True:
                    connection.receive(timeout=60)
            dbus_session.close()
            with pytest.raises(ConnectionRefusedError):
                open_dbus_connection("SESSION")

        def test_after(dbus_session):
            open_dbus_connection("SESSION").close()
        """,
        STRICT,
    )
    result.assert_outcomes(passed=2)


def test_a_test_forks(run: Run) -> None:
    """The child keeps nothing of the bus, may make another, and leave as it likes."""
    result = run(
        """
        import traceback

        def in_child(deed):
            child = os.fork()
            if child == 0:
                try:
                    deed()
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        def test_it(dbus_session, dbus_bus_factory):
            def use():
                open_dbus_connection("SESSION").close()  # the parent's
                assert dbus_session.closed
                assert dbus_session.messages is not None
                dbus_session.close()
                bus = dbus_bus_factory()
                open_dbus_connection(bus.address).close()

            in_child(use)
            with open_dbus_connection("SESSION") as connection:
                assert connection.unique_name == ":1.1"

        def test_exit(dbus_session):
            import multiprocessing
            child = multiprocessing.get_context("fork").Process(target=open_and_leave)
            child.start()
            child.join()
            assert child.exitcode == 0

        def open_and_leave():
            open_dbus_connection("SESSION")
        """,
        STRICT,
        "-Wignore::DeprecationWarning",  # to fork with threads
        ini="afdbus_grace = 60",
    )
    result.assert_outcomes(passed=2)


def test_a_test_leaves_a_process(run: Run) -> None:
    """It is named; it loses its connection, and is not ours to kill."""
    result = run(
        """
        import subprocess
        left = []
        PROGRAM = '''
        from jeepney.io.blocking import open_dbus_connection
        connection = open_dbus_connection()
        while True:
            connection.receive()
        '''

        def test_it(dbus_session):
            command = [sys.executable, "-c", PROGRAM.replace("        ", "")]
            left.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            dbus_session.wait_until(lambda now: now.connections, 60)

        def test_after():
            "It has noticed the end of its bus."
            assert left[0].wait(60) == 1
        """,
        STRICT,
        ini="afdbus_grace = 0",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.re_match_lines([r".*left behind on dbus_session: :1\.0 of process \d+ \(.+\)$"])


def test_a_fixture_of_a_session_wants_the_bus_of_a_test(run: Run) -> None:
    """pytest says what is wrong."""
    result = run(
        """
        @pytest.fixture(scope="session")
        def broad(dbus_session):
            return dbus_session

        def test_it(broad):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["ScopeMismatch*dbus_session*"])


def test_own_fixtures_may_take_the_names(run: Run) -> None:
    """Such as a dbus_session for a whole module."""
    result = run(
        """
        @pytest.fixture(scope="module")
        def dbus_session(dbus_bus_factory):
            return dbus_bus_factory("mine", export=True)

        @pytest.mark.parametrize("number", range(2))
        def test_it(dbus_session, number):
            with open_dbus_connection("SESSION") as connection:
                assert connection.unique_name == f":1.{number}"
        """,
        STRICT,
    )
    result.assert_outcomes(passed=2)


def test_a_fixture_fails_after_it_has_made_a_bus(run: Run) -> None:
    result = run(
        """
        made = []

        @pytest.fixture
        def bad(dbus_bus_factory):
            made.append(dbus_bus_factory(export=True))
            raise RuntimeError

        def test_it(bad):
            pass

        def test_after():
            assert made[0].closed
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == "unix:path=/nonexistent"
        """
    )
    result.assert_outcomes(passed=1, errors=1)


def test_wrong_arguments(run: Run) -> None:
    result = run(
        """
        @pytest.mark.dbus("sesion")
        def test_type(dbus_session):
            pass

        @pytest.mark.dbus(polices="")
        def test_name(dbus_session):
            pass

        @pytest.mark.dbus(policy="<policy><alow own='*'/></policy>")
        def test_policy(dbus_session):
            pass

        @pytest.mark.dbus(leaks="maybe")
        def test_leaks(dbus_session):
            pass

        def test_after():
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == "unix:path=/nonexistent"
        """
    )
    result.assert_outcomes(passed=1, errors=4)
    result.stdout.fnmatch_lines(["*pytest.mark.dbus does not know 'sesion'"])
    result.stdout.fnmatch_lines(["*pytest.mark.dbus does not know polices"])
    result.stdout.fnmatch_lines(["*ConfigError: *<policy>*"])
    result.stdout.fnmatch_lines(["*leaks is none of warn, fail, ignore: 'maybe'"])
    for ini, complaint in (
        ("afdbus_leaks = maybe", "afdbus_leaks is none of warn, fail, ignore: 'maybe'"),
        ("afdbus_messages = many", "afdbus_messages is no number: 'many'"),
    ):
        refused = run("", ini=ini)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines([f"ERROR: {complaint}"])


def test_ini_keys_for_files(run: Run, pytester: pytest.Pytester) -> None:
    """Configurations and services by relative paths, whatever the working directory is."""
    pytester.mkdir("services").joinpath("a.service").write_text(
        "[D-BUS Service]\nName=com.example.A\nExec=/bin/false\n"
    )
    pytester.mkdir("etc").joinpath("bus.conf").write_text(
        '<busconfig><type>session</type><policy context="default"><allow send_destination="*"/>'
        '<allow receive_sender="*"/><deny own="*"/></policy></busconfig>'
    )
    result = run(
        """
        def test_it(dbus_session, dbus_system, monkeypatch):
            for bus in (dbus_session, dbus_system):
                with open_dbus_connection(bus.address) as connection:
                    assert "com.example.A" in call(connection, message_bus.ListActivatableNames())
                    assert "not allowed" in call(connection, message_bus.RequestName("a.b"))
        """,
        STRICT,
        ini="afdbus_services = services\nafdbus_session_config = etc/bus.conf",
    )
    result.assert_outcomes(passed=1)


def test_without_the_plugin(run: Run) -> None:
    result = run(
        """
        def test_it(dbus_session):
            pass
        """,
        "-p", "no:afdbus",
    )  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'dbus_session' not found"])


def test_importlib_and_two_hosts_and_a_run_inside(run: Run) -> None:
    result = run(
        """
        from afdbus import ThreadHost
        pytest_plugins = ["pytester"]

        def test_inside(pytester, dbus_session):
            pytester.makepyfile(
                "import os\\n"
                "def test_it(dbus_session):\\n"
                "    assert os.environ['DBUS_SESSION_BUS_ADDRESS'] == dbus_session.address\\n"
                f"    assert dbus_session.address != {dbus_session.address!r}\\n"
            )
            arguments = ("-p", "no:asyncio", "-p", "no:trio", "-p", "no:anyio")
            pytester.runpytest_inprocess(*arguments).assert_outcomes(passed=1)
            assert os.environ["DBUS_SESSION_BUS_ADDRESS"] == dbus_session.address
            open_dbus_connection("SESSION").close()

        def test_hosts(dbus_session):
            with ThreadHost() as host:
                open_dbus_connection(host.create_bus().address).close()
                open_dbus_connection("SESSION").close()
            open_dbus_connection("SESSION").close()
        """,
        STRICT,
        "--import-mode=importlib",
    )
    result.assert_outcomes(passed=2)


AGAIN = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    runtestprotocol(item, log=False, nextitem=nextitem)
    item._initrequest()
    runtestprotocol(item, log=True, nextitem=nextitem)
    return True
"""


def test_a_test_runs_again(run: Run, pytester: pytest.Pytester) -> None:
    """As plugins do that give a failing test another chance."""
    pytester.makepyfile(again=AGAIN)
    result = run(
        """
        made = []

        def test_it(dbus_bus_factory, dbus_session):
            assert all(bus.closed for bus in made)
            made.append(dbus_bus_factory())
            open_dbus_connection("SESSION").close()
            assert len(made) == 1

        def test_after():
            assert [bus.closed for bus in made] == [True, True]
        """,
        "-p", "again", STRICT,
    )  # fmt: skip
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- D-Bus messages on dbus_session (call) -*"])


def test_ctrl_c_in_the_middle(run: Run) -> None:
    """Everything is put away, and pytest says that it was interrupted."""
    result = run(
        """
        import atexit
        import signal
        import threading

        @pytest.fixture(scope="session", autouse=True)
        def told():
            atexit.register(lambda: print("threads:", threading.active_count(), "address:",
                                          os.environ["DBUS_SESSION_BUS_ADDRESS"]))

        def test_it(dbus_session):
            connection = open_dbus_connection("SESSION")
            os.kill(os.getpid(), signal.SIGINT)
            dbus_session.wait_for_name("com.example.Never", 60)
        """,
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["threads: 1 address: unix:path=/nonexistent"])


def test_nothing_is_left_of_many_tests(run: Run, pytester: pytest.Pytester) -> None:
    """No thread, no socket, no process: of the workers neither."""
    result = run(
        """
        import atexit
        import threading

        @pytest.fixture(scope="session", autouse=True)
        def told(pytestconfig):
            def tell():
                names = [thread.name for thread in threading.enumerate()]
                sockets = [fd for fd in os.listdir("/proc/self/fd") if is_socket(fd)]
                with open(pytestconfig.rootpath / f"told-{os.getpid()}", "w") as file:
                    print(names, sockets, file=file)
            atexit.register(tell)

        def is_socket(fd):
            try:
                return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
            except FileNotFoundError:
                return False

        @pytest.mark.parametrize("number", range(200))
        def test_it(dbus_session, number, pytestconfig):
            with open_dbus_connection("SESSION") as connection:
                assert call(connection, message_bus.RequestName("com.example.A")) == 1
            with open(pytestconfig.rootpath / f"names-{os.getpid()}", "a") as file:
                print(dbus_session.name, file=file)
        """,
        "-n", "2", STRICT,
    )  # fmt: skip
    result.assert_outcomes(passed=200)
    told = [*pytester.path.glob("told-*")]
    assert [file.read_text() for file in told] == ["['MainThread'] []\n"] * 2
    for file in told:
        assert not is_worker(file.name.removeprefix("told-"))
    names = {name for file in pytester.path.glob("names-*") for name in file.read_text().split()}
    assert len(names) == 200
    with open("/proc/net/unix") as sockets:
        assert not [line for line in sockets if line.split("@")[-1].strip() in names]


def is_worker(pid: str) -> bool:
    """Whether a worker of pytest-xdist has this number; it may be somebody else's by now."""
    try:
        return b"execnet" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
