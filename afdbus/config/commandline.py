"""A command line becomes arguments: quotes and backslashes as in sh(1), and nothing else.

The rules are those of dbus-daemon's `Exec=`, its peculiarities included: a `#` outside quotes
begins a comment even inside a word, and what stands behind the last blank is an argument even if
it is empty.  Nothing is expanded and no shell is asked.
"""

from __future__ import annotations

from afdbus.errors import INVALID_ARGS, BusError

# What a backslash quotes between double quotes.
_IN_DOUBLE_QUOTES = '"\\`$\n'


def split(command: str) -> list[str]:
    """The arguments, at least one.  Raises BusError (InvalidArgs) for a quote that stays open."""
    words = []
    word = ""
    # Whether something of the word has been seen: quotes make a word, even with nothing in them.
    begun = False
    quote = ""
    at = 0
    while at < len(command):
        char = command[at]
        at += 1
        if quote == "'":
            if char == quote:
                quote = ""
            else:
                word += char
        elif quote == '"':
            if char == quote:
                quote = ""
            elif char == "\\" and command[at : at + 1] in (*_IN_DOUBLE_QUOTES,):
                word += command[at]
                at += 1
            else:
                word += char
        elif char in "'\"":
            quote = char
            begun = True
        elif char == "\\":
            if at == len(command):
                raise _unclosed()
            if command[at] != "\n":
                word += command[at]
                begun = True
            at += 1
        elif char == "#":
            if at == len(command):
                raise _unclosed()
            end = command.find("\n", at)
            at = len(command) if end < 0 else end + 1
        elif char == "\n" or (char in " \t" and begun):
            words.append(word)
            word, begun = "", False
        elif char not in " \t":
            word += char
            begun = True
    if quote:
        raise _unclosed()
    return [*words, word]


def _unclosed() -> BusError:
    return BusError(INVALID_ARGS, "Unclosed quotes in command line")
