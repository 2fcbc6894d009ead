"""docs/policy.md: its files are written, its commands run, and print what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from commands import afdbus

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"


def test_the_examples_are_true(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A block of XML or TOML is the file that was named last before it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(DOCUMENT.parents[1]))
    text = DOCUMENT.read_text()
    ran = 0
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        kind, content = block.groups()
        if kind in ("xml", "toml"):
            path = Path(re.findall(r"`([\w./]+\.(?:conf|toml))`", text[: block.start()])[-1])
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
            continue
        assert kind == "console"
        status = 0
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", content, re.MULTILINE):
            if command == "echo $?":
                assert expected == f"{status}\n"
                continue
            program, *arguments = shlex.split(command)
            assert program == "afdbus"
            run = afdbus(*arguments)
            assert (run.stdout, run.stderr) == (expected, ""), command
            status = run.returncode
            ran += 1
    assert ran >= 5


def test_all_fields_of_a_case_are_told() -> None:
    from afdbus.tools.questions import FIELDS

    table = DOCUMENT.read_text().partition("| field | value |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) - {"true"} == set(FIELDS)
