"""Who is at the other end of a connection, as the kernel said when it connected."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """Credentials of a peer, taken at accept (SO_PEERCRED and kin), never from later claims.

    `uid`, `gid`, `pid` are None where the transport has no credentials (TCP) or the kernel's
    number means "not mapped into our user namespace".  `gids` is sorted and contains `gid`; None
    when the groups are unknown.  `label` is the LSM label without trailing NULs.  `command` is the
    process's name, for log lines and error texts; empty: to be looked up when needed.
    `virtual` marks an identity that a test made up.
    """

    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    gids: tuple[int, ...] | None = None
    label: bytes | None = None
    command: str = ""
    virtual: bool = False
