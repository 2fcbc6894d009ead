"""P31: once privileges are dropped nothing can be imported any more, so nothing may have to be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from kit import BUS, DAEMONS, Daemon, Message, busconfig, call, peer_call
from kit import signal as signal_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")

NAME = "com.example.Started"
POLICY = """
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
    <deny send_interface="com.example.Denied"/><deny own="com.example.Denied"/>
  </policy>"""


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """A daemon that tells of each import."""
    command = [sys.executable, "-X", "importtime", "-m", "afdbus.daemon_cli"]
    monkeypatch.setitem(DAEMONS, "afdbus", command)
    more = "<user>nobody</user><servicedir>{directory}/services</servicedir>"
    config = busconfig(
        f"{more}<auth>DBUS_COOKIE_SHA1</auth>",
        listen="unix:abstract={directory}/bus",
        policy=POLICY,
    )
    return Daemon("afdbus", config, ["--systemd-activation"])


def imports(daemon: Daemon) -> list[str]:
    """What has been imported so far."""
    lines = daemon.stderr_file.read_text().splitlines()
    return [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]


def provide(daemon: Daemon, name: str, content: str) -> None:
    (daemon.directory / "services").mkdir(exist_ok=True)
    file = daemon.directory / "services" / f"{name}.service"
    file.write_text(f"[D-BUS Service]\nName={name}\n{content}\n")


def start(name: str) -> Message:
    return call("StartServiceByName", "su", name, 0)


def test_p31_nothing_is_imported_after_the_start(daemon: Daemon) -> None:
    with daemon:
        daemon.watch()
        status = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        before = imports(daemon)
        assert "afdbus.server.daemon" in before
        assert "trio" in before
        assert "lxml.etree" in before
        assert "hashlib" in before  # a proof of a cookie needs it

        alice, bob = daemon.connect(), daemon.connect()
        # an activation of each kind
        provide(daemon, NAME, "Exec=/bin/false")
        provide(daemon, "com.example.None", "Exec=/nonexistent")
        provide(daemon, "com.example.Quoted", "Exec='")
        provide(daemon, "com.example.Unit", "Exec=/bin/false\nSystemdService=x.service")
        provide(daemon, "com.example.Broken", "nonsense")
        assert alice.refusal(start(NAME))[0] == "Spawn.ChildExited"
        assert alice.refusal(start("com.example.None"))[0] == "Spawn.ExecFailed"
        assert alice.refusal(start("com.example.Quoted"))[0] == "InvalidArgs"
        alice.send(peer_call("com.example.Unit", "A"))
        bob.own("com.example.Unit")
        # denials
        assert alice.exchange(call("RequestName", "su", "com.example.Denied", 0))[-1].type == 3
        alice.send(peer_call(bob.name, "A", interface="com.example.Denied"))
        assert alice.read().type == 3
        # reloads that succeed and fail
        assert alice.exchange(call("ReloadConfig"))[-1].brief == ("return",)
        config = daemon.config_file.read_text()
        for text in ("<nonsense>", config.replace("<allow own", "<allow user='nobody1' own")):
            daemon.config_file.write_text(text)
            assert alice.exchange(call("ReloadConfig"))[-1].type == 3
        daemon.config_file.write_text(config)
        os.kill(daemon.pid, signal.SIGHUP)
        # large, foreign, with descriptors, matched by arguments, watched
        bob.match("type='signal',arg0path='/a/'")
        alice.send(signal_of("S", "o", "/a/b"))
        alice.send(signal_of("S", "o", "/a/b"))
        alice.send(peer_call(bob.name, "L", "as", ["x" * 100] * 3000))
        fd = os.memfd_create("kit")
        alice.send(peer_call(bob.name, "F", "h", 0, fds=[fd]))
        os.close(fd)
        bob.sync()
        for interface, member in (
            (f"{BUS}.Introspectable", "Introspect"),
            (f"{BUS}.Peer", "GetMachineId"),
            (f"{BUS}.Debug.Stats", "GetStats"),
            (f"{BUS}.Debug.Stats", "GetAllMatchRules"),
        ):
            alice.exchange(call(member, interface=interface))
        alice.exchange(call("GetConnectionCredentials", "s", bob.name))
        watcher = daemon.connect()
        watcher.exchange(call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring"))
        # who breaks the protocol, in the handshake and behind it
        rude = daemon.dial()
        rude.send_bytes(b"\0AUTH DBUS_COOKIE_SHA1 30\r\n")
        rude.read_line()
        rude.send_bytes(b"nonsense\r\n" * 10)
        broken = daemon.connect()
        broken.send_bytes(b"x" * 32)
        broken.closed()
        daemon.settle()

        assert imports(daemon)[len(before) :] == []
