"""How the text of a match rule is taken apart."""

from __future__ import annotations

from random import Random

import pytest

from afdbus.bus import match
from afdbus.errors import BusError

PARTS = [
    "type", "arg0", "x", "=", "'", ",", "\\", " ", "\n", "\u00e9", "=''", "='x',", "member='M'",
    "path='/a'", "arg0='x,y'", "arg1='",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_in_one_go_is_what_each_character_says(seed: int) -> None:
    random = Random(seed)
    usual, _ = match._usual()
    quick = 0
    for _ in range(5000):
        text = "".join(random.choice(PARTS) for _ in range(random.randrange(12)))
        try:
            tokens = match._spelt(text)
        except BusError:
            assert not usual.fullmatch(text)
        else:
            quick += bool(usual.fullmatch(text))
            assert match._tokens(text) == tokens
    assert quick > 200, "too few to mean anything"
