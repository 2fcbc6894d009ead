"""Users as they are named on a command line and in a policy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from afdbus.host.users import User, Users
from afdbus.identity import Identity
from afdbus.policy.written import Holder
from afdbus.tools.command import UsageError


class Person(NamedTuple):
    """Somebody on the bus: `identity` as policies see it; `user` is None if nobody is known."""

    identity: Identity
    user: User | None

    @property
    def holder(self) -> Holder | None:
        """The `<policy>` for this user alone; None if there can be none."""
        if self.user is None:
            return None
        # A name that looks like a number would be read as one.
        name = self.user.name
        return Holder("user", str(self.user.uid) if name[:1].isdigit() else name)

    def __str__(self) -> str:
        if self.user is not None:
            return f"{self.user.name} (uid {self.user.uid})"
        return "somebody" if self.identity.uid is None else f"uid {self.identity.uid}"


def add_person_options(parser: argparse._ActionsContainer) -> None:
    """Options for the user who is meant: `uid`, `user` and `gids`."""
    parser.add_argument("--uid", type=int, metavar="N", help="the user, by number")
    parser.add_argument("--user", metavar="NAME", help="the user, by name")
    parser.add_argument(
        "--gid",
        type=int,
        action="append",
        dest="gids",
        metavar="N",
        help="a group of the process (default: the groups of the user database)",
    )


SOMEBODY = Person(Identity(), None)


def person(uid: int | None, name: str | None, gids: Sequence[int], users: Users) -> Person:
    """The user with this number or name; without `gids`, in the groups of the user database.

    Raises `UsageError` for a name that nobody has; a number need not be anybody's.
    """
    if name is not None:
        uid = users.uid_of(name)
        if uid is None:
            raise UsageError(f"there is no user {name!r}")
    if uid is None:
        return SOMEBODY
    user = users.user(uid)
    groups = tuple(sorted(set(gids))) or (None if user is None else user.gids)
    return Person(Identity(uid=uid, gids=groups), user)
