"""Which texts are names and paths (D-Bus specification, "Valid Names", "Valid Object Paths").

One regular expression each; possessive quantifiers keep long texts linear in time and memory.
"""

from __future__ import annotations

import re

from afdbus.limits import MAX_NAME

_ELEMENT = r"[A-Za-z_][A-Za-z0-9_]*+"
_BUS_ELEMENT = r"[A-Za-z_-][A-Za-z0-9_-]*+"

INTERFACE = rf"{_ELEMENT}(?:\.{_ELEMENT})++"
MEMBER = _ELEMENT
PATH = r"/|(?:/[A-Za-z0-9_]++)++"

_interface = re.compile(INTERFACE).fullmatch
_member = re.compile(MEMBER).fullmatch
_path = re.compile(PATH).fullmatch
_well_known = re.compile(rf"{_BUS_ELEMENT}(?:\.{_BUS_ELEMENT})++").fullmatch
_namespace = re.compile(rf"{_BUS_ELEMENT}(?:\.{_BUS_ELEMENT})*+").fullmatch
# Like dbus-daemon, and unlike the specification, ":" alone passes, and so does a
# unique name of one element.
_unique = re.compile(r":(?:[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*+)?").fullmatch


def is_interface_name(text: str) -> bool:
    return len(text) <= MAX_NAME and _interface(text) is not None


is_error_name = is_interface_name


def is_member_name(text: str) -> bool:
    return len(text) <= MAX_NAME and _member(text) is not None


def is_object_path(text: str) -> bool:
    return _path(text) is not None


def is_unique_name(text: str) -> bool:
    return len(text) <= MAX_NAME and _unique(text) is not None


def is_well_known_name(text: str) -> bool:
    return len(text) <= MAX_NAME and _well_known(text) is not None


def is_bus_name(text: str) -> bool:
    """Whether `text` may stand in a DESTINATION or SENDER field."""
    return is_unique_name(text) if text[:1] == ":" else is_well_known_name(text)


def is_namespace(text: str) -> bool:
    """Whether `text` may be the value of `arg0namespace`: a bus name, or one element of it."""
    return len(text) <= MAX_NAME and _namespace(text) is not None
