"""Who may come in: what is asked once of everybody who is authenticated.

dbus-daemon(1), `<allow user>`, `<allow_anonymous/>`.  As in dbus-daemon a refusal is
told by the end of the connection alone; here the log says more, but not each time: strangers must
not fill it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus.judge import because

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.identity import Identity

# Users whose refusals are counted; then the count begins anew.
MAX_USERS = 256


class Door:
    """The door of one bus.  `allow_anonymous` is settled at the start."""

    __slots__ = ("_allow_anonymous", "_bus", "_refused")

    def __init__(self, bus: Bus, *, allow_anonymous: bool) -> None:
        self._bus = bus
        self._allow_anonymous = allow_anonymous
        self._refused: dict[int | None, int] = {}

    def admits(self, identity: Identity, mechanism: str) -> bool:
        """Whether who is authenticated by `mechanism` may stay."""
        bus = self._bus
        if mechanism == "ANONYMOUS":
            if not self._allow_anonymous:
                self._tell(identity, 0, " [no <allow_anonymous/>]")
            return self._allow_anonymous
        verdict = bus.ruleset.may_connect(identity, bus.own_uid)
        if verdict.allowed:
            return True
        uid = identity.uid
        if uid is not None and not bus.ruleset.is_user(uid):
            reason = f" [the user database has no user {uid}]"
        else:
            reason = because(verdict)
        self._tell(identity, verdict.matched, reason)
        return False

    def _tell(self, identity: Identity, matched: int, reason: str) -> None:
        """Log a refusal, of the same user the first, second, fourth, eighth time and so on."""
        if len(self._refused) >= MAX_USERS:
            self._refused.clear()
        count = self._refused[identity.uid] = self._refused.get(identity.uid, 0) + 1
        if count & (count - 1):
            return
        times = f", the {count}th time" if count > 2 else ""
        self._bus.journal.security(
            f"Rejected connection, {matched} matched rules; "
            f"({self._bus.host.describe(identity)}){times}{reason}"
        )
