"""The memory of shapes: never wrong, never large."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from random import Random

import pytest
import reference_validator
from random_bodies import damaged, random_body, random_signature

from afdbus.wire import checker as checkers
from afdbus.wire import shapes
from afdbus.wire.checker import checker, forget
from afdbus.wire.encode import encode
from afdbus.wire.layout import program_of
from afdbus.wire.shapes import (
    MAX_BYTES,
    MAX_FRUITLESS,
    MAX_LENGTH,
    MAX_OTHERS,
    MAX_SEEN,
    Memory,
    Shape,
    Shapes,
    shape_of,
)

memory = checkers._memory


@pytest.fixture(autouse=True)
def _empty_stores() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that a shape was taken from."""
    bodies: list[bytes] = []

    def take_and_note(program: shapes.Program, little: bool, body: bytes) -> Shape:
        bodies.append(body)
        return shape_of(program, little, body)

    monkeypatch.setattr(shapes, "shape_of", take_and_note)
    return bodies


def shape(signature: str, body: bytes, little: bool = True) -> Shape:
    return shape_of(program_of(signature), little, body)


def test_p16_any_two_neighbouring_letters() -> None:
    # All pairs of bytes where letters were, for carries from one to the next.
    known = shape("sq", encode("sq", "ab", 0xFFFF))
    body = bytearray(encode("sq", "ab", 0xFFFF))
    for first in range(256):
        for second in range(256):
            body[4] = first
            body[5] = second
            assert known.fits(bytes(body)) == (0 < first < 128 and 0 < second < 128)


@pytest.mark.parametrize("number", [0, 0x80, 0x8080, 0xFF80, 0xFFFF])
def test_p16_a_number_does_not_hide_what_letters_are(number: int) -> None:
    # 0x80 elsewhere in the body turns off the quick way.
    known = shape("qsq", encode("qsq", 1, "abc", 2))
    body = bytearray(encode("qsq", number, "abc", number))
    assert known.fits(bytes(body))
    for place in (8, 9, 10):
        for byte in range(256):
            changed = body.copy()
            changed[place] = byte
            assert known.fits(bytes(changed)) == (0 < byte < 128)


def test_p16_what_guides_the_walk_is_pinned() -> None:
    signature = "sovgasa{yv}b(yt)"
    values = ("name", "/a/b", ("u", 1), "as", ["x", "yz"], {1: ("s", "é"), 2: ("b", True)})
    body = encode(signature, *values, False, (1, 2))
    known = shape(signature, body)
    assert known.fits(body)
    for at in range(len(body)):
        for byte in range(256):
            changed = body[:at] + bytes([byte]) + body[at + 1 :]
            if known.fits(changed):
                assert reference_validator.is_valid(signature, True, changed), (at, byte)


def test_p16_a_shape_never_fits_what_is_not_valid() -> None:
    random = Random(16)
    hits = valid = 0
    for _ in range(1200):
        signature = random_signature(random)
        little = random.random() < 0.5
        body = random_body(random, signature, little)
        known = shape(signature, body, little)
        assert known.fits(body)
        for _ in range(25):
            other = damaged(random, body)
            if len(other) != len(body):
                continue
            truth = reference_validator.is_valid(signature, little, other)
            valid += truth
            if known.fits(other):
                hits += 1
                assert truth, (signature, little, body, other)
    assert hits > 2000
    assert valid > hits


def test_p14_byte_orders_do_not_share_shapes() -> None:
    # Which byte of a boolean is free depends on the order.
    for signature, prefix in (("sb", b"\0" * 5), ("vsb", b"\1y\0\7" + b"\0" * 5)):
        body = prefix + bytes(-len(prefix) % 4) + b"\0\0\0\0"
        one = {True: body[:-4] + b"\1\0\0\0", False: body[:-4] + b"\0\0\0\1"}
        for little in (True, False):
            check = checker(signature, little)
            for _ in range(20):
                assert check(body, 0, len(body))
            for _ in range(3):
                assert check(one[little], 0, len(body))
                assert not check(one[not little], 0, len(body))


@pytest.mark.parametrize("little", [True, False])
def test_p14_booleans_in_rows(little: bool) -> None:
    body = encode("a(yb)s", [(1, True), (2, False)], "x", little=little)
    known = shape("a(yb)s", body, little)
    assert known.fits(encode("a(yb)s", [(9, False), (8, True)], "y", little=little))
    assert not known.fits(encode("a(yb)s", [(9, False), (8, True)], "y", little=not little))
    for at in range(8, 8 + 16):
        for byte in (1, 2, 0x80, 0xFF):
            changed = body[:at] + bytes([byte]) + body[at + 1 :]
            if known.fits(changed):
                assert reference_validator.is_valid("a(yb)s", little, changed)


