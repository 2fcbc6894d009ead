"""Policies and conversations at random, as strategies of hypothesis; all of them are valid."""

from __future__ import annotations

from collections.abc import Sequence

from conversations import ACTIVATABLE, CAST, Ask, Come, Leave, Load, Send, Step, come, match, own
from hypothesis import strategies as st
from kit import BUS, ERROR, METHOD_CALL, METHOD_RETURN, SIGNAL
from policies import OPEN

PEOPLE = list(CAST)
WELL_KNOWN = ["x.y", "x.y.z", "x.yy", "q.r", *ACTIVATABLE]
NAMES = [*WELL_KNOWN, "x", "*", "", ":1", *(f"{{{who}}}" for who in PEOPLE), BUS, "org.freedesktop"]
INTERFACES = ["i.g", "i.h", "*", BUS, ""]
PATHS = ["/", "/x", "*", ""]
MEMBERS = ["M", "N", "*", "RequestName", "NameOwnerChanged"]
ERRORS = ["e.E", "e.F", "*", f"{BUS}.Error.AccessDenied"]
TYPES = ["method_call", "method_return", "error", "signal", "*"]
WORDS = ["true", "false"]
USERS = ["root", "nobody", "0x1", "no-such-user"]
GROUPS = ["audio", "dialout", "nogroup", "daemon", "no-such-group"]

CHECKED = (
    '<policy context="default"><allow user="*"/><allow own="*"/>'
    '<allow send_destination="*"/><allow receive_sender="*"/></policy>'
)
# The rules of Debian's system.conf.
SYSTEM = f"""<policy context="default"><allow user="*"/><deny own="*"/>
  <deny send_type="method_call"/><allow send_type="signal"/>
  <allow send_requested_reply="true" send_type="method_return"/>
  <allow send_requested_reply="true" send_type="error"/>
  <allow receive_type="method_call"/><allow receive_type="method_return"/>
  <allow receive_type="error"/><allow receive_type="signal"/>
  <allow send_destination="{BUS}" send_interface="{BUS}"/>
  <deny send_destination="{BUS}" send_interface="{BUS}" send_member="UpdateActivationEnvironment"/>
  </policy><policy user="root"><allow own_prefix="x"/></policy>"""
CONNECT = '<policy context="default"><allow user="*"/></policy>'

# Where a rule about connecting is an error.
PERSONAL = ("user", "group")


