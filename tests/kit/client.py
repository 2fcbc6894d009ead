"""A blocking client over a real socket that does nothing by itself.

Every wait is bounded: a bus that does not answer fails the test with what was waited for.  Nothing
sleeps; where a test must know that the bus is past a point, it asks the bus something (`sync`).
"""

from __future__ import annotations

import array
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes

from kit.message import BUS, METHOD_CALL, Message, Received, call, total_length

TIMEOUT = 60.0
"""Seconds after which silence is a failure: far more than a loaded machine needs."""


class HangError(AssertionError):
    """The bus did not answer in time."""


class ClosedError(AssertionError):
    """The bus closed the connection while the test waited for something."""


def dial(
    address: str, uid: int | None = None, gids: Sequence[int] | None = None
) -> socket.socket:
    """A connected socket for the first entry of a printed address.

    As root one may connect as another user, and as a member of the groups `gids`, the first of
    which is the primary one.
    """
    method, _, rest = address.split(";", maxsplit=1)[0].partition(":")
    options = dict(re.findall(r"([a-z]+)=([^,]*)", rest))
    where: Any
    if method == "unix":
        sock = socket.socket(socket.AF_UNIX)
        if "path" in options:
            where = unquote_to_bytes(options["path"])
        else:
            where = b"\0" + unquote_to_bytes(options["abstract"])
    else:
        sock = socket.socket()
        where = (options["host"], int(options["port"]))
    sock.settimeout(TIMEOUT)
    with ExitStack() as undo:
        if gids is not None:
            undo.callback(os.setgroups, os.getgroups())
            os.setgroups(gids[1:])
            undo.callback(os.setegid, os.getegid())
            os.setegid(gids[0])
        if uid is not None:
            os.seteuid(uid)
            undo.callback(os.seteuid, 0)
        try:
            sock.connect(where)
        except OSError:
            sock.close()
            raise
    return sock


