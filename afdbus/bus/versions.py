"""Which broadcast plans a new match rule makes void (P18).

A rule touches the counters of (interface, member), of (interface, any), or of the rest; a plan for
a signal depends on one of each kind.  The counters lie in one fixed table, picked by hash: rules
and signals that clients invent cannot make it grow, and a collision costs one miss, never a wrong
answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afdbus.bus.plan import Plan

_SIZE = 4096
_REST = _SIZE


class Versions:
    """Counters that only grow, so that the sum of three is the same only if all three are."""

    __slots__ = ("counters", "total")

    def __init__(self) -> None:
        self.counters = [0] * (_SIZE + 1)
        # Grows with each of them, and whenever an outbox is blocked or no longer: what the road
        # compares first.
        self.total = 0

    def bump(self, interface: str | None, member: str | None) -> None:
        """A rule with this interface and member came or went."""
        self.total += 1
        if interface is None:
            self.counters[_REST] += 1
        else:
            self.counters[hash((interface, member)) % _SIZE] += 1

    def cells(self, interface: str | None, member: str | None) -> tuple[int, int, int]:
        """The indices of the counters that a signal with this interface and member depends on."""
        both = hash((interface, member)) % _SIZE
        some = hash((interface, None)) % _SIZE
        return both, some, _REST

    def stamp(self, cells: tuple[int, int, int]) -> int:
        """What is the same as long as none of these counters grows."""
        return sum([self.counters[cell] for cell in cells])

    def confirm(self, plan: Plan) -> bool:
        """Whether a broadcast's plan is good still, though something has changed."""
        if self.stamp(plan.cells) != plan.stamp:
            return False
        plan.note(self.total)
        return True
