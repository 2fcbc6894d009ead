"""A denial explained, its remedy put into the folder, reloaded, and sent again: with real daemons.

What is explained is what the daemon does: the side that refuses and the number of rules that fit
are in its error text.  The remedy allows the message, and none of its neighbours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from commands import ME, Site
from kit import (
    ERROR,
    METHOD_RETURN,
    Message,
    RawClient,
    Received,
    call,
    error,
    method_return,
    peer_call,
    signal,
)
from kit.message import DESTINATION, ERROR_NAME, REPLY_SERIAL

DENIED = "org.freedesktop.DBus.Error.AccessDenied"
S17, I17 = "com.example.S17", "com.example.I17"
PATH = "/com/example/Object"


@pytest.fixture
def site(kind: str) -> Iterator[Site]:
    made = Site(kind)
    yield made
    made.daemon.stop()


class Pair:
    """Alice, and Bob with his name: what Alice sends, and whether it gets to Bob."""

    def __init__(self, site: Site, name: str = S17) -> None:
        self.alice = site.daemon.connect()
        self.bob = site.daemon.connect()
        assert self.bob.own(name) == 1
        self.bob.sync()

    def arrives(self, message: Message) -> bool:
        return arrives(self.alice, self.bob, message)


def arrives(sender: RawClient, receiver: RawClient, message: Message) -> bool:
    """Whether a message comes through; if not, its sender must have been told."""
    message.serial = None
    serial = sender.send(message)
    refused = [m for m in sender.sync() if m.reply_serial == serial]
    came = [m for m in receiver.sync() if m.sender == sender.name]
    assert len(came) + len(refused) == 1, (came, refused)
    assert all(m.error_name == DENIED for m in refused)
    return bool(came)


def refusal(sender: RawClient, message: Message) -> tuple[str, int]:
    """The side that refuses, and how many rules matched."""
    message.serial = None
    serial = sender.send(message)
    (answer,) = [m for m in sender.sync() if m.reply_serial == serial]
    found = re.match(r"Rejected (\w+) message, (\d+) matched rules;", answer.args[0])
    assert found, answer
    return found[1], int(found[2])


def secret(**changes: Any) -> Message:
    fields = {"destination": S17, "member": "Secret", "interface": I17, "path": PATH, **changes}
    return peer_call(fields.pop("destination"), fields.pop("member"), **fields)


A_CALL = (
    "--user", ME, "--send", "--destination", S17, "--interface", I17, "--member", "Secret",
)  # fmt: skip


def test_a_call(site: Site) -> None:
    pair = Pair(site)
    answer = site.explain(*A_CALL, "--path", PATH)
    assert (answer["file"], answer["line"]) == (str(site.folder / "s17.conf"), 7)
    assert answer["rule"] == (
        f'<deny send_destination="{S17}" send_interface="{I17}" send_member="Secret"/>'
    )
    assert answer["policy"] == 'context="default"'
    assert refusal(pair.alice, secret()) == (answer["side"], answer["matched"]) == ("send", 3)
    assert not answer["remarks"]

    site.apply(answer)
    assert pair.arrives(secret())
    for other in (
        secret(member="Hidden"),
        secret(interface="com.example.I18"),
        secret(interface=None),
        secret(path="/other"),
        signal("Secret", interface=I17, path=PATH, destination=S17),
        secret().plus((REPLY_SERIAL, "u", 4242)),
    ):
        assert not pair.arrives(other), other
    # Bob's rules are the same user's, but the remedy names the receiver.
    back = secret(destination=pair.alice.name)
    assert not arrives(pair.bob, pair.alice, back)
    assert pair.bob.own("com.example.S18") == 1
    assert pair.arrives(secret(interface="com.example.I18", member="M"))
    assert not pair.arrives(secret(interface="com.example.I18"))
    assert site.explain(*A_CALL, "--path", PATH)["allowed"]
    assert not site.explain(*A_CALL, "--path", "/other")["allowed"]


def test_a_call_for_which_there_is_no_rule_but_the_first(site: Site) -> None:
    pair = Pair(site)
    arguments = ("--user", ME, "--send", "--destination", S17, "--interface", "x.y")
    answer = site.explain(*arguments, "--member", "M")
    lines = site.daemon.config_file.read_text().splitlines()
    assert answer["file"] == str(site.daemon.config_file)
    assert lines[answer["line"] - 1].strip() == '<deny send_type="method_call"/>'
    message = peer_call(S17, "M", interface="x.y")
    assert refusal(pair.alice, message) == ("send", answer["matched"])
    site.apply(answer)
    assert pair.arrives(message)
    assert pair.arrives(peer_call(S17, "M", interface="x.y", path="/any"))
    assert not pair.arrives(peer_call(S17, "N", interface="x.y"))
    assert not pair.arrives(peer_call(S17, "M", interface="x.z"))


def test_a_call_without_interface(site: Site) -> None:
    """The member can be named all the same, by a rule for any path."""
    pair = Pair(site)
    question = ("--user", ME, "--send", "--destination", S17, "--member", "Secret")
    answer = site.explain(*question)
    assert refusal(pair.alice, secret(interface=None)) == ("send", answer["matched"])
    assert "every interface" in answer["remarks"][0]
    site.apply(answer)
    assert pair.arrives(secret(interface=None))
    assert pair.arrives(secret(interface=None, path="/other"))
    assert pair.arrives(secret())
    assert not pair.arrives(secret(interface=None, member="Hidden"))
    assert not pair.arrives(secret(member="Hidden"))


def test_only_this_user(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can connect as somebody else")
    pair = Pair(site)
    nobody = site.daemon.connect(uid=65534)
    assert not arrives(nobody, pair.bob, secret())
    site.apply(site.explain(*A_CALL))
    assert pair.arrives(secret())
    assert not arrives(nobody, pair.bob, secret())
    site.apply(site.explain("--uid", "65534", *A_CALL[2:]))
    assert arrives(nobody, pair.bob, secret())
    assert not arrives(nobody, pair.bob, secret(member="Hidden"))


LOUD = "com.example.Loud17"


def test_a_signal(site: Site) -> None:
    pair = Pair(site)
    pair.bob.match("type='signal'")
    answer = site.explain(
        "--user", ME, "--send", "--type", "signal", "--destination", S17,
        "--interface", LOUD, "--member", "Bang",
    )  # fmt: skip
    assert (answer["file"], answer["line"]) == (str(site.folder / "s17.conf"), 11)
    message = signal("Bang", interface=LOUD, destination=S17)
    assert refusal(pair.alice, message) == ("send", answer["matched"])
    site.apply(answer)
    assert pair.arrives(message)
    assert not pair.arrives(signal("Boom", interface=LOUD, destination=S17))
    assert not pair.arrives(peer_call(S17, "Bang", interface=LOUD))
    assert heard(pair, [signal("Bang", interface=LOUD), signal("End")]) == ["End"], "a broadcast"


def heard(pair: Pair, messages: list[Message]) -> list[str | None]:
    for message in messages:
        message.serial = None
        pair.alice.send(message)
    assert pair.alice.sync() == []
    return [m.member for m in pair.bob.sync() if m.sender == pair.alice.name]


def test_a_broadcast(site: Site) -> None:
    pair = Pair(site)
    pair.bob.match("type='signal'")
    answer = site.explain(
        "--user", ME, "--send", "--type", "signal", "--broadcast",
        "--interface", LOUD, "--member", "Bang",
    )  # fmt: skip
    assert (answer["file"], answer["line"]) == (str(site.folder / "s17.conf"), 11)
    messages = [
        signal("Bang", interface=LOUD),
        signal("Boom", interface=LOUD),
        signal("Bang", interface="com.example.Loud18"),
        signal("End"),
    ]
    assert heard(pair, messages) == ["End"]
    site.apply(answer)
    assert heard(pair, messages) == ["Bang", "End"]
    assert not pair.arrives(signal("Bang", interface=LOUD, destination=S17))


def test_owning(site: Site) -> None:
    client = site.daemon.connect()
    answer = site.explain("--user", ME, "--own", "com.example.New")
    lines = site.daemon.config_file.read_text().splitlines()
    assert lines[answer["line"] - 1].strip() == '<deny own="*"/>'

    def owns(name: str) -> bool:
        return client.exchange(call("RequestName", "su", name, 4))[-1].brief == ("return", 1)

    assert not owns("com.example.New")
    site.apply(answer)
    assert owns("com.example.New")
    assert not owns("com.example.New.Er")
    assert not owns("com.example.Newer")
    assert not owns("com.example")


def test_receiving(site: Site) -> None:
    """Bob's rules refuse what a service sends."""
    service, bob = site.daemon.connect(), site.daemon.connect()
    assert service.own(S17) == 1
    hush = "com.example.Hush17"
    question = (
        "--user", ME, "--send", "--type", "signal", "--interface", hush, "--member", "M",
        "--destination", bob.name, "--sender", f"{service.name},{S17}",
    )  # fmt: skip
    message = signal("M", interface=hush, destination=bob.name)
    answer = site.explain(*question)
    assert (answer["file"], answer["line"]) == (str(site.folder / "s17.conf"), 12)
    assert refusal(service, message) == (answer["side"], answer["matched"]) == ("receive", 2)
    assert answer["remedy"] is None
    assert "--to-user" in answer["remarks"][-1]

    answer = site.explain(*question, "--to-user", ME)
    site.apply(answer)
    assert arrives(service, bob, message)
    assert not arrives(service, bob, signal("N", interface=hush, destination=bob.name))
    other = signal("M", interface="com.example.Hash17", destination=bob.name)
    assert not arrives(service, bob, other)
    # The same by the receiver's own question.
    same = ("--user", ME, "--receive", "--type", "signal", "--sender", S17, "--interface", hush)
    assert site.explain(*same, "--member", "M")["allowed"]
    assert not site.explain(*same, "--member", "N")["allowed"]


