"""The programs work; how fast, is not looked at, since time never decides a test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
COMPARE = BENCHMARKS / "compare.py"
SOME = "call: path|places$|10: interface$|many names$|absent"
QUICK = "ping|pairs|pipe|Owner|bcast 10|match 100$|churn|start"


@pytest.fixture(scope="module")
def compared(
    program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a comparison tells, quickly done."""
    program("dbus-daemon")
    told = tmp_path_factory.mktemp("compare") / "told.json"
    options = ["--rounds=1", "--secs=0.02", f"--only={QUICK}", f"--json={told}"]
    subprocess.run([sys.executable, COMPARE, *options], check=True)
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def test_compare(compared: dict[str, Any]) -> None:
    assert {row["scenario"] for row in compared["summary"]} == {
        "ping", "ping a{sv}", "ping every 5 ms", "64 pairs", "pipe 0", "pipe a{sv}", "pipe 1 KiB",
        "pipe 64 KiB", "NameHasOwner", "GetNameOwner", "bcast 10", "bcast 100",
        "bcast 10, one at a time", "bcast 100, one at a time", "match 100", "policy ping",
        "policy pipe 0", "churn", "start",
    }  # fmt: skip
    assert set(compared["versions"]) >= {"python", "kernel", "afdbus", "dbus-daemon"}
    for row in compared["summary"]:
        assert min(row["dbus-daemon"], row["afdbus"], row["ratios"]["dbus-daemon"]) > 0, row


def test_compare_with_dbus_broker(program: Callable[[str], str], compared: dict[str, Any]) -> None:
    """It takes part in all but the start, which is its launcher's."""
    program("dbus-broker")
    assert "dbus-broker" in compared["versions"]
    for row in compared["summary"]:
        assert ("dbus-broker" in row["ratios"]) == (row["scenario"] != "start"), row


def test_floor(program: Callable[[str], str], tmp_path: Path) -> None:
    """The relays do what a bus does in each of the scenarios."""
    program("dbus-daemon")
    told = tmp_path / "told.json"
    options = ["--rounds=1", "--secs=0.02", f"--json={told}"]
    subprocess.run([sys.executable, BENCHMARKS / "floor.py", *options], check=True)
    for row in json.loads(told.read_text())["summary"]:
        assert {"relay", "least", "dbus-daemon"} <= set(row["ratios"]), row


def test_plot(tmp_path: Path) -> None:
    picture = tmp_path / "compare.svg"
    options = ["--rounds=1", "--secs=0.02", "--only=^ping$", f"--plot={picture}"]
    subprocess.run([sys.executable, COMPARE, *options], check=True)
    assert "<svg" in picture.read_text()


def test_plot_without_matplotlib() -> None:
    """It is said before anything is measured."""
    code = (
        "import runpy, sys; sys.modules['matplotlib'] = None; sys.argv[1:] = ['--plot=x.svg'];"
        "sys.path.insert(0, '.'); runpy.run_path('compare.py', None, '__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, stderr=subprocess.PIPE, check=False
    )
    assert run.stderr == b"a plot needs matplotlib: pip install 'afdbus[benchmarks]'\n"
    assert run.returncode == 1


def test_growth(program: Callable[[str], str], tmp_path: Path) -> None:
    program("dbus-daemon")
    figures, picture = tmp_path / "growth.json", tmp_path / "growth.svg"
    options = ["--rounds=1", "--secs=0.01", "--largest=100", f"--json={figures}"]
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    if has_matplotlib:
        options.append(f"--plot={picture}")
    subprocess.run([sys.executable, BENCHMARKS / "growth.py", *options], check=True)
    curves = json.loads(figures.read_text())["curves"]
    assert {curve["thing"] for curve in curves} == {
        "connections", "names", "match rules", "open calls", "queued bytes"
    }  # fmt: skip
    for curve in curves:
        assert set(curve["cpu_us"]) == {"afdbus", "dbus-daemon"}
        for costs in curve["cpu_us"].values():
            assert len(costs) == len(curve["sizes"]) == 2
            assert min(min(cost) for cost in costs) > 0, curve
    assert picture.exists() == has_matplotlib


def test_headers(program: Callable[[str], str], tmp_path: Path) -> None:
    program("dbus-daemon")
    figures = tmp_path / "headers.json"
    options = ["--rounds=1", "--secs=0.01", f"--only={SOME}", f"--json={figures}"]
    subprocess.run([sys.executable, BENCHMARKS / "headers.py", *options], check=True)
    told = json.loads(figures.read_text())
    assert {row["scenario"] for row in told["summary"]} == {
        "call: path", "call: path, alone", "reply: places", "signal to 10: interface", "many names",
        "absent names", "absent names, alone",
    }  # fmt: skip
    for row in told["summary"]:
        assert min(row["dbus-daemon"], row["afdbus"], row["ratios"]["dbus-daemon"]) > 0, row


def test_latency(program: Callable[[str], str], tmp_path: Path) -> None:
    """Every situation: who disturbs does something, and is pinged beside."""
    program("dbus-daemon")
    file = tmp_path / "latency.json"
    options = ["--rounds=1", "--secs=0.02", f"--json={file}"]
    subprocess.run([sys.executable, BENCHMARKS / "latency.py", *options], check=True)
    told = json.loads(file.read_text())
    metrics: dict[str, set[str]] = {}
    for row in told["summary"]:
        assert min(row["dbus-daemon"], row["afdbus"], row["ratios"]["dbus-daemon"]) > 0, row
        metrics.setdefault(row["scenario"], set()).add(row["metric"])
    for situation, found in metrics.items():
        alone = {"p50_us", "p99_us"}
        assert found == alone | (set() if "nothing" in situation else {"disturbed_per_s"})
    assert len(metrics) == 13


def test_soak(program: Callable[[str], str], kind: str) -> None:
    """Some rounds of all that it does, with all that it checks.

    What grows in three rounds is no leak, unless it is a lot.
    """
    program("dbus-test-tool")
    command = [sys.executable, BENCHMARKS / "soak.py", "--rounds=3", "--share=1", "--growth=30"]
    run = subprocess.run(
        [*command, f"--daemon={kind}"], stdout=subprocess.PIPE, text=True, check=False
    )
    assert run.returncode == 0, run.stdout
    assert "window 3: 3 rounds" in run.stdout


def test_buses(program: Callable[[str], str]) -> None:
    """Some buses in one process, all isolated."""
    program("dbus-daemon")
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "buses.py", "--buses=20", "--rounds=1", "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(run.stdout)
    assert told["buses"] == 20
    assert min(told["ms"], told["daemon_ms"], told["ratio"], told["kib"]) > 0


def test_fixture() -> None:
    script = COMPARE.with_name("fixture.py")
    run = subprocess.run(
        [sys.executable, script, "--tests=3", "--json"], stdout=subprocess.PIPE, check=True
    )
    told = json.loads(run.stdout)
    assert set(told) == {"fixture", "fixture and client", "first"}
    assert told["first"] > 0


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each version has its own figures")
def test_instructions(program: Callable[[str], str]) -> None:
    """The road has not become longer: no more instructions than `KNOWN` there, and some slack."""
    program("valgrind")
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "instructions.py", "--daemon=afdbus"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
