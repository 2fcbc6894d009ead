"""The kinds of error that come from outside.

*Your message was wrong*: a `BusError`, answered with an error reply in one place.
*You are not speaking D-Bus*: a `ProtocolViolation`, and the connection ends.
*The configuration is wrong*: a `ConfigError`, which names file and line.

Anything else that is raised is a bug of ours (see `server/loop.py`).
"""

from __future__ import annotations


class BusError(Exception):
    """A D-Bus error reply: `name` (an error name) and `text` (for people)."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


class ProtocolViolation(Exception):  # noqa: N818 - it is a deed of the peer, named as such
    """The peer broke the protocol; its connection is to be closed. Never answered."""


class ConfigError(Exception):
    """A configuration that cannot be used; `file`, `line` and `column` are None when unknown.

    `text` is dbus-daemon's.  As a string it says where, too, for semantic errors in the form that
    dbus-daemon has for those of XML.
    """

    def __init__(
        self,
        text: str,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(text, file, line, column)
        self.text = text
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        if self.file is None or (self.line is None and self.file in self.text):
            return self.text
        where = f"Error in file {self.file}"
        if self.line is not None:
            where += f", line {self.line}"
        if self.column is not None:
            where += f", column {self.column}"
        return f"{where}: {self.text}"


class BusClosedError(Exception):
    """The bus, or its whole host, was closed."""


class AddressError(ValueError):
    """A D-Bus address that cannot be parsed, or not be listened on or connected to."""


_E = "org.freedesktop.DBus.Error."

ACCESS_DENIED = _E + "AccessDenied"
ADDRESS_IN_USE = _E + "AddressInUse"
ADT_AUDIT_DATA_UNKNOWN = _E + "AdtAuditDataUnknown"
FAILED = _E + "Failed"
FILE_NOT_FOUND = _E + "FileNotFound"
INVALID_ARGS = _E + "InvalidArgs"
LIMITS_EXCEEDED = _E + "LimitsExceeded"
MATCH_RULE_INVALID = _E + "MatchRuleInvalid"
MATCH_RULE_NOT_FOUND = _E + "MatchRuleNotFound"
NAME_HAS_NO_OWNER = _E + "NameHasNoOwner"
NOT_SUPPORTED = _E + "NotSupported"
NO_MEMORY = _E + "NoMemory"
NO_REPLY = _E + "NoReply"
PROPERTY_READ_ONLY = _E + "PropertyReadOnly"
SELINUX_SECURITY_CONTEXT_UNKNOWN = _E + "SELinuxSecurityContextUnknown"
SERVICE_UNKNOWN = _E + "ServiceUnknown"
SPAWN_CHILD_EXITED = _E + "Spawn.ChildExited"
SPAWN_CHILD_SIGNALED = _E + "Spawn.ChildSignaled"
SPAWN_CONFIG_INVALID = _E + "Spawn.ConfigInvalid"
SPAWN_EXEC_FAILED = _E + "Spawn.ExecFailed"
SPAWN_FAILED = _E + "Spawn.Failed"
SPAWN_FILE_INVALID = _E + "Spawn.FileInvalid"
SPAWN_PERMISSIONS_INVALID = _E + "Spawn.PermissionsInvalid"
SPAWN_SERVICE_NOT_FOUND = _E + "Spawn.ServiceNotFound"
SPAWN_SERVICE_NOT_VALID = _E + "Spawn.ServiceNotValid"
SPAWN_SETUP_FAILED = _E + "Spawn.FailedToSetup"
TIMED_OUT = _E + "TimedOut"
UNIX_PROCESS_ID_UNKNOWN = _E + "UnixProcessIdUnknown"
UNKNOWN_INTERFACE = _E + "UnknownInterface"
UNKNOWN_METHOD = _E + "UnknownMethod"
UNKNOWN_PROPERTY = _E + "UnknownProperty"
