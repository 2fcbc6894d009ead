"""Values to bytes and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afdbus.errors import ProtocolViolation
from afdbus.wire.check import check_body
from afdbus.wire.decode import decode, string_arguments
from afdbus.wire.encode import encode
from afdbus.wire.signature import split

# (signature, values, little-endian, big-endian); blanks stand between values.
VECTORS: list[tuple[str, tuple[Any, ...], str, str]] = [
    ("", (), "", ""),
    ("y", (7,), "07", "07"),
    ("b", (True,), "01000000", "00000001"),
    ("nq", (-2, 3), "feff 0300", "fffe 0003"),
    ("yiu", (1, -1, 2), "01 000000 ffffffff 02000000", "01 000000 ffffffff 00000002"),
    (
        "yxt",
        (1, -1, 2),
        "01 00000000000000 ffffffffffffffff 0200000000000000",
        "01 00000000000000 ffffffffffffffff 0000000000000002",
    ),
    ("d", (1.0,), "000000000000f03f", "3ff0000000000000"),
    ("h", (3,), "03000000", "00000003"),
    ("s", ("hé",), "03000000 68c3a9 00", "00000003 68c3a9 00"),
    ("o", ("/a",), "02000000 2f61 00", "00000002 2f61 00"),
    ("g", ("as",), "02 6173 00", "02 6173 00"),
    ("v", (("u", 5),), "01 75 00 00 05000000", "01 75 00 00 00000005"),
    ("ay", (b"ab",), "02000000 6162", "00000002 6162"),
    ("ab", ([True, False],), "08000000 01000000 00000000", "00000008 00000001 00000000"),
    ("at", ([],), "00000000 00000000", "00000000 00000000"),
    ("(yu)", ((1, 2),), "01 000000 02000000", "01 000000 00000002"),
    (
        "a{yv}",
        ({1: ("s", "")},),
        "09000000 00000000 01 01 73 00 00000000 00",
        "00000009 00000000 01 01 73 00 00000000 00",
    ),
    (
        "as",
        (["", "a"],),
        "0e000000 00000000 00 000000 01000000 61 00",
        "0000000e 00000000 00 000000 00000001 61 00",
    ),
]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0])
@pytest.mark.parametrize("little", [True, False])
def test_vectors(vector: tuple[str, tuple[Any, ...], str, str], little: bool) -> None:
    signature, values, little_hex, big_hex = vector
    body = bytes.fromhex(little_hex if little else big_hex)
    assert encode(signature, *values, little=little) == body
    assert decode(signature, little, body, 0, len(body)) == values
    # Somewhere in a buffer, with something behind it.
    buffer = bytearray(b"12345" + body + b"6")
    assert decode(signature, little, buffer, 5, 5 + len(body)) == values


_NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "h": st.integers(0, 10),
    "s": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9),
    "o": st.sampled_from(["/", "/a", "/a/_b/C9"]),
    "g": st.sampled_from(["", "s", "a{sv}(ii)"]),
}
_basics = st.sampled_from(sorted(_NUMBERS))
_types = st.recursive(
    _basics | st.just("v"),
    lambda inner: st.one_of(
        inner.map(lambda kind: "a" + kind),
        st.tuples(_basics, inner).map(lambda pair: "a{" + "".join(pair) + "}"),
        st.lists(inner, min_size=1, max_size=4).map(lambda kinds: "(" + "".join(kinds) + ")"),
    ),
    max_leaves=6,
)


def _values(kind: str) -> st.SearchStrategy[Any]:
    code = kind[0]
    if code == "v":
        return _basics.flatmap(lambda inner: st.tuples(st.just(inner), _NUMBERS[inner]))
    if code == "(":
        return st.tuples(*[_values(member) for member in split(kind[1:-1])])
    if kind == "ay":
        return st.binary(max_size=9)
    if kind.startswith("a{"):
        key, value = split(kind[2:-1])
        return st.dictionaries(_values(key), _values(value), max_size=3)
    if code == "a":
        return st.lists(_values(kind[1:]), max_size=3)
    return _NUMBERS[code]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), st.lists(_types, max_size=3), st.booleans())
def test_round_trip(data: st.DataObject, types: list[str], little: bool) -> None:
    signature = "".join(types)
    values = tuple([data.draw(_values(kind)) for kind in types])
    body = encode(signature, *values, little=little)
    check_body(signature, little, body, 0, len(body))
    assert decode(signature, little, body, 0, len(body)) == values


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("y", (256,)),
        ("u", (-1,)),
        ("u", ("1",)),
        ("s", ("a\0b",)),
        ("o", ("a",)),
        ("o", ("/a/",)),
        ("g", ("a",)),
        ("v", (("ss", "a"),)),
        ("v", (("", None),)),
        ("(uu)", ((1,),)),
        ("uu", (1,)),
        ("a", ([],)),
        ("ay", ([256],)),
    ],
)
def test_values_that_do_not_fit(signature: str, values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the promise, texts are for people
        encode(signature, *values)


def test_decode_refuses_what_is_not_valid() -> None:
    with pytest.raises(ProtocolViolation):
        decode("s", True, b"\5\0\0\0abc\0", 0, 8)


@pytest.mark.parametrize("little", [True, False])
def test_string_arguments(little: bool) -> None:
    deep: tuple[str, Any] = ("(ysv)", (1, "x", ("a(yt)", [(1, 2)])))
    body = encode(
        "sya{sv}(sot)vogasds",
        *("first", 1, {"k": ("v", deep)}, ("in", "/s", 1), deep, "/o", "ai", ["x"], 0.5, "last"),
        little=little,
    )
    buffer = b"...." + body + b"...."
    found = string_arguments("sya{sv}(sot)vogasds", little, buffer, 4, 4 + len(body), 64)
    expected = [("s", "first"), *[None] * 4, ("o", "/o"), ("g", "ai"), None, None, ("s", "last")]
    assert found == expected
    for count in range(10):
        assert (
            string_arguments("sya{sv}(sot)vogasds", little, buffer, 4, 4 + len(body), count)
            == expected[:count]
        )
    assert string_arguments("", little, b"", 0, 0, 5) == []
