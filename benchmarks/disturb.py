"""What goes on at a bus while somebody else pings: `python benchmarks/disturb.py KIND ADDRESS`.

Prints a line when it is under way, goes on until its standard input ends, and prints how much it
has done.  It yields its core to whoever pings, always: see `yield_core`.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Protocol

import load
from client import Client

from afdbus.wire.header import NO_REPLY_EXPECTED, SIGNAL
from afdbus.wire.message import build, method_call

# As many headers in turn are more than anybody remembers.
HEADERS = 16384
# Messages that a flooder makes at a time.
BATCH = 256
FLOODERS = 8

# What a stuck peer misses: so much before it begins, and then so much a second of each kind.
BACKLOG = 3000
MISSED = 1000
RELOADS = 20  # a second
CONNECTS = 1000  # a second
CROWD = 20

_room = memoryview(bytearray(256 * 1024))


class Disturber(Protocol):
    """`done` counts what it has done; `step` does a little, and takes a moment at the most."""

    done: int

    def step(self) -> None: ...


class Flood:
    """Peers that send as fast as their sockets take it, each to another one, which reads it.

    A call has the same header each time, or one that never repeats.  They are sent one by one, as
    clients do it, or as many as there is room for at a time.
    """

    def __init__(self, address: str, peers: int, *, repeat: bool, bulk: bool = False) -> None:
        self.done = 0
        self._poller = select.epoll()
        self._floods: dict[int, _Stream] = {}
        self._sinks: dict[int, socket.socket] = {}
        self._clients = []
        for _ in range(peers):
            flooder, sink = Client(address), Client(address)
            load.settle(flooder, sink)
            self._clients += [flooder, sink]
            for client in (flooder, sink):
                client.sock.setblocking(False)
            stream = _Stream(flooder.sock, calls(sink.name, 1 if repeat else HEADERS), bulk=bulk)
            self._floods[flooder.sock.fileno()] = stream
            self._sinks[sink.sock.fileno()] = sink.sock
            self._poller.register(flooder.sock, select.EPOLLOUT)
            self._poller.register(sink.sock, select.EPOLLIN)

    def step(self) -> None:
        for fd, _ in self._poller.poll(0.1):
            stream = self._floods.get(fd)
            if stream is None:
                self._sinks[fd].recv_into(_room)
            else:
                self.done += stream.write()


class _Stream:
    """Messages, all equally long, over and over."""

    def __init__(self, sock: socket.socket, messages: list[bytes], *, bulk: bool) -> None:
        self._send = sock.send
        self._length = len(messages[0])
        assert all(len(message) == self._length for message in messages)
        repeated = messages * -(-BATCH // len(messages))
        self._data = memoryview(b"".join(repeated))
        self._most = BATCH * self._length if bulk else self._length
        self._pos = 0

    def write(self) -> int:
        """Write until the socket is full, or a batch; how many messages were begun."""
        data, length, most, pos = self._data, self._length, self._most, self._pos
        begun = 0
        try:
            while begun < BATCH:
                sent = self._send(data[pos : pos + most - pos % length])
                begun += -(-sent // length)
                pos = (pos + sent) % len(data)
        except BlockingIOError:
            pass
        self._pos = pos
        return begun


def calls(name: str, headers: int) -> list[bytes]:
    """Calls that want no reply, to the peer `name`, each with another path."""
    return [
        method_call(
            1, name, f"{load.OBJECT}/{number:08x}", load.INTERFACE, "Method",
            flags=NO_REPLY_EXPECTED,
        )
        for number in range(headers)
    ]  # fmt: skip


class Stuck:
    """Two peers that do not read: one hears signals, one is called; who sends them goes on."""

    def __init__(self, address: str) -> None:
        self.done = 0
        self._listener, self._callee, self._sender = (Client(address) for _ in range(3))
        self._listener.call("AddMatch", "s", f"type='signal',interface='{load.INTERFACE}'")
        signature, body = load.DICTIONARY
        signal = build(SIGNAL, 1, path=load.OBJECT, interface=load.INTERFACE, member="Changed",
                       sender=None, signature=signature, body=body)  # fmt: skip
        call = method_call(1, self._callee.name, load.OBJECT, load.INTERFACE, "Method",
                           signature, body, flags=NO_REPLY_EXPECTED)  # fmt: skip
        self._both = signal + call
        for _ in range(BACKLOG):
            self._sender.sock.sendall(self._both)
        load.settle(self._sender)
        self._pace = Pace(MISSED)

    def step(self) -> None:
        self._pace.wait()
        self._sender.sock.sendall(self._both)
        self.done += 2


class Reload:
    """ReloadConfig over and over; with `fragment`, that file was changed before."""

    def __init__(self, address: str, fragment: Path | None = None) -> None:
        self.done = 0
        self._client = Client(address)
        self._fragment = fragment
        self._pace = Pace(RELOADS)

    def step(self) -> None:
        self._pace.wait()
        if self._fragment is not None:
            text = self._fragment.read_text()
            new = self._fragment.with_suffix(".new")
            new.write_text(text + "<!-- -->\n")
            new.replace(self._fragment)
        self._client.call("ReloadConfig")
        self.done += 1


class Connects:
    """Clients that come, say Hello and go again; `crowd` of them come at the same time."""

    def __init__(self, address: str, crowd: int) -> None:
        self.done = 0
        self._crowd = crowd
        client = Client(address)
        self._path = client.sock.getpeername()
        uid = str(os.getuid()).encode().hex().encode()
        self._greeting = b"\0AUTH EXTERNAL " + uid + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
        self._greeting += client.driver_call("Hello")
        self._pace = Pace(CONNECTS / crowd)

    def step(self) -> None:
        self._pace.wait()
        crowd = []
        for _ in range(self._crowd):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self._path)
            sock.sendall(self._greeting)
            crowd.append(sock)
        for sock in crowd:
            answer = b""
            while b":1." not in answer:  # its name
                more = sock.recv(4096)
                if not more:
                    raise ConnectionError("a client was turned away")
                answer += more
            sock.close()
        self.done += self._crowd


class Pace:
    """So many steps a second; what was missed is not made up for."""

    def __init__(self, per_second: float) -> None:
        self._every = 1 / per_second
        self._due = time.perf_counter()

    def wait(self) -> None:
        self._due = max(self._due + self._every, time.perf_counter())
        time.sleep(max(0.0, self._due - time.perf_counter()))


def make(kind: str, address: str, fragment: Path | None) -> Disturber:
    if kind == "stuck":
        return Stuck(address)
    if kind == "reload":
        return Reload(address)
    if kind == "changed":
        return Reload(address, fragment)
    if kind in ("connects", "crowds"):
        return Connects(address, CROWD if kind == "crowds" else 1)
    peers, repeat, bulk = FLOODS[kind]
    return Flood(address, peers, repeat=repeat, bulk=bulk)


# How many, whether headers repeat, and whether many messages are sent at a time.
FLOODS = {
    "flood": (1, True, False),
    "flood in bulk": (1, True, True),
    "flood of new headers": (1, False, False),
    "eight floods": (FLOODERS, True, False),
    "eight floods of new headers": (FLOODERS, False, False),
    "eight floods in bulk": (FLOODERS, True, True),
}


def yield_core() -> None:
    """Whoever pings comes first on the core that we share, as soon as there is anything for it.

    Otherwise it would wait for us, which says nothing about the daemon.  SCHED_IDLE does that
    exactly, where a nice value only makes it likely.  Under `chrt` it is a lower priority.
    """
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    else:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    kind, address, *fragment = sys.argv[1:]
    yield_core()
    disturber = make(kind, address, Path(*fragment) if fragment else None)
    disturber.step()
    print("under way", flush=True)
    before, begun = disturber.done, time.perf_counter()
    end = select.poll()
    end.register(0, select.POLLIN | select.POLLHUP)
    while not end.poll(0):
        disturber.step()
    print((disturber.done - before) / (time.perf_counter() - begun))


if __name__ == "__main__":
    main()
