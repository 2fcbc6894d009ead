"""The machine id, and dbus-daemon's words when there is none (each was asked of 1.14.10)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from kit import Daemon, call

from afdbus.errors import FAILED, FILE_NOT_FOUND, BusError
from afdbus.host.machineid import INVALID_FILE_CONTENT, PATHS, machine_id

ID = "0123456789abcdef0123456789abcdef"


def problem(*paths: Path) -> tuple[str, str]:
    with pytest.raises(BusError) as caught:
        machine_id(tuple(map(str, paths)))
    text = re.fullmatch(
        r"D-Bus library appears to be incorrectly set up: see the manual page for dbus-uuidgen "
        r"to correct this issue. \((.*)\)",
        caught.value.text,
    )
    assert text is not None
    return caught.value.name, text[1]


@pytest.mark.parametrize(
    "content",
    [ID, ID + "\n", f" \t\n{ID}\r\n\n", ID.upper(), "0123456789ABCDEF0123456789abcdef"],
)
def test_ids(content: str, tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_text(content)
    assert machine_id((str(path),)) == ID


def test_a_last_digit_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_text(ID[:-1] + "g")
    assert machine_id((str(path),)) == ID[:-1] + "0"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "should contain a hex string of length 32, not length 0, with no other text"),
        (b"abc", "should contain a hex string of length 32, not length 3, with no other text"),
        (
            ID.encode() + b"\x0b",
            "should contain a hex string of length 32, not length 33, with no other text",
        ),
        (
            ID.encode() + b"\nx",
            "should contain a hex string of length 32, not length 34, with no other text",
        ),
        (b"g" * 32, "contains invalid hex data"),
        (
            b"0123456789abcdgf0123456789abcdef",
            "contains 7 bytes of hex-encoded data instead of 16",
        ),
        (
            b"0123456789abcgef0123456789abcdef",
            "contains 7 bytes of hex-encoded data instead of 16",
        ),
        (
            b"0123456789abcdef0123456789abcd\0f",
            "contains 15 bytes of hex-encoded data instead of 16",
        ),
    ],
)
def test_files_without_an_id(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_bytes(content)
    assert problem(path) == (INVALID_FILE_CONTENT, f"UUID file '{path}' {words}")


def test_the_second_path_counts_if_the_first_has_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text(ID)
    assert machine_id((str(first), str(second))) == ID
    first.write_text("x")
    assert machine_id((str(first), str(second))) == ID
    first.write_text(ID[::-1])
    assert machine_id((str(first), str(second))) == ID[::-1]


def test_nothing_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    gone = f'Failed to open "{first}": No such file or directory; '
    assert problem(first, second) == (
        FILE_NOT_FOUND,
        f'{gone}Failed to open "{second}": No such file or directory',
    )
    second.mkdir()
    assert problem(first, second) == (FAILED, f'{gone}"{second}" is not a regular file')


def test_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.touch()
    os.truncate(path, 2 * 1024 * 1024)
    assert problem(path) == (FAILED, f'File size 2097152 of "{path}" is too large.')


def test_a_fifo_does_not_stop_us(tmp_path: Path) -> None:
    path = tmp_path / "id"
    os.mkfifo(path)
    assert problem(path) == (FAILED, f'"{path}" is not a regular file')


def test_the_machine_has_the_id_that_the_daemon_tells(daemon: Daemon) -> None:
    if not any(map(os.path.exists, PATHS)):
        pytest.skip("this machine has no id")
    client = daemon.connect()
    message = call("GetMachineId", interface="org.freedesktop.DBus.Peer")
    assert client.exchange(message)[-1].args == (machine_id(),)
