"""What is kept of rules that were needed, how it is written, and that nobody can fill it."""

from __future__ import annotations

from pathlib import Path

from afdbus.bus.learned import ABOUT, MANY_PATHS, MAX_RULES, MAX_TEXT, MAX_USERS, Learned
from afdbus.config.load import compose
from afdbus.policy.rules import MessageRule, OwnRule, Rule
from afdbus.policy.ruleset import Buckets


def call(member: str = "M", path: str | None = "/a", interface: str | None = "a.I") -> MessageRule:
    return MessageRule(True, False, 1, path, interface, member, requested_reply=True)


def text(learned: Learned) -> str:
    return learned.text(lambda uid: f"{uid}")


def read(learned: Learned, folder: Path) -> Buckets:
    (folder / "learned.conf").write_text(text(learned))
    return compose(str(folder / "learned.conf")).ruleset.buckets


def placeless(rules: object) -> list[Rule]:
    assert isinstance(rules, list)
    return [rule._replace(file="", line=0) for rule in rules]


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    learned = Learned()
    learned.note(0, call(), 0)
    learned.note(0, call(), 0)
    learned.note(0, OwnRule(True, "a.b"), 0)
    learned.note(1, call("N"), 0)
    learned.note(None, OwnRule(True, "c.d"), 0)
    buckets = read(learned, tmp_path)
    assert placeless(buckets.users[0]) == [call(), OwnRule(True, "a.b")]
    assert placeless(buckets.users[1]) == [call("N")]
    assert placeless(buckets.mandatory) == [OwnRule(True, "c.d")]
    assert not buckets.default
    assert ABOUT in text(learned)
    assert "INCOMPLETE" not in text(learned)


def test_the_order_of_learning_makes_no_difference() -> None:
    one, two = Learned(), Learned()
    rules = [call("A"), call("B"), OwnRule(True, "a.b")]
    for rule in rules:
        one.note(0, rule, 0)
    for rule in reversed(rules):
        two.note(0, rule, 0)
    assert text(one) == text(two)


def test_nothing_new_is_no_change() -> None:
    learned = Learned()
    learned.note(0, call(), 0)
    before = learned.changes
    learned.note(0, call(), 0)
    assert learned.changes == before
    learned.note(0, call("N"), 0)
    assert learned.changes > before


def test_many_paths_become_any_path(tmp_path: Path) -> None:
    learned = Learned()
    for number in range(MANY_PATHS):
        learned.note(0, call(path=f"/a/{number}"), 0)
    assert len(read(learned, tmp_path).users[0]) == MANY_PATHS
    learned.note(0, call("N"), 0)
    learned.note(0, call(path="/more"), 0)
    found = placeless(read(learned, tmp_path).users[0])
    assert sorted(found, key=repr) == sorted([call("N"), call(path=None)], key=repr)
    before = learned.changes
    learned.note(0, call(path="/and/more"), 0)
    assert learned.changes == before


def test_without_an_interface_a_member_stays_without_its_path(tmp_path: Path) -> None:
    """Which the configuration language has as `send_path="*"`."""
    learned = Learned()
    for number in range(MANY_PATHS + 1):
        learned.note(0, call(path=f"/a/{number}", interface=None), 0)
    (rule,) = placeless(read(learned, tmp_path).users[0])
    assert rule == call(path=None, interface=None)


def test_one_user_cannot_use_up_what_others_have(tmp_path: Path) -> None:
    learned = Learned()
    for number in range(MAX_RULES + 10):
        # Whoever they are for: who causes them counts.
        learned.note(number % 2, call(f"M{number}"), 1)
    learned.note(0, call("Mine"), 0)
    buckets = read(learned, tmp_path)
    assert sum(len(rules) for rules in buckets.users.values()) == MAX_RULES + 1
    assert call("Mine") in placeless(buckets.users[0])
    incomplete = [line for line in text(learned).splitlines() if "INCOMPLETE" in line]
    assert len(incomplete) == 1
    assert "User 1 " in incomplete[0]


def test_users_and_texts_are_bounded(tmp_path: Path) -> None:
    learned = Learned()
    for uid in range(MAX_USERS + 10):
        learned.note(0, call(f"M{uid}"), uid)
    learned.note(0, call(path="/" + "a" * MAX_TEXT), 0)
    assert len(read(learned, tmp_path).users[0]) == MAX_USERS
    assert text(learned).count("INCOMPLETE") == 11


def test_what_was_learned_before_is_kept(tmp_path: Path) -> None:
    learned = Learned()
    learned.note(0, call(), 0)
    again = Learned()
    again.keep(0, read(learned, tmp_path).users[0])
    assert text(again) == text(learned)
    before = again.changes
    again.note(0, call(), 0)
    assert again.changes == before


def test_what_must_be_read_before() -> None:
    learned = Learned()
    learned.note(None, call(), 0, '<deny send_member="--M"/> /etc/a.conf:7')
    assert "must be read after <deny" in text(learned)
    assert "/etc/a.conf:7 -->" in text(learned)
