"""What is remembered of headers, and what is never taken from memory; and errors from parts."""

from __future__ import annotations

import pytest
from kit import BUS, Raw, peer_call
from kit.message import INTERFACE, PATH, SIGNATURE, Received

from afdbus.errors import ProtocolViolation
from afdbus.wire import header, message
from afdbus.wire.header import MAX_TEXT, MAX_TEXTS, Header, parse


def parsed(said: bytes) -> Header:
    end = 16 + (int.from_bytes(said[12:16], "little" if said[:1] == b"l" else "big") + 7 & ~7)
    return parse(said, 0, end)


@pytest.mark.parametrize("little", [True, False])
def test_p17_texts_are_bounded_and_those_in_use_stay(little: bool) -> None:
    texts = header._texts[little]
    for number in range(5 * MAX_TEXTS):
        path = "/" + "x" * (number % 400) + str(number)
        said = peer_call("com.example.Used", path=path, interface=f"a.b{number}", little=little)
        found = parsed(said.pack(5))
        assert (found.path, found.interface) == (path, f"a.b{number}")
        assert len(texts.young) <= MAX_TEXTS
        assert len(texts.old) <= MAX_TEXTS
    kept = texts.young | texts.old
    assert max(map(len, kept)) <= MAX_TEXT
    assert "com.example.Used" in kept.values()


@pytest.mark.parametrize("little", [True, False])
def test_what_is_remembered_is_not_taken_for_something_else(little: bool) -> None:
    """The same bytes as a good field's, as far as they go, with something wrong about them."""

    def call(**rest: object) -> bytes:
        return peer_call(":1.5", "M", path="/known", little=little, **rest).pack(5)

    good = call()
    parsed(good)
    at = good.index(b"/known")
    for place, value in [
        (at - 8, 2),  # another field
        (at - 6, ord("s")),  # another type
        (at - 4 if little else at - 1, 5),  # another length
        (at + 6, 1),  # no terminator
        (at + 7, 1),  # padding
        (at + 2, ord("-")),
    ]:
        bad = bytearray(good)
        bad[place] = value
        with pytest.raises(ProtocolViolation):
            parsed(bytes(bad))
    twice = peer_call(":1.5", "M", path="/known", little=little).plus((PATH, "o", "/known"))
    with pytest.raises(ProtocolViolation, match="twice"):
        parsed(twice.pack(5))
    # It ends before its padding does, and in the middle.
    last = peer_call(":1.5", "M", little=little).without(PATH).plus((PATH, "o", "/known"))
    length = int.from_bytes(last.pack(5)[12:16], "little" if little else "big")
    parsed(last.pack(5))
    for less in range(1, 15):
        last.fields_length = length - less
        with pytest.raises(ProtocolViolation):
            parsed(last.pack(5))
    # Padding that no field follows is none of the array's.
    assert length & 7 == 7
    last.fields_length = length + 1
    with pytest.raises(ProtocolViolation):
        parsed(last.pack(5))


def test_a_signature_of_length_0() -> None:
    said = peer_call(":1.5", "M").plus((SIGNATURE, "g", Raw(b"\0\0")), (INTERFACE, "s", "a.b"))
    said.fields = [said.fields[0], *said.fields[2:]]
    for _ in range(2):
        assert parsed(said.pack(5)).signature == ""


@pytest.mark.parametrize("to", [None, ":not.active.yet", ":1.5", ":1.123456"])
@pytest.mark.parametrize("text", ["", "x", "seven", "ä" * 9])
def test_an_error_from_parts_is_as_it_would_be_marshalled(to: str | None, text: str) -> None:
    name = f"{BUS}.Error.Failed"
    got = Received(message.error(7, 9, to, name, text))
    assert got.raw == message.build(
        message.ERROR, 7, error_name=name, reply_serial=9, destination=to, signature="s",
        body=got.body,
    )  # fmt: skip
    assert (got.serial, got.reply_serial, got.destination, got.args) == (7, 9, to, (text,))
