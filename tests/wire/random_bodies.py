"""Signatures, values and damaged bodies from a seeded generator: the same in each run."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from afdbus.wire.encode import encode
from afdbus.wire.signature import split

_BASICS = "ynqbiuhxtdsog"
_TEXTS = ("", "a", "name", "org.example.Clock", "a longer text, of forty bytes or more...")
_WIDE = ("é", "日本語", "\U0001f600", "\ufffe", "x\u07ff\u0800")
_COUNTS = {"y": 255, "n": 32767, "q": 65535, "i": 2**31 - 1, "u": 2**32 - 1, "h": 3}
COMMON = ("s", "su", "sa{sv}as", "a{sv}", "as", "v", "sv", "b", "ab", "a(yt)", "oa{sa{sv}}", "ay")


def random_type(random: Random, depth: int = 0) -> str:
    roll = random.random()
    if depth > 3 or roll < 0.5:
        return random.choice(_BASICS)
    if roll < 0.6:
        return "v"
    if roll < 0.75:
        return "a" + random_type(random, depth + 1)
    if roll < 0.87:
        return "a{" + random.choice(_BASICS) + random_type(random, depth + 1) + "}"
    members = [random_type(random, depth + 1) for _ in range(random.randint(1, 4))]
    return "(" + "".join(members) + ")"


def random_signature(random: Random) -> str:
    if random.random() < 0.5:
        return random.choice(COMMON)
    return "".join([random_type(random) for _ in range(random.randint(1, 4))])


def random_value(random: Random, kind: str, depth: int = 0) -> Any:
    code = kind[0]
    if code in _COUNTS:
        return random.choice((0, 1, random.randint(0, _COUNTS[code])))
    if code in "xt":
        return random.randint(0, 2**63 - 1)
    if code == "d":
        return random.uniform(-9, 9)
    if code == "b":
        return random.random() < 0.5
    if code == "s":
        return random.choice(_TEXTS if random.random() < 0.8 else _WIDE)
    if code == "o":
        return random.choice(("/", "/a", "/org/example/_1", "/x/y/z"))
    if code == "g":
        return random.choice(("", "s", "a{sv}", "(ii)ay"))
    if code == "v":
        inner = random_type(random, depth + 2)
        return inner, random_value(random, inner, depth + 1)
    if code == "(":
        return tuple([random_value(random, member, depth + 1) for member in split(kind[1:-1])])
    count = random.randint(0, 3 if depth < 3 else 1)
    if kind[1] == "{":
        key, value = split(kind[2:-1])
        return {
            random_value(random, key, depth + 1): random_value(random, value, depth + 1)
            for _ in range(count)
        }
    return [random_value(random, kind[1:], depth + 1) for _ in range(count)]


def random_body(random: Random, signature: str, little: bool) -> bytes:
    values = [random_value(random, kind) for kind in split(signature)]
    return encode(signature, *values, little=little)


def damaged(random: Random, body: bytes) -> bytes:
    """`body` with one to three small changes; it may still be valid."""
    out = bytearray(body)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        roll = random.random()
        at = random.randrange(len(out)) if out else 0
        if not out or roll < 0.04:
            out[at:at] = bytes(random.choice((1, 4, 8)))
        elif roll < 0.1:
            del out[at : at + random.choice((1, 4, 8))]
        elif roll < 0.35:
            out[at] = random.randrange(256)
        elif roll < 0.5:
            out[at] ^= 1 << random.randrange(8)
        elif roll < 0.7:
            out[at] = random.choice(b"\0\1\2asvyb(){}/\x80\xff")
        elif roll < 0.85:
            out[at] = (out[at] + random.choice((1, -1, 4, -4))) % 256
        elif len(out) >= 4:
            at = random.randrange(len(out) // 4) * 4
            word = random.choice((0, 1, 4, 8, len(out), 2**32 - 1, 2**26 + 8))
            out[at : at + 4] = struct.pack(random.choice("<>") + "I", word)
    return bytes(out)
