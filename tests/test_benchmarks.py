"""The programs work; how fast, is not looked at, since time never decides a test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
COMPARE = BENCHMARKS / "compare.py"
SOME = "call: path|places$|10: interface$|many names$|absent"
QUICK = "ping|pairs|pipe|driver|bcast 10$|churn|start"


def test_compare(program: Callable[[str], str]) -> None:
    program("dbus-daemon")
    run = subprocess.run(
        [sys.executable, COMPARE, "--rounds=1", "--secs=0.02", f"--only={QUICK}", "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(run.stdout)
    assert set(told["versions"]) == {"python", "kernel", "afdbus", "dbus-daemon"}
    assert {row["scenario"] for row in told["summary"]} == {
        "ping", "ping a{sv}", "64 pairs", "pipe 0", "pipe a{sv}", "pipe 1 KiB", "pipe 64 KiB",
        "driver", "bcast 10", "churn", "start",
    }  # fmt: skip
    for row in told["summary"]:
        assert min(row["dbus-daemon"], row["afdbus"], row["ratio"]) > 0, row


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

def test_headers(program: Callable[[str], str]) -> None:
    program("dbus-daemon")
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "headers.py", "--rounds=1", "--secs=0.01", f"--only={SOME}",
         "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    told = json.loads(run.stdout)
    assert {row["scenario"] for row in told["summary"]} == {
        "call: path", "call: path, alone", "reply: places", "signal to 10: interface", "many names",
        "absent names", "absent names, alone",
    }  # fmt: skip
    for row in told["summary"]:
        assert min(row["dbus-daemon"], row["afdbus"], row["ratio"]) > 0, row


def test_latency(program: Callable[[str], str]) -> None:
    """Every situation: who disturbs does something, and is pinged beside."""
    program("dbus-daemon")
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "latency.py", "--rounds=1", "--secs=0.02", "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(run.stdout)
    metrics: dict[str, set[str]] = {}
    for row in told["summary"]:
        assert min(row["dbus-daemon"], row["afdbus"], row["ratio"]) > 0, row
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
