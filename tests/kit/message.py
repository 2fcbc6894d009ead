"""Messages from lists of header fields, right or wrong, and messages as they came.

The marshalling is the specification's ("Marshaling (Wire Format)") in its shortest form, written
for this purpose alone: it checks nothing, so that a test can say anything.  `Raw` stands for bytes
that are put as they are wherever a value is expected.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY_EXPECTED, NO_AUTO_START, ALLOW_INTERACTIVE_AUTHORIZATION = 1, 2, 4

PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL = 1, 2, 3, 4, 5
DESTINATION, SENDER, SIGNATURE, UNIX_FDS = 6, 7, 8, 9

FIELD_TYPES = {
    PATH: "o", INTERFACE: "s", MEMBER: "s", ERROR_NAME: "s", REPLY_SERIAL: "u",
    DESTINATION: "s", SENDER: "s", SIGNATURE: "g", UNIX_FDS: "u",
}  # fmt: skip

FIXED = {
    "y": ("B", 1), "b": ("I", 4), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4),
    "x": ("q", 8), "t": ("Q", 8), "d": ("d", 8), "h": ("I", 4),
}  # fmt: skip
ALIGNMENT = {
    **{code: size for code, (_, size) in FIXED.items()},
    "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8,
}  # fmt: skip

Field = tuple[int, str, Any]


class Raw(bytes):
    """Bytes that stand for a marshalled value."""


def first_type(signature: str) -> str:
    """The first complete type of a signature that is known to be good."""
    depth = 0
    for position, code in enumerate(signature):
        if code in "({":
            depth += 1
        elif code in ")}":
            depth -= 1
        if depth == 0 and code != "a":
            return signature[: position + 1]
    raise ValueError(f"no complete type in {signature!r}")


def types_of(signature: str) -> list[str]:
    types = []
    while signature:
        types.append(first_type(signature))
        signature = signature[len(types[-1]) :]
    return types


class Writer:
    """Appends values in one byte order; alignment counts from the first byte written."""

    def __init__(self, little: bool) -> None:
        self.order = "<" if little else ">"
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def fixed(self, code: str, value: Any) -> None:
        form, size = FIXED[code]
        self.align(size)
        self.data += struct.pack(self.order + form, value)

    def put(self, kind: str, value: Any) -> None:
        code = kind[0]
        if isinstance(value, Raw):
            self.align(ALIGNMENT[code])
            self.data += value
        elif code in FIXED:
            self.fixed(code, value)
        elif code in "so":
            text = value if isinstance(value, bytes) else value.encode()
            self.fixed("u", len(text))
            self.data += text + b"\0"
        elif code == "g":
            text = value if isinstance(value, bytes) else value.encode()
            self.data += bytes([len(text)]) + text + b"\0"
        elif code == "v":
            inner, content = value
            self.put("g", inner)
            self.put(inner, content)
        elif code == "a":
            self.array(kind[1:], value)
        else:
            self.align(8)
            for inner, content in zip(types_of(kind[1:-1]), value, strict=True):
                self.put(inner, content)

    def array(self, kind: str, values: Any) -> None:
        self.fixed("u", 0)
        length_at = len(self.data) - 4
        self.align(ALIGNMENT[kind[0]])
        start = len(self.data)
        if isinstance(values, bytes) and kind == "y":
            self.data += values
        else:
            for value in values.items() if isinstance(values, dict) else values:
                self.put(kind, value)
        struct.pack_into(self.order + "I", self.data, length_at, len(self.data) - start)


def marshal(signature: str, values: Sequence[Any], little: bool = True) -> bytes:
    writer = Writer(little)
    for kind, value in zip(types_of(signature), values, strict=True):
        writer.put(kind, value)
    return bytes(writer.data)


class Reader:
    """Takes values out of bytes; what does not fit the specification fails the test."""

    def __init__(self, data: bytes, little: bool, position: int = 0) -> None:
        self.data, self.order, self.position = data, "<" if little else ">", position

    def align(self, size: int) -> None:
        padding = -self.position % size
        gap = self.data[self.position : self.position + padding]
        assert gap == bytes(padding), f"padding is not zero at {self.position}: {gap!r}"
        self.position += padding

    def take(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        assert len(piece) == size, f"message ends at {len(self.data)} in the middle of a value"
        self.position += size
        return piece

    def get(self, kind: str) -> Any:
        code = kind[0]
        if code in FIXED:
            form, size = FIXED[code]
            self.align(size)
            value = struct.unpack(self.order + form, self.take(size))[0]
            if code == "b":
                assert value in (0, 1), f"boolean {value}"
                return bool(value)
            return value
        if code in "sog":
            text = self.take(self.get("y" if code == "g" else "u"))
            assert self.take(1) == b"\0", "string without its final NUL"
            return text.decode()
        if code == "v":
            inner = self.get("g")
            return inner, self.get(inner)
        if code == "a":
            return self.array(kind[1:])
        self.align(8)
        return tuple(self.get(inner) for inner in types_of(kind[1:-1]))

    def array(self, kind: str) -> Any:
        length = self.get("u")
        self.align(ALIGNMENT[kind[0]])
        end = self.position + length
        if kind == "y":
            return self.take(length)
        values = []
        while self.position < end:
            values.append(self.get(kind))
        assert self.position == end, "array elements go beyond the array"
        return dict(values) if kind[0] == "{" else values


@dataclass
class Message:
    """A message to be sent: header fields as a list of (code, signature, value), in that order.

    `serial` None takes the client's next one; `body_length`, `fields_length` lie about the lengths.
    """

    type: int
    fields: list[Field]
    body: bytes = b""
    flags: int = 0
    serial: int | None = None
    little: bool = True
    version: int = 1
    body_length: int | None = None
    fields_length: int | None = None
    fds: Sequence[int] = ()

    def without(self, *codes: int) -> Message:
        """The same message without these header fields."""
        self.fields = [field for field in self.fields if field[0] not in codes]
        return self

    def plus(self, *fields: Field) -> Message:
        """The same message with header fields more."""
        self.fields = [*self.fields, *fields]
        return self

    def pack(self, serial: int = 1) -> bytes:
        order = "<" if self.little else ">"
        writer = Writer(self.little)
        writer.data += struct.pack(
            order + "4BII",
            ord("l" if self.little else "B"),
            self.type,
            self.flags,
            self.version,
            len(self.body) if self.body_length is None else self.body_length,
            serial if self.serial is None else self.serial,
        )
        writer.array("(yv)", [(code, (kind, value)) for code, kind, value in self.fields])
        if self.fields_length is not None:
            struct.pack_into(order + "I", writer.data, 12, self.fields_length)
        writer.align(8)
        return bytes(writer.data) + self.body


def build(
    kind: int,
    known: dict[int, Any],
    signature: str,
    args: Sequence[Any],
    little: bool,
    fds: Sequence[int],
    rest: dict[str, Any],
) -> Message:
    given = {code: value for code, value in known.items() if value is not None}
    fields = [(code, FIELD_TYPES[code], value) for code, value in given.items()]
    if signature:
        fields.append((SIGNATURE, "g", signature))
    if fds:
        fields.append((UNIX_FDS, "u", len(fds)))
    body = marshal(signature, args, little)
    return Message(kind, fields, body, little=little, fds=fds, **rest)


def call(
    member: str,
    signature: str = "",
    *args: Any,
    destination: str | None = BUS,
    path: str | None = BUS_PATH,
    interface: str | None = BUS,
    little: bool = True,
    fds: Sequence[int] = (),
    **rest: Any,
) -> Message:
    """A method call, to the bus itself unless a destination is given."""
    known = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}
    return build(METHOD_CALL, known, signature, args, little, fds, rest)


def peer_call(
    destination: str, member: str = "Method", signature: str = "", *args: Any, **rest: Any
) -> Message:
    """A method call to a client of the tests."""
    known = {"path": "/com/example/Object", "interface": "com.example.Interface"} | rest
    return call(member, signature, *args, destination=destination, **known)


def signal(
    member: str,
    signature: str = "",
    *args: Any,
    destination: str | None = None,
    path: str | None = "/com/example/Object",
    interface: str | None = "com.example.Interface",
    little: bool = True,
    fds: Sequence[int] = (),
    **rest: Any,
) -> Message:
    known = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}
    return build(SIGNAL, known, signature, args, little, fds, rest)


def method_return(
    to: Received,
    signature: str = "",
    *args: Any,
    little: bool = True,
    fds: Sequence[int] = (),
    **rest: Any,
) -> Message:
    known = {REPLY_SERIAL: to.serial, DESTINATION: to.sender}
    return build(METHOD_RETURN, known, signature, args, little, fds, rest)


def error(to: Received, name: str, text: str = "", **rest: Any) -> Message:
    known = {ERROR_NAME: name, REPLY_SERIAL: to.serial, DESTINATION: to.sender}
    return build(ERROR, known, "s", [text], True, (), rest)


@dataclass
class Received:
    """A message as it came from the bus."""

    raw: bytes
    fds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.raw[:1] in (b"l", b"B"), f"no byte order: {self.raw[:16]!r}"
        self.little = self.raw[:1] == b"l"
        order = "<" if self.little else ">"
        _, self.type, self.flags, self.version, length, self.serial = struct.unpack_from(
            order + "4BII", self.raw
        )
        reader = Reader(self.raw, self.little, 12)
        self.fields: list[Field] = [
            (code, kind, value) for code, (kind, value) in reader.get("a(yv)")
        ]
        reader.align(8)
        self.body = self.raw[reader.position :]
        assert len(self.body) == length, "the body is not as long as the header says"
        assert self.serial, "serial 0"
        values = {code: value for code, _, value in self.fields}
        assert len(values) == len(self.fields), f"header fields repeated: {self.fields}"
        self.path: str | None = values.get(PATH)
        self.interface: str | None = values.get(INTERFACE)
        self.member: str | None = values.get(MEMBER)
        self.error_name: str | None = values.get(ERROR_NAME)
        self.reply_serial: int | None = values.get(REPLY_SERIAL)
        self.destination: str | None = values.get(DESTINATION)
        self.sender: str | None = values.get(SENDER)
        self.signature: str = values.get(SIGNATURE, "")
        self.unix_fds: int = values.get(UNIX_FDS, 0)

    @property
    def args(self) -> tuple[Any, ...]:
        reader = Reader(self.body, self.little)
        values = tuple(reader.get(kind) for kind in types_of(self.signature))
        assert reader.position == len(self.body), "bytes left in the body"
        return values

    @property
    def brief(self) -> tuple[Any, ...]:
        """What a conversation is usually compared by."""
        if self.type == METHOD_CALL:
            return "call", self.member, *self.args
        if self.type == METHOD_RETURN:
            return "return", *self.args
        if self.type == ERROR:
            return "error", self.error_name, *self.args
        if self.type == SIGNAL:
            return "signal", self.member, *self.args
        return f"type {self.type}", self.member, *self.args

    def __repr__(self) -> str:
        return f"<{self.brief} serial={self.serial} sender={self.sender} to={self.destination}>"


def total_length(head: bytes) -> int:
    """How long the message is whose first 16 bytes these are."""
    order = "<" if head[:1] == b"l" else ">"
    body, _, fields = struct.unpack_from(order + "III", head, 4)
    length: int = 16 + fields + -fields % 8 + body
    return length
