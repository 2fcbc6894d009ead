"""What `<policy>`, `<allow>` and `<deny>` mean: attributes in, rules out (dbus-daemon(1)).

Refused is what dbus-daemon refuses, and nothing else: names, interfaces and paths are not looked
at, a rule that can never fit is a rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from afdbus.config.document import Element
from afdbus.config.draft import Draft
from afdbus.config.place import Place, check_attributes, no_children, no_text
from afdbus.config.users import UserDatabase, strtol
from afdbus.policy.rules import (
    MAX_RULE_FDS,
    MESSAGE_TYPES,
    ConnectRule,
    MessageRule,
    OwnRule,
    Rule,
)

_COMMON = ("interface", "member", "error", "path", "type", "requested_reply")
_SEND = frozenset(
    f"send_{what}" for what in (*_COMMON, "destination", "destination_prefix", "broadcast")
)
_RECEIVE = frozenset(f"receive_{what}" for what in (*_COMMON, "sender"))
_OTHERS = ("own", "own_prefix", "user", "group")
_RULE = _SEND | _RECEIVE | {"eavesdrop", "min_fds", "max_fds", "log", *_OTHERS}
_POLICY = frozenset(("context", "user", "group", "at_console"))


def add_policy(draft: Draft, element: Element, users: UserDatabase, place: Place) -> None:
    """Add the rules of a `<policy>` to `draft`. Raises `ConfigError`; warns of unknown users."""
    place = place.at(element)
    check_attributes(element, _POLICY, place)
    no_text(element, place)
    kind, bucket = "", None
    if len(element.attributes) == 1:
        ((kind, value),) = element.attributes.items()
        bucket = _bucket(draft, kind, value, users, place)
    else:
        place.refuse(
            "<policy> element must have exactly one of (context|user|group|at_console) attributes"
        )
    for child in element.children:
        inside = place.at(child)
        if child.name not in ("allow", "deny"):
            inside.refuse(
                f"Element <{child.name}> not allowed inside <policy> in configuration file"
            )
            continue
        rule = _rule(child, users, inside)
        # The rules of an unknown user are read, and fall to the ground.
        if rule is None or bucket is None:
            continue
        if isinstance(rule, ConnectRule) and kind in ("user", "group"):
            inside.refuse(
                f"<{child.name}> rule cannot be per-{kind} because it has bus-global semantics"
            )
        elif isinstance(rule, ConnectRule) and kind == "at_console":
            inside.remark("Rules about connecting count in default and mandatory only", "ignored")
        bucket.append(rule)


def _bucket(
    draft: Draft, kind: str, value: str, users: UserDatabase, place: Place
) -> list[Rule] | None:
    """Where the rules of a policy go; None if it is for somebody who does not exist."""
    if kind == "context":
        if value == "default":
            return draft.default
        if value == "mandatory":
            return draft.mandatory
        place.refuse(
            'context attribute on <policy> must have the value "default" or "mandatory", '
            f'not "{value}"'
        )
        return None
    if kind == "at_console":
        place.remark("at_console is deprecated: who sits at the machine is polkit's to ask", kind)
        if value == "true":
            return draft.at_console
        if value == "false":
            return draft.not_at_console
        place.refuse(f'Unknown value "{value}" for at_console')
        return None
    number = users.user(value) if kind == "user" else users.group(value)
    if number is None:
        what = "username" if kind == "user" else "group"
        place.warn(f'Unknown {what} "{value}" in message bus configuration file', f"unknown-{kind}")
        return None
    return (draft.users if kind == "user" else draft.groups).setdefault(number, [])


def _rule(element: Element, users: UserDatabase, place: Place) -> Rule | None:
    """The rule of an `<allow>` or `<deny>`; None if it is about a user who does not exist."""
    check_attributes(element, _RULE, place)
    no_text(element, place)
    no_children(element, place)
    given = element.attributes
    allow = element.name == "allow"
    send = not _SEND.isdisjoint(given)
    # eavesdrop alone makes a receive rule, with receive_sender="*".
    receive = not _RECEIVE.isdisjoint(given) or (not send and "eavesdrop" in given)
    if not _check_combination(element, send, receive, place):
        return None
    if send or receive:
        return _message_rule(given, allow, receive, place)
    if "own" in given:
        name = given["own"]
        return OwnRule(allow, None if name == "*" else name, False, place.file, place.line)
    if "own_prefix" in given:
        return OwnRule(allow, given["own_prefix"], True, place.file, place.line)
    group = "group" in given
    who = given["group" if group else "user"]
    if who == "*":
        return ConnectRule(allow, group, None, place.file, place.line)
    number = users.group(who) if group else users.user(who)
    if number is None:
        what = "group" if group else "username"
        kind = "unknown-group" if group else "unknown-user"
        place.warn(f'Unknown {what} "{who}" on element <{element.name}>', kind)
        return None
    return ConnectRule(allow, group, number, place.file, place.line)


def _check_combination(element: Element, send: bool, receive: bool, place: Place) -> bool:
    """Refuse attributes that dbus-daemon will not see together, or not alone.

    False if they make no rule at all.
    """
    given = element.attributes
    others = sum(name in given for name in _OTHERS)
    if not (send or receive or others):
        place.refuse(f"Element <{element.name}> must have one or more attributes")
        return False
    for way in ("send", "receive"):
        if f"{way}_member" in given and not (f"{way}_interface" in given or f"{way}_path" in given):
            place.refuse(
                f"On element <{element.name}>, if you specify a member you must specify an "
                "interface or a path. Keep in mind that not all messages have an interface field."
            )
    clash = None
    message = send or receive or "min_fds" in given or "max_fds" in given
    if others + message > 1:
        clash = "own, own_prefix, user, group and the message-related attributes"
    elif send and receive:
        clash = "send and receive attributes"
    elif "send_error" in given and ("send_member" in given or "send_interface" in given):
        clash = "send_error and send_member or send_interface"
    elif "send_destination" in given and "send_destination_prefix" in given:
        clash = "send_destination and send_destination_prefix"
    elif "receive_error" in given and ("receive_member" in given or "receive_interface" in given):
        clash = "receive_error and receive_member or receive_interface"
    if clash is not None:
        place.refuse(
            f"Invalid combination of attributes on element <{element.name}>: "
            f"{clash} cannot be combined"
        )
    return True


def _message_rule(
    given: Mapping[str, str], allow: bool, receive: bool, place: Place
) -> MessageRule:
    way = "receive" if receive else "send"

    def condition(what: str) -> str | None:
        value = given.get(f"{way}_{what}")
        return None if value == "*" else value

    type_name = condition("type")
    if type_name is not None and type_name not in MESSAGE_TYPES:
        place.refuse(f'Bad message type "{type_name}"')
        type_name = None
    name = condition("sender" if receive else "destination")
    broadcast = _boolean(given, "send_broadcast", place)
    if broadcast and name is not None:
        place.refuse(
            f'Rule with send_broadcast="true" and send_destination="{name}" cannot match anything'
        )
    if receive and "log" in given:
        place.remark("log is heeded on send rules only", "ignored")
    prefix = given.get("send_destination_prefix")  # here "*" is no wildcard
    requested_reply = _boolean(given, f"{way}_requested_reply", place)
    return MessageRule(
        allow=allow,
        receiving=receive,
        type=0 if type_name is None else MESSAGE_TYPES[type_name],
        path=condition("path"),
        interface=condition("interface"),
        member=condition("member"),
        error=condition("error"),
        name=name if prefix is None else prefix,
        prefix=prefix is not None,
        broadcast=broadcast,
        requested_reply=allow if requested_reply is None else requested_reply,
        eavesdrop=_boolean(given, "eavesdrop", place) or False,
        min_fds=_fds(given, "min_fds", 0, place),
        max_fds=_fds(given, "max_fds", MAX_RULE_FDS, place),
        # dbus-daemon heeds it on send rules only, and takes any other value for "false".
        log=not receive and given.get("log") == "true",
        file=place.file,
        line=place.line,
    )


def _boolean(given: Mapping[str, str], name: str, place: Place) -> bool | None:
    value = given.get(name)
    if value is None:
        return None
    if value not in ("true", "false"):
        place.refuse(f'Bad value "{value}" for {name} attribute, must be true or false')
    return value == "true"


def _fds(given: Mapping[str, str], name: str, default: int, place: Place) -> int:
    value = given.get(name)
    if value is None:
        return default
    found = strtol(value)
    if found is None or not 0 <= found[0] <= MAX_RULE_FDS:
        place.refuse(
            f'Bad value "{value}" for {name} attribute, must be an integer in range '
            f"0 to {MAX_RULE_FDS} inclusive"
        )
        return default
    return found[0]
