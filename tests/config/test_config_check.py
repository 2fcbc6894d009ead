"""All that is wrong with a configuration, each thing once."""

from __future__ import annotations

from pathlib import Path

import pytest
from policies import Scratch

from afdbus.config.check import Finding, check
from afdbus.config.load import load
from afdbus.errors import ConfigError


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def found(path: Path) -> list[tuple[str, int, bool]]:
    return [(Path(f.file).name, f.line, f.is_error) for f in check(str(path)).findings]


BROKEN = """
<nonsense/>
<limit name="max_bees">1</limit>
<limit>1</limit>
<policy context="default">
  <allow bees="1" send_type="letter" min_fds="-1"/>
  <allow own="a.b"/>
  <deny/>
  <allow send_destination="a.b" receive_sender="a.b"/>
  <allow send_member="M">text<b/></allow>
  <maybe own="a.b"/>
</policy>
<policy context="sometimes"><deny eavesdrop="perhaps"/></policy>
<policy><deny own_prefix="a" user="root"/></policy>
<policy user="no-such-user"><allow own="a.b"/></policy>
<policy user="root"><allow user="root"/></policy>
<auth>GUESS</auth>
<include ignore_missing="perhaps">not-there.conf</include>
<selinux><associate/><own/></selinux>
<type/>
"""


def test_every_error_of_a_file(scratch: Scratch) -> None:
    path = scratch.file("bus.conf", BROKEN, listen="<listen>unix:tmpdir=/tmp</listen>")
    assert found(path) == [
        ("bus.conf", line, is_error)
        for line, is_error in [
            (2, True), (3, True), (4, True), (6, True), (6, True), (6, True), (8, True), (9, True),
            (10, True), (10, True), (10, True), (11, True), (13, True), (13, True), (14, True),
            (14, True), (15, False), (16, True), (17, True), (18, True), (18, True), (19, True),
            (19, True), (20, True),
        ]
    ]  # fmt: skip


def test_the_first_is_the_one_that_ends_the_loading(scratch: Scratch) -> None:
    """Error by error: with the first one's line emptied, `load` comes to the second."""
    lines = BROKEN.split("\n")
    told = set()
    while True:
        path = scratch.file(
            "bus.conf", "\n".join(lines), listen="<listen>unix:tmpdir=/tmp</listen>"
        )
        errors = [finding for finding in check(str(path)).findings if finding.is_error]
        if not errors:
            break
        with pytest.raises(ConfigError) as caught:
            load(str(path))
        assert (caught.value.line, caught.value.text) == (errors[0].line, errors[0].text)
        assert errors[0].line not in told
        told.add(errors[0].line)
        lines[errors[0].line - 1] = (
            '<policy context="default">'
            if "<policy" in lines[errors[0].line - 1]
            and "</policy>" not in lines[errors[0].line - 1]
            else ""
        )
    load(str(path))
    assert len(told) == 15


def test_in_included_files_too_and_once(scratch: Scratch) -> None:
    scratch.file("twice.conf", "\n<bees/>")
    scratch.file("a.conf", "<include>twice.conf</include>\n<bees/>")
    scratch.file("b.conf", "\n<include>./twice.conf</include>\n<bees/>")
    scratch.file("d/one.conf", "\n\n<bees/>")
    scratch.file("d/two.conf", b"<busconfig>\n<a></b>")
    path = scratch.file(
        "bus.conf",
        "<include>a.conf</include><include>b.conf</include><include>a.conf</include>\n"
        "<includedir>d</includedir>\n<include>gone.conf</include>\n"
        '<include ignore_missing="yes">gone.conf</include>',
        listen="<listen>unix:tmpdir=/tmp</listen>",
    )
    places = found(path)
    assert sorted(places) == [
        ("a.conf", 2, True),
        ("b.conf", 3, True),
        ("bus.conf", 3, True),
        ("one.conf", 3, True),
        ("twice.conf", 2, True),
        ("two.conf", 2, True),
    ]
    names = [Path(file).name for file in check(str(path)).files]
    assert sorted(names) == [
        "a.conf", "b.conf", "bus.conf", "one.conf", "twice.conf", "two.conf"
    ]  # fmt: skip


def test_circles_end_and_are_told(scratch: Scratch) -> None:
    scratch.file("a.conf", "\n<include>a.conf</include>\n<include>b.conf</include>")
    scratch.file("c.conf", "\n<include>./c.conf</include>")
    path = scratch.file("b.conf", "<include>a.conf</include>\n<include>c.conf</include>")
    assert found(path) == [("a.conf", 2, True), ("a.conf", 3, True), ("c.conf", 2, True)]
    path = scratch.file("d.conf", "\n<include>./d.conf</include>")
    assert found(path) == [("d.conf", 2, True)]


def test_many_includes_of_many_includes_take_no_time(scratch: Scratch) -> None:
    """2 to the 50th files, if each were read as often as it is included."""
    for number in range(50):
        scratch.file(f"{number}.conf", f"<include>{number + 1}.conf</include>" * 2)
    scratch.file("50.conf", "\n<bees/>")
    assert found(scratch.folder / "0.conf") == [("50.conf", 2, True)]


def test_where_listen_is_needed(scratch: Scratch) -> None:
    part = scratch.file("part.conf", '<policy context="default"><allow own="a.b"/></policy>')
    assert found(part) == []
    whole = scratch.file("whole.conf", "<type>session</type>")
    assert found(whole) == [("whole.conf", 0, True)]


def test_what_is_not_there(tmp_path: Path) -> None:
    (finding,) = check(str(tmp_path / "none.conf")).findings
    assert finding.is_error
    assert finding.text.endswith("No such file or directory")


def test_as_it_is_written() -> None:
    assert str(Finding("a.conf", 3, "wrong", "error")) == "a.conf:3: error: wrong"
    assert str(Finding("a.conf", 0, "odd", "ignored")) == "a.conf: warning: odd"
