"""The commands as programs: what they print, and their exit statuses."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ME, afdbus, explain
from policies import Scratch

from afdbus.config.users import UserDatabase
from afdbus.tools import policy_command

INTERFACELESS = "No rule can demand that there is no interface: it holds for every interface."
NOBODY = ("--uid", "65534")
RULES = """
<policy context="default">
  <allow user="*"/>
  <deny own="*"/>
  <deny send_type="method_call"/>
  <allow receive_type="method_call"/>
  <allow send_destination="com.example.S"
         send_interface="com.example.I"/>
  <deny send_destination="com.example.S" send_interface="com.example.I" send_path="/no"/>
  <allow send_destination="com.example.S" max_fds="0" send_path="/f"/>
</policy>
<policy user="root"><deny send_broadcast="false"/><allow own="a.b"/></policy>
<policy at_console="false"><allow user="*"/></policy>"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    scratch = Scratch(tmp_path)
    (tmp_path / "bus.d").mkdir()
    inside = f"{RULES}<includedir>bus.d</includedir>"
    return scratch.file("bus.conf", inside, listen="<listen>unix:tmpdir=/tmp</listen>")


def test_explain_in_words(config: Path) -> None:
    run = afdbus(
        "policy", "explain", "--config-file", config, *NOBODY, "--send",
        "--destination", "org.x", "--interface", "org.x.I", "--member", "M",
    )  # fmt: skip
    assert run.stderr == ""
    assert run.returncode == 1
    what = "nobody (uid 65534) sends a method_call interface=org.x.I member=M to org.x"
    assert run.stdout == (
        f"denied: {what}\n"
        f'{config}:5: <deny send_type="method_call"/>\n'
        '  in <policy context="default">, the last of 1 send rules of nobody (uid 65534) that fit\n'
        "\n"
        f"To allow this, save this as {config.parent}/bus.d/remedy.conf and reload:\n"
        "\n"
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
        "<busconfig>\n"
        f"  <!-- For the question: {what}. -->\n"
        '  <policy user="nobody">\n'
        '    <allow send_destination="org.x" send_interface="org.x.I" send_member="M" '
        'send_type="method_call"/>\n'
        "  </policy>\n"
        "</busconfig>\n"
    )


def test_explain_where_no_rule_decides(config: Path) -> None:
    run = afdbus(
        "policy", "explain", "--config-file", config, *NOBODY, "--receive", "--type", "signal",
        "--interface", "a.b", "--sender", "c.d",
    )  # fmt: skip
    assert run.returncode == 1
    assert "\n  no receive rule of nobody (uid 65534) fits, which denies\n" in run.stdout


def test_what_is_left_open_is_told_if_it_matters(config: Path) -> None:
    question = (*NOBODY, "--send", "--destination", "com.example.S", "--interface")
    answer = explain(config, *question, "com.example.I", "--member", "M")
    assert (answer["allowed"], answer["line"], answer["matched"]) == (True, 7, 2)
    (remark,) = answer["remarks"]
    assert "--path" in remark
    assert f"{config}:9 decides otherwise" in remark
    answer = explain(config, *question, "com.example.I", "--member", "M", "--path", "/no")
    assert (answer["allowed"], answer["line"], answer["matched"]) == (False, 9, 3)
    assert 'send_path="/no"' in answer["remedy"]
    other = ("--send", "--destination", "com.example.T", "--interface", "com.example.I")
    assert explain(config, *NOBODY, *other, "--member", "M")["remarks"] == []


def test_two_things_left_open_can_matter_together(config: Path) -> None:
    path = Scratch(config.parent).file(
        "two.conf",
        """<policy context="default"><allow user="*"/>
<deny send_destination="a.b" send_path="/" send_member="No"/>
<allow send_destination="a.b"/><allow receive_sender="*"/>
<deny send_destination="a.b" send_path="/x" send_member="M"/>
<deny send_destination="a.b" send_path="/" send_member="No" send_interface="e.f"/></policy>""",
    )
    question = (*NOBODY, "--send", "--destination", "a.b", "--interface", "c.d")
    (remark,) = (r for r in explain(path, *question)["remarks"] if "rests" in r)
    assert "--path and --member" in remark
    assert f"{path}:4 decides otherwise" in remark
    (remark,) = (r for r in explain(path, *question, "--path", "/x")["remarks"] if "rests" in r)
    assert "It rests on --member," in remark
    assert not any("rests" in r for r in explain(path, *question, "--path", "/y")["remarks"])


