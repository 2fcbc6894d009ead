"""The shapes of bodies: what the bytes of a valid body must keep for another one to be valid too.

Bodies of one signature and length mostly differ in numbers and letters only.  A shape, taken from
a body that the full validator passed, pins everything that guides a validator's walk: lengths,
padding, terminators, signatures, paths, all of booleans but their lowest bit, bit 7 of each byte
of a string.  Numbers are free; ASCII letters are free but must not be NUL.  With the body as one
big integer `v`, `text` having 0x7f at each letter:

    (v + text) & stay == want                 and no byte of the body is 0x80, or else also
    v & stay == still                         the same without the sum

A letter 1 to 0x7f becomes 0x80 to 0xfe in the sum, which has bit 7 and carries nothing; 0 becomes
0x7f, which has not; the lowest of several letters from 0x81 on loses bit 7 with its carry.  So
only 0x80 itself deceives the first line, and the second is a rare one (P16).  Strings that are not
ASCII are pinned whole.  Byte order decides which bytes of a boolean are pinned, so shapes of both
orders never mix (P14).
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import NamedTuple

from afdbus.wire.check import U32
from afdbus.wire.layout import (
    ARRAY,
    ARRAY_OF_FIXED,
    ARRAY_OF_ROWS,
    BOOLEAN,
    FIXED,
    PATH,
    SIGNATURE,
    STRING,
    VARIANT,
    Elements,
    Op,
    Program,
    program_of_variant,
)

# Longer bodies cost more to compare than they are likely to repeat.
MAX_LENGTH = 2048
# Of all shapes in the process; signatures and lengths are chosen by peers (P17).
MAX_SEEN = 512
MAX_BYTES = 1024 * 1024
# A few shapes may share a length; so many in a row that never came again end the learning.
MAX_OTHERS = 3
MAX_FRUITLESS = 8

_BOOLEAN_BITS = {True: b"\xfe\xff\xff\xff", False: b"\xff\xff\xff\xfe"}
_SEEN_COST = 400


class Shape(NamedTuple):
    """Masks over a body as a little-endian integer (whatever the byte order of its numbers)."""

    sample: bytes  # the body it was taken from; the same one again is quicker still
    text: int
    stay: int
    want: int  # of the sum
    still: int  # of the body itself

    def fits(self, body: bytes) -> bool:
        """Whether a body of the same length is valid for having this shape."""
        number = int.from_bytes(body, "little")
        return (number + self.text) & self.stay == self.want and (
            0x80 not in body or number & self.stay == self.still
        )


def shape_of(program: Program, little: bool, body: bytes) -> Shape:
    """The shape of a body that is known to be valid."""
    read_length = U32[little]
    stay = bytearray(b"\xff" * len(body))
    text = bytearray(len(body))
    ops = program.ops
    i = at = 0
    array_end = -1
    outer: list[tuple[tuple[Op, ...], int, int]] = []
    while True:
        if i == len(ops):
            if at < array_end:
                i = 0
            elif outer:
                ops, i, array_end = outer.pop()
                continue
            else:
                break
        what, mask, size, _, elements = ops[i]
        i += 1
        at += -at & mask
        if what == FIXED:
            stay[at : at + size] = bytes(size)
            at += size
        elif what == BOOLEAN:
            stay[at : at + 4] = _BOOLEAN_BITS[little]
            at += 4
        elif what in (STRING, PATH):
            start = at + 4
            end = start + read_length(body, at)[0]
            if what == STRING and body[start:end].isascii():
                stay[start:end] = b"\x80" * (end - start)
                text[start:end] = b"\x7f" * (end - start)
            at = end + 1
        elif what in (SIGNATURE, VARIANT):
            start = at + 1
            at = start + body[at] + 1
            if what == VARIANT:
                outer.append((ops, i, array_end))
                ops = program_of_variant(body[start : at - 1]).ops
                i = 0
                array_end = -1
        elif what in (ARRAY, ARRAY_OF_FIXED, ARRAY_OF_ROWS):
            assert elements is not None
            start = at + 4
            start += -start & elements.mask
            at = start + read_length(body, at)[0]
            if what == ARRAY_OF_FIXED:
                stay[start:at] = bytes(at - start)
            elif what == ARRAY_OF_ROWS:
                stay[start:at] = _row_bits(elements, little, at - start)
            elif at > start:
                outer.append((ops, i, array_end))
                ops = elements.program.ops
                i = 0
                array_end = at
                at = start
    number = int.from_bytes(body, "little")
    stays = int.from_bytes(stay, "little")
    letters = int.from_bytes(text, "little")
    # Bit 7 of each letter is among the bits that stay; in the sum it is set.
    return Shape(body, letters, stays, (number + letters) & stays, number & stays)


def _row_bits(elements: Elements, little: bool, length: int) -> bytes:
    row = bytearray(elements.stride)
    for column in elements.zeros[little]:
        row[column] = 0xFF
    for column in elements.flags[little]:
        row[column] = 0xFE
    return (bytes(row) * (length // elements.stride + 1))[:length]


class Shapes:
    """The shapes of one signature and byte order.

    `front` has the likeliest shape of each length, for the reader in a hurry; `recall` tries the
    others, `learn` is told of bodies that none fitted.
    """

    __slots__ = ("front", "little", "memory", "program", "seen")

    def __init__(self, memory: Memory, program: Program, little: bool) -> None:
        self.memory = memory
        self.program = program
        self.little = little
        self.front: dict[int, Shape] = {}
        self.seen: dict[int, Seen] = {}

    def recall(self, body: bytes) -> bool:
        """Whether one of the other shapes fits; it comes to the front then."""
        seen = self.seen.get(len(body))
        if seen is None or not seen.others:
            return False
        for shape in seen.others:
            if shape.fits(body):
                self.memory.promote(seen, shape)
                return True
        return False

    def learn(self, body: bytes) -> None:
        """A valid body came that no shape fitted; perhaps remember its shape."""
        self.memory.learn(self, body)


class Seen:
    """What is known of the bodies of one length of one `Shapes`."""

    __slots__ = ("cost", "fruitless", "length", "misses", "others", "owner")

    def __init__(self, owner: Shapes, length: int) -> None:
        self.owner = owner
        self.length = length
        self.others: list[Shape] = []
        self.misses = 0
        self.fruitless = 0
        self.cost = _SEEN_COST


class Memory:
    """All shapes of a process, bounded in number and bytes; the oldest are forgotten first.

    First in, first out is enough: a body whose shape was pushed out by a flood of others is
    learned anew at its second sight, once in hundreds of the flooder's messages.  The lock is for
    buses in several threads; hits do not take it.
    """

    __slots__ = ("bytes", "lock", "table")

    def __init__(self) -> None:
        self.table: dict[Seen, None] = {}
        self.bytes = 0
        self.lock = allocate_lock()

    def learn(self, owner: Shapes, body: bytes) -> None:
        length = len(body)
        with self.lock:
            seen = owner.seen.get(length)
            if seen is None:
                seen = owner.seen[length] = Seen(owner, length)
                self.table[seen] = None
                self.bytes += seen.cost
            elif self._is_worth_learning(seen):
                shape = shape_of(owner.program, owner.little, body)
                cost = 6 * length + 300
                if length not in owner.front:
                    owner.front[length] = shape
                elif len(seen.others) < MAX_OTHERS:
                    seen.others.insert(0, shape)
                else:
                    seen.others = [shape, *seen.others[:-1]]
                    cost = 0
                seen.fruitless += 1
                seen.cost += cost
                self.bytes += cost
            while len(self.table) > MAX_SEEN or self.bytes > MAX_BYTES:
                self._forget(next(iter(self.table)))

    def _is_worth_learning(self, seen: Seen) -> bool:
        """Not at first sight; after too many in vain, ever more rarely."""
        seen.misses += 1
        return seen.fruitless < MAX_FRUITLESS or seen.misses & (seen.misses - 1) == 0

    def promote(self, seen: Seen, shape: Shape) -> None:
        """A shape that was learned later has been met again."""
        with self.lock:
            if seen in self.table and shape in seen.others:
                front = seen.owner.front
                seen.others = [front[seen.length], *[s for s in seen.others if s is not shape]]
                front[seen.length] = shape
                seen.fruitless = 0

    def _forget(self, seen: Seen) -> None:
        del self.table[seen]
        self.bytes -= seen.cost
        del seen.owner.seen[seen.length]
        seen.owner.front.pop(seen.length, None)

    def clear(self) -> None:
        with self.lock:
            for seen in list(self.table):
                self._forget(seen)
