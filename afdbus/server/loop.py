"""The one loop on the message path, with an epoll set of its own.

A pass serves all light peers, flushes, gives one heavy peer (whose last read brought a lot, or
who has whole messages left) a turn, flushes, looks at the timers, closes what was farewelled, and
accepts (P4, P6, P10).

It knows nothing of trio: it can serve by itself (`serve`), as a daemon does until trio is imported,
and as one of trio's tasks (`server/task.py`).
"""

from __future__ import annotations

import os
import select
import time
import traceback
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Protocol

from afdbus.bus.outbox import Batch
from afdbus.server.flush import flush
from afdbus.server.timers import Timers

if TYPE_CHECKING:
    from socket import SocketType

    from afdbus.bus.outbox import Outbox
    from afdbus.bus.ports import Journal

IN, OUT = select.EPOLLIN, select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR
# News of what comes, and nothing while it has not been read.  The end, and an urgent byte, at which
# a read stops, make it more than IN.
NEWS = int(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET)

# Seconds without anything to do after which a moment is idle.
LINGER = 0.02
# Passes after which a loop looks whether there is work for an idle moment, and trio is asked: half
# a millisecond for whoever comes just then after a pause, so it must be rare (once in 40 it is the
# p99 of pings 5 ms apart).
SPELL = 4096
# As many events as are served in one pass.  What `poll` allocates for 256 costs 0.05 us more.
EVENTS = 64
# How many passes those who ask what clients have done wait for those who never stop.
SETTLING = 256


class Heavy(Protocol):
    """A peer that has more to say than fits into a pass."""

    def turn(self) -> None: ...

    def abort(self) -> None:
        """A bug was met in its turn: it must go."""


class Idler(Protocol):
    """Work for an idle moment."""

    def wanted(self) -> bool:
        """Whether there is any; to be asked now and then."""

    def __call__(self) -> None:
        """Do it."""


