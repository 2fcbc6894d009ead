"""Buses for programs that do not run trio: a host in a thread of its own.

The thread is a daemon thread with its own trio run.  While a bus has work to do it needs the
interpreter like any other thread: where others compute without pause, each hop of a message may
take as long as `sys.getswitchinterval()`, 5 ms (P26).
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

import trio

from afdbus.errors import BusClosedError
from afdbus.server.host import BusType, Configuration, Host
from afdbus.server.hostedbus import BusStatistics, HostedBus

T = TypeVar("T")


class ThreadBus:
    """A bus made by `ThreadHost.create_bus`; any thread may use it.

    `name`, `guid` and `address` as in `HostedBus`.
    """

    def __init__(self, host: ThreadHost, bus: HostedBus) -> None:
        self.name = bus.name
        self.guid = bus.guid
        self.address = bus.address
        self._env = bus.env()
        self._host = host
        self._bus = bus

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{' closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        return self._bus.closed

    def env(self) -> dict[str, str]:
        """The variable that leads clients here: of the system bus if the bus is of that type."""
        return dict(self._env)

    @property
    def messages(self) -> list[str]:
        """The last messages and refusals; see `HostedBus.messages`.  Also of a closed bus."""
        return self._host._look(lambda: self._bus.messages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def statistics(self) -> BusStatistics:
        """What there is at this moment; see `HostedBus.statistics`."""
        return self._host._look(self._bus.statistics)

    def wait_for_name(self, name: str, timeout: float | None = None) -> str:
        """Wait until somebody owns `name`, at most `timeout` seconds; the owner's unique name.

        Raises TimeoutError, or BusClosedError when the bus is closed before.
        """
        return self._host._wait(
            lambda: self._bus.wait_for_name(name), timeout, f"nobody owns {name}"
        )

    def wait_until(
        self, holds: Callable[[BusStatistics], bool], timeout: float | None = None
    ) -> None:
        """Wait until `holds(statistics())`, at most `timeout` seconds; see `HostedBus.wait_until`.

        `holds` is called in the host's thread.  Raises TimeoutError, or BusClosedError when the
        bus is closed before.
        """
        self._host._wait(lambda: self._bus.wait_until(holds), timeout, "it does not hold")

    def socket(
        self,
        uid: int | None = None,
        gids: Sequence[int] | None = None,
        pid: int | None = None,
    ) -> socket.socket:
        """A socket whose peer the bus takes for somebody else; see `HostedBus.socket`."""
        return self._host._do(lambda: self._bus.socket(uid, gids, pid))

    def close(self) -> None:
        """Close every connection and give up the name.  Closing twice does nothing."""
        with contextlib.suppress(BusClosedError):  # the host has closed it
            self._host._close(self._bus)


class ThreadHost:
    """The buses of one program, in a thread: `with ThreadHost() as host: host.create_bus()`.

    Any thread may use it, and a program may have several.  A process that forks keeps nothing of
    it in the child, where the host is closed.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._host: Host | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._buses: dict[HostedBus, ThreadBus] = {}

    # -- life ----------------------------------------------------------------------------------

    def open(self) -> Self:
        """Start the thread; `close` ends it.  The same as entering the host."""
        if self._thread is not None:
            raise RuntimeError("this host was opened before")
        self._thread = threading.Thread(target=self._run, name="afdbus", daemon=True)
        self._thread.start()
        self._started.wait()
        if not self.is_open:
            raise RuntimeError("the thread of the host has failed")
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all buses, and end the thread.  Closing twice does nothing."""
        if self.is_open and self._token is not None and self._stop is not None:
            with contextlib.suppress(trio.RunFinishedError):  # somebody else was quicker
                self._token.run_sync_soon(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    @property
    def is_open(self) -> bool:
        """Whether buses can be made; never again once it was closed."""
        return self._host is not None and self._host.is_open

    def _run(self) -> None:
        try:
            trio.run(self._main)
        finally:
            self._started.set()

    async def _main(self) -> None:
        async with Host() as self._host:
            self._stop = trio.Event()
            self._token = trio.lowlevel.current_trio_token()
            self._started.set()
            await self._stop.wait()

    # -- buses ---------------------------------------------------------------------------------

    @property
    def buses(self) -> tuple[ThreadBus, ...]:
        """The buses that are open, in the order in which they were made."""
        return tuple(bus for bus in list(self._buses.values()) if not bus.closed)

    def create_bus(
        self,
        name: str | None = None,
        *,
        config: Configuration = None,
        policy: str | None = None,
        type: BusType = "session",  # noqa: A002 - the word of the configuration file
        services: Sequence[str | os.PathLike[str]] = (),
        messages: int = 0,
    ) -> ThreadBus:
        """Bind a name and serve a bus there; see `Host.create_bus`."""

        def create() -> ThreadBus:
            assert self._host is not None
            bus = self._host.create(
                name, config=config, policy=policy, type=type, services=services, messages=messages
            )
            self._buses[bus] = ThreadBus(self, bus)
            return self._buses[bus]

        return self._do(create)

    # -- the thread ----------------------------------------------------------------------------

    # Not by trio.from_thread, which refuses to serve a thread that runs trio itself: a trio task
    # may ask us, too, though it holds up its own run meanwhile.

    def _do(self, deed: Callable[[], T]) -> T:
        """Do it in the host's thread.  Raises BusClosedError."""
        answer: Future[T] = Future()

        def answered() -> None:
            try:
                answer.set_result(deed())
            except BaseException as error:  # the caller's, whatever it is
                answer.set_exception(error)

        self._soon(answered)
        return answer.result()

    def _look(self, question: Callable[[], T]) -> T:
        """Ask in the host's thread; here, where that has ended and nothing changes any more."""
        try:
            return self._do(question)
        except BusClosedError:
            if self._thread is not None:
                self._thread.join()
            return question()

    def _wait(self, wait: Callable[[], Awaitable[T]], timeout: float | None, what: str) -> T:
        answer: Future[T] = Future()

        async def answered() -> None:
            try:
                with trio.move_on_after(math.inf if timeout is None else timeout):
                    answer.set_result(await wait())
                    return
                answer.set_exception(TimeoutError(f"after {timeout} s {what}"))
            except trio.Cancelled:
                answer.set_exception(BusClosedError("the host was closed meanwhile"))
                raise
            except BaseException as error:  # the caller's, whatever it is
                answer.set_exception(error)

        def begin() -> None:
            try:
                trio.lowlevel.spawn_system_task(answered)
            except RuntimeError:  # the run is at its end
                answer.set_exception(BusClosedError("the host was closed meanwhile"))

        self._soon(begin)
        return answer.result()

    def _soon(self, deed: Callable[[], None]) -> None:
        """Let the host's thread do it; raises BusClosedError, and then it is never done."""
        if not self.is_open or self._token is None:
            raise BusClosedError("the host is closed")
        try:
            self._token.run_sync_soon(deed)
        except trio.RunFinishedError:
            raise BusClosedError("the host was closed meanwhile") from None

    def _close(self, bus: HostedBus) -> None:
        self._buses.pop(bus, None)
        self._do(bus.close)
