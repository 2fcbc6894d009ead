"""The reference's own authentication scripts (Debian's dbus-tests), played to our machines."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest

from afdbus.host.keyring import CookieKeyring
from afdbus.host.users import Users
from afdbus.identity import Identity
from afdbus.sasl.client import ClientHandshake
from afdbus.sasl.server import HandshakeFailed, ServerHandshake

PLACES = [
    Path(prefix, "installed-tests/dbus/data/auth")
    for prefix in ("/usr/lib/dbus-1.0", "/usr/libexec", "/usr/lib")
]
SCRIPTS = sorted(script for place in PLACES for script in place.glob("*.auth-script"))
ME = os.geteuid()


class Player:
    """One script: `said` is what our side has said and was not yet asked for."""

    def __init__(self, lines: list[str], home: str) -> None:
        self.client = "CLIENT" in lines
        self.said = b""
        self.failed = False
        uid: int | None = ME
        if "NO_CREDENTIALS" in lines:
            uid = None
        elif "ROOT_CREDENTIALS" in lines:
            uid = 0
        elif "SILLY_CREDENTIALS" in lines:
            uid = 4312
        keyring = CookieKeyring(Users(), home)
        self.machine: ClientHandshake | ServerHandshake
        if self.client:
            mechanisms = ("EXTERNAL", "DBUS_COOKIE_SHA1", "ANONYMOUS")
            client = ClientHandshake(ME, mechanisms=mechanisms, want_fds=False)
            self.machine = client
            self.said = client.start()[1:]
        else:
            self.machine = ServerHandshake(
                Identity(uid=uid),
                "0123456789abcdef0123456789abcdef",
                mechanisms=None,
                own_uid=ME,
                allow_fds=True,
                keyring=keyring,
            )
            self.said = self.machine.receive(b"\0")

    def send(self, text: str) -> None:
        text = text.strip("'").replace(r"\r\n", "\r\n")
        wrong = "no-such-user-here", str(ME + 54321)
        for word, value in (
            ("WRONG_USERNAME_HEX", wrong[0]),
            ("WRONG_USERID_HEX", wrong[1]),
            ("USERNAME_HEX", pwd.getpwuid(ME).pw_name),
            ("USERID_HEX", str(ME)),
        ):
            text = re.sub(rf"\b{word}\b", value.encode().hex(), text)
        try:
            self.said += self.machine.receive(text.encode() + b"\r\n")
        except HandshakeFailed as failure:
            self.said += failure.farewell
            self.failed = True

    def expect_command(self, command: str) -> None:
        line, _, self.said = self.said.partition(b"\r\n")
        assert line.split(b" ")[0].decode() == command

    def expect_state(self, state: str) -> None:
        assert self.failed is (state == "NEED_DISCONNECT")
        assert self.machine.done is state.startswith("AUTHENTICATED")
        if self.machine.done:
            with_rest = state == "AUTHENTICATED_WITH_UNUSED_BYTES"
            assert bool(self.machine.leftover) is with_rest


@pytest.mark.skipif(not SCRIPTS, reason="dbus-tests is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script: Path, tmp_path: Path) -> None:
    lines = [line.strip() for line in script.read_text().splitlines()]
    steps = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    player = Player(lines, str(tmp_path))
    for word, _, rest in steps:
        rest = rest.strip()
        if word == "SEND":
            player.send(rest)
        elif word == "EXPECT_COMMAND":
            player.expect_command(rest)
        elif word == "EXPECT_STATE":
            player.expect_state(rest)
        elif word == "EXPECT_UNUSED":
            assert player.machine.leftover == rest.strip("'").encode().replace(rb"\r\n", b"\r\n")
            player.machine.leftover = b""  # as the reference's player takes it
        elif word == "EXPECT_HAVE_NO_CREDENTIALS":
            assert getattr(player.machine, "uid", None) is None
        elif word == "EXPECT_HAVE_SOME_CREDENTIALS":
            assert getattr(player.machine, "uid", None) is not None
        else:
            assert word in {"CLIENT", "SERVER", "UNIX_ONLY"} or word.endswith("_CREDENTIALS")
    assert not player.said.strip()


def test_there_is_something_to_play() -> None:
    """A moved directory must not look like success."""
    if not any(place.parent.exists() for place in PLACES):
        pytest.skip("dbus-tests is not installed")
    assert len(SCRIPTS) >= 19
