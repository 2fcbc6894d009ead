"""What a program wants of a bus that it makes: the options of `create_bus`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

from afdbus.bus.overflow import FullReceiver, Way
from afdbus.config.load import Text, compose
from afdbus.config.model import Config, ServiceDirectory
from afdbus.config.standard import STANDARD

BusType = Literal["session", "system"]


class BusOptions(TypedDict, total=False):
    """Every option may be left out.

    `config` is the text of a configuration (it begins with "<"), the path of one, or a value that
    was loaded before; its `<listen>` elements, user, pid file and the like do not count.  Without
    one the bus is open as a session bus is, or closed as a system bus is, by `type`; only our own
    user may connect, and no service directory of the machine is read.

    `policy` is `<policy>` elements that come after all others.  `services` are directories with
    service files, besides those of the configuration.

    `full_receiver` says what happens to a message whose receiver does not read, "drop-in" unless
    given, see `afdbus.bus.overflow`; with "block" a sender waits at most `block_timeout` seconds
    (10).

    `messages` is how many of the last messages to keep for the bus's `messages`; it makes all of
    them slower.
    """

    config: str | os.PathLike[str] | Config | None
    policy: str | None
    type: BusType
    services: Sequence[str | os.PathLike[str]]
    full_receiver: Way
    block_timeout: float
    messages: int


def full_receiver(options: BusOptions) -> FullReceiver:
    """What to do where a receiver is full.  Raises ValueError."""
    way = options.get("full_receiver", "drop-in")
    if way not in ("drop-in", "disconnect", "block"):
        raise ValueError(f'full_receiver is "drop-in", "disconnect" or "block", not {way!r}')
    return FullReceiver(way, options.get("block_timeout", 10.0))


class Recipes:
    """The configurations of a host's buses.  Those that are equal share one value, rules and all,
    unless files have a part in them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str | Text, ...], Config] = {}

    def reader(self, options: BusOptions) -> Callable[[], Config]:
        """What reads the configuration of a bus, at first and whenever it is reloaded.

        That raises ConfigError; this ValueError, where options do not go together.
        """
        services = options.get("services", ())
        directories = tuple(ServiceDirectory(os.path.abspath(path)) for path in services)
        config = options.get("config")
        policy = options.get("policy")
        if isinstance(config, Config):
            if policy is not None:
                raise ValueError("a policy is added to the text or the file of a configuration")
            value = config
            return lambda: _with_services(value, directories)
        parts: list[str | Text] = []
        if config is None:
            parts.append(STANDARD[options.get("type", "session")])
        elif isinstance(config, str) and config.lstrip().startswith("<"):
            parts.append(Text("<config>", config))
        else:
            parts.append(os.path.abspath(config))
        if policy is not None:
            parts.append(Text("<policy>", f"<busconfig>{policy}</busconfig>"))
        return lambda: _with_services(self._composed(tuple(parts)), directories)

    def _composed(self, parts: tuple[str | Text, ...]) -> Config:
        known = self._known.get(parts)
        if known is not None:
            return known
        config = compose(*parts)
        if not config.sources.files and not config.sources.directories:
            if len(self._known) >= 64:
                self._known.clear()
            self._known[parts] = config
        return config


def _with_services(config: Config, directories: tuple[ServiceDirectory, ...]) -> Config:
    if not directories:
        return config
    return config._replace(servicedirs=(*config.servicedirs, *directories))