class RawClient:
    """One connection: to an address, or by a socket that is connected already."""

    def __init__(
        self,
        where: str | socket.socket,
        uid: int | None = None,
        gids: Sequence[int] | None = None,
    ) -> None:
        self.sock = dial(where, uid, gids) if isinstance(where, str) else where
        self.sock.settimeout(TIMEOUT)
        self.uid = os.geteuid() if uid is None else uid
        self.name = ""
        self.serial = 0
        self.data = bytearray()
        self.came: list[int] = []

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        while self.came:
            os.close(self.came.pop())

    # -- bytes

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """All the bytes; the descriptors go with the first of them."""
        try:
            if fds:
                packed = array.array("i", fds).tobytes()
                sent = self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
                data = data[sent:]
            if data:
                self.sock.sendall(data)
        except TimeoutError:
            raise HangError(f"the bus has read nothing for {TIMEOUT} s") from None
        except (ConnectionResetError, BrokenPipeError):
            raise ClosedError("the bus closed the connection while we were sending") from None

    def fill(self, waiting_for: str) -> None:
        try:
            data, ancillary, flags, _ = self.sock.recvmsg(65536, 4096, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise HangError(
                f"the bus was silent for {TIMEOUT} s; waited for {waiting_for}"
            ) from None
        except (ConnectionResetError, BrokenPipeError):
            data, ancillary, flags = b"", [], 0
        for _, _, packed in ancillary:
            fds = array.array("i")
            fds.frombytes(packed)
            self.came += fds
        assert not flags & socket.MSG_CTRUNC, "descriptors were cut off"
        if not data:
            left = f" in the middle of a message: {bytes(self.data)!r}" if self.data else ""
            raise ClosedError(f"the bus closed the connection{left}; waited for {waiting_for}")
        self.data += data

    # -- handshake

    def send_line(self, line: str | bytes) -> None:
        self.send_bytes((line.encode() if isinstance(line, str) else line) + b"\r\n")

    def read_line(self) -> str:
        while b"\r\n" not in self.data:
            self.fill("a line of the handshake")
        line, _, self.data = self.data.partition(b"\r\n")
        return line.decode()

    def external(self) -> str:
        """AUTH EXTERNAL with our own uid, as nearly every client does it."""
        return f"AUTH EXTERNAL {str(self.uid).encode().hex()}"

    def authenticate(self, unix_fds: bool = True) -> str:
        """The usual handshake up to BEGIN; answers the server's GUID."""
        self.send_bytes(b"\0")
        self.send_line(self.external())
        answer = self.read_line()
        assert re.fullmatch("OK [0-9a-f]{32}", answer), answer
        if unix_fds:
            self.send_line("NEGOTIATE_UNIX_FD")
            assert self.read_line() == "AGREE_UNIX_FD"
        self.send_line("BEGIN")
        return answer[3:]

    def join(self) -> str:
        """The handshake, then Hello; answers the unique name."""
        self.authenticate()
        return self.hello()

    def hello(self) -> str:
        """Say Hello; the two messages that answer it are read and checked."""
        serial = self.send(call("Hello"))
        reply = self.read()
        assert reply.brief[0] == "return", reply
        assert reply.reply_serial == serial
        (self.name,) = reply.args
        assert self.read().brief == ("signal", "NameAcquired", self.name)
        return self.name

    # -- messages

    def send(self, message: Message) -> int:
        """Send it under its own serial or the next one, which is the answer."""
        if message.serial is None:
            self.serial += 1
            serial = self.serial
        else:
            serial = message.serial
        self.send_bytes(message.pack(serial), message.fds)
        return serial

    def read(self, waiting_for: str = "a message") -> Received:
        """The next message."""
        while len(self.data) < 16 or len(self.data) < total_length(bytes(self.data[:16])):
            self.fill(waiting_for)
        length = total_length(bytes(self.data[:16]))
        received = Received(bytes(self.data[:length]))
        del self.data[:length]
        received.fds = self.came[: received.unix_fds]
        del self.came[: received.unix_fds]
        assert len(received.fds) == received.unix_fds, "descriptors are missing"
        return received

    def read_until(self, fits: Callable[[Received], bool], waiting_for: str) -> list[Received]:
        """The messages up to and with the first one that fits."""
        messages: list[Received] = []
        while not messages or not fits(messages[-1]):
            messages.append(self.read(f"{waiting_for} (so far: {messages[-20:]})"))
        return messages

    def exchange(self, message: Message) -> list[Received]:
        """Send a call and read up to the bus's answer, which is the last in the list."""
        serial = self.send(message)
        return self.read_until(
            lambda m: m.reply_serial == serial and m.sender in (BUS, None),
            f"the answer to {message}",
        )

    def ask(self, message: Message) -> Received:
        """Send a call and read its answer, which must be the very next message."""
        messages = self.exchange(message)
        assert len(messages) == 1, f"messages before the answer: {messages}"
        return messages[-1]

    def refusal(self, message: Message) -> tuple[str, str]:
        """Send a call that the bus refuses: the error's name, without what the specification's
        begin with, and its text."""
        kind, name, text = self.ask(message).brief
        assert kind == "error"
        return name.removeprefix(f"{BUS}.Error."), text

    def bus(self, member: str, signature: str = "", *args: Any) -> Received:
        """Call a method of the bus; its answer must be the very next message."""
        return self.ask(call(member, signature, *args))

    def match(self, rule: str) -> None:
        assert self.bus("AddMatch", "s", rule).brief == ("return",)

    def own(self, name: str, flags: int = 0) -> int:
        """RequestName; answers its result, the signals that came with it are dropped."""
        answer = self.exchange(call("RequestName", "su", name, flags))[-1]
        assert answer.brief[0] == "return", answer
        result: int = answer.args[0]
        return result

    def sync(self) -> list[Received]:
        """One round trip to the bus: all that it had for us before, in order."""
        return self.exchange(call("GetId"))[:-1]

    def briefs(self) -> list[tuple[Any, ...]]:
        return [message.brief for message in self.sync()]

    def until_owned(self, name: str, owned: bool = True) -> None:
        """Ask until somebody owns the name."""
        deadline = time.monotonic() + TIMEOUT
        while self.bus("NameHasOwner", "s", name).args[0] is not owned:
            assert time.monotonic() < deadline, f"owned={not owned} after {TIMEOUT} s: {name}"

    def until_gone(self, name: str) -> None:
        """Ask until nobody owns the name any more."""
        self.until_owned(name, owned=False)

    def receive_call(self) -> Received:
        """The next message, which must be a method call."""
        message = self.read("a method call")
        assert message.type == METHOD_CALL, message
        return message

    def closed(self) -> list[Received]:
        """Read until the bus closes the connection; answers what came before that."""
        messages = []
        try:
            while True:
                messages.append(self.read("the end of the connection"))
        except ClosedError:
            assert not self.data, f"half a message at the end: {bytes(self.data)!r}"
        return messages

    def alive(self) -> None:
        """The connection still works."""
        assert self.sync() == []
