"""The loop by itself and beside other tasks, and the garbage collector beside the loop."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from afdbus.host.journal import Journal
from afdbus.server import task
from afdbus.server.beside import import_beside
from afdbus.server.collector import WORTH, Collector
from afdbus.server.loop import LINGER, Loop
from afdbus.server.signals import Signals


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(Journal(stderr=False))
    yield loop
    loop.close()


class Idler:
    """Does it in every idle moment."""

    def __init__(self, deed: Callable[[], object]) -> None:
        self.deed = deed

    def wanted(self) -> bool:
        return True

    def __call__(self) -> None:
        self.deed()


def alone(loop: Loop) -> None:
    loop.serve()


def in_trio(loop: Loop) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            await task.run(loop)

    trio.run(main)


def in_a_daemon(loop: Loop) -> None:
    task.serve(loop, lambda: None)


DRIVERS = pytest.mark.parametrize("drive", [alone, in_trio, in_a_daemon])


@DRIVERS
def test_p10_deadlines_are_met_in_order(loop: Loop, drive: Callable[[Loop], None]) -> None:
    """An idle loop would wait for an hour, but looks at what is due sooner."""
    seen: list[str] = []
    idle: list[str] = []
    loop.idler = Idler(lambda: idle.append("idle"))
    now = loop.timers.clock()

    def last() -> None:
        seen.append("last")
        loop.stop()

    loop.timers.call_at(now + 0.1, last)
    loop.timers.call_at(now + 0.05, lambda: seen.append("first"))
    drive(loop)
    assert seen == ["first", "last"]
    assert loop.timers.clock() >= now + 0.1
    # In somebody's trio program idle moments are not ours.
    assert bool(idle) == (drive is not in_trio)


@DRIVERS
def test_stop_ends_it_and_it_can_go_on(loop: Loop, drive: Callable[[Loop], None]) -> None:
    reader, writer = os.pipe()
    read: list[bytes] = []

    def receive(_event: int) -> None:
        read.append(os.read(reader, 1))
        loop.stop()

    loop.register(reader, receive)
    os.write(writer, b"ab")
    drive(loop)
    assert read == [b"a"]
    drive(loop)
    assert read == [b"a", b"b"]
    loop.unregister(reader)
    os.close(reader)
    os.close(writer)


@DRIVERS
def test_deeds_for_the_next_pass_do_not_wait(loop: Loop, drive: Callable[[Loop], None]) -> None:
    def first() -> None:
        loop.again(loop.stop)

    loop.again(first)
    drive(loop)


@DRIVERS
def test_what_a_timer_leaves_for_the_next_pass_does_not_wait(
    loop: Loop, drive: Callable[[Loop], None]
) -> None:
    """Such as to close the connection of who was waited for too long."""
    loop.timers.call_at(loop.timers.clock() + 0.05, lambda: loop.again(loop.stop))
    drive(loop)


def test_p10_other_tasks_get_their_turn_after_each_long_pass(loop: Loop) -> None:
    now = 0.0
    passes = turns = 0
    loop.timers.clock = lambda: now
    reader, writer = os.pipe()
    os.write(writer, b"x")

    def work(_event: int) -> None:
        nonlocal now, passes
        now += task.YIELD
        passes += 1
        if passes == 20:
            loop.stop()

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await task.run(loop)
            nursery.cancel_scope.cancel()

    loop.register(reader, work)
    trio.run(main)
    # Those who are ready run in a random order: one turn may come before the first pass, or after.
    assert passes == 20
    assert turns >= 18
    loop.unregister(reader)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("patience", [None, 0.0, LINGER, 3.0])
def test_a_timer_is_met_among_events_without_pause(loop: Loop, patience: float | None) -> None:
    now = 0.0
    loop.timers.clock = lambda: now
    seen: list[float] = []
    ready = os.eventfd(1)

    def handler(_event: int) -> None:
        nonlocal now
        now += 0.001

    loop.register(ready, handler)
    loop.timers.call_at(0.05, lambda: seen.append(now))
    loop.spin(patience, 1)  # from now on it knows of the timer
    loop.spin(patience, 1000)
    loop.unregister(ready)
    os.close(ready)
    assert seen
    assert seen[0] < 0.06


@pytest.fixture
def handlers() -> Iterator[None]:
    """Whatever a test does with these signals is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_p10_a_signal_wakes_the_loop(loop: Loop, handlers: None) -> None:
    """Each is told in the loop, in the order in which they came, and the loop does not sleep on."""
    came: list[int] = []

    def take(number: int) -> None:
        came.append(number)
        if number == signal.SIGUSR2:
            loop.stop()
        else:
            os.kill(os.getpid(), signal.SIGUSR2)

    signals = Signals(loop, [signal.SIGUSR1, signal.SIGUSR2], take)
    # as if it came in the moment between the last look and the sleep
    os.kill(os.getpid(), signal.SIGUSR1)
    assert came == [], "nothing is done between two instructions of somebody else"
    loop.serve()
    assert came == [signal.SIGUSR1, signal.SIGUSR2]
    signals.close()


