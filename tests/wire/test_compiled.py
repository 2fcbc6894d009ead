"""Compiled validators: the same answers, and no gift to attackers."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from random_bodies import COMMON, damaged, random_body

from afdbus.wire import checker as checkers
from afdbus.wire.checker import BODIES_PER_EXCHANGE, COMPILE_AT, MAX_COMPILED, checker, forget
from afdbus.wire.compiled import compile_validator
from afdbus.wire.encode import encode

table = checkers._compilations.table


@pytest.fixture(autouse=True)
def _empty_stores() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The signatures that a compilation was asked for."""
    signatures: list[str] = []

    def compile_and_note(signature: str, little: bool) -> object:
        signatures.append(signature)
        return compile_validator(signature, little)

    monkeypatch.setattr(checkers, "compile_validator", compile_and_note)
    return signatures


def texts(signature: str, count: int) -> list[bytes]:
    """Bodies that start with strings of ever other lengths, so that no shape fits."""
    return [encode(signature, "x" * i, *[0] * (len(signature) - 1)) for i in range(count)]


def feed(signature: str, bodies: list[bytes]) -> None:
    check = checker(signature, True)
    for body in bodies:
        assert check(body, 0, len(body))


def test_p2_compiled_at_the_8th_use(made: list[str]) -> None:
    bodies = texts("su", 20)
    feed("su", bodies[: COMPILE_AT - 1])
    assert made == []
    feed("su", bodies[COMPILE_AT - 1 :])
    assert made == ["su"]
    assert len(table) == 1


@pytest.mark.parametrize(
    ("signature", "small"),
    [
        ("s" * 64, True),
        ("s" * 65, False),
        ("a" * 8 + "s", True),
        ("a" * 9 + "s", False),
        ("a{s" * 4 + "s" + "}" * 4, True),
        ("a{sa{sa{sa{sas}}}}", False),
        ("(" * 8 + "s" + ")" * 8, True),
        ("(" * 9 + "s" + ")" * 9, False),
        ("a" * 32 + "u", False),  # more blocks than Python nests: no SyntaxError
        ("aas" * 21, True),
        ("a(s)" * 16, True),
    ],
)
def test_p2_only_small_signatures_are_compiled(signature: str, small: bool) -> None:
    for little in (True, False):
        assert (compile_validator(signature, little) is not None) == small


def test_p2_a_large_signature_is_tried_once(made: list[str]) -> None:
    signature = "s" + "u" * 64
    feed(signature, texts(signature, 50))
    assert made == [signature]
    assert not table


def test_p2_signatures_by_the_thousand(made: list[str]) -> None:
    # Each body a new signature in its variants: none is compiled, but that of the body itself.
    random = Random(2)
    for _ in range(50):
        kinds = ["".join(random.choices("ynqiuxtd", k=30)) for _ in range(40)]
        body = encode("av", [(f"({kind})", tuple([0] * 30)) for kind in kinds])
        feed("av", [body])
    assert made == ["av"]
    # Each message a new signature: none comes often enough.
    made.clear()
    for i in range(2000):
        signature = "s" + "".join("ui"[i >> bit & 1] for bit in range(11))
        feed(signature, texts(signature, 3))
    assert made == []


def test_p2_at_most_256_and_those_in_use_stay(made: list[str]) -> None:
    feed("su", texts("su", COMPILE_AT))
    assert [judge.signature for judge in table] == ["su"]
    for i in range(2 * MAX_COMPILED + 64):
        signature = "s" + "".join("ui"[i >> bit & 1] for bit in range(11))
        # Just often enough to be compiled with its last body, even when all places are taken.
        full = len(table) == MAX_COMPILED
        again = COMPILE_AT + (BODIES_PER_EXCHANGE - 1 if full else 0)
        feed(signature, texts(signature, again))
        # Too long for the memory of shapes.
        feed("su", [encode("su", "x" * 3000, i)])
        assert len(table) <= MAX_COMPILED
    assert len(table) == MAX_COMPILED
    assert all(judge.compiled for judge in table)
    # Used all the time, so never pushed out by those that are not.
    assert made.count("su") == 1
    assert "su" in [judge.signature for judge in table]
    assert len(made) == 2 * MAX_COMPILED + 65


def test_p2_a_full_table_is_not_compiled_round_and_round(made: list[str]) -> None:
    signatures = ["s" + "".join("ui"[i >> bit & 1] for bit in range(9)) for i in range(512)]
    for signature in signatures:
        feed(signature, texts(signature, COMPILE_AT))
    assert len(made) <= MAX_COMPILED + 512 * COMPILE_AT // BODIES_PER_EXCHANGE
    made.clear()
    bodies = 0
    for _ in range(3):
        for signature in signatures:
            feed(signature, texts(signature, COMPILE_AT))
            bodies += COMPILE_AT
    assert len(made) <= bodies // BODIES_PER_EXCHANGE + 1


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("signature", [*COMMON, "a(yb)a(uu)", "ygvobas", "(sa(y(as)b)t)x"])
def test_whole_bodies_only(signature: str, little: bool) -> None:
    random = Random(3)
    validator = compile_validator(signature, little)
    assert validator is not None
    for _ in range(20):
        body = random_body(random, signature, little)
        assert validator(body)
        for cut in range(len(body)):
            assert not validator(body[:cut])
        assert not validator(body + b"\0")
        validator(damaged(random, body))