def test_descriptors_count_where_a_rule_counts_them(config: Path) -> None:
    question = (*NOBODY, "--send", "--destination", "com.example.S", "--interface")
    rest = ("com.example.I", "--member", "M", "--path", "/f")
    answer = explain(config, *question, *rest)
    assert (answer["allowed"], answer["line"]) == (True, 10)
    # With more descriptors line 7 would allow it as well: their number does not matter.
    assert "fds" not in answer["remedy"]
    path = Scratch(config.parent).file(
        "fds.conf",
        '<policy context="default"><allow send_destination="a.b" max_fds="1"/></policy>',
    )
    question = (*NOBODY, "--send", "--destination", "a.b", "--member", "M", "--fds")
    answer = explain(path, *question, "2")
    assert not answer["allowed"]
    assert 'min_fds="2" max_fds="2"' in answer["remedy"]


def test_groups(config: Path) -> None:
    path = Scratch(config.parent).file(
        "groups.conf",
        '<policy context="default"><deny own="*"/></policy>'
        '<policy group="0"><allow own="a.b"/></policy>',
    )
    assert not explain(path, *NOBODY, "--own", "a.b")["allowed"]
    answer = explain(path, *NOBODY, "--gid", "0", "--gid", "7", "--own", "a.b")
    assert (answer["allowed"], answer["policy"]) == (True, 'group="0"')


def test_users_whom_nobody_knows(config: Path) -> None:
    unknown = next(uid for uid in range(54321, 60000) if UserDatabase().groups_of(uid) is None)
    answer = explain(config, "--uid", str(unknown), "--own", "a.b")
    assert not answer["allowed"]
    assert answer["remedy"] is None
    assert any("not in the user database" in remark for remark in answer["remarks"])
    assert any("may not even connect" in remark for remark in answer["remarks"])


def test_what_throws_all_rules_away_is_named(config: Path) -> None:
    path = Scratch(config.parent).file(
        "reset.conf",
        """<policy context="mandatory"><deny receive_type="signal"/>
<allow send_broadcast="true"/>
<deny own="*"/></policy>""",
    )
    question = (*NOBODY, "--send", "--destination", "a.b", "--interface", "c.d", "--member", "M")
    answer = explain(path, *question)
    assert (answer["rule"], answer["remedy"]) == (None, None)
    (remark,) = (r for r in answer["remarks"] if "alone helps" in r)
    assert f'<allow send_broadcast="true"/> at {path}:2 throws away' in remark


def test_both_ends_of_the_same_user(config: Path) -> None:
    """One policy with two rules."""
    path = Scratch(config.parent).file("none.conf", "")
    question = ("--send", "--destination", "a.b", "--sender", "c.d", "--member", "M")
    remedy = explain(path, *NOBODY, *question, "--to-uid", "65534")["remedy"]
    assert (remedy.count("<policy"), remedy.count("<allow")) == (1, 2)


def test_the_user_of_the_bus_may_connect(config: Path) -> None:
    text = config.read_text().replace('<allow user="*"/>', "")
    config.write_text(text.replace("<listen>", "<user>nobody</user><listen>"))
    answer = explain(config, *NOBODY, "--connect")
    assert (answer["allowed"], answer["rule"]) == (True, None)
    assert not explain(config, "--uid", "0", "--connect")["allowed"]


def test_what_no_policy_gives() -> None:
    run = afdbus(
        "policy", "explain", "--session", "--user", ME, "--send",
        "--destination", "org.freedesktop.DBus",
        "--interface", "org.freedesktop.DBus.Monitoring", "--member", "BecomeMonitor",
    )  # fmt: skip
    assert run.returncode == 0
    assert "BecomeMonitor is for root and the user of the bus only" in run.stdout


