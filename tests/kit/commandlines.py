"""Command lines of service files, and what dbus-daemon makes of them."""

from __future__ import annotations

# (command, arguments); no line is unbalanced
SPLIT: list[tuple[str, list[str]]] = [
    ("a", ["a"]),
    ("a b\tc", ["a", "b", "c"]),
    ("a   b", ["a", "b"]),
    (" a", ["a"]),
    # what stands behind the last blank is an argument, whether it is there or not
    ("a ", ["a", ""]),
    ("a '' b", ["a", "", "b"]),
    ('a ""', ["a", ""]),
    ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
    ("a b'c d'e\"f g\"", ["a", "bc def g"]),
    (r"a b\ c", ["a", "b c"]),
    (r"a \' \" \\", ["a", "'", '"', "\\"]),
    (r"a 'b\'", ["a", "b\\"]),
    (r'a "b\"c" "\\" "\$" "\`" "\n"', ["a", 'b"c', "\\", "$", "`", "\\n"]),
    (r'a "b\\"', ["a", "b\\"]),
    ("a $HOME ~ * `b` ; c | d", ["a", "$HOME", "~", "*", "`b`", ";", "c", "|", "d"]),
    ("a 'b#c' \"#\" \\#d", ["a", "b#c", "#", "#d"]),
    # a comment begins anywhere
    ("a b#c d", ["a", "b"]),
    ("a #b", ["a", ""]),
    # and is cut out with its end of line
    ("a b#c\nd e", ["a", "bd", "e"]),
    ("a\nb", ["a", "b"]),
    ("a \n b", ["a", "", "b"]),
    ("a b\\\nc", ["a", "bc"]),
    ('a "b\\\nc"', ["a", "b\nc"]),
    ("a 'b\nc'", ["a", "b\nc"]),
    ("a ä 'ö €'", ["a", "ä", "ö €"]),
]

UNCLOSED = ["'", '"', "a 'b", 'a "b', "a 'b\"", 'a "b\'', "a\\", "a #", 'a "\\"', "a 'b' '"]
