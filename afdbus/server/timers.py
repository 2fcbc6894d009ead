"""Deadlines as data: the loop looks at them once a pass, tests turn the clock."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers:
    """Calls to be made at times of a clock, in seconds."""

    __slots__ = ("_count", "_heap", "clock", "on_sooner", "soonest")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        # When the next call is due; infinity if none is.
        self.soonest = inf
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        # Called when a call is due sooner than all before.
        self.on_sooner: Callable[[], None] = lambda: None

    def call_at(self, when: float, deed: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (when, self._count, deed))
        if when < self.soonest:
            self.soonest = when
            self.on_sooner()

    def due(self) -> list[Callable[[], None]]:
        """Take out the calls that are due."""
        now = self.clock()
        deeds = []
        while self._heap and self._heap[0][0] <= now:
            deeds.append(heappop(self._heap)[2])
        self.tidy()
        return deeds

    def tidy(self) -> None:
        """Forget the next calls as far as they are idle: nobody need wake up for them."""
        heap = self._heap
        while heap and isinstance(call := heap[0][2], Call) and call.idle:
            heappop(heap)
            call.due = inf
        self.soonest = heap[0][0] if heap else inf


class Call:
    """A deed for `call_at` that can be called off, and is let go of then: what hangs on it need
    not wait for its time.

    While it is `idle` there is nothing for it to do; `due` is for who calls it at several times.
    """

    __slots__ = ("_deed", "due", "idle")

    def __init__(self, deed: Callable[[], None]) -> None:
        self._deed: Callable[[], None] | None = deed
        self.idle = False
        self.due = inf

    def __call__(self) -> None:
        if self._deed is not None:
            self._deed()

    def call_off(self) -> None:
        self._deed = None


class Deadlines(Generic[Key]):
    """Things that must be done with within the same time each.

    Since all wait equally long, a dictionary in the order of adding is the queue, and one timer
    serves them all: adding and discarding cost a dictionary access, and nothing is kept for what
    is done in time.  While nobody waits no timer runs, since a loop that sleeps with a time-out
    pays 0.8 us for it each time.  The time is asked for each time, as a reload may change it, for
    those who wait already, too.  A timeout below 0 is "never".
    """

    __slots__ = ("_call", "_expired", "_milliseconds", "_timers", "_waiting")

    def __init__(
        self,
        timers: Timers,
        milliseconds: Callable[[], int],
        expired: Callable[[Key], None],
    ) -> None:
        self._timers = timers
        self._milliseconds = milliseconds
        self._expired = expired
        # since when
        self._waiting: dict[Key, float] = {}
        # The next look; those that are due later are void.
        self._call = Call(self._check)

    def close(self) -> None:
        """Nothing expires any more."""
        self._call.call_off()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Start the time of `key`, unless it is running: it is not prolonged by asking again."""
        self._waiting.setdefault(key, self._timers.clock())
        self._call.idle = False
        # The first, since a reload may have made its time shorter.
        self._arm(next(iter(self._waiting.values())))

    def discard(self, key: Key) -> None:
        self._waiting.pop(key, None)
        if not self._waiting and not self._call.idle:
            self._call.idle = True
            self._timers.tidy()

    def _end(self, since: float) -> float:
        milliseconds = self._milliseconds()
        return inf if milliseconds < 0 else since + milliseconds / 1000

    def _arm(self, since: float) -> None:
        """Look again when the time of who waits `since` then is over."""
        when = self._end(since)
        if when < self._call.due:
            self._call.due = when
            self._timers.call_at(when, self._call)

    def _check(self) -> None:
        now = self._timers.clock()
        if now < self._call.due:
            return
        self._call.due = inf
        overdue = []
        for key, since in self._waiting.items():
            if self._end(since) > now:
                self._arm(since)
                break
            overdue.append(key)
        # Armed again before anything can go wrong with one of them.
        for key in overdue:
            if self._waiting.pop(key, None) is not None:
                self._expired(key)
