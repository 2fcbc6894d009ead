"""The cookies of DBUS_COOKIE_SHA1, in ~/.dbus-keyrings of our own user.

D-Bus specification, "DBUS_COOKIE_SHA1": a file for each context with lines "id time secret", a
lock file beside it while it is rewritten, cookies used for five minutes and kept for seven.
Directory and files are opened once, without following links, and trusted only if what was
opened is ours and closed to all others.

dbus-daemon sleeps up to eight seconds for the lock.  A bus must not: whoever finds it taken gets
no cookie, unless a fresh one is there already; the lock is needed for a moment every five minutes.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from afdbus.host.users import Users

NEW_COOKIE_AFTER: Final = 5 * 60  # seconds, all of them dbus-daemon's
EXPIRES_AFTER: Final = NEW_COOKIE_AFTER + 2 * 60
MAX_TIME_TRAVEL: Final = 5 * 60
STALE_LOCK_AFTER: Final = 8
MAX_COOKIES: Final = 256
COOKIE_BYTES: Final = 24

_MAX_FILE: Final = 1024 * 1024
_MAX_ID: Final = 0x7FFFFFFF

# No path, no hidden file, nothing that separates words.
_context = re.compile(r"[^\x00\x80-\U0010ffff/\\. \t\r\n]+").fullmatch
_line = re.compile(rb"([0-9]{1,10})[ \t]+([0-9]{1,18})[ \t]+((?:[0-9a-fA-F]{2})+)").fullmatch


class Cookie(NamedTuple):
    """`created` in seconds since 1970; `secret` in lower-case hex."""

    id: int
    created: int
    secret: str


class CookieKeyring:
    """The keyring of the user we are: `sasl`'s `Keyring`, for either side of a handshake.

    `home` is found as dbus-daemon finds it (HOME, else the user database) if not given; `clock`
    gives seconds since 1970.  Only the owner of this process is served.
    """

    __slots__ = ("_clock", "_cookies", "_directory", "_users")

    def __init__(
        self, users: Users, home: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        home = os.path.expanduser("~") if home is None else home
        self._directory = os.path.join(home, ".dbus-keyrings")
        self._users = users
        self._clock = clock
        self._cookies: dict[str, tuple[Cookie, ...]] = {}

    def uid_of(self, name: str) -> int | None:
        return self._users.uid_of(name)

    def best_cookie(self, context: str) -> int | None:
        """The id of a cookie less than five minutes old, made if there is none."""
        try:
            directory = self._open_directory(make=True)
        except OSError:
            return None
        try:
            cookies = self._read(directory, context)
            if (fresh := self._fresh(cookies)) is None:
                cookies = self._add(directory, context)
                fresh = self._fresh(cookies)
        except OSError:
            return None
        finally:
            os.close(directory)
        self._cookies[context] = cookies
        return None if fresh is None else fresh.id

    def proof(
        self, context: str, cookie: int, server_challenge: bytes, client_challenge: bytes
    ) -> bytes | None:
        """What only he can know who can read the cookie; None if there is no such cookie."""
        secret = self._secret(context, cookie)
        if secret is None:
            return None
        # With OpenSSL, 3.4 MB and several milliseconds that nearly nobody has a use for.
        import hashlib

        text = b"%b:%b:%b" % (server_challenge, client_challenge, secret.encode("ascii"))
        return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode("ascii")

    def _secret(self, context: str, cookie: int) -> str | None:
        for known in self._cookies.get(context, ()):
            if known.id == cookie:
                return known.secret
        try:  # a client learns of a context only when the server names it
            directory = self._open_directory(make=False)
            try:
                cookies = self._read(directory, context)
            finally:
                os.close(directory)
        except OSError:
            return None
        return next((known.secret for known in cookies if known.id == cookie), None)

    def _fresh(self, cookies: tuple[Cookie, ...]) -> Cookie | None:
        since = self._clock() - NEW_COOKIE_AFTER
        return next((cookie for cookie in cookies if cookie.created > since), None)

    def _open_directory(self, *, make: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._directory, flags)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(self._directory, 0o700)
            fd = os.open(self._directory, flags)
        return _trusted(fd, stat.S_ISDIR)

    def _read(self, directory: int, context: str) -> tuple[Cookie, ...]:
        """The cookies that have not expired; none if there is no file.  Raises OSError."""
        if not _context(context):
            raise PermissionError("not the name of a context")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(context, flags, dir_fd=directory)
        except FileNotFoundError:
            return ()
        with open(_trusted(fd, stat.S_ISREG), "rb") as file:
            lines = file.read(_MAX_FILE).split(b"\n")
        now = self._clock()
        cookies = []
        for match in filter(None, map(_line, lines[:MAX_COOKIES])):
            cookie = Cookie(int(match[1]), int(match[2]), match[3].decode("ascii").lower())
            age = now - cookie.created
            if cookie.id <= _MAX_ID and -MAX_TIME_TRAVEL <= age <= EXPIRES_AFTER:
                cookies.append(cookie)
        return tuple(cookies)

    def _add(self, directory: int, context: str) -> tuple[Cookie, ...]:
        """The cookies with a new one, if still nobody has made one.  Raises OSError."""
        lock = context + ".lock"
        self._lock(directory, lock)
        try:
            cookies = self._read(directory, context)
            if self._fresh(cookies) is None:
                cookies = (*cookies[: MAX_COOKIES - 1], self._new(cookies))
                self._write(directory, context, cookies)
            return cookies
        finally:
            os.unlink(lock, dir_fd=directory)

    def _new(self, cookies: tuple[Cookie, ...]) -> Cookie:
        taken = {cookie.id for cookie in cookies}
        while True:
            number = int.from_bytes(os.urandom(4), "little") & _MAX_ID
            if number not in taken:
                return Cookie(number, int(self._clock()), os.urandom(COOKIE_BYTES).hex())

    def _lock(self, directory: int, name: str) -> None:
        """Take the lock, or raise FileExistsError.  One that is eight seconds old is nobody's."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=directory)
        except FileExistsError:
            made = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
            if self._clock() - made < STALE_LOCK_AFTER:
                raise
            os.unlink(name, dir_fd=directory)
            fd = os.open(name, flags, 0o600, dir_fd=directory)
        os.close(fd)

    def _write(self, directory: int, context: str, cookies: tuple[Cookie, ...]) -> None:
        # Renamed into place, but not synced: a cookie that a crash loses is made again.
        temporary = f"{context}.{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            with open(fd, "w", encoding="ascii") as file:
                file.writelines(f"{c.id} {c.created} {c.secret}\n" for c in cookies)
            os.rename(temporary, context, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(temporary, dir_fd=directory)
            raise


def _trusted(fd: int, is_kind: Callable[[int], bool]) -> int:
    """`fd`, if it is of the right kind, ours, and closed to all others; else PermissionError."""
    status = os.fstat(fd)
    if is_kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
        return fd
    os.close(fd)
    raise PermissionError("not private to its user")
