"""Finds the match rules that a message fits, without asking all of them.

Each rule lies in one cell, by those of interface, member, path or path_namespace, and sender that
it names.  A message looks into the cells of every combination in use (usually four), and within a
cell by its arguments (`cell.py`).  What is left to ask of a rule is its type and destination.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from afdbus.bus.cell import Cell, beginnings
from afdbus.wire.header import INTERFACE, MEMBER, PATH

if TYPE_CHECKING:
    from afdbus.bus.match import MatchRule
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header

# interface, member, path, path_namespace, sender
Key = tuple[str | None, str | None, str | None, str | None, str | None]

# A part of the key that a rule does not name.
_NONE = (None,)

T = TypeVar("T")


class MatchIndex:
    """Rules of many peers; a peer's equal rules are one entry.

    `named`: header field (its code) -> the values that rules name -> in how many cells; likewise
    `namespaces` (of paths) and `senders`.
    """

    __slots__ = ("_cells", "_combinations", "_longest", "named", "namespaces", "senders")

    def __init__(self) -> None:
        self._cells: dict[Key, Cell] = {}
        # Which parts of a key some rules name, and how many cells do.
        self._combinations: dict[tuple[bool, ...], int] = {}
        self.named: dict[int, dict[str, int]] = {INTERFACE: {}, MEMBER: {}, PATH: {}}
        self.namespaces: dict[str, int] = {}
        self.senders: dict[str, int] = {}
        # How long a namespace has been, at the most.
        self._longest = 0

    def add(self, peer: Peer, rule: MatchRule) -> None:
        key = _key(rule)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
            self._note(key, 1)
        cell.add((rule, peer))

    def remove(self, peer: Peer, rule: MatchRule) -> None:
        """Remove an entry, which must be there."""
        key = _key(rule)
        cell = self._cells[key]
        cell.remove((rule, peer))
        if cell.is_empty():
            del self._cells[key]
            self._note(key, -1)

    def _note(self, key: Key, more: int) -> None:
        """A cell came or went."""
        interface, member, path, namespace, sender = key
        _count(self._combinations, _combination(key), more)
        if interface is not None:
            _count(self.named[INTERFACE], interface, more)
        if member is not None:
            _count(self.named[MEMBER], member, more)
        if path is not None:
            _count(self.named[PATH], path, more)
        if namespace is not None:
            _count(self.namespaces, namespace, more)
            self._longest = max(self._longest, len(namespace))
        if sender is not None:
            _count(self.senders, sender, more)

    def __bool__(self) -> bool:
        return bool(self._cells)

    def cells(self, header: Header, senders: Iterable[str]) -> list[Cell]:
        """The cells whose key fits a message; `senders` are the names its sender is known by."""
        found = []
        path = header.path
        spaces = _namespaces(path, self._longest) if path and self._longest else ()
        for interface, member, at, within, sender in self._combinations:
            key = (
                header.interface if interface else None,
                header.member if member else None,
                path if at else None,
            )
            # A field that is absent fits no rule that names it; None would find other cells again.
            if (interface, member, at) != tuple([part is not None for part in key]):
                continue
            for space in spaces if within else _NONE:
                for name in senders if sender else _NONE:
                    cell = self._cells.get((*key, space, name))
                    if cell is not None:
                        found.append(cell)
        return found


def _key(rule: MatchRule) -> Key:
    return rule.interface, rule.member, rule.path, rule.path_namespace, rule.sender


def _combination(key: Key) -> tuple[bool, ...]:
    return tuple([part is not None for part in key])


def _count(counts: dict[T, int], of: T, more: int) -> None:
    """Count, and keep nothing of what there is no more."""
    counts[of] = counts.get(of, 0) + more
    if not counts[of]:
        del counts[of]


def _namespaces(path: str, longest: int) -> list[str]:
    """Every path_namespace that `path` lies in."""
    return list(dict.fromkeys(["/", *beginnings(path, "/", 0, longest)[1:], path]))
