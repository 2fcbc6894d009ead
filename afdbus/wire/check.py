"""Whether a body fits its signature: the interpreting validator, the truth about bodies.

It walks the ops of `layout` with an own stack, never by Python recursion, and the stack is never
higher than 64, the depth that the specification allows (counted through variants).  It is a
generator, so that a large body can be checked in steps, between which others are served (P1), and
even while it is still arriving.

Where dbus-daemon and the specification differ we are dbus-daemon: arrays of fixed-size types and
empty arrays count nothing towards the depth of 64, Unicode noncharacters are accepted, indices of
file descriptors are not looked at.
"""

from __future__ import annotations

import re
import struct
from codecs import utf_8_decode
from collections.abc import Callable, Iterator
from typing import TypeAlias

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_ARRAY, MAX_DEPTH
from afdbus.wire.layout import (
    ARRAY,
    ARRAY_OF_FIXED,
    ARRAY_OF_ROWS,
    BOOLEAN,
    FIXED,
    PATH,
    SIGNATURE,
    STRING,
    STRUCT,
    Elements,
    Op,
    Program,
    program_of,
    program_of_variant,
)
from afdbus.wire.signature import flaw

Data: TypeAlias = bytes | bytearray

# How far a check in steps goes before it lets others run.
STEP = 16 * 1024
# More than any op takes that does not itself wait for its bytes: alignment, length, a signature,
# a short text, its terminator.
_REACH = 512
_SHORT = 256

U32 = {little: struct.Struct("<I" if little else ">I").unpack_from for little in (True, False)}

# As names.is_object_path, on bytes.
is_path = re.compile(rb"/|(?:/[A-Za-z0-9_]++)++").fullmatch
_PATH_BYTES = b"/_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def check_body(signature: str, little: bool, data: Data, start: int, end: int) -> None:
    """Raise ProtocolViolation unless `data[start:end]` is a body with this signature.

    Alignment counts from `start`, since a body begins 8-aligned in its message.
    """
    *_, position = walk(program_of(signature), little, data, start, start, end)
    if position != end:
        raise ProtocolViolation("body longer than its signature says")


def check_in_steps(
    signature: str,
    little: bool,
    data: Data,
    start: int,
    end: int,
    arrived: Callable[[], int] | None = None,
) -> Iterator[None]:
    """`check_body` in steps of about 16 KiB of body, a few milliseconds at worst.

    With `arrived` the body may still be arriving into `data`, which must grow in place: it says up
    to which index bytes are there; while some are missing each step ends at once.
    """
    program = program_of(signature)
    reached = start
    for position in walk(program, little, data, start, start, end, 0, arrived or (lambda: end)):
        reached = position
        yield
    if reached != end:
        raise ProtocolViolation("body longer than its signature says")


