"""The head of an XML file, made plain: encoding, XML declaration and document type.

What expat does in dbus-daemon (measured): whatever is declared, text is UTF-8, or UTF-16 if it
looks so; nothing outside the file is ever read; a parameter entity is not expanded and ends the
reading of the internal subset; in a document that has an external subset or such a reference, and
is not standalone, an undefined entity vanishes; an external entity in text is nothing.

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
_EXTERNAL = rf"(?:SYSTEM{_S}+{_LITERAL}|PUBLIC{_S}+{_LITERAL}{_S}+{_LITERAL})"

_declaration = re.compile(
    rf"<\?xml{_S}+version{_S}*={_S}*([\"'])[A-Za-z0-9._-]+\1"
    rf"(?:{_S}+encoding{_S}*={_S}*([\"'])[A-Za-z][A-Za-z0-9._-]*\2)?"
    rf"(?:{_S}+standalone{_S}*={_S}*([\"'])(yes|no)\3)?{_S}*\?>"
).match
_aside = re.compile(rf"{_S}+|<!--.*?-->|<\?.*?\?>", re.DOTALL).match
_doctype = re.compile(rf"<!DOCTYPE{_S}+({_NAME})(?:{_S}+({_EXTERNAL}))?{_S}*(\[|>)").match
_end = re.compile(rf"\]{_S}*>").match
_reference = re.compile(rf"%{_NAME};").match
_markup = re.compile(
    r"<!(?:ENTITY|ATTLIST|ELEMENT|NOTATION)(?:[^\"'<>]|\"[^\"]*\"|'[^']*')*>"
).match
_entity = re.compile(
    rf"<!ENTITY{_S}+(%{_S}+)?({_NAME}){_S}+"
    rf"(?:({_LITERAL})|{_EXTERNAL}({_S}+NDATA{_S}+{_NAME})?){_S}*>"
).fullmatch
# References by ASCII names: those that are not found here stay undefined and are refused.
_used = re.compile(r"&([A-Za-z_][A-Za-z0-9._-]*);")

_PREDEFINED = {"lt", "gt", "amp", "quot", "apos"}


def plain(data: bytes, path: str) -> str:
    """The text of a file, its head rewritten. Raises `ConfigError` (with `path`)."""
    text = _decode(data, path)
    match = _declaration(text)
    standalone = False
    if match is not None:
        standalone = match[4] == "yes"
        text = '<?xml version="1.0"?>' + _blank(match[0]) + text[match.end() :]
    start = 0 if match is None else len('<?xml version="1.0"?>')
    return _rewrite(text, start, standalone, path)


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
        raise ConfigError(
            f"Error in file {path}, line {line}: not {encoding.upper()}", path, line
        ) from None


def _blank(text: str) -> str:
    return "\n" * text.count("\n")


def _rewrite(text: str, start: int, standalone: bool, path: str) -> str:
    """`text` with its document type, if there is one after `start`, made harmless."""

    def wrong(what: str) -> ConfigError:
        line = text.count("\n", 0, place) + 1
        return ConfigError(f"Error in file {path}, line {line}: {what}", path, line)

    place = start
    while (match := _aside(text, place)) is not None:
        place = match.end()
    if not text.startswith("<!DOCTYPE", place):
        return text
    begin = place
    match = _doctype(text, place)
    if match is None:
        raise wrong("malformed document type declaration")
    vanish = match[2] is not None
    place = match.end()
    kept: list[str] = []
    defined = set(_PREDEFINED)
    reading = True
    if match[3] == "[":
        while (end := _end(text, place)) is None:
            piece = _aside(text, place) or _reference(text, place) or _markup(text, place)
            if piece is None:
                raise wrong("malformed internal subset of the document type")
            shown = piece[0]
            if shown.startswith("%"):
                vanish = True
                reading = reading and standalone
                shown = ""
            elif not reading:
                shown = ""
            elif shown.startswith("<!ENTITY"):
                entity = _entity(shown)
                if entity is None:
                    raise wrong("malformed entity declaration")
                parameter, name, value, unparsed = entity.groups()
                if parameter is None:
                    defined.add(name)
                if value is None and unparsed is None:
                    # An empty comment: nothing in text, and refused in an attribute.
                    shown = "" if parameter else f'<!ENTITY {name} "<!---->">'
            kept.append(shown if shown == piece[0] else shown + _blank(piece[0]))
            place = piece.end()
        place = end.end()
    if vanish and not standalone:
        nothing = sorted(set(_used.findall(text)) - defined)
        kept.insert(0, "".join(f'<!ENTITY {name} "">' for name in nothing))
    head = f"<!DOCTYPE {match[1]} [{_blank(match[0])}{''.join(kept)}]>"
    return text[:begin] + head + text[place:]
