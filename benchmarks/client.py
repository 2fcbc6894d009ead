"""A client that costs little, so that one Python process can keep a daemon busy.

Messages of a load are all equally long and differ in their serials only.  So many of them are
made, or looked through, in one operation on an array of words, and what remains for each message
is its own `send`, as real clients do it.
"""

from __future__ import annotations

import os
import re
import socket
from array import array
from urllib.parse import unquote_to_bytes

from afdbus.wire.decode import decode
from afdbus.wire.encode import encode
from afdbus.wire.header import METHOD_CALL, METHOD_RETURN, frame_length, parse
from afdbus.wire.message import BUS_INTERFACE, BUS_NAME, BUS_PATH, build

MAX_MESSAGE = 128 * 1024 * 1024
SILENCE = 20.0  # seconds after which a daemon has stalled

# One for all receivers: a large `recv` would ask the kernel for new pages each time.
_room = memoryview(bytearray(256 * 1024))

_SERIAL = 2  # the word of a message in which its serial is


class Client:
    """A connection with a unique name.  It blocks until `sock.setblocking(False)`."""

    def __init__(self, address: str) -> None:
        """Connect to the first entry of `address` (a unix: one), authenticate, say Hello."""
        options = dict(re.findall(r"([a-z]+)=([^,;]*)", address))
        path = unquote_to_bytes(options.get("path") or "\0" + options["abstract"])
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SILENCE)
        self.sock.connect(path)
        self.serial = 0
        self._rest = b""
        self._say(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode(), b"OK ")
        self._say(b"NEGOTIATE_UNIX_FD", b"AGREE_UNIX_FD")
        self.sock.sendall(b"BEGIN\r\n")
        self.name: str = decode("s", True, *self.call("Hello"))[0]

    def _say(self, line: bytes, expected: bytes) -> None:
        self.sock.sendall(line + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n"):
            answer += self.sock.recv(512)
        assert answer.startswith(expected), answer

    def next_serials(self, count: int) -> array[int]:
        """`count` serials that were not used yet."""
        first = self.serial + 1
        self.serial += count
        return array("I", range(first, first + count))

    def driver_call(self, member: str, signature: str = "", *values: object) -> bytes:
        """A call to the driver."""
        return build(
            METHOD_CALL, self.next_serials(1)[0], flags=0, path=BUS_PATH, interface=BUS_INTERFACE,
            member=member, destination=BUS_NAME, sender=None, signature=signature,
            body=encode(signature, *values),
        )  # fmt: skip

    def call(
        self, member: str, signature: str = "", *values: object
    ) -> tuple[bytes, int, int]:
        """Call the driver and wait: (data, start, end) of the reply's body.

        Whatever comes before the reply is dropped, so that afterwards nothing is on its way.
        """
        self.sock.sendall(self.driver_call(member, signature, *values))
        while True:
            data = self._rest + self.sock.recv(65536)
            pos = 0
            while len(data) - pos >= 16:
                body, end = frame_length(data, pos, MAX_MESSAGE)
                if end > len(data):
                    break
                header = parse(data, pos, body)
                pos = end
                if header.reply_serial == self.serial:
                    assert header.type == METHOD_RETURN, data[body:end]
                    self._rest = data[end:]
                    return data, body, end
            self._rest = data[pos:]

    def own(self, name: str) -> None:
        self.call("RequestName", "su", name, 4)

    def close(self) -> None:
        self.sock.close()


class Template:
    """A message that is sent over and over with other serials."""

    def __init__(self, message: bytes) -> None:
        assert len(message) % 4 == 0, "a load of messages is an array of words"
        self.length = len(message)
        self.type = message[1]
        self._words = array("I", message)
        body, _ = frame_length(message, 0, MAX_MESSAGE)
        self.reply_serial = parse(message, 0, body).reply_serial_at // 4

    def many(self, serials: array[int], replies_to: array[int] | None = None) -> memoryview:
        """As many messages as there are serials, as bytes."""
        words = self._words * len(serials)
        step = len(self._words)
        words[_SERIAL::step] = serials
        if replies_to is not None:
            words[self.reply_serial :: step] = replies_to
        return memoryview(words).cast("B")


class Sender:
    """Writes messages to a non-blocking socket, each with a `send` of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self._send = sock.send
        self._queue: list[memoryview] = []
        self._pos = 0
        self._length = 1

    @property
    def idle(self) -> bool:
        """Whether everything was written."""
        return not self._queue

    def push(self, messages: memoryview, length: int) -> None:
        """Write `messages`, each of `length` bytes, as far as the socket takes them."""
        self._queue.append(messages)
        self._length = length
        self.flush()

    def flush(self) -> None:
        send = self._send
        length = self._length
        while self._queue:
            data = self._queue[0]
            pos = self._pos
            try:
                while pos < len(data):
                    pos += send(data[pos : pos + length - pos % length])
            except BlockingIOError:
                self._pos = pos
                return
            self._pos = 0
            del self._queue[0]


class Receiver:
    """Reads messages of one type and length from a non-blocking socket."""

    def __init__(self, sock: socket.socket, type_: int) -> None:
        self._recv_into = sock.recv_into
        self._type = type_
        self._rest = b""
        self._length = 0

    def receive(self) -> bytes:
        """The whole messages that are there now, perhaps none."""
        try:
            data = bytes(_room[: self._recv_into(_room)])
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionError("the daemon closed a connection")
        if self._rest:
            data = self._rest + data
        if not self._length:
            if len(data) < 16:
                self._rest = data
                return b""
            self._length = frame_length(data, 0, MAX_MESSAGE)[1]
        whole = len(data) - len(data) % self._length
        self._rest = data[whole:]
        data = data[:whole]
        # An error, or anything else that nobody counts on, would be in the wrong place.
        if data[1 :: self._length].count(self._type) != whole // self._length:
            raise AssertionError(f"not a load of messages of type {self._type}: {data[:500]!r}")
        return data

    def count(self) -> int:
        """How many messages are there now."""
        data = self.receive()
        return len(data) // self._length if data else 0

    def serials(self) -> array[int]:
        """The serials of the messages that are there now."""
        data = self.receive()
        if not data:
            return array("I")
        return array("I", data)[_SERIAL :: self._length // 4]
