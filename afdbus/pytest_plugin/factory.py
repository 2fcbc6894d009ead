"""What the fixture `dbus_bus_factory` is: makes buses, and what they need on disk."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pytest

    from afdbus import ThreadBus
    from afdbus.config.model import Config
    from afdbus.pytest_plugin.keeper import Keeper

# As in desktop entries, of which service files are some: a value is one line.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})

Services = Sequence[str | os.PathLike[str]] | Mapping[str, str | Sequence[str]]
BusType = Literal["session", "system"]


class BusFactory:
    """Makes buses; each lives as long as the fixture or test that made it."""

    def __init__(self, keeper: Keeper, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._keeper = keeper
        self._tmp = tmp_path_factory

    def __call__(
        self,
        name: str | None = None,
        *,
        type: BusType = "session",  # noqa: A002 - the word of the configuration file
        config: str | os.PathLike[str] | Config | None = None,
        policy: str | None = None,
        services: Services = (),
        messages: int | None = None,
        leaks: str | None = None,
        export: bool = False,
    ) -> ThreadBus:
        """A new bus; the arguments are explained by `pytest --fixtures`.

        Raises ConfigError, and FileNotFoundError for the program of a service.
        """
        # Two workers, or two tests, may ask for the same name.
        bound = None if name is None else f"{name}-{secrets.token_hex(8)}"
        return self._keeper.make(
            name or type,
            bound,
            type=type,
            config=config,
            policy=policy,
            services=self._directories(services),
            messages=messages,
            leaks=leaks,
            export=export,
        )

    def standard(self, type_: BusType, label: str, wishes: Mapping[str, Any]) -> ThreadBus:
        """The bus of a fixture, as options and the test's markers want it."""
        services = wishes.get("services", ())
        return self._keeper.make(
            label,
            None,
            type=type_,
            config=wishes.get("config", self._keeper.settings.configs[type_]),
            policy=wishes.get("policy"),
            services=[*self._keeper.settings.services, *self._directories(services)],
            messages=wishes.get("messages"),
            leaks=wishes.get("leaks"),
            export=True,
        )

    def _directories(self, services: Services) -> Sequence[str | os.PathLike[str]]:
        if not isinstance(services, Mapping):
            return services
        if not services:
            return ()
        directory = self._tmp.mktemp("dbus-services")
        for name, command in services.items():
            words = [command] if isinstance(command, str) else [*command]
            program = shutil.which(words[0])
            if program is None:
                raise FileNotFoundError(2, os.strerror(2), words[0])
            exec_ = shlex.join([os.path.abspath(program), *words[1:]]).translate(_ESCAPES)
            (directory / f"{name}.service").write_text(
                f"[D-BUS Service]\nName={name}\nExec={exec_}\n", encoding="utf-8"
            )
        return [directory]
