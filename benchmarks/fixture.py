"""What the fixture `dbus_session` costs a test: setup and teardown, less those of an empty test.

    python benchmarks/fixture.py [--tests N] [--json]

Two kinds of test take turns in one run of pytest: one that asks for nothing, one that asks for a
bus and connects to it.  The figures are medians in milliseconds; the first test with a bus, which
imports it and starts its thread, is told by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import pytest

TESTS = """
import pytest
from jeepney.io.blocking import open_dbus_connection

@pytest.mark.parametrize("number", range({tests}))
class TestBoth:
    def test_empty(self, number):
        pass

    def test_bus(self, number, dbus_session):
        pass

    def test_client(self, number, dbus_session):
        open_dbus_connection("SESSION").close()
"""


class Clock:
    """A plugin that notes how long each test takes besides its own body."""

    def __init__(self) -> None:
        self.around: dict[str, list[float]] = {}
        self.inside: dict[str, list[float]] = {}
        self._setup = 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        kind = report.nodeid.split("::")[-1].split("[")[0]
        if report.when == "setup":
            self._setup = report.duration
        elif report.when == "call":
            self.inside.setdefault(kind, []).append(report.duration)
        else:
            self.around.setdefault(kind, []).append(self._setup + report.duration)


def measure(tests: int) -> dict[str, float]:
    """Milliseconds, by name."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_fixture.py").write_text(TESTS.format(tests=tests))
        # Nothing of the configuration around us, and no plugins that would measure themselves.
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        arguments = ["-p", "afdbus.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:terminal"]
        arguments += ["-c", os.devnull, "--rootdir", directory, directory]
        status = pytest.main(arguments, [clock])
    if status != 0:
        raise SystemExit(f"the tests failed: {status}")
    empty = statistics.median(clock.around["test_empty"])
    first, *others = clock.around["test_bus"]
    return {
        "fixture": (statistics.median(others) - empty) * 1000,
        "fixture and client": (statistics.median(clock.around["test_client"]) - empty) * 1000
        + statistics.median(clock.inside["test_client"]) * 1000,
        "first": (first - empty) * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the fixture dbus_session costs a test.")
    parser.add_argument("--tests", type=int, default=200, help="how many of each kind")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told = measure(options.tests)
    if options.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:20}{value:8.2f} ms")


if __name__ == "__main__":
    main()
