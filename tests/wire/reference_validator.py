"""A second validator of bodies, as simple as the specification's text, for comparison.

It shares nothing with `afdbus.wire`: recursive descent, one value after the other.  Where
dbus-daemon is known to differ from the specification, this follows dbus-daemon; `libdbus.py`
holds both to that.
"""

from __future__ import annotations

import re
import sys

_SIZE = {"y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8, "d": 8}
_ALIGN = _SIZE | {"s": 4, "o": 4, "g": 1, "v": 1, "array": 4, "struct": 8, "dict": 8}


class InvalidError(Exception):
    pass


def is_valid(signature: str, little: bool, body: bytes) -> bool:
    """Whether `body` is valid for `signature` (itself known to be one)."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        at = 0
        for kind in types_of(signature):
            at = _value(kind, little, body, at, 0)
        return at == len(body)
    except InvalidError:
        return False
    finally:
        sys.setrecursionlimit(limit)


def is_signature(text: str) -> bool:
    try:
        types_of(text)
    except InvalidError:
        return False
    return True


def types_of(text: str) -> list[tuple]:
    """(code, members) of each complete type; codes as in `_ALIGN`."""
    if len(text) > 255:
        raise InvalidError
    kinds = []
    at = 0
    while at < len(text):
        kind, at = _type(text, at, 0, 0, 0)
        kinds.append(kind)
    return kinds


def _type(text: str, at: int, arrays: int, structs: int, dicts: int) -> tuple[tuple, int]:
    if at >= len(text):
        raise InvalidError
    code = text[at]
    if code in _SIZE or code in ("s", "o", "g", "v"):
        return (code, []), at + 1
    if code == "a":
        if arrays == 32:
            raise InvalidError
        if text[at + 1 : at + 2] == "{":
            if dicts == 32:
                raise InvalidError
            key, after = _type(text, at + 2, 0, structs, dicts + 1)
            if key[0] not in _SIZE and key[0] not in ("s", "o", "g"):
                raise InvalidError
            value, after = _type(text, after, 0, structs, dicts + 1)
            if text[after : after + 1] != "}":
                raise InvalidError
            return ("array", [("dict", [key, value])]), after + 1
        element, after = _type(text, at + 1, arrays + 1, structs, dicts)
        return ("array", [element]), after
    if code == "(":
        if structs == 32:
            raise InvalidError
        members = []
        at += 1
        while text[at : at + 1] != ")":
            member, at = _type(text, at, 0, structs + 1, dicts)
            members.append(member)
        if not members:
            raise InvalidError
        return ("struct", members), at + 1
    raise InvalidError


def _take(body: bytes, at: int, count: int) -> bytes:
    if at + count > len(body):
        raise InvalidError
    return body[at : at + count]


def _padded(body: bytes, at: int, alignment: int) -> int:
    while at % alignment:
        if _take(body, at, 1) != b"\0":
            raise InvalidError
        at += 1
    return at


def _value(kind: tuple, little: bool, body: bytes, at: int, depth: int) -> int:
    """The index behind the value; `depth` containers are around it."""
    code, members = kind
    order = "little" if little else "big"
    at = _padded(body, at, _ALIGN[code])
    if code in _SIZE:
        number = int.from_bytes(_take(body, at, _SIZE[code]), order)
        if code == "b" and number not in (0, 1):
            raise InvalidError
        return at + _SIZE[code]
    if code in ("s", "o"):
        length = int.from_bytes(_take(body, at, 4), order)
        raw = _take(body, at + 4, length)
        if _take(body, at + 4 + length, 1) != b"\0" or b"\0" in raw:
            raise InvalidError
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise InvalidError from None
        if code == "o" and not re.fullmatch(r"(/|(/[A-Za-z0-9_]+)+)", text):
            raise InvalidError
        return at + 4 + length + 1
    if code in ("g", "v"):
        length = _take(body, at, 1)[0]
        text = _take(body, at + 1, length).decode("latin-1")
        kinds = types_of(text)
        if _take(body, at + 1 + length, 1) != b"\0":
            raise InvalidError
        at += length + 2
        if code == "g":
            return at
        if len(kinds) != 1:
            raise InvalidError
        return _value(kinds[0], little, body, at, _deeper(depth))
    if code in ("struct", "dict"):
        depth = _deeper(depth)
        for member in members:
            at = _value(member, little, body, at, depth)
        return at
    length = int.from_bytes(_take(body, at, 4), order)
    if length > 64 * 1024 * 1024:
        raise InvalidError
    (element,) = members
    at = _padded(body, at + 4, _ALIGN[element[0]])
    _take(body, at, length)
    end = at + length
    # dbus-daemon does not count an array of fixed types, nor an empty one, as a level.
    if element[0] not in _SIZE and length:
        depth = _deeper(depth)
    while at < end:
        at = _value(element, little, body, at, depth)
    if at != end:
        raise InvalidError
    return at


def _deeper(depth: int) -> int:
    if depth == 64:
        raise InvalidError
    return depth + 1