A_CALL = ("--send", "--destination", "a.b", "--member", "M")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (A_CALL, "who? Give one of uid and user"),
        (("--uid", "0", "--user", "root", *A_CALL), "who? Give one of uid and user"),
        (("--uid", "0"), "what? Give one of send, receive, own and connect"),
        (("--uid", "0", "--own", "a.b", *A_CALL), "what? Give one of"),
        (("--user", "no-such-user", *A_CALL), "there is no user 'no-such-user'"),
        (("--uid", "-1", *A_CALL), "uid is out of range"),
        (("--uid", "4294967295", *A_CALL), "uid is out of range"),
        (("--uid", "0", "--gid", "-1", *A_CALL), "gids cannot be -1"),
        (("--uid", "0", "--own", "a"), "own cannot be 'a'"),
        (("--uid", "0", "--own", "a.b", "--member", "M"), "member is for messages, not for own"),
        (("--uid", "0", *A_CALL, "--path", "x"), "path cannot be 'x'"),
        (("--uid", "0", *A_CALL, "--interface", "x"), "interface cannot be 'x'"),
        (("--uid", "0", *A_CALL, "--to-names", "a.b,c"), "to_names cannot be 'c'"),
        (("--uid", "0", *A_CALL, "--type", "letter"), "type must be one of"),
        (("--uid", "0", *A_CALL, "--type", "signal"), "a signal has an interface"),
        (("--uid", "0", *A_CALL, "--error", "a.b"), "only messages of the type error"),
        (("--uid", "0", *A_CALL, "--broadcast"), "only signals are broadcast"),
        (("--uid", "0", "--send", "--member", "M"), "where to? Give the destination"),
        (("--uid", "0", "--receive", "--to-uid", "0"), "to_uid is for messages that are sent"),
        (
            ("--uid", "0", "--send", "--destination", "org.freedesktop.DBus", "--to-uid", "0"),
            "to_uid is for messages that are sent",
        ),
        (("--uid", "0", *A_CALL, "--to-uid", "0", "--to-user", "root"), "give one of to_uid"),
        (("--uid", "0", *A_CALL, "--to-gid", "0"), "to_gids without to_uid or to_user"),
        (("--uid", "0", *A_CALL, "--fds", "-1"), "fds is out of range"),
        (("--uid", "x", *A_CALL), "invalid int value"),
    ],
)
def test_what_makes_no_question(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    status: int | str | None
    try:
        status = policy_command.main(["explain", "--config-file", str(config), *arguments])
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert words in printed.err


def test_configurations_that_cannot_be_read(config: Path) -> None:
    assert afdbus("policy", "explain", *NOBODY, *A_CALL).returncode == 2
    for command in (("explain", *NOBODY, *A_CALL), ("dump", *NOBODY)):
        run = afdbus("policy", *command, "--config-file", config.parent / "none.conf")
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr.startswith("afdbus policy: ")
        assert "none.conf" in run.stderr


def test_dump(config: Path) -> None:
    run = afdbus("policy", "dump", "--config-file", config, *NOBODY)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[:4] == [
        '<policy context="default">',
        f'  <allow user="*"/>  {config}:3',
        f'  <deny own="*"/>  {config}:4',
        f'  <deny send_type="method_call"/>  {config}:5',
    ]
    assert lines[-2:] == [
        '<policy at_console="false">',
        f'# <allow user="*"/>  {config}:13 (has no effect here)',
    ]
    run = afdbus("policy", "dump", "--config-file", config, "--user", "root")
    lines = run.stdout.splitlines()
    reset = f"(thrown away by {config}:12)"
    assert f'# <deny send_type="method_call"/>  {config}:5 {reset}' in lines
    assert f'  <allow receive_type="method_call"/>  {config}:6' in lines
    start = lines.index('<policy user="0">')
    assert lines[start + 1 : start + 3] == [
        f'  <deny send_broadcast="false"/>  {config}:12',
        f'  <allow own="a.b"/>  {config}:12',
    ]
    assert afdbus("policy", "dump", "--config-file", config).returncode == 2


def test_config_check(config: Path) -> None:
    run = afdbus("config", "check", config)
    assert (run.returncode, run.stderr) == (0, "")
    remark = f"{config}:13: warning: "
    assert run.stdout.startswith(remark)
    assert run.stdout.endswith("1 file, 0 errors, 2 warnings\n")
    config.write_text(config.read_text().replace("</busconfig>", "\n<a/><b/>\n<c/></busconfig>"))
    run = afdbus("config", "check", config)
    assert run.returncode == 1
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert errors == [
        f"{config}:{line}: error: Element <{name}> not allowed inside <busconfig> in "
        "configuration file"
        for line, name in ((14, "a"), (14, "b"), (15, "c"))
    ]
    assert run.stdout.endswith("1 file, 3 errors, 2 warnings\n")
    assert afdbus("config", "check").returncode == 2
    assert afdbus("config").returncode == 2
    assert afdbus("policy").returncode == 2


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.conf")
    path.write_text("<busconfig>\n<bees/></busconfig>")
    run = afdbus("config", "check", path)
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.startswith(f"{tmp_path}/\\udcff.conf:2: error: ")


def test_who_has_seen_enough_is_not_bothered(config: Path) -> None:
    program = [sys.executable, "-m", "afdbus", "policy", "dump", "--config-file", config, *NOBODY]
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (run.returncode, run.stderr) == (-signal.SIGPIPE, b"")


def test_what_was_skipped_is_told(config: Path) -> None:
    question = (*NOBODY, "--send", "--destination", "a.b", "--member", "M")
    assert explain(config, *question)["remarks"] == [INTERFACELESS]
    (config.parent / "bus.d" / "broken.conf").write_text("<busconfig><bees/></busconfig>")
    remark = "The bus skips some of its configuration: see afdbus config check."
    assert explain(config, *question)["remarks"] == [remark, INTERFACELESS]


def test_the_help_names_them() -> None:
    text = afdbus("--help").stdout
    assert "policy" in text
    assert "config" in text
    assert "explain" in afdbus("policy", "--help").stdout


def test_numbers_like_names(config: Path) -> None:
    """By name or by number it is the same user."""
    entry = pwd.getpwuid(os.geteuid())
    by_name = explain(config, "--user", entry.pw_name, "--own", "c.d")
    assert by_name == explain(config, "--uid", str(entry.pw_uid), "--own", "c.d")
