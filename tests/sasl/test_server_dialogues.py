"""The server's machine and dbus-daemon play the same dialogues."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from dialogues import CLOSED, MESSAGE, NOTHING, Dialogue, dialogues

from afdbus.identity import Identity
from afdbus.sasl.server import HandshakeFailed, ServerHandshake

GUID = "0123456789abcdef0123456789abcdef"
ALL = dialogues()


def _field(code: int, kind: bytes, text: bytes) -> bytes:
    field = struct.pack("<B3sI", code, b"\1%b\0" % kind, len(text)) + text + b"\0"
    return field + bytes(-len(field) % 8)


_fields = (
    _field(1, b"o", b"/org/freedesktop/DBus")
    + _field(2, b"s", b"org.freedesktop.DBus")
    + _field(6, b"s", b"org.freedesktop.DBus")
    + struct.pack("<B3sI", 3, b"\1s\0", 5)
    + b"Hello\0"
)
HELLO = struct.pack("<4B3I", ord("l"), 1, 0, 1, 0, 1, len(_fields)) + _fields
HELLO += bytes(-len(HELLO) % 8)

PROBE = b"IS_ANYBODY_THERE\r\n", b'ERROR "Unknown command"\r\n'


def cut_lines(dialogue: Dialogue) -> list[bytes]:
    return [said for said, _ in dialogue.turns]


def cut_bytes(dialogue: Dialogue) -> list[bytes]:
    return [bytes([byte]) for byte in b"".join(cut_lines(dialogue))]


def cut_nowhere(dialogue: Dialogue) -> list[bytes]:
    return [b"".join(cut_lines(dialogue))]


Cut = Callable[[Dialogue], list[bytes]]


def expected(dialogue: Dialogue, guid: str) -> bytes:
    return b"".join(
        f"{answer}\r\n".replace("GUID", guid).encode() for _, answer in dialogue.turns if answer
    )


def fits(dialogue: Dialogue) -> None:
    if dialogue.needs == "root" and os.geteuid() != 0:
        pytest.skip("the numbers are those of root")


def over_unix_or_tcp(dialogue: Dialogue) -> Identity:
    return Identity(uid=os.geteuid()) if dialogue.over == "unix" else Identity()


def machine(dialogue: Dialogue) -> ServerHandshake:
    return ServerHandshake(
        over_unix_or_tcp(dialogue),
        GUID,
        mechanisms=dialogue.auth or None,
        own_uid=os.geteuid(),
        allow_fds=dialogue.over == "unix",
        keyring=NoCookies(),
    )


class NoCookies:
    def uid_of(self, name: str) -> int | None:
        return {"root": 0, "daemon": os.geteuid() + 1}.get(name)

    def best_cookie(self) -> int | None:
        raise AssertionError("nobody who may have a cookie has asked")

    def proof(self, cookie: int, server_challenge: bytes, client_challenge: bytes) -> bytes | None:
        raise AssertionError("nobody has a cookie")


@pytest.mark.parametrize("cut", [cut_lines, cut_bytes, cut_nowhere])
@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.title)
def test_machine(dialogue: Dialogue, cut: Cut) -> None:
    fits(dialogue)
    handshake = machine(dialogue)
    said = handshake.receive(b"\0")
    end = NOTHING
    try:
        for piece in cut(dialogue):
            said += handshake.receive(piece)
    except HandshakeFailed as failure:
        said += failure.farewell
        end = CLOSED
    if handshake.done:
        end = MESSAGE
    assert said == expected(dialogue, GUID)
    assert end == dialogue.end


@pytest.mark.parametrize("dialogue", [d for d in ALL if d.end == MESSAGE], ids=lambda d: d.title)
def test_machine_leaves_what_follows(dialogue: Dialogue) -> None:
    handshake = machine(dialogue)
    assert handshake.receive(b"\0" + cut_nowhere(dialogue)[0] + HELLO) == expected(dialogue, GUID)
    assert handshake.done
    assert handshake.leftover == HELLO


class Daemons:
    """dbus-daemons, one for each `(auth, over)`, started when first asked for."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._running: dict[tuple[tuple[str, ...], str], subprocess.Popen[str]] = {}
        self._addresses: dict[tuple[tuple[str, ...], str], dict[str, str]] = {}

    def connect(self, auth: tuple[str, ...], over: str) -> tuple[socket.socket, str]:
        """A socket connected to such a daemon, and the guid it told in its address."""
        key = auth, over
        if key not in self._running:
            self._start(key)
        address = self._addresses[key]
        if over == "tcp":
            sock = socket.create_connection((address["host"], int(address["port"])))
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address["path"])
        sock.settimeout(20)
        return sock, address["guid"]

    def _start(self, key: tuple[tuple[str, ...], str]) -> None:
        auth, over = key
        listen = f"unix:tmpdir={self._place}" if over == "unix" else "tcp:host=127.0.0.1,port=0"
        config = self._place / f"{len(self._running)}.conf"
        config.write_text(
            '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"'
            ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">'
            f"<busconfig><type>session</type><listen>{listen}</listen>"
            + "".join(f"<auth>{name}</auth>" for name in auth)
            + '<allow_anonymous/><policy context="default"><allow user="*"/>'
            '<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>'
        )
        process = subprocess.Popen(
            ["dbus-daemon", "--nofork", f"--config-file={config}", "--print-address=1"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self._running[key] = process
        options = process.stdout.readline().strip().partition(":")[2]
        self._addresses[key] = dict(item.split("=", 1) for item in options.split(","))

    def stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    started = Daemons(tmp_path_factory.mktemp("daemons"))
    yield started
    started.stop()


def receive(sock: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer if the other side closes before."""
    data = b""
    while len(data) < count:
        try:
            more = sock.recv(count - len(data))
        except ConnectionResetError:  # it closed before it had read all that we sent
            break
        if not more:
            break
        data += more
    return data


@pytest.mark.parametrize("cut", [cut_lines, cut_bytes, cut_nowhere])
@pytest.mark.parametrize("dialogue", ALL, ids=lambda d: d.title)
def test_dbus_daemon(dialogue: Dialogue, cut: Cut, daemons: Daemons) -> None:
    fits(dialogue)
    sock, guid = daemons.connect(dialogue.auth, dialogue.over)
    with closing(sock):
        want = expected(dialogue, guid)
        sock.sendall(b"\0")
        for piece in cut(dialogue):
            sock.sendall(piece)
        assert receive(sock, len(want)) == want
        if dialogue.end == NOTHING:
            sock.sendall(PROBE[0])
            assert receive(sock, len(PROBE[1])) == PROBE[1]
        elif dialogue.end == CLOSED:
            assert receive(sock, 1) == b""
        else:
            sock.sendall(HELLO)
            assert receive(sock, 2) == b"l\2"
