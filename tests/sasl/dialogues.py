"""Conversations of a handshake in two columns: what the client says, what the server answers.

Each dialogue is a title, a line of `key=value` settings and lines `client | server`.  On the
left, CRLF is added; the escapes of a Python bytes literal hold.  On both sides:

    UID NAME       our uid, our login name, in hex
    hex(TEXT)      TEXT in hex
    GUID           the server's guid
    (nothing)      the server says nothing
    (closed)       the server closes, after what it may have said before
    (message)      the handshake is over, and Hello is answered
"""

from __future__ import annotations

import os
import pwd
import re
from typing import NamedTuple

NOTHING, CLOSED, MESSAGE = "(nothing)", "(closed)", "(message)"

DIALOGUES = r"""
== EXTERNAL with an initial response
AUTH EXTERNAL UID                       | OK GUID
NEGOTIATE_UNIX_FD                       | AGREE_UNIX_FD
BEGIN                                   | (message)

== EXTERNAL without an initial response
AUTH EXTERNAL                           | DATA
DATA UID                                | OK GUID
BEGIN                                   | (message)

== EXTERNAL with nothing to say
AUTH EXTERNAL                           | DATA
DATA                                    | OK GUID
BEGIN                                   | (message)

== EXTERNAL as sd-bus has it
AUTH EXTERNAL                           | DATA
DATA                                    | OK GUID
NEGOTIATE_UNIX_FD                       | AGREE_UNIX_FD
BEGIN                                   | (message)

== the mechanisms, in the order of dbus-daemon
AUTH                                    | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS

== the mechanisms that are allowed, in the order of dbus-daemon
auth=ANONYMOUS,EXTERNAL
AUTH                                    | REJECTED EXTERNAL ANONYMOUS

== one mechanism is allowed
auth=EXTERNAL
AUTH                                    | REJECTED EXTERNAL
AUTH ANONYMOUS                          | REJECTED EXTERNAL
AUTH EXTERNAL UID                       | OK GUID

== a mechanism nobody knows
AUTH KERBEROS_V4                        | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS
AUTH KERBEROS_V4 no hex at all          | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS
AUTH external UID                       | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS
AUTH EXTERNAL UID                       | OK GUID

== numbers as strtol takes them: octal
needs=root
AUTH EXTERNAL hex(00)                   | OK GUID
== numbers as strtol takes them: hex
needs=root
AUTH EXTERNAL hex(0x0)                  | OK GUID
== numbers as strtol takes them: a capital X
needs=root
AUTH EXTERNAL hex(0X00)                 | OK GUID
== numbers as strtol takes them: a blank before
needs=root
AUTH EXTERNAL hex( 0)                   | OK GUID
== numbers as strtol takes them: all the white space there is
needs=root
AUTH EXTERNAL 090a0b0c0d20hex(0)        | OK GUID
== numbers as strtol takes them: plus
needs=root
AUTH EXTERNAL hex(+0)                   | OK GUID
== numbers as strtol takes them: minus
needs=root
AUTH EXTERNAL hex(-0)                   | OK GUID
== numbers as strtol takes them: many zeros
needs=root
AUTH EXTERNAL hex(0000000000000000000000000000000000000000000000)  | OK GUID
== numbers in hex
AUTH EXTERNAL hex(HEXUID)               | OK GUID
== numbers in octal
AUTH EXTERNAL hex(OCTUID)               | OK GUID
== capital hex digits
AUTH EXTERNAL hex(+)HEXCAPS             | OK GUID

== not quite numbers: something behind
auth=EXTERNAL
AUTH EXTERNAL UIDhex( )                 | REJECTED EXTERNAL
AUTH EXTERNAL UID00                     | REJECTED EXTERNAL
AUTH EXTERNAL UIDhex(.)                 | REJECTED EXTERNAL
AUTH EXTERNAL hex(0x)                   | REJECTED EXTERNAL
AUTH EXTERNAL hex(08)                   | REJECTED EXTERNAL

== not quite numbers: something before
auth=EXTERNAL
AUTH EXTERNAL 00UID                     | REJECTED EXTERNAL
AUTH EXTERNAL hex(+ 0)                  | REJECTED EXTERNAL
AUTH EXTERNAL hex(--0)                  | REJECTED EXTERNAL
AUTH EXTERNAL hex(- 0)                  | REJECTED EXTERNAL
AUTH EXTERNAL hex( )                    | REJECTED EXTERNAL

== numbers of nobody, and of too many digits
auth=EXTERNAL
AUTH EXTERNAL hex(-1)                   | REJECTED EXTERNAL
AUTH EXTERNAL hex(4294967295)           | REJECTED EXTERNAL
AUTH EXTERNAL hex(4294967296)           | REJECTED EXTERNAL
AUTH EXTERNAL hex(18446744073709551616) | REJECTED EXTERNAL
AUTH EXTERNAL hex(0x100000000)          | REJECTED EXTERNAL

== somebody else
auth=EXTERNAL
AUTH EXTERNAL hex(12345678)             | REJECTED EXTERNAL
AUTH EXTERNAL                           | DATA
DATA hex(12345678)                      | REJECTED EXTERNAL
AUTH EXTERNAL UID                       | OK GUID

== login names are not numbers
auth=EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
AUTH EXTERNAL                           | DATA
DATA NAME                               | REJECTED EXTERNAL

== hex that is none
AUTH EXTERNAL willy                     | ERROR "Invalid hex encoding"
AUTH EXTERNAL 3x                        | ERROR "Invalid hex encoding"
AUTH EXTERNAL 30-                       | ERROR "Invalid hex encoding"
AUTH EXTERNAL UID UID                   | ERROR "Invalid hex encoding"
AUTH EXTERNAL UID\x20                   | ERROR "Invalid hex encoding"
AUTH EXTERNAL UID\n                     | ERROR "Invalid hex encoding"
DATA UID                                | ERROR "Not currently in an auth conversation"
AUTH EXTERNAL UID                       | OK GUID

== hex that is none, in DATA
AUTH EXTERNAL                           | DATA
DATA willy                              | ERROR "Invalid hex encoding"
DATA UID                                | OK GUID

== a hex digit without its partner is a high one
auth=EXTERNAL
AUTH EXTERNAL UID2                      | REJECTED EXTERNAL
AUTH EXTERNAL 2                         | REJECTED EXTERNAL
AUTH EXTERNAL 2UID                      | REJECTED EXTERNAL
AUTH EXTERNAL UID0                      | REJECTED EXTERNAL

== a lone digit that is a number all the same
needs=root
AUTH EXTERNAL 303                       | OK GUID

== blanks between the words
AUTH  EXTERNAL   UID                    | OK GUID
== tabs between the words
AUTH\tEXTERNAL \t UID                   | OK GUID
== blanks behind a command
AUTH EXTERNAL UID                       | OK GUID
NEGOTIATE_UNIX_FD                       | AGREE_UNIX_FD
NEGOTIATE_UNIX_FD\t\x20                 | AGREE_UNIX_FD
BEGIN\x20                               | (message)
== words behind a command
AUTH EXTERNAL UID                       | OK GUID
NEGOTIATE_UNIX_FD please                | AGREE_UNIX_FD
BEGIN at once                           | (message)
== a blank behind the mechanism
AUTH EXTERNAL\x20                       | DATA
DATA\x20                                | OK GUID
== only blanks behind AUTH
auth=EXTERNAL
AUTH\x20\t                              | REJECTED EXTERNAL

== a blank before the command
\x20AUTH EXTERNAL UID                   | ERROR "Unknown command"
\tAUTH EXTERNAL UID                     | ERROR "Unknown command"

== an empty line
\x20                                    | ERROR "Unknown command"
AUTH EXTERNAL UID                       | OK GUID

== small letters
auth EXTERNAL UID                       | ERROR "Unknown command"
begin                                   | ERROR "Unknown command"

== LF alone ends no line
AUTH EXTERNAL UID\nBEGIN                | ERROR "Invalid hex encoding"
BEGIN\n                                 | ERROR "Unknown command"
\n                                      | ERROR "Unknown command"

== CR alone ends no line
BEGIN\r                                 | ERROR "Unknown command"
\r                                      | ERROR "Unknown command"

== what is not ASCII
AUTH EXTERNAL \xff                      | ERROR "Command contained non-ASCII"
\xc3\xa4                                | ERROR "Command contained non-ASCII"
AUTH\0EXTERNAL                          | ERROR "Command contained non-ASCII"
\0                                      | ERROR "Command contained non-ASCII"
\x7f\x01                                | ERROR "Unknown command"
BEGIN\0                                 | ERROR "Command contained non-ASCII"
AUTH EXTERNAL UID                       | OK GUID

== out of place before AUTH
CANCEL                                  | ERROR "Not currently in an auth conversation"
DATA                                    | ERROR "Not currently in an auth conversation"
DATA UID                                | ERROR "Not currently in an auth conversation"
NEGOTIATE_UNIX_FD                       | ERROR "Need to authenticate first"
OK GUID                                 | ERROR "Unknown command"
REJECTED                                | ERROR "Unknown command"
AGREE_UNIX_FD                           | ERROR "Unknown command"
HELLO                                   | ERROR "Unknown command"
ERROR                                   | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS
ERROR "why?"                            | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS
AUTH EXTERNAL UID                       | OK GUID

== out of place in the middle of AUTH
AUTH EXTERNAL                           | DATA
AUTH EXTERNAL UID                       | ERROR "Sent AUTH while another AUTH in progress"
NEGOTIATE_UNIX_FD                       | ERROR "Need to authenticate first"
OK GUID                                 | ERROR "Unknown command"
REJECTED                                | ERROR "Unknown command"
AGREE_UNIX_FD                           | ERROR "Unknown command"
HELLO                                   | ERROR "Unknown command"
DATA                                    | OK GUID

== out of place after OK
AUTH EXTERNAL UID                       | OK GUID
AUTH EXTERNAL UID                       | ERROR "Sent AUTH while expecting BEGIN"
DATA                                    | ERROR "Sent DATA while expecting BEGIN"
OK GUID                                 | ERROR "Unknown command"
REJECTED                                | ERROR "Unknown command"
AGREE_UNIX_FD                           | ERROR "Unknown command"
HELLO                                   | ERROR "Unknown command"
BEGIN                                   | (message)

== given up in the middle
auth=EXTERNAL
AUTH EXTERNAL                           | DATA
CANCEL                                  | REJECTED EXTERNAL
DATA                                    | ERROR "Not currently in an auth conversation"
AUTH EXTERNAL                           | DATA
ERROR "no"                              | REJECTED EXTERNAL
AUTH EXTERNAL                           | DATA
DATA                                    | OK GUID
BEGIN                                   | (message)

== CANCEL takes OK back
auth=EXTERNAL
AUTH EXTERNAL UID                       | OK GUID
NEGOTIATE_UNIX_FD                       | AGREE_UNIX_FD
CANCEL                                  | REJECTED EXTERNAL
NEGOTIATE_UNIX_FD                       | ERROR "Need to authenticate first"
BEGIN                                   | (closed)

== ERROR takes OK back
auth=EXTERNAL
AUTH EXTERNAL UID                       | OK GUID
ERROR                                   | REJECTED EXTERNAL
AUTH EXTERNAL UID                       | OK GUID
BEGIN                                   | (message)

== BEGIN before anything
BEGIN                                   | (closed)

== BEGIN in the middle
AUTH EXTERNAL                           | DATA
BEGIN                                   | (closed)

== BEGIN after a refusal
auth=EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
BEGIN                                   | (closed)

== six refusals
auth=EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
AUTH EXTERNAL NAME                      | REJECTED EXTERNAL
(closed)

== six refusals of all kinds; errors do not count
auth=EXTERNAL
AUTH                                    | REJECTED EXTERNAL
HELLO                                   | ERROR "Unknown command"
ERROR                                   | REJECTED EXTERNAL
AUTH EXTERNAL x                         | ERROR "Invalid hex encoding"
AUTH EXTERNAL                           | DATA
CANCEL                                  | REJECTED EXTERNAL
CANCEL                                  | ERROR "Not currently in an auth conversation"
AUTH EXTERNAL UID                       | OK GUID
CANCEL                                  | REJECTED EXTERNAL
\0                                      | ERROR "Command contained non-ASCII"
AUTH EXTERNAL UID                       | OK GUID
ERROR                                   | REJECTED EXTERNAL
HELLO                                   | ERROR "Unknown command"
AUTH MAGIC                              | REJECTED EXTERNAL
(closed)

== five refusals are forgiven
auth=EXTERNAL
AUTH                                    | REJECTED EXTERNAL
AUTH                                    | REJECTED EXTERNAL
AUTH                                    | REJECTED EXTERNAL
AUTH                                    | REJECTED EXTERNAL
AUTH                                    | REJECTED EXTERNAL
AUTH EXTERNAL UID                       | OK GUID
BEGIN                                   | (message)

== ANONYMOUS without a trace
AUTH ANONYMOUS                          | OK GUID
BEGIN                                   | (message)

== ANONYMOUS with a trace
auth=ANONYMOUS
AUTH ANONYMOUS hex(libdbus 1.14.10)     | OK GUID
NEGOTIATE_UNIX_FD                       | AGREE_UNIX_FD
BEGIN                                   | (message)

== ANONYMOUS with a trace in Chinese
AUTH ANONYMOUS e4bda0e5a5bd             | OK GUID

== ANONYMOUS with a noncharacter, which is text
AUTH ANONYMOUS efbfbf                   | OK GUID

== ANONYMOUS with a trace that is no text
auth=ANONYMOUS
AUTH ANONYMOUS ff                       | REJECTED ANONYMOUS
AUTH ANONYMOUS eda080                   | REJECTED ANONYMOUS
AUTH ANONYMOUS f4908080                 | REJECTED ANONYMOUS
AUTH ANONYMOUS 610062                   | REJECTED ANONYMOUS
AUTH ANONYMOUS x                        | ERROR "Invalid hex encoding"
AUTH ANONYMOUS                          | OK GUID

== DBUS_COOKIE_SHA1 for somebody else
auth=DBUS_COOKIE_SHA1
AUTH DBUS_COOKIE_SHA1                   | REJECTED DBUS_COOKIE_SHA1
AUTH DBUS_COOKIE_SHA1 hex(12345678)     | REJECTED DBUS_COOKIE_SHA1
AUTH DBUS_COOKIE_SHA1 hex(no-such-user) | REJECTED DBUS_COOKIE_SHA1
AUTH DBUS_COOKIE_SHA1 hex(daemon)       | REJECTED DBUS_COOKIE_SHA1
AUTH DBUS_COOKIE_SHA1 hex(x/../y\xff)   | REJECTED DBUS_COOKIE_SHA1

== over TCP there is nobody
over=tcp
AUTH EXTERNAL UID                       | REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS
NEGOTIATE_UNIX_FD                       | ERROR "Need to authenticate first"
AUTH ANONYMOUS                          | OK GUID
NEGOTIATE_UNIX_FD                       | ERROR "Unix FD passing not supported, not authenticated or otherwise not possible"
BEGIN                                   | (message)
"""  # noqa: E501


