"""Match rules: what is understood, what is refused with which text, and what a rule lets in."""

from __future__ import annotations

import pytest
from kit import BUS, Daemon, Message, RawClient, call, peer_call, signal
from kit.message import marshal

STATS = f"{BUS}.Debug.Stats"

GOOD = {
    "": "",
    "type='signal'": "type='signal'",
    "type=signal": "type='signal'",
    "type='method_call'": "type='method_call'",
    "type='method_return'": "type='method_return'",
    "type='error'": "type='error'",
    "type='signal',": "type='signal'",
    " type='signal'": "type='signal'",
    "type ='signal'": "type='signal'",
    "type='signal', member='A'": "type='signal',member='A'",
    "type='signal',\n\t member='A'": "type='signal',member='A'",
    "sender='com.example.A'": "sender='com.example.A'",
    "sender=':1.5'": "sender=':1.5'",
    "sender='org.freedesktop.DBus'": "sender='org.freedesktop.DBus'",
    "interface='a.b'": "interface='a.b'",
    "member='A'": "member='A'",
    "member='A''B'": "member='AB'",
    "member='A'B": "member='AB'",
    "path='/a'": "path='/a'",
    "path_namespace='/a'": "path_namespace='/a'",
    "path_namespace='/'": "path_namespace='/'",
    "destination='com.example.A'": "destination='com.example.A'",
    "destination=':1.5'": "destination=':1.5'",
    "eavesdrop='true'": "eavesdrop='true'",
    "eavesdrop=true": "eavesdrop='true'",
    "eavesdrop='true',eavesdrop='true'": "eavesdrop='true'",
    "eavesdrop='false'": "",
    "arg0='x'": "arg0='x'",
    "arg0=x": "arg0='x'",
    "arg0=": "arg0=''",
    "arg0=' x '": "arg0=' x '",
    "arg0= x ": "arg0=' x '",
    "arg0 ='x'": "arg0='x'",
    "arg0='é'": "arg0='é'",
    "arg0='a,b'": "arg0='a,b'",
    "arg0=a\\'b": "arg0='a'\\''b'",
    "arg0='it'\\''s'": "arg0='it'\\''s'",
    "arg0=\\": "arg0='\\'",
    "arg0='\\'": "arg0='\\'",
    "arg0=a\\,b": "arg0='a\\,b'",
    "arg00='x'": "arg0='x'",
    "arg01='x'": "arg1='x'",
    "arg63='x'": "arg63='x'",
    "arg0path='/a/'": "arg0path='/a/'",
    "arg0path='a'": "arg0path='a'",
    "arg0path=''": "arg0path=''",
    "arg63path='/a'": "arg63path='/a'",
    "arg0namespace='com.example'": "arg0namespace='com.example'",
    "arg0namespace='x'": "arg0namespace='x'",
    "arg0namespace=':1.5'": "arg0namespace=':1.5'",
    "='x'": "",
    "   ": "",
    "\t": "",
    "arg2path=/a,type=signal,arg1=x": "type='signal',arg1='x',arg2path='/a'",
    "arg1path='/x',arg0='y',eavesdrop=true,destination='a.b',path_namespace='/p',member='M',"
    "interface='a.b',sender='c.d',type='signal'": "type='signal',interface='a.b',member='M',"
    "path_namespace='/p',sender='c.d',destination='a.b',eavesdrop='true',arg0='y',arg1path='/x'",
}
"""Rules and how the bus spells them."""

NO_EQUALS = "Match rule has a key with no subsequent '=' character"
UNBALANCED = "Unbalanced quotation marks in match rule"
TWO_PATHS = "path or path_namespace specified twice in match rule\n"

