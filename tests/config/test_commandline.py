"""`Exec=` split into arguments; the same table is tried on both daemons in tests/oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.commandlines import SPLIT, UNCLOSED

from afdbus.config.commandline import split
from afdbus.errors import INVALID_ARGS, BusError


@pytest.mark.parametrize(("command", "arguments"), SPLIT)
def test_split(command: str, arguments: list[str]) -> None:
    assert split(command) == arguments


def test_no_program_is_an_empty_one() -> None:
    assert split("") == [""]
    assert split("  ") == [""]


@pytest.mark.parametrize("command", UNCLOSED)
def test_unclosed(command: str) -> None:
    with pytest.raises(BusError) as caught:
        split(command)
    assert caught.value.name == INVALID_ARGS
    assert caught.value.text == "Unclosed quotes in command line"


@given(st.text())
def test_any_text_is_split_or_refused(command: str) -> None:
    try:
        assert split(command)
    except BusError:
        assert {"'", '"', "\\", "#"} & set(command)


@given(st.lists(st.text(st.characters(exclude_characters="'")), min_size=1))
def test_what_is_quoted_comes_out_as_it_was(words: list[str]) -> None:
    assert split(" ".join(f"'{word}'" for word in words)) == words
