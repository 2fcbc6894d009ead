"""A decision about all messages with one and the same header, and where such decisions are kept.

The first message with a header is parsed, routed and judged; the plan says what to do with the
next.  Whatever a header cannot know is checked on each hit (`road.py`); whatever changes a decision
changes `peer.version` or a counter of `Versions`, or throws the plans away.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afdbus.bus.cell import Cell
    from afdbus.bus.driver.table import Method
    from afdbus.bus.outbox import Outbox
    from afdbus.bus.peer import Calls, Peer
    from afdbus.wire.header import Header

# P8: what one peer may keep.
MAX_HEADER = 1024
MAX_PLANS = 256
MAX_KEYS = 64 * 1024
MAX_VALUE = 255

# A broadcast to so many counts as one more message of a turn.
CASTS = 32

Check = Callable[[bytes, int, int], bool]


class Kind(IntEnum):
    """What a plan does."""

    CALL = 0  # to one peer, which owes a reply
    SEND = 1  # to one peer, nothing expected
    CAST = 2  # to all peers with a matching rule
    REPLY = 3  # to one peer, answering (perhaps) a call
    DRIVER = 4  # a call of the bus itself


class Plan:
    """One decision.

    `word` is the first four bytes of the header as a number (byte order, type, flags, version).
    `calls`: where the call is noted that it makes or answers.
    `rest` is what follows byte 12 of the outgoing header; with a reply it stops before the four
    bytes of the REPLY_SERIAL, which lie at `serial_at` of the incoming one, and `tail` follows;
    `pack` puts its header together; `fields` is the incoming one's length of fields, in bytes.
    `check` judges the body, and is None where there must be none.
    `receiver` and `version` are a unicast's; `casts` (outboxes), `weight` (how many
    messages of a turn it counts as), `cells`, `stamp`, `arguments` (index cells whose rules look at
    arguments), `values` (what these rules name, if they are all about the first argument and that
    is a string; else None) and `decided` (peers that need not be asked about their arguments) a
    broadcast's; when its `total` was that of Versions it was right, and those of `casts` were
    `ready`, with these `fds`, or else `blocked`.  `method` is the driver's, and `answers` what it
    has answered before.
    """

    __slots__ = (
        "answers",
        "arguments",
        "blocked",
        "box",
        "calls",
        "casts",
        "cells",
        "check",
        "decided",
        "fds",
        "fields",
        "header",
        "kind",
        "method",
        "pack",
        "ready",
        "receiver",
        "rest",
        "serial_at",
        "stamp",
        "tail",
        "total",
        "values",
        "version",
        "weight",
        "when_asked",
        "when_unasked",
        "word",
    )

    def __init__(self, kind: Kind, word: int, header: Header, check: Check | None) -> None:
        # A plain int: comparing an IntEnum costs twice as much.
        self.kind = int(kind)
        self.word = word
        self.header = header
        self.check = check
        self.rest = b""
        self.tail = b""
        self.pack: Callable[..., bytes] = bytes
        self.serial_at = 0
        self.fields = 0
        self.receiver: Peer | None = None
        self.version = 0
        self.box: Outbox | None = None
        self.calls: Calls = {}
        self.when_asked = True
        self.when_unasked = True
        self.casts: tuple[Outbox, ...] = ()
        self.ready: tuple[Outbox, ...] = ()
        self.fds: tuple[int, ...] = ()
        self.blocked: tuple[Outbox, ...] = ()
        self.cells = (0, 0, 0)
        self.stamp = 0
        self.total = 0
        self.weight = 0
        self.arguments: tuple[Cell, ...] = ()
        self.values: tuple[Container[str], ...] | None = None
        self.decided: frozenset[Peer] = frozenset()
        self.method: Method | None = None
        self.answers: dict[bytes, bytes] | None = None

    def note(self, total: int) -> None:
        """A broadcast's plan is right at this `total` of Versions."""
        self.total = total
        self.ready = self.casts
        self.blocked = tuple([box for box in self.casts if box.blocked])
        if self.blocked:
            self.ready = tuple([box for box in self.casts if not box.blocked])
        self.fds = tuple([box.fd for box in self.ready])


@lru_cache(256)
def packer(rest: int, tail: int) -> Callable[..., bytes]:
    """What packs a reply's header with so many bytes before and behind the serial."""
    return Struct(f"<III{rest}sI{tail}s").pack


class Plans:
    """Plans by header bytes, in two generations (P8).

    When `young` is full it becomes `old`: a client that alternates between more headers than fit
    keeps hitting those it uses most.  Bounded in number and in bytes of keys.
    """

    __slots__ = ("keys", "old", "young")

    def __init__(self) -> None:
        self.young: dict[bytes, Plan] = {}
        self.old: dict[bytes, Plan] | None = None
        self.keys = 0

    def lookup(self, key: bytes, told_apart: bytes, word: int) -> Plan | None:
        """The plan for a header that starts with `word`, in either generation.

        `told_apart` is the key that it has if another type or other flags came first.
        """
        for one in (key, told_apart):
            plan = self.young.get(one) or self.find(one)
            if plan is not None and plan.word == word:
                return plan
        return None

    def find(self, key: bytes) -> Plan | None:
        """The plan of the old generation, which is young again by being used."""
        if self.old is None:
            return None
        plan = self.old.pop(key, None)
        if plan is not None:
            self.add(key, plan)
        return plan

    def add(self, key: bytes, plan: Plan) -> None:
        if len(self.young) >= MAX_PLANS // 2 or self.keys + len(key) > MAX_KEYS // 2:
            self.old = self.young
            self.young = {}
            self.keys = 0
        self.young[key] = plan
        self.keys += len(key)

    def clear(self) -> None:
        """Forget everything; in place, since the road may hold `young`."""
        self.young.clear()
        self.old = None
        self.keys = 0
