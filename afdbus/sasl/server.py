"""The server's side of the handshake: bytes in, bytes out, and in the end who it is.

D-Bus specification, "Authentication Protocol"; answers and error texts are dbus-daemon's, byte
for byte.  It is a table of states and commands: no clock (`auth_timeout` is the caller's), no
socket, and memory for one line only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Final

from afdbus.errors import ProtocolViolation
from afdbus.identity import Identity
from afdbus.sasl.mechanisms import (
    MECHANISMS,
    Anonymous,
    Authorized,
    Challenge,
    CookieSha1,
    External,
    Keyring,
    Mechanism,
)

MAX_BUFFER: Final = 16 * 1024  # dbus-daemon: what it keeps of input, and of output, in a handshake
PIECE: Final = 2048  # dbus-daemon: what it reads at once in a handshake
MAX_REFUSALS: Final = 6  # dbus-daemon: the sixth REJECTED is the last word


class HandshakeFailed(ProtocolViolation):
    """The handshake is over; `farewell` is to be sent (it may be empty), then close."""

    def __init__(self, text: str, farewell: bytes = b"") -> None:
        super().__init__(text)
        self.farewell = farewell


def words(text: bytes) -> tuple[bytes, bytes]:
    """`text` up to the first blanks (spaces, tabs), and what follows them."""
    word, _, rest = text.partition(b" ")
    if b"\t" in word:
        word, _, rest = text.partition(b"\t")
    return word, rest.lstrip(b" \t")


def from_hex(text: bytes) -> bytes | None:
    """`text` decoded, or None.  A digit without its partner is the high one, as in dbus-daemon."""
    # bytes.fromhex would pass over white space.
    if not text.isalnum():
        return None if text else b""
    try:
        return bytes.fromhex((text + b"0" if len(text) & 1 else text).decode("ascii"))
    except ValueError:
        return None


def error_line(text: str) -> bytes:
    return b'ERROR "%b"\r\n' % text.encode()


UNKNOWN_COMMAND: Final = error_line("Unknown command")
INVALID_HEX: Final = error_line("Invalid hex encoding")
_FDS_IMPOSSIBLE: Final = error_line(
    "Unix FD passing not supported, not authenticated or otherwise not possible"
)


_NEGOTIATE: Final = b"NEGOTIATE_UNIX_FD\r\n"
_BEGIN: Final = b"BEGIN\r\n"


@lru_cache(maxsize=64)
def _claim(uid: int) -> bytes:
    """What most clients say first: who they are."""
    return b"\0AUTH EXTERNAL %b\r\n" % str(uid).encode().hex().encode()


class ServerHandshake:
    """One handshake.  Give it what was read, send what it answers, until `done`.

    `identity` is the peer's as the kernel told it; `guid` goes into OK; `mechanisms` are the
    allowed ones (None: all that exist); `own_uid` is the daemon's, the only user for
    DBUS_COOKIE_SHA1, which also needs a `keyring`; `allow_fds` says whether the transport can
    pass descriptors.

    When `done`, `uid` is who it is (None: anonymous) by which `mechanism`, `unix_fds` whether
    descriptors were agreed upon, and `leftover` the beginning of the message stream.  Whether
    such a peer may stay is another question (dbus-daemon, too, says OK first and cuts after BEGIN).
    """

    __slots__ = (
        "_answers",
        "_attempt",
        "_greeted",
        "_identity",
        "_incoming",
        "_keyring",
        "_mechanisms",
        "_ok",
        "_own_uid",
        "_refusals",
        "_state",
        "allow_fds",
        "done",
        "leftover",
        "mechanism",
        "uid",
        "unix_fds",
    )

    def __init__(
        self,
        identity: Identity,
        guid: str,
        *,
        mechanisms: Collection[str] | None,
        own_uid: int,
        allow_fds: bool,
        keyring: Keyring | None,
    ) -> None:
        self._identity = identity
        self._ok = b"OK %b\r\n" % guid.encode()
        self._mechanisms = mechanisms
        self._own_uid = own_uid
        self._keyring = keyring
        self._attempt: Mechanism | None = None
        self._greeted = False
        self._incoming = b""
        self._refusals = 0
        self._state = _WAITING_FOR_AUTH
        self.allow_fds = allow_fds
        self.done = False
        self.leftover = b""
        self.mechanism = ""
        self.uid: int | None = None
        self.unix_fds = False

    def receive(self, data: bytes) -> bytes:
        """The answer to `data`, which may end anywhere; b"" if there is nothing to say (yet).

        Raises HandshakeFailed when the connection is to be closed.  An answer may be eight times
        as long as its question: send it before reading more, and memory is bounded.
        """
        if self.done:
            raise RuntimeError("the handshake is over; this belongs to the message stream")
        if self._state is _CLOSED:
            raise HandshakeFailed("the handshake has failed before")
        position = 0
        # What nearly all clients say, each in a read of its own: churn -15 us a connection.
        if self._state is _WAITING_FOR_BEGIN and not self._incoming:
            if data == _NEGOTIATE:
                return self._negotiate(b"")
            if data.startswith(_BEGIN):
                self._state = _AUTHENTICATED
                self.done = True
                self.leftover = data[len(_BEGIN) :]
                return b""
        elif not self._greeted:
            if not data:
                return b""
            uid = self._identity.uid
            if uid is not None and data == _claim(uid) and self._allows("EXTERNAL"):
                self._greeted = True
                self._state = _WAITING_FOR_BEGIN
                self.mechanism = "EXTERNAL"
                self.uid = uid
                return self._ok
            if data[0]:
                self._state = _CLOSED
                raise HandshakeFailed("the first byte is not NUL")
            self._greeted = True
            position = 1
        answer = b""
        # In pieces as dbus-daemon reads them, since its limits count from piece to piece.
        while position < len(data):
            end = position + PIECE
            answer += self._piece(self._incoming + data[position:end], answer)
            if self.done:
                self.leftover += data[end:]
                break
            position = end
        return answer

    def _piece(self, buffer: bytes, before: bytes) -> bytes:
        """The answers to the whole lines in `buffer`; keeps the rest.  `before`: unsent as yet."""
        answers = b""
        start = 0
        while True:
            if len(buffer) - start > MAX_BUFFER or len(answers) > MAX_BUFFER:
                self._state = _CLOSED
                raise HandshakeFailed("too much data in the handshake", before + answers)
            end = buffer.find(b"\r\n", start)
            if end < 0:
                self._incoming = buffer[start:]
                return answers
            answers += self._line(buffer[start:end])
            start = end + 2
            if self._state is _AUTHENTICATED:
                self.done = True
                self._incoming = b""
                self.leftover = buffer[start:]
                return answers
            if self._state is _CLOSED:
                raise HandshakeFailed("not authenticated", before + answers)

    def _line(self, line: bytes) -> bytes:
        deed = self._state.get(line)
        arguments = b""
        if deed is None:  # not a bare command
            if not line.isascii() or b"\0" in line:
                return error_line("Command contained non-ASCII")
            command, arguments = words(line)
            deed = self._state.get(command, UNKNOWN_COMMAND)
        return deed if isinstance(deed, bytes) else deed(self, arguments)

    # The deeds of the tables below: arguments of the command in, answer out.

    def _auth(self, arguments: bytes) -> bytes:
        name, response = words(arguments)
        mechanism = name.decode("ascii")
        if mechanism not in MECHANISMS or not self._allows(mechanism):
            return self._refuse()
        self.mechanism = mechanism
        if mechanism == "EXTERNAL":
            self._attempt = External(self._identity)
        elif mechanism == "DBUS_COOKIE_SHA1":
            self._attempt = CookieSha1(self._own_uid, self._keyring)
        else:
            self._attempt = Anonymous()
        return self._data(response)

    def _data(self, arguments: bytes) -> bytes:
        response = from_hex(arguments)
        if response is None:
            return INVALID_HEX
        assert self._attempt is not None  # only the state after AUTH leads here
        outcome = self._attempt.step(response)
        if isinstance(outcome, Authorized):
            self.uid = outcome.uid
            self._state = _WAITING_FOR_BEGIN
            return self._ok
        if isinstance(outcome, Challenge):
            self._state = _WAITING_FOR_DATA
            return b"DATA %b\r\n" % outcome.data.hex().encode() if outcome.data else b"DATA\r\n"
        return self._refuse()

    def _refuse(self, _arguments: bytes = b"") -> bytes:
        self._attempt = None
        self.mechanism = ""
        self.uid = None
        # An agreement on descriptors outlives the refusal, as in dbus-daemon.
        self._refusals += 1
        self._state = _CLOSED if self._refusals >= MAX_REFUSALS else _WAITING_FOR_AUTH
        allowed = filter(self._allows, MECHANISMS)
        return " ".join(["REJECTED", *allowed]).encode() + b"\r\n"

    def _allows(self, mechanism: str) -> bool:
        return self._mechanisms is None or mechanism in self._mechanisms

    def _negotiate(self, _arguments: bytes) -> bytes:
        if not self.allow_fds:
            return _FDS_IMPOSSIBLE
        self.unix_fds = True
        return b"AGREE_UNIX_FD\r\n"

    def _begin(self, _arguments: bytes) -> bytes:
        self._state = _AUTHENTICATED
        return b""

    def _close(self, _arguments: bytes) -> bytes:
        self._state = _CLOSED
        return b""


_Deed = bytes | Callable[[ServerHandshake, bytes], bytes]
_State = Mapping[bytes, _Deed]

# What a command does in each state: a fixed answer, or a deed.  All others are unknown.
_WAITING_FOR_AUTH: Final[_State] = {
    b"AUTH": ServerHandshake._auth,
    b"CANCEL": error_line("Not currently in an auth conversation"),
    b"DATA": error_line("Not currently in an auth conversation"),
    b"BEGIN": ServerHandshake._close,
    b"ERROR": ServerHandshake._refuse,
    b"NEGOTIATE_UNIX_FD": error_line("Need to authenticate first"),
}
_WAITING_FOR_DATA: Final[_State] = {
    b"AUTH": error_line("Sent AUTH while another AUTH in progress"),
    b"CANCEL": ServerHandshake._refuse,
    b"DATA": ServerHandshake._data,
    b"BEGIN": ServerHandshake._close,
    b"ERROR": ServerHandshake._refuse,
    b"NEGOTIATE_UNIX_FD": error_line("Need to authenticate first"),
}
_WAITING_FOR_BEGIN: Final[_State] = {
    b"AUTH": error_line("Sent AUTH while expecting BEGIN"),
    b"CANCEL": ServerHandshake._refuse,
    b"DATA": error_line("Sent DATA while expecting BEGIN"),
    b"BEGIN": ServerHandshake._begin,
    b"ERROR": ServerHandshake._refuse,
    b"NEGOTIATE_UNIX_FD": ServerHandshake._negotiate,
}
# No command leads out of these two.
_AUTHENTICATED: Final[_State] = {}
_CLOSED: Final[_State] = {}
