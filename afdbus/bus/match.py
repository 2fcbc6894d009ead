"""Match rules: the text of AddMatch becomes a value (D-Bus specification, "Match Rules").

Texts of errors, and what is accepted beyond the specification (empty keys, trailing commas, a rule
of white space), are dbus-daemon's.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from afdbus.errors import LIMITS_EXCEEDED, MATCH_RULE_INVALID, BusError
from afdbus.limits import MAX_MATCH_ARG, MAX_MATCH_RULE
from afdbus.wire import names
from afdbus.wire.header import TYPE_NAMES

_WHITE = " \t\n\r"
_number = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)").match
_MAX_TOKENS = 16
_ULONG = 2**64

EXACT, PATH, NAMESPACE = "", "path", "namespace"


class MatchRule(NamedTuple):
    """One rule; absent keys are None (type: 0).

    `arguments` are (index, kind, value) in the order of the index, kind being EXACT, PATH
    or NAMESPACE.  Two rules are equal when they say the same, however they were spelt.
    """

    type: int = 0
    sender: str | None = None
    interface: str | None = None
    member: str | None = None
    path: str | None = None
    path_namespace: str | None = None
    destination: str | None = None
    arguments: tuple[tuple[int, str, str], ...] = ()
    eavesdrop: bool = False

    def __str__(self) -> str:
        """The canonical spelling, as GetAllMatchRules gives it."""
        parts = []
        if self.type:
            parts.append(("type", TYPE_NAMES[self.type]))
        for key in ("interface", "member", "path", "path_namespace", "sender", "destination"):
            value = getattr(self, key)
            if value is not None:
                parts.append((key, value))
        if self.eavesdrop:
            parts.append(("eavesdrop", "true"))
        parts += [(f"arg{index}{kind}", value) for index, kind, value in self.arguments]
        return ",".join("{}='{}'".format(key, value.replace("'", "'\\''")) for key, value in parts)


def _invalid(text: str) -> BusError:
    return BusError(MATCH_RULE_INVALID, text)


def _find_key(text: str, pos: int) -> tuple[str, int]:
    """The key that starts at `pos` and where its value starts; an empty key at the end."""
    end = len(text)
    while pos < end and text[pos] in _WHITE:
        pos += 1
    start = pos
    while pos < end and text[pos] != "=" and text[pos] not in _WHITE:
        pos += 1
    key = text[start:pos]
    while pos < end and text[pos] in _WHITE:
        pos += 1
    if not key:
        return key, pos
    if pos == end or text[pos] != "=":
        raise _invalid("Match rule has a key with no subsequent '=' character")
    return key, pos + 1


def _find_value(text: str, pos: int) -> tuple[str, int]:
    """The value that starts at `pos`, its quotes resolved, and where the next key starts."""
    value: list[str] = []
    quote = ""
    end = len(text)
    while pos < end:
        char = text[pos]
        pos += 1
        if not quote:
            if char == ",":
                break
            if char in "'\\":
                quote = char
            else:
                value.append(char)
        elif quote == "\\":
            # A backslash is one unless it escapes a quote mark.
            value.append(char if char == "'" else "\\" + char)
            quote = ""
        elif char == "'":
            quote = ""
        else:
            value.append(char)
    if quote == "\\":
        value.append("\\")
    elif quote:
        raise _invalid("Unbalanced quotation marks in match rule")
    return "".join(value), pos


@cache
def _usual() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A rule as nearly all write it, and a key and a value in it.  Not compiled at the start."""
    token = r"(\w++)='([^'\\]*+)'(?:,|\Z)"
    # Not `*+`: in Python before 3.11.5 that takes half a token at the end for one (gh-106052).
    return re.compile(f"(?:{token})*"), re.compile(token)


def _tokens(text: str) -> list[tuple[str, str]]:
    """Keys and values.  Like dbus-daemon's, a rule ends at the first empty key and after 16."""
    usual, token = _usual()
    if usual.fullmatch(text):
        # A third of what AddMatch costs less than to look at each character.
        return token.findall(text)[:_MAX_TOKENS]
    return _spelt(text)


