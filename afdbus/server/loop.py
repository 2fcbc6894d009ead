"""The one task on the message path, with an epoll set of its own.

A trio wake-up costs 7 us hot and 50 us cold; asked once a batch it vanishes.  A pass of the loop
serves all light peers, flushes, gives one heavy peer (whose last read filled the buffer, or who
has whole messages left) a turn, flushes, looks at the timers, closes what was farewelled, and
accepts (P4, P6, P10).  Under load it lets trio's other tasks run every 5 ms.

As a daemon of its own the loop may *linger*: it waits in epoll itself for up to 20 ms before it
goes back to trio, which halves the cost of a quiet conversation.  That blocks all other tasks
meanwhile, so a loop that is shared (tests in one process) does not.
"""

from __future__ import annotations

import os
import select
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from afdbus.server.flush import flush
from afdbus.server.timers import Timers

if TYPE_CHECKING:
    from socket import socket

    from afdbus.bus.outbox import Outbox
    from afdbus.bus.ports import Journal

IN, OUT = select.EPOLLIN, select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR

# Seconds.
LINGER = 0.02
YIELD = 0.005
EVENTS = 256


class Heavy(Protocol):
    """A peer that has more to say than fits into a pass."""

    def turn(self) -> None: ...

    def abort(self) -> None:
        """A bug was met in its turn: it must go."""


class Loop:
    """Descriptors, timers and outboxes of any number of buses.

    `linger` in seconds, 0 where the loop is shared with other tasks.
    """

    def __init__(self, journal: Journal, linger: float = 0.0) -> None:
        self.journal = journal
        self.linger = linger
        self.timers = Timers(time.monotonic)
        self.touched: list[Outbox] = []
        self.bugs = 0
        # Called whenever there is nothing to do.
        self.on_idle: Callable[[], None] = lambda: None
        self.strict = bool(os.environ.get("AFDBUS_STRICT"))
        self._poller = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._owners: dict[int, Heavy] = {}
        # Heavy peers in the order in which they wait; a dictionary, to be in it once.
        self._heavy: dict[Heavy, None] = {}
        self._accepts: list[Callable[[], None]] = []
        self._again: list[Callable[[], None]] = []
        self._closing: list[socket] = []
        self._sleep: trio.CancelScope | None = None
        self._stopping = False
        self.timers.on_sooner = self._wake

    # -- descriptors -------------------------------------------------------------------------

    def register(
        self, fd: int, handler: Callable[[int], None], owner: Heavy | None = None, events: int = IN
    ) -> None:
        """Call `handler` with the events of `fd`; a bug in it ends `owner`."""
        self._handlers[fd] = handler
        if owner is not None:
            self._owners[fd] = owner
        self._poller.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._poller.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Before the descriptor is closed, always: a number may be somebody else's at once (P6)."""
        self._poller.unregister(fd)
        del self._handlers[fd]
        self._owners.pop(fd, None)

    def close_later(self, sock: socket) -> None:
        """Close an unregistered socket at the end of the pass, when no event can name it (P6)."""
        self._closing.append(sock)
        self._wake()

    # -- the next pass -----------------------------------------------------------------------

    def wait_turn(self, peer: Heavy) -> None:
        """`peer` wants a turn; the longest unserved comes first."""
        self._heavy.setdefault(peer)

    def drop_turn(self, peer: Heavy) -> None:
        self._heavy.pop(peer, None)

    def accept_last(self, deed: Callable[[], None]) -> None:
        """Accept at the end of this pass: a number freed in it must not be given out in it (P6)."""
        self._accepts.append(deed)

    def again(self, deed: Callable[[], None]) -> None:
        """Do this in the next pass, which does not wait."""
        self._again.append(deed)
        self._wake()

    def flush(self) -> None:
        """Write what was pushed; for tasks that speak to a bus from outside the loop."""
        if self.touched:
            flush(self.touched, self._write_failed)

    def stop(self) -> None:
        """Let `run` return after the current pass."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()

    # -- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop`."""
        poll = self._poller.poll
        timers = self.timers
        clock = timers.clock
        linger = self.linger
        # A loop that lingers makes the other tasks wait so long anyway.
        pause = max(YIELD, linger)
        now = clock()
        yield_at = now + pause
        while not self._stopping:
            if self._heavy or self._again or self.touched or self._closing:
                events = poll(0, EVENTS)
            elif linger:
                events = poll(max(0.0, min(linger, timers.soonest - now)), EVENTS)
            else:
                events = poll(0, EVENTS)
            if events or self._heavy or self._again or self.touched or self._closing:
                self.one_pass(events)
                now = clock()
                if now >= timers.soonest:
                    self._run_timers()
                if now >= yield_at:
                    await trio.lowlevel.checkpoint()
                    yield_at = now + pause
            else:
                await self._idle()
                now = clock()
                yield_at = now + pause

    def close(self) -> None:
        """Close the poller; everything should have been unregistered."""
        for sock in self._closing:
            sock.close()
        self._closing.clear()
        self._poller.close()

    async def _idle(self) -> None:
        """Sleep in trio until a descriptor is ready or a timer is due."""
        self.on_idle()
        delay = max(0.0, self.timers.soonest - self.timers.clock())
        with trio.move_on_after(delay) as self._sleep:
            await trio.lowlevel.wait_readable(self._poller.fileno())
        self._sleep = None
        self._run_timers()

    def one_pass(self, events: list[tuple[int, int]]) -> None:
        """Serve `events` and everything that waits."""
        handlers = self._handlers
        touched = self.touched
        for fd, event in events:
            handler = handlers.get(fd)
            if handler is not None:  # else it was closed by an event before
                try:
                    handler(event)
                except Exception:
                    self._bug(self._owners.get(fd))
        if touched:
            flush(touched, self._write_failed)
        if self._heavy:
            peer = next(iter(self._heavy))
            del self._heavy[peer]
            try:
                peer.turn()
            except Exception:
                self._bug(peer)
            if touched:
                flush(touched, self._write_failed)
        if self._again:
            deeds, self._again = self._again, []
            self._guarded(deeds)
        if self._closing:
            for sock in self._closing:
                sock.close()
            self._closing.clear()
        if self._accepts:
            deeds, self._accepts = self._accepts, []
            self._guarded(deeds)
        if touched:
            flush(touched, self._write_failed)

    def _run_timers(self) -> None:
        self._guarded(self.timers.due())
        if self.touched:
            flush(self.touched, self._write_failed)

    def _guarded(self, deeds: list[Callable[[], None]]) -> None:
        for deed in deeds:
            try:
                deed()
            except Exception:
                self._bug(None)

    def _write_failed(self, box: Outbox) -> None:
        self._bug(box.port)  # type: ignore[arg-type]

    def _bug(self, owner: Heavy | None) -> None:
        """An exception nobody expected is a bug of ours: it costs the peer in whose turn it was
        met, and never the bus (P5)."""
        self.bugs += 1
        self.journal.warning(f"bug:\n{traceback.format_exc()}")
        if self.strict:
            raise  # noqa: PLE0704 - called from an except clause only
        if owner is not None:
            owner.abort()
