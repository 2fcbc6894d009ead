"""The dialogues, played to the server's machine: lines, single bytes, all at once, with a tail."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from dialogues import CLOSED, CUTS, MESSAGE, NOTHING, Dialogue, dialogues

from afdbus.errors import ProtocolViolation
from afdbus.identity import Identity
from afdbus.sasl.server import HandshakeFailed, ServerHandshake

GUID = "0123456789abcdef0123456789abcdef"
ALL = [d for d in dialogues() if d.allows(os.geteuid())]


class NoCookies:
    def uid_of(self, name: str) -> int | None:
        return {"daemon": os.geteuid() + 1}.get(name)

    def best_cookie(self, context: str) -> int | None:
        raise AssertionError("nobody who may have a cookie has asked")

    def proof(
        self, context: str, cookie: int, server_challenge: bytes, client_challenge: bytes
    ) -> bytes | None:
        raise AssertionError("nobody has a cookie")


def machine(dialogue: Dialogue) -> ServerHandshake:
    unix = dialogue.over == "unix"
    return ServerHandshake(
        Identity(uid=os.geteuid()) if unix else Identity(),
        GUID,
        mechanisms=dialogue.auth or None,
        own_uid=os.geteuid(),
        allow_fds=unix,
        keyring=NoCookies(),
    )


def answer(dialogue: Dialogue) -> bytes:
    return b"".join(f"{line}\r\n".encode() for line in dialogue.answers(GUID))


@pytest.mark.parametrize("alone", [True, False], ids=["nul alone", "nul with more"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.title)
def test_dialogue(
    dialogue: Dialogue, cut: Callable[[Dialogue], list[bytes]], alone: bool
) -> None:
    handshake = machine(dialogue)
    pieces = cut(dialogue)
    said = b""
    end = NOTHING
    try:
        for piece in [b"\0", *pieces] if alone else [b"\0" + pieces[0], *pieces[1:]]:
            said += handshake.receive(piece)
    except HandshakeFailed as failure:
        said += failure.farewell
        end = CLOSED
    if handshake.done:
        end = MESSAGE
    assert said == answer(dialogue)
    assert end == dialogue.end


@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.title)
def test_dialogue_with_a_tail(dialogue: Dialogue) -> None:
    """What follows BEGIN is the message stream's, be it as long as it may, and CRLF in it."""
    tail = b"l\1\0\1\r\n" * 10_000
    handshake = machine(dialogue)
    if dialogue.end == MESSAGE:
        whole = b"\0" + dialogue.in_one_piece()[0] + tail
        assert handshake.receive(whole) == answer(dialogue)
        assert handshake.done
        assert handshake.leftover == tail
    elif dialogue.end == CLOSED:
        with pytest.raises(HandshakeFailed) as caught:
            handshake.receive(b"\0" + dialogue.in_one_piece()[0] + tail)
        assert caught.value.farewell == answer(dialogue)


def fresh(identity: Identity) -> ServerHandshake:
    return ServerHandshake(
        identity, GUID, mechanisms=None, own_uid=42, allow_fds=True, keyring=None
    )


def test_what_is_known_at_the_end() -> None:
    handshake = fresh(Identity(uid=1000))
    assert (handshake.done, handshake.uid, handshake.mechanism) == (False, None, "")
    handshake.receive(b"\0AUTH EXTERNAL 31303030\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
    assert (handshake.done, handshake.uid, handshake.mechanism) == (True, 1000, "EXTERNAL")
    assert handshake.unix_fds


def test_anonymous_is_nobody() -> None:
    handshake = fresh(Identity(uid=1000))
    handshake.receive(b"\0AUTH EXTERNAL 31303030\r\nCANCEL\r\nAUTH ANONYMOUS\r\nBEGIN\r\n")
    assert (handshake.done, handshake.uid, handshake.mechanism) == (True, None, "ANONYMOUS")
    assert not handshake.unix_fds


@pytest.mark.parametrize("claim", [b"", b" 34323934393637323935", b" 2d31", b" 3635353334"])
def test_p38_nobody_is_believed_without_a_uid_from_the_kernel(claim: bytes) -> None:
    """Unlike dbus-daemon, which over TCP takes (uid_t) -1 for a user."""
    handshake = fresh(Identity())
    said = handshake.receive(b"\0AUTH EXTERNAL" + claim + b"\r\n")
    assert said == b"REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS\r\n"


def test_cookies_need_a_keyring() -> None:
    handshake = fresh(Identity(uid=42))
    said = handshake.receive(b"\0AUTH DBUS_COOKIE_SHA1 3432\r\n")
    assert said == b"REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS\r\n"


@pytest.mark.parametrize("first", [b"\1", b"AUTH EXTERNAL 30\r\n", b"\r\n", b"l"])
def test_the_first_byte_is_nul(first: bytes) -> None:
    handshake = fresh(Identity(uid=0))
    assert handshake.receive(b"") == b""
    with pytest.raises(HandshakeFailed) as caught:
        handshake.receive(first)
    assert caught.value.farewell == b""


def test_a_failed_handshake_stays_failed() -> None:
    handshake = fresh(Identity(uid=0))
    for data in (b"\0BEGIN\r\n", b"", b"AUTH EXTERNAL 30\r\nBEGIN\r\n"):
        with pytest.raises(ProtocolViolation):
            handshake.receive(data)
    assert not handshake.done
