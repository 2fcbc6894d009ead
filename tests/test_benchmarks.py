"""The comparison works; what it finds is not looked at, since time never decides a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

COMPARE = Path(__file__).parent.parent / "benchmarks" / "compare.py"
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