def test_learned_at_the_second_sight_and_then_known(learned: list[bytes]) -> None:
    check = checker("sus", True)
    for i in range(50):
        body = encode("sus", f"name{i:03}", i, "x")
        assert check(b"12345678" + body, 8, 8 + len(body))
    assert len(learned) == 1
    assert len(memory.table) == 1
    (seen,) = memory.table
    assert seen.misses == 1


def test_several_shapes_of_one_length(learned: list[bytes]) -> None:
    check = checker("ss", True)
    bodies = [encode("ss", "a" * (4 * i + 3), "b" * (12 - 4 * i)) for i in range(4)]
    assert len({len(body) for body in bodies}) == 1
    for _ in range(30):
        for body in bodies:
            assert check(body, 0, len(body))
    assert len(learned) == 1 + MAX_OTHERS


def test_p16_learning_in_vain_stops(learned: list[bytes]) -> None:
    # Text that is not ASCII is pinned: it never comes again.
    check = checker("s", True)
    for i in range(4000):
        body = encode("s", chr(0x4E00 + i))
        assert check(body, 0, len(body))
    # After eight in vain only at every power of two.
    assert len(learned) <= MAX_FRUITLESS + 12
    (seen,) = memory.table
    assert len(seen.others) <= MAX_OTHERS
    # What then comes again and again is learned all the same, though later.
    body = encode("s", "日")
    for _ in range(5000):
        assert check(body, 0, len(body))
    assert learned[-1] == body


def test_p16_refused_bodies_teach_nothing(learned: list[bytes]) -> None:
    check = checker("v", True)
    two_types = b"\2yy\0\1\1"
    for _ in range(20):
        assert not check(two_types, 0, len(two_types))
    assert learned == []
    assert not memory.table


def footprint() -> int:
    total = 0
    for seen in memory.table:
        front = seen.owner.front.get(seen.length)
        for known in [*seen.others, *([front] if front else [])]:
            total += sum(map(sys.getsizeof, known)) + sys.getsizeof(known)
    return total


def test_p17_the_memory_is_bounded_in_number() -> None:
    for behind in range(1, 7):
        signature = "s" + "y" * behind
        check = checker(signature, True)
        for length in range(100):
            body = encode(signature, "x" * length, *[1] * behind)
            for _ in range(3):
                assert check(body, 0, len(body))
            assert len(memory.table) <= MAX_SEEN
    assert len(memory.table) == MAX_SEEN


def test_p17_the_memory_is_bounded_in_bytes() -> None:
    check = checker("sy", True)
    for length in range(MAX_LENGTH - 600, MAX_LENGTH + 100):
        body = encode("sy", "x" * length, 1)
        for _ in range(3):
            assert check(body, 0, len(body))
    assert memory.bytes <= MAX_BYTES
    assert 50 < len(memory.table) < MAX_SEEN
    # The price put on a shape is about what it costs.
    assert footprint() <= memory.bytes
    assert max(seen.length for seen in memory.table) == MAX_LENGTH


def test_p17_what_is_pushed_out_leaves_nothing_behind() -> None:
    check = checker("s", True)
    body = encode("s", "hello")
    for _ in range(3):
        check(body, 0, len(body))
    (seen,) = memory.table
    owner = seen.owner
    flood = checker("sy", True)
    for length in range(MAX_SEEN + 10):
        other = encode("sy", "x" * length, 1)
        flood(other, 0, len(other))
    assert seen not in memory.table
    assert not owner.front
    assert not owner.seen
    # It still answers, and learns again.
    for _ in range(3):
        assert check(body, 0, len(body))
    assert owner.front


def test_p17_a_shape_promoted_after_it_was_forgotten_is_not_kept() -> None:
    own = Memory()
    owner = Shapes(own, program_of("ss"), True)
    for i in (0, 0, 1, 1, 1):
        owner.learn(encode("ss", "a" * (4 * i + 3), "b" * (12 - 4 * i)))
    (seen,) = own.table
    other = seen.others[0]
    own.clear()
    own.promote(seen, other)
    assert not owner.front
    assert own.bytes == 0