def some(values: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


def one_in(draw: st.DrawFn, count: int) -> bool:
    """True once in `count` times; shrinks to False."""
    return draw(st.integers(0, count - 1)) == count - 1


@st.composite
def rules(draw: st.DrawFn, connecting: bool) -> str:
    """An <allow> or <deny> that a configuration may have."""
    element = draw(some(["allow", "deny"]))
    kind = draw(st.integers(0, 9))
    if kind == 9:
        what = draw(some(["own", "own_prefix"]))
        return f'<{element} {what}="{draw(some(NAMES))}"/>'
    if kind == 8 and connecting:
        what = draw(some(PERSONAL))
        return f'<{element} {what}="{draw(some(["*", *(USERS if what == "user" else GROUPS)]))}"/>'
    attributes = draw(conditions(draw(some(["send", "receive"]))))
    return f"<{element} " + " ".join(f'{key}="{value}"' for key, value in attributes.items()) + "/>"


@st.composite
def conditions(draw: st.DrawFn, way: str) -> dict[str, str]:
    """The attributes of a rule about messages."""
    found: dict[str, str] = {}

    def perhaps(name: str, values: Sequence[str], one: int) -> None:
        if one_in(draw, one):
            found[name] = draw(some(values))

    perhaps(f"{way}_type", TYPES, 3)
    perhaps(f"{way}_path", PATHS, 5)
    if not one_in(draw, 4):
        perhaps(f"{way}_interface", INTERFACES, 3)
        if f"{way}_path" in found or f"{way}_interface" in found:
            perhaps(f"{way}_member", MEMBERS, 3)
    else:
        perhaps(f"{way}_error", ERRORS, 2)
    perhaps(f"{way}_requested_reply", WORDS, 3)
    perhaps("eavesdrop", WORDS, 3)
    perhaps("min_fds", ["0", "1", "2"], 10)
    perhaps("max_fds", ["0", "1", "2"], 10)
    perhaps("log", WORDS, 10)
    if way == "receive":
        perhaps("receive_sender", NAMES, 2)
    elif one_in(draw, 2):
        found[draw(some(["send_destination", "send_destination_prefix"]))] = draw(some(NAMES))
    if way == "send":
        fits_all = found.get("send_destination", "*") == "*"
        perhaps("send_broadcast", WORDS if fits_all else ["false"], 4)
    if not any(name.startswith(way) for name in found):
        found[f"{way}_{'destination' if way == 'send' else 'sender'}"] = draw(some(NAMES))
    return found


@st.composite
def policies(draw: st.DrawFn) -> str:
    """The policies of a configuration: something to begin with, and rules in all buckets."""
    blocks = [draw(some([OPEN, OPEN, OPEN, CHECKED, CHECKED, SYSTEM, CONNECT]))]
    for _ in range(draw(st.integers(0, 10))):
        kind = draw(some(["context", "context", "user", "group", "at_console"]))
        values = {"context": ["default", "mandatory"], "at_console": ["false", "false", "true"]}
        values |= {"user": USERS, "group": GROUPS}
        count = draw(st.integers(1, 3))
        inside = "".join(draw(rules(kind not in PERSONAL)) for _ in range(count))
        block = f'<policy {kind}="{draw(some(values[kind]))}">{inside}</policy>'
        # A bucket has its place, wherever it is written.
        blocks.insert(draw(st.integers(0, 1)) and len(blocks), block)
    return "\n".join(blocks)


RULES = [
    "", "type='signal'", "interface='i.g'", "path='/'", "member='N'", "sender='x.y'",
    "sender='{alice}'", "eavesdrop='true'", "eavesdrop='true',path='/x'", "type='error'",
    "eavesdrop='true',destination='x.y'", "eavesdrop='true',type='method_return'",
    f"sender='{BUS}'", f"eavesdrop='true',destination='{BUS}'",
]  # fmt: skip
QUESTIONS = [
    Ask("", "NameHasOwner", "s", ("x.y",)),
    Ask("", "GetNameOwner", "s", ("{alice}",)),
    Ask("", "ListQueuedOwners", "s", ("x.y",)),
    Ask("", "GetConnectionUnixUser", "s", ("x.y",)),
    Ask("", "StartServiceByName", "su", ("q.r", 0)),
    Ask("", "StartServiceByName", "su", (ACTIVATABLE[0], 0)),
    Ask("", "UpdateActivationEnvironment", "a{ss}", ({"A": "b"},)),
    Ask("", "Ping", interface="org.freedesktop.DBus.Peer"),
    Ask("", "NoSuchMethod", interface=None),
    Ask("", "RemoveMatch", "s", ("",)),
]


@st.composite
def messages(draw: st.DrawFn) -> Send:
    """One message that is valid and means nothing."""
    who, to = draw(some(PEOPLE)), draw(some([*PEOPLE, *WELL_KNOWN]))
    path, member = draw(some(["/", "/x"])), draw(some(["M", "N"]))
    interface = draw(some(["i.g", "i.h"]))
    fds = draw(st.integers(0, 2)) if one_in(draw, 4) else 0
    stray = 4242 if one_in(draw, 6) else 0
    flags = draw(st.sampled_from([0, 0, 1, 2]))
    kind = draw(some(["call", "plain call", "signal", "broadcast", "reply", "reply", "odd"]))
    if kind == "call":
        again = one_in(draw, 8)
        return Send(who, METHOD_CALL, to, path, interface, member, None, stray, flags, fds, again)
    if kind == "plain call":
        return Send(who, METHOD_CALL, to, path, None, member, None, 0, flags, fds)
    if kind == "signal":
        to = draw(some([to, to, to, "bus"]))
        return Send(who, SIGNAL, to, path, interface, member, None, stray, flags, fds)
    if kind == "broadcast":
        return Send(who, SIGNAL, "", path, interface, member, None, stray, flags, fds)
    if kind == "odd":
        odd = draw(st.integers(2, 5))
        return Send(who, odd, to, path, interface, member, "e.E", stray or 7, flags, fds)
    reply = draw(st.sampled_from([-1, -1, -1, -2, -3, 4242]))
    if draw(st.booleans()):
        return Send(who, METHOD_RETURN, to, reply=reply, flags=flags, fds=fds)
    error = draw(some(["e.E", "e.F"]))
    return Send(who, ERROR, to, error=error, reply=reply, flags=flags, fds=fds)


@st.composite
def questions(draw: st.DrawFn) -> Ask:
    who = draw(some(PEOPLE))
    kind = draw(some(["own", "own", "release", "match", "other"]))
    if kind == "own":
        return own(who, draw(some([*WELL_KNOWN, "z.z"])), draw(st.integers(0, 7)))
    if kind == "release":
        return Ask(who, "ReleaseName", "s", (draw(some(WELL_KNOWN)),))
    if kind == "match":
        return match(who, draw(some(RULES)))
    return draw(st.sampled_from(QUESTIONS))._replace(who=who)


# What most conversations begin with: who has which names, and who listens.
SETTING: list[Step] = [
    own("bob", "x.y"),
    own("alice", "x.y.z"),
    own("bob", "x.y.z"),
    match("bob", "type='signal',interface='i.g'"),
    match("carol", "type='signal',interface='i.h'"),
    match("eve", "eavesdrop='true',path='/'"),
    match("eve", "eavesdrop='true',type='error'"),
]


@st.composite
def conversations(draw: st.DrawFn, length: int) -> list[Step]:
    """A policy or two, and `length` things said under them."""
    policy = Load(draw(policies()))
    steps: list[Step] = [*come(), *SETTING]
    before = one_in(draw, 3)  # who may come, own, match?
    steps = [policy, *steps] if before else [Load(OPEN), *steps, policy]
    for _ in range(length):
        if one_in(draw, 6):
            steps.append(draw(questions()))
        else:
            steps.append(draw(messages()))
            if one_in(draw, 12):  # the same once more goes another way inside
                steps.append(steps[-1])
            if one_in(draw, 12):
                who = draw(some(PEOPLE))
                steps += [Leave(who), Come(who), own(who, draw(some(WELL_KNOWN)))]
    if one_in(draw, 4):
        steps.insert(draw(st.integers(len(steps) - length, len(steps))), Load(draw(policies())))
    return steps
