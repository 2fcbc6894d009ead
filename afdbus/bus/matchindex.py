"""Finds the match rules that a message may fit, without asking all of them.

Each rule lies in one cell, by those of interface, member, path and sender that it names.  A message
looks into the cells of every combination in use (at most sixteen, usually four).  Within a cell,
rules with an argN lie by the value of their lowest argument, so that ten thousand rules that differ
in arg0 cost one look-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from afdbus.bus.match import EXACT, MatchRule
from afdbus.wire.header import INTERFACE, MEMBER, PATH

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header

Entry = tuple[MatchRule, "Peer"]
Entries = dict[Entry, None]
Key = tuple[str | None, str | None, str | None, str | None]
_T = TypeVar("_T")
_FIELDS = (INTERFACE, MEMBER, PATH)  # of a header, in a key


class Cell:
    """The rules with the same interface, member, path and sender.

    Entries are keys of dictionaries: kept in order, found and dropped at once, however many one
    client adds (P9).
    """

    __slots__ = ("arguments", "highest", "others", "plain")

    def __init__(self) -> None:
        # Without arguments; by (argument index, value); with argNpath or arg0namespace alone.
        self.plain: Entries | None = None
        self.arguments: dict[int, dict[str, Entries]] | None = None
        self.others: Entries | None = None
        # How many of a message's arguments the rules here look at, at the most.
        self.highest = 0

    def add(self, entry: Entry) -> None:
        arguments = entry[0].arguments
        if not arguments:
            if self.plain is None:
                self.plain = {}
            self.plain[entry] = None
            return
        self.highest = max(self.highest, arguments[-1][0] + 1)
        for index, kind, value in arguments:
            if kind == EXACT:
                if self.arguments is None:
                    self.arguments = {}
                self.arguments.setdefault(index, {}).setdefault(value, {})[entry] = None
                return
        if self.others is None:
            self.others = {}
        self.others[entry] = None

    def remove(self, entry: Entry) -> None:
        """Remove an entry, which must be there, and what it leaves empty."""
        arguments = entry[0].arguments
        if not arguments:
            assert self.plain is not None
            del self.plain[entry]
            self.plain = self.plain or None
            return
        for index, kind, value in arguments:
            if kind == EXACT:
                assert self.arguments is not None
                table = self.arguments[index]
                del table[value][entry]
                if not table[value]:
                    del table[value]
                if not table:
                    del self.arguments[index]
                self.arguments = self.arguments or None
                return
        assert self.others is not None
        del self.others[entry]
        self.others = self.others or None

    def is_empty(self) -> bool:
        return self.plain is None and not self.has_arguments()

    def has_arguments(self) -> bool:
        return self.arguments is not None or self.others is not None

    def may_fit(self, found: list[tuple[str, str] | None]) -> bool:
        """Whether `with_arguments` is worth asking."""
        if self.others is not None:
            return True
        for index, table in (self.arguments or {}).items():
            argument = found[index] if index < len(found) else None
            if argument is not None and argument[1] in table:
                return True
        return False

    def with_arguments(self, found: list[tuple[str, str] | None]) -> Iterator[Entry]:
        """The entries whose arguments fit the message's first arguments."""
        for index, table in (self.arguments or {}).items():
            argument = found[index] if index < len(found) else None
            if argument is not None and argument[0] == "s":
                for entry in table.get(argument[1], ()):
                    if entry[0].arguments_match(found):
                        yield entry
        for entry in self.others or ():
            if entry[0].arguments_match(found):
                yield entry


class MatchIndex:
    """Rules of many peers; a peer's equal rules are one entry.

    `named`: header field (its code) -> the values that rules name -> in how many cells.
    `namespaces`: the path namespaces that rules name -> how many do.
    """

    __slots__ = ("_cells", "_combinations", "named", "namespaces")

    def __init__(self) -> None:
        self._cells: dict[Key, Cell] = {}
        # Which of (interface, member, path, sender) some rules name, and how many cells do.
        self._combinations: dict[tuple[bool, bool, bool, bool], int] = {}
        self.named: dict[int, dict[str, int]] = {code: {} for code in _FIELDS}
        self.namespaces: dict[str, int] = {}

    def add(self, peer: Peer, rule: MatchRule) -> None:
        key = (rule.interface, rule.member, rule.path, rule.sender)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
            combination = _combination(key)
            _count(self._combinations, combination, 1)
            for code, value in zip(_FIELDS, key, strict=False):
                if value is not None:
                    _count(self.named[code], value, 1)
        cell.add((rule, peer))
        if rule.path_namespace is not None:
            _count(self.namespaces, rule.path_namespace, 1)

    def remove(self, peer: Peer, rule: MatchRule) -> None:
        """Remove an entry, which must be there."""
        key = (rule.interface, rule.member, rule.path, rule.sender)
        cell = self._cells[key]
        cell.remove((rule, peer))
        if rule.path_namespace is not None:
            _count(self.namespaces, rule.path_namespace, -1)
        if cell.is_empty():
            del self._cells[key]
            combination = _combination(key)
            _count(self._combinations, combination, -1)
            for code, value in zip(_FIELDS, key, strict=False):
                if value is not None:
                    _count(self.named[code], value, -1)

    def __bool__(self) -> bool:
        return bool(self._cells)

    def cells(self, header: Header, senders: Iterable[str]) -> list[Cell]:
        """The cells whose key fits a message; `senders` are the names its sender is known by."""
        found = []
        for interface, member, path, sender in self._combinations:
            key = (
                header.interface if interface else None,
                header.member if member else None,
                header.path if path else None,
            )
            # A field that is absent fits no rule that names it; None would find other cells again.
            if (interface, member, path) != tuple(part is not None for part in key):
                continue
            for name in senders if sender else (None,):
                cell = self._cells.get((*key, name))
                if cell is not None:
                    found.append(cell)
        return found


def _count(counts: dict[_T, int], of: _T, more: int) -> None:
    """Count, and keep nothing of what there is no more."""
    counts[of] = counts.get(of, 0) + more
    if not counts[of]:
        del counts[of]


def _combination(key: Key) -> tuple[bool, bool, bool, bool]:
    interface, member, path, sender = key
    return interface is not None, member is not None, path is not None, sender is not None