def test_sending_and_receiving(site: Site) -> None:
    """Both ends refuse: both rules are in the file."""
    service, bob = site.daemon.connect(), site.daemon.connect()
    assert service.own(S17) == 1
    assert bob.own("com.example.S18") == 1
    hush = "com.example.Hush17"
    answer = site.explain(
        "--user", ME, "--send", "--interface", hush, "--member", "M", "--sender", S17,
        "--destination", "com.example.S18", "--to-user", ME,
    )  # fmt: skip
    message = peer_call("com.example.S18", "M", interface=hush)
    assert refusal(service, message) == (answer["side"], answer["matched"]) == ("send", 1)
    site.apply(answer)
    assert arrives(service, bob, message)
    assert not arrives(service, bob, peer_call("com.example.S18", "N", interface=hush))


def test_replies_that_nobody_asked_for(site: Site) -> None:
    pair = Pair(site)
    fields = [(DESTINATION, "s", S17), (REPLY_SERIAL, "u", 777)]
    a_return = Message(METHOD_RETURN, fields)
    an_error = Message(ERROR, [*fields, (ERROR_NAME, "s", "com.example.E")])
    another = Message(ERROR, [*fields, (ERROR_NAME, "s", "com.example.F")])
    common = ("--user", ME, "--send", "--destination", S17)
    (*_, remark) = site.explain(*common, "--type", "error")["remarks"]
    assert "The receiver's rules deny" in remark
    common += ("--to-user", ME)
    answer = site.explain(*common, "--type", "error", "--error", "com.example.E")
    # Two rules with an interface: a <deny> fits a message that has none.
    assert refusal(pair.alice, an_error) == (answer["side"], answer["matched"]) == ("send", 2)
    site.apply(answer)
    assert pair.arrives(an_error)
    assert not pair.arrives(another)
    assert not pair.arrives(a_return)
    site.apply(site.explain(*common, "--type", "method_return"))
    assert pair.arrives(a_return)
    assert not pair.arrives(another)


