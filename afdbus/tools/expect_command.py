"""`afdbus policy test`: does a configuration do what is expected of it?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from afdbus.host.users import Users
from afdbus.policy.written import written
from afdbus.tools.answers import Answers
from afdbus.tools.cases import Outcome, outcomes, read
from afdbus.tools.command import BAD, GOOD, UsageError, add_config_options, config_path
from afdbus.tools.questions import described

DESCRIPTION = """\
Ask a configuration the questions of a TOML file, and compare the answers with those that
are expected there. The configuration is the one that the file names, unless an option
names another. Each difference is told with the rule that made it. The exit status is 0
if there is none, 1 if there is, 2 if the file or the configuration is wrong."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser, required=False)
    parser.add_argument("cases", metavar="CASES.toml")


def run(arguments: argparse.Namespace) -> int:
    """Print the differences. Raises `UsageError` and `ConfigError`."""
    users = Users()
    cases = read(arguments.cases, users)
    path = config_path(arguments) or cases.config
    if path is None:
        raise UsageError(f"{arguments.cases} names no config; name one by --config-file")
    found = outcomes(Answers.of(users, path), cases)
    different = [outcome for outcome in found if not outcome.as_expected]
    for outcome in different:
        print("\n".join(_lines(outcome)))
    print(f"{len(found)} cases, {len(different)} not as expected")
    return BAD if different else GOOD


def _lines(outcome: Outcome) -> Iterator[str]:
    case, step = outcome
    expected, got = ("allowed", "denied") if case.allowed else ("denied", "allowed")
    yield f"{case.name}: expected {expected}, got {got}"
    yield f"  {described(case.asked)}"
    rule = step.verdict.rule
    if rule is None:
        yield f"  no {step.side} rule of {step.who} fits"
    else:
        yield f"  {rule.file}:{rule.line}: {written(rule)}"
