"""The checker of a body that the road calls for each message: memory first, then the validators.

Bodies of fixed size, and those that end in an array of numbers, are judged by their length (and
one mask, if there is padding or a boolean).  All others: a known shape, else compiled code if the
signature has been met often, else the interpreting validator.  What only the interpreting
validator refuses is refused.

The stores here are shared by all buses of a process and filled by peers, so each has a bound
(P2, P16, P17): checkers (least recently asked for goes), compiled validators (second chance), and
the memory of shapes.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections.abc import Callable
from functools import lru_cache

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_ARRAY
from afdbus.wire.check import U32, Data, check_body
from afdbus.wire.compiled import compile_validator
from afdbus.wire.layout import (
    ARRAY_OF_FIXED,
    BOOLEAN,
    FIXED,
    STRUCT,
    Program,
    program_of,
)
from afdbus.wire.shapes import MAX_LENGTH, Memory, Shapes, shape_of

Checker = Callable[[Data, int, int], bool]

MAX_CHECKERS = 256
MAX_COMPILED = 256
COMPILE_AT = 8
# When all places are taken a compilation pushes out another, perhaps to come back: it is allowed
# once in so many bodies, that it cannot cost more than they do.
BODIES_PER_EXCHANGE = 128


@lru_cache(maxsize=MAX_CHECKERS)
def checker(signature: str, little: bool) -> Checker:
    """The function that says whether `data[start:end]` is a body with this signature.

    Alignment counts from `start`.  `signature` must be valid (else ProtocolViolation); meant for
    bodies up to 64 KiB, since it does not pause (see `check_in_steps`).
    """
    program = program_of(signature)
    kinds = {op[0] for op in program.ops[:-1]}
    last = program.ops[-1][0] if program.ops else FIXED
    if kinds <= {FIXED, BOOLEAN, STRUCT}:
        if last in (FIXED, BOOLEAN):
            return _fixed_checker(program, little)
        if last == ARRAY_OF_FIXED:
            return _tail_checker(program, little)
    return _general_checker(signature, program, little)


def _size(program: Program) -> int:
    """The size of values of fixed size; of an array at the end, only its length counts."""
    at = 0
    for what, mask, size, _, _ in program.ops:
        at = (at + mask & ~mask) + (4 if what == ARRAY_OF_FIXED else size)
    return at


def _fixed_checker(program: Program, little: bool) -> Checker:
    size = _size(program)
    # A body of zeros is valid, and all that must stay in it is zero.
    stay = shape_of(program, little, bytes(size)).stay
    from_bytes = int.from_bytes

    def check_length(data: Data, start: int, end: int) -> bool:
        return end - start == size

    def check_fixed(data: Data, start: int, end: int) -> bool:
        return end - start == size and not from_bytes(data[start:end], "little") & stay

    return check_fixed if stay else check_length


def _tail_checker(program: Program, little: bool) -> Checker:
    length_at = _size(program) - 4
    _, _, element_size, _, elements = program.ops[-1]
    assert elements is not None
    offset = length_at + 4 + (-(length_at + 4) & elements.mask)
    stay = shape_of(program, little, bytes(offset)).stay & ~(0xFFFFFFFF << 8 * length_at)
    read_length = U32[little]
    from_bytes = int.from_bytes

    def check_tail(data: Data, start: int, end: int) -> bool:
        size = end - start - offset
        return (
            0 <= size <= MAX_ARRAY
            and read_length(data, start + length_at)[0] == size
            and not size % element_size
            and not (stay and from_bytes(data[start : start + offset], "little") & stay)
        )

    return check_tail


def _general_checker(signature: str, program: Program, little: bool) -> Checker:
    shapes = Shapes(_memory, program, little)
    front = shapes.front.get
    judge = _Judge(signature, little, shapes).judge
    from_bytes = int.from_bytes

    def check(data: Data, start: int, end: int) -> bool:
        shape = front(end - start)
        if shape is not None:
            body = data[start:end]
            sample, text, stay, want, still = shape
            if body == sample:
                return True
            # Shape.fits, written out: this is the road.
            number = from_bytes(body, "little")
            if (number + text) & stay == want and (0x80 not in body or number & stay == still):
                return True
        return judge(bytes(data[start:end]))

    return check


class _Judge:
    """Judges the bodies of one signature and byte order that are not of the likeliest shape."""

    __slots__ = ("bodies", "compiled", "little", "shapes", "signature", "used")

    def __init__(self, signature: str, little: bool, shapes: Shapes) -> None:
        self.signature = signature
        self.little = little
        self.shapes = shapes
        self.bodies = 0
        self.compiled: Callable[[bytes], bool] | None = None
        self.used = False  # the compiled validator, since it was last asked to go

    def judge(self, body: bytes) -> bool:
        if len(body) > MAX_LENGTH:
            return self.is_valid(body)
        if self.shapes.recall(body):
            return True
        if not self.is_valid(body):
            return False
        self.shapes.learn(body)
        return True

    def is_valid(self, body: bytes) -> bool:
        if self.compiled is not None:
            self.used = True
            if self.compiled(body):
                return True
        else:
            self.bodies += 1
            if self.bodies >= COMPILE_AT:
                _compilations.ask(self)
        try:
            check_body(self.signature, self.little, body, 0, len(body))
        except ProtocolViolation:
            return False
        return True


class _Compilations:
    """All compiled validators of a process."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.table: dict[_Judge, None] = {}
        self.asked = 0  # since the last exchange

    def ask(self, judge: _Judge) -> None:
        """Compile the validator of `judge` now, or let it ask again with its next body."""
        with self.lock:
            full = len(self.table) >= MAX_COMPILED
            if full:
                self.asked += 1
                if self.asked < BODIES_PER_EXCHANGE:
                    return
                self.asked = 0
            judge.compiled = compile_validator(judge.signature, judge.little)
            if judge.compiled is None:
                judge.bodies = -sys.maxsize  # too large a signature: it need not ask again
                return
            if full:
                self._dismiss_one()
            judge.used = False
            self.table[judge] = None

    def _dismiss_one(self) -> None:
        while True:
            oldest = next(iter(self.table))
            del self.table[oldest]
            if not oldest.used:
                oldest.compiled = None
                oldest.bodies = 0
                return
            oldest.used = False
            self.table[oldest] = None

    def clear(self) -> None:
        with self.lock:
            for judge in self.table:
                judge.compiled = None
                judge.bodies = 0
            self.table.clear()


def forget() -> None:
    """Empty all stores of this module: they only save time (for when memory is short)."""
    checker.cache_clear()
    _memory.clear()
    _compilations.clear()


_memory = Memory()
_compilations = _Compilations()
