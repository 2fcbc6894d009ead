"""Users and groups of the machine, and what is remembered of them."""

from __future__ import annotations

import os
import pwd

import pytest

from afdbus.host.users import Users


def test_everybody_of_this_machine() -> None:
    users = Users()
    for entry in pwd.getpwall():
        first = pwd.getpwuid(entry.pw_uid)  # a number may have several names
        user = users.user(entry.pw_uid)
        assert user is not None
        assert (user.uid, user.gid, user.name) == (entry.pw_uid, first.pw_gid, first.pw_name)
        assert user.home == first.pw_dir
        assert set(user.gids) == set(os.getgrouplist(first.pw_name, first.pw_gid))
        assert list(user.gids) == sorted(set(user.gids))
        assert users.uid_of(entry.pw_name) == entry.pw_uid


@pytest.mark.parametrize("name", ["", "no-such-name", "ro\0ot", "0", "\udcff"])
def test_names_that_do_not_exist(name: str) -> None:
    assert Users().uid_of(name) is None


@pytest.mark.parametrize("uid", [4_000_000_123, 0xFFFFFFFF, 1 << 32, 1 << 80, -1, -(1 << 80)])
def test_numbers_that_do_not_exist(uid: int) -> None:
    assert Users().user(uid) is None


def test_answers_are_remembered_until_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users()
    me = os.geteuid()
    before = users.user(me)
    assert before is not None
    changed = list(pwd.getpwuid(me))
    changed[5] = "/elsewhere"
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(changed))
    assert users.user(me) == before
    users.flush()
    after = users.user(me)
    assert after is not None
    assert after.home == "/elsewhere"


def test_unknown_names_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users()
    me = pwd.getpwuid(os.geteuid())
    assert users.uid_of("newcomer") is None
    monkeypatch.setattr(pwd, "getpwnam", lambda name: me)
    assert users.uid_of("newcomer") == me.pw_uid
