"""The bytes of a body become Python values: for the driver, match rules, our client and tests.

A body is validated by `check_body` first, so the readers here may trust every length, and the
recursion follows values nested at most 64 deep.  The bus never decodes what it only passes on.
"""

from __future__ import annotations

import struct
from typing import Any

from afdbus.wire.check import Data, check_body
from afdbus.wire.signature import ALIGNMENT, FIXED_SIZE, split

_FORMATS = dict(zip("ynqiuxtdh", "BhHiIqQdI", strict=True))
_UNPACK = {
    little: {
        code: struct.Struct(("<" if little else ">") + form).unpack_from
        for code, form in _FORMATS.items()
    }
    for little in (True, False)
}


def decode(signature: str, little: bool, data: Data, start: int, end: int) -> tuple[Any, ...]:
    """The values of the body `data[start:end]`, one for each complete type of a valid signature.

    Forms as `encode` takes them; arrays are lists, `ay` is bytes.  Raises ProtocolViolation when
    the body is not valid.
    """
    check_body(signature, little, data, start, end)
    reader = _Reader(little, data, start)
    return tuple([reader.value(kind) for kind in split(signature)])


def string_arguments(
    signature: str, little: bool, data: Data | memoryview, start: int, end: int, count: int
) -> list[tuple[str, str] | None]:
    """The first `count` arguments of a *valid* body, as match rules see them.

    (type, text) for `s`, `o` and `g`; None for all others.  The list is shorter than `count` when
    there are fewer arguments (specification, "Match Rules", argN).
    """
    if count == 1 and signature[:1] == "s":
        # All that rules with arg0 ask, of each broadcast they might fit: 0.4 instead of 1.0 us.
        (length,) = _UNPACK[little]["u"](data, start)
        return [("s", str(data[start + 4 : start + 4 + length], "utf-8"))]
    reader = _Reader(little, data, start)
    arguments: list[tuple[str, str] | None] = []
    for kind in split(signature)[:count]:
        if kind in "sog":
            arguments.append((kind, reader.value(kind)))
        else:
            arguments.append(None)
            reader.skip(kind)
    return arguments


class _Reader:
    """A place in a valid body."""

    __slots__ = ("at", "data", "start", "unpack")

    def __init__(self, little: bool, data: Data | memoryview, start: int) -> None:
        self.unpack = _UNPACK[little]
        self.data = data
        self.start = start
        self.at = start

    def align(self, code: str) -> None:
        self.at += (self.start - self.at) % ALIGNMENT[code]

    def fixed(self, code: str) -> Any:
        self.align(code)
        (value,) = self.unpack[code](self.data, self.at)
        self.at += FIXED_SIZE[code]
        return value

    def text(self, length: int) -> str:
        start = self.at
        self.at = start + length + 1
        return str(self.data[start : start + length], "utf-8")

    def value(self, kind: str) -> Any:
        code = kind[0]
        if code in self.unpack:
            return self.fixed(code)
        if code == "b":
            return self.fixed("u") == 1
        if code in "so":
            return self.text(self.fixed("u"))
        if code == "g":
            return self.text(self.fixed("y"))
        if code == "v":
            inner = self.text(self.fixed("y"))
            return inner, self.value(inner)
        if code == "a":
            return self.array(kind[1:])
        self.align(code)
        return tuple([self.value(member) for member in split(kind[1:-1])])

    def array(self, element: str) -> Any:
        length = self.fixed("u")
        self.align(element[0])
        stop = self.at + length
        if element == "y":
            content = bytes(self.data[self.at : stop])
            self.at = stop
            return content
        values = []
        while self.at < stop:
            values.append(self.value(element))
        return dict(values) if element[0] == "{" else values

    def skip(self, signature: str) -> None:
        """Go behind values of these types; arrays are jumped over, variants opened in a loop."""
        types = [signature]
        while types:
            kind = types.pop()
            code = kind[0]
            if code == "a":
                length = self.fixed("u")
                self.align(kind[1])
                self.at += length
            elif code == "(":
                self.align(code)
                types.extend(reversed(split(kind[1:-1])))
            elif code == "v":
                types.append(self.text(self.fixed("y")))
            elif code in "so":
                length = self.fixed("u")
                self.at += length + 1
            elif code == "g":
                length = self.fixed("y")
                self.at += length + 1
            else:
                self.align(code)
                self.at += FIXED_SIZE[code]
