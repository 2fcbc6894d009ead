"""Who is judged by a new configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import NOBODY, FakeConnection, World, configuration, unframed
from kit import BUS, METHOD_CALL, NO_REPLY_EXPECTED, call, peer_call
from kit.daemon import OPEN_POLICY

from afdbus.config.users import UserDatabase
from afdbus.policy.decide import MessageIndex, Question, Verdict

CLOSED = OPEN_POLICY.replace("""<allow own="*"/>""", "")


def test_who_says_hello_after_a_reload_is_judged_by_the_new_rules(tmp_path: Path) -> None:
    world = World(configuration(tmp_path))
    newcomer = world.join()
    config = configuration(tmp_path, policy=CLOSED)
    world.bus.configure(config.limits, config.ruleset)
    world.say(newcomer, call("Hello").pack(1))
    world.say(newcomer, call("RequestName", "su", "com.example.A", 0).pack(2))
    world.flush()
    assert b"not allowed to own" in newcomer.written


def may_own(world: World, connection: FakeConnection, name: str) -> bool:
    seen = len(connection.written)
    world.say(connection, call("RequestName", "su", name, 0).pack(9))
    world.flush()
    return b"not allowed to own" not in connection.written[seen:]


OF_A_GROUP = OPEN_POLICY.replace("""<allow own="*"/>""", "") + """
  <policy group="0"><allow own="com.example.A"/></policy>"""


@pytest.mark.parametrize("told", [False, True])
def test_dbus_343_p40_who_cannot_be_judged_anew_keeps_the_old_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """The kernel has not told its groups, and the user database knows it no more."""
    world = World(configuration(tmp_path))
    stranger = world.connect(NOBODY if told else NOBODY._replace(gids=None))
    root = world.connect()
    config = configuration(tmp_path, policy=OF_A_GROUP)
    monkeypatch.setattr(UserDatabase, "groups_of", lambda self, uid: None)
    world.bus.configure(config.limits, config.ruleset)
    assert may_own(world, root, "com.example.A")
    assert not may_own(world, root, "com.example.B")
    assert may_own(world, stranger, "com.example.C") != told
    warnings = [line for line in world.journal.lines if "keeping current policy" in line]
    assert len(warnings) == (not told)


def test_a_lookup_that_fails_leaves_the_old_configuration_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(configuration(tmp_path))
    client = world.connect(NOBODY._replace(gids=None))
    before = (world.bus.ruleset, world.bus.limits)
    config = configuration(tmp_path, policy=OF_A_GROUP, max_names_per_connection=1)

    def broken(self: UserDatabase, uid: int) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(UserDatabase, "groups_of", broken)
    with pytest.raises(OSError, match="no answer"):
        world.bus.configure(config.limits, config.ruleset)
    assert (world.bus.ruleset, world.bus.limits) == before
    assert may_own(world, client, "com.example.A")


def test_the_call_that_brings_new_rules_gets_no_plan_by_the_old(tmp_path: Path) -> None:
    world = World(configuration(tmp_path))
    client = world.connect()
    denied = OPEN_POLICY.replace(
        "</policy>",
        f'<deny send_interface="{BUS}" send_member="ReloadConfig"/></policy>',
    )
    world.host.next = configuration(tmp_path, policy=denied)
    client.written.clear()
    world.say(client, call("ReloadConfig").pack(2))
    world.flush()
    assert b"AccessDenied" not in client.written
    world.say(client, call("ReloadConfig").pack(3))
    world.flush()
    assert b"AccessDenied" in client.written


def test_a_limit_holds_for_what_comes_with_the_reload(tmp_path: Path) -> None:
    """All in one read: ReloadConfig, a call, and one with the same header that is too large now."""
    world = World(configuration(tmp_path))
    client, other = world.connect(), world.connect()
    assert other.peer is not None
    small, large = (
        peer_call(other.peer.name, "M", "ay", bytes(size), flags=NO_REPLY_EXPECTED)
        for size in (4, 400)
    )
    world.host.next = configuration(tmp_path, max_message_size=300)
    world.say(client, large.pack(2))
    world.say(client, call("ReloadConfig").pack(3), small.pack(4), small.pack(5), large.pack(6))
    world.flush()
    assert client.closed
    calls = [one for one in unframed(bytes(other.written)) if one[1] == METHOD_CALL]
    assert [int.from_bytes(one[8:12], "little") for one in calls] == [2, 4, 5]


def test_a_repeated_message_asks_no_rule_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: verdicts live in plans, until the next configuration."""
    rules = "".join(f'<deny send_destination="com.example.N{n}"/>' for n in range(500))
    config = configuration(
        tmp_path, policy=f"{OPEN_POLICY}<policy context='default'>{rules}</policy>"
    )
    asked: list[object] = []
    decide = MessageIndex.decide

    def counted(self: MessageIndex, question: Question) -> Verdict:
        asked.append(question)
        return decide(self, question)

    monkeypatch.setattr(MessageIndex, "decide", counted)
    world = World(config)
    client, other = world.connect(), world.connect()
    assert other.peer is not None
    message = peer_call(other.peer.name, "M", flags=NO_REPLY_EXPECTED)
    for _ in range(2):
        asked.clear()
        for serial in range(2, 102):
            world.say(client, message.pack(serial))
        assert len(asked) == 2, "once for the sender, once for the receiver"
        world.bus.configure(config.limits, config.ruleset)