def walk(
    program: Program,
    little: bool,
    data: Data,
    start: int,
    position: int,
    end: int,
    depth: int = 0,
    arrived: Callable[[], int] | None = None,
) -> Iterator[int]:
    """Check the values of `program` at `position`; the last yield is the index behind them.

    `start` is where alignment counts from, `depth` how many containers are around the values.
    The yields before the last are pauses; only long texts and arrays make them unless `arrived`
    is given.  Raises ProtocolViolation.
    """
    read_length = U32[little]
    ops, nesting = program
    if depth + nesting > MAX_DEPTH:
        raise ProtocolViolation("values nested too deeply")
    count = len(ops)
    i = 0
    array_end = -1  # of the array whose elements these ops are; -1 if they are not
    outer: list[tuple[tuple[Op, ...], int, int, int]] = []
    short = _SHORT if arrived else STEP
    mark = -1 if arrived else end  # beyond it look up: pause, and wait for bytes

    while True:
        if position > mark and arrived:
            wanted = min(end, position + _REACH)
            if mark >= 0 or arrived() < wanted:
                yield position
                while arrived() < wanted:
                    yield position
            mark = position + STEP
            here = arrived()
            if here < end:
                mark = min(mark, here - _REACH)

        if i == count:
            if position < array_end:
                i = 0
            else:
                if position > array_end >= 0:
                    raise ProtocolViolation("array length does not fit its elements")
                if not outer:
                    break
                ops, i, array_end, depth = outer.pop()
                count = len(ops)
                continue

        what, mask, size, structs, elements = ops[i]
        i += 1

        if mask:
            padding = (start - position) & mask
            if padding:
                if data[position : position + padding].strip(b"\0"):
                    raise ProtocolViolation("padding is not zero")
                position += padding

        if what == FIXED:
            position += size
            if position > end:
                raise ProtocolViolation("body too short")

        elif what in (STRING, PATH):
            text = position + 4
            if text > end:
                raise ProtocolViolation("body too short")
            position = text + read_length(data, position)[0]
            if position >= end:
                raise ProtocolViolation("string longer than the body")
            if position - text > short:
                yield from _long_text(what, data, text, position, arrived)
            elif data.find(0, text, position + 1) != position:
                raise ProtocolViolation("string contains NUL or is not terminated")
            elif what == PATH:
                if not is_path(data, text, position):
                    raise ProtocolViolation("invalid object path")
            else:
                content = data[text:position]
                if not content.isascii():
                    _decode(content, True)
            position += 1

        elif what == STRUCT:
            pass

        elif what == BOOLEAN:
            if position + 4 > end:
                raise ProtocolViolation("body too short")
            if read_length(data, position)[0] > 1:
                raise ProtocolViolation("boolean is neither 0 nor 1")
            position += 4

        elif what in (ARRAY, ARRAY_OF_FIXED, ARRAY_OF_ROWS):
            assert elements is not None
            if position + 4 > end:
                raise ProtocolViolation("body too short")
            length = read_length(data, position)[0]
            if length > MAX_ARRAY:
                raise ProtocolViolation("array longer than 64 MiB")
            position += 4
            padding = (start - position) & elements.mask
            if padding:
                if data[position : position + padding].strip(b"\0"):
                    raise ProtocolViolation("padding is not zero")
                position += padding
            if position + length > end:
                raise ProtocolViolation("array longer than the body")
            if not length:
                continue
            if what == ARRAY_OF_FIXED:
                if length % size:
                    raise ProtocolViolation("array length does not fit its elements")
                position += length
                continue
            nesting = depth + structs + 1
            if nesting + elements.program.nesting > MAX_DEPTH:
                raise ProtocolViolation("values nested too deeply")
            if what == ARRAY_OF_ROWS:
                if (length - elements.size) % elements.stride:
                    raise ProtocolViolation("array length does not fit its elements")
                if length <= short:
                    check_columns(elements, little, data, position, position + length)
                else:
                    yield from _rows(elements, little, data, position, position + length, arrived)
                position += length
                continue
            outer.append((ops, i, array_end, depth))
            ops = elements.program.ops
            count = len(ops)
            i = 0
            array_end = position + length
            depth = nesting

        else:  # SIGNATURE or VARIANT
            if position >= end:
                raise ProtocolViolation("body too short")
            text = position + 1
            position = text + data[position]
            if position >= end:
                raise ProtocolViolation("signature longer than the body")
            if data[position]:
                raise ProtocolViolation("signature is not terminated")
            content = data[text:position]
            position += 1
            if what == SIGNATURE:
                reason = content and flaw(content.decode("latin-1"))
                if reason:
                    raise ProtocolViolation(reason)
                continue
            # A signature never seen before costs some four times as much as other bytes.
            mark -= 3 * len(content)
            outer.append((ops, i, array_end, depth))
            ops, nesting = program_of_variant(bytes(content))
            depth += structs + 1
            if depth + nesting > MAX_DEPTH:
                raise ProtocolViolation("values nested too deeply")
            count = len(ops)
            i = 0
            array_end = -1

    yield position


def _decode(content: Data, final: bool) -> int:
    """How many bytes of `content` are whole UTF-8 characters; all must be, if it is final."""
    try:
        return utf_8_decode(content, "strict", final)[1]
    except UnicodeDecodeError:
        raise ProtocolViolation("string is not UTF-8") from None


def _long_text(
    what: int, data: Data, start: int, end: int, arrived: Callable[[], int] | None
) -> Iterator[int]:
    """Check the text `data[start:end]` and its terminator piece by piece."""
    at = start
    while at < end:
        stop = min(at + STEP, end)
        while arrived is not None and arrived() <= stop:
            yield at
        if data.find(0, at, stop) >= 0:
            raise ProtocolViolation("string contains NUL")
        if what == STRING:
            content = data[at:stop]
            # A character cut by the end of this piece belongs to the next.
            at = stop if content.isascii() else at + _decode(content, stop == end)
        else:
            if data[at:stop].translate(None, _PATH_BYTES) or data.find(b"//", at, stop + 1) >= 0:
                raise ProtocolViolation("invalid object path")
            at = stop
        yield at
    if data[end]:
        raise ProtocolViolation("string is not terminated")
    if what == PATH and (data[start] != 0x2F or data[end - 1] == 0x2F):
        raise ProtocolViolation("invalid object path")


def _rows(
    elements: Elements,
    little: bool,
    data: Data,
    start: int,
    end: int,
    arrived: Callable[[], int] | None,
) -> Iterator[int]:
    """`check_columns` for many rows, in steps."""
    some_rows = max(1, STEP // elements.stride) * elements.stride
    for at in range(start, end, some_rows):
        stop = min(at + some_rows, end)
        while arrived is not None and arrived() < stop:
            yield at
        check_columns(elements, little, data, at, stop)
        yield stop


def check_columns(elements: Elements, little: bool, data: Data, start: int, end: int) -> None:
    """Check an array of booleans or of structs of fixed size, a whole column of bytes at a time."""
    stride = elements.stride
    for column in elements.zeros[little]:
        if data[start + column : end : stride].strip(b"\0"):
            raise ProtocolViolation("padding is not zero, or boolean is neither 0 nor 1")
    for column in elements.flags[little]:
        if data[start + column : end : stride].strip(b"\0\1"):
            raise ProtocolViolation("boolean is neither 0 nor 1")
