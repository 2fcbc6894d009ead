"""What the commands have in common: exit statuses, errors, and which configuration is meant."""

from __future__ import annotations

import argparse

from afdbus.config.paths import session_config, system_config

GOOD = 0
BAD = 1  # denied, findings, a difference
WRONG_USE = 2  # argparse's, and a configuration that cannot be read


class UsageError(Exception):
    """The arguments make no question."""


def add_config_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Options for the configuration that is asked, as the daemon has them."""
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument("--config-file", metavar="FILE", help="the configuration")
    which.add_argument("--session", action="store_true", help="the one of --session")
    which.add_argument("--system", action="store_true", help="the one of --system")


def config_path(arguments: argparse.Namespace) -> str:
    """The file that the options name, empty if they name none."""
    if arguments.config_file is not None:
        return str(arguments.config_file)
    if arguments.session:
        return session_config()
    return system_config() if arguments.system else ""
