"""Users and groups as a configuration names them, and numbers as it writes them.

dbus-daemon reads every number with strtol, base 0, and takes a user or group "number" only if the
databases know it.
"""

from __future__ import annotations

import grp
import os
import pwd
import re

_LONG_MAX = 2**63 - 1
_UID_MAX = 2**32 - 2  # the highest but (uid_t) -1, which means "unset"

_number = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))").match


def strtol(text: str) -> tuple[int, int] | None:
    """C's strtol(text, &end, 0): the number and where it ended; None if there is none in range."""
    match = _number(text)
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    if len(match[0]) > 400:  # spaces and zeros apart no long is longer; int() refuses 4301 digits
        digits = (hexadecimal or octal or decimal).lstrip("0")
        if len(digits) > 22:
            return None
    value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    if sign == "-":
        value = -value
    return (value, match.end()) if -_LONG_MAX - 1 <= value <= _LONG_MAX else None


def _whole_number(text: str) -> int | None:
    found = strtol(text)
    return found[0] if found and found[1] == len(text) else None


class UserDatabase:
    """The system's users and groups (passwd, group, logind), each asked once.

    A new configuration brings a new one, so a reload sees what has changed.  `asked`: which names
    and numbers of users ("u" before it) and groups ("g") were asked for, and the answers; whoever
    wants to know what a part of a configuration asks for may clear it.
    """

    __slots__ = ("_groups", "_known", "asked")

    def __init__(self) -> None:
        self._groups: dict[int, tuple[int, ...] | None] = {}
        self._known: dict[str, int | None] = {}
        self.asked: dict[str, int | None] = {}

    def user(self, text: str) -> int | None:
        """The uid of a user's name or number; None when there is no such user."""
        return self.ask("u" + text)

    def group(self, text: str) -> int | None:
        """The gid of a group's name or number; None when there is no such group."""
        return self.ask("g" + text)

    def ask(self, key: str) -> int | None:
        """The answer to a key of `asked`."""
        if key not in self._known:
            self._known[key] = (self._user if key[0] == "u" else self._group)(key[1:])
        number = self.asked[key] = self._known[key]
        return number

    @staticmethod
    def _user(text: str) -> int | None:
        number = _whole_number(text)
        try:
            if number is None:
                return pwd.getpwnam(text).pw_uid
            return pwd.getpwuid(number).pw_uid if 0 <= number <= _UID_MAX else None
        except (KeyError, ValueError):  # ValueError: a NUL, or no bytes of the locale
            return None

    @staticmethod
    def _group(text: str) -> int | None:
        number = _whole_number(text)
        try:
            if number is None:
                return grp.getgrnam(text).gr_gid
            return grp.getgrgid(number).gr_gid if 0 <= number <= _UID_MAX else None
        except (KeyError, ValueError):
            return None

    def groups_of(self, uid: int) -> tuple[int, ...] | None:
        """The groups of a user, the primary one first; None when there is no such user."""
        if uid not in self._groups:
            try:
                entry = pwd.getpwuid(uid)
            except KeyError:
                # Not kept: any number of uids may come by, and one may be added any time.
                return None
            self._groups[uid] = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return self._groups[uid]

    @staticmethod
    def at_console(uid: int) -> bool:
        """Whether the user has a seat by logind, or else a file in /run/console (pam_console)."""
        if os.path.exists("/run/systemd/seats"):
            try:
                with open(f"/run/systemd/users/{uid}", encoding="utf-8") as state:
                    return any(line.startswith("SEATS=") and line[6:].strip() for line in state)
            except OSError:
                return False
        try:
            return os.path.exists(os.path.join("/run/console", pwd.getpwuid(uid).pw_name))
        except KeyError:
            return False
