"""Who is at the other end of a socket, as the kernel says (socket(7), unix(7)).

Asked once, at accept, never believed from the peer's own words.  Only Linux's options are here;
Python's `socket` does not name all of them.
"""

from __future__ import annotations

import errno
import socket
import struct
from functools import cache, lru_cache
from typing import Final, Literal

from afdbus.identity import Identity

SO_PEERSEC: Final = 31
SO_PEERGROUPS: Final = 59  # since Linux 4.13
SO_PEERPIDFD: Final = 77  # since Linux 6.5

_NO_ID: Final = 0xFFFFFFFF  # (uid_t) -1: what SO_PEERCRED says on TCP
_ALL_IDS: Final = 0xFFFFFFFF  # length of a map without gaps: 65534 is then really somebody
_OVERFLOW: Final = 65534
_MAX_OPTION: Final = 1024  # the longest that Python's getsockopt takes

_NOBODY: Final = Identity()

_ucred = struct.Struct("=iII")

# dbus-daemon: the longest part of a command line that it shows.
MAX_COMMAND: Final = 50

# What it shows for each byte: "?" for what does not print (DEL does, it thinks), " " for NUL.
_PRINTABLE: Final = bytes(
    0x20 if byte == 0 else byte if 0x20 <= byte <= 0x7F else 0x3F for byte in range(256)
)


def identity_of(sock: socket.SocketType) -> Identity:
    """The identity of the peer of a connected socket; all None where the transport knows none.

    `command` is left empty, since /proc is slow: see `command_of`.  Raises OSError if the kernel
    does not answer.
    """
    pid, uid, gid = _ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid == _NO_ID:
        return _NOBODY
    no_uid, no_gid = _overflow("uid"), _overflow("gid")
    return Identity(
        None if uid == no_uid else uid,
        None if gid == no_gid else gid,
        pid or None,  # 0: a process outside of our pid namespace
        _groups_of(sock, gid, no_gid),
        _label_of(sock) if _are_labelled() else None,
    )


def _groups_of(sock: socket.SocketType, gid: int, unknown: int | None) -> tuple[int, ...] | None:
    """All groups of the peer; None if the kernel, or Python, cannot tell."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MAX_OPTION)
    except OSError as error:
        # More than 256 groups do not fit into the longest option that Python asks for.
        if error.errno in (errno.ENOPROTOOPT, errno.ERANGE):
            return None
        raise
    return _all_groups(data, gid, unknown)


@lru_cache(maxsize=64)  # most peers are in the same groups: 0.9 us less
def _all_groups(data: bytes, gid: int, unknown: int | None) -> tuple[int, ...]:
    known = {gid, *struct.unpack(f"={len(data) // 4}I", data)}
    known.discard(unknown)
    return tuple(sorted(known))


@cache  # security modules are there from the boot on, or never
def _are_labelled() -> bool:
    """Whether a security module may have labelled our peers.

    If none labels even ourselves, nobody need be asked for one: 1.6 us a connection.
    """
    try:
        with open("/proc/self/attr/current", "rb", buffering=0) as file:
            file.read(1)
    except OSError as error:
        return error.errno != errno.EINVAL  # which says that no module answers
    return True


def _label_of(sock: socket.SocketType) -> bytes | None:
    """The label that a security module gave the peer, without trailing NULs; None if none did."""
    try:
        label = sock.getsockopt(socket.SOL_SOCKET, SO_PEERSEC, _MAX_OPTION)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.ERANGE):
            return None
        raise
    return label.rstrip(b"\0") or None


def process_fd_of(sock: socket.SocketType) -> int | None:
    """A new pidfd for the process of the peer, the caller's to close; None if there is none.

    It means the process that has connected, even if its number was given to another since.
    """
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:  # an older kernel, a process that is gone, no descriptor left
        return None


@cache  # the maps of a user namespace are written once, before anything runs in it
def _overflow(kind: Literal["uid", "gid"]) -> int | None:
    """The number that stands for every id without one in our user namespace; None if all have one.

    It is also the number of `nobody`, who cannot be told from them where the map has gaps.
    """
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            mapped = sum(int(line.split()[2]) for line in file)
        if mapped >= _ALL_IDS:
            return None
        with open(f"/proc/sys/kernel/overflow{kind}", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:  # no /proc: take the careful side
        return _OVERFLOW


def command_of(pid: int) -> str:
    """The command line of `pid`, as dbus-daemon writes it into log lines and errors: `comm="..."`.

    At most 50 bytes; the last NUL goes, the others become spaces, and "?" stands for what does
    not print.  Empty if there is no such process any more.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            data = file.read(MAX_COMMAND)
    except OSError:
        return ""
    return data.removesuffix(b"\0").translate(_PRINTABLE).decode("ascii")
