"""The loop beside other tasks, and the garbage collector beside the loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from afdbus.host.journal import Journal
from afdbus.server.collector import WORTH, Collector
from afdbus.server.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(Journal(stderr=False))
    yield loop
    loop.close()


def test_p23_a_deadline_is_not_lingered_over(loop: Loop) -> None:
    """A loop that would wait for an hour in epoll still looks at what is due sooner."""
    loop.linger = 3600.0
    loop.timers.call_at(loop.timers.clock() + 0.001, loop.stop)

    async def main() -> None:
        with trio.fail_after(10):
            await loop.run()

    trio.run(main)


def test_p23_a_shared_loop_lets_others_run(loop: Loop) -> None:
    """Without lingering, an idle loop sleeps in trio, where other tasks wake it."""

    async def main() -> None:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(loop.run)
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
                nursery.start_soon(loop.run)
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
