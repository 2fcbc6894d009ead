"""What `policy lint` finds, check by check, and what it lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import ME, afdbus
from policies import Scratch

from afdbus.tools.lint import CHECKS, lint

# What is found: each line has the checks it is for, in a comment behind the element.  The <allow>
# with a dash would let replies through that were asked for, and the <deny> behind it lets it.
SERVICE = f"""
<policy user="{ME}">
  <allow own="com.example.Fine"/>
  <allow send_destination="com.example.Fine"/>
  <allow own="com.example.Silent"/>  <!-- no-access -->
</policy>
<policy context="default">
  <allow send_destination="com.example.Fine" send_interface="com.example.Fine"/>
  <allow send_interface="com.example.Fine" send_type="signal"/>  <!-- no-destination -->
  <deny send_interface="com.example.Fine" send_member="M"/>  <!-- no-destination -->
  <deny receive_interface="com.example.Fine"/>  <!-- no-sender -->
  <allow receive_sender="com.example.Fine"/>  <!-- receive-allowed -->
  <allow send_type="signal" send_broadcast="true" send_interface="com.example.Fine"/>
  <allow own="com.example.Fine"/>  <!-- own-by-all -->
  <allow send_destination="com.example.Fine" send_path="/x" eavesdrop="true"/>  <!-- eavesdrop -->
  <deny send_destination="a.b" send_path="x" send_type="method_call"/>  <!-- unreachable -->
  <deny send_destination="com.example.Fine" send_error="e"/>  <!-- bad-name -->
  <allow send_destination="com.example.Fine" min_fds="3" max_fds="2"/>  <!-- unreachable -->
  <deny receive_sender="com.example.Fine" log="true" receive_type="signal"/>  <!-- ignored -->
  <deny user="no-such-user"/>  <!-- unknown-user -->
  <deny send_destination="com.example.A" send_interface="a.b" send_member="M"/>  <!-- shadowed -->
  <allow send_destination="com.example.A" send_interface="a.b" send_member="N"/>  <!-- - -->
  <deny send_destination="com.example.A" send_interface="a.b"/>
  <allow send_destination="com.example.A" send_interface="a.b" send_member="O"/>
  <maybe/>  <!-- error -->
</policy>
<policy group="no-such-group">  <!-- unknown-group -->
</policy>
<policy at_console="true">  <!-- at_console -->
  <deny user="*"/>  <!-- ignored -->
</policy>
<policy context="mandatory">
  <deny send_destination="com.example.Fine" send_type="signal"/>
</policy>
<policy user="{ME}">
  <allow send_destination="com.example.Fine" send_path="/" send_type="signal"/>  <!-- shadowed -->
