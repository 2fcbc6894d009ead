"""The checker that the road calls: its short ways, and all ways against each other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random

import pytest
import reference_validator
from hypothesis import given, settings
from hypothesis import strategies as st
from random_bodies import COMMON, damaged, random_body, random_signature

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_ARRAY
from afdbus.wire.check import check_body, check_in_steps
from afdbus.wire.checker import MAX_CHECKERS, checker, forget
from afdbus.wire.compiled import compile_validator
from afdbus.wire.encode import encode


@pytest.fixture(autouse=True)
def _empty_stores() -> Iterator[None]:
    forget()
    yield
    forget()


def interpreted(signature: str, little: bool, body: bytes) -> bool:
    try:
        check_body(signature, little, body, 0, len(body))
    except ProtocolViolation:
        return False
    return True


def stepwise(signature: str, little: bool, body: bytes) -> bool:
    """While the body arrives, nine bytes at a time."""
    buffer = bytearray(b"pad")
    rest = iter([body[i : i + 9] for i in range(0, len(body), 9)])
    try:
        end = 3 + len(body)
        for _ in check_in_steps(signature, little, buffer, 3, end, buffer.__len__):
            buffer += next(rest, b"")
    except ProtocolViolation:
        return False
    return True


def test_all_validators_agree() -> None:
    """A hundred thousand damaged bodies: whatever comes, one answer, and never an exception."""
    random = Random(2024)
    mutants = valid = 0
    while mutants < 100_000:
        signature = random_signature(random)
        if len(signature) > 255:
            continue
        little = random.random() < 0.5
        body = random_body(random, signature, little)
        check = checker(signature, little)
        compiled = compile_validator(signature, little) if mutants % 3 == 0 else None
        for _ in range(3):
            assert check(b"12345678" + body + b"12", 8, 8 + len(body)), (signature, little, body)
        assert compiled is None or compiled(body)
        for i in range(50):
            other = damaged(random, body)
            truth = reference_validator.is_valid(signature, little, other)
            mutants += 1
            valid += truth
            case = (signature, little, body, other)
            assert check(other, 0, len(other)) == truth, case
            assert interpreted(signature, little, other) == truth, case
            if compiled is not None:
                assert compiled(other) == truth, case
            if i % 5 == 0:
                assert stepwise(signature, little, other) == truth, case
    assert mutants * 0.1 < valid < mutants * 0.5


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(COMMON), st.booleans(), st.binary(max_size=60))
def test_any_bytes_are_valid_or_not(signature: str, little: bool, body: bytes) -> None:
    truth = reference_validator.is_valid(signature, little, body)
    assert checker(signature, little)(body, 0, len(body)) == truth
    assert interpreted(signature, little, body) == truth
    assert stepwise(signature, little, body) == truth
    compiled = compile_validator(signature, little)
    assert compiled is not None
    assert compiled(body) == truth


FIXED = ["y", "u", "ub", "yyu", "(ybx)q", "b", "yx", "(y)(y)y", "hdt"]
TAILS = ["ay", "uay", "at", "yat", "(bay)", "yban", "(yx)ah", "ad", "ybay"]


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("signature", ["", *FIXED, *TAILS])
def test_short_ways_are_right(signature: str, little: bool) -> None:
    random = Random(5)
    check = checker(signature, little)
    for _ in range(40):
        body = random_body(random, signature, little)
        assert check(b"xyz" + body + b"\0", 3, 3 + len(body))
        for cut in range(len(body)):
            assert not check(body, 0, cut)
        assert not check(body + bytes(8), 0, len(body) + 1)
        for _ in range(60):
            other = damaged(random, body)
            truth = reference_validator.is_valid(signature, little, other)
            assert check(other, 0, len(other)) == truth, other
            assert check(bytearray(b"7 bytes" + other), 7, 7 + len(other)) == truth, other


def test_tail_of_64_mib_and_more() -> None:
    check = checker("ay", True)
    # A range stands for the bytes, which the check does not look at.
    head = struct.pack("<I", MAX_ARRAY)
    assert check(head, 0, MAX_ARRAY + 4)
    head = struct.pack("<I", MAX_ARRAY + 1)
    assert not check(head, 0, MAX_ARRAY + 5)


def test_bodies_over_64_kib() -> None:
    body = encode("as", ["é" * 100] * 1000)
    assert checker("as", True)(body, 0, len(body))
    assert not checker("as", True)(body[:-1] + b"x", 0, len(body))


def test_a_signature_that_is_none() -> None:
    with pytest.raises(ProtocolViolation):
        checker("a", True)


def test_p17_checkers_are_bounded() -> None:
    for i in range(3 * MAX_CHECKERS):
        checker("s" + "".join("ui"[i >> bit & 1] for bit in range(10)), bool(i & 1))
    assert checker.cache_info().currsize == MAX_CHECKERS
    assert checker("su", True) is checker("su", True)
    assert checker("su", True) is not checker("su", False)


def test_p17_a_checker_that_a_plan_still_holds_works_on() -> None:
    check = checker("su", True)
    for i in range(3 * MAX_CHECKERS):
        checker("s" + "".join("ui"[i >> bit & 1] for bit in range(10)), True)
    assert checker("su", True) is not check
    for i in range(30):
        body = encode("su", "x" * i, i)
        assert check(body, 0, len(body))
        assert not check(body[:-1], 0, len(body) - 1)
