"""The file that `--learn` names: read at the start, and written by and by with what was learned.

It is one for an `<includedir>`, and may lie in one: it changes only when there is more in it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from afdbus.bus.learned import ABOUT, Learned
from afdbus.config.load import compose
from afdbus.errors import ConfigError

if TYPE_CHECKING:
    from afdbus.bus.ports import Journal
    from afdbus.host.users import Users

# How often it is written, in seconds, if there is more to be said.
EVERY = 10.0


class Lessons:
    """What was learned, and its file."""

    def __init__(self, path: str) -> None:
        """Go on with what is in the file, if it is there.

        Raises ConfigError if it is not one that was written here: it would be overwritten.
        """
        self.learned = Learned()
        self._path = path
        self._written = -1
        self._complaint = ""
        if not os.path.lexists(path):
            return
        try:
            with open(path, encoding="utf-8") as file:
                ours = ABOUT in file.read()
        except (OSError, ValueError) as error:
            raise ConfigError(str(error)) from None
        if not ours:
            raise ConfigError(f'"{path}" is there and was not written by --learn')
        buckets = compose(path).ruleset.buckets
        self.learned.keep(None, buckets.mandatory)
        for uid, rules in buckets.users.items():
            self.learned.keep(uid, rules)

    def write(self, users: Users, journal: Journal) -> None:
        """Write the file unless nothing has changed; what goes wrong is logged, once."""
        changes = self.learned.changes
        if changes == self._written:
            return

        def name_of(uid: int) -> str:
            user = users.user(uid)
            return str(uid) if user is None else user.name

        try:
            _replace(self._path, self.learned.text(name_of).encode())
        except OSError as error:
            complaint = f'Cannot write "{self._path}": {error.strerror}'
            if complaint != self._complaint:
                journal.warning(complaint)
            self._complaint = complaint
        else:
            self._written = changes
            self._complaint = ""


def _replace(path: str, data: bytes) -> None:
    """Put a file there at once.  Raises OSError."""
    # Not called *.conf, so that no <includedir> has half of it; a link there would be somebody's
    # who has no business there.
    new = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        os.unlink(new)
        raise
