"""docs/security.md names a test for each flaw, and each of these tests names the flaw."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
TEXT = (HERE / "docs" / "security.md").read_text()
ROWS = {
    cells[1].strip(): re.findall(r"`(tests/[^`]+\.py)::(\w+)`", cells[4])
    for line in TEXT.splitlines()
    if "::" in line and len(cells := line.split("|")) == 6
}


@pytest.mark.parametrize("flaw", ROWS)
def test_each_flaw_has_its_test(flaw: str) -> None:
    token = re.sub(r"\W+", "_", flaw.lower())
    assert ROWS[flaw], "no test"
    for file, name in ROWS[flaw]:
        tree = ast.parse((HERE / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions
        assert f"_{token}_" in name


def test_no_row_is_overlooked() -> None:
    written = [line for line in TEXT.splitlines() if line.startswith("|") and "---" not in line]
    assert len(ROWS) == len(written) - TEXT.count("\n|---")  # but for the heads of the tables
    assert len(ROWS) == len(set(ROWS)) >= 44