class Dialogue(NamedTuple):
    """`turns`: what the client says, with its CRLF, and the line it gets ("" for none)."""

    title: str
    auth: tuple[str, ...]  # empty: all
    over: str
    needs: str
    turns: tuple[tuple[bytes, str], ...]
    end: str  # CLOSED, MESSAGE or NOTHING: the server waits for more

    def cut_into_lines(self) -> list[bytes]:
        return [said for said, _ in self.turns]

    def cut_into_bytes(self) -> list[bytes]:
        return [bytes([byte]) for byte in b"".join(self.cut_into_lines())]

    def in_one_piece(self) -> list[bytes]:
        return [b"".join(self.cut_into_lines())]

    def answers(self, guid: str) -> list[str]:
        return [answer.replace("GUID", guid) for _, answer in self.turns if answer]

    def allows(self, uid: int) -> bool:
        return uid == 0 or self.needs != "root"


CUTS = [Dialogue.cut_into_lines, Dialogue.cut_into_bytes, Dialogue.in_one_piece]


def _expand(text: str) -> str:
    uid = os.geteuid()
    text = text.replace("HEXUID", f"{uid:#x}").replace("OCTUID", f"0{uid:o}")
    text = text.replace("HEXCAPS", f"{uid:#X}".encode().hex().upper())
    text = re.sub(r"hex\(([^)]*)\)", lambda m: _bytes(m[1]).hex(), text)
    text = re.sub(r"UID(?!\w*_)", f"{uid}".encode().hex(), text.replace("GUID", "G*ID"))
    text = re.sub(r"\bNAME\b", pwd.getpwuid(uid).pw_name.encode().hex(), text)
    return text.replace("G*ID", "GUID")


def _bytes(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")


def dialogues() -> list[Dialogue]:
    found = []
    for part in DIALOGUES.split("\n== ")[1:]:
        title, *lines = part.strip("\n").split("\n")
        settings = {"auth": "", "over": "unix", "needs": ""}
        turns: list[tuple[bytes, str]] = []
        end = NOTHING
        for line in filter(None, lines):
            if line == CLOSED:
                end = CLOSED
            elif "|" not in line:
                key, _, value = line.partition("=")
                settings[key] = value
            else:
                left, _, right = line.partition("|")
                answer = _expand(right.strip())
                if answer in (CLOSED, MESSAGE):
                    end, answer = answer, ""
                turns.append((_bytes(_expand(left.rstrip(" "))) + b"\r\n", answer))
        auth = tuple(filter(None, settings["auth"].split(",")))
        found.append(Dialogue(title, auth, settings["over"], settings["needs"], tuple(turns), end))
    return found
