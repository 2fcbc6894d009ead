"""Server addresses: `method:key=value,key=value;method:...` and their escaping.

D-Bus specification, "Server Addresses".  Only the syntax lives here; which methods can be listened
on or connected to is a matter for those who do it.  The texts of errors are libdbus's.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from afdbus.errors import AddressError

# To listen on only: a name of the abstract namespace that becomes a bus of its own.
OWN_METHOD = "afdbus"

_HEX = frozenset("0123456789abcdefABCDEF")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/\\*.")
_PLAIN_BYTES = frozenset(ord(char) for char in _PLAIN)


class Address(NamedTuple):
    """One address: `method`, and the options with their values unescaped.

    Bytes of a value that are no UTF-8 are surrogates, as in file names (PEP 383).  `str` gives
    the address as it is written.
    """

    method: str
    options: dict[str, str]

    def __str__(self) -> str:
        return self.method + ":" + ",".join(f"{k}={escape(v)}" for k, v in self.options.items())


def parse(text: str) -> list[Address]:
    """The addresses of `text`, at least one.  Raises AddressError with libdbus's text.

    As in libdbus a semicolon or a comma at the end is ignored, and of a key that is given twice
    the first counts.
    """
    if not text:
        raise AddressError("Empty address ''")
    return [_parse_one(entry) for entry in text.removesuffix(";").split(";")]


def _parse_one(entry: str) -> Address:
    method, colon, rest = entry.partition(":")
    if not colon:
        raise AddressError("Address does not contain a colon")
    options: dict[str, str] = {}
    for pair in rest.removesuffix(",").split(",") if rest else ():
        key, _, value = pair.partition("=")
        if not key or not value:
            raise AddressError("'=' character not found or has no value following it")
        value = unescape(value)
        # libdbus keeps values as C strings: they end at an escaped NUL.  Our own method is not its.
        options.setdefault(key, value if method == OWN_METHOD else value.partition("\0")[0])
    return Address(method, options)


def unescape(value: str) -> str:
    """The value that `value` stands for.  Raises AddressError."""
    if _PLAIN.issuperset(value):
        return value
    out = bytearray()
    at = 0
    while at < len(value):
        char = value[at]
        at += 1
        if char in _PLAIN:
            out.append(ord(char))
        elif char == "%":
            digits = value[at : at + 2]
            if len(digits) < 2:
                raise AddressError(
                    "In D-Bus address, percent character was not followed by two hex digits"
                )
            if not _HEX.issuperset(digits):
                raise AddressError(
                    "In D-Bus address, percent character was followed by characters "
                    "other than hex digits"
                )
            out.append(int(digits, 16))
            at += 2
        else:
            raise AddressError(f"In D-Bus address, character '{char}' should have been escaped")
    return out.decode("utf-8", "surrogateescape")


def escape(value: str) -> str:
    """`value` as it may stand in an address; `unescape` turns it back."""
    raw = value.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _PLAIN_BYTES else f"%{byte:02x}" for byte in raw)


def new_guid() -> str:
    """A new UUID for a server: 32 hex digits, unique, not secret (specification, "UUIDs").

    12 random bytes and the time in seconds, big-endian, as the specification advises.
    """
    return (os.urandom(12) + (int(time.time()) & 0xFFFFFFFF).to_bytes(4, "big")).hex()
