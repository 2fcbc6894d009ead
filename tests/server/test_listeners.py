"""Listening sockets: what is bound, told, refused and removed; dbus-daemon is asked the same."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import busconfig

from afdbus.errors import AddressError
from afdbus.server.listener import Listener
from afdbus.server.listeners import bind, bind_all, printable

GUID = re.compile(r",guid=[0-9a-f]{32}$")


@pytest.fixture
def folder() -> Iterator[Path]:
    # not tmp_path, which may be too long for the path of a socket
    path = Path(tempfile.mkdtemp(prefix="afd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def listen() -> Iterator[Callable[[str], list[Listener]]]:
    """`bind`, and `close` at the end."""
    bound: list[Listener] = []

    def begin(text: str) -> list[Listener]:
        listeners = bind(text)
        bound.extend(listeners)
        return listeners

    yield begin
    for listener in bound:
        listener.close()


Listen = Callable[[str], list[Listener]]


def connect(listener: Listener) -> None:
    """Connect to the socket as the kernel knows it; fails if nobody listens."""
    with socket.socket(listener.socket.family) as client:
        client.connect(listener.socket.getsockname())


# unix:


def test_path(folder: Path, listen: Listen) -> None:
    [listener] = listen(f"unix:path={folder}/bus")
    assert listener.address == f"unix:path={folder}/bus"
    assert GUID.search(str(listener))
    assert listener.method == "unix"
    assert listener.nonce is None
    assert not listener.socket.getblocking()
    assert not listener.socket.get_inheritable()
    assert stat.S_IMODE((folder / "bus").stat().st_mode) == 0o777
    connect(listener)


def test_path_is_told_escaped(folder: Path, listen: Listen) -> None:
    [listener] = listen(f"unix:path={folder}/a%20b")
    assert listener.address == f"unix:path={folder}/a%20b"
    assert (folder / "a b").is_socket()


@pytest.mark.parametrize("key", ["dir", "tmpdir"])
def test_directory_gets_a_random_name_in_the_file_system(
    folder: Path, listen: Listen, key: str
) -> None:
    told = {listen(f"unix:{key}={folder}")[0].address for _ in range(5)}
    assert len(told) == 5
    for address in told:
        assert re.fullmatch(f"unix:path={folder}/dbus-[0-9A-Za-z]{{10}}", address)
        assert Path(address.removeprefix("unix:path=")).is_socket()


def test_runtime(folder: Path, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert listen("unix:runtime=yes")[0].address == f"unix:path={folder}/bus"


def test_abstract(folder: Path, listen: Listen) -> None:
    name = f"{folder.name}%20%ff".replace("_", "%5f")
    [listener] = listen(f"unix:abstract={name}")
    assert listener.address == f"unix:abstract={name}".replace("%5f", "_")
    assert listener.socket.getsockname() == b"\0" + folder.name.encode() + b" \xff"
    connect(listener)


def test_p40_a_stale_socket_is_replaced(folder: Path, listen: Listen) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/bus")
    before = os.lstat(folder / "bus").st_ino
    with open(folder / "keep", "w"):  # so that the inode's number is not used again
        os.link(folder / "bus", folder / "old")
    [listener] = listen(f"unix:path={folder}/bus")
    assert os.lstat(folder / "bus").st_ino != before
    connect(listener)


def test_p40_a_live_socket_is_not_replaced(folder: Path, listen: Listen) -> None:
    [first] = listen(f"unix:path={folder}/bus")
    with pytest.raises(
        AddressError, match=r'Failed to bind socket ".*/bus": Address already in use'
    ):
        bind(f"unix:path={folder}/bus")
    connect(first)


def test_p40_a_socket_whose_queue_is_full_is_alive(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(f"{folder}/bus")
        busy.listen(0)
        client.connect(f"{folder}/bus")
        with pytest.raises(AddressError, match="Address already in use"):
            bind(f"unix:path={folder}/bus")


def test_p40_files_and_links_are_left_alone(folder: Path) -> None:
    (folder / "file").write_text("mine")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/dead")
    (folder / "link").symlink_to(folder / "dead")
    for name in "file", "link":
        with pytest.raises(AddressError, match="Address already in use"):
            bind(f"unix:path={folder}/{name}")
    assert (folder / "file").read_text() == "mine"
    assert (folder / "link").is_symlink()
    assert (folder / "dead").is_socket()


def test_close_removes_the_socket(folder: Path) -> None:
    [listener] = bind(f"unix:path={folder}/bus")
    listener.close()
    assert not os.path.lexists(folder / "bus")


def test_close_from_another_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    [listener] = bind("unix:path=bus")
    assert listener.address == "unix:path=bus"
    monkeypatch.chdir("/")
    listener.close()
    assert not os.path.lexists(folder / "bus")


def test_close_leaves_the_socket_of_a_successor(folder: Path, listen: Listen) -> None:
    [first] = bind(f"unix:path={folder}/bus")
    os.rename(folder / "bus", folder / "moved")
    [second] = listen(f"unix:path={folder}/bus")
    first.close()
    connect(second)
    assert (folder / "bus").is_socket()


# tcp: and nonce-tcp:


def test_tcp_takes_a_free_port_and_tells_it(listen: Listen) -> None:
    [listener] = listen("tcp:host=127.0.0.1")
    port = listener.socket.getsockname()[1]
    assert listener.address == f"tcp:host=127.0.0.1,port={port},family=ipv4"
    assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connect(listener)


def test_tcp_listens_on_all_addresses_of_a_name_on_one_port(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: bytes, port: bytes, *_: int) -> list[tuple[object, ...]]:
        assert (host, port) == (b"both.example", b"0")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 0)) for n in (1, 2, 1)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    first, second = listen("tcp:host=both.example")
    assert [one.socket.getsockname()[0] for one in (first, second)] == ["127.0.0.1", "127.0.0.2"]
    assert first.socket.getsockname()[1] == second.socket.getsockname()[1]
    assert printable([first, second]) == str(first)


def test_tcp_bind_is_where_and_host_is_told(listen: Listen) -> None:
    [listener] = listen("tcp:host=example.com,bind=127.0.0.1,port=0")
    port = listener.socket.getsockname()[1]
    assert listener.address == f"tcp:host=example.com,port={port},family=ipv4"
    assert listener.socket.getsockname()[0] == "127.0.0.1"


def test_tcp_bind_star_is_everywhere(listen: Listen) -> None:
    listeners = listen("tcp:bind=*,family=ipv4")
    assert [one.socket.getsockname()[0] for one in listeners] == ["0.0.0.0"]
    assert listeners[0].address.startswith("tcp:host=localhost,port=")


def test_nonce(listen: Listen, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    [listener] = bind(f"nonce-tcp:host=127.0.0.1,noncefile={folder}/ignored")
    told = re.fullmatch(
        r"nonce-tcp:host=127\.0\.0\.1,port=\d+,family=ipv4,noncefile=(.*)", listener.address
    )
    assert told
    path = Path(told[1])
    assert path.parent.parent == folder
    assert listener.nonce is not None
    assert len(listener.nonce) == 16
    assert path.read_bytes() == listener.nonce
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listener.close()
    assert not list(folder.iterdir())


# systemd:


RECEIVE = """
import os, sys
from afdbus.errors import AddressError
from afdbus.server.listeners import bind, printable
os.environ["LISTEN_PID"] = str(os.getpid())
for number, fd in enumerate(map(int, sys.argv[1:]), 3):
    os.dup2(fd, number)
