"""The SASL mechanisms, server's side: what a client claims, and whether it is believed.

D-Bus specification, "Authentication Protocol" and "Authentication Mechanisms"; where that leaves
a choice, dbus-daemon's.  A mechanism sees decoded responses only and answers each with a
challenge, a refusal or an authorization; lines, hex and states are `server.py`'s.  None of them
touches the world, except that the keyring it is given may.
"""

from __future__ import annotations

import re
from os import urandom
from typing import Final, NamedTuple, Protocol

from afdbus.identity import Identity

# In the order in which dbus-daemon lists them, whatever the order of the <auth> elements.
MECHANISMS: Final = ("EXTERNAL", "DBUS_COOKIE_SHA1", "ANONYMOUS")

COOKIE_CONTEXT: Final = "org_freedesktop_general"

CHALLENGE_BYTES: Final = 16  # dbus-daemon: 128 bits


class Keyring(Protocol):
    """What DBUS_COOKIE_SHA1 wants of the world: the users, and the cookies of our own user.

    A context names a set of cookies.  No method raises; whatever fails is None.
    """

    def uid_of(self, name: str) -> int | None:
        """The uid of the login name `name`."""

    def best_cookie(self, context: str) -> int | None:
        """The id of a cookie that is fresh enough to ask a client for, made if need be."""

    def proof(
        self, context: str, cookie: int, server_challenge: bytes, client_challenge: bytes
    ) -> bytes | None:
        """Lower-case hex SHA-1 of "server_challenge:client_challenge:" and the cookie in hex."""


class Challenge(NamedTuple):
    """The client is to answer `data` (may be empty)."""

    data: bytes = b""


class Authorized(NamedTuple):
    """The client is the user `uid`; None is anybody."""

    uid: int | None


Outcome = Challenge | Authorized | None  # None: refused

_ASK: Final = Challenge()


class Mechanism(Protocol):
    def step(self, response: bytes) -> Outcome:
        """The answer to one (decoded) response of the client, the initial one included."""


# strtol(text, &end, 0) with `end` at the end of the text.  Ten decimal digits hold any uid; hex
# and octal are bounded by the line, and int() is linear for them.
_number = re.compile(
    rb"[ \t-\r]*([+-]?)(?:(0[xX][0-9a-fA-F]+|[1-9][0-9]{0,9})|(0[0-7]*))"
).fullmatch


def parse_uid(text: bytes) -> int | None:
    """The number in `text` as dbus-daemon takes it (strtol: blanks, sign, 0x, octal), or None."""
    match = _number(text)
    if match is None:
        return None
    sign, number, octal = match.groups()
    value = int(number, 0) if number else int(octal, 8)
    return -value if sign == b"-" else value


def new_challenge() -> bytes:
    """A challenge for DBUS_COOKIE_SHA1, in hex, for either side."""
    return urandom(CHALLENGE_BYTES).hex().encode()


class External:
    """EXTERNAL: the kernel has said who it is; the client may repeat it, as a number.

    Login names are refused, as dbus-daemon refuses them since 1.14.  Without a uid from the
    kernel (TCP, an unmapped user) nobody is believed.  Over TCP, dbus-daemon believes a client
    that says nothing, or 4294967295 ((uid_t) -1), and cuts it after BEGIN, as no such user
    exists; here it is REJECTED and may try another mechanism.

    Whom a test made up (`Identity.virtual`) says who its process is, and is taken for the other.
    """

    __slots__ = ("_asked", "_uid", "_virtual")

    def __init__(self, identity: Identity) -> None:
        self._uid = identity.uid
        self._virtual = identity.virtual
        self._asked = False

    def step(self, response: bytes) -> Outcome:
        if self._uid is None:
            return None
        if response:
            uid = parse_uid(response)
            believed = uid is not None if self._virtual else uid == self._uid
            return Authorized(self._uid) if believed else None
        if not self._asked:
            self._asked = True
            return _ASK
        return Authorized(self._uid)


class CookieSha1:
    """DBUS_COOKIE_SHA1: the client can read a file of our own user.

    Only our own user is served: in anybody else's home directory the other could lead us astray
    by symbolic links (CVE-2019-12749).
    """

    __slots__ = ("_challenge", "_cookie", "_keyring", "_uid")

    def __init__(self, own_uid: int, keyring: Keyring | None) -> None:
        self._uid = own_uid
        self._keyring = keyring
        self._cookie: int | None = None
        self._challenge = b""

    def step(self, response: bytes) -> Outcome:
        if self._keyring is None:
            return None
        if self._cookie is None:
            return self._begin(self._keyring, response)
        return self._finish(self._keyring, self._cookie, response)

    def _begin(self, keyring: Keyring, user: bytes) -> Outcome:
        uid = parse_uid(user)
        if uid is None:
            uid = keyring.uid_of(user.decode("utf-8", "surrogateescape"))
        if uid != self._uid:
            return None
        self._cookie = keyring.best_cookie(COOKIE_CONTEXT)
        if self._cookie is None:
            return None
        self._challenge = new_challenge()
        return Challenge(b"%b %d %b" % (COOKIE_CONTEXT.encode(), self._cookie, self._challenge))

    def _finish(self, keyring: Keyring, cookie: int, response: bytes) -> Outcome:
        challenge, _, claimed = response.replace(b"\t", b" ").partition(b" ")
        claimed = claimed.lstrip(b" ")
        if not challenge or not claimed:
            return None
        # Compared plainly: our challenge is new each time, so timing teaches nothing.
        if keyring.proof(COOKIE_CONTEXT, cookie, self._challenge, challenge) != claimed:
            return None
        return Authorized(self._uid)


class Anonymous:
    """ANONYMOUS: anybody; the response is a trace for the log, and must be UTF-8 without NUL."""

    __slots__ = ()

    def step(self, response: bytes) -> Outcome:
        try:
            trace = response.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return None if "\0" in trace else Authorized(None)
