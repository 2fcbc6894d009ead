"""Messages that the bus itself writes: replies, errors and signals, always little-endian.

Their fields that do not change are marshalled once; what remains are a few concatenations (0.5
instead of 4 us for a driver's answer, 0.7 instead of 7 for a signal).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from afdbus.wire.encode import encode, encode_text
from afdbus.wire.header import (
    DESTINATION,
    ERROR,
    ERROR_NAME,
    INTERFACE,
    MEMBER,
    METHOD_CALL,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    PATH,
    REPLY_SERIAL,
    SENDER,
    SIGNAL,
    SIGNATURE,
    UNIX_FDS,
    field,
    join,
)

BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
BUS_INTERFACE = "org.freedesktop.DBus"

_fixed = Struct("<cBBBII").pack
# Small structures of numbers only: half the time of those with bytes in them.
_reply = Struct("<IIIIII").pack
_signal = _error = Struct("<IIII").pack
_reply_serial = Struct("<II").pack
# Byte order, type, flags and version; code and type of the field; each as one number.
_RETURN_WORD = 0x01000000 | NO_REPLY_EXPECTED << 16 | METHOD_RETURN << 8 | ord("l")
_ERROR_WORD = 0x01000000 | NO_REPLY_EXPECTED << 16 | ERROR << 8 | ord("l")
_SIGNAL_WORD = 0x01000000 | NO_REPLY_EXPECTED << 16 | SIGNAL << 8 | ord("l")
_REPLY_SERIAL_MARK = ord("u") << 16 | 1 << 8 | REPLY_SERIAL
_PAD = tuple(bytes(-n & 7) for n in range(8))
_SENDER = field(SENDER, BUS_NAME)
_DESTINATION = field(DESTINATION, "")[:4]
_ERROR_END = _SENDER + _PAD[len(_SENDER) & 7] + field(SIGNATURE, "s")


class _ReplyFields(dict[str, bytes]):
    """signature -> the SENDER and SIGNATURE fields of a reply, padded."""

    def __missing__(self, signature: str) -> bytes:
        fields = _SENDER + _PAD[len(_SENDER) & 7]
        if signature:
            fields += field(SIGNATURE, signature)
            fields += _PAD[len(fields) & 7]
        self[signature] = fields
        return fields


# Its keys are the signatures of the driver's own replies: a handful, none chosen by a client.
_reply_fields = _ReplyFields()


def destination_field(name: str) -> bytes:
    """The DESTINATION field of all that the bus sends to `name`."""
    return _DESTINATION + encode_text(name)


def method_return(
    serial: int, reply_serial: int, destination: bytes, signature: str, body: bytes
) -> bytes:
    """A reply; `destination` is from `destination_field`, or empty for a peer without a name."""
    fields = _reply_fields[signature]
    array = 8 + len(fields) + len(destination)
    return (
        _reply(_RETURN_WORD, len(body), serial, array, _REPLY_SERIAL_MARK, reply_serial)
        + fields + destination + _PAD[len(destination) & 7] + body
    )  # fmt: skip


def build(
    type_: int,
    serial: int,
    *,
    flags: int = NO_REPLY_EXPECTED,
    path: str | None = None,
    interface: str | None = None,
    member: str | None = None,
    error_name: str | None = None,
    reply_serial: int = 0,
    destination: str | None = None,
    sender: str | None = BUS_NAME,
    signature: str = "",
    body: bytes = b"",
    fds: int = 0,
) -> bytes:
    """Any message, little-endian; fields that are None, empty or 0 are left out."""
    fields = [
        field(code, value)
        for code, value in (
            (PATH, path),
            (INTERFACE, interface),
            (MEMBER, member),
            (ERROR_NAME, error_name),
            (REPLY_SERIAL, reply_serial),
            (DESTINATION, destination),
            (SENDER, sender),
            (SIGNATURE, signature),
            (UNIX_FDS, fds),
        )
        if value
    ]
    return _fixed(b"l", type_, flags, 1, len(body), serial) + join(fields) + body


# The names are those of the bus's own errors.
@lru_cache(64)
def _error_name(name: str) -> bytes:
    raw = field(ERROR_NAME, name)
    return raw + _PAD[len(raw) & 7]


# Who gets one error gets others.
@lru_cache(256)
def _destination(name: str | None) -> bytes:
    raw = b"" if name is None else destination_field(name)
    return raw + _PAD[len(raw) & 7]


def error(
    serial: int, reply_serial: int, destination: str | None, name: str, text: str
) -> bytes:
    """An error reply of the bus with `text` as its only argument (1.2 instead of 4.3 us)."""
    before, to = _error_name(name), _destination(destination)
    body = encode("s", text)
    array = len(before) + 8 + len(to) + len(_ERROR_END)
    return (
        _error(_ERROR_WORD, len(body), serial, array)
        + before + _reply_serial(_REPLY_SERIAL_MARK, reply_serial) + to
        + _ERROR_END + _PAD[len(_ERROR_END) & 7] + body
    )  # fmt: skip


class _SignalFields(dict[tuple[str, str, str], tuple[bytes, int]]):
    """(interface, member, signature) -> all fields of a signal but DESTINATION, padded, and their
    length without the padding."""

    def __missing__(self, key: tuple[str, str, str]) -> tuple[bytes, int]:
        interface, member, signature = key
        joined = join(
            [
                field(PATH, BUS_PATH),
                field(INTERFACE, interface),
                field(MEMBER, member),
                _SENDER,
                *([field(SIGNATURE, signature)] if signature else []),
            ]
        )
        length = int.from_bytes(joined[:4], "little")
        found = self[key] = joined[4:], length
        return found


# Its keys are the driver's own signals, of which there are a handful.
_signal_fields = _SignalFields()


def signal(
    serial: int, destination: bytes, interface: str, member: str, signature: str, body: bytes
) -> bytes:
    """A signal of the bus; `destination` as for `method_return`, empty for a broadcast."""
    fields, length = _signal_fields[interface, member, signature]
    if destination:
        length = len(fields) + len(destination)
        fields += destination + _PAD[length & 7]
    return _signal(_SIGNAL_WORD, len(body), serial, length) + fields + body


def method_call(
    serial: int,
    destination: str | None,
    path: str,
    interface: str | None,
    member: str,
    signature: str = "",
    body: bytes = b"",
    flags: int = 0,
) -> bytes:
    """A call as a client writes it, without SENDER."""
    return build(METHOD_CALL, serial, flags=flags, path=path, interface=interface, member=member,
                 destination=destination, sender=None, signature=signature, body=body)  # fmt: skip
