"""`afdbus config check`: all that is wrong with a configuration file, and what it includes."""

from __future__ import annotations

import argparse

from afdbus.config.check import check
from afdbus.tools.command import BAD, GOOD


def main(argv: list[str]) -> int:
    """Do what the arguments (after `config`) say: the exit status."""
    parser = argparse.ArgumentParser(prog="afdbus config", description="Configuration files.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    checking = commands.add_parser(
        "check",
        help="tell all that is wrong with a file",
        description="Tell all errors and warnings of a configuration file and of all files that "
        "it includes. The exit status is 0 without errors, and 1 with.",
    )
    checking.add_argument("file", metavar="FILE")
    return print_check(parser.parse_args(argv).file)


def print_check(path: str) -> int:
    checked = check(path)
    for finding in checked.findings:
        print(finding)
    errors = sum(finding.is_error for finding in checked.findings)
    counts = (
        (len(checked.files), "file"),
        (errors, "error"),
        (len(checked.findings) - errors, "warning"),
    )
    print(", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts))
    return BAD if errors else GOOD
