"""The reference's data files: configurations and raw messages that are valid, or are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dbustests import TESTS
from kit import Daemon

from afdbus.config.load import load
from afdbus.errors import ConfigError


def files(folder: str, ending: str) -> list[object]:
    """Parameters: every file of a folder of the test data."""
    found = sorted((TESTS / "data").glob(f"{folder}/*{ending}")) if TESTS else []
    return [pytest.param(path, id=path.stem) for path in found]


VALID = [
    *files("valid-config-files", ".conf"),
    *files("valid-config-files-system", ".conf"),
    *files("equiv-config-files/*", ".conf"),
]
INVALID = files("invalid-config-files", ".conf")
VALID_MESSAGES = files("valid-messages", ".message-raw")
INVALID_MESSAGES = files("invalid-messages", ".message-raw")


@pytest.mark.parametrize("path", VALID)
def test_valid_configuration(path: Path) -> None:
    load(str(path))


@pytest.mark.parametrize("path", INVALID)
def test_invalid_configuration(path: Path) -> None:
    with pytest.raises(ConfigError):
        load(str(path))


@pytest.mark.parametrize("path", VALID_MESSAGES)
def test_valid_message(path: Path, daemon: Daemon) -> None:
    client = daemon.connect()
    client.send_bytes(path.read_bytes())
    client.alive()


@pytest.mark.parametrize("path", INVALID_MESSAGES)
def test_invalid_message(path: Path, daemon: Daemon) -> None:
    client = daemon.connect()
    client.send_bytes(path.read_bytes())
    assert client.closed() == []


def test_there_is_something_to_read(program: Callable[[str], str]) -> None:
    """A moved directory must not look like success."""
    program(str(TESTS / "test-dbus-daemon") if TESTS else "test-dbus-daemon")
    assert len(VALID) >= 36
    assert len(INVALID) >= 30
    assert len(VALID_MESSAGES) >= 2
    assert len(INVALID_MESSAGES) >= 6
