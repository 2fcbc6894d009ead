"""What docs/testing.md shows works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., pytest.RunResult]

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "testing.md").read_text()
DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


FIRST, *EXAMPLES = blocks("python")


def test_the_examples(run: Run, pytester: pytest.Pytester, program: Callable[[str], str]) -> None:
    """All at once: they are test files."""
    program("dbus-send")
    arguments = ["-p", "pytest_asyncio.plugin", "-p", "pytest_trio.plugin"]
    readme = (ROOT / "README.md").read_text()
    told = [source for source in blocks("python", readme) if "def test_" in source]
    assert told
    examples = [FIRST, *EXAMPLES, *told]
    if not has_gi():
        examples = [source for source in examples if "gi.repository" not in source]
    pytester.makepyfile(**{f"test_{number}": source for number, source in enumerate(examples)})
    pytester.makeconftest(f"import sys\nsys.path.append({DEBIAN_PACKAGES!r})\n")
    result = run(
        "",
        *arguments,
        "--afdbus-leaks=fail",
        "-Wdefault",  # PyGObject has a few
        ini="asyncio_default_fixture_loop_scope = function\nafdbus_grace = 60",
        head="",
    )
    tests = sum(source.count("def test_") for source in examples)
    result.assert_outcomes(passed=tests)


def has_gi() -> bool:
    probe = [sys.executable, "-c", "from gi.repository import Gio"]
    environment = {**os.environ, "PYTHONPATH": DEBIAN_PACKAGES}
    found = subprocess.run(probe, env=environment, check=False).returncode == 0
    assert found or os.environ.get("AFDBUS_TEST_REQUIRE") != "1", "python3-gi is not installed"
    return found


def test_the_table_of_options_is_whole(run: Run) -> None:
    """Options, ini keys, fixtures and the marker's arguments."""
    told = "\n".join(run("", "--help", head="").outlines)
    for word in set(re.findall(r"--afdbus-[a-z]+|afdbus_[a-z_]+", TEXT)):
        assert word in told, word
    fixtures = run("", "--fixtures", head="").outlines
    for name in ("dbus_session", "dbus_system", "dbus_buses", "dbus_bus_factory"):
        assert any(line.startswith(name) for line in fixtures)
        assert f"| `{name}` |" in TEXT
    assert not [line for line in fixtures if "no docstring" in line]
    (marker,) = (line for line in run("", "--markers", head="").outlines if "mark.dbus(" in line)
    for argument in ("config", "policy", "services", "messages", "leaks"):
        assert f"{argument}=" in marker


def commands_of_ci() -> set[tuple[str, ...]]:
    """What the recipes for CI services run: each is a list of commands."""
    github, gitlab = map(yaml.safe_load, blocks("yaml"))
    steps = github["jobs"]["tests"]["steps"]
    return {tuple(step["run"] for step in steps if "run" in step), tuple(gitlab["tests"]["script"])}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the first example as its test."""
    if os.environ.get("AFDBUS_TEST_REQUIRE") != "1":
        pytest.skip("installs packages from the network; set AFDBUS_TEST_REQUIRE=1")
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "test_first.py").write_text(FIRST)
    for name in ("DBUS_SESSION_BUS_ADDRESS", "PYTHONPATH", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    return directory


def ours(command: str) -> str:
    """The command with our working tree for what a user gets from an index."""
    return re.sub(r"\bafdbus\b", str(ROOT), command)


def test_the_recipes_for_ci_services(project: Path, tmp_path: Path) -> None:
    """In a clean environment, with no program to be found but its own."""
    (commands,) = commands_of_ci()
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    for command in commands:
        run = subprocess.run(
            [bin_ / "python", *shlex.split(ours(command))[1:]],
            cwd=project, env={"PATH": str(bin_), "HOME": str(tmp_path)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout


def test_the_recipe_for_tox(project: Path) -> None:
    (text,) = blocks("ini")
    (project / "tox.ini").write_text(ours(text))
    command = [sys.executable, "-m", "tox", "--quiet"]
    run = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout


def test_the_recipe_for_xvfb(tmp_path: Path, program: Callable[[str], str]) -> None:
    program("xvfb-run")
    (tmp_path / "test_first.py").write_text(FIRST)
    (command,) = blocks("sh")
    python = shlex.quote(sys.executable)
    run = subprocess.run(
        command.strip().replace(" python ", f" {python} ") + " -p no:asyncio", shell=True,
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout
