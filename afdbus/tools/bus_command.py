"""`afdbus bus`: make, close and list the buses of a daemon that runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from afdbus.client import Client
from afdbus.errors import AddressError, BusError, ProtocolViolation
from afdbus.tools.command import BAD, GOOD, WRONG_USE

_HOST = "org.afdbus.Host1"


def main(words: list[str]) -> int:
    """Do what the words say: the exit status."""
    parser = argparse.ArgumentParser(
        prog="afdbus bus",
        description="Make, close and list buses of a running afdbus-daemon. "
        "Only the daemon's own user and root may do it.",
    )
    parser.add_argument(
        "--address",
        help="a bus of the daemon (default: $DBUS_SESSION_BUS_ADDRESS)",
        default=os.environ.get("DBUS_SESSION_BUS_ADDRESS", ""),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    create = commands.add_parser("create", help="make a bus, and print its address")
    create.add_argument("name", nargs="?", default="", help="its name (default: a random one)")
    create.add_argument("--config-file", metavar="FILE", help="its configuration (default: open)")
    close = commands.add_parser("close", help="close a bus")
    close.add_argument("name", help="its name")
    commands.add_parser("list", help="print the addresses of all buses, and the names before them")
    arguments = parser.parse_args(words)
    if not arguments.address:
        parser.error("no --address, and DBUS_SESSION_BUS_ADDRESS is not set")
    try:
        config = ""
        if arguments.command == "create" and arguments.config_file is not None:
            config = Path(arguments.config_file).read_text(encoding="utf-8")
        with Client(arguments.address) as client:
            _do(client, arguments, config)
    except (AddressError, OSError, UnicodeDecodeError) as error:
        print(f"afdbus bus: {error}", file=sys.stderr)
        return WRONG_USE
    except (BusError, ProtocolViolation) as error:
        print(f"afdbus bus: {error}", file=sys.stderr)
        return BAD
    return GOOD


def _do(client: Client, arguments: argparse.Namespace, config: str) -> None:
    if arguments.command == "create":
        print(client.call(_HOST, "CreateBus", "ss", arguments.name, config)[0])
    elif arguments.command == "close":
        client.call(_HOST, "CloseBus", "s", arguments.name)
    else:
        for name, address in client.call(_HOST, "ListBuses")[0]:
            print(f"{name}\t{address}")
