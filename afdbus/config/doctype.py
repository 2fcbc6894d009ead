"""The head of an XML file, made plain: encoding, XML declaration and document type.

What expat does in dbus-daemon (measured): whatever is declared, text is UTF-8, or UTF-16 if it
looks so; nothing outside the file is ever read; a parameter entity is not expanded and ends the
reading of the internal subset; in a document that has an external subset or such a reference, and
is not standalone, an undefined entity vanishes; an external entity in text is nothing.

Left as they are, for nobody writes them: names with a colon in entities and instructions, which
expat takes and libxml2 does not.

The parsers of lxml do other things, and other things in each version (external entities of local
files among them).  So the document type is rewritten before they see it: no external identifier
is left, what must vanish is declared as nothing, what is not read is blanked.  Lines stay.
"""

from __future__ import annotations

import codecs
import re

from afdbus.errors import ConfigError

_S = r"[ \t\r\n]"
_NAME = r"[^ \t\r\n%&;\"'<>\[\]/=]+"
_LITERAL = r"(?:\"[^\"]*\"|'[^']*')"
_PUBLIC = r"(?:\"[ \r\nA-Za-z0-9'()+,./:=?;!*#@$_%-]*\"|'[ \r\nA-Za-z0-9()+,./:=?;!*#@$_%-]*')"
_EXTERNAL = rf"(?:SYSTEM{_S}+{_LITERAL}|PUBLIC{_S}+{_PUBLIC}{_S}+{_LITERAL})"

_aside = re.compile(rf"{_S}+|<!--.*?-->|<\?.*?\?>", re.DOTALL).match
_doctype = re.compile(rf"<!DOCTYPE{_S}+({_NAME})(?:{_S}+({_EXTERNAL}))?{_S}*(\[|>)").match

# Compiled when they are needed, which is seldom: an XML declaration, an internal subset.
_DECLARATION = (
    rf"<\?xml{_S}+version{_S}*={_S}*([\"'])[A-Za-z0-9._-]+\1"
    rf"(?:{_S}+encoding{_S}*={_S}*([\"'])[A-Za-z][A-Za-z0-9._-]*\2)?"
    rf"(?:{_S}+standalone{_S}*={_S}*([\"'])(yes|no)\3)?{_S}*\?>"
)
_END = rf"\]{_S}*>"
_PARAMETER = rf"%{_NAME};"
_MARKUP = r"<!(?:ENTITY|ATTLIST|ELEMENT|NOTATION)(?:[^\"'<>]|\"[^\"]*\"|'[^']*')*>"
_ENTITY = (
    rf"<!ENTITY{_S}+(%{_S}+)?({_NAME}){_S}+"
    rf"(?:({_LITERAL})|{_EXTERNAL}({_S}+NDATA{_S}+{_NAME})?){_S}*>"
)
# References by ASCII names: those that are not found here stay undefined and are refused.
_USED = r"&([A-Za-z_][A-Za-z0-9._-]*);"

_PREDEFINED = {"lt", "gt", "amp", "quot", "apos"}


def plain(data: bytes, path: str) -> str:
    """The text of a file, its head rewritten. Raises `ConfigError` (with `path`)."""
    text = _decode(data, path)
    start, standalone = 0, False
    if text.startswith("<?xml") and (match := re.match(_DECLARATION, text)) is not None:
        standalone = match[4] == "yes"
        declaration = '<?xml version="1.0"?>' + _blank(match[0])
        text = declaration + text[match.end() :]
        start = len(declaration)
    return _Head(text, path, standalone).rewritten(start)


def _decode(data: bytes, path: str) -> str:
    encoding = "utf-8"
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data[1:2] == b"\0":
        encoding = "utf-16-le"
    elif data[:1] == b"\0":
        encoding = "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"not {encoding.upper()}", path, line) from None


def _blank(text: str) -> str:
    return "\n" * text.count("\n")


class _Head:
    """The document type declaration of a text, and what is left of it."""

    def __init__(self, text: str, path: str, standalone: bool) -> None:
        self._text = text
        self._path = path
        self._standalone = standalone
        self._kept: list[str] = []
        self._defined = set(_PREDEFINED)
        self._vanish = False  # do undefined entities?

    def rewritten(self, place: int) -> str:
        """The text with its document type, if there is one after `place`, made harmless."""
        text = self._text
        while (match := _aside(text, place)) is not None:
            place = match.end()
        if not text.startswith("<!DOCTYPE", place):
            return text
        match = _doctype(text, place)
        if match is None:
            raise self._wrong("malformed document type declaration", place)
        self._vanish = match[2] is not None
        end = self._subset(match.end()) if match[3] == "[" else match.end()
        if self._vanish and not self._standalone:
            nothing = sorted(set(re.findall(_USED, text)) - self._defined)
            self._kept.insert(0, "".join(f'<!ENTITY {name} "">' for name in nothing))
        head = f"<!DOCTYPE {match[1]} [{_blank(match[0])}{''.join(self._kept)}]>"
        return text[:place] + head + text[end:]

    def _subset(self, place: int) -> int:
        """Go through the internal subset that begins at `place`; where the declaration ends."""
        text = self._text
        reading = True
        while (end := re.compile(_END).match(text, place)) is None:
            piece = (
                _aside(text, place)
                or re.compile(_PARAMETER).match(text, place)
                or re.compile(_MARKUP).match(text, place)
            )
            if piece is None:
                raise self._wrong("malformed internal subset of the document type", place)
            shown = piece[0]
            if shown.startswith("%"):
                self._vanish = True
                reading = reading and self._standalone
                shown = ""
            elif not reading:
                shown = ""
            elif shown.startswith("<!ENTITY"):
                shown = self._entity(shown, place)
            self._kept.append(shown if shown == piece[0] else shown + _blank(piece[0]))
            place = piece.end()
        return end.end()

    def _entity(self, shown: str, place: int) -> str:
        """An entity declaration, if it is external one that looks nowhere."""
        entity = re.fullmatch(_ENTITY, shown)
        if entity is None:
            raise self._wrong("malformed entity declaration", place)
        parameter, name, value, unparsed = entity.groups()
        if parameter is None:
            self._defined.add(name)
        if value is not None or unparsed is not None:
            return shown
        # An empty comment: nothing in text, and refused in an attribute.
        return "" if parameter else f'<!ENTITY {name} "<!---->">'

    def _wrong(self, what: str, place: int) -> ConfigError:
        line = self._text.count("\n", 0, place) + 1
        return ConfigError(what, self._path, line)
