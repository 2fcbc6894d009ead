"""The environment variables that lead clients to a bus, set and put back.

What others save while a bus is exported they may put back when it is gone: `monkeypatch`, if it was
set up before.  So `heal`, after everything else of a test is torn down, replaces addresses of buses
that are gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# What else may tell of another bus; dbus-run-session unsets the same.
_OTHER_BUS = {
    "DBUS_SESSION_BUS_ADDRESS": (
        "DBUS_SESSION_BUS_PID",
        "DBUS_SESSION_BUS_WINDOWID",
        "DBUS_STARTER_ADDRESS",
        "DBUS_STARTER_BUS_TYPE",
    ),
    "DBUS_SYSTEM_BUS_ADDRESS": ("DBUS_STARTER_ADDRESS", "DBUS_STARTER_BUS_TYPE"),
}


class Export:
    """Variables that are set for a bus, and what they were before."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        names = [*variables, *(other for name in variables for other in _OTHER_BUS.get(name, ()))]
        self.before = {name: os.environ.get(name) for name in names}
        for name in names:
            _put(name, variables.get(name))


class Environment:
    """The buses that are exported at the moment, the one that counts last."""

    def __init__(self) -> None:
        self._exports: list[Export] = []
        self._gone: dict[str, str | None] = {}  # addresses, and what was there before them

    def export(self, variables: Mapping[str, str]) -> Export:
        export = Export(variables)
        self._exports.append(export)
        return export

    def end(self, export: Export) -> None:
        """Put back what was there before."""
        place = self._exports.index(export)
        del self._exports[place]
        for name, value in export.before.items():
            later = [other for other in self._exports[place:] if name in other.before]
            if later:
                later[0].before[name] = value
            else:
                _put(name, value)
        for name, address in export.variables.items():
            self._gone[address] = export.before[name]

    def heal(self) -> None:
        """Wherever a variable names a bus that is gone, put what was there before it."""
        for name in _OTHER_BUS:
            value = os.environ.get(name)
            if value not in self._gone:
                continue
            while value is not None and value in self._gone:
                value = self._gone[value]
            _put(name, value)
        self._gone.clear()


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
