"""`@pytest.mark.dbus(...)`: what a test wants of its buses."""

from __future__ import annotations

from typing import Any

import pytest

MARKER = (
    "dbus(bus=None, *, config=None, policy=None, services=(), messages=None, leaks=None): what the "
    'buses of dbus_session and dbus_system are like; bus: "session" or "system", for that one '
    "only. The arguments are those of dbus_bus_factory. For each of them the closest marker counts."
)

_KEYS = frozenset({"config", "policy", "services", "messages", "leaks"})


def wishes(node: pytest.Item, type_: str) -> dict[str, Any]:
    """What the markers of a test say about its bus of this type."""
    found: dict[str, Any] = {}
    for mark in node.iter_markers("dbus"):  # the closest first
        unknown = sorted(set(mark.kwargs) - _KEYS)
        if unknown or len(mark.args) > 1 or set(mark.args) - {"session", "system"}:
            words = [*map(repr, mark.args), *unknown]
            pytest.fail(f"pytest.mark.dbus does not know {', '.join(words)}", pytrace=False)
        if type_ in mark.args or not mark.args:
            found = {**mark.kwargs, **found}
    return found
