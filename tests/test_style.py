"""The checkers run with the tests, so that nobody has to remember them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command", [["ruff", "check", "--quiet"], ["mypy", "--no-error-summary"]], ids=["ruff", "mypy"]
)
def test_nothing_to_complain_of(command: list[str]) -> None:
    """What is checked, and how strictly, is in pyproject.toml."""
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
