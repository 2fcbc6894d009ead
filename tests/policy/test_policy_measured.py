"""The measured semantics of policies, asked of both daemons; s1 to s27 number them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import pytest
from conversations import (
    Ask,
    Come,
    Conversation,
    Heard,
    Leave,
    Load,
    Send,
    Stage,
    Step,
    come,
    match,
    own,
)
from kit import (
    BUS,
    ERROR,
    METHOD_CALL,
    METHOD_RETURN,
    SIGNAL,
    Daemon,
    call,
    peer_call,
)
from kit.message import NO_AUTO_START, NO_REPLY_EXPECTED
from policies import OPEN

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")

PLAIN = (
    '<policy context="default"><allow user="*"/><allow own="*"/>'
    '<allow send_destination="*"/><allow receive_sender="*"/></policy>'
)


def default(rules: str) -> str:
    return f'<policy context="default">{rules}</policy>'


def ask_bob(interface: str | None = "i.g", to: str = "bob", **rest: int) -> Send:
    return Send("alice", METHOD_CALL, to, "/", interface, "M", **rest)


def cast(who: str = "alice", interface: str = "i.g") -> Send:
    return Send(who, SIGNAL, "", "/", interface, "S")


def answer(who: str = "bob", reply: int = -1, to: str = "alice") -> Send:
    return Send(who, METHOD_RETURN, to, reply=reply)


class Case(NamedTuple):
    """A policy, and what comes of each step of a conversation under it (see `outcome`)."""

    name: str
    policy: str
    steps: Sequence[tuple[Step, str]]
    before: Sequence[Step] = ()  # under an open policy; then the policy is loaded

    @property
    def needs_root(self) -> bool:
        return re.search('(user|group)="[^*]', self.policy) is not None or "stranger" in str(self)


CALL = ask_bob()
TO_X_Y = ask_bob(to="x.y")
OWNED = "return 1"
NOT_OWNED = "AccessDenied"
EVERYBODY = come()
EVE_LISTENS = [*EVERYBODY, match("eve", "eavesdrop='true',path='/'")]
OWN = own("bob", "a.b")


def owning(name: str, policy: str, who: str, expected: str) -> Case:
    return Case(name, OPEN + policy, [(own(who, "a.b"), expected)], come(who))


def coming(name: str, policy: str, **expected: str) -> Case:
    return Case(name, policy, [(Come(who), what) for who, what in expected.items()])


def loading(name: str, policy: str, expected: str) -> Case:
    return Case(name, "", [(Load(policy), expected)])


DENY_A_B = '<deny own="a.b"/>'
ALLOW_A_B = '<allow own="a.b"/>'
AUDIO_DENIES = f'<policy group="29">{DENY_A_B}</policy><policy group="20">{ALLOW_A_B}</policy>'
AUDIO_ALLOWS = f'<policy group="29">{ALLOW_A_B}</policy><policy group="20">{DENY_A_B}</policy>'
EAVESDROP = match("bob", "eavesdrop='true'")
NO_MONITOR = Ask("bob", "BecomeMonitor", "asu", (["bad"], 7), f"{BUS}.Monitoring")
STATS = Ask("bob", "GetStats", interface=f"{BUS}.Debug.Stats")
STAR_PREFIXES = '<allow own_prefix="*"/><allow own="a.*"/><allow own_prefix="a."/>'
NO_SUCH = "NoSuchMethod"

CASES = [
    owning(
        "s1 user comes after group, wherever they are written",
        f'<policy user="nobody">{ALLOW_A_B}</policy><policy group="nogroup">{DENY_A_B}</policy>',
        "bob",
        OWNED,
    ),
    Case(
        "s1 mandatory comes last even if written first",
        f'<policy context="mandatory">{DENY_A_B}</policy>{OPEN}'
        f'<policy at_console="false">{ALLOW_A_B}</policy>',
        [(OWN, NOT_OWNED)],
        come("bob"),
    ),
    owning("s2 the highest group wins", AUDIO_DENIES, "carol", NOT_OWNED),
    owning("s2 whatever comes later in the file", AUDIO_ALLOWS, "carol", OWNED),
    owning(
        "s3 a policy looks at the groups of the process",
        f'<policy group="audio">{DENY_A_B}</policy>', "carol", NOT_OWNED,
    ),
    owning(
        "s3 a policy looks at the primary group of the process",
        f'<policy group="users">{DENY_A_B}</policy>', "carol", NOT_OWNED,
    ),
    owning(
        "s3 and not at the groups of the user",
        f'<policy group="daemon">{DENY_A_B}</policy>', "carol", OWNED,
    ),
    coming("s3 connecting does not", OPEN + default('<deny group="audio"/>'), carol="in"),
    coming("s3 but at the user's", OPEN + default('<deny group="daemon"/>'), carol="refused"),
    coming("s4 who is not in the database is refused", OPEN, alice="in", stranger="refused"),
    coming(
        "s5 connect rules count in mandatory",
        OPEN + '<policy context="mandatory"><deny user="nobody"/></policy>',
        alice="in", bob="refused", carol="in",
    ),
    loading(
        "s5 they are an error for a user",
        OPEN + '<policy user="nobody"><deny user="nobody"/></policy>', "Failed",
    ),
    loading(
        "s5 and for a group", OPEN + '<policy group="audio"><deny user="*"/></policy>', "Failed"
    ),
    coming(
        "s5 and ignored for the console and unknown users",
        OPEN + '<policy at_console="false"><deny user="nobody"/></policy>'
        '<policy user="no-such-user"><deny user="nobody"/></policy>',
        bob="in",
    ),
    coming(
        "s6 without a rule only the bus's own user may connect",
        default('<allow send_destination="*"/><allow group="audio"/>'),
        alice="in", bob="refused", carol="refused",
    ),
    coming(
        "s7 unknown names and numbers are nothing",
        OPEN + default('<deny user="54321"/><deny user="no-such"/><deny group="no-such"/>'),
        alice="in", bob="in",
    ),
    owning("s7 no wildcards", f'<policy user="*">{DENY_A_B}</policy>', "bob", OWNED),
    *(
        owning(f"s7 {n!r} is root", f'<policy user="{n}">{DENY_A_B}</policy>', "alice", NOT_OWNED)
        for n in ("0x0", " 0", "00")
    ),
    loading(
        "s7 what is inside is checked for syntax",
        OPEN + '<policy user="no-such-user"><deny bees="1"/></policy>', "Failed",
    ),
    owning(
        "s8 nobody is at the console",
        f'<policy at_console="false">{DENY_A_B}</policy>'
        f'<policy at_console="true">{ALLOW_A_B}</policy>',
        "alice", NOT_OWNED,
    ),
    *(
        Case(
            f"s9 {rule} erases all before it",
            OPEN + default(rule),
            [(CALL, "send 0"), (OWN, "send 0")],
            EVERYBODY,
        )
        for rule in ('<deny send_broadcast="true"/>', '<deny send_type="*" min_fds="1"/>')
    ),
    Case(
        "s9 an allow does so, too",
        OPEN + default('<allow send_broadcast="true"/>'),
        [(CALL, "send 0"), (cast(), "bob")],
        [*EVERYBODY, match("bob", "")],
    ),
    Case(
        "s10 so it is with receive rules",
        OPEN + default('<deny eavesdrop="true"/>'),
        [(CALL, ""), (cast(), "")],  # nor does alice get the error
        [*EVERYBODY, match("bob", "")],
    ),
    owning("s10 and with own rules", default(f'{ALLOW_A_B}<deny own="*"/>'), "bob", NOT_OWNED),
    owning("s10 elsewhere a star is a star", default(f'<deny own="*"/>{STAR_PREFIXES}'), "bob",
           NOT_OWNED),
    Case(
        "s11 an absent error name fits",
        OPEN + default('<deny send_error="e.E"/>'),
        [(CALL, "send 2"), (Send("alice", SIGNAL, "bob", "/", "i.g", "S"), "send 2"),
         (Send("alice", ERROR, "bob", error="e.F", reply=9), "bob")],
        EVERYBODY,
    ),
    Case(
        "s11 an absent path fits",
        OPEN + default('<deny send_path="/x" send_requested_reply="true"/>'),
        [(CALL, "bob"), (answer(), "send 2")],
        EVERYBODY,
    ),
    Case(
        "s12 an absent interface fits only a deny rule",
        OPEN + default('<deny send_interface="i.g"/>'),
        [(ask_bob(None), "send 2"), (answer(reply=77), "send 2"), (ask_bob("i.h"), "bob")],
        EVERYBODY,
    ),
    Case(
        "s12 and no allow rule",
        OPEN + default('<deny send_type="method_call"/><allow send_interface="i.g"/>'),
        [(ask_bob(None), "send 2"), (CALL, "bob")],
        EVERYBODY,
    ),
    Case(
        "s13 whatever has a reply serial is a reply",
        PLAIN,
        [(ask_bob(reply=9), "send 0"), (CALL, "bob"),
         (Send("alice", SIGNAL, "bob", "/", "i.g", "S", reply=9), "send 0")],
        EVERYBODY,
    ),
    Case(
        "s14 deny is about replies that nobody asked for",
        OPEN + default('<deny send_type="method_return"/>'),
        [(CALL, "bob"), (answer(), "alice"), (answer(), "send 2")],
        EVERYBODY,
    ),
    Case(
        "s14 the answers of the bus are asked for",
        OPEN + default('<deny receive_type="error"/>'),
        [(ask_bob(to="q.r"), "ServiceUnknown")],
        EVERYBODY,
    ),
    Case(
        "s15 allowed to be overheard, a reply is allowed that nobody asked for",
        PLAIN + default('<allow send_type="method_return" eavesdrop="true"/>'),
        [(answer(reply=77), "receive 0"), (Send("bob", ERROR, "alice", error="e.E", reply=7),
                                           "send 0")],
        EVERYBODY,
    ),
    Case("s15 allow is not for overhearing", PLAIN, [(CALL, "bob")], EVE_LISTENS),
    Case(
        "s15 unless it says so",
        PLAIN + default('<allow receive_type="method_call" eavesdrop="true"/>'),
        [(CALL, "bob eve"), (Send("alice", SIGNAL, "bob", "/", "i.g", "S"), "bob")],
        EVE_LISTENS,
    ),
    Case(
        "s15 deny with eavesdrop is for overhearing only",
        OPEN + default('<deny receive_type="method_call" eavesdrop="true"/>'),
        [(CALL, "bob")],
        EVE_LISTENS,
    ),
    Case(
        "s15 a denied sender may not say it to anybody",
        OPEN + default('<deny send_type="method_call" eavesdrop="true"/>'),
        [(CALL, "send 2")],
        EVE_LISTENS,
    ),
    Case(
        "s16 a destination is any name that the receiver has",
        OPEN + default('<deny send_destination="x.y"/>'),
        [(CALL, "send 2"), (TO_X_Y, "send 2"), (cast(), "carol")],
        [*EVERYBODY, own("bob", "x.y"), match("bob", ""), match("carol", "")],
    ),
    Case(
        "s16 or waits for",
        OPEN + default('<deny send_destination="x.y"/>'),
        [(CALL, "send 2")],
        [*EVERYBODY, own("carol", "x.y"), own("bob", "x.y")],
    ),
    Case(
        "s16 its unique name, too",
        OPEN + default('<deny send_destination="{bob}"/>'),
        [(TO_X_Y, "send 2"), (ask_bob(to="carol"), "carol")],
        [*EVERYBODY, own("bob", "x.y")],
    ),
    Case(
        "s16 so it is with the sender",
        OPEN + default('<deny receive_sender="x.y"/>'),
        [(CALL, "receive 2"), (ask_bob()._replace(who="carol"), "bob")],
        [*EVERYBODY, own("alice", "x.y")],
    ),
    Case(
        "s16 signals to one name only",
        OPEN + default('<deny send_type="signal"/><allow send_destination="x.y"/>'),
        [(cast(), "bob")],
        [*EVERYBODY, own("bob", "x.y"), match("bob", ""), match("carol", "")],
    ),
    Case(
        "s17 an absent name is no question for the policy",
        OPEN + default('<deny send_type="method_call"/>'),
        [(ask_bob(to="q.r"), "ServiceUnknown"), (ask_bob(to=":1.99999"), "ServiceUnknown"),
         (ask_bob(to="q.r", flags=NO_AUTO_START), "NameHasNoOwner"),
         (ask_bob(to=":1.99999", flags=NO_AUTO_START), "NameHasNoOwner")],
        EVERYBODY,
    ),
    Case(
        "s18 prefixes fit by words",
        OPEN + default('<deny send_destination_prefix="x.y"/><deny send_destination_prefix=""/>'
                       '<deny send_destination_prefix="z."/>'),
        [(ask_bob(to="x.y.z"), "send 2"), (ask_bob(to="carol"), "carol"),
         (ask_bob(to="eve"), "eve")],
        [*EVERYBODY, own("bob", "x.y.z"), own("carol", "x.yy"), own("eve", "z.z")],
    ),
    Case(
        "s18 and cover the bus",
        OPEN + default('<deny send_destination_prefix="org.freedesktop"/>'),
        [(OWN, "send 2")],
        EVERYBODY,
    ),
    Case(
        "s18 own_prefix the same",
        OPEN + default('<deny own_prefix="x.y"/><deny own_prefix=""/><deny own_prefix="q."/>'),
        [(own("bob", "x.y.z"), NOT_OWNED), (own("bob", "x.y"), NOT_OWNED),
         (own("bob", "x.yy"), OWNED), (own("bob", "q.r"), OWNED)],
        EVERYBODY,
    ),
    Case(
        "s19 policy comes before what the receiver can take",
        OPEN + default('<deny send_interface="i.g" min_fds="1"/>'
                       '<deny send_interface="i.h" min_fds="2" max_fds="1"/>'),
        [(ask_bob(to="carol", fds=1), "send 2"), (ask_bob("i.h", "carol", fds=1), "NotSupported"),
         (ask_bob("i.h", fds=2), "bob")],
        EVERYBODY,
    ),
    *(
        loading(
            f"s19 {number} descriptors",
            default(f'<deny send_type="signal" min_fds="{number}"/>'), expected,
        )
        for number, expected in (("33554432", ""), ("33554433", "Failed"), ("-1", "Failed"))
    ),
    Case(
        "s20 the sender is asked for those who overhear, too",
        OPEN + default('<deny send_destination="x.y"/>'),
        [(CALL, "bob")],
        [*EVE_LISTENS, own("eve", "x.y")],
    ),
    Case(
        "s21 what fails is not overheard",
        OPEN + default('<deny send_interface="i.g"/>'),
        [(CALL, "send 2"), (ask_bob("i.h", "q.r"), "ServiceUnknown"),
         (Ask("alice", NO_SUCH), "UnknownMethod"), (Ask("alice", "NameHasOwner", "s", ("a.b",)),
                                                    "eve return False")],
        [*EVE_LISTENS, *(match("eve", f"eavesdrop='true',member='{m}'")
                         for m in (NO_SUCH, "NameHasOwner"))],
    ),
    Case(
        "s22 what only the privileged may",
        OPEN + "<!-- user=\"nobody\" -->",
        [(EAVESDROP, "AccessDenied"), (match("bob", "eavesdrop='false'"), "return"),
         (NO_MONITOR, "AccessDenied"), (NO_MONITOR._replace(who="alice"), "InvalidArgs"),
         (Ask("bob", "UpdateActivationEnvironment", "a{ss}", ({"A": "b"},)), "AccessDenied"),
         (STATS, "return ..."), (Ask("bob", "ReloadConfig"), "return")],
        EVERYBODY,
    ),
    Case(
        "s24 all but broadcasts are told of a refusal",
        OPEN + default('<deny send_destination="x.y" send_requested_reply="true"/>'
                       '<deny send_destination="x.y"/>'),
        [(CALL, "send 3"), (ask_bob(flags=NO_REPLY_EXPECTED), "send 3"),
         (Send("alice", SIGNAL, "bob", "/", "i.g", "S"), "send 3"),
         (answer("alice", 7, "bob"), "send 3"), (cast(), "")],
        [*EVERYBODY, own("bob", "x.y"), match("bob", "")],
    ),
    Case(
        "s25 one call, one reply",
        PLAIN,
        [(CALL, "bob"), (answer("carol"), "send 0"), (answer(), "alice"), (answer(), "send 0"),
         (ask_bob(flags=NO_REPLY_EXPECTED), "bob"), (answer(), "send 0")],
        EVERYBODY,
    ),
    Case(
        "s25 a refused one is one",
        PLAIN + default('<deny receive_type="method_return" receive_requested_reply="true"/>'),
        [(CALL, "bob"), (answer(), "receive 2"), (answer(), "send 0")],
        EVERYBODY,
    ),
    Case(
        "s27 a reload asks neither who may own what he has nor who may be there",
        OPEN + default('<deny own="a.b"/><deny user="nobody"/>'),
        [(ask_bob(to="a.b"), "bob"), (OWN, NOT_OWNED), (Leave("bob"), ""),
         (Come("bob"), "refused")],
        [*EVERYBODY, OWN],
    ),
    *(
        Case(
            f"s27 {broken} leaves all as it was",
            OPEN + default('<deny own="a.b"/>'),
            [(Load(broken), error), (OWN, NOT_OWNED)],
            EVERYBODY,
        )
        for broken, error in (
            ("<bees/>", "Failed"), ("<policy>", "Failed"),
            ("<include>no such file</include>", "FileNotFound"),
        )
    ),
]  # fmt: skip


def outcome(step: Step, heard: Heard) -> str:
    """What came of a step: who else heard the message, the bus's answer, or which refusal."""
    if isinstance(step, Load):
        return (heard[""][0] or "").rpartition(".")[2]
    if isinstance(step, Come):
        return "refused" if heard.get(step.who) == ["refused"] else "in"
    answers, others = "", []
    for who, messages in heard.items():
        for brief, _, fields, _, _ in messages:
            if dict(fields)[7] != BUS:
                others.append(who)
            elif who == step.who and brief[0] == "return":
                words = [str(word) if isinstance(word, int | str) else "..." for word in brief]
                answers = " ".join(words)
            elif who == step.who and brief[0] == "error":
                found = re.match(r"Rejected (\w+) message, (\d+) matched rules", brief[2])
                answers = f"{found[1]} {found[2]}" if found else brief[1].rpartition(".")[2]
    return " ".join([*sorted(set(others)), *answers.split()])


