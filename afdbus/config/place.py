"""A place in a configuration file: errors and warnings that name it, and checks of form."""

from __future__ import annotations

from collections.abc import Collection

from afdbus.config.document import Element
from afdbus.errors import ConfigError


class Report:
    """What is to be told of a configuration.  The first error ends the reading.

    `check` has another one, which takes note and reads on.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str, kind: str, file: str, line: int) -> None:
        """`kind`: what `lint` calls it."""
        self.warnings.append(f"{file}:{line}: {text}")

    def remark(self, text: str, kind: str, file: str, line: int) -> None:
        """What a bus keeps to itself, as dbus-daemon does, and who looks a file over may want."""

    def refuse(self, error: ConfigError) -> None:
        raise error

    def skip(self, path: str, error: ConfigError) -> None:
        """The file `path` is left out because of `error`, and the reading goes on."""
        self.warnings.append(f"Encountered error '{error}' while parsing '{path}'")

    def is_known(self, path: str) -> bool:
        """Whether an included file needs no reading, since all is told of it already."""
        return False


class Place:
    """A file, a line of it, and the report on the whole configuration."""

    __slots__ = ("_report", "file", "line")

    def __init__(self, file: str, line: int, report: Report) -> None:
        self.file = file
        self.line = line
        self._report = report

    def at(self, element: Element) -> Place:
        return Place(self.file, element.line, self._report)

    def error(self, text: str) -> ConfigError:
        """An error to be raised, where nothing can be made of what is there."""
        return ConfigError(text, self.file, self.line)

    def refuse(self, text: str) -> None:
        """Tell of an error behind which more may be found.  Raises it if one is enough."""
        self._report.refuse(self.error(text))

    def warn(self, text: str, kind: str = "warning") -> None:
        self._report.warn(text, kind, self.file, self.line)

    def remark(self, text: str, kind: str) -> None:
        self._report.remark(text, kind, self.file, self.line)


def check_attributes(element: Element, allowed: Collection[str], place: Place) -> None:
    """Refuse an attribute that the element does not have."""
    for name in element.attributes:
        if name not in allowed:
            place.refuse(
                f'Attribute "{name}" is invalid on <{element.name}> element in this context'
            )


def no_text(element: Element, place: Place) -> None:
    """Refuse text (but XML's white space: a no-break space is text)."""
    text = element.text.strip(" \t\r\n")
    if text:
        place.refuse(
            f"No text content expected inside XML element {element.name} "
            f'in configuration file: "{text}"'
        )


def no_children(element: Element, place: Place) -> None:
    for child in element.children:
        place.at(child).refuse(f"Element <{child.name}> is not allowed inside <{element.name}>")
