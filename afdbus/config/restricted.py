"""A configuration that came over the bus: text of somebody who is our own user, or root (P39).

Nothing in it acts on the process, opens a path to the bus, or reads a file: who may ask for a bus
need not be able to do that, as his root directory may be another than ours.
"""

from __future__ import annotations

from afdbus.config.document import MAX_FILE, parse
from afdbus.config.load import Text, compose
from afdbus.config.model import Config
from afdbus.config.standard import SESSION
from afdbus.errors import ConfigError

FORBIDDEN = frozenset(
    (
        "user",
        "fork",
        "keep_umask",
        "syslog",
        "pidfile",
        "listen",
        "include",
        "includedir",
        "servicedir",
        "servicehelper",
        "standard_session_servicedirs",
        "standard_system_servicedirs",
    )
)


def restricted(text: str) -> Config:
    """The configuration in `text`, an open one if that is empty.  Raises ConfigError."""
    if not text:
        return compose(SESSION)
    if len(text) > MAX_FILE:
        raise ConfigError(f"A configuration has at most {MAX_FILE} characters")
    name = "<config>"
    for element in parse(text.encode(), name).children:
        if element.name in FORBIDDEN:
            raise ConfigError(f"<{element.name}> is not allowed here", name, element.line)
    return compose(Text(name, text))