BAD = {
    "type='x'": "Invalid message type (x) in match rule\n",
    "type=''": "Invalid message type () in match rule\n",
    "type='SIGNAL'": "Invalid message type (SIGNAL) in match rule\n",
    "type='signal' ": "Invalid message type (signal ) in match rule\n",
    "type= 'signal'": "Invalid message type ( signal) in match rule\n",
    "type='signal';member='A'": "Invalid message type (signal;member=A) in match rule\n",
    "type='signal'member='A'": "Invalid message type (signalmember=A) in match rule\n",
    "type='signal',,": NO_EQUALS,
    "type='": UNBALANCED,
    "type='signal',member='": UNBALANCED,
    ",": NO_EQUALS,
    "foo": NO_EQUALS,
    "type": NO_EQUALS,
    "arg0": NO_EQUALS,
    "arg 0='x'": NO_EQUALS,
    "foo='x'": 'Unknown key "foo" in match rule',
    "sender='nodots'": "Sender name 'nodots' is invalid\n",
    "sender=''": "Sender name '' is invalid\n",
    "interface='nodots'": "Interface name 'nodots' is invalid\n",
    "interface=''": "Interface name '' is invalid\n",
    "interface='a.bé'": "Interface name 'a.bé' is invalid\n",
    "member='a.b'": "Member name 'a.b' is invalid\n",
    "member=''": "Member name '' is invalid\n",
    "member=": "Member name '' is invalid\n",
    "member=\\'A\\'": "Member name ''A'' is invalid\n",
    "path='a'": "Path 'a' is invalid\n",
    "path=''": "Path '' is invalid\n",
    "path='/a/'": "Path '/a/' is invalid\n",
    "path_namespace='x'": "Path 'x' is invalid\n",
    "path_namespace=''": "Path '' is invalid\n",
    "path='/a',path_namespace='/a'": TWO_PATHS,
    "path_namespace='/a',path='/a'": TWO_PATHS,
    "path='/a',path='/a'": TWO_PATHS,
    "path_namespace='/a',path_namespace='/a'": TWO_PATHS,
    "destination='x'": "Destination name 'x' is invalid\n",
    "eavesdrop='yes'": "eavesdrop='yes' is invalid, it should be 'true' or 'false'\n",
    "eavesdrop=''": "eavesdrop='' is invalid, it should be 'true' or 'false'\n",
    "type='signal',type='signal'": "Key type specified twice in match rule\n",
    "sender='a.b',sender='a.b'": "Key sender specified twice in match rule\n",
    "interface='a.b',interface='a.b'": "Key interface specified twice in match rule\n",
    "member='A',member='B'": "Key member specified twice in match rule\n",
    "destination='a.b',destination='a.b'": "Key destination specified twice in match rule\n",
    "arg0='x',arg0='x'": "Argument arg0 matched more than once in match rule\n",
    "arg0='x',arg0path='/x'": "Argument arg0path matched more than once in match rule\n",
    "arg0='x',arg0namespace='x'": "Argument arg0namespace matched more than once in match rule\n",
    "arg64='x'": "Key 'arg64' in match rule has arg number 64 but the maximum is 63.\n",
    "arg64path='/'": "Key 'arg64path' in match rule has arg number 64 but the maximum is 63.\n",
    "arg12345='x'": "Key 'arg12345' in match rule has arg number 12345 but the maximum is 63.\n",
    "arg='x'": "Key 'arg' in match rule starts with 'arg' but lacks an arg number. "
    "Should be 'arg0' or 'arg7' for example.\n",
    "arg18446744073709551616='x'": "Key 'arg18446744073709551616' in match rule starts with 'arg' "
    "but could not parse arg number. Should be 'arg0' or 'arg7' for example.\n",
    "argx='x'": "Key 'argx' in match rule starts with 'arg' but could not parse arg number. "
    "Should be 'arg0' or 'arg7' for example.\n",
    "arg0x='x'": "Key 'arg0x' in match rule contains junk after argument number (0). "
    "Only 'arg0path' (for example) or 'arg0namespace' are valid",
    "arg1namespace='a.b'": "Key 'arg1namespace' in match rule contains junk after argument number "
    "(1). Only 'arg1path' (for example) or 'arg0namespace' are valid",
    "arg0namespace=''": "arg0namespace='' is not a valid prefix of a bus name",
    "arg0namespace='com.'": "arg0namespace='com.' is not a valid prefix of a bus name",
    "arg0namespace='1a'": "arg0namespace='1a' is not a valid prefix of a bus name",
    "member='A": UNBALANCED,
    "member=A'": UNBALANCED,
    "arg0='a\\'b'": UNBALANCED,
}  # fmt: skip