@pytest.fixture(scope="module")
def stage(kind: str) -> Iterator[Stage]:
    with closing(Stage(kind)) as stage:
        yield stage


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_measured(stage: Stage, case: Case) -> None:
    if case.needs_root and os.geteuid() != 0:
        pytest.skip("only root can connect as somebody else")
    conversation = Conversation(stage)
    try:
        for step in case.before:
            conversation.take(step)
        if case.policy:
            assert outcome(Load(""), conversation.take(Load(case.policy))) == ""
        found = [outcome(step, conversation.take(step)) for step, _ in case.steps]
        assert found == [expected for _, expected in case.steps]
    finally:
        stage.settle()


@ROOT
def test_s6_root_has_no_right_to_a_bus_of_another_user(start: Callable[..., Daemon]) -> None:
    daemon = start(
        "<user>nobody</user>",
        policy=PLAIN.replace('<allow user="*"/>', ""),
        listen="unix:abstract={directory}",
    )
    assert daemon.join().closed() == []
    assert daemon.join(uid=65534).ask(call("Hello")).error_name is None


@ROOT
def test_s23_receive_rules_hold_for_the_bus_s_own_messages(start: Callable[..., Daemon]) -> None:
    """Hello gets no answer, but nobody is on the bus, and may send."""
    deny = f'<deny receive_sender="{BUS}" receive_requested_reply="true"/>'
    daemon = start(policy=f'{OPEN}<policy user="nobody">{deny}</policy>')
    alice = daemon.connect()
    alice.match("type='signal',member='NameOwnerChanged'")
    mute = daemon.join(uid=65534)
    mute.send(call("Hello"))
    name = alice.read("a new name").args[0]
    mute.send(peer_call(alice.name))
    assert alice.receive_call().sender == name
    mute.send_bytes(b"no message at all")
    assert mute.closed() == []


def test_s23_without_a_receive_rule_nobody_hears_anything(start: Callable[..., Daemon]) -> None:
    client = start(policy="").join()
    client.send(call("Hello"))
    client.send(call("GetId"))
    client.send_bytes(b"no message at all")
    assert client.closed() == []


def test_s26_before_hello(start: Callable[..., Daemon]) -> None:
    client = start().join()
    for message in (call("GetId"), call("ListNames")):
        error = client.ask(message)
        assert (error.error_name, error.destination) == (
            f"{BUS}.Error.AccessDenied",
            ":not.active.yet",
        )
        assert "other than Hello" in error.args[0]
    client.hello()
