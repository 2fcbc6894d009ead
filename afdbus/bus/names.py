"""Who owns which name, and who waits for it (D-Bus specification, "RequestName", "ReleaseName").

The registry answers with what changed and tells nobody; `ownership.py` tells the world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from afdbus.bus.peer import Peer

ALLOW_REPLACEMENT, REPLACE_EXISTING, DO_NOT_QUEUE = 1, 2, 4

PRIMARY_OWNER, IN_QUEUE, EXISTS, ALREADY_OWNER = 1, 2, 3, 4
RELEASED, NON_EXISTENT, NOT_OWNER = 1, 2, 3


class NameChange(NamedTuple):
    """`name` went from `old` to `new`; None is nobody."""

    name: str
    old: Peer | None
    new: Peer | None


class Place:
    """How a peer has its place in a name's queue; the first place owns the name."""

    __slots__ = ("allow_replacement", "do_not_queue")

    def __init__(self, flags: int) -> None:
        self.set_flags(flags)

    def set_flags(self, flags: int) -> None:
        self.allow_replacement = bool(flags & ALLOW_REPLACEMENT)
        self.do_not_queue = bool(flags & DO_NOT_QUEUE)


# In order.  A dictionary, since thousands may wait who come and go; only who asks to replace the
# owner makes it be built anew.
Queue = dict["Peer", Place]


class Names:
    """All names of one bus.  `owners` has the primary owner of every name, unique ones too.

    `places` counts unique names and all places in queues, as the statistics want it; `peak` is the
    highest it was.
    """

    __slots__ = ("_answers", "owners", "peak", "places", "queues")

    def __init__(self) -> None:
        self.owners: dict[str, Peer] = {}
        self.queues: dict[str, Queue] = {}
        self.places = self.peak = 0
        self._answers: dict[str, dict[bytes, bytes]] = {}

    def answers(self, method: str) -> dict[bytes, bytes]:
        """Where answers to calls of `method`, by their bodies, may be kept until a name changes its
        owner; always the same dictionary."""
        return self._answers.setdefault(method, {})

    def _forget_answers(self) -> None:
        for answers in self._answers.values():
            answers.clear()

    def add_unique(self, peer: Peer) -> NameChange:
        self.owners[peer.name] = peer
        self._forget_answers()
        self._count()
        return NameChange(peer.name, None, peer)

    def drop_unique(self, peer: Peer) -> NameChange:
        del self.owners[peer.name]
        self._forget_answers()
        self.places -= 1
        return NameChange(peer.name, peer, None)

    def queue(self, name: str) -> list[Peer]:
        """The peers that own or wait for `name`, the owner first."""
        if name in self.queues:
            return list(self.queues[name])
        owner = self.owners.get(name)
        return [] if owner is None else [owner]

    def request(self, peer: Peer, name: str, flags: int) -> tuple[int, NameChange | None]:
        """RequestName: the reply's number, and the change of owner if there was one.

        Unknown flag bits are ignored.  The order of the cases is dbus-daemon's.
        """
        queue = self.queues.get(name)
        if queue is None:
            self.queues[name] = {peer: Place(flags)}
            self.owners[name] = peer
            self._forget_answers()
            peer.names[name] = None
            self._count()
            return PRIMARY_OWNER, NameChange(name, None, peer)
        first = next(iter(queue))
        if first is peer:
            queue[peer].set_flags(flags)
            return ALREADY_OWNER, None
        replace = bool(flags & REPLACE_EXISTING) and queue[first].allow_replacement
        if not replace and flags & DO_NOT_QUEUE:
            # Who asks so gives up the place in the queue it may have had.
            self._leave(peer, name, queue)
            return EXISTS, None
        self._enter(peer, name, queue, flags)
        if not flags & REPLACE_EXISTING:
            return IN_QUEUE, None
        # The place is before the owner's or right behind it.
        order = dict.fromkeys([peer, first] if replace else [first, peer]) | dict.fromkeys(queue)
        queue = self.queues[name] = {one: queue[one] for one in order}
        if not replace:
            return IN_QUEUE, None
        if queue[first].do_not_queue:
            self._leave(first, name, queue)
        self.owners[name] = peer
        self._forget_answers()
        return PRIMARY_OWNER, NameChange(name, first, peer)

    def release(self, peer: Peer, name: str) -> tuple[int, NameChange | None]:
        """ReleaseName: the reply's number, and the change of owner if there was one."""
        queue = self.queues.get(name)
        if queue is None:
            return (NOT_OWNER if name in self.owners else NON_EXISTENT), None
        if name not in peer.names:
            return NOT_OWNER, None
        was_first = next(iter(queue)) is peer
        self._leave(peer, name, queue)
        if not was_first:
            return RELEASED, None
        self._forget_answers()
        if queue:
            new = self.owners[name] = next(iter(queue))
            return RELEASED, NameChange(name, peer, new)
        del self.queues[name]
        del self.owners[name]
        return RELEASED, NameChange(name, peer, None)

    def _count(self) -> None:
        self.places += 1
        self.peak = max(self.peak, self.places)

    def _leave(self, peer: Peer, name: str, queue: Queue) -> None:
        if queue.pop(peer, None) is not None:
            del peer.names[name]
            self.places -= 1

    def _enter(self, peer: Peer, name: str, queue: Queue, flags: int) -> None:
        """Join the queue at its end, or say anew how one has one's place."""
        if peer in queue:
            queue[peer].set_flags(flags)
            return
        queue[peer] = Place(flags)
        peer.names[name] = None
        self._count()