</policy>"""


def expected(text: str) -> list[tuple[int, str]]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        _, comment, rest = line.partition("<!-- ")
        if comment:
            # A dash: what looks like a finding, and is none.
            kinds = rest.removesuffix(" -->").split()
            found += [(number, kind) for kind in kinds if kind != "-"]
    return sorted(found)


def places(path: Path) -> list[tuple[int, str]]:
    return sorted((finding.line, finding.kind) for finding in lint(str(path)))


def test_a_service_s_file(tmp_path: Path) -> None:
    path = Scratch(tmp_path).file("service.conf", SERVICE)
    want = expected(SERVICE)
    found = places(path)
    assert (set(found) - set(want), set(want) - set(found)) == (set(), set())
    assert found == sorted(want)


def test_all_kinds_are_known_and_told_in_the_help(tmp_path: Path) -> None:
    path = Scratch(tmp_path).file("service.conf", SERVICE)
    found = {finding.kind for finding in lint(str(path))}
    assert found <= set(CHECKS)
    text = afdbus("policy", "lint", "--help").stdout
    assert all(f"  {kind} " in text for kind in CHECKS)


def test_a_rule_about_everything(tmp_path: Path) -> None:
    rules = '\n<allow send_destination="a.b"/>\n<deny send_broadcast="true"/>\n'
    policy = f'<policy context="default">{rules}</policy>'
    scratch = Scratch(tmp_path)
    path = scratch.file("service.conf", policy)
    assert places(path) == [(2, "shadowed"), (3, "resets")]
    # The main file of a system begins with such rules.
    main = scratch.file("main.conf", policy, listen="<type>system</type><listen>unix:</listen>")
    assert places(main) == [(2, "shadowed")]


def test_the_main_files_that_come_along_are_clean() -> None:
    config = Path(__file__).parents[2] / "config"
    own = [str(config / name) for name in ("session.conf", "system.conf")]
    for path in own:
        assert [finding for finding in lint(path) if finding.file == path] == []


def test_shadows_in_other_files(tmp_path: Path) -> None:
    """Only where it is sure which file is read first."""
    scratch = Scratch(tmp_path)
    rule = '\n<deny send_destination="a.b" send_interface="c.d"/>'
    policy = f'<policy context="default">{rule}\n</policy>'
    scratch.file("d/one.conf", policy)
    scratch.file("d/two.conf", policy)
    assert places(tmp_path / "d") == []
    inside = f"{policy}<includedir>d</includedir>"
    path = scratch.file("main.conf", inside, listen="<listen>unix:</listen>")
    (finding,) = lint(str(path))
    assert (finding.file, finding.line, finding.kind) == (str(path), 2, "shadowed")
    assert f"at {tmp_path}/d/" in finding.text


def test_a_session_trusts_its_user(tmp_path: Path) -> None:
    rules = (
        '<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>'
        '<allow own="a.b"/><deny send_interface="c.d"/>'
    )
    path = Scratch(tmp_path).file(
        "session.conf",
        f'<policy context="default">{rules}</policy>',
        listen="<type>session</type><listen>unix:</listen>",
    )
    assert places(path) == []


def test_prefixes_of_names(tmp_path: Path) -> None:
    path = Scratch(tmp_path).file(
        "service.conf",
        f"""
<policy user="{ME}">
  <allow own_prefix="a.b"/>
  <allow own="c.d.e"/>
  <allow own_prefix="e.f"/>  <!-- no-access -->
  <allow send_destination="a.b.c"/>
  <allow send_destination_prefix="c.d"/>
</policy>""",
    )
    assert places(path) == [(5, "no-access")]


def many(name: Path, rules: int) -> Path:
    lines = [
        f'<deny send_destination="com.example.S{n}" send_interface="com.example.I{n % 50}" '
        f'send_member="M{n}"/>'
        for n in range(rules)
    ]
    lines[1] = lines[-1]
    name.write_text(
        '<busconfig><policy context="default">\n' + "\n".join(lines) + "\n</policy></busconfig>"
    )
    return name


def test_six_thousand_rules(tmp_path: Path) -> None:
    """Which would take minutes if each were compared with each."""
    path = many(tmp_path / "many.conf", 6000)
    result = afdbus("policy", "lint", path)
    assert result.returncode == 1
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith(f"{path}:3: shadowed: ")


@pytest.mark.parametrize("files", [1, 2])
def test_the_command(tmp_path: Path, files: int) -> None:
    scratch = Scratch(tmp_path)
    clean = scratch.file("clean.conf", '<policy context="default"><deny own="a.b"/></policy>')
    bad = scratch.file("d/bad.conf", "\n<bees/>")
    run = afdbus("policy", "lint", clean)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    run = afdbus("policy", "lint", *[bad, tmp_path / "d"][:files])
    text = "Element <bees> not allowed inside <busconfig> in configuration file"
    assert (run.returncode, run.stdout) == (1, f"{bad}:2: error: {text}\n")
    run = afdbus("policy", "lint", tmp_path / "none.conf")
    assert run.returncode == 1
    assert "No such file" in run.stdout
    assert afdbus("policy", "lint").returncode == 2
