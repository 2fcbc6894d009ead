"""`afdbus policy dump`: all rules that hold for a user, in the order in which they count."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from afdbus.config.load import compose
from afdbus.host.users import Users
from afdbus.policy.rules import ConnectRule, MessageRule, OwnRule, Rule
from afdbus.policy.ruleset import Bucket
from afdbus.policy.written import written
from afdbus.tools.command import GOOD, UsageError, add_config_options, config_path
from afdbus.tools.people import add_person_options, person

DESCRIPTION = """\
List the rules that hold for a user, the strongest last, each with its file and line.
Rules that a later one throws away, as it holds for everything, are marked with a hash."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_person_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print them. Raises `UsageError` and `ConfigError`."""
    if (arguments.uid is None) == (arguments.user is None):
        raise UsageError("whose? Give one of uid and user")
    ruleset = compose(config_path(arguments)).ruleset
    who = person(arguments.uid, arguments.user, arguments.gids or (), Users())
    for line in lines(ruleset.buckets_of(who.identity)):
        print(line)
    return GOOD


def lines(buckets: Sequence[Bucket]) -> Iterator[str]:
    """The rules, with a headline for each bucket that has any."""
    last = _resetting(buckets)
    place = 0
    for bucket in buckets:
        if bucket.rules:
            yield f'<policy {bucket.attribute}="{bucket.value}">'
        for rule in bucket.rules:
            shown = f"{written(rule)}  {rule.file}:{rule.line}"
            reset = last.get(_kind(rule))
            if reset is not None and place < reset[0]:
                yield f"# {shown} (thrown away by {reset[1].file}:{reset[1].line})"
            elif isinstance(rule, ConnectRule) and bucket.attribute == "at_console":
                yield f"# {shown} (has no effect here)"
            else:
                yield f"  {shown}"
            place += 1


def _resetting(buckets: Sequence[Bucket]) -> dict[str, tuple[int, Rule]]:
    """For each kind of rules the last that throws away those before it, and its place."""
    found: dict[str, tuple[int, Rule]] = {}
    rules = (rule for bucket in buckets for rule in bucket.rules)
    for place, rule in enumerate(rules):
        if not isinstance(rule, ConnectRule) and rule.resets:
            found[_kind(rule)] = (place, rule)
    return found


def _kind(rule: Rule) -> str:
    if isinstance(rule, MessageRule):
        return "receive" if rule.receiving else "send"
    return "own" if isinstance(rule, OwnRule) else "connect"
