"""Buses for programs that do not run trio: a host whose loop runs in a thread of its own.

That is a daemon thread, which needs the interpreter like any other one: where others compute
without pause, each hop of a message may take as long as `sys.getswitchinterval()`, 5 ms (P26).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self, TypeVar, Unpack

from afdbus.errors import BusClosedError
from afdbus.server.hostedbus import BusHandle, BusStatistics
from afdbus.server.hosting import Hosting
from afdbus.server.mailbox import Mailbox
from afdbus.server.recipe import BusOptions

T = TypeVar("T")


class ThreadBus:
    """A bus made by `ThreadHost.create_bus`; any thread may use it.

    `name` is its name in the abstract namespace, without the NUL; `guid` its id, `address` what
    clients connect to.
    """

    def __init__(self, host: ThreadHost, handle: BusHandle) -> None:
        self.name = handle.name
        self.guid = handle.guid
        self.address = handle.address
        self._env = handle.env()
        self._host = host
        self._handle = handle

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def env(self) -> dict[str, str]:
        """The variable that leads clients here: of the system bus if the bus is of that type."""
        return dict(self._env)

    @property
    def messages(self) -> list[str]:
        """The last messages and refusals, a line each, the oldest first; also of a closed bus.

        Empty unless `create_bus` was told how many to keep.  What was sent before is in.
        """
        return self._host._look(lambda: self._handle.messages)

    def statistics(self) -> BusStatistics:
        """What there is at this moment; see `HostedBus.statistics`."""
        return self._host._look(self._handle.statistics)

    def wait_for_name(self, name: str, timeout: float | None = None) -> str:
        """Wait until somebody owns `name`, at most `timeout` seconds; the owner's unique name.

        Raises TimeoutError, or BusClosedError when the bus is closed before.
        """
        return self._answer(lambda: self._handle.owner(name), timeout, f"nobody owns {name}")

    def wait_until(
        self, holds: Callable[[BusStatistics], bool], timeout: float | None = None
    ) -> None:
        """Wait until `holds(statistics())`, at most `timeout` seconds; see `HostedBus.wait_until`.

        `holds` is called in the host's thread.  Raises TimeoutError, or BusClosedError when the
        bus is closed before.
        """
        self._answer(lambda: self._handle.holds(holds), timeout, "it does not hold")

    def _answer(self, question: Callable[[], T | None], timeout: float | None, what: str) -> T:
        """Ask again after each change until there is an answer."""
        told: SimpleQueue[None] = SimpleQueue()

        def tell() -> None:
            told.put(None)

        def ask() -> T | None:
            answer = question()
            if answer is None:
                self._handle.when_changed(tell)
            return answer

        deadline = None if timeout is None else time.monotonic() + timeout
        while (answer := self._host._do(ask)) is None:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                told.get(timeout=left)
            except Empty:
                raise TimeoutError(f"after {timeout} s {what}") from None
            finally:
                self._host._look(lambda: self._handle.forget(tell))
        return answer

    def socket(
        self,
        uid: int | None = None,
        gids: Sequence[int] | None = None,
        pid: int | None = None,
    ) -> socket.socket:
        """A socket whose peer the bus takes for somebody else; see `HostedBus.socket`."""
        return self._host._do(lambda: self._handle.socket(uid, gids, pid))

    def close(self) -> None:
        """Close every connection and give up the name.  Closing twice does nothing."""
        self._host._look(self._handle.close)


class ThreadHost:
    """The buses of one program, in a thread: `with ThreadHost() as host: host.create_bus()`.

    Any thread may use it, and a program may have several.  A process that forks keeps nothing of
    it in the child, where the host is closed.  The host's log is Python's `logging`, as "afdbus".
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._hosting: Hosting | None = None
        self._mailbox: Mailbox | None = None
        self._buses: dict[BusHandle, ThreadBus] = {}

    # -- life ----------------------------------------------------------------------------------

    def open(self) -> Self:
        """Start the thread; `close` ends it.  The same as entering the host."""
        if self._thread is not None:
            raise RuntimeError("this host was opened before")
        self._hosting = Hosting()
        self._mailbox = Mailbox(self._hosting.loop)
        self._thread = threading.Thread(
            target=_run, args=[self._hosting, self._mailbox], name="afdbus", daemon=True
        )
        self._thread.start()
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
        if self._hosting is None or self._thread is None:
            return
        with contextlib.suppress(BusClosedError):  # somebody else was quicker
            self._do(self._hosting.close)
        self._thread.join()

    @property
    def is_open(self) -> bool:
        """Whether buses can be made; never again once it was closed."""
        return self._hosting is not None and self._hosting.is_open

    # -- buses ---------------------------------------------------------------------------------

    @property
    def buses(self) -> tuple[ThreadBus, ...]:
        """The buses that are open, in the order in which they were made."""
        return tuple(bus for bus in list(self._buses.values()) if not bus.closed)

    def create_bus(self, name: str | None = None, **options: Unpack[BusOptions]) -> ThreadBus:
        """Bind a name, a random one if it is None, and serve a bus there; see `Host.create_bus`."""

        def create() -> ThreadBus:
            assert self._hosting is not None
            handle = self._hosting.create(name, options)
            self._buses = {old: bus for old, bus in self._buses.items() if not old.closed}
            self._buses[handle] = ThreadBus(self, handle)
            return self._buses[handle]

        return self._do(create)

    # -- the thread ----------------------------------------------------------------------------

    def _do(self, deed: Callable[[], T]) -> T:
        """Do it in the host's thread.  Raises BusClosedError."""
        if self._mailbox is None or not self.is_open:
            raise BusClosedError("the host is closed")
        return self._mailbox.do(deed)

    def _look(self, question: Callable[[], T]) -> T:
        """Ask in the host's thread; here, where that has ended and nothing changes any more."""
        try:
            return self._do(question)
        except BusClosedError:
            if self._thread is not None:
                self._thread.join()
            return question()


def _run(hosting: Hosting, mailbox: Mailbox) -> None:
    try:
        hosting.loop.serve()
    finally:
        # Also where a bug has ended the loop.
        hosting.close()
        mailbox.close()
        hosting.loop.close()
