"""The last messages of a bus in readable form, for the report of a test that has failed.

The messages are kept as they are and told when somebody asks: what nobody reads costs little.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from afdbus.host.journal import one_line
from afdbus.wire.decode import decode
from afdbus.wire.header import SIGNAL, TYPE_NAMES
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from afdbus.bus.message import Message
    from afdbus.wire.header import Header

# Of a longer body nothing is kept, and of a longer text of arguments not all is told.
MAX_BODY = 4096
MAX_TEXT = 400


class Traffic:
    """The last `size` messages and refusals of one bus."""

    __slots__ = ("_entries", "count")

    def __init__(self, size: int) -> None:
        self.count = 0  # all there were
        self._entries: deque[str | tuple[Header, str, int, bytes, int]] = deque(maxlen=size)

    def message(self, message: Message) -> None:
        """A message goes through the bus, or to its driver, or comes from there."""
        sender = BUS_NAME if message.sender is None else message.sender.name or "(nameless)"
        size = len(message.body)
        body = bytes(message.body) if size <= MAX_BODY else b""
        self.count += 1
        self._entries.append((message.header, sender, message.serial, body, size))

    def refused(self, text: str) -> None:
        """Something was refused; `text` names the rule."""
        self.count += 1
        self._entries.append("refused: " + one_line(text))

    def lines(self) -> list[str]:
        """A line for each, the oldest first."""
        return [entry if isinstance(entry, str) else _line(*entry) for entry in self._entries]


def _line(header: Header, sender: str, serial: int, body: bytes, size: int) -> str:
    to = header.destination or "all"
    type_ = TYPE_NAMES[header.type] if header.type <= SIGNAL else f"type {header.type}"
    parts = [f"{sender} -> {to}", f"{type_} {serial}"]
    if header.reply_serial:
        parts.append(f"to {header.reply_serial}")
    if header.error_name:
        parts.append(header.error_name)
    if header.member:
        name = f"{header.interface}.{header.member}" if header.interface else header.member
        parts.append(f"{header.path} {name}")
    if header.unix_fds:
        parts.append(f"{header.unix_fds} fds")
    return one_line(" ".join(parts) + _arguments(header, body, size))


def _arguments(header: Header, body: bytes, size: int) -> str:
    if not size:
        return "()"
    if not body:
        return f"({header.signature}: {size} bytes)"
    values = decode(header.signature, header.little, body, 0, size)
    text = ", ".join(map(repr, values))
    return f"({text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + '...'})"
