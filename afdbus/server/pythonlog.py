"""The log of a host inside somebody else's program: Python's own `logging`, as "afdbus".

What is refused on a bus is no news to the program that made it, so it is of level INFO.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from afdbus.host.journal import one_line

if TYPE_CHECKING:
    from afdbus.server.traffic import Traffic

_logger = logging.getLogger("afdbus")


class PythonLog:
    """A journal; `prefix` is put before each line, `traffic` gets what was refused, too."""

    __slots__ = ("_prefix", "_traffic")

    def __init__(self, prefix: str = "", traffic: Traffic | None = None) -> None:
        self._prefix = prefix
        self._traffic = traffic

    def info(self, text: str) -> None:
        self._put(logging.INFO, text)

    def warning(self, text: str) -> None:
        self._put(logging.WARNING, text)

    def security(self, text: str) -> None:
        self._put(logging.INFO, text)
        if self._traffic is not None:
            self._traffic.refused(text)

    def _put(self, level: int, text: str) -> None:
        if _logger.isEnabledFor(level):
            _logger.log(level, "%s", one_line(self._prefix + text))
