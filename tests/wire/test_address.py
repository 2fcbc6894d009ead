"""Server addresses: syntax and escaping, by table and by round trip; texts as libdbus has them."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afdbus.errors import AddressError
from afdbus.wire.address import Address, escape, new_guid, parse, unescape

GOOD = [
    ("unix:path=/run/bus", [("unix", {"path": "/run/bus"})]),
    ("unix:", [("unix", {})]),
    ("systemd:", [("systemd", {})]),
    (
        "unix:path=/a;tcp:host=h,port=1",
        [("unix", {"path": "/a"}), ("tcp", {"host": "h", "port": "1"})],
    ),
    ("unix:path=/a;", [("unix", {"path": "/a"})]),
    ("unix:path=/a,", [("unix", {"path": "/a"})]),
    ("unix:path=a,path=b", [("unix", {"path": "a"})]),
    ("unix:path=/a%20b%2F%2f", [("unix", {"path": "/a b//"})]),
    ("unix:path=\\*-_.", [("unix", {"path": "\\*-_."})]),
    ("unix:path=%c3%a9", [("unix", {"path": "é"})]),
    ("unix:abstract=%ff", [("unix", {"abstract": "\udcff"})]),
    ("unix:abstract=a%00b", [("unix", {"abstract": "a"})]),
    ("tcp:host=%3a%3a1", [("tcp", {"host": "::1"})]),
    (":a=b", [("", {"a": "b"})]),
    ("unix:p%61th=x", [("unix", {"p%61th": "x"})]),
]

NO_COLON = "Address does not contain a colon"
NO_VALUE = "'=' character not found or has no value following it"
BAD = [
    ("", "Empty address ''"),
    (";", NO_COLON),
    ("x", NO_COLON),
    ("=", NO_COLON),
    (";unix:path=/a", NO_COLON),
    ("unix:path=/a;;", NO_COLON),
    ("unix:path=/a;path=/b", NO_COLON),
    ("unix:path", NO_VALUE),
    ("unix:path=", NO_VALUE),
    ("unix:=a", NO_VALUE),
    ("unix:,path=/a", NO_VALUE),
    ("unix:path=/a,,", NO_VALUE),
    ("unix:,", NO_VALUE),
    ("unix:path=/%4", "In D-Bus address, percent character was not followed by two hex digits"),
    ("unix:path=/%", "In D-Bus address, percent character was not followed by two hex digits"),
    (
        "unix:path=/%zz",
        "In D-Bus address, percent character was followed by characters other than hex digits",
    ),
    (
        "unix:path=/%+1",
        "In D-Bus address, percent character was followed by characters other than hex digits",
    ),
    ("unix:path=/a b", "In D-Bus address, character ' ' should have been escaped"),
    ("unix:path=~", "In D-Bus address, character '~' should have been escaped"),
    ("unix:path=a=b", "In D-Bus address, character '=' should have been escaped"),
    ("tcp:host=::1", "In D-Bus address, character ':' should have been escaped"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_parsed(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse(text) == [Address(*one) for one in expected]


@pytest.mark.parametrize(("text", "complaint"), BAD)
def test_refused(text: str, complaint: str) -> None:
    with pytest.raises(AddressError, match="^" + re.escape(complaint) + "$"):
        parse(text)


@given(st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_escaping_is_undone(value: str) -> None:
    escaped = escape(value)
    assert re.fullmatch(r"(?:[-0-9A-Za-z_/\\*.]|%[0-9a-f]{2})*", escaped)
    assert unescape(escaped) == value


KEYS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.builds(Address, KEYS, st.dictionaries(KEYS, VALUES)), min_size=1))
def test_written_addresses_are_read_again(addresses: list[Address]) -> None:
    assert parse(";".join(map(str, addresses))) == addresses


@given(st.text("abu:;,=%0f/", max_size=30))
def test_any_text_is_addresses_or_refused(text: str) -> None:
    with contextlib.suppress(AddressError):
        assert parse(text)


def test_guids_are_32_hex_digits_and_differ() -> None:
    guids = {new_guid() for _ in range(100)}
    assert len(guids) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", guid) for guid in guids)
