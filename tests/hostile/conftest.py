"""A daemon to be attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from attack import DAEMONS_OF_ATTACKS, Victim
from kit.daemon import DAEMONS


@pytest.fixture
def victim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Victim]]:
    """Start a daemon to be attacked: `victim(program, strict=..., limit=...)`.

    It must end well after whatever was done to it.
    """
    for name, command in DAEMONS_OF_ATTACKS.items():
        monkeypatch.setitem(DAEMONS, name, command)
    running: list[Victim] = []

    def start(program: str = "afdbus", **rest: int) -> Victim:
        running.append(Victim(program, **rest))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for daemon in running:
        daemon.stop()
