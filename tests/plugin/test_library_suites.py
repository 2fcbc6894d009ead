"""jeepney's own tests, from its source distribution, each on a bus of the factory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# jeepney's tests look into the environment when they are imported, before there is a bus.
PLUGIN = """
import os
import pytest

os.environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"

@pytest.fixture(autouse=True)
def _bus(dbus_bus_factory):
    return dbus_bus_factory("suite", export=True)
"""


def test_jeepney(pytester: pytest.Pytester, tmp_path: Path) -> None:
    if os.environ.get("AFDBUS_TEST_REQUIRE") != "1":
        pytest.skip("downloads a package; set AFDBUS_TEST_REQUIRE=1")
    command = "-m pip download --quiet --no-deps --no-binary :all: jeepney"
    subprocess.run([sys.executable, *command.split()], cwd=tmp_path, check=True)
    (archive,) = tmp_path.glob("jeepney-*.tar.gz")
    subprocess.run(["tar", "xf", archive], cwd=tmp_path, check=True)
    # Beside the package that is installed, not instead of it.
    (suite,) = tmp_path.glob("jeepney-*/jeepney/io/tests")
    suite.rename(pytester.path / "io_tests")
    pytester.makepyfile(on_afdbus=PLUGIN)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    result = pytester.runpytest_subprocess("-p", "on_afdbus", "--afdbus-leaks=fail", timeout=240)
    outcomes = result.parseoutcomes()
    assert outcomes.pop("passed") >= 10
    assert not {*outcomes} & {"failed", "errors", "skipped"}
