"""The index of match rules against asking every rule, and what attacks on it cost (P9)."""

from __future__ import annotations

from typing import Any

import pytest
from busworld import lines
from hypothesis import given, settings
from hypothesis import strategies as st

from afdbus.bus import match
from afdbus.bus.cell import Cell
from afdbus.bus.match import MatchRule, parse
from afdbus.bus.matchindex import MatchIndex
from afdbus.errors import BusError
from afdbus.wire.header import Header

INTERFACES = [None, "a.b", "a.c"]
MEMBERS = [None, "M", "N"]
PATHS = [None, "/", "/a", "/a/b", "/a/b/c", "/ab"]
SENDERS = [None, ":1.1", "com.a", "com.b"]
VALUES = ["", "x", "/", "/a", "/a/", "/a/b", "a", "a.b", "a.bc"]
KINDS = ["", "path", "namespace"]


@st.composite
def rules(draw: st.DrawFn) -> MatchRule:
    arguments = []
    for index in sorted(draw(st.sets(st.integers(0, 3), max_size=3))):
        kind = draw(st.sampled_from(KINDS if index == 0 else KINDS[:2]))
        arguments.append((index, kind, draw(st.sampled_from(VALUES))))
    key = draw(st.sampled_from(["path", "path_namespace"]))
    return MatchRule(
        draw(st.integers(0, 4)),
        draw(st.sampled_from(SENDERS)),
        draw(st.sampled_from(INTERFACES)),
        draw(st.sampled_from(MEMBERS)),
        arguments=tuple(arguments),
        **{key: draw(st.sampled_from(PATHS))},
    )


arguments_of_messages = st.lists(
    st.one_of(st.none(), st.tuples(st.sampled_from("sog"), st.sampled_from(VALUES))), max_size=4
)


def fits(
    rule: MatchRule, header: Header, senders: list[str], found: list[tuple[str, str] | None]
) -> bool:
    """Written from the specification's table of keys, without a look at the index."""
    if rule.sender is not None and rule.sender not in senders:
        return False
    for key in ("interface", "member", "path"):
        wanted = getattr(rule, key)
        if wanted is not None and wanted != getattr(header, key):
            return False
    space = rule.path_namespace
    if space is not None:
        if header.path is None:
            return False
        if space != "/" and not (header.path + "/").startswith(space + "/"):
            return False
    for index, kind, wanted in rule.arguments:
        argument = found[index] if index < len(found) else None
        if argument is None:
            return False
        type_, value = argument
        if kind == "":
            if type_ != "s" or value != wanted:
                return False
        elif kind == "namespace":
            if type_ != "s" or not (value + ".").startswith(wanted + "."):
                return False
        else:
            prefix = (wanted.endswith("/") and value.startswith(wanted)) or (
                value.endswith("/") and wanted.startswith(value)
            )
            if type_ not in "so" or not (value == wanted or prefix):
                return False
    return True


def found_by(
    index: MatchIndex, header: Header, senders: list[str], found: list[tuple[str, str] | None]
) -> list[tuple[MatchRule, Any]]:
    entries: list[tuple[MatchRule, Any]] = []
    for cell in index.cells(header, senders):
        entries += cell.plain
        more = list(cell.with_arguments(found))
        assert cell.may_fit(found) == bool(more)
        assert all(rule.arguments[-1][0] < cell.highest for rule, _ in more)
        assert cell.has_arguments() or not more
        entries += more
    return entries


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_the_index_finds_what_asking_every_rule_finds(data: st.DataObject) -> None:
    index = MatchIndex()
    present: dict[tuple[MatchRule, Any], None] = {}
    for _ in range(data.draw(st.integers(1, 4))):
        for rule in data.draw(st.lists(rules(), max_size=12)):
            peer: Any = data.draw(st.integers(0, 2))
            if (rule, peer) not in present:
                present[rule, peer] = None
                index.add(peer, rule)
        if present:
            for gone in data.draw(st.lists(st.sampled_from(list(present)), max_size=6)):
                if gone in present:
                    del present[gone]
                    index.remove(gone[1], gone[0])
        header = Header(True, 4, 0)
        header.interface = data.draw(st.sampled_from(INTERFACES))
        header.member = data.draw(st.sampled_from(MEMBERS))
        header.path = data.draw(st.sampled_from(PATHS))
        senders = data.draw(st.sampled_from([[":1.1"], [":1.2", "com.a", "com.b"], [":1.3"]]))
        found = data.draw(arguments_of_messages)
        entries = found_by(index, header, senders, found)
        assert len(entries) == len(set(entries)), "an entry twice"
        assert set(entries) == {
            (rule, peer) for rule, peer in present if fits(rule, header, senders, found)
        }
    for rule, peer in present:
        index.remove(peer, rule)
    assert not index
    assert index._combinations == index.senders == {}


def test_p9_of_a_long_text_only_what_rules_can_name_is_tried() -> None:
    """32 KiB of "/a" cost a quarter of a second where every beginning was tried."""
    index = MatchIndex()
    peer: Any = "peer"
    for rule in ("arg0path='/aa/'", "arg0namespace='a.b'", "path_namespace='/a/a'"):
        index.add(peer, parse(rule))
    header = Header(True, 4, 0)
    header.path = "/a" * 16384
    path, name = ("s", "/a" * 16384), ("s", "a.b" * 8192)
    assert len(found_by(index, header, [":1.1"], [path])) == 1
    cost = lines(lambda: found_by(index, header, [":1.1"], [path]))
    cost += lines(lambda: found_by(index, header, [":1.1"], [name]))
    assert cost < 1000


@settings(max_examples=300, deadline=None)
@given(rules())
def test_a_rule_reads_as_it_is_spelt(rule: MatchRule) -> None:
    """GetAllMatchRules spells rules so that AddMatch understands them again."""
    if any(kind == "namespace" and value in ("", "/", "/a", "/a/", "/a/b")
           for _, kind, value in rule.arguments):  # fmt: skip
        with pytest.raises(BusError):
            parse(str(rule))
        return
    assert parse(str(rule)) == rule


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="typesndrargpathm0123456789_='\\\", /ab.:", max_size=80))
def test_any_text_is_a_rule_or_an_error(text: str) -> None:
    outcome: object
    try:
        outcome = parse(text)
    except BusError as error:
        outcome = error.name
    assert isinstance(outcome, MatchRule) or outcome in (
        match.MATCH_RULE_INVALID,
        match.LIMITS_EXCEEDED,
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["a", "arg0", "=", "'", "=''", "='x'", "='a b'", ",", " ", "\\", "é"])
    ).map("".join)
)
def test_a_rule_in_the_usual_spelling_says_what_it_says_in_any(text: str) -> None:
    try:
        expected = match._spelt(text)
    except BusError:
        with pytest.raises(BusError):
            match._tokens(text)
    else:
        assert match._tokens(text) == expected


def test_an_empty_cell_matches_nothing() -> None:
    assert Cell().is_empty()
    assert list(Cell().with_arguments([("s", "x")])) == []
