"""Rules written as XML: one by one, as logs and explanations show them, and as a whole file.

What is written reads back as the same rules; what a rule leaves to the defaults is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from afdbus.policy.rules import (
    MAX_RULE_FDS,
    MESSAGE_TYPES,
    ConnectRule,
    MessageRule,
    OwnRule,
    Rule,
)

DOCTYPE = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">"""

_ESCAPES = {"&": "&amp;", "<": "&lt;", '"': "&quot;"}


class Holder(NamedTuple):
    """Whom a policy is for: `<policy user="root">` has the attribute "user", the value "root"."""

    attribute: str
    value: str


EVERYBODY = Holder("context", "default")


def busconfig(
    policies: Iterable[tuple[Holder, Sequence[Rule]]], remarks: Sequence[str] = ()
) -> str:
    """A whole file for an `<includedir>`: these policies, before them the remarks as comments."""
    lines = [DOCTYPE, "<busconfig>"]
    lines += [f"  <!-- {_harmless(remark)} -->" for remark in remarks]
    for holder, rules in policies:
        lines.append(f'  <policy {holder.attribute}="{_escape(holder.value)}">')
        lines += [f"    {written(rule)}" for rule in rules]
        lines.append("  </policy>")
    return "\n".join([*lines, "</busconfig>", ""])


def _harmless(text: str) -> str:
    """Text for a comment: on one line, and without the two hyphens that would end it."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return re.sub("-(?=-)", "- ", shown)


def written(rule: Rule) -> str:
    """The rule as XML, with what it leaves to the defaults left out (for logs and explanations)."""
    attributes: dict[str, str] = {}
    if isinstance(rule, OwnRule):
        attributes["own_prefix" if rule.prefix else "own"] = "*" if rule.name is None else rule.name
    elif isinstance(rule, ConnectRule):
        number = "*" if rule.number is None else str(rule.number)
        attributes["group" if rule.group else "user"] = number
    else:
        attributes = _message_attributes(rule)
    inside = " ".join(f'{key}="{_escape(value)}"' for key, value in attributes.items())
    return f"<{'allow' if rule.allow else 'deny'} {inside}/>"


def _message_attributes(rule: MessageRule) -> dict[str, str]:
    way = "receive_" if rule.receiving else "send_"
    party = "sender" if rule.receiving else "destination_prefix" if rule.prefix else "destination"
    found = {
        way + party: rule.name,
        way + "path": rule.path,
        way + "interface": rule.interface,
        way + "member": rule.member,
        way + "error": rule.error,
    }
    if rule.member is not None and rule.interface is None and rule.path is None:
        found[way + "path"] = "*"  # a member may not stand alone
    attributes = {key: value for key, value in found.items() if value is not None}
    for name, number in MESSAGE_TYPES.items():
        if rule.type == number:
            attributes[way + "type"] = name
    if rule.broadcast is not None:
        attributes["send_broadcast"] = _word(rule.broadcast)
    if rule.requested_reply != rule.allow:
        attributes[way + "requested_reply"] = _word(rule.requested_reply)
    if not attributes:
        attributes[way + party] = "*"
    if rule.eavesdrop:
        attributes["eavesdrop"] = "true"
    if rule.min_fds:
        attributes["min_fds"] = str(rule.min_fds)
    if rule.max_fds != MAX_RULE_FDS:
        attributes["max_fds"] = str(rule.max_fds)
    if rule.log:
        attributes["log"] = "true"
    return attributes


def _word(value: bool) -> str:
    return "true" if value else "false"


def _escape(text: str) -> str:
    """White space would become a space when it is read; other controls are for no terminal."""
    return "".join(
        _ESCAPES.get(char) or (char if char.isprintable() else f"&#{ord(char)};") for char in text
    )
