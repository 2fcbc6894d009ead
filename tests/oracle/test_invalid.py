"""Bytes that are no message: their sender is disconnected, and nobody else notices (S24).

Beside each refusal stands, where there is one, the nearest thing that is right.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from kit import (
    BUS,
    ERROR,
    METHOD_CALL,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    SIGNAL,
    Daemon,
    Message,
    RawClient,
)
from kit.message import (
    DESTINATION,
    ERROR_NAME,
    INTERFACE,
    MEMBER,
    PATH,
    REPLY_SERIAL,
    SENDER,
    SIGNATURE,
    UNIX_FDS,
    Field,
)

CALL: list[Field] = [(PATH, "o", "/x"), (INTERFACE, "s", "a.b"), (MEMBER, "s", "M")]
LONG = "a." + "b" * 253


@pytest.fixture
def to(daemon: Daemon) -> RawClient:
    """The receiver, who must not get anything that is wrong."""
    return daemon.connect()


def message(to: RawClient, *fields: Field, kind: int = METHOD_CALL, **rest: object) -> Message:
    """A call of the receiver with other header fields in the place of the usual ones."""
    codes = {code for code, _, _ in fields}
    usual = [*CALL, (DESTINATION, "s", to.name)]
    kept = [field for field in usual if field[0] not in codes]
    # without reply: the same serial may be used again
    return Message(kind, [*kept, *fields], flags=NO_REPLY_EXPECTED, **rest)  # type: ignore[arg-type]


def refused(client: RawClient, to: RawClient, data: bytes) -> None:
    client.send_bytes(data)
    assert client.closed() == []
    assert to.sync() == []


def accepted(client: RawClient, to: RawClient, data: bytes) -> None:
    client.send_bytes(data)
    assert client.sync() == []
    assert len(to.sync()) == 1


# -- the fixed part of the header


def test_good(alice: RawClient, to: RawClient) -> None:
    accepted(alice, to, message(to).pack(9))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_version(alice: RawClient, to: RawClient, version: int) -> None:
    refused(alice, to, message(to, version=version).pack(9))


@pytest.mark.parametrize("order", [b"\0", b"L", b"b", b"x", b"\xff"])
def test_byte_order(alice: RawClient, to: RawClient, order: bytes) -> None:
    refused(alice, to, order + message(to).pack(9)[1:])


def test_byte_order_that_is_not_the_messages(alice: RawClient, to: RawClient) -> None:
    refused(alice, to, b"B" + message(to).pack(9)[1:])


def test_type_zero(alice: RawClient, to: RawClient) -> None:
    refused(alice, to, message(to, kind=0).pack(9))


def test_serial_zero(alice: RawClient, to: RawClient) -> None:
    refused(alice, to, message(to).pack(0))


@pytest.mark.parametrize(
    "lengths",
    [
        {"fields_length": 0x4000001},
        {"fields_length": 0xFFFFFFFF},
        {"fields_length": 8},
        {"fields_length": 0},
        {"body_length": 0x8000001},
        {"body_length": 0xFFFFFFFF},
        {"body_length": 0x8000000},
    ],
    ids=str,
)
def test_lengths(alice: RawClient, to: RawClient, lengths: dict[str, int]) -> None:
    """128 MiB in all, 64 MiB of header fields; known, and refused, before the rest has come."""
    refused(alice, to, message(to, **lengths).pack(9))


def test_padding_after_the_header(alice: RawClient, to: RawClient) -> None:
    for name in ("M", "MM", "MMM"):
        data = message(to, (DESTINATION, "s", to.name), (MEMBER, "s", name)).pack(9)
        if data.endswith(b"\0\0"):
            break
    refused(alice, to, data[:-1] + b"\1")


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize(("member", "more"), [("M", 1), ("M", 6), ("MM", 5), ("MMM", 3)])
def test_padding_that_is_counted(
    alice: RawClient, to: RawClient, little: bool, member: str, more: int
) -> None:
    fields = [(DESTINATION, "s", to.name), (MEMBER, "s", member)]
    said = message(to, *fields)
    size = int.from_bytes(said.pack(9)[12:16], "little")
    refused(alice, to, message(to, *fields, little=little, fields_length=size + more).pack(9))


# -- which fields there must be


@pytest.mark.parametrize(
    ("what", "missing"),
    [
        (METHOD_CALL, PATH),
        (METHOD_CALL, MEMBER),
        (SIGNAL, PATH),
        (SIGNAL, INTERFACE),
        (SIGNAL, MEMBER),
        (METHOD_RETURN, REPLY_SERIAL),
        (ERROR, REPLY_SERIAL),
        (ERROR, ERROR_NAME),
    ],
)
def test_required_field_is_missing(
    alice: RawClient, to: RawClient, what: int, missing: int
) -> None:
    fields = [*CALL, (DESTINATION, "s", to.name), (REPLY_SERIAL, "u", 1), (ERROR_NAME, "s", "a.B")]
    refused(alice, to, Message(what, fields).without(missing).pack(9))


@pytest.mark.parametrize("what", [METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL])
def test_fields_that_are_not_needed(alice: RawClient, to: RawClient, what: int) -> None:
    fields = [*CALL, (DESTINATION, "s", to.name), (REPLY_SERIAL, "u", 1), (ERROR_NAME, "s", "a.B")]
    accepted(alice, to, Message(what, fields).pack(9))


GOOD_FIELDS: list[Field] = [
    (PATH, "o", "/"),
    (PATH, "o", "/_/0"),
    (INTERFACE, "s", LONG),
    (MEMBER, "s", "M" * 255),
    (MEMBER, "s", "_0"),
    (SENDER, "s", ":1.5"),
    (SENDER, "s", "a.b-c"),
    (ERROR_NAME, "s", "a.B"),
    (REPLY_SERIAL, "u", 0xFFFFFFFF),
    (UNIX_FDS, "u", 0),
]

BAD_FIELDS: list[Field] = [
    (0, "s", "x"),
    (PATH, "s", "/x"),
    (PATH, "o", ""),
    (PATH, "o", "x"),
    (PATH, "o", "//"),
    (PATH, "o", "/x/"),
    (PATH, "o", "/x//y"),
    (PATH, "o", "/x-y"),
    (PATH, "o", "/é"),
    (INTERFACE, "o", "/a"),
    (INTERFACE, "s", ""),
    (INTERFACE, "s", "nodots"),
    (INTERFACE, "s", ".a.b"),
    (INTERFACE, "s", "a.b."),
    (INTERFACE, "s", "a.1b"),
    (INTERFACE, "s", "a.b-c"),
    (INTERFACE, "s", LONG + "b"),
    (MEMBER, "s", ""),
    (MEMBER, "s", "a.b"),
    (MEMBER, "s", "1a"),
    (MEMBER, "s", "a-b"),
    (MEMBER, "s", "M" * 256),
    (MEMBER, "s", b"M\xff"),
    (MEMBER, "s", b"M\0"),
    (MEMBER, "g", "s"),
    (ERROR_NAME, "s", "nodots"),
    (REPLY_SERIAL, "u", 0),
    (REPLY_SERIAL, "i", 5),
    (REPLY_SERIAL, "s", "x"),
    (DESTINATION, "u", 1),
    (DESTINATION, "s", ""),
    (DESTINATION, "s", "nodots"),
    (DESTINATION, "s", "a.1b"),
    (DESTINATION, "s", LONG + "b"),
    (SENDER, "u", 1),
    (SENDER, "s", ""),
    (SENDER, "s", "nodots"),
    (SIGNATURE, "s", "u"),
    (SIGNATURE, "g", "u"),
    (SIGNATURE, "g", "a"),
    (SIGNATURE, "g", "z"),
    (SIGNATURE, "g", "("),
    (SIGNATURE, "g", "()"),
    (SIGNATURE, "g", "(u"),
    (SIGNATURE, "g", "u)"),
    (SIGNATURE, "g", "a{sv"),
    (SIGNATURE, "g", "{sv}"),
    (SIGNATURE, "g", "a{vs}"),
    (SIGNATURE, "g", "a{s}"),
    (SIGNATURE, "g", "a{suu}"),
    (SIGNATURE, "g", "a{(s}v)"),
    (UNIX_FDS, "u", 1),
    (UNIX_FDS, "i", 0),
    (UNIX_FDS, "s", "x"),
]


@pytest.mark.parametrize("field", GOOD_FIELDS, ids=str)
def test_good_field(alice: RawClient, to: RawClient, field: Field) -> None:
    accepted(alice, to, message(to, field).pack(9))


@pytest.mark.parametrize("field", BAD_FIELDS, ids=str)
def test_bad_field(alice: RawClient, to: RawClient, field: Field) -> None:
    refused(alice, to, message(to, field).pack(9))


@pytest.mark.parametrize("code", [PATH, INTERFACE, MEMBER, DESTINATION])
def test_field_repeated(alice: RawClient, to: RawClient, code: int) -> None:
    fields = [*CALL, (DESTINATION, "s", to.name)]
    again = [field for field in fields if field[0] == code]
    refused(alice, to, Message(METHOD_CALL, fields + again).pack(9))


def test_unknown_field_repeated(alice: RawClient, to: RawClient) -> None:
    accepted(alice, to, message(to, (50, "s", "x"), (50, "u", 5)).pack(9))


def test_unknown_field_is_checked_as_well(alice: RawClient, to: RawClient) -> None:
    refused(alice, to, message(to, (50, "b", 2)).pack(9))


@pytest.mark.parametrize("field", [(50, "(uu)", (1, 2)), (50, "a{sv}", {"k": ("u", 1)})], ids=str)
def test_unknown_field_of_any_type(alice: RawClient, to: RawClient, field: Field) -> None:
    accepted(alice, to, message(to, field).pack(9))


@pytest.mark.parametrize("what", [METHOD_CALL, SIGNAL, METHOD_RETURN])
@pytest.mark.parametrize(
    "field",
    [
        (PATH, "o", "/org/freedesktop/DBus/Local"),
        (INTERFACE, "s", "org.freedesktop.DBus.Local"),
    ],
    ids=str,
)
@pytest.mark.parametrize("destination", ["to", BUS, None])
def test_local_is_reserved(
    alice: RawClient, to: RawClient, what: int, field: Field, destination: str | None
) -> None:
    fields = [field if field[0] == usual[0] else usual for usual in CALL]
    fields.append((REPLY_SERIAL, "u", 1))
    if destination is not None:
        fields.append((DESTINATION, "s", to.name if destination == "to" else destination))
    refused(alice, to, Message(what, fields).pack(9))


@pytest.mark.parametrize(
    "field",
    [
        (PATH, "o", "/org/freedesktop/DBus/Local/Child"),
        (PATH, "o", "/org/freedesktop/DBus/Locally"),
        (INTERFACE, "s", "org.freedesktop.DBus.Locally"),
    ],
    ids=str,
)
def test_what_begins_like_local(alice: RawClient, to: RawClient, field: Field) -> None:
    """Not in the specification: the reference compares the beginning only."""
    refused(alice, to, message(to, field).pack(9))


# -- the body


@pytest.mark.parametrize(
    ("signature", "body"),
    [(None, bytes(4)), ("", bytes(4)), ("u", b""), ("u", bytes(3)), ("u", bytes(8)), ("s", b"")],
)
def test_body_of_the_wrong_length(
    alice: RawClient, to: RawClient, signature: str | None, body: bytes
) -> None:
    fields: Sequence[Field] = [] if signature is None else [(SIGNATURE, "g", signature)]
    refused(alice, to, message(to, *fields, body=body).pack(9))


def u(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def variants(depth: int) -> bytes:
    return b"\1v\0" * (depth - 1) + b"\1y\0\7"


GOOD_BODIES = [
    ("b", u(1)),
    ("s", u(3) + b"\xef\xbf\xbe\0"),
    ("s", u(4) + b"\xf4\x8f\xbf\xbf\0"),
    ("s", u(0) + b"\0"),
    ("g", b"\0\0"),
    ("g", b"\5a{sv}\0"),
    ("v", b"\1u\0\0" + u(1)),
    ("a{yy}", u(10, 0) + b"\1\2" + bytes(6) + b"\1\2"),
    ("at", u(0, 0)),
    ("a" * 32 + "y", u(0)),
    ("(" * 32 + "y" + ")" * 32, b"\1"),
    ("v", variants(64)),
    ("v", b"\x21" + b"a" * 32 + b"y\0\0" + u(0)),
    ("y" * 255, bytes(255)),
    ("h", u(77)),
    ("d", b"\xff" * 8),
]

BAD_BODIES = [
    ("b", u(2)),
    ("ab", u(8, 1, 256)),
    ("s", u(1) + b"xy"),
    ("s", u(3) + b"x\0y\0"),
    ("s", u(1) + b"\xff\0"),
    ("s", u(3) + b"\xed\xa0\x80\0"),
    ("s", u(2) + b"\xc0\x80\0"),
    ("s", u(4) + b"\xf4\x90\x80\x80\0"),
    ("s", u(2) + b"\xe2\x82\0"),
    ("s", u(0xFFFFFFFF) + b"\0"),
    ("o", u(0) + b"\0"),
    ("o", u(1) + b"x\0"),
    ("o", u(2) + b"//\0"),
    ("g", b"\1z\0"),
    ("g", b"\1u\1"),
    ("g", b"\4{sv}\0"),
    ("v", b"\0\0"),
    ("v", b"\2uu\0" + u(1, 2)),
    ("v", b"\1z\0"),
    ("v", b"\1u\0\1" + u(1)),
    ("v", b"\5a{sv\0" + u(0, 0)),
    ("au", u(3) + b"abc"),
    ("au", u(8, 1)),
    ("as", u(4) + u(0)),
    ("ay", u(0x4000001)),
    ("yu", b"\1\1\0\0" + u(1)),
    ("at", u(0)),
    ("at", u(0, 1)),
    ("a(yu)", u(8, 0) + b"\1\1\0\0" + u(1)),
    ("a" * 33 + "y", u(0)),
    ("(" * 33 + "y" + ")" * 33, b"\1"),
    ("v", variants(65)),
    ("v", b"\x22" + b"a" * 33 + b"y\0" + bytes(3) + u(0)),
]


@pytest.mark.parametrize(("signature", "body"), GOOD_BODIES)
def test_good_body(alice: RawClient, to: RawClient, signature: str, body: bytes) -> None:
    accepted(alice, to, message(to, (SIGNATURE, "g", signature), body=body).pack(9))


@pytest.mark.parametrize(("signature", "body"), BAD_BODIES)
def test_bad_body(alice: RawClient, to: RawClient, signature: str, body: bytes) -> None:
    refused(alice, to, message(to, (SIGNATURE, "g", signature), body=body).pack(9))


@pytest.mark.parametrize(("signature", "body"), BAD_BODIES)
def test_bad_body_after_many_good_ones(
    alice: RawClient, to: RawClient, signature: str, body: bytes
) -> None:
    """Whatever was learnt from good bodies of the same signature, a bad one is bad."""
    for known, good in GOOD_BODIES:
        if known == signature:
            data = message(to, (SIGNATURE, "g", known), body=good).pack(9)
            for _ in range(20):
                accepted(alice, to, data)
    refused(alice, to, message(to, (SIGNATURE, "g", signature), body=body).pack(9))


def test_good_messages_before_the_bad_one_count(alice: RawClient, to: RawClient) -> None:
    good, bad = message(to).pack(9), message(to).pack(0)
    alice.send_bytes(good + good.replace(b"\x09", b"\x0a", 1) + bad + good)
    assert alice.closed() == []
    assert len(to.sync()) == 2


def test_garbage(alice: RawClient, to: RawClient) -> None:
    refused(alice, to, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_end_in_the_middle_of_a_message(alice: RawClient, to: RawClient) -> None:
    alice.send_bytes(message(to).pack(9)[:50])
    alice.close()
    assert to.sync() == []


@pytest.mark.parametrize("before_hello", [True, False])
def test_names_of_the_disconnected_are_free(daemon: Daemon, before_hello: bool) -> None:
    client = daemon.join()
    if not before_hello:
        client.hello()
        client.own("com.example.Name")
    client.send_bytes(bytes(100))
    assert client.closed() == []
    assert daemon.connect().own("com.example.Name") == 1
