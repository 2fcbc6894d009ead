"""Which texts are signatures, and how they fall into complete types."""

from __future__ import annotations

from itertools import product
from random import Random

import libdbus
import pytest
import reference_validator

from afdbus.errors import ProtocolViolation
from afdbus.wire import layout
from afdbus.wire.layout import program_of, program_of_variant
from afdbus.wire.signature import is_signature, is_single_type, split

VALID = [
    "",
    "y",
    "ybnqiuxtdsoghv",
    "as",
    "aas",
    "a{sv}",
    "a{s(ii)}",
    "aa{ya{sv}}",
    "(y)",
    "((y)(as))",
    "a(a{hv})",
    "y" * 255,
    "a" * 32 + "u",
    "(" * 32 + "y" + ")" * 32,
    "a{s" * 32 + "y" + "}" * 32,
    # Neighbouring arrays are counted, not all of them (dbus-daemon; the specification has 32).
    "a" * 20 + "(" + "a" * 20 + "u)",
]
INVALID = [
    "a",
    "aa",
    "()",
    "(",
    ")",
    "(y",
    "y)",
    "(a)",
    "{sv}",
    "({sv})",
    "a{}",
    "a{s}",
    "a{ssv}",
    "a{vs}",
    "a{ays}",
    "a{(s)s}",
    "a{{ss}s}",
    "a{sv",
    "a{sa}",
    "a{s(y})",  # brackets crossed, CVE-2022-42010
    "(a{sv)}",
    "r",
    "e",
    "m",
    "z",
    " ",
    "s\0",
    "é",
    "y" * 256,
    "a" * 33 + "u",
    "(" * 33 + "y" + ")" * 33,
    "a{s" * 33 + "y" + "}" * 33,
]


@pytest.mark.parametrize("text", VALID)
def test_valid(text: str) -> None:
    assert is_signature(text)
    assert libdbus.is_signature(text)
    assert "".join(split(text)) == text
    assert is_single_type(text) == (len(split(text)) == 1)
    program_of(text)


@pytest.mark.parametrize("text", INVALID)
def test_invalid(text: str) -> None:
    assert not is_signature(text)
    assert not is_single_type(text)
    if "\0" not in text:
        assert not libdbus.is_signature(text)
    with pytest.raises(ProtocolViolation):
        program_of(text)


def test_all_short_texts_as_libdbus_and_the_reference_say() -> None:
    for length in range(6):
        for codes in product("asv(){}", repeat=length):
            text = "".join(codes)
            expected = libdbus.is_signature(text)
            assert is_signature(text) == expected, text
            assert reference_validator.is_signature(text) == expected, text


def test_random_texts_as_libdbus_says() -> None:
    random = Random(1)
    for _ in range(20_000):
        text = "".join(random.choices("aaaysv(()){{}}", k=random.randint(6, 14)))
        assert is_signature(text) == libdbus.is_signature(text), text


def test_split() -> None:
    assert split("sa{sv}as(y(ai))aav") == ("s", "a{sv}", "as", "(y(ai))", "aav")
    assert split("") == ()


@pytest.mark.parametrize("text", ["", "ss", "a{sv}s", "(y)(y)", "a"])
def test_variant_takes_exactly_one_type(text: str) -> None:
    assert not is_single_type(text)
    with pytest.raises(ProtocolViolation):
        program_of_variant(text.encode())


def test_p17_programs_kept_are_bounded_in_number_and_length() -> None:
    for i in range(2 * layout.CACHED_PROGRAMS):
        text = "".join("yn"[i >> bit & 1] for bit in range(11))
        program_of(text)
        program_of_variant(f"({text})".encode())
    for kept in (layout._kept, layout._kept_variant):
        assert kept.cache_info().currsize == layout.CACHED_PROGRAMS
    misses = layout._kept.cache_info().misses
    program_of("y" * (layout.CACHED_LENGTH + 1))
    assert layout._kept.cache_info().misses == misses
    for i in range(1000):
        split("".join("yn"[i >> bit & 1] for bit in range(10)))
    assert split.cache_info().currsize <= 256