class Loop:
    """Descriptors, timers and outboxes of any number of buses."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.timers = Timers(time.monotonic)
        self.touched = Batch(os.write)
        self.bugs = 0
        self.idler: Idler | None = None
        # Called when there is something to do of which no descriptor tells, for who drives the
        # loop and sleeps elsewhere than in `spin`.
        self.wake: Callable[[], object] = lambda: None
        self.stopping = False
        self.strict = bool(os.environ.get("AFDBUS_STRICT"))
        self._poller = select.epoll()
        # By descriptor; a list is 0.03 us quicker than a dictionary.
        self._handlers: list[Callable[[int], None] | None] = []
        self._owners: dict[int, Heavy] = {}
        # Heavy peers in the order in which they wait; a dictionary, to be in it once.
        self._heavy: dict[Heavy, None] = {}
        # Whether there is anything in these or has been, or else something to look at, so that a
        # pass need not look at each.
        self._more = False
        self._accepts: list[Callable[[], None]] = []
        self._again: list[Callable[[], None]] = []
        self._closing: list[SocketType] = []
        self.timers.on_sooner = self._want_pass

    # -- descriptors -------------------------------------------------------------------------

    def register(
        self, fd: int, handler: Callable[[int], None], owner: Heavy | None = None, events: int = IN
    ) -> None:
        """Call `handler` with the events of `fd`; a bug in it ends `owner`."""
        if fd >= len(self._handlers):
            self._handlers += [None] * (fd + 1 - len(self._handlers))
        self._handlers[fd] = handler
        if owner is not None:
            self._owners[fd] = owner
        self._poller.register(fd, events)

    def hand_over(self, fd: int, handler: Callable[[int], None]) -> None:
        """From the next event on call `handler` for a registered `fd`."""
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        self._poller.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Before the descriptor is closed, always: a number may be somebody else's at once (P6)."""
        self._poller.unregister(fd)
        self._handlers[fd] = None
        self._owners.pop(fd, None)

    def close_later(self, sock: SocketType) -> None:
        """Close an unregistered socket at the end of the pass, when no event can name it (P6)."""
        self._closing.append(sock)
        self._want_pass()

    @property
    def crowded(self) -> bool:
        """Whether heavy peers make passes long."""
        return bool(self._heavy)

    # -- the next pass -----------------------------------------------------------------------

    def wait_turn(self, peer: Heavy) -> None:
        """`peer` wants a turn; the longest unserved comes first."""
        self._heavy.setdefault(peer)
        self._want_pass()

    def drop_turn(self, peer: Heavy) -> None:
        self._heavy.pop(peer, None)

    def accept_last(self, deed: Callable[[], None]) -> None:
        """Accept at the end of this pass: a number freed in it must not be given out in it (P6)."""
        self._accepts.append(deed)
        self._want_pass()

    def again(self, deed: Callable[[], None]) -> None:
        """Do this in the next pass, which does not wait."""
        self._again.append(deed)
        self._want_pass()

    def flush(self) -> None:
        """Write what was pushed; for tasks that speak to a bus from outside the loop."""
        if self.touched:
            flush(self.touched, self._write_failed)

    def stop(self) -> None:
        """Let who drives the loop return after the current pass."""
        self.stopping = True
        self._want_pass()

    def _want_pass(self) -> None:
        """There is something to do beyond events; whoever sleeps elsewhere must know, as this may
        be a task beside it."""
        self._more = True
        self.wake()

    def settle(self) -> None:
        """Serve all that is ready now: what clients did before this call is done after it.

        For those who ask a bus what it knows.  Not for handlers of events: others of the same pass
        would outlive what this closes (P6).
        """
        for _ in range(SETTLING):
            if not self.spin(0.0, 1):
                return

    # -- the loop ----------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable when `spin` has something to do, timers aside."""
        return self._poller.fileno()

    def serve(self) -> None:
        """Serve until `stop`, with nobody beside us in this thread."""
        while not self.stopping:
            self.serve_a_while()
        self.stopping = False

    def serve_a_while(self) -> None:
        """Serve until `stop`, or some time, with nobody beside us in this thread.

        It sleeps without a time-out, which would cost the kernel and Python 0.8 us each time, as
        long as no timer runs and nobody waits for an idle moment.
        """
        idler = self.idler
        patience = LINGER if idler is not None and idler.wanted() else None
        if not self.spin(patience, SPELL) and idler is not None:
            idler()

    def spin(self, patience: float | None, passes: int) -> bool:
        """Do all that is to be done, pass by pass: until there is nothing for `patience` seconds
        (None: however long that lasts), or a timer is due while there is nothing; then it returns
        false.  Or until `stop`, or after so many `passes`; then true.

        Passes are counted because a look at the clock in each costs 0.1 us.
        """
        timers = self.timers
        poll = self._poller.poll
        handlers = self._handlers
        touched = self.touched
        busy = bool(self._more or touched)
        timed = timers.soonest != inf
        wait = 0.0 if busy else self._wait(patience)
        for _ in range(passes):
            events = poll(wait, EVENTS)
            touched.news = events
            for fd, event in events:
                handler = handlers[fd]
                if handler is not None:  # else it was closed by an event before
                    try:
                        handler(event)
                    except Exception:
                        self._bug(self._owners.get(fd))
            if touched:
                flush(touched, self._write_failed)
            # One look for all that is rare: 0.1 us less than one for each.
            if self._more or busy or timed or not events:
                if self._more:
                    self._do_more()
                if timers.soonest != inf and timers.clock() >= timers.soonest:
                    self._run_timers()
                if not events and not busy and not self._more:
                    return False
                if self.stopping:
                    return True
                busy = bool(self._more or touched)
                timed = timers.soonest != inf
                wait = 0.0 if busy else self._wait(patience)
        return True

    def _wait(self, patience: float | None) -> float | None:
        """How long the next pass may wait for events, in seconds, with nothing to do at once."""
        if self.timers.soonest == inf:
            return patience
        wait = max(0.0, self.timers.soonest - self.timers.clock())
        return wait if patience is None else min(wait, patience)

    @property
    def closed(self) -> bool:
        return self._poller.closed

    def close(self) -> None:
        """Close the poller; everything should have been unregistered."""
        for sock in self._closing:
            sock.close()
        self._closing.clear()
        self._poller.close()

    def _do_more(self) -> None:
        """The second half of a pass, which most of them do not need."""
        touched = self.touched
        self._more = False
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
        if self._heavy:
            self._more = True

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
