"""Numbers, users and groups as a configuration writes them."""

from __future__ import annotations

import os
import pwd

import pytest

from afdbus.config.users import UserDatabase, strtol

LONG_MAX = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", (12, 2)),
        (" \t\n\v\f\r-12x", (-12, 9)),
        ("+0x1F", (31, 5)),
        ("0X1g", (1, 3)),
        ("0x", (0, 1)),
        ("0b1", (0, 1)),
        ("017", (15, 3)),
        ("08", (0, 1)),
        ("1_000", (1, 1)),
        ("\N{FULLWIDTH DIGIT TWO}", None),
        ("", None),
        ("-", None),
        ("x1", None),
        ("\N{NO-BREAK SPACE}1", None),
        (str(LONG_MAX), (LONG_MAX, 19)),
        (str(LONG_MAX + 1), None),
        (str(-LONG_MAX - 1), (-LONG_MAX - 1, 20)),
        (str(-LONG_MAX - 2), None),
        ("0" * 10_000 + "7", (7, 10_001)),
        ("9" * 10_000, None),
        ("0x" + "f" * 10_000, None),
        (" " * 10_000 + "7", (7, 10_001)),
    ],
)
def test_strtol(text: str, expected: tuple[int, int] | None) -> None:
    assert strtol(text) == expected


def test_users_and_groups() -> None:
    users = UserDatabase()
    assert users.user("root") == users.user("0") == users.user("0x0") == users.user(" 0") == 0
    assert users.group("root") == users.group("0") == 0
    for nobody in ("", "*", "no-such-user", "0 x", "-1", "4294967296", "9" * 30, "é", "a\0b"):
        assert users.user(nobody) is None
        assert users.group(nobody) is None


def test_groups_of_a_user() -> None:
    users = UserDatabase()
    me = pwd.getpwuid(os.getuid())
    groups = users.groups_of(me.pw_uid)
    assert groups is not None
    assert groups[0] == me.pw_gid
    assert set(groups) == set(os.getgrouplist(me.pw_name, me.pw_gid))
    unknown = next(uid for uid in range(54321, 60000) if users.user(str(uid)) is None)
    assert users.groups_of(unknown) is None
    assert not users.at_console(unknown)
