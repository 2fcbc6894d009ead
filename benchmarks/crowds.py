"""What there can be more and more of on a bus, and what is said there meanwhile.

A crowd is made of so many of one thing, and stays while one conversation after another is held.
Each of them is a load (`load.py`) that has as much to do with the crowd as it can.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

from client import MAX_MESSAGE, Client, Receiver, Template
from load import INTERFACE, OBJECT, PROPERTIES, WINDOW, Churn, Load, Ping, settle

from afdbus.wire.encode import encode
from afdbus.wire.header import (
    ERROR,
    FIXED,
    METHOD_CALL,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    SIGNAL,
    frame_length,
)
from afdbus.wire.message import BUS_INTERFACE, BUS_NAME, BUS_PATH, build, method_call

# Of headers: more than a peer may have plans for.
MANY = 1024
# Among so many clients at the most rules are divided.
SHARERS = 50
# What one who does not read is sent at a time, and how much of it at the most the kernel takes
# before anything is queued in a daemon.
KIB = 1024
SOCKET = 512 * KIB

CHANGED = "PropertiesChanged"
WORDS = encode("sss", "org.example.Device", "/org/example/Unit/1", "active")


class Arrivals:
    """Counts messages of one type, among others, that come for a client."""

    def __init__(self, client: Client, type_: int) -> None:
        self._recv = client.sock.recv
        self._type = type_
        self._rest = b""

    def count(self) -> int:
        """Wait for something to come; how many of them have."""
        data = self._rest + self._recv(64 * KIB)
        pos = count = 0
        while len(data) - pos >= FIXED:
            _, end = frame_length(data, pos, MAX_MESSAGE)
            if end > len(data):
                break
            type_ = data[pos + 1]
            assert type_ != ERROR or self._type == ERROR, data[pos:end]
            count += type_ == self._type
            pos = end
        self._rest = data[pos:]
        return count


class Flow:
    """Messages from one client, each of which makes one of some type arrive at another, or at the
    same; counts those.  The same messages are sent over and over, serials and all."""

    def __init__(
        self, sender: Client, receiver: Client, messages: Iterable[bytes], type_: int
    ) -> None:
        self.done = 0
        self.under_way = 0
        self._send = sender.sock.sendall
        self._arrivals = Arrivals(receiver, type_)
        known = list(messages)
        several = cycle(known)
        self._windows = cycle(
            b"".join(next(several) for _ in range(WINDOW)) for _ in range(-(-len(known) // WINDOW))
        )
        self._awaited = 0

    def step(self, go_on: bool) -> None:
        self._send(next(self._windows))
        self.done += WINDOW
        self._awaited += WINDOW
        while self._awaited > 0:
            self._awaited -= self._arrivals.count()

    def close(self) -> None:
        """The clients are the crowd's."""


class Exchange:
    """Calls of one client, answered by another, as many at a time as may be under way; counts
    messages, calls and replies."""

    def __init__(self, caller: Client, callee: Client) -> None:
        self.done = 0
        self.under_way = 0
        self._caller, self._callee = caller, callee
        self._call = Template(method_call(1, callee.name, OBJECT, INTERFACE, "Method"))
        self._reply = Template(
            build(METHOD_RETURN, 1, reply_serial=1, destination=caller.name, sender=None)
        )
        settle(caller, callee)
        self._calls = Receiver(callee.sock, METHOD_CALL)
        self._replies = Receiver(caller.sock, METHOD_RETURN)

    def step(self, go_on: bool) -> None:
        caller, callee = self._caller, self._callee
        caller.sock.sendall(self._call.many(caller.next_serials(WINDOW)))
        asked = self._calls.serials()
        while len(asked) < WINDOW:
            asked += self._calls.serials()
        callee.sock.sendall(self._reply.many(callee.next_serials(WINDOW), asked))
        answered = 0
        while answered < WINDOW:
            answered += self._replies.count()
        self.done += 2 * WINDOW

    def close(self) -> None:
        """The clients are the crowd's."""


class Parting:
    """Somebody comes, is called, and goes without an answer, which the caller is told; counts
    those."""

    def __init__(self, address: str, caller: Client) -> None:
        self.done = 0
        self.under_way = 0
        self._address = address
        self._caller = caller
        settle(caller)
        self._errors = Arrivals(caller, ERROR)

    def step(self, go_on: bool) -> None:
        caller = self._caller
        guest = Client(self._address)
        serial = caller.next_serials(1)[0]
        caller.sock.sendall(method_call(serial, guest.name, OBJECT, INTERFACE, "Method"))
        settle(caller)
        guest.close()
        while not self._errors.count():
            pass
        self.done += 1

    def close(self) -> None:
        """The caller is the crowd's."""


class Crowd:
    """So many of one thing on the bus with this address; they go when it is closed."""

    def __init__(self, address: str, count: int) -> None:
        self.address = address
        self._clients: list[Client] = []
        self.gather(count)

    def gather(self, count: int) -> None:
        raise NotImplementedError

    def client(self) -> Client:
        """One more client."""
        client = Client(self.address)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


def ask(client: Client, member: str, signature: str, *several: tuple[object, ...]) -> None:
    """Call the driver many times."""
    for first in range(0, len(several), WINDOW):
        some = several[first : first + WINDOW]
        client.sock.sendall(b"".join(client.driver_call(member, signature, *v) for v in some))
        settle(client)


class Connections(Crowd):
    """Clients that have nothing to say."""

    def gather(self, count: int) -> None:
        for _ in range(count):
            self.client()

    def ping(self) -> Load:
        return Ping(self.address)

    def churn(self) -> Load:
        return Churn(self.address)


