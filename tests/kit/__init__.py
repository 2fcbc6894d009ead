"""What the tests share: real daemons, a client that may send anything, and plain expectations.

Nothing here uses `afdbus.wire`: a test that builds its messages with the code under test can only
show that the code agrees with itself.
"""

from __future__ import annotations

from kit.client import ClosedError, HangError, RawClient
from kit.daemon import DAEMONS, Daemon, busconfig
from kit.message import (
    BUS,
    BUS_PATH,
    ERROR,
    METHOD_CALL,
    METHOD_RETURN,
    NO_AUTO_START,
    NO_REPLY_EXPECTED,
    SIGNAL,
    Message,
    Raw,
    Received,
    call,
    error,
    method_return,
    peer_call,
    signal,
)

__all__ = [
    "BUS",
    "BUS_PATH",
    "ClosedError",
    "DAEMONS",
    "Daemon",
    "ERROR",
    "HangError",
    "METHOD_CALL",
    "METHOD_RETURN",
    "Message",
    "NO_AUTO_START",
    "NO_REPLY_EXPECTED",
    "Raw",
    "RawClient",
    "Received",
    "SIGNAL",
    "busconfig",
    "call",
    "error",
    "method_return",
    "peer_call",
    "signal",
]
