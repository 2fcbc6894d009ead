"""Python values become the bytes of a body (D-Bus specification, "Marshaling").

For what the bus says itself, for our client and for tests: values are ours, so recursion may
follow them, and a value that does not fit is our mistake (ValueError or TypeError), not a peer's.

Forms: integers and `d` from numbers, `b` from truth, `s o g` from str, `ay` from bytes (or any
iterable of small integers), other arrays from iterables, `a{..}` from dict, structs from tuples,
variants from pairs (signature, value).
"""

from __future__ import annotations

import struct
from typing import Any

from afdbus.limits import MAX_ARRAY
from afdbus.wire.names import is_object_path
from afdbus.wire.signature import ALIGNMENT, is_signature, is_single_type, split

_FORMATS = dict(zip("ynqiuxtdh", "BhHiIqQdI", strict=True))
_PACK = {
    little: {
        code: struct.Struct(("<" if little else ">") + form).pack for code, form in _FORMATS.items()
    }
    for little in (True, False)
}

_pack_length = _PACK[True]["u"]

# What the driver says most: 0.6 instead of 2.5 us for a text, 1.4 instead of 5 for three.
_TEXTS = ("s", "ss", "sss")


def encode_text(text: str) -> bytes:
    """As `encode("s", text)`, in half the time.  Raises ValueError if there is a NUL in it."""
    if "\0" in text:
        raise ValueError(f"{text!r} is no 's'")
    raw = text.encode()
    return _pack_length(len(raw)) + raw + b"\0"


def _texts(values: tuple[Any, ...]) -> bytes:
    out = b""
    for value in values:
        if "\0" in value:
            raise ValueError(f"{value!r} is no 's'")
        raw = value.encode()
        out += bytes(-len(out) & 3) + _PACK[True]["u"](len(raw)) + raw + b"\0"
    return out


def encode(signature: str, *values: Any, little: bool = True) -> bytes:
    """The body with this signature and these values, one for each complete type.

    Raises ValueError for an invalid signature, a wrong number of values, or a value out of
    range; TypeError for a value of the wrong kind.
    """
    if little and signature in _TEXTS and len(values) == len(signature):
        return _texts(values)
    if not is_signature(signature):
        raise ValueError(f"not a signature: {signature!r}")
    types = split(signature)
    if len(types) != len(values):
        raise ValueError(f"signature {signature!r} takes {len(types)} values, not {len(values)}")
    out = bytearray()
    for kind, value in zip(types, values, strict=True):
        _put(out, kind, value, little)
    return bytes(out)


def _put(out: bytearray, kind: str, value: Any, little: bool) -> None:
    code = kind[0]
    out += bytes(-len(out) % ALIGNMENT[code])
    pack = _PACK[little]
    if code in pack:
        try:
            out += pack[code](value)
        except struct.error as error:
            raise ValueError(f"{value!r} is no {code!r}: {error}") from error
    elif code == "b":
        out += pack["u"](1 if value else 0)
    elif code in "so":
        if "\0" in value or (code == "o" and not is_object_path(value)):
            raise ValueError(f"{value!r} is no {code!r}")
        text = value.encode()
        out += pack["u"](len(text)) + text + b"\0"
    elif code == "g":
        if not is_signature(value):
            raise ValueError(f"{value!r} is no signature")
        out += pack["y"](len(value)) + value.encode() + b"\0"
    elif code == "v":
        inner, content = value
        if not is_single_type(inner):
            raise ValueError(f"{inner!r} is not one complete type")
        _put(out, "g", inner, little)
        _put(out, inner, content, little)
    elif code == "a":
        _put_array(out, kind[1:], value, little)
    else:
        members = split(kind[1:-1])
        if len(members) != len(value):
            raise ValueError(f"{kind!r} takes {len(members)} values, not {len(value)}")
        for member, content in zip(members, value, strict=True):
            _put(out, member, content, little)


def _put_array(out: bytearray, element: str, value: Any, little: bool) -> None:
    length_at = len(out)
    out += bytes(4)
    out += bytes(-len(out) % ALIGNMENT[element[0]])
    start = len(out)
    if element == "y":
        out.extend(value)
    else:
        for content in value.items() if element[0] == "{" else value:
            _put(out, element, content, little)
    length = len(out) - start
    if length > MAX_ARRAY:
        raise ValueError("array longer than 64 MiB")
    out[length_at : length_at + 4] = _PACK[little]["u"](length)
