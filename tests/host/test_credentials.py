"""Identities of real sockets, and of the kernel's answers that cannot be had here."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from kit import Daemon

from afdbus.host import credentials
from afdbus.host.credentials import command_of, identity_of
from afdbus.identity import Identity

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def test_ourselves() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        identity = identity_of(ours)
    assert identity.uid == os.geteuid()
    assert identity.gid == os.getegid()
    assert identity.pid == os.getpid()
    assert identity.gids == tuple(sorted({os.getegid(), *os.getgroups()}))
    assert identity.command == ""


def identity_of_child(code: str) -> Identity:
    """The identity of a process that runs `code` before it connects."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0afdbus-test-{os.getpid()}")
        listener.listen()
        connect = f"import os, socket\n{code}\ns = socket.socket(socket.AF_UNIX)\n"
        connect += f"s.connect({listener.getsockname()!r}); s.recv(1)\n"
        with subprocess.Popen([sys.executable, "-S", "-c", connect]) as child:
            listener.settimeout(20)
            accepted, _ = listener.accept()
            with accepted:
                identity = identity_of(accepted)
                assert identity.pid == child.pid
            return identity


@root
def test_somebody_else() -> None:
    identity = identity_of_child("os.setgroups([7, 3]); os.setgid(5); os.setuid(4321)")
    assert (identity.uid, identity.gid, identity.gids) == (4321, 5, (3, 5, 7))


@root
def test_more_groups_than_can_be_asked_for() -> None:
    assert identity_of_child("os.setgroups(range(200))").gids == tuple(range(200))
    assert identity_of_child("os.setgroups(range(1000, 1300))").gids is None


def test_tcp_has_no_identity() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert identity_of(accepted) == Identity()


class Kernel:
    """A socket whose peer is as told."""

    def __init__(self, uid: int, gid: int, *groups: int, label: bytes = b"", pid: int = 1) -> None:
        self.answers = {
            socket.SO_PEERCRED: struct.pack("=iII", pid, uid, gid),
            credentials.SO_PEERGROUPS: struct.pack(f"={len(groups)}I", *groups),
            credentials.SO_PEERSEC: label,
        }

    def getsockopt(self, level: int, option: int, room: int) -> bytes:
        assert level == socket.SOL_SOCKET
        assert len(self.answers[option]) <= room
        return self.answers[option]


def asked(kernel: Kernel) -> Identity:
    return identity_of(kernel)  # type: ignore[arg-type]


@pytest.fixture
def overflow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    def set_to(number: int | None) -> None:
        monkeypatch.setattr(credentials, "_overflow", lambda kind: number)

    return set_to


def test_p38_unmapped_is_not_nobody(overflow: Callable[[int | None], None]) -> None:
    overflow(65534)
    identity = asked(Kernel(65534, 65534, 65534, 10))
    assert (identity.uid, identity.gid, identity.gids) == (None, None, (10,))
    assert asked(Kernel(0, 0, 65534)) == Identity(0, 0, 1, (0,))


def test_p38_nobody_is_nobody_where_all_are_mapped(
    overflow: Callable[[int | None], None],
) -> None:
    overflow(None)
    identity = asked(Kernel(65534, 65534))
    assert (identity.uid, identity.gid, identity.gids) == (65534, 65534, (65534,))


USER_NAMESPACE = """
import socket
from afdbus.host.credentials import _overflow, identity_of
a, b = socket.socketpair()
print(_overflow("uid"), _overflow("gid"), identity_of(a)[:2])
"""


def in_user_namespace(*options: str) -> str:
    command = ["unshare", "--user", *options, sys.executable, "-c", USER_NAMESPACE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0 and "unshare" in run.stderr:
        pytest.skip(f"no user namespace can be had: {run.stderr}")
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_p38_in_a_real_user_namespace() -> None:
    assert in_user_namespace() == "65534 65534 (None, None)"
    assert in_user_namespace("--map-root-user") == "65534 65534 (0, 0)"


def test_labels_lose_their_nul(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_are_labelled", lambda: True)
    assert asked(Kernel(1, 1, label=b"unconfined\0")).label == b"unconfined"
    assert asked(Kernel(1, 1, label=b"snap.x (enforce)")).label == b"snap.x (enforce)"
    assert asked(Kernel(1, 1, label=b"\0")).label is None


def test_nobody_has_a_label_where_we_have_none() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            label = ours.getsockopt(socket.SOL_SOCKET, credentials.SO_PEERSEC, 1024)
        except OSError:
            assert identity_of(ours).label is None
        else:
            assert credentials._are_labelled()
            assert identity_of(ours).label == label.rstrip(b"\0")


def test_a_pid_of_another_namespace() -> None:
    assert asked(Kernel(1, 1, pid=0)).pid is None


# -- command lines


def run_with(*words: bytes) -> str:
    """`command_of` a process with these arguments."""
    with subprocess.Popen(
        [b"sh", b"-c", b"echo;read x", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it is what it will be
        text = command_of(child.pid)
        child.communicate(b"\n", timeout=20)
    return text


ARGUMENTS = {
    b"abc": "abc",
    b"": "",
    b" ": " ",
    b"x" * 100: "x" * 32,
    b"x" * 31: "x" * 31,
    b"x" * 32: "x" * 32,
    "\xe4\n\x1b\x7f\"'~".encode(): "????\x7f\"'~",
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_command_lines(argument: bytes) -> None:
    assert run_with(argument) == "sh -c echo;read x " + ARGUMENTS[argument]


def test_command_lines_of_several_words() -> None:
    assert run_with(b"a", b"", b"b") == "sh -c echo;read x a  b"
    assert run_with(b"a", b"", b"") == "sh -c echo;read x a  "


def test_no_such_process() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait(timeout=20)
        assert command_of(child.pid) == ""


# A client that is refused something, shows how, and waits.
CLIENT = """
from kit import RawClient, call
client = RawClient(input())
client.authenticate()
client.send(call("Hello"))
client.read()
print(client.exchange(call("ListNames"))[-1].args[0], flush=True)
input()
"""


def test_command_lines_are_those_of_the_daemon(start: Callable[..., Daemon]) -> None:
    """The daemon's error texts show a command line as we do."""
    policy = (
        '<policy context="default"><allow user="*"/><allow receive_sender="*"/>'
        '<allow send_interface="org.freedesktop.DBus" send_member="Hello"/></policy>'
    )
    daemon = start(policy=policy)
    script = daemon.directory / "c"
    script.write_text(CLIENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for argument in ARGUMENTS:
        with subprocess.Popen(
            [b"p", bytes(script), argument],
            executable=sys.executable,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(daemon.address.encode() + b"\n")
            child.stdin.flush()
            text = child.stdout.readline().decode()
            assert f'pid={child.pid} comm="{command_of(child.pid)}"' in text
            child.communicate(b"\n", timeout=20)
