"""Remedies for questions under policies made at random: they turn these, and no others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from generator import policies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kit import busconfig

from afdbus.host.users import Users
from afdbus.tools.answers import Answers
from afdbus.tools.questions import asked
from afdbus.tools.remedies import find

DRIVER = "org.freedesktop.DBus"
# What a message is like, and another value of it.
FIELDS = {
    "type": ["method_call", "signal"],
    "path": ["/", "/x", "/y"],
    "interface": ["i.g", "i.h", "i.i"],
    "member": ["M", "N", "O"],
    "destination": ["x.y", "q.r", "o.o"],
    "sender": [["x.y.z"], ["q.r.s"], ["o.p"]],
}


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    user = draw(st.sampled_from(["root", "nobody"]))
    kind = draw(st.sampled_from(["send", "send", "send", "receive", "own", "connect"]))
    if kind == "own":
        return {"user": user, "own": draw(st.sampled_from(["x.y", "x.y.z", "q.r", "o.o"]))}
    fields: dict[str, Any] = {"user": user, kind: True}
    if kind == "connect":
        return fields
    for name, values in FIELDS.items():
        fields[name] = draw(st.sampled_from(values))
    if kind == "send" and draw(st.booleans()):
        fields["to_user"] = draw(st.sampled_from(["root", "nobody"]))
    fields["fds"] = draw(st.sampled_from([0, 0, 1]))
    return fields


def neighbours(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Questions that differ in one thing which a remedy has to say."""
    someone = {"root": "nobody", "nobody": "root"}[fields["user"]]
    found = [{**fields, "user": someone}]
    if "own" in fields:
        return [*found, {**fields, "own": fields["own"] + ".z"}, {**fields, "own": "y.y"}]
    if "connect" in fields:
        return found
    names = ["type", "path", "interface", "member"]
    if "to_user" in fields:
        # The receiver's rule tells neither users nor other names of the receiver apart.
        found = []
    else:
        # A rule about receiving is about the sender, one about sending about the receiver.
        names.append("sender" if "receive" in fields else "destination")
    for name in names:
        found += [{**fields, name: value} for value in FIELDS[name] if value != fields[name]]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    (made / "d").mkdir()
    return made


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(policies(), policies(), policies(), st.lists(questions(), min_size=3, max_size=3))
def test_remedies(
    folder: Path, before: str, inside: str, behind: str, asks: list[dict[str, Any]]
) -> None:
    for left in (folder / "d").iterdir():
        left.unlink()
    main = folder / "bus.conf"
    main.write_text(busconfig(policy=f"{before}<includedir>d</includedir>{behind}"))
    (folder / "d" / "policy.conf").write_text(f"<busconfig>{inside}</busconfig>")
    users = Users()
    answers = Answers.of(users, str(main))
    for fields in asks:
        question = asked(fields, users)
        remedy = find(str(main), answers, question, users)
        if not remedy.text:
            assert remedy.remarks
            continue
        if remedy.at_end:
            path = folder / "last.conf"
            text = busconfig(policy=f"{before}<includedir>d</includedir>{behind}")
            last = text.replace("</busconfig>", "<include>last.conf</include></busconfig>")
            main.write_text(last)
        else:
            path = Path(remedy.path)
            assert path.parent == folder / "d"
        path.write_text(remedy.text)
        turned = Answers.of(users, str(main))
        steps = [step.verdict.allowed for step in turned.steps(question)]
        was = [step.verdict.allowed for step in answers.steps(question)]
        assert steps != was
        if all(was) or "to_user" in fields or "receive" in fields or len(was) == 1:
            assert turned.deciding(question).verdict.allowed is not all(was), fields
        for neighbour in neighbours(fields):
            other = asked(neighbour, users)
            same = [step.verdict.allowed for step in answers.steps(other)]
            assert [step.verdict.allowed for step in turned.steps(other)] == same, (
                neighbour,
                remedy.text,
            )
        path.unlink()
        main.write_text(busconfig(policy=f"{before}<includedir>d</includedir>{behind}"))
    assert os.listdir(folder / "d") == ["policy.conf"]