def rules_of(client: RawClient, asking: RawClient) -> list[str]:
    (rules,) = asking.ask(call("GetAllMatchRules", interface=STATS)).args
    found: list[str] = rules[client.name]
    return found


def tell(client: RawClient, member: str, rule: str) -> tuple[str, ...]:
    """The answer to AddMatch or RemoveMatch; an eavesdropper sees its own calls besides."""
    return client.exchange(call(member, "s", rule))[-1].brief


@pytest.mark.parametrize("rule", GOOD)
def test_understood_and_spelt_out(alice: RawClient, bob: RawClient, rule: str) -> None:
    assert tell(alice, "AddMatch", rule) == ("return",)
    assert rules_of(alice, bob) == [GOOD[rule]]
    assert tell(alice, "RemoveMatch", GOOD[rule]) == ("return",)
    assert rules_of(alice, bob) == []
    assert tell(alice, "AddMatch", GOOD[rule]) == ("return",)
    assert tell(alice, "RemoveMatch", rule) == ("return",)
    assert rules_of(alice, bob) == []


@pytest.mark.parametrize("rule", BAD)
@pytest.mark.parametrize("member", ["AddMatch", "RemoveMatch"])
def test_refused(alice: RawClient, member: str, rule: str) -> None:
    expected = ("error", f"{BUS}.Error.MatchRuleInvalid", BAD[rule])
    assert alice.bus(member, "s", rule).brief == expected


@pytest.mark.parametrize("rule", ["x" * 1025, "arg0='" + "x" * 1018 + "'", "type='signal'" * 79])
@pytest.mark.parametrize("member", ["AddMatch", "RemoveMatch"])
def test_too_long(alice: RawClient, member: str, rule: str) -> None:
    text = f"Match rule text is {len(rule)} bytes, maximum is 1024"
    assert len(rule) > 1024
    expected = ("error", f"{BUS}.Error.LimitsExceeded", text)
    assert alice.bus(member, "s", rule).brief == expected


def test_just_long_enough(alice: RawClient) -> None:
    rule = "arg0='" + "x" * 1017 + "'"
    assert len(rule) == 1024
    assert alice.bus("AddMatch", "s", rule).brief == ("return",)


NOT_FOUND = (
    "error",
    f"{BUS}.Error.MatchRuleNotFound",
    "The given match rule wasn't found and can't be removed",
)


def test_rules_are_counted(alice: RawClient, bob: RawClient) -> None:
    """Equal rules are kept side by side; RemoveMatch takes one; other clients' are not ours."""
    for _ in range(2):
        alice.match("member='A',type='signal'")
    assert tell(bob, "RemoveMatch", "type='signal',member='A'") == NOT_FOUND
    assert tell(alice, "RemoveMatch", "type='signal'") == NOT_FOUND
    for _ in range(2):
        assert tell(alice, "RemoveMatch", "type='signal',member='A'") == ("return",)
    assert tell(alice, "RemoveMatch", "type='signal',member='A'") == NOT_FOUND


def test_matching_twice_is_delivered_once(alice: RawClient, bob: RawClient) -> None:
    for rule in ("type='signal'", "type='signal'", "member='A'", ""):
        alice.match(rule)
    bob.send(signal("A"))
    bob.sync()
    assert alice.briefs() == [("signal", "A")]
    for rule in ("type='signal'", "type='signal'", "member='A'"):
        tell(alice, "RemoveMatch", rule)
    bob.send(signal("A"))
    bob.sync()
    assert alice.briefs() == [("signal", "A")]
    tell(alice, "RemoveMatch", "")
    bob.send(signal("A"))
    bob.sync()
    assert alice.sync() == []


OBJECT = "/com/example/Object"
INTERFACE = "com.example.Interface"

