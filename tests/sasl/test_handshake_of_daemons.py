"""The dialogues, and the limits, over the sockets of dbus-daemon and of ours."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from dialogues import CLOSED, CUTS, MESSAGE, Dialogue, dialogues
from kit import ClosedError, Daemon, RawClient, busconfig, call

from afdbus.identity import Identity
from afdbus.sasl.server import HandshakeFailed, ServerHandshake

ALL = [d for d in dialogues() if d.allows(os.geteuid())]
UNKNOWN = 'ERROR "Unknown command"'

Start = Callable[[tuple[str, ...], str], Daemon]


@pytest.fixture(scope="module")
def daemon_with(kind: str) -> Iterator[Start]:
    """The daemon with these mechanisms on this transport, started when first asked for."""
    running: dict[tuple[tuple[str, ...], str], Daemon] = {}

    def find(auth: tuple[str, ...], over: str) -> Daemon:
        if (auth, over) not in running:
            more = "".join(f"<auth>{name}</auth>" for name in auth) + "<allow_anonymous/>"
            listen = "unix:path={directory}/bus" if over == "unix" else "tcp:host=127.0.0.1,port=0"
            text = busconfig(more, auth=None, listen=listen)
            running[auth, over] = Daemon(kind, text)
        return running[auth, over]

    yield find
    for daemon in running.values():
        daemon.stop()


def assert_closed(client: RawClient) -> None:
    with pytest.raises(ClosedError):
        client.fill("the end")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.title)
def test_dialogue(
    dialogue: Dialogue, cut: Callable[[Dialogue], list[bytes]], daemon_with: Start
) -> None:
    daemon = daemon_with(dialogue.auth, dialogue.over)
    guid = re.search("guid=([0-9a-f]{32})", daemon.address)
    assert guid is not None
    with RawClient(daemon.address) as client:
        client.send_bytes(b"\0")
        for piece in cut(dialogue):
            client.send_bytes(piece)
        for line in dialogue.answers(guid[1]):
            assert client.read_line() == line
        if dialogue.end == CLOSED:
            assert_closed(client)
        elif dialogue.end == MESSAGE:
            client.hello()
        else:
            client.send_line("IS_ANYBODY_THERE")
            assert client.read_line() == UNKNOWN


def test_the_handshake_with_hello_in_one_packet(daemon_with: Start) -> None:
    daemon = daemon_with(("EXTERNAL",), "unix")
    with RawClient(daemon.address) as client:
        uid = str(os.geteuid()).encode().hex()
        client.send_bytes(
            f"\0AUTH EXTERNAL {uid}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n".encode()
            + call("Hello").pack(1)
        )
        assert client.read_line().startswith("OK ")
        assert client.read_line() == "AGREE_UNIX_FD"
        assert client.read().brief[0] == "return"


# What is said (the NUL apart), how many lines are answered, and whether the server goes on.
LIMITS = {
    "the longest line": ([b"A" * 16382 + b"\r\n"], 1, True),
    "the longest line in pieces": ([b"A" * 9000, b"A" * 7382, b"\r", b"\n"], 1, True),
    "a line too long": ([b"A" * 16383 + b"\r\n"], 0, False),
    "a line without an end": ([b"A" * 16385], 0, False),
    "a line without an end, answered before": ([b"\r\n" + b"A" * 20000], 1, False),
    "as many answers as are kept": ([b"\r\n" * 655], 655, True),
    "answers too long": ([b"\r\n" * 656], 656, False),
    "many answers too long": ([b"\r\n" * 1000], 656, False),
    "a second NUL": ([b"\0\r\n"], 1, True),
    "a long list of refused commands": ([b"X" * 500 + b"\r\n"] * 100, 100, True),
    "that list at once": ([(b"X" * 500 + b"\r\n") * 100], 100, True),
}


@pytest.mark.parametrize("title", LIMITS)
def test_limits_of_the_machine(title: str) -> None:
    pieces, count, goes_on = LIMITS[title]
    handshake = ServerHandshake(
        Identity(uid=0), "", mechanisms=None, own_uid=0, allow_fds=True, keyring=None
    )
    said = handshake.receive(b"\0")
    failed = False
    try:
        for piece in pieces:
            said += handshake.receive(piece)
    except HandshakeFailed as failure:
        said += failure.farewell
        failed = True
    assert said.count(b"\r\n") == count
    assert failed is not goes_on


@pytest.mark.parametrize("title", LIMITS)
def test_limits_of_a_daemon(title: str, daemon_with: Start) -> None:
    pieces, count, goes_on = LIMITS[title]
    daemon = daemon_with(("EXTERNAL",), "unix")
    with RawClient(daemon.address) as client:
        client.send_bytes(b"\0")
        with suppress(BrokenPipeError):  # it may close before it has read all of it
            for piece in pieces:
                client.send_bytes(piece)
        for _ in range(count):
            assert client.read_line().startswith("ERROR ")
        if goes_on:
            client.send_line("IS_ANYBODY_THERE")
            assert client.read_line() == UNKNOWN
        else:
            assert_closed(client)


@pytest.mark.parametrize("first", [b"\1", b"AUTH\r\n", b"l"])
def test_the_first_byte_is_nul(first: bytes, daemon_with: Start) -> None:
    with RawClient(daemon_with(("EXTERNAL",), "unix").address) as client:
        client.send_bytes(first)
        assert_closed(client)
