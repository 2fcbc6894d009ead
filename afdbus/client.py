"""A small blocking client of a bus, for our own commands: one call after the other.

Nothing that would serve a program: what is no answer to the call is dropped.
"""

from __future__ import annotations

import os
import socket
from types import TracebackType
from typing import Any, Self

from afdbus.errors import AddressError, BusError, ProtocolViolation
from afdbus.sasl.client import ClientHandshake
from afdbus.wire.address import Address, parse
from afdbus.wire.decode import decode
from afdbus.wire.encode import encode
from afdbus.wire.header import ERROR, FIXED, METHOD_RETURN, frame_length
from afdbus.wire.header import parse as parse_header
from afdbus.wire.message import BUS_NAME, BUS_PATH, method_call

# What an answer of a bus to a command may measure, in bytes.
MAX_ANSWER = 16 * 1024 * 1024
# Seconds after which a bus that says nothing is given up.
TIMEOUT = 30.0


class Client:
    """A connection to the bus at `address` that has said Hello; close it, or use it in `with`.

    Raises AddressError, OSError, ProtocolViolation (also in `call`).
    """

    def __init__(self, address: str) -> None:
        self._sock = _connected(address)
        self._data = b""
        self._serial = 0
        try:
            self._authenticate()
            self.name: str = self.call(BUS_NAME, "Hello")[0]
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def call(
        self, interface: str, member: str, signature: str = "", *values: Any
    ) -> tuple[Any, ...]:
        """Call a method of the bus itself: what it answers.  Raises BusError, its error."""
        self._serial += 1
        body = encode(signature, *values)
        self._sock.sendall(
            method_call(self._serial, BUS_NAME, BUS_PATH, interface, member, signature, body)
        )
        while True:
            frame, head = self._frame()
            header = parse_header(frame, 0, head)
            if header.reply_serial != self._serial:
                continue
            values = decode(header.signature, header.little, frame, head, len(frame))
            if header.type == METHOD_RETURN:
                return values
            if header.type == ERROR:
                text = values[0] if values and isinstance(values[0], str) else ""
                raise BusError(header.error_name or "", text)

    def _authenticate(self) -> None:
        handshake = ClientHandshake(os.geteuid(), want_fds=False)
        self._sock.sendall(handshake.start())
        while not handshake.done:
            self._sock.sendall(handshake.receive(self._received()))
        self._data = handshake.leftover

    def _frame(self) -> tuple[bytes, int]:
        """The next message and the length of its header."""
        while len(self._data) < FIXED:
            self._data += self._received()
        head, end = frame_length(self._data, 0, MAX_ANSWER)
        while len(self._data) < end:
            self._data += self._received()
        frame, self._data = self._data[:end], self._data[end:]
        return frame, head

    def _received(self) -> bytes:
        data = self._sock.recv(65536)
        if not data:
            raise ProtocolViolation("the bus has closed the connection")
        return data


def _connected(address: str) -> socket.socket:
    """A socket for the first of the addresses that somebody listens on."""
    failure: OSError | None = None
    for one in parse(address):
        where = _where(one)
        if where is None:
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(where)
        except OSError as error:
            sock.close()
            failure = failure or error
        else:
            return sock
    raise failure or AddressError(f"no address of a Unix socket: {address}")


def _where(address: Address) -> bytes | None:
    if address.method == "unix":
        for key, prefix in (("path", b""), ("abstract", b"\0")):
            if key in address.options:
                return prefix + address.options[key].encode("utf-8", "surrogateescape")
    return None
