"""A file as a tree of elements: the only place where lxml is used.

The reader of dbus-daemon is expat without namespaces, external entities or parameter entities,
told that everything is UTF-8.  `doctype` brings the head of the file into a form that libxml2
reads with the same result and without looking outside; here the rest is made equal.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import cast

from lxml import etree

from afdbus.config.doctype import plain
from afdbus.config.memory import Stamp, stamp_of
from afdbus.config.model import MissingFile
from afdbus.errors import ConfigError

# Beginnings of elements, and what may hold a "<" that is none; so may entities and notations.
_markup = re.compile(r"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[.*?\]\]>|<(?=[^!?/])", re.DOTALL).finditer

MAX_FILE = 1024 * 1024  # dbus-daemon's limit


class Element:
    """An element: its name, attributes, children, the text directly inside, and its line."""

    __slots__ = ("attributes", "children", "line", "name", "text")

    def __init__(
        self,
        name: str,
        attributes: dict[str, str],
        text: str,
        children: list[Element],
        line: int,
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.text = text
        self.children = children
        self.line = line


def read(path: str, known: Stamp | None = None) -> tuple[Element | None, Stamp | None]:
    """The root element of a file, and the stamp by which it is known again, if there is one.

    No element if `known` is its stamp.  Raises `MissingFile` if there is no file, `ConfigError` if
    it cannot be read or is no XML.
    """
    try:
        data, found = _content(path, known)
    except FileNotFoundError as error:
        raise MissingFile(path, path) from error
    except OSError as error:
        raise ConfigError(f'Failed to open "{path}": {error.strerror}', path) from None
    return None if data is None else parse(data, path), found


def _content(path: str, known: Stamp | None) -> tuple[bytes | None, Stamp | None]:
    # Opened once and judged by what was opened; NONBLOCK, since a FIFO would keep us waiting.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f'"{path}" is not a regular file', path)
        if status.st_size > MAX_FILE:
            raise ConfigError(f'File size {status.st_size} of "{path}" is too large.', path)
        found = stamp_of(status)
        if known is not None and found == known:
            return None, known
        sure = found.is_sure()
        # A regular file gives all at once.
        return os.read(descriptor, MAX_FILE), found if sure else None
    finally:
        os.close(descriptor)


def parse(data: bytes, path: str) -> Element:
    """The root element of `data`, which came from `path` (for errors). Raises `ConfigError`."""
    parser = etree.XMLParser(
        encoding="utf-8",
        attribute_defaults=True,
        load_dtd=False,
        no_network=True,
        resolve_entities=True,  # only internal ones are left; libxml2 refuses amplification
        remove_comments=True,
        remove_pis=True,
        huge_tree=False,
    )
    try:
        text = plain(data, path)
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        reason = error.msg.rpartition(", line ")[0].strip() or error.msg
        raise ConfigError(reason, path, line, column) from None
    entities = "<!ENTITY" in text  # an entity can hide a word, and elements
    lines = None if entities or "<!NOTATION" in text else _lines(text)
    return _element(root, path, "xmlns" in text or entities, lines)


def _lines(text: str) -> Iterator[int]:
    """The line on which each element begins, in the order of the document.

    libxml2 tells where a tag ends, and rules are often written over several lines.
    """
    line, place = 1, 0
    for match in _markup(text):
        if match[0] == "<":
            line += text.count("\n", place, match.start())
            place = match.start()
            yield line


def _element(
    node: etree._Element, path: str, namespaces: bool, lines: Iterator[int] | None
) -> Element:
    line = (cast("int | None", node.sourceline) or 0) if lines is None else next(lines)
    # For expat without namespaces these are attributes, and no element has any such.
    if namespaces and node.nsmap:
        prefix = next(iter(node.nsmap))
        name = "xmlns" if prefix is None else f"xmlns:{prefix}"
        raise ConfigError(
            f'Attribute "{name}" is invalid on <{etree.QName(node).localname}> element', path, line
        )
    text = node.text or ""
    children = []
    for child in node:
        text += child.tail or ""
        children.append(_element(child, path, namespaces, lines))
    attributes = {
        str(key).replace("{http://www.w3.org/XML/1998/namespace}", "xml:"): str(value)
        for key, value in node.attrib.items()
    }
    return Element(node.tag, attributes, text, children, line)
