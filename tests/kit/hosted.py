"""Fixtures: a host in a thread of the test's own process, and clients on its buses."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from afdbus import ThreadBus, ThreadHost
from kit.client import RawClient

Connect = Callable[..., RawClient]


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one peer's turn ends the host, loudly (P5)."""
    monkeypatch.setenv("AFDBUS_STRICT", "1")


@pytest.fixture
def host(strict: None) -> Iterator[ThreadHost]:
    with ThreadHost() as host:
        yield host


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to a bus or an address, with handshake and Hello."""
    with ExitStack() as clients:

        def connected(where: ThreadBus | str, *, unix_fds: bool = True) -> RawClient:
            address = where if isinstance(where, str) else where.address
            client = clients.enter_context(RawClient(address))
            client.authenticate(unix_fds)
            client.hello()
            return client

        yield connected


def fresh_name(word: str = "bus") -> str:
    """A name that no other test, nor another run of it, has."""
    return f"{word}-{secrets.token_hex(8)}"