FITS: list[tuple[str, Message, bool]] = [
    ("", signal("A"), True),
    ("type='signal'", signal("A"), True),
    ("type='method_call'", signal("A"), False),
    ("type='error'", signal("A"), False),
    (f"interface='{INTERFACE}'", signal("A"), True),
    ("interface='com.example.Other'", signal("A"), False),
    ("interface='com.example'", signal("A"), False),
    ("member='A'", signal("A"), True),
    ("member='B'", signal("A"), False),
    (f"path='{OBJECT}'", signal("A"), True),
    ("path='/com/example'", signal("A"), False),
    (f"path_namespace='{OBJECT}'", signal("A"), True),
    ("path_namespace='/com/example'", signal("A"), True),
    ("path_namespace='/com'", signal("A"), True),
    ("path_namespace='/'", signal("A"), True),
    ("path_namespace='/'", signal("A", path="/"), True),
    ("path_namespace='/com/exam'", signal("A"), False),
    (f"path_namespace='{OBJECT}/Child'", signal("A"), False),
    ("sender='{sender}'", signal("A"), True),
    ("sender='{owned}'", signal("A"), True),
    ("sender='com.example.Nobody'", signal("A"), False),
    ("sender=':1.999999'", signal("A"), False),
    (f"sender='{BUS}'", signal("A"), False),
    ("destination='com.example.Nobody'", signal("A"), False),
    ("arg0='x'", signal("A", "s", "x"), True),
    ("arg0='x'", signal("A", "s", "xy"), False),
    ("arg0='x'", signal("A", "s", ""), False),
    ("arg0=''", signal("A", "s", ""), True),
    ("arg0=''", signal("A"), False),
    ("arg0='x'", signal("A"), False),
    ("arg0='x'", signal("A", "u", 5), False),
    ("arg0='/x'", signal("A", "o", "/x"), False),
    ("arg0='s'", signal("A", "g", "s"), False),
    ("arg0='x'", signal("A", "v", ("s", "x")), False),
    ("arg0='x'", signal("A", "(s)", ("x",)), False),
    ("arg0='x'", signal("A", "as", ["x"]), False),
    ("arg1='x'", signal("A", "us", 5, "x"), True),
    ("arg1='x'", signal("A", "a{sv}s", {"k": ("u", 1)}, "x"), True),
    ("arg1='x'", signal("A", "(i(ss))s", (1, ("a", "b")), "x"), True),
    ("arg1='x'", signal("A", "vs", ("as", ["b"]), "x"), True),
    ("arg2='x'", signal("A", "ybs", 1, True, "x"), True),
    ("arg1='x'", signal("A", "sx", "x", 1), False),
    ("arg0='x',arg1='y'", signal("A", "ss", "x", "y"), True),
    ("arg0='x',arg1='y'", signal("A", "ss", "x", "z"), False),
    ("arg63='x'", signal("A", "y" * 63 + "s", *([0] * 63), "x"), True),
    ("arg0='it'\\''s'", signal("A", "s", "it's"), True),
    ("arg0='é'", signal("A", "s", "é"), True),
    ("arg0path='/a/'", signal("A", "s", "/a/b"), True),
    ("arg0path='/a/'", signal("A", "o", "/a/b"), True),
    ("arg0path='/a/'", signal("A", "s", "/a/"), True),
    ("arg0path='/a/'", signal("A", "s", "/"), True),
    ("arg0path='/a/'", signal("A", "s", "/a"), False),
    ("arg0path='/a/'", signal("A", "s", "/ab"), False),
    ("arg0path='/a/b'", signal("A", "s", "/a/"), True),
    ("arg0path='/a/b'", signal("A", "s", "/a"), False),
    ("arg0path='/a/b'", signal("A", "o", "/a/b"), True),
    ("arg0path='/a/b'", signal("A", "o", "/a/b/c"), False),
    ("arg0path='/a/b'", signal("A", "o", "/"), True),
    ("arg0path='/'", signal("A", "o", "/a"), True),
    ("arg0path='a/'", signal("A", "s", "a/b"), True),
    ("arg0path=''", signal("A", "s", ""), True),
    ("arg0path=''", signal("A", "s", "/a"), False),
    ("arg0path='/a'", signal("A", "s", ""), False),
    ("arg1path='/a/'", signal("A", "uo", 5, "/a/b"), True),
    ("arg0path='/a/'", signal("A", "g", "s"), False),
    ("arg0namespace='com.example'", signal("A", "s", "com.example"), True),
    ("arg0namespace='com.example'", signal("A", "s", "com.example.Name"), True),
    ("arg0namespace='com.example'", signal("A", "s", "com.example.Name.More"), True),
    ("arg0namespace='com.example'", signal("A", "s", "com.examples"), False),
    ("arg0namespace='com.example'", signal("A", "s", "com"), False),
    ("arg0namespace='com'", signal("A", "s", "com.example"), True),
    ("arg0namespace='com'", signal("A", "s", "com"), True),
    ("arg0namespace='com.example'", signal("A", "s", "com.example."), True),
    ("arg0namespace='com'", signal("A", "o", "/com"), False),
    (f"type='signal',interface='{INTERFACE}',member='A',path='{OBJECT}'", signal("A"), True),
    (f"type='signal',interface='{INTERFACE}',member='B',path='{OBJECT}'", signal("A"), False),
    ("arg0='x'", signal("A", "s", "x", little=False), True),
    ("arg1='x'", signal("A", "a{sv}s", {"k": ("u", 1)}, "x", little=False), True),
]


