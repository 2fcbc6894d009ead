"""`policy test`: expectations in a file, for continuous integration."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import afdbus
from policies import Scratch

CONFIG = """
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
<allow send_destination="com.example.S"/>
<allow receive_type="method_call"/>
</policy>
<policy user="root"><allow own="com.example.S"/></policy>"""

CASES = """
config = "bus.conf"

[[case]]
name = "everybody calls"
expect = "allowed"
user = "nobody"
send = true
destination = "com.example.S"
interface = "com.example.I"
member = "M"
to_user = "root"

[[case]]
name = "nobody calls others"
expect = "denied"
uid = 65534
send = true
destination = "com.example.T"
member = "M"

[[case]]
name = "root owns it"
expect = "allowed"
user = "root"
gids = [0, 7]
own = "com.example.S"

[[case]]
name = "nobody owns it"
expect = "denied"
user = "nobody"
own = "com.example.S"

[[case]]
name = "all connect"
expect = "allowed"
user = "nobody"
connect = true

[[case]]
name = "signals are not received"
expect = "denied"
user = "nobody"
receive = true
type = "signal"
interface = "a.b"
sender = ["com.example.S"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Scratch(tmp_path).file("bus.conf", CONFIG, listen="<listen>unix:tmpdir=/tmp</listen>")
    (tmp_path / "cases.toml").write_text(CASES)
    return tmp_path


def test_all_as_expected(folder: Path) -> None:
    run = afdbus("policy", "test", folder / "cases.toml")
    assert (run.returncode, run.stdout, run.stderr) == (0, "6 cases, 0 not as expected\n", "")


def test_differences_are_told_with_their_rule(folder: Path) -> None:
    text = CASES.replace('"allowed"', '"?"').replace('"denied"', '"allowed"')
    (folder / "cases.toml").write_text(text.replace('"?"', '"denied"'))
    run = afdbus("policy", "test", folder / "cases.toml")
    assert run.returncode == 1
    config = folder / "bus.conf"
    assert run.stdout == (
        "everybody calls: expected denied, got allowed\n"
        "  nobody (uid 65534) sends a method_call interface=com.example.I member=M to "
        "com.example.S received by root (uid 0)\n"
        f'  {config}:3: <allow send_destination="com.example.S"/>\n'
        "nobody calls others: expected allowed, got denied\n"
        "  nobody (uid 65534) sends a method_call member=M to com.example.T\n"
        f'  {config}:2: <deny send_type="method_call"/>\n'
        "root owns it: expected denied, got allowed\n"
        "  root (uid 0) owns com.example.S\n"
        f'  {config}:6: <allow own="com.example.S"/>\n'
        "nobody owns it: expected allowed, got denied\n"
        "  nobody (uid 65534) owns com.example.S\n"
        f'  {config}:2: <deny own="*"/>\n'
        "all connect: expected denied, got allowed\n"
        "  nobody (uid 65534) connects\n"
        f'  {config}:2: <allow user="*"/>\n'
        "signals are not received: expected allowed, got denied\n"
        "  nobody (uid 65534) receives a signal interface=a.b from com.example.S\n"
        "  no receive rule of nobody (uid 65534) fits\n"
        "6 cases, 6 not as expected\n"
    )


def test_another_configuration(folder: Path) -> None:
    rules = '<policy context="default"><allow own="*"/><allow user="*"/></policy>'
    other = Scratch(folder).file("other.conf", rules)
    run = afdbus("policy", "test", "--config-file", other, folder / "cases.toml")
    assert run.returncode == 1
    assert run.stdout.endswith("6 cases, 2 not as expected\n")


A_CASE = '[[case]]\nname = "a"\nexpect = "allowed"\nuser = "root"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[case]", "cases.toml: Expected"),
        ("\xff", "cases.toml: 'utf-8' codec"),
        ("", "there is no [[case]]"),
        ("case = 1", "cases are written as [[case]]"),
        ("case = [1]", "cases are written as [[case]]"),
        (f"config = 1\n{A_CASE}connect = true", "config must be"),
        (f"other = 1\n{A_CASE}connect = true", "there is nothing called 'other'"),
        (f"{A_CASE}connect = true", "names no config"),
        ('[[case]]\nexpect = "allowed"', "case number 1: it needs a name"),
        ('[[case]]\nname = "a"', 'case a: expect must be "allowed" or "denied"'),
        (A_CASE, "case a: what? Give one of send"),
        (f'{A_CASE}send = true\ndestination = "a.b"\ncolour = "red"', "no field 'colour'"),
        (f"{A_CASE}own = true", "own must be a text, not True"),
        (f"{A_CASE}send = 1", "send must be true or false, not 1"),
        (f'{A_CASE}gids = ["0"]\nconnect = true', "gids cannot be '0'"),
        (f"{A_CASE}gids = 0\nconnect = true", "gids must be a list, not 0"),
        (f'{A_CASE}receive = true\nsender = ["x"]', "sender cannot be 'x'"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cases.toml").write_bytes(text.encode("latin-1"))
    run = afdbus("policy", "test", tmp_path / "cases.toml")
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr


def test_a_file_or_configuration_that_is_not_there(folder: Path) -> None:
    run = afdbus("policy", "test", folder / "none.toml")
    assert (run.returncode, run.stderr) == (
        2, f"afdbus policy: {folder}/none.toml: No such file or directory\n"
    )  # fmt: skip
    (folder / "bus.conf").unlink()
    assert afdbus("policy", "test", folder / "cases.toml").returncode == 2