MUTE = """
  <policy context="default">
    <deny send_destination="com.example.S17" send_type="error" send_requested_reply="true"/>
  </policy>"""


def test_replies_that_were_asked_for(kind: str) -> None:
    site = Site(kind, MUTE)
    try:
        service, caller = site.daemon.connect(), site.daemon.connect()
        assert caller.own(S17) == 1
        assert service.own("com.example.S18") == 1
        arguments = (
            "--user", ME, "--send", "--destination", S17, "--requested", "--type", "error",
            "--error",
        )  # fmt: skip

        def asked_for() -> Received:
            message = peer_call("com.example.S18", "M", interface="com.example.I18")
            serial = caller.send(message)
            assert caller.sync() == []
            (received,) = [m for m in service.sync() if m.sender == caller.name]
            assert received.serial == serial
            return received

        reply = error(asked_for(), "com.example.E")
        fields = [field for field in reply.fields if field[0] != DESTINATION]
        reply.fields = [*fields, (DESTINATION, "s", S17)]
        answer = site.explain(*arguments, "com.example.E")
        assert refusal(service, reply) == ("send", answer["matched"])
        # The rule stands behind the <includedir>: only a user's policy comes after it.
        assert answer["file"] == str(site.daemon.config_file)
        site.apply(answer)
        assert not arrives(service, caller, error(asked_for(), "com.example.F"))
        call_ = asked_for()
        assert arrives(service, caller, error(call_, "com.example.E"))
        assert not arrives(service, caller, error(call_, "com.example.E")), "a second one"
        assert arrives(service, caller, method_return(asked_for()))
    finally:
        site.daemon.stop()


