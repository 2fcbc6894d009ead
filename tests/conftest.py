"""Fixtures of all tests: a daemon of either kind, and clients on it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator

import pytest

pytest_plugins = ["pytester"]
pytest.register_assert_rewrite("kit")

from kit import DAEMONS, Daemon, RawClient, busconfig  # noqa: E402


def pytest_configure() -> None:
    """What a shell starts in the background ignores these, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def require(program: str) -> str:
    """The path of an installed program.

    Without it the test is skipped, or fails where everything must be there (CI).
    """
    path = shutil.which(program)
    if path is None:
        if os.environ.get("AFDBUS_TEST_REQUIRE") == "1":
            pytest.fail(f"{program} is not installed, and AFDBUS_TEST_REQUIRE=1")
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Find a program, or skip; see `require`."""
    return require


@pytest.fixture(scope="session", params=list(DAEMONS))
def kind(request: pytest.FixtureRequest) -> str:
    """The daemon under test: the reference as the oracle, then ours."""
    name: str = request.param
    if name == "dbus-daemon":
        require(name)
    return name


@pytest.fixture(scope="module")
def module_daemon(kind: str) -> Iterator[Daemon]:
    with Daemon(kind) as running:
        running.watch()
        yield running


@pytest.fixture
def daemon(module_daemon: Daemon) -> Iterator[Daemon]:
    """A daemon with an open policy, shared by the tests of a module, clean at each start."""
    yield module_daemon
    module_daemon.settle()


@pytest.fixture
def start(kind: str) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon of one's own: `start(more, limit=..., policy=...)` as for `busconfig`."""
    running: list[Daemon] = []

    def begin(more: str = "", **rest: object) -> Daemon:
        running.append(Daemon(kind, busconfig(more, **rest)))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for daemon in running:
        daemon.stop()


@pytest.fixture
def alice(daemon: Daemon) -> RawClient:
    return daemon.connect()


@pytest.fixture
def bob(daemon: Daemon) -> RawClient:
    return daemon.connect()


@pytest.fixture
def carol(daemon: Daemon) -> RawClient:
    return daemon.connect()
