"""The user database: users by name and number, and their groups (passwd(5), group(5), through NSS).

Answers are remembered until `flush`, since NSS may ask the network; only good ones, so that
nobody can fill the memory with names that do not exist.
"""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple


class User(NamedTuple):
    """`gids`: all groups of the user, sorted, the primary one `gid` included."""

    uid: int
    gid: int
    name: str
    home: str
    gids: tuple[int, ...]


class Users:
    """The users as this process sees them."""

    __slots__ = ("_uids", "_users")

    def __init__(self) -> None:
        self._users: dict[int, User] = {}
        self._uids: dict[str, int] = {}

    def flush(self) -> None:
        """Forget all answers: the database may have changed (on a reload)."""
        self._users.clear()
        self._uids.clear()

    def uid_of(self, name: str) -> int | None:
        """The uid of the user `name`, None if there is no such user.  The text is a name only."""
        uid = self._uids.get(name)
        if uid is None:
            try:
                uid = self._uids[name] = pwd.getpwnam(name).pw_uid
            except (KeyError, ValueError):  # unknown; or a NUL in it, or no text
                return None
        return uid

    def user(self, uid: int) -> User | None:
        """The user with the number `uid`, None if the database has none."""
        user = self._users.get(uid)
        if user is None:
            try:
                entry = pwd.getpwuid(uid)
            except (KeyError, OverflowError):  # unknown; or too large a number
                return None
            gids = {entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}
            user = self._users[uid] = User(
                uid, entry.pw_gid, entry.pw_name, entry.pw_dir, tuple(sorted(gids))
            )
        return user