def test_connecting(kind: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can connect as somebody else")
    more = '<policy context="mandatory"><deny user="nobody"/><deny user="daemon"/></policy>'
    site = Site(kind, more)
    try:
        answer = site.explain("--user", "nobody", "--connect")
        assert (answer["side"], answer["rule"]) == ("connect", '<deny user="65534"/>')
        assert 'context="mandatory"' in answer["policy"]
        assert site.daemon.join(uid=65534).closed() == []
        # A rule that stands behind the folder, and is mandatory: it has to come after that one.
        assert answer["remedy_at_end"]
        assert '<policy context="mandatory">' in answer["remedy"]
        text = site.daemon.config_file.read_text()
        (site.daemon.directory / "remedy.conf").write_text(answer["remedy"])
        assert answer["remedy_file"] == str(site.daemon.directory / "remedy.conf")
        site.daemon.config_file.write_text(
            text.replace("</busconfig>", "<include>remedy.conf</include></busconfig>")
        )
        site.reload()
        site.daemon.connect(uid=65534)
        assert site.daemon.join(uid=1).closed() == []
    finally:
        site.daemon.stop()


def test_what_is_mandatory_has_no_remedy(kind: str) -> None:
    more = f"""
  <policy context="mandatory">
    <deny send_destination="{S17}" send_member="Secret" send_path="{PATH}"/>
  </policy>"""
    site = Site(kind, more)
    try:
        pair = Pair(site)
        answer = site.explain(*A_CALL, "--path", PATH)
        assert refusal(pair.alice, secret()) == ("send", answer["matched"])
        assert answer["file"] == str(site.daemon.config_file)
        assert (answer["remedy"], answer["remedy_file"]) == (None, None)
        assert f"{answer['file']}:{answer['line']} decides" in answer["remarks"][0]
        assert 'context="mandatory"' in answer["remarks"][0]
    finally:
        site.daemon.stop()


def test_what_is_allowed_can_be_denied(site: Site) -> None:
    pair = Pair(site)
    answer = site.explain(*A_CALL[:-1], "Open")
    assert answer["allowed"]
    assert (answer["file"], answer["line"]) == (str(site.folder / "s17.conf"), 5)
    assert pair.arrives(secret(member="Open"))
    site.apply(answer)
    assert not pair.arrives(secret(member="Open"))
    assert pair.arrives(secret(member="Other"))