class Names(Crowd):
    """Names of one client."""

    def gather(self, count: int) -> None:
        self._owner, self._caller = self.client(), self.client()
        self._names = [f"org.example.Name{number}" for number in range(count)]
        ask(self._owner, "RequestName", "su", *[(name, 4) for name in self._names])

    def call(self) -> Load:
        calls = (
            method_call(1, name, OBJECT, INTERFACE, "Method", flags=NO_REPLY_EXPECTED)
            for name in self._names
        )
        return Flow(self._caller, self._owner, calls, METHOD_CALL)

    def look_up(self) -> Load:
        calls = (self._caller.driver_call("GetNameOwner", "s", name) for name in self._names)
        return Flow(self._caller, self._caller, calls, METHOD_RETURN)

    def change(self) -> Load:
        owner = self._owner
        calls = (
            owner.driver_call("RequestName", "su", "org.example.Another", 4),
            owner.driver_call("ReleaseName", "s", "org.example.Another"),
        )
        return Flow(owner, owner, calls, METHOD_RETURN)

    def signal(self) -> Load:
        listener = self.client()
        ask(listener, "AddMatch", "s", ("type='signal',sender='org.example.Name0'",))
        signals = (
            build(SIGNAL, 1, path=f"{OBJECT}/{number}", interface=INTERFACE, member="Said",
                  sender=None) for number in range(MANY)
        )  # fmt: skip
        return Flow(self._owner, listener, signals, SIGNAL)


def near_rules(number: int) -> tuple[str, ...]:
    """Rules that each fit the signals of `Rules` but for one thing, of every kind; and one that
    waits for a name."""
    signal = f"type='signal',interface='{PROPERTIES}',"
    same = f"{signal}member='{CHANGED}',"
    return (
        f"{signal}member='Changed{number}'",
        f"{same}path='/org/example/Other/{number}'",
        f"{same}path_namespace='/org/example/Other/{number}'",
        f"{same}sender='org.example.Sender{number}'",
        f"{same}arg0='org.example.Device{number}'",
        f"{same}arg0='org.example.Device',arg2='state{number}'",
        f"{same}arg0namespace='org.example.Devices{number}'",
        f"{same}arg1path='/org/example/Units{number}/'",
        f"type='signal',sender='{BUS_NAME}',interface='{BUS_INTERFACE}',"
        f"member='NameOwnerChanged',path='{BUS_PATH}',arg0='org.example.Name{number}'",
    )


class Rules(Crowd):
    """Rules of others that do not fit."""

    def gather(self, count: int) -> None:
        self._emitter, self._receiver = self.client(), self.client()
        rule = f"type='signal',interface='{PROPERTIES}',member='{CHANGED}'"
        ask(self._receiver, "AddMatch", "s", (rule,))
        kinds = len(near_rules(0))
        rules = [near_rules(number)[number % kinds] for number in range(count)]
        sharers = [self.client() for _ in range(min(count, SHARERS))]
        for first, sharer in enumerate(sharers):
            ask(sharer, "AddMatch", "s", *[(rule,) for rule in rules[first :: len(sharers)]])
        self._sharer = sharers[0]

    def _signals(self, paths: Iterable[str]) -> Load:
        signals = (
            build(SIGNAL, 1, path=path, interface=PROPERTIES, member=CHANGED, sender=None,
                  signature="sss", body=WORDS) for path in paths
        )  # fmt: skip
        return Flow(self._emitter, self._receiver, signals, SIGNAL)

    def signal(self) -> Load:
        return self._signals([OBJECT])

    def signals(self) -> Load:
        return self._signals(f"{OBJECT}/{number}" for number in range(MANY))

    def churn(self) -> Load:
        return Churn(self.address)

    def change(self) -> Load:
        sharer = self._sharer
        calls = (
            sharer.driver_call(member, "s", rule)
            for rule in near_rules(10**6)  # a number that is not in use
            for member in ("AddMatch", "RemoveMatch")
        )
        return Flow(sharer, sharer, calls, METHOD_RETURN)


class Pending(Crowd):
    """Calls of one client to another, who answers none."""

    def gather(self, count: int) -> None:
        self._caller, silent = self.client(), self.client()
        for first in range(0, count, WINDOW):
            serials = self._caller.next_serials(min(WINDOW, count - first))
            calls = [
                method_call(serial, silent.name, OBJECT, INTERFACE, "Method") for serial in serials
            ]
            self._caller.sock.sendall(b"".join(calls))
            settle(self._caller, silent)

    def own(self) -> Load:
        return Exchange(self._caller, self.client())

    def other(self) -> Load:
        return Exchange(self.client(), self.client())

    def parting(self) -> Load:
        return Parting(self.address, self._caller)


class Queued(Crowd):
    """Bytes for one client, who does not read."""

    def gather(self, count: int) -> None:
        self._sender, self._receiver = self.client(), self.client()
        signal = build(SIGNAL, 1, path=OBJECT, interface=INTERFACE, member="Said", sender=None,
                       destination=self._receiver.name, signature="ay",
                       body=encode("ay", bytes(KIB)))  # fmt: skip
        self._signal = signal
        for _ in range(0, SOCKET + count, len(signal) * WINDOW):
            self._sender.sock.sendall(signal * WINDOW)
            settle(self._sender)

    def other(self) -> Load:
        return Exchange(self.client(), self.client())

    def more(self) -> Load:
        return Flow(self._sender, self._receiver, [self._signal], SIGNAL)
