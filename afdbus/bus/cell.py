"""Match rules that agree in their header fields, found by the arguments they name.

A rule lies in a cell within a cell within a cell, one for each of its arguments.  A message looks
up its own arguments, or what they begin with, so that ten thousand rules that differ in one of them
cost one look-up.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING

from afdbus.bus.match import EXACT, NAMESPACE, PATH, MatchRule

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer

Entry = tuple[MatchRule, "Peer"]
# A message's first arguments: type and text of each that is one.
Found = list[tuple[str, str] | None]
Arguments = tuple[tuple[int, str, str], ...]


def beginnings(text: str, mark: str, keep: int, longest: int) -> list[str]:
    """What of `text` ends before a `mark`, or with it if `keep` is 1, in at most `longest`
    characters: of a long message no more is tried than rules can name (P9)."""
    found = []
    end = longest + 1
    at = text.find(mark, 0, end)
    while at >= 0:
        found.append(text[: at + keep])
        at = text.find(mark, at + 1, end)
    return found


class _Values:
    """Cells by what rules want one argument to be."""

    __slots__ = ("cells",)

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}

    def cell(self, value: str) -> Cell:
        """The cell for a value, a new one if there is none."""
        cell = self.cells.get(value)
        if cell is None:
            cell = self.cells[value] = Cell()
        return cell

    def remove(self, value: str) -> None:
        del self.cells[value]

    def fitting(self, type_: str, text: str) -> Iterable[Cell]:
        """The cells for an argument of a message."""
        cell = self.cells.get(text)
        return (cell,) if cell is not None and type_ == "s" else ()


class _Namespaces(_Values):
    """arg0namespace: a name and all below it."""

    __slots__ = ("_longest",)

    def __init__(self) -> None:
        super().__init__()
        self._longest = 0

    def cell(self, value: str) -> Cell:
        self._longest = max(self._longest, len(value))
        return super().cell(value)

    def fitting(self, type_: str, text: str) -> Iterable[Cell]:
        if type_ != "s":
            return ()
        cells = self.cells
        names = [*beginnings(text, ".", 0, self._longest), text]
        return [cells[name] for name in names if name in cells]


class _Paths(_Namespaces):
    """argNpath: the same, or one ends with a slash and the other begins with it."""

    __slots__ = ("_order",)

    def __init__(self) -> None:
        super().__init__()
        self._order: list[str] = []

    def cell(self, value: str) -> Cell:
        if value not in self.cells:
            insort(self._order, value)
        return super().cell(value)

    def remove(self, value: str) -> None:
        super().remove(value)
        del self._order[bisect_left(self._order, value)]

    def fitting(self, type_: str, text: str) -> Iterable[Cell]:
        if type_ not in "so":
            return ()
        cells = self.cells
        paths = dict.fromkeys([*beginnings(text, "/", 1, self._longest), text])
        found = [cells[path] for path in paths if path in cells]
        if text.endswith("/"):
            # What begins with it comes right behind it.
            order = self._order
            place = bisect_left(order, text)
            while place < len(order) and order[place].startswith(text):
                if order[place] != text:
                    found.append(cells[order[place]])
                place += 1
        return found


_KINDS = {EXACT: _Values, NAMESPACE: _Namespaces, PATH: _Paths}


class Cell:
    """Rules that name the same, as far as was looked.

    `plain` are those that name no more, in order: the keys of a dictionary, found and dropped at
    once however many one client adds (P9), unless there is but one (180 bytes less a rule).  Others
    lie further in, by their next argument.
    """

    __slots__ = ("_further", "highest", "plain")

    def __init__(self) -> None:
        self.plain: dict[Entry, None] | tuple[Entry, ...] = ()
        # (index, kind) -> cells by value
        self._further: dict[tuple[int, str], _Values] | None = None
        # How many of a message's arguments the rules here look at, at the most.
        self.highest = 0

    def add(self, entry: Entry) -> None:
        arguments = entry[0].arguments
        if arguments:
            self.highest = max(self.highest, arguments[-1][0] + 1)
        self._add(entry, _in_order(arguments))

    def _add(self, entry: Entry, arguments: Arguments) -> None:
        if not arguments:
            if isinstance(self.plain, dict):
                self.plain[entry] = None
            elif self.plain:
                self.plain = dict.fromkeys((*self.plain, entry))
            else:
                self.plain = (entry,)
            return
        if self._further is None:
            self._further = {}
        index, kind, value = arguments[0]
        values = self._further.get((index, kind))
        if values is None:
            values = self._further[index, kind] = _KINDS[kind]()
        values.cell(value)._add(entry, arguments[1:])

    def remove(self, entry: Entry) -> None:
        """Remove an entry, which must be there, and what it leaves empty."""
        self._remove(entry, _in_order(entry[0].arguments))

    def _remove(self, entry: Entry, arguments: Arguments) -> None:
        if not arguments:
            if isinstance(self.plain, dict):
                del self.plain[entry]
            else:
                assert self.plain == (entry,)
                self.plain = ()
            return
        assert self._further is not None
        index, kind, value = arguments[0]
        values = self._further[index, kind]
        cell = values.cells[value]
        cell._remove(entry, arguments[1:])
        if cell.is_empty():
            values.remove(value)
            if not values.cells:
                del self._further[index, kind]
                self._further = self._further or None

    def is_empty(self) -> bool:
        return not self.plain and self._further is None

    def has_arguments(self) -> bool:
        """Whether rules here name arguments (that were not looked at yet)."""
        return self._further is not None

    def first_arguments(self) -> Container[str] | None:
        """What the rules with arguments name as the first one, if all of them do; else None."""
        if self._further is None or self._further.keys() != {(0, EXACT)}:
            return None
        return self._further[0, EXACT].cells

    def may_fit(self, found: Found) -> bool:
        """Whether there is anything `with_arguments`."""
        for (index, _), values in (self._further or {}).items():
            argument = found[index] if index < len(found) else None
            if argument is not None:
                for cell in values.fitting(*argument):
                    if cell.plain or cell.may_fit(found):
                        return True
        return False

    def with_arguments(self, found: Found) -> Iterator[Entry]:
        """The entries that name arguments, all of which fit the message's first arguments."""
        for (index, _), values in (self._further or {}).items():
            argument = found[index] if index < len(found) else None
            if argument is not None:
                for cell in values.fitting(*argument):
                    yield from cell.plain
                    yield from cell.with_arguments(found)


def _in_order(arguments: Arguments) -> Arguments:
    """Those first that leave the fewest cells to look into: whole ones before parts."""
    if len(arguments) < 2:
        return arguments
    return tuple(sorted(arguments, key=lambda argument: argument[1] != EXACT))
