"""The interpreting validator, at once and in steps, rule by rule."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

import libdbus
import pytest
import reference_validator

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_ARRAY
from afdbus.wire.check import STEP, check_body, check_in_steps, walk
from afdbus.wire.encode import encode
from afdbus.wire.layout import program_of


def at_once(signature: str, little: bool, body: bytes) -> bool:
    try:
        check_body(signature, little, body, 0, len(body))
    except ProtocolViolation:
        return False
    return True


def inside(signature: str, little: bool, body: bytes) -> bool:
    """In the middle of a buffer, at an odd place, before bytes that are not its own."""
    try:
        check_body(signature, little, bytearray(b"xxx" + body + b"\0\0x\0"), 3, 3 + len(body))
    except ProtocolViolation:
        return False
    return True


def in_steps(signature: str, little: bool, body: bytes) -> bool:
    try:
        for _ in check_in_steps(signature, little, body, 0, len(body)):
            pass
    except ProtocolViolation:
        return False
    return True


def arriving(signature: str, little: bool, body: bytes, piece: int = 1) -> bool:
    """While it comes in small pieces: nothing behind them is there to be read."""
    buffer = bytearray(b"xxx")
    total = 3 + len(body)
    rest = iter([body[i : i + piece] for i in range(0, len(body), piece)])
    try:
        for _ in check_in_steps(signature, little, buffer, 3, total, buffer.__len__):
            buffer += next(rest, b"")
    except ProtocolViolation:
        return False
    return True


WAYS: list[Callable[[str, bool, bytes], bool]] = [
    at_once,
    inside,
    in_steps,
    arriving,
    reference_validator.is_valid,
]

# (signature, little-endian body, why it is not valid); blanks stand between values.
INVALID = [
    ("", "00", "too long"),
    ("y", "", "too short"),
    ("y", "00 00", "too long"),
    ("u", "000000", "too short"),
    ("yu", "01 000001 00000000", "padding"),
    ("yu", "01 0000", "padding missing"),
    ("b", "02000000", "boolean"),
    ("b", "00000001", "boolean of the other byte order"),
    ("b", "0000", "too short"),
    ("s", "", "no length"),
    ("s", "010000", "length cut"),
    ("s", "01000000 61", "no terminator"),
    ("s", "01000000 6161", "terminator not NUL"),
    ("s", "02000000 6100 00", "NUL inside"),
    ("s", "ffffffff 61 00", "length beyond the body"),
    ("s", "01000000 ff 00", "no UTF-8"),
    ("s", "02000000 c080 00", "overlong"),
    ("s", "03000000 eda080 00", "surrogate"),
    ("s", "04000000 f4908080 00", "beyond U+10FFFF"),
    ("s", "02000000 e282 00", "cut character"),
    ("o", "00000000 00", "empty path"),
    ("o", "01000000 61 00", "relative path"),
    ("o", "02000000 2f2f 00", "empty element"),
    ("o", "03000000 2f612f 00", "slash at the end"),
    ("o", "03000000 2f612d 00", "character"),
    ("o", "02000000 2f61 01", "terminator"),
    ("g", "", "no length"),
    ("g", "01", "cut"),
    ("g", "01 73", "no terminator"),
    ("g", "01 73 01", "terminator"),
    ("g", "01 61 00", "not a signature"),
    ("g", "02 7300 00", "NUL inside"),
    ("g", "01 c3 00", "not ASCII"),
    ("v", "", "no signature"),
    ("v", "00 00", "no type"),
    ("v", "02 7979 00 01 01", "two types"),
    ("v", "01 79 00", "no value"),
    ("v", "01 79 01 01", "terminator"),
    ("v", "01 61 00 00000000", "not a signature"),
    ("v", "01 75 00 01 00000000", "padding"),
    ("v", "04 7b737 57d 00".replace(" ", "") + "00000000", "dict entry alone"),
    ("as", "02000000 0000", "element cut by the array's end"),
    ("as", "04000000 00000000 00", "element beyond the array's end"),
    ("as", "09000000 00000000 00", "array beyond the body"),
    ("an", "03000000 000000", "length no multiple, CVE-2022-42011"),
    ("at", "07000000 00000000 00000000000000", "length no multiple"),
    ("at", "00000000 00000001", "padding of an empty array"),
    ("at", "00000000", "padding of an empty array missing"),
    ("ab", "04000000 02000000", "boolean"),
    ("ab", "08000000 01000000 00010000", "boolean"),
    ("ab", "03000000 010000", "length no multiple"),
    ("a(yu)", "08000000 00000000 01 000100 00000000", "padding in a struct"),
    ("a(uy)", "0d000000 00000000 01000000 01 000001 01000000 01", "padding between structs"),
    ("a(uy)", "06000000 00000000 01000000 01 00", "length no multiple"),
    ("a(yb)", "08000000 00000000 01 000000 00000100", "boolean in a struct"),
    ("a{yy}", "0a000000 00000000 01 01 000000010000 01 01", "padding between entries"),
    ("(y)y", "01", "too short"),
    ("y(y)", "01 000000 00 000001 01", "padding of a struct"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("signature", "text", "why"), INVALID)
def test_invalid(
    signature: str, text: str, why: str, way: Callable[[str, bool, bytes], bool]
) -> None:
    body = bytes.fromhex(text)
    assert not way(signature, True, body), why
    assert not libdbus.is_valid(signature, True, body), why


VALID: list[tuple[str, tuple[Any, ...]]] = [
    ("", ()),
    ("s", ("\ufffe\uffff\U0001fffe\ufdd0",)),  # noncharacters, as dbus-daemon
    ("s", ("\x01\x7f\x80\u07ff\u0800\U0010ffff",)),
    ("h", (4_000_000,)),  # no such descriptor: not looked at, as dbus-daemon
    ("as", ([],)),
    ("aas", ([[], ["x"], []],)),
    ("a(yt)", ([(1, 2), (3, 4)],)),
    ("a(uy)", ([(1, 2), (3, 4)],)),
    ("a(y(b(n)))", ([(1, (True, (1,))), (2, (False, (2,)))],)),
    ("ab", ([True, False, True],)),
    ("ab", ([],)),
    ("a{y(yv)}", ({1: (2, ("v", ("av", [("s", "x")])))},)),
    ("(((y)))t", ((((1,),),), 1)),
    ("ya{sv}as", (1, {"a": ("as", ["x"]), "b": ("a{sv}", {})}, [])),
    ("gogo", ("", "/", "a{sv}", "/a/b_c/D9")),
    ("v", (("a" * 32 + "t", []),)),
    ("s" * 20, tuple(["é" * i for i in range(20)])),
]


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize(("signature", "values"), VALID)
def test_valid(signature: str, values: tuple[Any, ...], little: bool) -> None:
    body = encode(signature, *values, little=little)
    assert libdbus.is_valid(signature, little, body)
    for way in WAYS:
        assert way(signature, little, body), way
        for cut in range(len(body)):
            assert not way(signature, little, body[:cut]), (way, cut)
        assert not way(signature, little, body + b"\0"), way


def nested(variants: int, signature: str, value: Any) -> bytes:
    """A body "v": so many variants, one in the other, around a value."""
    for _ in range(variants - 1):
        signature, value = "v", (signature, value)
    return encode("v", (signature, value))


def struct_of(count: int, value: Any) -> Any:
    for _ in range(count):
        value = (value,)
    return value


@pytest.mark.parametrize("way", [*WAYS, libdbus.is_valid])
@pytest.mark.parametrize(
    ("signature", "value", "levels"),
    [
        ("y", 7, 0),
        ("as", ["x"], 1),
        # An array of fixed types, or an empty one, is no level (dbus-daemon).
        ("as", [], 0),
        ("ay", b"x", 0),
        ("ab", [True], 0),
        ("a(yt)", [(1, 2)], 2),
        ("a(yt)", [], 0),
        ("a{sv}", {"x": ("y", 1)}, 3),
        ("(" * 32 + "y" + ")" * 32, struct_of(32, 1), 32),
        ("(" * 31 + "aa(y)" + ")" * 31, struct_of(31, [[], [(1,)]]), 34),
        ("a" * 20 + "(" + "a" * 20 + "s)", [[]], 1),
    ],
)
def test_depth_of_64_counts_through_variants(
    signature: str, value: Any, levels: int, way: Callable[[str, bool, bytes], bool]
) -> None:
    assert way("v", True, nested(64 - levels, signature, value))
    assert not way("v", True, nested(65 - levels, signature, value))


def test_variants_nested_by_thousands() -> None:
    # CVE-2010-4352
    for way in WAYS:
        assert not way("v", True, b"\1v\0" * 20_000 + b"\1y\0\7")


def test_no_python_recursion() -> None:
    signature = "(" * 31 + "a" * 5 + "s" + ")" * 31
    body = nested(28, signature, struct_of(31, [[[[["x"]]]]]))
    depth = 0
    frame = sys._getframe()
    while frame is not None:
        depth += 1
        frame = frame.f_back
    limit = sys.getrecursionlimit()
    # Far less than the 64 levels of the body.
    sys.setrecursionlimit(depth + 30)
    try:
        valid = at_once("v", True, body)
    finally:
        sys.setrecursionlimit(limit)
    assert valid


@pytest.mark.parametrize("signature", ["ay", "at", "ab", "as"])
def test_array_of_64_mib_and_one_byte(signature: str) -> None:
    # The bytes need not be there to be refused, and so cost nothing.
    head = struct.pack("<I", MAX_ARRAY + 8)
    with pytest.raises(ProtocolViolation, match="64 MiB"):
        check_body(signature, True, head + bytes(64), 0, MAX_ARRAY * 2)


def test_array_of_64_mib() -> None:
    body = struct.pack("<I", MAX_ARRAY) + bytes(MAX_ARRAY)
    check_body("ay", True, body, 0, len(body))
    check_body("ab", True, body, 0, len(body))


def many(element: bytes, cut: int = 0) -> bytes:
    content = element * (256 * 1024 // len(element))
    content = content[: len(content) - cut]
    return struct.pack("<I", len(content)) + content


# Bodies of about 256 KiB: what costs most by the byte, and what is one value.
LARGE = {
    "as": many(bytes(8), 3),
    "av": many(b"\1y\0\7"),
    "ag": many(b"\0\0"),
    "ao": many(b"\1\0\0\0/\0\0\0", 2),
    "aay": many(bytes(4)),
    "ab": many(b"\1\0\0\0"),
    "aab": many(b"\4\0\0\0\1\0\0\0"),
    "s": encode("s", "é" * 131_072),
    "o": encode("o", "/abc" * 65_536),
    "a(yb)": encode("a(yb)", [(1, True)] * 32_768),
}


@pytest.mark.parametrize("signature", LARGE)
def test_p1_a_large_body_is_checked_in_small_steps(signature: str) -> None:
    body = LARGE[signature]
    assert at_once(signature, True, body)
    pauses = [*walk(program_of(signature), True, body, 0, 0, len(body), 0, lambda: len(body))]
    assert pauses[-1] == len(body)
    reached = [0, *pauses]
    assert max(after - before for before, after in zip(reached, pauses, strict=False)) <= STEP + 512
    assert len([*check_in_steps(signature, True, body, 0, len(body))]) >= len(body) // STEP


def test_p1_signatures_never_seen_make_steps_shorter() -> None:
    # Elements of 520 bytes, of which half is a signature: without their price some 31 a step.
    count = 64
    content = bytearray()
    at = 4
    for _ in range(count):
        start = at
        piece = b"\377(" + b"y" * 253 + b")\0"
        at += len(piece)
        piece += bytes(-at % 8) + bytes(253)
        at = start + len(piece)
        content += piece
    body = struct.pack("<I", len(content)) + content
    assert at_once("av", True, body)
    pauses = [*walk(program_of("av"), True, body, 0, 0, len(body), 0, lambda: len(body))]
    reached = [0, *pauses]
    longest = max(after - before for before, after in zip(reached, pauses, strict=False))
    assert longest <= STEP // 2


@pytest.mark.parametrize("signature", LARGE)
def test_p1_a_large_body_is_checked_while_it_arrives(signature: str) -> None:
    body = LARGE[signature]
    assert arriving(signature, True, body, 1000)
    assert arriving(signature, True, body, 70_000)
    broken = bytearray(body)
    broken[-1 if signature not in ("aay", "av") else -4] = 0xFF
    assert not at_once(signature, True, bytes(broken))
    assert not arriving(signature, True, bytes(broken), 1000)


@pytest.mark.parametrize("place", range(STEP - 4, STEP + 4))
def test_p1_long_texts_are_cut_at_any_place(place: int) -> None:
    # Around the seam between two pieces.
    for character in ("é", "日", "\U0001f600"):
        text = ("a" * (place - 4) + character).encode() + b"a" * 20_000
        body = struct.pack("<I", len(text)) + text + b"\0"
        assert in_steps("s", True, body)
        assert arriving("s", True, body, 4096)
        bad = body[:place] + b"\xff" + body[place + 1 :]
        assert not in_steps("s", True, bad)
        assert not in_steps("s", True, body[:place] + b"\0" + body[place + 1 :])
    path = "/a" * 20_000
    body = encode("o", path)
    assert in_steps("o", True, body)
    for at, letter in ((place, b"-"), (place | 1, b"/")):
        assert not in_steps("o", True, body[:at] + letter + body[at + 1 :])
    assert not in_steps("o", True, encode("s", path + "/"))
    assert not in_steps("o", True, encode("s", "a" + path))


def test_p1_a_step_waits_without_working() -> None:
    body = encode("as", ["x" * 100] * 1000)
    buffer = bytearray(body[:5000])
    steps = check_in_steps("as", True, buffer, 0, len(body), buffer.__len__)
    for _ in range(100):
        assert next(steps, "ended") is None
    buffer += body[5000:]
    assert next(steps, "ended") is None
    assert [*steps][-1] is None
