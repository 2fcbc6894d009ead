"""Any bytes make the server's machine answer or raise ProtocolViolation, in bounded memory.

Nobody gets in without having been told OK for a claim that is true, and how the bytes were cut
into pieces changes nothing.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from afdbus.identity import Identity
from afdbus.sasl.client import ClientHandshake
from afdbus.sasl.server import MAX_BUFFER, PIECE, HandshakeFailed, ServerHandshake

UID = 1000
CLAIM = str(UID).encode().hex().encode()

COMMANDS = [
    b"AUTH", b"CANCEL", b"DATA", b"BEGIN", b"ERROR", b"NEGOTIATE_UNIX_FD", b"REJECTED", b"OK",
    b"AGREE_UNIX_FD", b"HELLO", b"",
]  # fmt: skip
WORDS = [b"EXTERNAL", b"DBUS_COOKIE_SHA1", b"ANONYMOUS", CLAIM, b"30", b"3", b"ff", b"x", b"7820"]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""]

words = st.one_of(st.sampled_from(COMMANDS), st.sampled_from(WORDS), st.binary(max_size=8))
lines = st.builds(
    lambda command, rest, end: b" ".join([command, *rest]) + end,
    st.sampled_from(COMMANDS),
    st.lists(words, max_size=3),
    st.sampled_from(ENDS),
)
streams = st.one_of(
    st.binary(max_size=200),
    st.lists(lines, max_size=25).map(b"".join),
    st.lists(st.one_of(lines, st.binary(max_size=20)), max_size=25).map(b"".join),
)
cuts = st.lists(st.integers(1, 40), max_size=10)


class Cookies:
    def uid_of(self, name: str) -> int | None:
        return {"x ": UID}.get(name)

    def best_cookie(self, context: str) -> int | None:
        return 7

    def proof(
        self, context: str, cookie: int, server_challenge: bytes, client_challenge: bytes
    ) -> bytes | None:
        return None


def server() -> ServerHandshake:
    return ServerHandshake(
        Identity(uid=UID), "ff", mechanisms=None, own_uid=UID, allow_fds=True, keyring=Cookies()
    )


def pieces_of(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    return [*pieces, stream]


def play(stream: bytes, sizes: list[int]) -> tuple[bytes, bool, bytes, ServerHandshake]:
    """What was said, whether it failed, what is left for the message stream."""
    handshake = server()
    said = handshake.receive(b"\0")
    pieces = pieces_of(stream, sizes)
    while pieces:
        piece = pieces.pop(0)
        try:
            answer = handshake.receive(piece)
        except HandshakeFailed as failure:
            return said + failure.farewell, True, b"", handshake
        assert len(handshake._incoming) <= MAX_BUFFER
        assert len(answer) <= (MAX_BUFFER + 200) * (1 + len(piece) // PIECE)
        said += answer
        if handshake.done:
            break
    return said, False, handshake.leftover + b"".join(pieces), handshake


@settings(max_examples=1500, deadline=None)
@given(streams, cuts)
@example(b"AUTH EXTERNAL 31303030\r\nBEGIN\r\n\r\n", [1, 30])
@example(b"AUTH EXTERNAL " + b"0" * 5000 + b"\r\n", [])
@example(b"AUTH EXTERNAL " + b"31" * 5000 + b"\r\n", [])
@example(b"AUTH EXTERNAL 3078" + b"31" * 5000 + b"\r\n", [])
@example(b"AUTH DBUS_COOKIE_SHA1 " + b"39" * 5000 + b"\r\n", [])
def test_any_bytes(stream: bytes, sizes: list[int]) -> None:
    said, failed, left, handshake = play(stream, sizes)
    assert said.count(b"REJECTED") <= 6
    assert said == b"" or said.endswith(b"\r\n")
    # Challenges are new each time.
    first = [line.split(b" ")[0] for line in said.split(b"\r\n")]
    again, failed_again, left_again, _ = play(stream, [])
    assert [line.split(b" ")[0] for line in again.split(b"\r\n")] == first
    assert (failed, left) == (failed_again, left_again)
    if handshake.done:
        assert b"OK ff\r\n" in said
        assert stream.endswith(left)
        assert handshake.uid == (None if handshake.mechanism == "ANONYMOUS" else UID)
        assert handshake.mechanism in ("EXTERNAL", "ANONYMOUS")
        if handshake.mechanism == "ANONYMOUS":
            assert b"ANONYMOUS" in stream


@settings(max_examples=500, deadline=None)
@given(streams, cuts)
def test_any_bytes_for_the_client(stream: bytes, sizes: list[int]) -> None:
    client = ClientHandshake(UID, mechanisms=("EXTERNAL", "DBUS_COOKIE_SHA1", "ANONYMOUS"))
    client.start()
    try:
        for piece in pieces_of(stream, sizes):
            client.receive(piece)
            assert len(client._incoming) <= MAX_BUFFER
            if client.done:
                assert b"OK" in stream
                break
    except HandshakeFailed:
        assert not client.done
