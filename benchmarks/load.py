"""Kinds of load.  Each is taken in steps and counts what was done for it.

`step(True)` may send; `step(False)` only lets what is under way come to an end, and `under_way`
says how much that is, so a measurement begins and ends with a daemon that has nothing to do.
"""

from __future__ import annotations

import select
import time
from typing import Protocol

from client import SILENCE, Client, Receiver, Sender, Template

from afdbus.wire.encode import encode
from afdbus.wire.header import METHOD_CALL, METHOD_RETURN, SIGNAL
from afdbus.wire.message import build, method_call

WINDOW = 64  # calls, or signals, under way at a time

SERVICE = "org.example.Service"
OBJECT = "/org/example/Object"
INTERFACE = "org.example.Interface"
PROPERTIES = "org.freedesktop.DBus.Properties"

EMPTY = ("", b"")
# A PropertiesChanged as NetworkManager or UPower sends it, 500 bytes.
DICTIONARY = (
    "sa{sv}as",
    encode(
        "sa{sv}as",
        "org.example.Device.Wireless",
        {
            "Strength": ("y", 77),
            "LastSeen": ("i", 4711),
            "ActiveAccessPoint": ("o", "/org/example/Device/AccessPoint/17"),
            "Bitrate": ("u", 270000),
            "HwAddress": ("s", "3c:22:fb:9a:11:0e"),
            "Enabled": ("b", True),
            "State": ("s", "connected to a network called Home"),
            "Timestamp": ("t", 1_700_000_000_000),
            "Frequency": ("d", 5.18),
            "Ip4Config": ("o", "/org/example/IP4Config/17"),
            "Description": ("s", "a wireless network device of some kind, in some slot"),
        },
        [],
    ),
)


def bytes_of(size: int) -> tuple[str, bytes]:
    """Signature and body of a message with `size` bytes in it."""
    return "ay", encode("ay", b"x" * size)


def settle(*clients: Client) -> None:
    """Nothing is on its way to these any more."""
    for client in clients:
        client.call("GetId")


class Load(Protocol):
    """What can be measured."""

    done: int  # round trips, messages, deliveries ...: whatever one pays for
    under_way: int

    def step(self, go_on: bool) -> None:
        """Do a little, waiting for the daemon if there is nothing else to do."""

    def close(self) -> None: ...


