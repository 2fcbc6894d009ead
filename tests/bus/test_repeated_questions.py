"""Answers about names are kept for who asks again: never too long, nor too many."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import FakeConnection, World, configuration
from kit import call

NAME = "com.example.Name"
QUESTIONS = ("NameHasOwner", "GetNameOwner")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(configuration(tmp_path))


def ask(world: World, who: FakeConnection, member: str, name: str) -> bytes:
    """What is answered, without serials."""
    world.flush()
    who.written.clear()
    world.say(who, call(member, "s", name).pack(77))
    world.flush()
    answer = bytes(who.written)
    return answer[:8] + answer[12:]


def test_the_same_question_is_answered_alike_and_found_once(
    world: World,
) -> None:
    asker, owner = world.connect(), world.connect()
    world.say(owner, call("RequestName", "su", NAME, 0).pack(2))
    for member in QUESTIONS:
        answers = [ask(world, asker, member, NAME) for _ in range(3)]
        assert answers[0]
        assert answers == answers[:1] * 3
        kept = world.bus.names.answers(member)
        assert len(kept) == 1
        (body,) = kept
        kept[body] = b"kept"
        assert ask(world, asker, member, NAME).endswith(b"kept")


@pytest.mark.parametrize("member", QUESTIONS)
def test_each_change_of_owner_changes_the_answer(world: World, member: str) -> None:
    asker, first, second, third = (world.connect() for _ in range(4))

    def answer() -> bytes:
        again = ask(world, asker, member, NAME)
        assert ask(world, asker, member, NAME) == again
        world.bus.names.answers(member).clear()
        assert ask(world, asker, member, NAME) == again, "an old answer"
        return again

    def owned_by(owner: FakeConnection) -> None:
        found = answer()
        if member == "GetNameOwner":
            assert owner.peer is not None
            assert owner.peer.name.encode() + b"\0" in found
        else:
            assert found.endswith(b"\1\0\0\0")

    nobody = answer()
    world.say(first, call("RequestName", "su", NAME, 1).pack(2))
    owned_by(first)
    world.say(second, call("RequestName", "su", NAME, 0).pack(2))
    owned_by(first)
    world.say(third, call("RequestName", "su", NAME, 2).pack(2))
    owned_by(third)
    world.say(third, call("ReleaseName", "s", NAME).pack(3))
    owned_by(first)
    world.leave(first)
    owned_by(second)
    world.leave(second)
    assert answer() == nobody


def test_unique_names_come_and_go(world: World) -> None:
    asker = world.connect()
    nobody = ask(world, asker, "NameHasOwner", ":1.1")
    assert ask(world, asker, "NameHasOwner", ":1.1") == nobody
    other = world.connect()
    somebody = ask(world, asker, "NameHasOwner", ":1.1")
    assert somebody != nobody
    world.leave(other)
    assert ask(world, asker, "NameHasOwner", ":1.1") == nobody


def test_p17_the_number_of_answers_and_their_size_are_bounded(world: World) -> None:
    asker = world.connect()
    for number in range(2000):
        ask(world, asker, "NameHasOwner", f"com.example.N{number}")
    ask(world, asker, "NameHasOwner", "x" * 5000)
    kept = world.bus.names.answers("NameHasOwner")
    assert 0 < len(kept) <= 256
    assert max(map(len, kept)) <= 300


def test_monitors_see_each_question_and_answer(world: World) -> None:
    asker, monitor = world.connect(), world.connect()
    first = ask(world, asker, "NameHasOwner", NAME)
    assert ask(world, asker, "NameHasOwner", NAME) == first
    world.say(
        monitor,
        call("BecomeMonitor", "asu", [], 0, interface="org.freedesktop.DBus.Monitoring").pack(2),
    )
    world.flush()
    for _ in range(2):
        monitor.written.clear()
        assert ask(world, asker, "NameHasOwner", NAME) == first
        world.flush()
        assert bytes(monitor.written).count(b"NameHasOwner\0") == 1
        assert monitor.written.endswith(bytes(4)), "the answer as well"
