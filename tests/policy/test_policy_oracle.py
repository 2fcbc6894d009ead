"""The same questions to dbus-daemon and to our rules, under policies made at random.

Each seed makes a policy and a conversation of two clients (and one who overhears): calls, signals,
broadcasts, replies that somebody waits for and replies that nobody does.  What arrives, what is
refused, at which end, and how many rules fitted, must be what our `Ruleset` says.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

import pytest
from kit import Daemon, Message, RawClient, Received, busconfig, call, signal
from policies import OPEN

from afdbus.config.load import load
from afdbus.identity import Identity
from afdbus.policy.decide import Question, Verdict
from afdbus.policy.ruleset import PeerPolicy

RULES_PER_POLICY = 12
MESSAGES = 30

# So that the test itself can always talk to the bus, whatever the rules are.
SAFE = """<policy context="mandatory">
  <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  <allow receive_sender="org.freedesktop.DBus" receive_requested_reply="false"/>
  <allow own="x.y"/><allow own="x.y.z"/></policy>"""

NAMES = ["x", "x.y", "x.y.z", "x.yy", "q.r", ":1.1", ":1", "", "*"]
INTERFACES = ["i.g", "i.h", "*"]
PATHS = ["/", "/x", "*"]
MEMBERS = ["M", "N", "*"]
ERRORS = ["e.E", "e.F", "*"]
TYPES = ["method_call", "method_return", "error", "signal", "*"]
WORDS = ["true", "false"]


def some_rule(dice: random.Random) -> str:
    """An <allow> or <deny> that a configuration may have."""
    element = dice.choice(["allow", "deny"])
    if dice.random() < 0.1:
        return f'<{element} {dice.choice(["own", "own_prefix"])}="{dice.choice(NAMES)}"/>'
    way = dice.choice(["send", "receive"])
    attributes = {}

    def perhaps(name: str, values: list[str], chance: float) -> None:
        if dice.random() < chance:
            attributes[name] = dice.choice(values)

    perhaps(f"{way}_type", TYPES, 0.35)
    perhaps(f"{way}_path", PATHS, 0.2)
    if dice.random() < 0.75:
        perhaps(f"{way}_interface", INTERFACES, 0.35)
        if f"{way}_path" in attributes or f"{way}_interface" in attributes:
            perhaps(f"{way}_member", MEMBERS, 0.4)
    else:
        perhaps(f"{way}_error", ERRORS, 0.5)
    perhaps(f"{way}_requested_reply", WORDS, 0.4)
    perhaps("eavesdrop", WORDS, 0.35)
    perhaps("min_fds", ["0", "1"], 0.1)
    perhaps("max_fds", ["0", "1"], 0.1)
    if way == "receive":
        perhaps("receive_sender", NAMES, 0.4)
    elif dice.random() < 0.4:
        party = dice.choice(["send_destination", "send_destination_prefix"])
        attributes[party] = dice.choice(NAMES)
    if way == "send" and attributes.get("send_destination", "*") == "*":
        perhaps("send_broadcast", WORDS, 0.3)
    if not any(name.startswith(way) for name in attributes):
        attributes[f"{way}_{'destination' if way == 'send' else 'sender'}"] = dice.choice(NAMES)
    return f"<{element} " + " ".join(f'{key}="{value}"' for key, value in attributes.items()) + "/>"


def some_policy(dice: random.Random) -> str:
    me = os.geteuid()
    kinds = ['context="default"', f'user="{me}"', 'at_console="false"', 'context="mandatory"']
    parts = (
        [OPEN] if dice.random() < 0.7 else ['<policy context="default"><allow user="*"/></policy>']
    )
    for _ in range(dice.randint(1, RULES_PER_POLICY)):
        parts.append(f"<policy {dice.choice(kinds)}>{some_rule(dice)}</policy>")
    return "\n".join([*parts, SAFE])


class Peer:
    def __init__(self, client: RawClient, policy: PeerPolicy) -> None:
        self.client = client
        self.policy = policy
        self.names = {client.name}


class Conversation:
    """Alice sends, Bob receives, Eve overhears and gets the broadcasts as well."""

    def __init__(self, daemon: Daemon, dice: random.Random) -> None:
        ruleset = load(str(daemon.config_file)).ruleset
        uid, gid = os.geteuid(), os.getegid()
        gids = tuple(sorted({gid, *os.getgroups()}))
        self.dice = dice
        self.policy = ruleset.for_peer(Identity(uid=uid, gid=gid, gids=gids))
        self.alice, self.bob, self.eve = (Peer(daemon.connect(), self.policy) for _ in range(3))
        for peer, name in ((self.bob, "x.y"), (self.alice, "x.y.z"), (self.bob, "x.y.z")):
            peer.client.own(name)
            peer.names.add(name)
        self.bob.client.match("type='signal',interface='i.g'")
        self.bob.client.match("type='signal',interface='i.h'")
        if uid == 0:
            self.eve.client.match("eavesdrop='true',path='/'")
            self.eve.client.match("eavesdrop='true',path='/x'")
        self.asked = self.awaited()

    def awaited(self) -> Received | None:
        """A call of Bob's that waits for Alice's answer, if the policy lets it through."""
        question = Question(1, "/", "i.g", "M", None, self.alice.client.name)
        if not all(self.verdicts(question, self.bob, self.alice)):
            return None
        self.bob.client.send(
            call("M", path="/", interface="i.g", destination=self.alice.client.name)
        )
        self.bob.client.sync()
        (received,) = [m for m in self.alice.client.sync() if m.type == 1]
        self.eve.client.sync()
        return received

    def verdicts(self, question: Question, sender: Peer, receiver: Peer) -> tuple[bool, bool]:
        return (
            self.may(question, sender, receiver)[0].allowed,
            self.may(question, sender, receiver)[1].allowed,
        )

    def may(self, question: Question, sender: Peer, receiver: Peer) -> tuple[Verdict, Verdict]:
        question = question._replace(receiver=receiver.names, sender=sender.names)
        return sender.policy.may_send(question), receiver.policy.may_receive(question)

    def some_message(self) -> tuple[Message, Question, str]:
        dice = self.dice
        path, member = dice.choice(PATHS[:2]), dice.choice(MEMBERS[:2])
        interface = dice.choice(INTERFACES[:2])
        to = dice.choice([self.bob.client.name, "x.y"])
        kind = dice.choice(["call", "no interface", "signal", "broadcast", "return", "error"])
        if self.asked is None and kind in ("return", "error"):
            self.asked = self.awaited()
        asked = self.asked
        requested = kind in ("return", "error") and asked is not None and dice.random() < 0.6
        fds = [os.open("/dev/null", os.O_RDONLY)] if dice.random() < 0.15 else []
        fields: dict[str, object] = {"path": path, "interface": interface, "member": member}
        if kind in ("call", "no interface"):
            if kind == "no interface":
                fields["interface"] = None
            message = call(
                member, path=path, interface=fields["interface"], destination=to, fds=fds
            )
            number = 1
        elif kind in ("signal", "broadcast"):
            fields["destination"] = to = "" if kind == "broadcast" else to
            message = signal(
                member, path=path, interface=interface, destination=to or None, fds=fds
            )
            number = 4
        else:
            fields = {}
            source = asked if requested and asked is not None else None
            number = 2 if kind == "return" else 3
            message = Message(number, [(6, "s", to), (5, "u", source.serial if source else 9999)])
            if kind == "error":
                fields["error_name"] = dice.choice(ERRORS[:2])
                message = message.plus((4, "s", fields["error_name"]))
            if dice.random() < 0.2:
                fields["path"] = path
                message = message.plus((1, "o", path))
            if fds:
                message = message.plus((9, "u", 1))
                message.fds = fds
            if source is not None:
                self.asked = None
        reply = number in (2, 3)
        if not reply and dice.random() < 0.15:
            message = message.plus((5, "u", 4242))
            reply = True
        fields["destination"] = to or None
        question = Question(number, reply=reply, requested=requested, fds=len(fds), **fields)  # type: ignore[arg-type]
        return message, question, kind

    def step(self) -> None:
        """Send one message and compare what happens with what should."""
        message, question, kind = self.some_message()
        unsolicited = question.reply and not question.requested
        serial = self.alice.client.send(message)
        for fd in message.fds:
            os.close(fd)
        answers = [m for m in self.alice.client.sync() if m.reply_serial == serial and m.type == 3]
        came = [m for m in self.bob.client.sync() if m.sender == self.alice.client.name]
        heard = [m for m in self.eve.client.sync() if m.sender == self.alice.client.name]
        for received in (*came, *heard):
            for fd in received.fds:
                os.close(fd)
        send, receive = self.may(question, self.alice, self.bob)
        shown = f"{kind} {question} -> {send} {receive}; unsolicited={unsolicited}"
        if kind == "broadcast":
            assert not answers, shown
            assert bool(came) == (send.allowed and receive.allowed), shown
            return
        if send.allowed and receive.allowed:
            assert (len(came), answers) == (1, []), shown
            overheard = question._replace(eavesdropping=True)
            if not question.reply and question.path is not None and os.geteuid() == 0:
                assert bool(heard) == all(self.verdicts(overheard, self.alice, self.eve)), shown
            return
        assert not came, shown
        (answer,) = answers
        way, verdict = ("receive", receive) if send.allowed else ("send", send)
        assert answer.error_name == "org.freedesktop.DBus.Error.AccessDenied", shown
        found = re.match(r"Rejected (\w+) message, (\d+) matched rules;", answer.args[0])
        assert found is not None, (answer, shown)
        assert (found[1], int(found[2])) == (way, verdict.matched), (answer, shown)

    def own_names(self) -> None:
        client = self.alice.client
        for name in ("x.yy", "q.r", "x.y.a", "z.z"):
            answer = client.exchange(call("RequestName", "su", name, 4))[-1]
            assert (answer.type == 2) == self.policy.may_own(name).allowed, (name, answer)
            client.exchange(call("ReleaseName", "s", name))


def converse(seed: int) -> None:
    dice = random.Random(seed)
    policy = some_policy(dice)
    with Daemon("dbus-daemon", busconfig(policy=policy)) as daemon:
        conversation = Conversation(daemon, dice)
        conversation.own_names()
        for _ in range(MESSAGES):
            conversation.step()


@pytest.mark.parametrize("seed", range(40))
def test_dbus_daemon_decides_alike(program: Callable[[str], str], seed: int) -> None:
    program("dbus-daemon")
    converse(seed)
