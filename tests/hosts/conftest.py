"""A host in a thread of the test's own process, and clients on its buses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kit import RawClient

from afdbus import ThreadBus, ThreadHost

Connect = Callable[[ThreadBus], RawClient]


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one peer's turn ends the host, loudly (P5)."""
    monkeypatch.setenv("AFDBUS_STRICT", "1")


@pytest.fixture
def host() -> Iterator[ThreadHost]:
    with ThreadHost() as host:
        yield host


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to a bus, with handshake and Hello."""
    with ExitStack() as clients:

        def connected(bus: ThreadBus) -> RawClient:
            client = clients.enter_context(RawClient(bus.address))
            client.join()
            return client

        yield connected
