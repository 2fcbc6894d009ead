"""Conversations under a policy: who says what to whom, and what each client then hears of it.

A conversation is a value: the same one is held on dbus-daemon and on ours, step by step, and all
that its clients hear is compared.  Nothing waits for silence: after each step every client asks the
bus for its id, and what has not come before that answer never will.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from kit import BUS, ClosedError, Daemon, Message, RawClient, Received, busconfig, call
from kit.message import (
    DESTINATION,
    ERROR_NAME,
    FIELD_TYPES,
    INTERFACE,
    MEMBER,
    METHOD_CALL,
    PATH,
    REPLY_SERIAL,
    UNIX_FDS,
)
from policies import OPEN

# The last words of every policy, so that the bus answers the questions for its id and for a name,
# and is told of the next policy.  They fit nothing else that is said here.
_QUESTIONS = "".join(
    f'<allow send_destination="{BUS}" send_interface="{BUS}" send_member="{member}"/>'
    for member in ("GetId", "NameHasOwner", "ReloadConfig")
)
LAST_WORDS = (
    f'<policy context="mandatory">{_QUESTIONS}'
    f'<allow receive_sender="{BUS}" receive_type="method_return"/></policy>'
)

# What is to provide these names ends at once and does nothing; somebody may request them later.
ACTIVATABLE = ("a.ct",)


class Actor(NamedTuple):
    """Somebody who takes part: `uid` and `gids` (the primary one first) count for root only."""

    uid: int | None = None
    gids: Sequence[int] | None = None
    unix_fds: bool = True


CAST = {
    "alice": Actor(),
    "bob": Actor(65534, (65534,)),
    # whose process has groups (users, audio, dialout) that the database does not give to its user
    "carol": Actor(1, (100, 29, 20), unix_fds=False),
    "eve": Actor(),
}

# Of whom the user database does not know.
STRANGER = Actor(54321, (54321,))


class Send(NamedTuple):
    """One message.  `to` is an actor, a name, or "" for a broadcast; "bus" is the driver.

    `reply` is a serial for the header, or the place of a call that was made before, counted from
    the latest one (-1): then the message goes to its caller.  `again`: under the serial of the
    message before, if that was a call.
    """

    who: str
    type: int
    to: str = ""
    path: str | None = None
    interface: str | None = None
    member: str | None = None
    error: str | None = None
    reply: int = 0
    flags: int = 0
    fds: int = 0
    again: bool = False


class Ask(NamedTuple):
    """A call of a method of the bus."""

    who: str
    member: str
    signature: str = ""
    args: tuple[Any, ...] = ()
    interface: str | None = BUS


class Load(NamedTuple):
    """Another policy from here on."""

    policy: str


class Come(NamedTuple):
    """An actor connects."""

    who: str


class Leave(NamedTuple):
    """An actor is gone, and the bus knows."""

    who: str


Step: TypeAlias = Send | Ask | Load | Come | Leave
Heard: TypeAlias = dict[str, list[Any]]


def own(who: str, name: str, flags: int = 0) -> Ask:
    return Ask(who, "RequestName", "su", (name, flags))


def match(who: str, rule: str) -> Ask:
    return Ask(who, "AddMatch", "s", (rule,))


def come(*who: str) -> list[Step]:
    return [Come(name) for name in who or CAST]


class Stage:
    """A daemon on which one conversation after the other is held."""

    def __init__(self, kind: str) -> None:
        self.daemon = Daemon(kind, self._config(OPEN))
        try:
            services = self.daemon.directory / "services"
            services.mkdir()
            for name in ACTIVATABLE:
                text = f"[D-BUS Service]\nName={name}\nExec=/bin/true\n"
                (services / f"{name}.service").write_text(text)
            self.control = self.daemon.join()
            self.daemon.clients.clear()  # it stays when the clients of a conversation go
            self.control.hello()
            self._names = self.control.bus("ListNames").args
            self.file = os.memfd_create("passed on")
        except BaseException:
            self.daemon.stop()
            raise

    @staticmethod
    def _config(policy: str) -> str:
        services = "<servicedir>services</servicedir>"
        return busconfig(services, policy=policy + LAST_WORDS, service_start_timeout=2**31 - 1)

    def load(self, policy: str) -> Received:
        """Let `policy` be the policy; the answer of the bus."""
        text = self._config(policy).replace("{directory}", str(self.daemon.directory))
        self.daemon.config_file.write_text(text)
        return self.control.exchange(call("ReloadConfig"))[-1]

    def settle(self) -> None:
        """Everybody leaves, and the bus is as it was at first."""
        assert self.load(OPEN).error_name is None
        for client in self.daemon.clients:
            client.close()
            if client.name:
                self.control.until_gone(client.name)
        self.daemon.clients.clear()
        assert self.control.bus("ListNames").args == self._names

    def close(self) -> None:
        os.close(self.file)
        self.control.close()
        self.daemon.stop()


class Conversation:
    """One conversation on one stage.

    In policies and match rules `{alice}` is the unique name that alice has, or will have if
    everybody comes in the order of the cast.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._clients: dict[str, RawClient] = {}
        self._calls: list[tuple[str, int]] = []  # callers and serials
        scout = stage.daemon.connect()
        number = int(scout.name.removeprefix(":1."))
        self.names = {who: f":1.{number + 1 + place}" for place, who in enumerate(CAST)}
        self.names["bus"] = BUS

    def take(self, step: Step) -> Heard:
        """What everybody hears after a step; of the bus's own serials nothing is told."""
        if isinstance(step, Come):
            return {} if step.who in self._clients else self._come(step.who)
        if isinstance(step, Load):
            answer = self._stage.load(self._filled(step.policy))
            return {"": [answer.error_name], **self._heard()}
        client = self._clients.get(step.who)
        if client is None:
            return {}
        if isinstance(step, Leave):
            del self._clients[step.who]
            client.close()
            self._stage.control.until_gone(client.name)
            return self._heard()
        if isinstance(step, Ask):
            args = [self._filled(arg) if isinstance(arg, str) else arg for arg in step.args]
            client.send(call(step.member, step.signature, *args, interface=step.interface))
        else:
            self._send(step, client)
        return self._heard(first=step.who)

    def _filled(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self.names[found[1]], text)

    def _come(self, who: str) -> Heard:
        uid, gids, unix_fds = actor = CAST.get(who, STRANGER)
        if os.geteuid() != 0:
            uid, gids, unix_fds = Actor(unix_fds=actor.unix_fds)
        client = self._stage.daemon.join(uid=uid, gids=gids, unix_fds=unix_fds)
        try:
            client.name = client.exchange(call("Hello"))[-1].args[0]
        except ClosedError:
            return {who: ["refused"]}
        self._clients[who] = client
        self.names[who] = client.name
        return {**self._heard(first=who), "": [client.name]}

    def _send(self, step: Send, client: RawClient) -> None:
        to: str | None = self.names.get(step.to, step.to) or None
        reply = step.reply
        if reply < 0:
            if -reply > len(self._calls):
                return
            caller, reply = self._calls[reply]
            to = self.names[caller]
        fds = [self._stage.file] * (step.fds if CAST[step.who].unix_fds else 0)
        values = {
            PATH: step.path,
            INTERFACE: step.interface,
            MEMBER: step.member,
            ERROR_NAME: step.error,
            REPLY_SERIAL: reply or None,
            DESTINATION: to,
            UNIX_FDS: len(fds) or None,
        }
        fields = [(code, FIELD_TYPES[code], v) for code, v in values.items() if v is not None]
        before = self._calls[-1:]
        number = before[0][1] if step.again and before and before[0][0] == step.who else None
        serial = client.send(Message(step.type, fields, flags=step.flags, fds=fds, serial=number))
        if step.type == METHOD_CALL and to not in (BUS, None):
            self._calls.append((step.who, serial))

    def _heard(self, first: str = "") -> Heard:
        order = sorted(self._clients.items(), key=lambda item: item[0] != first)
        # How often the test itself asks whether a name is gone is left to chance.
        control = self._stage.control.name
        heard: Heard = {
            who: [_shown(m) for m in client.sync() if m.sender != control] for who, client in order
        }
        return {who: messages for who, messages in heard.items() if messages}


def _shown(message: Received) -> tuple[Any, ...]:
    for fd in message.fds:
        os.close(fd)
    return (
        message.brief,
        message.flags,
        tuple(sorted((code, value) for code, _, value in message.fields)),
        len(message.fds),
        None if message.sender == BUS else message.serial,
    )


def differ(stages: Sequence[Stage], steps: Sequence[Step]) -> str:
    """Hold a conversation on all stages; what was heard differently first, or ""."""
    conversations = [Conversation(stage) for stage in stages]
    try:
        for place, step in enumerate(steps):
            answers = [conversation.take(step) for conversation in conversations]
            if any(answer != answers[0] for answer in answers):
                shown = [
                    f"{stage.daemon.kind}: {answer}"
                    for stage, answer in zip(stages, answers, strict=True)
                ]
                before = map(repr, steps[:place])
                return "\n".join([f"step {place}: {step}", *shown, "after", *before])
    finally:
        for stage in stages:
            stage.settle()
    return ""
