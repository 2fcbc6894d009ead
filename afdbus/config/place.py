"""A place in a configuration file: errors and warnings that name it, and checks of form."""

from __future__ import annotations

from collections.abc import Collection

from afdbus.config.document import Element
from afdbus.errors import ConfigError


class Place:
    """A file, a line of it, and the list that collects the warnings of the whole configuration."""

    __slots__ = ("_warnings", "file", "line")

    def __init__(self, file: str, line: int, warnings: list[str]) -> None:
        self.file = file
        self.line = line
        self._warnings = warnings

    def at(self, element: Element) -> Place:
        return Place(self.file, element.line, self._warnings)

    def error(self, text: str) -> ConfigError:
        return ConfigError(text, self.file, self.line)

    def warn(self, text: str) -> None:
        self._warnings.append(f"{self.file}:{self.line}: {text}")


def check_attributes(element: Element, allowed: Collection[str], place: Place) -> None:
    """Refuse an attribute that the element does not have."""
    for name in element.attributes:
        if name not in allowed:
            raise place.error(
                f'Attribute "{name}" is invalid on <{element.name}> element in this context'
            )


def no_text(element: Element, place: Place) -> None:
    """Refuse text (but XML's white space: a no-break space is text)."""
    text = element.text.strip(" \t\r\n")
    if text:
        raise place.error(
            f"No text content expected inside XML element {element.name} "
            f'in configuration file: "{text}"'
        )


def no_children(element: Element, place: Place) -> None:
    for child in element.children:
        raise place.at(child).error(
            f"Element <{child.name}> is not allowed inside <{element.name}>"
        )
