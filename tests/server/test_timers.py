"""Deadlines with a clock that is turned by hand."""

from __future__ import annotations

from math import inf
from random import Random

from afdbus.server.timers import Deadlines, Timers


class Hand:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_due(timers: Timers) -> None:
    for deed in timers.due():
        deed()


def test_calls_are_due_in_the_order_of_their_times() -> None:
    hand = Hand()
    timers = Timers(hand)
    done: list[float] = []
    times = [Random(3).uniform(100, 200) for _ in range(50)] + [150.0] * 3
    for when in times:
        timers.call_at(when, lambda w=when: done.append(w))  # type: ignore[misc]
    for _ in range(60):
        hand.now += 2
        run_due(timers)
        assert done == sorted(when for when in times if when <= hand.now)
    run_due(timers)
    assert len(done) == len(times)


def test_only_a_sooner_call_wakes_the_loop() -> None:
    timers = Timers(Hand())
    woken: list[int] = []
    timers.on_sooner = lambda: woken.append(1)
    for when, expected in ((110, 1), (120, 1), (105, 2), (105, 2), (104, 3)):
        timers.call_at(when, lambda: None)
        assert len(woken) == expected


class Waiting:
    """Deadlines of 1,000 ms; who is late is in `late`."""

    def __init__(self, milliseconds: int = 1000) -> None:
        self.hand = Hand()
        self.timers = Timers(self.hand)
        self.milliseconds = milliseconds
        self.late: list[str] = []
        self.deadlines: Deadlines[str] = Deadlines(
            self.timers, lambda: self.milliseconds, self.late.append
        )

    def pass_time(self, seconds: float) -> list[str]:
        self.hand.now += seconds
        run_due(self.timers)
        late, self.late[:] = list(self.late), []
        return late


def test_who_is_late_is_told_once_and_in_order() -> None:
    waiting = Waiting()
    waiting.deadlines.add("a")
    assert waiting.pass_time(0.4) == []
    waiting.deadlines.add("b")
    waiting.deadlines.add("c")
    waiting.deadlines.add("a")  # asking again does not prolong
    waiting.deadlines.discard("b")
    assert waiting.pass_time(0.7) == ["a"]
    assert waiting.pass_time(0.5) == ["c"]
    assert waiting.pass_time(10) == []
    assert len(waiting.deadlines) == 0
    waiting.deadlines.add("d")
    assert waiting.pass_time(1.1) == ["d"]


def test_a_timeout_below_zero_is_never() -> None:
    waiting = Waiting(-1)
    waiting.deadlines.add("a")
    assert waiting.pass_time(10**9) == []
    assert len(waiting.deadlines) == 1


def test_another_time_holds_for_those_who_wait_already() -> None:
    waiting = Waiting(100_000)
    waiting.deadlines.add("a")
    waiting.pass_time(2)
    waiting.milliseconds = 1000
    waiting.deadlines.add("b")
    assert waiting.pass_time(0) == ["a"]
    assert waiting.pass_time(1) == ["b"]
    waiting.deadlines.add("c")
    waiting.milliseconds = -1
    assert waiting.pass_time(1000) == []
    waiting.milliseconds = 5000
    waiting.deadlines.add("d")
    assert waiting.pass_time(0) == ["c"]
    waiting.milliseconds = 10_000
    assert waiting.pass_time(9) == []
    assert waiting.pass_time(1) == ["d"]


def test_p17_what_is_done_in_time_leaves_nothing() -> None:
    waiting = Waiting()
    waiting.deadlines.add("first")
    for number in range(1000):
        waiting.deadlines.add(f"{number}")
        waiting.deadlines.discard(f"{number}")
    assert len(waiting.deadlines) == 1
    assert len(waiting.timers._heap) == 1


def test_no_timer_runs_while_nobody_waits() -> None:
    """A loop would sleep with a time-out for it, though there is nothing to do at the end."""
    waiting = Waiting()
    timers, deadlines = waiting.timers, waiting.deadlines
    for _ in range(3):
        deadlines.add("a")
        deadlines.add("b")
        assert timers.soonest == waiting.hand.now + 1
        deadlines.discard("a")
        deadlines.discard("c")
        assert timers.soonest < inf
        deadlines.discard("b")
        deadlines.discard("b")
        assert timers.soonest == inf
        waiting.pass_time(0.4)
    deadlines.add("d")
    assert waiting.pass_time(0.9) == []
    assert waiting.pass_time(0.2) == ["d"]
    assert timers.soonest == inf


def test_a_timer_for_nobody_goes_with_the_one_before_it() -> None:
    waiting = Waiting()
    sooner = waiting.hand.now + 0.5
    waiting.timers.call_at(sooner, lambda: None)
    waiting.deadlines.add("a")
    waiting.deadlines.discard("a")
    assert waiting.timers.soonest == sooner
    waiting.pass_time(0.6)
    assert waiting.timers.soonest == inf
    # It lies behind another one, and is wanted again before its turn.
    waiting.deadlines.add("b")
    waiting.timers.call_at(waiting.hand.now + 0.5, lambda: None)
    waiting.deadlines.discard("b")
    waiting.pass_time(0.4)
    waiting.deadlines.add("c")
    assert waiting.pass_time(0.7) == []
    assert waiting.pass_time(0.4) == ["c"]
