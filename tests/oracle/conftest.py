"""Fixtures of the tests that ask both daemons about services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit.services import Services


@pytest.fixture
def begin(kind: str) -> Iterator[Callable[..., Services]]:
    """Start a daemon with services: `begin(policy=..., limit=...)`."""
    running: list[Services] = []

    def start(**config: Any) -> Services:
        running.append(Services(kind, **config))
        return running[-1]

    yield start
    for services in running:
        services.stop()


@pytest.fixture
def services(begin: Callable[..., Services]) -> Services:
    return begin()
