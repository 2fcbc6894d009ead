"""Validators of bodies as Python code, made for one signature and byte order.

Three to six times as fast as the interpreting validator, but making one costs a third of a
millisecond and more, and signatures are chosen by peers.  So only small signatures are accepted
here, `checker` decides which are worth it, and signatures met inside variants never are (P2).
A "no" of compiled code is not final: `checker` asks the interpreting validator then.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from afdbus.errors import ProtocolViolation
from afdbus.limits import MAX_ARRAY
from afdbus.wire.check import U32, check_columns, is_path, walk
from afdbus.wire.layout import ARRAY_OF_ROWS, program_of
from afdbus.wire.signature import ALIGNMENT, FIXED_SIZE, is_signature, split

MAX_LENGTH = 64
MAX_NESTING = 8

_ZEROS = tuple(bytes(count) for count in range(8))
_FAILURES = (IndexError, UnicodeDecodeError, struct.error, ProtocolViolation)


def compile_validator(signature: str, little: bool) -> Callable[[bytes], bool] | None:
    """A function that says whether a whole body is valid; None for too large a signature.

    False may also mean that the function does not know.
    """
    if len(signature) > MAX_LENGTH or _nesting(signature) > MAX_NESTING:
        return None
    writer = _Writer(little)
    for kind in split(signature):
        writer.value(kind, 0)
    source = "\n".join(
        [
            "def is_valid(d):",
            " e = len(d)",
            # Spares each array the look at its own limit.
            f" if e > {MAX_ARRAY}: return False",
            " p = 0",
            " try:",
            *writer.lines,
            f"  return {writer.here()} == e",
            " except failures: return False",
        ]
    )
    exec(compile(source, f"<validator of {signature}>", "exec"), writer.names)
    validator: Callable[[bytes], bool] = writer.names["is_valid"]
    return validator


def _nesting(signature: str) -> int:
    """How deep containers nest at most, arrays of dict entries counting twice."""
    deepest = arrays = 0
    opened: list[int] = []
    for code in signature:
        if code == "a":
            arrays += 1
        elif code in "({":
            opened.append(arrays + 1)
            arrays = 0
        elif code in ")}":
            opened.pop()
            arrays = 0
        deepest = max(deepest, sum(opened) + arrays)
        if code not in "a({":
            arrays = 0
    return deepest


class _Writer:
    """Writes the body of a validator, value after value.

    The place reached is `p + ahead`, and known to be `remainder` modulo `modulus`, so that most
    alignments cost nothing or a comparison.
    """

    def __init__(self, little: bool) -> None:
        self.little = little
        self.lines: list[str] = []
        self.indent = "  "
        self.ahead = 0
        self.modulus = 8
        self.remainder = 0
        self.names: dict[str, Any] = {
            "u32": U32[little],
            "zeros": _ZEROS,
            "is_path": is_path,
            "is_signature": is_signature,
            "failures": _FAILURES,
            "contents": _CONTENTS[little],
            "variant": _any_content(little),
            "check_columns": check_columns,
        }

    def write(self, *lines: str) -> None:
        self.lines.extend([self.indent + line for line in lines])

    def here(self, further: int = 0) -> str:
        ahead = self.ahead + further
        return f"p + {ahead}" if ahead else "p"

    def skip(self, count: int) -> None:
        self.ahead += count
        self.remainder = (self.remainder + count) % self.modulus

    def settle(self) -> None:
        if self.ahead:
            self.write(f"p += {self.ahead}")
            self.ahead = 0

    def forget(self, modulus: int = 1) -> None:
        """`p` itself is the place, and a multiple of `modulus`."""
        self.ahead = 0
        self.modulus = modulus
        self.remainder = 0

    def align(self, alignment: int) -> None:
        if self.modulus >= alignment:
            count = -self.remainder % alignment
            if count == 1:
                self.write(f"if d[{self.here()}]: return False")
            elif count:
                self.write(
                    f"if d[{self.here()}:{self.here(count)}] != {bytes(count)!r}: return False"
                )
            self.skip(count)
            return
        self.settle()
        self.write(
            f"k = -p & {alignment - 1}",
            "if k:",
            " if d[p:p + k] != zeros[k]: return False",
            " p += k",
        )
        self.forget(alignment)

    def value(self, kind: str, depth: int) -> None:
        code = kind[0]
        self.align(ALIGNMENT[code])
        if code == "b":
            self.write(f"if u32(d, {self.here()})[0] > 1: return False")
            self.skip(4)
        elif code in FIXED_SIZE:
            self.skip(FIXED_SIZE[code])
        elif code == "s":
            self.write(
                f"q = {self.here(4)}",
                f"p = q + u32(d, {self.here()})[0]",
                "if d.find(0, q, p + 1) != p: return False",
                "if not d[q:p].isascii(): d[q:p].decode()",
            )
            self.forget()
            self.skip(1)
        elif code == "o":
            self.write(
                f"q = {self.here(4)}",
                f"p = q + u32(d, {self.here()})[0]",
                "if d[p] or not is_path(d, q, p): return False",
            )
            self.forget()
            self.skip(1)
        elif code == "g":
            self.write(
                f"q = {self.here(1)}",
                f"p = q + d[{self.here()}]",
                "if d[p] or not is_signature(d[q:p].decode()): return False",
            )
            self.forget()
            self.skip(1)
        elif code == "v":
            self.settle()
            self.write(f"p = contents.get(d[p:p + 3], variant)(d, p, {depth})")
            self.forget()
        elif code == "a":
            self.array(kind, depth)
        else:
            for member in split(kind[1:-1]):
                self.value(member, depth + 1)

    def array(self, kind: str, depth: int) -> None:
        element = kind[1:]
        self.write(f"n = u32(d, {self.here()})[0]")
        self.skip(4)
        alignment = ALIGNMENT[element[0]]
        self.align(alignment)
        end = f"x{depth}"
        self.settle()
        self.write(f"{end} = p + n", f"if {end} > e: return False")
        if element in FIXED_SIZE and element != "b":
            if alignment > 1:
                self.write(f"if n & {alignment - 1}: return False")
            self.write(f"p = {end}")
            self.forget(alignment)
            return
        what, _, _, _, elements = program_of(kind).ops[0]
        if what == ARRAY_OF_ROWS:
            assert elements is not None
            name = f"elements{len(self.names)}"
            self.names[name] = elements
            self.write(
                "if n:",
                f" if (n - {elements.size}) % {elements.stride}: return False",
                f" check_columns({name}, {self.little}, d, p, {end})",
                f" p = {end}",
            )
            self.forget()
            return
        self.write(f"while p < {end}:")
        self.indent += " "
        self.forget()
        self.value(element, depth + 1)
        self.settle()
        self.indent = self.indent[:-1]
        self.write(f"if p != {end}: return False")
        self.forget()


# What is inside variants: functions of (body, index of the variant, containers around it) that
# return the index behind it and fail by any of `_FAILURES`.
_Content = Callable[[bytes, int, int], int]


def _any_content(little: bool) -> _Content:
    program = program_of("v")

    def any_content(data: bytes, at: int, depth: int) -> int:
        *_, after = walk(program, little, data, 0, at, len(data), depth)
        return after

    return any_content


def _fixed_content(size: int) -> _Content:
    mask = size - 1

    def fixed_content(data: bytes, at: int, depth: int) -> int:
        at += 3
        padding = -at & mask
        if padding:
            if data[at : at + padding] != _ZEROS[padding]:
                raise ProtocolViolation("padding is not zero")
            at += padding
        return at + size

    return fixed_content


def _string_content(little: bool) -> _Content:
    read_length = U32[little]

    def string_content(data: bytes, at: int, depth: int) -> int:
        at += 3
        padding = -at & 3
        if padding:
            if data[at : at + padding] != _ZEROS[padding]:
                raise ProtocolViolation("padding is not zero")
            at += padding
        end: int = at + 4 + read_length(data, at)[0]
        if data.find(0, at + 4, end + 1) != end:
            raise ProtocolViolation("string contains NUL or is not terminated")
        if not data[at + 4 : end].isascii():
            data[at + 4 : end].decode()
        return end + 1

    return string_content


def _boolean_content(little: bool) -> _Content:
    fixed_content = _fixed_content(4)
    read = U32[little]

    def boolean_content(data: bytes, at: int, depth: int) -> int:
        after = fixed_content(data, at, depth)
        if read(data, after - 4)[0] > 1:
            raise ProtocolViolation("boolean is neither 0 nor 1")
        return after

    return boolean_content


_CONTENTS = {
    little: {
        **{
            b"\1" + code.encode() + b"\0": _fixed_content(size) for code, size in FIXED_SIZE.items()
        },
        b"\1s\0": _string_content(little),
        b"\1b\0": _boolean_content(little),
    }
    for little in (True, False)
}
