"""Expectations in a TOML file: what a configuration has to allow, and what to deny.

    config = "system.conf"      # beside this file; the command line may name another

    [[case]]
    name = "everybody may look at the battery"
    expect = "allowed"          # or "denied"
    user = "nobody"
    send = true
    destination = "org.freedesktop.UPower"
    interface = "org.freedesktop.UPower"
    member = "EnumerateDevices"

A case has a name, what is expected, and the fields of a question (see `questions`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import NamedTuple

from afdbus.config.paths import beside
from afdbus.host.users import Users
from afdbus.tools.answers import Answers, Step
from afdbus.tools.command import UsageError
from afdbus.tools.questions import Asked, asked

_OUTCOMES = {"allowed": True, "denied": False}


class Case(NamedTuple):
    """`allowed` is what is expected."""

    name: str
    allowed: bool
    asked: Asked


class Cases(NamedTuple):
    """A file: the configuration that it names, if it does, and the cases in their order."""

    config: str | None
    cases: tuple[Case, ...]


class Outcome(NamedTuple):
    """What came of a case."""

    case: Case
    step: Step

    @property
    def as_expected(self) -> bool:
        return self.step.verdict.allowed is self.case.allowed


def read(path: str, users: Users) -> Cases:
    """The cases in a file.  Raises `UsageError` for whatever is wrong with it."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    config = content.pop("config", None)
    if config is not None and not isinstance(config, str):
        raise UsageError(f"{path}: config must be the path of a file")
    tables = content.pop("case", [])
    if content:
        raise UsageError(f"{path}: there is nothing called {next(iter(content))!r}")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: cases are written as [[case]]")
    if not tables:
        raise UsageError(f"{path}: there is no [[case]]")
    cases = []
    for number, table in enumerate(tables, 1):
        try:
            cases.append(_case(table, users))
        except UsageError as error:
            name = table.get("name", f"number {number}")
            raise UsageError(f"{path}: case {name}: {error}") from None
    return Cases(None if config is None else beside(path, config), tuple(cases))


def _case(table: Mapping[str, object], users: Users) -> Case:
    fields = dict(table)
    name, expect = fields.pop("name", None), fields.pop("expect", None)
    if not isinstance(name, str) or not name:
        raise UsageError("it needs a name")
    if not isinstance(expect, str) or expect not in _OUTCOMES:
        raise UsageError('expect must be "allowed" or "denied"')
    return Case(name, _OUTCOMES[expect], asked(fields, users))


def outcomes(answers: Answers, cases: Cases) -> list[Outcome]:
    """What the configuration says to each case."""
    return [Outcome(case, answers.deciding(case.asked)) for case in cases.cases]
