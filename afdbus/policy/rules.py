"""The rules of a policy: what one `<allow>` or `<deny>` says (dbus-daemon(1), "policy").

Values that rest: made once when a configuration is read.  A condition that is absent, or was
written as `*`, is None (0 for the message type).  Every rule remembers where it was written, so
that a verdict can be explained.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

# D-Bus specification, "Message Format"; 0 stands for any type.
MESSAGE_TYPES = {"method_call": 1, "method_return": 2, "error": 3, "signal": 4}
ERROR = MESSAGE_TYPES["error"]
SIGNAL = MESSAGE_TYPES["signal"]

# dbus-daemon's bound of min_fds and max_fds: the descriptors for which 128 MiB have room.
MAX_RULE_FDS = 33_554_432


class MessageRule(NamedTuple):
    """A rule about messages: `receiving` says whether a `receive_...` or a `send_...` rule.

    `name` is the other party: send_destination (or its `prefix`), or receive_sender.  `broadcast`
    is None when the rule does not care.
    """

    allow: bool
    receiving: bool
    type: int = 0
    path: str | None = None
    interface: str | None = None
    member: str | None = None
    error: str | None = None
    name: str | None = None
    prefix: bool = False
    broadcast: bool | None = None
    requested_reply: bool = False
    eavesdrop: bool = False
    min_fds: int = 0
    max_fds: int = MAX_RULE_FDS
    log: bool = False
    file: str = ""
    line: int = 0

    @property
    def resets(self) -> bool:
        """Whether it erases all earlier rules of its kind.

        It does when it names neither type, path, interface, member, error nor the other party,
        *whatever else it says*: dbus-daemon takes it for a blanket rule even if it has min_fds
        or send_broadcast.
        """
        return not self.type and (
            self.path is self.interface is self.member is self.error is self.name is None
        )


class OwnRule(NamedTuple):
    """A rule about owning `name`, everything from it downwards (`prefix`), or any name (None)."""

    allow: bool
    name: str | None = None
    prefix: bool = False
    file: str = ""
    line: int = 0

    @property
    def resets(self) -> bool:
        return self.name is None


class ConnectRule(NamedTuple):
    """A rule about connecting: one user, or a `group` of users, by number; None is everybody."""

    allow: bool
    group: bool = False
    number: int | None = None
    file: str = ""
    line: int = 0


Rule: TypeAlias = MessageRule | OwnRule | ConnectRule
