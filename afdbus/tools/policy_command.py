"""`afdbus policy`: the arguments of its commands, each of which has a module of its own."""

from __future__ import annotations

import argparse
import sys

from afdbus.errors import ConfigError
from afdbus.tools import dump_command, expect_command, explain_command, lint_command
from afdbus.tools.command import WRONG_USE, UsageError

_COMMANDS = (
    ("explain", explain_command, "tell whether something is allowed, and by which rule"),
    ("dump", dump_command, "list the rules that hold for a user, in their order"),
    ("lint", lint_command, "look for mistakes"),
    ("test", expect_command, "compare answers with those that are expected"),
)


def main(argv: list[str]) -> int:
    """Do what the arguments (after `policy`) say: the exit status."""
    parser = argparse.ArgumentParser(prog="afdbus policy", description="Policies of a bus.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, summary in _COMMANDS:
        command = commands.add_parser(
            name,
            help=summary,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_options(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except (UsageError, ConfigError) as error:
        print(f"afdbus policy: {error}", file=sys.stderr)
        return WRONG_USE
    return status