try:
    listeners = bind("systemd:")
except AddressError as error:
    print(error)
else:
    print(printable(listeners))
    for listener in listeners:
        assert not listener.socket.get_inheritable() and not listener.socket.getblocking()
        listener.close()
print(*[name for name in os.environ if name.startswith("LISTEN_")])
"""


def receive(passed: list[socket.socket], count: str | None = None) -> list[str]:
    """What a process says that finds these sockets at 3, 4, ..."""
    fds = [one.fileno() for one in passed]
    done = subprocess.run(
        [sys.executable, "-c", RECEIVE, *map(str, fds)],
        env={**os.environ, "LISTEN_FDS": str(len(passed)) if count is None else count},
        pass_fds=fds,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.fixture
def high() -> Iterator[Callable[[socket.socket], socket.socket]]:
    """Move a socket to a descriptor out of the way of 3 and 4."""
    moved: list[socket.socket] = []

    def move(low: socket.socket) -> socket.socket:
        moved.append(socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 50)))
        low.close()
        return moved[-1]

    yield move
    for one in moved:
        one.close()


Move = Callable[[socket.socket], socket.socket]


def test_systemd(folder: Path, high: Move) -> None:
    path, internet = high(socket.socket(socket.AF_UNIX)), high(socket.socket(socket.AF_INET))
    path.bind(f"{folder}/a b")
    internet.bind(("127.0.0.1", 0))
    for one in path, internet:
        one.listen()
    told, left = receive([path, internet])
    port = internet.getsockname()[1]
    assert re.fullmatch(
        rf"unix:path={folder}/a%20b,guid=(\w{{32}});"
        rf"tcp:family=ipv4,port={port},host=127\.0\.0\.1,guid=\1",
        told,
    )
    assert left == ""
    assert (folder / "a b").is_socket()  # systemd's, not ours to remove


def test_systemd_abstract(folder: Path, high: Move) -> None:
    one = high(socket.socket(socket.AF_UNIX))
    one.bind(b"\0" + folder.name.encode() + b"\xff")
    one.listen()
    assert receive([one])[0].startswith(f"unix:abstract={folder.name}%ff,guid=")


def test_systemd_refuses_what_does_not_listen(high: Move) -> None:
    one = high(socket.socket(socket.AF_INET))
    assert receive([one]) == ["Passed socket has wrong type.", ""]


def test_systemd_refuses_datagrams(folder: Path, high: Move) -> None:
    one = high(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    one.bind(f"{folder}/datagram")
    assert receive([one]) == ["Passed socket has wrong type.", ""]


@pytest.mark.parametrize("count", ["x", "0", "-1", "99999999999"])
def test_systemd_refuses_nonsense(count: str) -> None:
    assert receive([], count) == ["Failed to acquire systemd socket: Invalid argument", ""]


def test_systemd_without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    with pytest.raises(AddressError, match=r"^No socket received\.$"):
        bind("systemd:")


# several


def test_the_first_possible_address_is_taken(folder: Path, listen: Listen) -> None:
    [listener] = listen(f"bogus:;unix:path=/no/where;unix:path={folder}/a;unix:path={folder}/b")
    assert listener.address == f"unix:path={folder}/a"
    assert not os.path.lexists(folder / "b")


def test_several_texts_are_told_last_first(folder: Path) -> None:
    listeners = bind_all([f"unix:path={folder}/{name}" for name in "abc"])
    told = printable(listeners).split(";")
    assert [GUID.sub("", one) for one in told] == [f"unix:path={folder}/{name}" for name in "cba"]
    assert len({listener.guid for listener in listeners}) == 3
    for listener in listeners:
        listener.close()


def test_if_one_fails_nothing_is_left(folder: Path) -> None:
    with pytest.raises(AddressError, match="No such file or directory"):
        bind_all([f"unix:path={folder}/a", "unix:path=/no/where"])
    assert not list(folder.iterdir())


# the reference's texts

LONG = "a" * 99
REFUSED = [
    "bogus",
    "bogus:",
    ":a=b",
    "unixexec:path=/bin/true",
    "bogus:;unix:path=/no/a",
    "unix:path=/no/a;bogus:",
    "unix:path=/no/a;tcp:family=xx",
    "unix:;unix:runtime=yes",
    "unix:",
    "unix:foo=bar",
    "unix:path=/a,abstract=b",
    "unix:tmpdir=/a,dir=b",
    "unix:runtime=no",
    "unix:path=/no/where/bus",
    "unix:dir=/proc/sys/kernel/hostname",
    f"unix:path={LONG}a",
    f"unix:abstract={LONG}",
    "tcp:host=127.0.0.1,family=xx",
    "tcp:host=127.0.0.1,family=ipv6",
    "tcp:host=127.0.0.1,port=abc",
    "tcp:host=127.0.0.1,port=-1",
    "tcp:host=192.0.2.1",
    "systemd:",
    "unix:path=/a b",
]


@pytest.mark.parametrize("address", REFUSED)
def test_refusals_are_the_references(
    address: str, program: Callable[[str], str], folder: Path
) -> None:
    config = folder / "bus.conf"
    config.write_text(busconfig(listen="unix:tmpdir=/tmp"))
    reference = subprocess.run(
        [program("dbus-daemon"), f"--config-file={config}", f"--address={address}"],
        env={"PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert reference.returncode == 1
    with pytest.raises(AddressError) as ours:
        bind(address)
    # Two random names are not the same.
    told = re.sub("dbus-[0-9A-Za-z]{10}", "dbus-X", str(ours.value))
    theirs = re.sub("dbus-[0-9A-Za-z]{10}", "dbus-X", reference.stderr)
    assert theirs.rstrip("\n").endswith(f"Failed to start message bus: {told}")


def test_accepts_as_soon_as_it_is_bound(folder: Path, listen: Listen) -> None:
    [listener] = listen(f"unix:path={folder}/bus")
    connect(listener)
    assert select.select([listener.socket], [], [], 0)[0]
