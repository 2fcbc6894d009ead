"""`afdbus policy lint`: prints what `lint` finds."""

from __future__ import annotations

import argparse

from afdbus.tools.command import BAD, GOOD
from afdbus.tools.lint import CHECKS, lint

DESCRIPTION = """\
Look for mistakes in policies: in files with all that they include, and in the *.conf
files of directories. Each finding is on a line of its own, with file, line and the name
of the check. The exit status is 0 without findings, 1 with.

""" + "\n".join(f"  {name:16} {text}" for name, text in CHECKS.items())


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="FILE|DIR")


def run(arguments: argparse.Namespace) -> int:
    findings = {finding: None for path in arguments.paths for finding in lint(path)}
    for finding in findings:
        where = f"{finding.file}:{finding.line}" if finding.line else finding.file
        print(f"{where}: {finding.kind}: {finding.text}")
    return BAD if findings else GOOD