def test_a_signal_from_outside_wakes_a_loop_that_sleeps(loop: Loop, handlers: None) -> None:
    came: list[int] = []

    def take(number: int) -> None:
        came.append(number)
        loop.stop()

    signals = Signals(loop, [signal.SIGUSR1], take)
    loop.idler = Idler(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.serve()
    assert came == [signal.SIGUSR1]
    signals.close()
    os.kill(os.getpid(), signal.SIGUSR1)  # does no harm any more


def test_a_signal_from_outside_wakes_a_daemon_that_sleeps_in_trio(
    loop: Loop, handlers: None
) -> None:
    came: list[int] = []

    def take(number: int) -> None:
        came.append(number)
        loop.stop()

    signals = Signals(loop, [signal.SIGUSR1], take)
    signals.unlisten()
    loop.idler = Idler(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    task.serve(loop, signals.listen)
    assert came == [signal.SIGUSR1]
    signals.close()


def test_the_loop_serves_while_a_module_is_imported(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import waits for what the loop does, and the loop goes on when it is done."""
    reader, writer = os.pipe()
    (tmp_path / "slow_to_import.py").write_text(f"import os\nGOT = os.read({reader}, 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    interval = sys.getswitchinterval()
    import_beside(loop, "slow_to_import", loop.stop)
    loop.again(lambda: os.write(writer, b"x"))
    loop.serve()
    assert sys.modules.pop("slow_to_import").GOT == b"x"
    assert sys.getswitchinterval() == interval
    os.close(reader)
    os.close(writer)


def test_an_import_waits_until_the_loop_has_nothing_to_do(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the loop is a `sleep`, which here has it do something until the third."""
    reader, writer = os.pipe()
    (tmp_path / "imported_when_quiet.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    loop.register(reader, lambda _event: os.read(reader, 1) and None)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        before = loop.touched.news
        if len(looks) < 3:
            os.write(writer, b"x")
            while loop.touched.news is before:
                os.sched_yield()

    monkeypatch.setattr(time, "sleep", sleep)
    import_beside(loop, "imported_when_quiet", loop.stop, 0.5)
    loop.serve()
    assert sys.modules.pop("imported_when_quiet")
    assert looks == [0.5, 0.5, 0.5]
    loop.unregister(reader)
    os.close(reader)
    os.close(writer)


def test_a_module_that_cannot_be_imported_is_told(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "strict", True)
    import_beside(loop, "no_such_module", loop.stop)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        loop.serve()
    assert loop.bugs == 1


def test_an_import_may_fail_in_any_way_and_is_tried_once_more(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when all descriptors are taken for a moment."""
    (tmp_path / "fails_once.py").write_text(
        "import threading\n"
        "if threading.current_thread() is not threading.main_thread():\n"
        "    raise OSError(24, 'Too many open files')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    interval = sys.getswitchinterval()
    import_beside(loop, "fails_once", loop.stop)
    loop.serve()
    assert sys.modules.pop("fails_once")
    assert sys.getswitchinterval() == interval


def test_a_bug_at_a_signal_does_not_end_the_loop(
    loop: Loop, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "strict", False)

    def take(number: int) -> None:
        if number == signal.SIGUSR1:
            raise ZeroDivisionError
        loop.stop()

    signals = Signals(loop, [signal.SIGUSR1, signal.SIGUSR2], take)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    loop.serve()
    assert loop.bugs == 1
    signals.close()


def test_p23_a_shared_loop_lets_others_run(loop: Loop) -> None:
    """An idle loop sleeps in trio, where other tasks wake it."""

    async def main() -> None:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task.run, loop)
                await trio.testing.wait_all_tasks_blocked()
                loop.stop()

    trio.run(main)


def test_p10_a_busy_loop_lets_others_run(loop: Loop) -> None:
    """There is something to do in every pass, and yet another task gets its turn."""

    def again() -> None:
        loop.again(again)

    async def main() -> None:
        again()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task.run, loop)
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                loop.stop()

    trio.run(main)


def test_p25_full_collections_wait_until_it_is_quiet() -> None:
    threshold = gc.get_threshold()
    full: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(1)

    try:
        collector = Collector()
        gc.callbacks.append(count)
        for _ in range(WORTH):
            gc.collect(1)
        held = [[] for _ in range(200_000)]  # enough for Python to want full ones
        assert held
        assert full == []
        collector()
        assert full == [1]
        for _ in range(WORTH):
            gc.collect(1)
        collector()
        assert full == [1], "not twice in so short a time"
    finally:
        gc.callbacks.remove(count)
        gc.set_threshold(*threshold)
        gc.unfreeze()