def _spelt(text: str) -> list[tuple[str, str]]:
    """The same, however they are written."""
    tokens: list[tuple[str, str]] = []
    pos = 0
    while pos < len(text) and len(tokens) < _MAX_TOKENS:
        key, pos = _find_key(text, pos)
        if not key:
            break
        value, pos = _find_value(text, pos)
        tokens.append((key, value))
    return tokens


def _argument(key: str, value: str, seen: set[int]) -> tuple[int, str, str]:
    """Parse argN, argNpath or arg0namespace; N is what C's strtoul makes of it, as there."""
    if key == "arg":
        raise _invalid(
            f"Key '{key}' in match rule starts with 'arg' but lacks an arg number. "
            "Should be 'arg0' or 'arg7' for example.\n"
        )
    number = _number(key, 3)
    digits = "" if number is None else number[0].lstrip("+-")
    base = 8 if digits[:1] == "0" and digits.isdigit() else 0
    index = int(digits or "0", base)
    if number is None or index >= _ULONG:
        raise _invalid(
            f"Key '{key}' in match rule starts with 'arg' but could not parse arg number. "
            "Should be 'arg0' or 'arg7' for example.\n"
        )
    if number[0][0] == "-":
        index = -index % _ULONG
    kind = key[number.end() :]
    if key == "arg0namespace":
        if not (names.is_namespace(value) or names.is_bus_name(value)):
            raise _invalid(f"arg0namespace='{value}' is not a valid prefix of a bus name")
    elif kind not in (EXACT, PATH):
        raise _invalid(
            f"Key '{key}' in match rule contains junk after argument number ({index}). "
            f"Only 'arg{index}path' (for example) or 'arg0namespace' are valid"
        )
    if index > MAX_MATCH_ARG:
        raise _invalid(
            f"Key '{key}' in match rule has arg number {index} but the maximum is "
            f"{MAX_MATCH_ARG}.\n"
        )
    if index in seen:
        raise _invalid(f"Argument {key} matched more than once in match rule\n")
    seen.add(index)
    return index, kind, value


_texts = {
    "sender": (names.is_bus_name, "Sender name '{}' is invalid\n"),
    "interface": (names.is_interface_name, "Interface name '{}' is invalid\n"),
    "member": (names.is_member_name, "Member name '{}' is invalid\n"),
    "destination": (names.is_bus_name, "Destination name '{}' is invalid\n"),
}


def parse(text: str) -> MatchRule:
    """Parse a rule.  Raises BusError: MatchRuleInvalid, or LimitsExceeded beyond 1024 bytes."""
    size = len(text.encode())
    if size > MAX_MATCH_RULE:
        raise BusError(
            LIMITS_EXCEEDED, f"Match rule text is {size} bytes, maximum is {MAX_MATCH_RULE}"
        )
    found: dict[str, str] = {}
    type_ = 0
    eavesdrop = False
    arguments: list[tuple[int, str, str]] = []
    seen: set[int] = set()
    for key, value in _tokens(text):
        if key == "type":
            if type_:
                raise _invalid("Key type specified twice in match rule\n")
            if value not in TYPE_NAMES[1:]:
                raise _invalid(f"Invalid message type ({value}) in match rule\n")
            type_ = TYPE_NAMES.index(value)
        elif key in _texts:
            if key in found:
                raise _invalid(f"Key {key} specified twice in match rule\n")
            valid, complaint = _texts[key]
            if not valid(value):
                raise _invalid(complaint.format(value))
            found[key] = value
        elif key in ("path", "path_namespace"):
            if "path" in found or "path_namespace" in found:
                raise _invalid("path or path_namespace specified twice in match rule\n")
            if not names.is_object_path(value):
                raise _invalid(f"Path '{value}' is invalid\n")
            found[key] = value
        elif key == "eavesdrop":
            if value not in ("true", "false"):
                raise _invalid(
                    f"eavesdrop='{value}' is invalid, it should be 'true' or 'false'\n"
                )
            eavesdrop = value == "true"
        elif key.startswith("arg"):
            arguments.append(_argument(key, value, seen))
        else:
            raise _invalid(f'Unknown key "{key}" in match rule')
    arguments.sort()
    return MatchRule(type_, arguments=tuple(arguments), eavesdrop=eavesdrop, **found)
