"""Signatures: which texts are some, and their complete types (D-Bus specification, "Type System").

A single pass with an own stack, so a hostile signature costs time linear in its (at most 255)
characters and no Python recursion.  Where dbus-daemon is more lenient than the specification we
are dbus-daemon; the places are marked.
"""

from __future__ import annotations

from functools import lru_cache

from afdbus.limits import MAX_ARRAY_DEPTH, MAX_SIGNATURE, MAX_STRUCT_DEPTH

# The sizes of the fixed types; their alignment is the same number.
FIXED_SIZE = {"y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8, "d": 8}
BASIC = frozenset(FIXED_SIZE) | frozenset("sog")
ALIGNMENT = {**FIXED_SIZE, "s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "(": 8, "{": 8}


def flaw(text: str) -> str | None:
    """What is wrong with `text` as a signature (a clause for people), None when it is one."""
    if len(text) > MAX_SIGNATURE:
        return "signature longer than 255 bytes"
    # Open brackets and how many complete types each has seen; the lowest is the signature itself.
    opened = [""]
    counts = [0]
    structs = dicts = arrays = 0
    last = ""
    for code in text:
        if code in BASIC:  # first, since most are
            counts[-1] += 1
            arrays = 0
            last = code
            continue
        if last == "{":
            return "dict entry key is not a basic type"
        if code == "a":
            # dbus-daemon counts neighbours only: "a" 20 times, "(", "a" 20 times passes there,
            # while the specification allows 32 arrays in all.  Values deeper than 64 are refused
            # by check_body anyway.
            arrays += 1
            if arrays > MAX_ARRAY_DEPTH:
                return "arrays nested too deeply"
            last = code
            continue
        if code == "(":
            structs += 1
            if structs > MAX_STRUCT_DEPTH:
                return "structs nested too deeply"
            opened.append(code)
            counts.append(0)
        elif code == "{":
            if last != "a":
                return "dict entry outside of an array"
            dicts += 1
            if dicts > MAX_STRUCT_DEPTH:
                return "dict entries nested too deeply"
            opened.append(code)
            counts.append(0)
        elif code == ")":
            if arrays:
                return "array without element type"
            if opened[-1] != "(":
                return "struct ended but not started"
            if not counts[-1]:
                return "struct without members"
            structs -= 1
            opened.pop()
            counts.pop()
            counts[-1] += 1
        elif code == "}":
            if arrays:
                return "array without element type"
            if opened[-1] != "{":
                return "dict entry ended but not started"
            if counts[-1] != 2:
                return "dict entry without exactly two members"
            dicts -= 1
            opened.pop()
            counts.pop()
            counts[-1] += 1
        elif code == "v":
            counts[-1] += 1
        else:
            return "unknown type code"
        arrays = 0
        last = code
    if arrays:
        return "array without element type"
    if len(opened) > 1:
        return "bracket not closed"
    return None


def is_signature(text: str) -> bool:
    """Whether `text` is a signature: no, one or several complete types, at most 255 bytes."""
    return flaw(text) is None


def is_single_type(text: str) -> bool:
    """Whether `text` is exactly one complete type (the signature of a variant)."""
    return bool(text) and flaw(text) is None and end_of_type(text, 0) == len(text)


def end_of_type(signature: str, at: int) -> int:
    """The index behind the complete type that begins at `at` of a valid signature."""
    while signature[at] == "a":
        at += 1
    open_brackets = 0
    while True:
        code = signature[at]
        at += 1
        if code in "({":
            open_brackets += 1
        elif code in ")}":
            open_brackets -= 1
        if not open_brackets:
            return at


@lru_cache(maxsize=256)
def split(signature: str) -> tuple[str, ...]:
    """The complete types of a valid signature, in order."""
    types = []
    at = 0
    while at < len(signature):
        after = end_of_type(signature, at)
        types.append(signature[at:after])
        at = after
    return tuple(types)
