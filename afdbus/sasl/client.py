"""The client's side of the handshake, for our own tools: bytes in, bytes out.

D-Bus specification, "Authentication Protocol".  EXTERNAL first, then whatever the server names of
what we know, in its order, as libdbus does.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from afdbus.sasl.mechanisms import MECHANISMS, Keyring, new_challenge
from afdbus.sasl.server import (
    INVALID_HEX,
    MAX_BUFFER,
    UNKNOWN_COMMAND,
    HandshakeFailed,
    error_line,
    from_hex,
    words,
)

_TRACE: Final = b"afdbus"  # what ANONYMOUS lets us say of ourselves

_is_guid = re.compile(rb"[0-9a-fA-F]+").fullmatch

# The states; what is awaited.
_OK: Final = "OK, DATA or REJECTED"
_REJECTED: Final = "REJECTED"
_AGREEMENT: Final = "AGREE_UNIX_FD or ERROR"


class ClientHandshake:
    """One handshake.  Send `start()`, then what `receive` answers to what was read, until `done`.

    `uid` is who we are; None says nothing about it and leaves it to the kernel (EXTERNAL with an
    empty response).  `mechanisms` are those we may use; DBUS_COOKIE_SHA1 needs a `keyring`.
    `want_fds` asks for the passing of descriptors.

    When `done` (the last answer is still to be sent: it is BEGIN), `guid` is the server's,
    `mechanism` what it accepted, `unix_fds` whether descriptors may be passed, and `leftover`
    what it sent ahead of its time.
    """

    __slots__ = (
        "_incoming",
        "_keyring",
        "_mechanisms",
        "_state",
        "_to_try",
        "_uid",
        "_want_fds",
        "done",
        "guid",
        "leftover",
        "mechanism",
        "unix_fds",
    )

    def __init__(
        self,
        uid: int | None,
        *,
        mechanisms: Collection[str] = ("EXTERNAL",),
        want_fds: bool = True,
        keyring: Keyring | None = None,
    ) -> None:
        self._uid = uid
        self._mechanisms = [name for name in MECHANISMS if name in mechanisms]
        if not self._mechanisms:
            raise ValueError(f"no mechanism that exists among {mechanisms!r}")
        self._want_fds = want_fds
        self._keyring = keyring
        self._to_try: list[str] | None = None  # unknown until the first REJECTED
        self._incoming = b""
        self._state = _OK
        self.done = False
        self.guid = ""
        self.leftover = b""
        self.mechanism = ""
        self.unix_fds = False

    def start(self) -> bytes:
        """The first bytes to send, the NUL included."""
        return b"\0" + self._auth(self._mechanisms[0])

    def receive(self, data: bytes) -> bytes:
        """The answer to `data`, which may end anywhere; b"" if there is nothing to say (yet).

        Raises HandshakeFailed when the connection is to be closed.
        """
        if self.done:
            raise RuntimeError("the handshake is over; this belongs to the message stream")
        *lines, self._incoming = (self._incoming + data).split(b"\r\n")
        answer = b""
        for number, line in enumerate(lines, 1):
            answer += self._line(line)
            if self.done:
                self.leftover = b"\r\n".join([*lines[number:], self._incoming])
                return answer
        if len(self._incoming) > MAX_BUFFER:
            raise HandshakeFailed("the server does not end its line", answer)
        return answer

    def _line(self, line: bytes) -> bytes:
        if not line.isascii() or b"\0" in line:
            return error_line("Command contained non-ASCII")
        command, arguments = words(line)
        if self._state is _AGREEMENT:
            if command not in (b"AGREE_UNIX_FD", b"ERROR"):
                return UNKNOWN_COMMAND
            self.unix_fds = command == b"AGREE_UNIX_FD"
            return self._begin()
        if command == b"REJECTED":
            return self._next(arguments)
        if self._state is _REJECTED:
            raise HandshakeFailed("the server does not take CANCEL for an answer")
        if command == b"OK":
            return self._accepted(arguments)
        if command == b"DATA":
            return self._data(arguments)
        if command == b"ERROR":
            self._state = _REJECTED
            return b"CANCEL\r\n"
        return UNKNOWN_COMMAND

    def _auth(self, mechanism: str) -> bytes:
        self.mechanism = mechanism
        self._state = _OK
        response = _TRACE if mechanism == "ANONYMOUS" else self._user()
        return " ".join(filter(None, ["AUTH", mechanism, response.hex()])).encode() + b"\r\n"

    def _user(self) -> bytes:
        return b"" if self._uid is None else str(self._uid).encode()

    def _next(self, offered: bytes) -> bytes:
        if self._to_try is None:
            names = offered.decode("ascii").replace("\t", " ").split(" ")
            untried = self._mechanisms[1:]
            # Each once, whatever the server says.
            self._to_try = [name for name in dict.fromkeys(names) if name in untried]
        if not self._to_try:
            raise HandshakeFailed("the server accepts no mechanism that is left")
        return self._auth(self._to_try.pop(0))

    def _accepted(self, guid: bytes) -> bytes:
        if not _is_guid(guid):
            raise HandshakeFailed("the server's guid is not hex")
        self.guid = guid.decode("ascii")
        if not self._want_fds:
            return self._begin()
        self._state = _AGREEMENT
        return b"NEGOTIATE_UNIX_FD\r\n"

    def _begin(self) -> bytes:
        self.done = True
        return b"BEGIN\r\n"

    def _data(self, arguments: bytes) -> bytes:
        challenge = from_hex(arguments)
        if challenge is None:
            return INVALID_HEX
        if self.mechanism != "DBUS_COOKIE_SHA1":
            return b"DATA\r\n"  # the server asks again for what we would not say
        proof = self._proof(challenge)
        if proof is None:
            return error_line("Don't have the requested cookie ID")
        return b"DATA %b\r\n" % proof.hex().encode()

    def _proof(self, challenge: bytes) -> bytes | None:
        context, rest = words(challenge)
        number, theirs = words(rest)
        if self._keyring is None or not number.isdigit() or len(number) > 10 or not theirs:
            return None
        ours = new_challenge()
        try:
            proof = self._keyring.proof(context.decode("ascii"), int(number), theirs, ours)
        except UnicodeDecodeError:
            return None
        return None if proof is None else b"%b %b" % (ours, proof)
