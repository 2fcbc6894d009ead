"""What is asked, from named fields: those of the command line, or of a table in a file of cases.

What a message is not said to have is taken for "some other": its path, member and error name are
such that no rule names them.  Only the interface is taken for absent, since it may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from afdbus.host.users import Users
from afdbus.policy.decide import DRIVER, Question
from afdbus.policy.explain import SOME
from afdbus.policy.rules import MESSAGE_TYPES
from afdbus.tools.command import UsageError
from afdbus.tools.people import Person, person
from afdbus.wire.names import (
    is_bus_name,
    is_error_name,
    is_interface_name,
    is_member_name,
    is_object_path,
    is_well_known_name,
)

MAX_ID = 2**32 - 2

# All fields, and what their values are.
FIELDS: dict[str, type] = {
    "uid": int,
    "user": str,
    "gids": list,
    "send": bool,
    "receive": bool,
    "own": str,
    "connect": bool,
    "type": str,
    "path": str,
    "interface": str,
    "member": str,
    "error": str,
    "destination": str,
    "to_names": list,
    "to_uid": int,
    "to_user": str,
    "to_gids": list,
    "sender": list,
    "reply": bool,
    "requested": bool,
    "fds": int,
    "broadcast": bool,
    "eavesdrop": bool,
}
_ABOUT_WHOM = ("uid", "user", "gids")
_KINDS = ("send", "receive", "own", "connect")
_CHECKS = {
    "path": is_object_path,
    "interface": is_interface_name,
    "member": is_member_name,
    "error": is_error_name,
    "destination": is_bus_name,
    "own": is_well_known_name,
}


class Asked(NamedTuple):
    """May `who` do this?  `kind` is "send", "receive", "own" or "connect".

    `question` is the message, `name` what is to be owned.  `receiver` is who receives what is
    sent, None if it is the bus itself; `SOMEBODY` if we are not told.
    """

    kind: str
    who: Person
    name: str = ""
    question: Question | None = None
    receiver: Person | None = None


def asked(fields: Mapping[str, object], users: Users) -> Asked:
    """The question that the fields make.  Raises `UsageError` if they make none."""
    given = {name: value for name, value in fields.items() if _is_given(name, value)}
    if ("uid" in given) == ("user" in given):
        raise UsageError("who? Give one of uid and user")
    kinds = [kind for kind in _KINDS if kind in given]
    if len(kinds) != 1:
        raise UsageError("what? Give one of send, receive, own and connect")
    (kind,) = kinds
    who = _person(given, "", users)
    if kind in ("own", "connect"):
        more = [name for name in given if name not in (*_ABOUT_WHOM, kind)]
        if more:
            raise UsageError(f"{more[0]} is for messages, not for {kind}")
        return Asked(kind, who, name=str(given.get("own", "")))
    question = _question(given, kind)
    if kind == "receive" or question.receiver is None:
        for name in ("to_uid", "to_user", "to_gids"):
            if name in given:
                raise UsageError(f"{name} is for messages that are sent to another")
        return Asked(kind, who, question=question)
    return Asked(kind, who, question=question, receiver=_person(given, "to_", users))


def _is_given(name: str, value: object) -> bool:
    """Whether a field is there at all; raises `UsageError` for a value that it cannot have."""
    if value is None or value is False or value == []:
        return False
    kind = FIELDS.get(name)
    if kind is None:
        raise UsageError(f"there is no field {name!r}")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{name} must be {_called(kind)}, not {value!r}")
    if isinstance(value, int) and not 0 <= value <= MAX_ID:
        raise UsageError(f"{name} is out of range: {value}")
    if isinstance(value, list):
        for item in value:
            good = _is_id(item) if name.endswith("gids") else _is_name(item)
            if not good:
                raise UsageError(f"{name} cannot be {item!r}")
    if name in _CHECKS and not _CHECKS[name](str(value)):
        raise UsageError(f"{name} cannot be {value!r}: it is no such name")
    return True


def _called(kind: type) -> str:
    return {int: "a number", str: "a text", bool: "true or false", list: "a list"}[kind]


def _is_id(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MAX_ID


def _is_name(item: object) -> bool:
    return isinstance(item, str) and is_bus_name(item)


def _person(given: Mapping[str, object], prefix: str, users: Users) -> Person:
    uid, name, gids = (given.get(f"{prefix}{what}") for what in ("uid", "user", "gids"))
    assert uid is None or isinstance(uid, int)
    if uid is not None and name is not None:
        raise UsageError(f"give one of {prefix}uid and {prefix}user")
    if gids and uid is None and name is None:
        raise UsageError(f"{prefix}gids without {prefix}uid or {prefix}user")
    return person(
        uid, None if name is None else str(name), gids if isinstance(gids, list) else [], users
    )


def _question(given: Mapping[str, object], kind: str) -> Question:
    def text(name: str, otherwise: str | None = None) -> str | None:
        value = given.get(name, otherwise)
        return None if value is None else str(value)

    def names(name: str) -> set[str]:
        value = given.get(name)
        return set(value) if isinstance(value, list) else set()

    type_name = text("type", "method_call") or ""
    if type_name not in MESSAGE_TYPES:
        raise UsageError(f"type must be one of {', '.join(MESSAGE_TYPES)}, not {type_name!r}")
    is_reply = type_name in ("method_return", "error")
    if type_name == "signal" and "interface" not in given:
        raise UsageError("a signal has an interface: which?")
    if "error" in given and type_name != "error":
        raise UsageError("only messages of the type error have an error name")
    destination = text("destination")
    broadcast = "broadcast" in given
    if broadcast and type_name != "signal":
        raise UsageError("only signals are broadcast")
    if kind == "send" and destination is None and type_name != "signal":
        raise UsageError("where to? Give the destination")
    eavesdropping = "eavesdrop" in given
    receiver: set[str] | None = names("to_names")
    if not eavesdropping and destination is not None:
        receiver = {destination, *names("to_names")}
        if destination == DRIVER:
            receiver = None
    senders = names("sender")
    fds = given.get("fds", 0)
    assert isinstance(fds, int)
    return Question(
        MESSAGE_TYPES[type_name],
        text("path", None if is_reply else SOME),
        text("interface"),
        text("member", None if is_reply else SOME),
        text("error", SOME if type_name == "error" else None),
        None if broadcast else destination,
        is_reply or "reply" in given or "requested" in given,
        "requested" in given,
        fds,
        receiver,
        None if DRIVER in senders else senders,
        eavesdropping,
    )


_DEEDS = {
    "send": "{who} sends {what}",
    "receive": "{who} receives {what}",
    "own": "{who} owns {name}",
    "connect": "{who} connects",
}
_TYPE_NAMES = {number: name for name, number in MESSAGE_TYPES.items()}


def described(asked: Asked) -> str:
    """The question in words."""
    deed = _DEEDS[asked.kind]
    if asked.question is None:
        return deed.format(who=asked.who, name=asked.name)
    return deed.format(who=asked.who, what=_message(asked, asked.question))


def _message(asked: Asked, question: Question) -> str:
    words = ["a"]
    if question.reply:
        words = ["a requested" if question.requested else "an unrequested"]
    words.append(_TYPE_NAMES[question.type])
    fields = {
        "path": question.path,
        "interface": question.interface,
        "member": question.member,
        "error": question.error_name,
    }
    words += [f"{name}={text}" for name, text in fields.items() if text not in (None, SOME)]
    if question.fds:
        words.append(f"with {question.fds} descriptors")
    if question.destination is not None:
        words.append(f"to {question.destination}")
    elif asked.kind == "send":
        words.append("to all")
    if asked.kind == "send" and question.receiver:
        others = sorted(set(question.receiver) - {question.destination})
        words += [f"received by the owner of {', '.join(others)}"] if others else []
    if asked.receiver is not None and asked.receiver.identity.uid is not None:
        words.append(f"received by {asked.receiver}")
    if question.sender is None:
        words.append("from the bus")
    elif question.sender:
        words.append(f"from {', '.join(sorted(question.sender))}")
    if question.eavesdropping:
        words.append("(overheard)")
    return " ".join(words)
