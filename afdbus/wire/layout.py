"""A signature as a program: the table of ops that the interpreting validator walks.

Structs are flattened (an alignment to 8, then the members), so only arrays and variants need the
walker's stack.  Programs are made in one pass with an own stack, linear in the signature, since a
peer chooses it; the cache is bounded in number and in the length of what it keeps (P2, P17).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_STRUCT_DEPTH
from afdbus.wire.signature import ALIGNMENT, FIXED_SIZE, end_of_type, flaw

# What an op's first member says; the rest of the tuple is in `Op`.
FIXED = 0  # a fixed type but boolean
BOOLEAN = 1
STRING = 2
PATH = 3
SIGNATURE = 4
VARIANT = 5
STRUCT = 6  # only the alignment of a struct or dict entry; its members follow
ARRAY = 7  # of elements with a program of their own
ARRAY_OF_FIXED = 8  # of fixed types but boolean: only the length matters
ARRAY_OF_ROWS = 9  # of booleans, or of structs of fixed size: some columns of bytes matter

# Signatures up to this length are worth keeping; a program is at most a few KiB then.
CACHED_LENGTH = 64
CACHED_PROGRAMS = 512


class Elements(NamedTuple):
    """The elements of an array.  Columns are offsets of bytes in a row, one tuple by "little?"."""

    mask: int  # alignment - 1
    program: Program
    size: int = 0  # of a row, without padding behind it; 0 when elements vary in size
    stride: int = 0  # of a row, with padding behind it
    zeros: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # columns that must be zero
    flags: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # columns that must be 0 or 1


class Program(NamedTuple):
    """The ops of a sequence of complete types.

    `nesting`: how deep structs nest in it, not counting what is inside arrays and variants.
    """

    ops: tuple[Op, ...]
    nesting: int


# (what, alignment - 1, size of a fixed type or of an array's fixed elements, structs around it
# inside this program, elements of an array)
Op: TypeAlias = tuple[int, int, int, int, Elements | None]

_KINDS = {"b": BOOLEAN, "s": STRING, "o": PATH, "g": SIGNATURE, "v": VARIANT}
# The ops of types without members, by the structs around them: shared by all programs.
_SIMPLE: list[dict[str, Op]] = [
    {
        code: (_KINDS.get(code, FIXED), ALIGNMENT[code] - 1, FIXED_SIZE.get(code, 0), structs, None)
        for code in (*FIXED_SIZE, "s", "o", "g", "v")
    }
    for structs in range(2 * MAX_STRUCT_DEPTH + 1)
]


def program_of(signature: str) -> Program:
    """The program of a signature; raises ProtocolViolation when it is none."""
    return _kept(signature) if len(signature) <= CACHED_LENGTH else _build(signature)


def program_of_variant(signature: bytes) -> Program:
    """Likewise for the contents of a variant: exactly one complete type."""
    return _kept_variant(signature) if len(signature) <= CACHED_LENGTH else _variant(signature)


def _build(signature: str) -> Program:
    reason = flaw(signature)
    if reason is not None:
        raise ProtocolViolation(reason)
    # Programs under construction: ops, open structs, deepest struct; those above the lowest are
    # an array's elements, finished when one complete type has been read.
    ops: list[Op] = []
    structs = nesting = 0
    outer: list[tuple[list[Op], int, int]] = []
    for code in signature:
        simple = _SIMPLE[structs].get(code)
        if simple is not None:
            ops.append(simple)
        elif code == "a":
            outer.append((ops, structs, nesting))
            ops = []
            structs = nesting = 0
            continue
        elif code in "({":
            if not ops or ops[-1][0] != STRUCT:
                ops.append((STRUCT, 7, 0, structs, None))
            structs += 1
            nesting = max(nesting, structs)
            continue
        else:
            structs -= 1
        while outer and not structs:
            element = Program(tuple(ops), nesting)
            ops, structs, nesting = outer.pop()
            ops.append(_array_of(element, structs))
    return Program(tuple(ops), nesting)


def _array_of(element: Program, structs: int) -> Op:
    what, mask, size, _, _ = element.ops[0]
    if what == FIXED:
        return (ARRAY_OF_FIXED, 3, size, structs, Elements(mask, element))
    if what == BOOLEAN:
        # Not a level for dbus-daemon, like other arrays of fixed types.
        return (ARRAY_OF_ROWS, 3, 0, structs, _rows(element._replace(nesting=-1)))
    if what == STRUCT and _is_fixed(element):
        return (ARRAY_OF_ROWS, 3, 0, structs, _rows(element))
    return (ARRAY, 3, 0, structs, Elements(mask, element))


def _is_fixed(program: Program) -> bool:
    return {op[0] for op in program.ops} <= {FIXED, BOOLEAN, STRUCT}


def _rows(program: Program) -> Elements:
    at = 0
    big: list[int] = []  # columns that must be zero, in this byte order
    little: list[int] = []
    first: list[int] = []  # bytes of booleans
    last: list[int] = []
    for what, mask, size, _, _ in program.ops:
        padding = -at & mask
        if padding:
            columns = range(at, at + padding)
            big += columns
            little += columns
            at += padding
        if what == BOOLEAN:
            first.append(at)
            last.append(at + 3)
            big += (at, at + 1, at + 2)
            little += (at + 1, at + 2, at + 3)
        at += size
    mask = program.ops[0][1]
    behind = range(at, at + (-at & mask))
    zeros = ((*big, *behind), (*little, *behind))
    return Elements(mask, program, at, behind.stop, zeros, (tuple(last), tuple(first)))


def _variant(signature: bytes) -> Program:
    text = signature.decode("latin-1")
    program = _build(text)
    if not text or end_of_type(text, 0) != len(text):
        raise ProtocolViolation("variant without exactly one complete type")
    return program


_kept = lru_cache(maxsize=CACHED_PROGRAMS)(_build)
_kept_variant = lru_cache(maxsize=CACHED_PROGRAMS)(_variant)
