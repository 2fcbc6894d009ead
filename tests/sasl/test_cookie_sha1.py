"""DBUS_COOKIE_SHA1: our machines, our keyring and the daemons prove things to one another."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import Daemon, RawClient, busconfig

from afdbus.host.keyring import CookieKeyring
from afdbus.host.users import Users
from afdbus.identity import Identity
from afdbus.sasl.client import ClientHandshake
from afdbus.sasl.server import HandshakeFailed, ServerHandshake

ME = os.geteuid()
MY_NAME = pwd.getpwuid(ME).pw_name
REFUSED = b"REJECTED DBUS_COOKIE_SHA1\r\n"
Connect = Callable[[], RawClient]


@pytest.fixture
def keyring(tmp_path: Path) -> CookieKeyring:
    return CookieKeyring(Users(), str(tmp_path))


def server(keyring: CookieKeyring) -> ServerHandshake:
    return ServerHandshake(
        Identity(),
        "0123456789abcdef0123456789abcdef",
        mechanisms=("DBUS_COOKIE_SHA1",),
        own_uid=ME,
        allow_fds=True,
        keyring=keyring,
    )


def client(keyring: CookieKeyring) -> ClientHandshake:
    return ClientHandshake(ME, mechanisms=("DBUS_COOKIE_SHA1",), want_fds=False, keyring=keyring)


def challenge_of(line: bytes) -> tuple[bytes, int, bytes]:
    word, data = line.rstrip(b"\r\n").split(b" ")
    assert word == b"DATA"
    context, cookie, challenge = bytes.fromhex(data.decode()).split(b" ")
    return context, int(cookie), challenge


def data(text: bytes) -> bytes:
    return b"DATA %b\r\n" % text.hex().encode()


def auth(user: str) -> bytes:
    return f"AUTH DBUS_COOKIE_SHA1 {user.encode().hex()}\r\n".encode()


def test_our_two_machines(keyring: CookieKeyring, tmp_path: Path) -> None:
    ours = server(keyring)
    theirs = client(CookieKeyring(Users(), str(tmp_path)))
    said = theirs.start()
    while not ours.done:
        answer = ours.receive(said)
        said = theirs.receive(answer) if answer else b""
    assert ours.uid == ME
    assert ours.mechanism == theirs.mechanism == "DBUS_COOKIE_SHA1"
    assert theirs.done


@pytest.mark.parametrize("user", [str(ME), f"{ME:#x}", MY_NAME])
def test_names_and_numbers(user: str, keyring: CookieKeyring) -> None:
    context, _, challenge = challenge_of(server(keyring).receive(b"\0" + auth(user)))
    assert context == b"org_freedesktop_general"
    assert len(bytes.fromhex(challenge.decode())) == 16


@pytest.mark.parametrize("user", ["", "no-such-user", str(ME + 1), "-1", "r\0t", "\udcff", "1e0"])
def test_cve_2019_12749_strangers(user: str, keyring: CookieKeyring, tmp_path: Path) -> None:
    line = f"AUTH DBUS_COOKIE_SHA1 {user.encode('utf-8', 'surrogateescape').hex()}\r\n".encode()
    assert server(keyring).receive(b"\0" + line) == REFUSED
    assert not (tmp_path / ".dbus-keyrings").exists()


@pytest.mark.parametrize("cut", ["", "x", " ", " x", "x ", "\t", "PROOF", "x PROOFx", "x  PROOF0"])
def test_wrong_answers(cut: str, keyring: CookieKeyring) -> None:
    ours = server(keyring)
    _, cookie, challenge = challenge_of(ours.receive(b"\0" + auth(str(ME))))
    proof = keyring.proof("org_freedesktop_general", cookie, challenge, b"x")
    assert proof is not None
    assert ours.receive(data(cut.encode().replace(b"PROOF", proof))) == REFUSED
    assert ours.receive(data(b"x " + proof)).startswith(b"ERROR ")  # it is over


@pytest.mark.parametrize("blanks", [" ", "\t", " \t  "])
def test_right_answers(blanks: str, keyring: CookieKeyring) -> None:
    ours = server(keyring)
    _, cookie, challenge = challenge_of(ours.receive(b"\0" + auth(str(ME))))
    proof = keyring.proof("org_freedesktop_general", cookie, challenge, b"whatever")
    assert proof is not None
    assert ours.receive(data(b"whatever" + blanks.encode() + proof)).startswith(b"OK ")
    ours.receive(b"BEGIN\r\n")
    assert ours.uid == ME


def test_an_old_proof_proves_nothing(keyring: CookieKeyring) -> None:
    ours = server(keyring)
    _, cookie, challenge = challenge_of(ours.receive(b"\0" + auth(str(ME))))
    proof = keyring.proof("org_freedesktop_general", cookie, challenge, b"x")
    assert proof is not None
    assert ours.receive(b"CANCEL\r\n") == REFUSED
    _, _, another = challenge_of(ours.receive(auth(str(ME))))
    assert another != challenge
    assert ours.receive(data(b"x " + proof)) == REFUSED


def test_guessing_ends(keyring: CookieKeyring) -> None:
    ours = server(keyring)
    ours.receive(b"\0")
    guess = data(b"x " + b"0" * 40)
    for _ in range(5):
        challenge_of(ours.receive(auth(str(ME))))
        assert ours.receive(guess) == REFUSED
    challenge_of(ours.receive(auth(str(ME))))
    with pytest.raises(HandshakeFailed) as caught:
        ours.receive(guess)
    assert caught.value.farewell == REFUSED


# -- with daemons


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def connect(kind: str, home: Path) -> Iterator[Connect]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        daemon = Daemon(kind, busconfig(auth="DBUS_COOKIE_SHA1"))
    with daemon:
        yield daemon.dial


def test_a_daemon_believes_our_client(connect: Connect, home: Path) -> None:
    with connect() as there:
        ours = client(CookieKeyring(Users(), str(home)))
        there.send_bytes(ours.start())
        while not ours.done:
            there.send_bytes(ours.receive(there.read_line().encode() + b"\r\n"))
        there.hello()


def test_daemons_and_we_share_cookies(connect: Connect, home: Path) -> None:
    with connect() as there:
        there.send_bytes(b"\0" + auth(str(ME)))
        context, cookie, challenge = challenge_of(there.read_line().encode())
        ours = CookieKeyring(Users(), str(home))
        assert ours.best_cookie(context.decode()) == cookie
        proof = ours.proof(context.decode(), cookie, challenge, b"abc")
        assert proof is not None
        there.send_bytes(data(b"abc " + proof))
        assert there.read_line().startswith("OK ")


@pytest.mark.parametrize("user", [str(ME), f"{ME:#x}", MY_NAME])
def test_names_and_numbers_for_daemons(user: str, connect: Connect) -> None:
    with connect() as there:
        there.send_bytes(b"\0" + auth(user))
        assert there.read_line().startswith("DATA ")


@pytest.mark.parametrize("user", ["no-such-user", str(ME + 1), "-1"])
def test_cve_2019_12749_strangers_for_daemons(user: str, connect: Connect) -> None:
    """Nobody's home but the daemon's own is looked into, whatever is linked there."""
    with connect() as there:
        there.send_bytes(b"\0" + auth(user))
        assert there.read_line() == REFUSED.decode().rstrip()


@pytest.mark.parametrize("text", ["", "x", " ", " x", "x ", "x 00"])
def test_wrong_answers_for_daemons(text: str, connect: Connect) -> None:
    with connect() as there:
        there.send_bytes(b"\0" + auth(str(ME)))
        assert there.read_line().startswith("DATA ")
        there.send_bytes(data(text.encode()))
        assert there.read_line() == REFUSED.decode().rstrip()