@pytest.mark.parametrize(("rule", "message", "fits"), FITS)
def test_broadcast(
    alice: RawClient, bob: RawClient, rule: str, message: Message, fits: bool
) -> None:
    bob.own("com.example.Owned")
    alice.match(rule.replace("{sender}", bob.name).replace("{owned}", "com.example.Owned"))
    bob.send(message)
    bob.sync()
    received = alice.sync()
    assert [m.member for m in received] == (["A"] if fits else [])
    for m in received:
        assert m.sender == bob.name
        assert m.destination is None
        # not the bytes: the reference may turn a body that it looked into to its own byte order
        assert marshal(m.signature, m.args, message.little) == message.body


def test_sender_is_the_owner_of_the_moment(alice: RawClient, bob: RawClient) -> None:
    """Only the primary owner counts, not who waits in the queue."""
    alice.match("sender='com.example.Owned',member='A'")
    assert (alice.own("com.example.Owned"), bob.own("com.example.Owned")) == (1, 2)
    bob.send(signal("A"))
    bob.sync()
    assert alice.sync() == []
    alice.exchange(call("ReleaseName", "s", "com.example.Owned"))
    bob.send(signal("A"))
    bob.sync()
    assert alice.briefs() == [("signal", "A")]


def test_driver_signals_by_sender(daemon: Daemon, alice: RawClient) -> None:
    alice.match(f"sender='{BUS}',member='NameOwnerChanged',arg0namespace='com.example'")
    bob = daemon.connect()
    bob.own("com.example.Name")
    bob.own("org.example.Name")
    expected = ("signal", "NameOwnerChanged", "com.example.Name", "", bob.name)
    assert alice.briefs() == [expected]


def test_own_broadcast_comes_back(alice: RawClient) -> None:
    alice.match("member='A'")
    alice.send(signal("A"))
    assert alice.briefs() == [("signal", "A")]


def test_unicast_is_no_business_of_others(
    alice: RawClient, bob: RawClient, carol: RawClient
) -> None:
    """Without eavesdrop a rule never lets in what is addressed to another."""
    carol.match("")
    carol.match("type='method_call'")
    carol.match(f"destination='{bob.name}'")
    alice.send(peer_call(bob.name))
    alice.send(signal("A", destination=bob.name))
    alice.sync()
    assert len(bob.sync()) == 2
    assert carol.sync() == []


def test_unicast_needs_no_rule_and_comes_once(alice: RawClient, bob: RawClient) -> None:
    bob.match("")
    bob.match("eavesdrop='true'")
    bob.sync()
    alice.send(signal("A", destination=bob.name))
    alice.send(signal("B", destination=bob.name))
    alice.sync()
    members = [m.member for m in bob.sync() if m.sender == alice.name]
    assert members == ["A", "B", "GetId"]


def test_rules_of_one_who_left(daemon: Daemon, alice: RawClient) -> None:
    bob = daemon.connect()
    bob.match("member='A'")
    bob.close()
    alice.send(signal("A"))
    alice.alive()
    new = daemon.connect()
    alice.send(signal("A"))
    alice.sync()
    assert new.sync() == []
