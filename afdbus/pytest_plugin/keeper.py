"""Keeps the buses of a test run: who made them, when they end, what is told of them.

A bus belongs to the fixture that is being set up when it is made, else to the test that runs, and
ends with it.  So one factory serves all scopes.  All buses of a process are on one host, which
begins with the first and ends with the run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from afdbus.pytest_plugin import gio
from afdbus.pytest_plugin.environment import Environment, Export
from afdbus.pytest_plugin.leftovers import (
    LEAKS,
    LeftBehindWarning,
    connections_left,
    services_left,
)

if TYPE_CHECKING:
    from afdbus import ThreadBus, ThreadHost


class Settings:
    """What options and ini keys say.  Raises pytest.UsageError."""

    def __init__(self, config: pytest.Config) -> None:
        self.leaks: str = config.getoption("afdbus_leaks") or config.getini("afdbus_leaks")
        if self.leaks not in LEAKS:
            raise pytest.UsageError(f"afdbus_leaks is none of {', '.join(LEAKS)}: {self.leaks!r}")
        self.messages: int = _number(config, "afdbus_messages", int)
        option = config.getoption("afdbus_messages")
        if option is not None:
            self.messages = option
        self.grace: float = _number(config, "afdbus_grace", float)
        self.services: list[os.PathLike[str]] = config.getini("afdbus_services")
        self.configs: dict[str, os.PathLike[str] | None] = {}
        for type_ in ("session", "system"):
            path = config.getini(f"afdbus_{type_}_config")
            self.configs[type_] = config.rootpath / path if path else None


def _number(config: pytest.Config, key: str, kind: Any) -> Any:
    text = config.getini(key)
    try:
        return kind(text)
    except ValueError:
        raise pytest.UsageError(f"{key} is no number: {text!r}") from None


class Kept:
    """A bus and what the keeper knows of it.  `label`: what reports call it."""

    def __init__(self, bus: ThreadBus, label: str, leaks: str, export: Export | None) -> None:
        self.bus = bus
        self.label = label
        self.leaks = leaks
        self.export = export
        self.failed = False  # a test that used it has failed, and may not have tidied up
        self.seen = 0  # messages before the test that runs

    def lines(self) -> list[str]:
        """What the bus has seen in the test that runs, as far as it was kept."""
        new = self.bus.statistics().messages - self.seen
        return self.bus.messages[-new:] if new else []


class Keeper:
    """The buses of one test run in this process."""

    def __init__(self, config: pytest.Config) -> None:
        self.settings = Settings(config)
        self._environment = Environment()
        self._host: ThreadHost | None = None
        self._kept: list[Kept] = []
        self._ended: list[Kept] = []  # in the test that runs
        self._makers: list[pytest.FixtureRequest] = []  # fixtures being set up, the innermost last
        self._item: pytest.Item | None = None
        self._tearing_down = False
        self._reported = False

    # -- buses ---------------------------------------------------------------------------------

    def make(
        self,
        label: str,
        name: str | None,
        *,
        messages: int | None,
        leaks: str | None,
        export: bool,
        **rest: Any,
    ) -> ThreadBus:
        """A bus for whoever is being set up or runs; `rest` is for `ThreadHost.create_bus`."""
        if leaks is None:
            leaks = self.settings.leaks
        elif leaks not in LEAKS:
            raise ValueError(f"leaks is none of {', '.join(LEAKS)}: {leaks!r}")
        if messages is None:
            messages = self.settings.messages
        bus = self._open_host().create_bus(name, messages=messages, **rest)
        exported = self._environment.export(bus.env()) if export else None
        kept = Kept(bus, label, leaks, exported)
        self._kept.append(kept)
        owner: Any = self._makers[-1] if self._makers else self._item
        if owner is not None and (self._makers or not self._tearing_down):
            owner.addfinalizer(lambda: self._end(kept))
        return bus

    def _open_host(self) -> ThreadHost:
        # A forked child finds its parent's closed.
        if self._host is None or not self._host.is_open:
            from afdbus import ThreadHost

            self._host = ThreadHost().open()
        return self._host

    def _end(self, kept: Kept) -> None:
        self._kept.remove(kept)
        self._ended.append(kept)
        bus = kept.bus
        quiet = kept.leaks == "ignore" or kept.failed
        try:
            left = [] if quiet else connections_left(bus, self.settings.grace)
        finally:
            try:
                if kept.export is not None:
                    gio.release(bus)
            finally:
                if kept.export is not None:
                    self._environment.end(kept.export)
                bus.close()
        left += services_left(bus, self.settings.grace)
        if left and not quiet:
            self._tell(kept, f"left behind on {kept.label}: {'; '.join(left)}")

    def _tell(self, kept: Kept, text: str) -> None:
        if kept.leaks == "fail":
            pytest.fail(text, pytrace=False)
        warning = LeftBehindWarning(text)
        if self._item is not None:
            self._item.warn(warning)
        else:
            warnings.warn(warning, stacklevel=1)

    def close(self) -> None:
        """The end of the run."""
        try:
            for kept in self._kept[::-1]:
                self._end(kept)
        finally:
            if self._host is not None:
                self._host.close()

    # -- hooks ---------------------------------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, request: pytest.FixtureRequest) -> Generator[None]:
        self._makers.append(request)
        try:
            yield
        finally:
            self._makers.pop()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None]:
        try:
            yield
        finally:
            self._item = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Not where the protocol begins: there are plugins that run a test once more."""
        self._item = item
        self._tearing_down = self._reported = False
        self._ended.clear()
        for kept in self._kept:
            kept.seen = kept.bus.statistics().messages

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        self._tearing_down = True
        yield
        self._environment.heal()

    def pytest_keyboard_interrupt(self) -> None:
        """Nobody can have tidied up."""
        for kept in self._kept:
            kept.failed = True

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, None]:
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        if not report.failed:
            return
        for kept in self._kept:
            kept.failed = True
        if not self._reported:
            self._reported = True
            self._show(report, [*self._ended, *self._kept])

    def _show(self, report: pytest.TestReport, buses: Sequence[Kept]) -> None:
        for kept in buses:
            lines = kept.lines()
            if lines:
                title = f"D-Bus messages on {kept.label} ({report.when})"
                report.sections.append((title, "\n".join(lines)))
