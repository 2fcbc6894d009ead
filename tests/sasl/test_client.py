"""The client's machine: in two columns against nobody, and in earnest against ours and a daemon."""

from __future__ import annotations

import os

import pytest
from kit import Daemon

from afdbus.identity import Identity
from afdbus.sasl.client import ClientHandshake
from afdbus.sasl.server import HandshakeFailed, ServerHandshake

GUID = "0123456789abcdef0123456789abcdef"
ALL = ("EXTERNAL", "DBUS_COOKIE_SHA1", "ANONYMOUS")

# What the server says, and what the client answers; "(fails)": it gives up.
CONVERSATIONS = {
    "descriptors agreed": [
        ("", "AUTH EXTERNAL 30"),
        (f"OK {GUID}", "NEGOTIATE_UNIX_FD"),
        ("AGREE_UNIX_FD", "BEGIN"),
    ],
    "descriptors refused": [
        ("", "AUTH EXTERNAL 30"),
        (f"OK {GUID}", "NEGOTIATE_UNIX_FD"),
        ('ERROR "no"', "BEGIN"),
    ],
    "the server asks again": [
        ("", "AUTH EXTERNAL 30"),
        ("DATA", "DATA"),
        ("DATA x", 'ERROR "Invalid hex encoding"'),
        (f"OK {GUID}", "NEGOTIATE_UNIX_FD"),
    ],
    "the next mechanism, in the server's order": [
        ("", "AUTH EXTERNAL 30"),
        (
            "REJECTED X ANONYMOUS EXTERNAL\tDBUS_COOKIE_SHA1 ANONYMOUS",
            "AUTH ANONYMOUS 616664627573",
        ),
        ("REJECTED X", "AUTH DBUS_COOKIE_SHA1 30"),
        ("REJECTED EXTERNAL ANONYMOUS", "(fails)"),
    ],
    "no mechanism of ours": [("", "AUTH EXTERNAL 30"), ("REJECTED BONGO_MD5", "(fails)")],
    "no mechanism at all": [("", "AUTH EXTERNAL 30"), ("REJECTED", "(fails)")],
    "the server errs": [
        ("", "AUTH EXTERNAL 30"),
        ("ERROR", "CANCEL"),
        ("REJECTED ANONYMOUS", "AUTH ANONYMOUS 616664627573"),
        (f"OK {GUID}", "NEGOTIATE_UNIX_FD"),
    ],
    "the server errs and goes on": [
        ("", "AUTH EXTERNAL 30"),
        ("ERROR", "CANCEL"),
        (f"OK {GUID}", "(fails)"),
    ],
    "what no server says": [
        ("", "AUTH EXTERNAL 30"),
        ("HELLO there", 'ERROR "Unknown command"'),
        ("BEGIN", 'ERROR "Unknown command"'),
        ("AGREE_UNIX_FD", 'ERROR "Unknown command"'),
        ("\x80", 'ERROR "Command contained non-ASCII"'),
        (f"OK {GUID}", "NEGOTIATE_UNIX_FD"),
        (f"OK {GUID}", 'ERROR "Unknown command"'),
        ("REJECTED", 'ERROR "Unknown command"'),
        ("AGREE_UNIX_FD", "BEGIN"),
    ],
    "no guid": [("", "AUTH EXTERNAL 30"), ("OK", "(fails)")],
    "a guid that is no hex": [("", "AUTH EXTERNAL 30"), ("OK there", "(fails)")],
    "cookies without a keyring": [
        ("", "AUTH EXTERNAL 30"),
        ("REJECTED DBUS_COOKIE_SHA1", "AUTH DBUS_COOKIE_SHA1 30"),
        (f"DATA {b'a 1 ff'.hex()}", 'ERROR "Don\'t have the requested cookie ID"'),
        (f"DATA {b'a'.hex()}", 'ERROR "Don\'t have the requested cookie ID"'),
        ("REJECTED DBUS_COOKIE_SHA1", "(fails)"),
    ],
}


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("title", CONVERSATIONS)
def test_conversation(title: str, size: int) -> None:
    client = ClientHandshake(0, mechanisms=ALL)
    for said, answer in CONVERSATIONS[title]:
        line = said.encode("latin-1") + b"\r\n"
        pieces = [line[at : at + size] for at in range(0, len(line), size)]
        if answer == "(fails)":
            with pytest.raises(HandshakeFailed):
                list(map(client.receive, pieces))
        elif said:
            got = b"".join(map(client.receive, pieces))
            assert got == answer.encode() + b"\r\n"
        else:
            assert client.start() == b"\0" + answer.encode() + b"\r\n"
    assert client.done is (CONVERSATIONS[title][-1][1] == "BEGIN")


def test_what_follows_is_left() -> None:
    client = ClientHandshake(0, want_fds=False)
    client.start()
    assert client.receive(b"OK ff\r\nl\2\r\n\r\nrest") == b"BEGIN\r\n"
    assert client.done
    assert (client.guid, client.leftover, client.unix_fds) == ("ff", b"l\2\r\n\r\nrest", False)


def test_a_line_without_an_end() -> None:
    client = ClientHandshake(0)
    client.start()
    client.receive(b"A" * 16384)
    with pytest.raises(HandshakeFailed):
        client.receive(b"A")


def test_some_mechanism_must_exist() -> None:
    with pytest.raises(ValueError, match="KERBEROS"):
        ClientHandshake(0, mechanisms=["KERBEROS_V4"])


@pytest.mark.parametrize("uid", [os.geteuid(), None])
@pytest.mark.parametrize("mechanism", ["EXTERNAL", "ANONYMOUS"])
@pytest.mark.parametrize("fds", [True, False])
def test_our_two_machines(mechanism: str, uid: int | None, fds: bool) -> None:
    server = ServerHandshake(
        Identity(uid=os.geteuid()),
        GUID,
        mechanisms=[mechanism],
        own_uid=os.geteuid(),
        allow_fds=fds,
        keyring=None,
    )
    client = ClientHandshake(uid, mechanisms=["EXTERNAL", mechanism])
    said = client.start()
    while not server.done:
        answer = server.receive(said)
        said = client.receive(answer) if answer else b""
    assert client.done
    assert client.guid == GUID
    assert client.mechanism == server.mechanism == mechanism
    assert client.unix_fds is server.unix_fds is fds


@pytest.mark.parametrize("uid", [os.geteuid(), None])
def test_with_a_daemon(uid: int | None, daemon: Daemon) -> None:
    client = ClientHandshake(uid)
    there = daemon.dial()
    there.send_bytes(client.start())
    while not client.done:
        there.send_bytes(client.receive(there.read_line().encode() + b"\r\n"))
    assert client.unix_fds
    there.hello()