class _Waiting:
    """Waits for sockets, but not for ever."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._blocked: set[Client] = set()

    def add(self, client: Client) -> None:
        """Wait for what comes for `client`, whose socket does not block any more."""
        client.sock.setblocking(False)
        self._epoll.register(client.sock, select.EPOLLIN)

    def set_blocked(self, client: Client, blocked: bool) -> None:
        """Whether to wait for room in the socket as well."""
        if blocked != (client in self._blocked):
            self._blocked ^= {client}
            out = select.EPOLLOUT if blocked else 0
            self._epoll.modify(client.sock, select.EPOLLIN | out)

    def wait(self) -> list[tuple[int, int]]:
        events = self._epoll.poll(SILENCE)
        if not events:
            raise TimeoutError("the daemon has stalled")
        return events

    def close(self) -> None:
        self._epoll.close()


def call_and_reply(
    name: str, caller: Client, content: tuple[str, bytes]
) -> tuple[bytes, bytes]:
    signature, body = content
    reply = build(METHOD_RETURN, 1, reply_serial=1, destination=caller.name, sender=None,
                  signature=signature, body=body)  # fmt: skip
    return method_call(1, name, OBJECT, INTERFACE, "Method", signature, body), reply


class Ping:
    """One call at a time, and its reply; counts round trips and notes how long each took."""

    gap = 0.0  # seconds of sleep after each

    def __init__(self, address: str, content: tuple[str, bytes] = EMPTY) -> None:
        self.done = 0
        self.under_way = 0
        self.latencies: list[float] = []
        self._caller = Client(address)
        self._callee = Client(address)
        self._callee.own(SERVICE)
        settle(self._caller, self._callee)
        call, reply = call_and_reply(SERVICE, self._caller, content)
        self._call, self._reply = Template(call), Template(reply)
        self._calls = Receiver(self._callee.sock, METHOD_CALL)
        self._replies = Receiver(self._caller.sock, METHOD_RETURN)

    def step(self, go_on: bool) -> None:
        caller, callee = self._caller, self._callee
        call = self._call.many(caller.next_serials(1))
        reply = self._reply
        begun = time.perf_counter()
        caller.sock.sendall(call)
        while not (serials := self._calls.serials()):
            pass  # it blocks: a message in two pieces
        callee.sock.sendall(reply.many(callee.next_serials(1), serials))
        while not self._replies.count():
            pass
        self.latencies.append(time.perf_counter() - begun)
        self.done += 1
        if self.gap:
            time.sleep(self.gap)

    def close(self) -> None:
        self._caller.close()
        self._callee.close()


class Pipe:
    """Many calls under way between two clients; counts messages, calls and replies."""

    window = WINDOW

    def __init__(self, address: str, content: tuple[str, bytes] = EMPTY) -> None:
        self.done = 0
        self.under_way = 0
        self._caller = Client(address)
        self._callee = Client(address)
        self._callee.own(SERVICE)
        settle(self._caller, self._callee)
        self._call, self._reply = self.templates(self._caller, content)
        self._calls = Receiver(self._callee.sock, self._call.type)
        self._replies = Receiver(self._caller.sock, self._reply.type)
        self._waiting = _Waiting()
        self._out = {}
        for client in (self._caller, self._callee):
            self._waiting.add(client)
            self._out[client] = Sender(client.sock)

    def templates(self, caller: Client, content: tuple[str, bytes]) -> tuple[Template, Template]:
        """Call and reply."""
        call, reply = call_and_reply(SERVICE, caller, content)
        return Template(call), Template(reply)

    def step(self, go_on: bool) -> None:
        out = self._out[self._caller]
        if go_on and out.idle and self.under_way < self.window:
            serials = self._caller.next_serials(self.window - self.under_way)
            self.under_way = self.window
            out.push(self._call.many(serials), self._call.length)
        for client, sender in self._out.items():
            sender.flush()
            self._waiting.set_blocked(client, not sender.idle)
        self._waiting.wait()
        calls = self._calls.serials()
        if calls:
            replies = self._reply.many(self._callee.next_serials(len(calls)), calls)
            self._out[self._callee].push(replies, self._reply.length)
        answered = self._replies.count()
        self.under_way -= answered
        self.done += 2 * answered

    def close(self) -> None:
        self._waiting.close()
        self._caller.close()
        self._callee.close()


class Pairs:
    """Pairs of clients with one call under way each, so that no two messages are for one client
    at a time; counts messages."""

    def __init__(self, address: str, count: int) -> None:
        self.done = 0
        self.under_way = 0
        self._waiting = _Waiting()
        self._callers: list[tuple[Client, Template]] = []
        self._clients: list[Client] = []
        self._handlers: dict[int, tuple[Client, Template, Receiver, bool]] = {}
        for number in range(count):
            caller, callee = Client(address), Client(address)
            name = f"{SERVICE}{number}"
            callee.own(name)
            settle(caller, callee)
            call, reply = map(Template, call_and_reply(name, caller, EMPTY))
            replies = Receiver(caller.sock, METHOD_RETURN)
            calls = Receiver(callee.sock, METHOD_CALL)
            self._handlers[caller.sock.fileno()] = caller, call, replies, False
            self._handlers[callee.sock.fileno()] = callee, reply, calls, True
            self._callers.append((caller, call))
            for client in (caller, callee):
                self._waiting.add(client)
                self._clients.append(client)

    def step(self, go_on: bool) -> None:
        if not self.under_way:
            self.under_way = len(self._callers)
            for caller, call in self._callers:
                caller.sock.send(call.many(caller.next_serials(1)))
        for fd, _ in self._waiting.wait():
            client, template, receiver, is_callee = self._handlers[fd]
            serials = receiver.serials()
            if not serials:
                continue
            self.done += 1
            if is_callee:
                client.sock.send(template.many(client.next_serials(1), serials))
            elif go_on:
                client.sock.send(template.many(client.next_serials(1)))
            else:
                self.under_way -= 1

    def close(self) -> None:
        self._waiting.close()
        for client in self._clients:
            client.close()


class Driver:
    """Many calls about a name under way; counts calls."""

    window = WINDOW
    member = "GetNameOwner"

    def __init__(self, address: str) -> None:
        self.done = 0
        self.under_way = 0
        self._client = Client(address)
        self._client.own(SERVICE)
        settle(self._client)
        self._call, answer = self.template(self._client)
        self._replies = Receiver(self._client.sock, answer)
        self._waiting = _Waiting()
        self._waiting.add(self._client)
        self._out = Sender(self._client.sock)

    def template(self, client: Client) -> tuple[Template, int]:
        """The call, and the type of its answer."""
        return Template(client.driver_call(self.member, "s", SERVICE)), METHOD_RETURN

    def step(self, go_on: bool) -> None:
        self._out.flush()
        if go_on and self._out.idle and self.under_way < self.window:
            serials = self._client.next_serials(self.window - self.under_way)
            self.under_way = self.window
            self._out.push(self._call.many(serials), self._call.length)
        answered = self.receive()
        self.under_way -= answered
        self.done += answered

    def receive(self) -> int:
        """Wait; how many answers have come."""
        self._waiting.wait()
        return self._replies.count()

    def close(self) -> None:
        self._waiting.close()
        self._client.close()


class Broadcast:
    """Signals from one client to `receivers`; counts deliveries.

    `foreign` rules of others, none of which fits, are there as well.
    """

    window = WINDOW
    rule = f"type='signal',interface='{PROPERTIES}',member='PropertiesChanged',path='{OBJECT}'"

    def __init__(self, address: str, receivers: int, foreign: int = 0) -> None:
        self.done = 0
        self.under_way = 0
        self._emitter = Client(address)
        self._receivers: dict[int, Receiver] = {}
        self._waiting = _Waiting()
        self._clients = [Client(address) for _ in range(receivers)]
        for client in self._clients:
            client.call("AddMatch", "s", self.rule)
        self._others = [Client(address) for _ in range(min(foreign, 50))]
        add_foreign_rules(self._others, foreign)
        self._signal = self.template()
        settle(self._emitter, *self._clients)
        for client in self._clients:
            self._waiting.add(client)
            self._receivers[client.sock.fileno()] = Receiver(client.sock, SIGNAL)
        self._emitter.sock.setblocking(False)
        self._out = Sender(self._emitter.sock)

    def template(self) -> Template:
        """The signal."""
        signature, body = DICTIONARY
        return Template(
            build(SIGNAL, 1, path=OBJECT, interface=PROPERTIES, member="PropertiesChanged",
                  sender=None, signature=signature, body=body)
        )  # fmt: skip

    def step(self, go_on: bool) -> None:
        self._out.flush()
        count = self.window - -(-self.under_way // len(self._receivers))
        if go_on and self._out.idle and count > 0:
            self.under_way += count * len(self._receivers)
            self._out.push(
                self._signal.many(self._emitter.next_serials(count)), self._signal.length
            )
        for fd, _ in self._waiting.wait():
            delivered = self._receivers[fd].count()
            self.under_way -= delivered
            self.done += delivered

    def close(self) -> None:
        self._waiting.close()
        for client in (self._emitter, *self._clients, *self._others):
            client.close()


class OneAtATime(Broadcast):
    """A signal only when everybody has the one before."""

    window = 1


class Churn:
    """A client comes, takes a name and goes; counts clients."""

    def __init__(self, address: str) -> None:
        self.done = 0
        self.under_way = 0
        self._address = address

    def step(self, go_on: bool) -> None:
        client = Client(self._address)
        client.own(SERVICE)
        client.close()
        self.done += 1

    def close(self) -> None:
        """Nobody is left."""


def add_foreign_rules(clients: list[Client], count: int) -> None:
    """So many rules for these clients in turn, some at a time."""
    for first in range(0, count, 1000):
        for number in range(first, min(first + 1000, count)):
            client = clients[number % len(clients)]
            client.sock.sendall(client.driver_call("AddMatch", "s", foreign_rule(number)))
        settle(*clients)


def foreign_rule(number: int) -> str:
    """One of the rules that a desktop's clients have, each with a value of its own."""
    rules = (
        f"type='signal',sender='org.example.Network',interface='{PROPERTIES}',"
        f"member='PropertiesChanged',path='/org/example/Devices/{number}'",
        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
        f"member='NameOwnerChanged',path='/org/freedesktop/DBus',arg0='org.example.Name{number}'",
        f"type='signal',interface='{PROPERTIES}',member='PropertiesChanged',path='{OBJECT}',"
        f"arg0='org.example.Interface{number}'",
        f"type='signal',sender=':1.{900000 + number}',path_namespace='/org/example/hci{number}'",
        f"type='signal',interface='org.example.Interface{number}',member='Changed'",
        f"type='signal',interface='{PROPERTIES}',path='/org/example/Thing{number}'",
        f"type='signal',interface='org.example.Actions',member='Changed',path='/org/app{number}'",
        "type='signal',sender='org.example.Manager',interface='org.example.Manager',"
        f"member='JobRemoved',path='/org/example/manager',arg2='unit{number}.service'",
    )
    return rules[number % len(rules)]
