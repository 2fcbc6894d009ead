"""The reference's own tests of its daemon, each of its cases a test of ours.

A case passes, or it does not apply here (it says so itself, and does so with dbus-daemon, too).
As root the programs that may are played a second time without privileges.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dbustests import TESTS, Place, list_cases, play_case, read_tap
from kit import Daemon, busconfig

PROGRAMS = [
    "test-containers",
    "test-dbus-daemon",
    "test-dbus-daemon-eavesdrop",
    "test-header-fields",
    "test-monitor",
    "test-sd-activation",
    "test-uid-permissions",
    "manual-test-thread-blocking",
]
"""Those that start the daemon.  All others try libdbus alone."""

UNPRIVILEGED = ["test-dbus-daemon", "test-header-fields", "test-monitor", "test-sd-activation"]
"""Played as nobody as well.  The rest needs root or does the same again."""

WITHOUT_CONTAINERS = ["/containers/get-supported-arguments", "/containers/invalid-metadata-getters"]
"""What is left of test-containers where libdbus is built without containers, as in Debian."""

CASES = [
    pytest.param(program, case, user, id=f"{program}{'' if user is None else '@' + user}:{case}")
    for user, programs in ((None, PROGRAMS), ("nobody", UNPRIVILEGED))
    if user is None or os.geteuid() == 0
    for program in programs
    for case in list_cases(program)
    if program != "test-containers" or case in WITHOUT_CONTAINERS
]


SCRIPTS = {
    "test-dbus-daemon-fork.sh": 3,
    "integration/transient-services.sh": 1,
    "../../debug-build/libexec/installed-tests/dbus/test-dbus-launch-eval.sh": 1,
}
"""Shell scripts, and how many of their cases pass; transient-services.sh has one for systemd."""


@functools.cache
def complaint(user: str | None) -> str:
    """Empty if that user can start the daemon, else what happens."""
    place = Place("afdbus", user)
    try:
        status, output = place.play([place.env["DBUS_TEST_DAEMON"], "--version"])
    finally:
        place.close()
    return "" if status == 0 else output or f"exit status {status}"


@pytest.mark.parametrize(("program", "case", "user"), CASES)
def test_case(program: str, case: str, user: str | None) -> None:
    if complaint(user):
        give_up = pytest.fail if os.environ.get("AFDBUS_TEST_REQUIRE") == "1" else pytest.skip
        give_up(f"{user} cannot run the daemon: {complaint(user)}")
    result = play_case("afdbus", program, case, user)
    if result.status == "skip":
        if shutil.which("dbus-daemon"):
            assert play_case("dbus-daemon", program, case, user).status == "skip"
        pytest.skip(result.reason)
    if result.status != "ok":
        pytest.fail(f"{result.status}, {result.reason}\n{result.output}", pytrace=False)


class SessionBus(Daemon):
    """A bus where that of a session is: in the runtime directory of the place."""

    def __init__(self, place: Place) -> None:
        self.runtime_directory = str(place.run_dir)
        listen = f"unix:path={self.runtime_directory}/bus"
        super().__init__("afdbus", busconfig("<standard_session_servicedirs/>", listen=listen))

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "XDG_RUNTIME_DIR": self.runtime_directory}


@pytest.mark.parametrize("script", SCRIPTS, ids=os.path.basename)
def test_script(script: str, program: Callable[[str], str]) -> None:
    path = program(str(TESTS / script) if TESTS else script)
    place = Place("afdbus")
    bus = SessionBus(place)
    more = {
        "DBUS_TEST_DBUS_LAUNCH": str(Path(path).parents[3] / "bin/dbus-launch"),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus.runtime_directory}/bus",
    }
    try:
        status, output = place.play([path], more)
    finally:
        bus.stop()
        place.close()
    results = [status for status, _ in read_tap(output).values()]
    assert status == 0, output
    assert results.count("ok") == SCRIPTS[script], output
    assert "not ok" not in results, output


def test_there_is_something_to_play(program: Callable[[str], str]) -> None:
    """A moved directory must not look like success."""
    for name in PROGRAMS:
        program(str(TESTS / name) if TESTS else name)
    cases = {case for name in PROGRAMS for case in list_cases(name)}
    assert len(cases) >= 80
    assert cases.issuperset(WITHOUT_CONTAINERS)
