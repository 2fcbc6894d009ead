"""A bus for each test: what it costs, beside a dbus-daemon for each: `python benchmarks/buses.py`.

A process makes 1000 buses; two clients on each call one another and hear one signal; every message
has to be where it belongs and nowhere else.  Before that, a bus is made for one client over and
over, in turn with a dbus-daemon that is started for one client.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from client import MAX_MESSAGE, Client
from daemon import Daemon

import afdbus
from afdbus.wire.decode import decode
from afdbus.wire.encode import encode
from afdbus.wire.header import METHOD_CALL, METHOD_RETURN, SIGNAL, Header, frame_length, parse
from afdbus.wire.message import build

NAME = "com.example.Echo"
# What a bus may cost: milliseconds, the ratio to dbus-daemon, KiB.
GOALS = {"ms": 2.0, "ratio": 0.5, "kib": 60.0}


def send(client: Client, type_: int, value: int, **fields: object) -> None:
    client.sock.sendall(
        build(
            type_, client.next_serials(1)[0], sender=None, signature="u", body=encode("u", value),
            **fields,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def receive(client: Client) -> tuple[Header, int]:
    """The next message of a peer, and the number in it; it must be the only one."""
    data = client.sock.recv(65536)
    head, end = frame_length(data, 0, MAX_MESSAGE)
    assert len(data) == end, "more came than there should be"
    header = parse(data, 0, head)
    assert header.signature == "u", "a message that nobody has sent here"
    return header, decode("u", header.little, data, head, end)[0]


def converse(address: str, number: int) -> list[Client]:
    """Two clients on one bus: a call, its answer, a signal; all about `number`."""
    alice, bob = Client(address), Client(address)
    assert (alice.name, bob.name) == (":1.0", ":1.1"), "not a bus of its own"
    bob.own(NAME)
    alice.call("AddMatch", "s", "type='signal',interface='com.example.Echo'")
    send(alice, METHOD_CALL, number, flags=0, path="/", member="Echo", destination=NAME)
    asked, value = receive(bob)
    assert value == number
    send(bob, METHOD_RETURN, value, reply_serial=alice.serial, destination=asked.sender)
    assert receive(alice)[1] == number
    send(bob, SIGNAL, number, path="/", interface="com.example.Echo", member="Said")
    assert receive(alice)[1] == number
    return [alice, bob]


def rss() -> int:
    """Resident memory of this process in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("a process without memory")


def serve() -> None:
    """The process with the many buses: for each number read it makes so many and tells."""
    with afdbus.ThreadHost() as host:
        host.create_bus()
        for line in sys.stdin:
            before = rss()
            made = [host.create_bus().address for _ in range(int(line))]
            print(json.dumps({"addresses": made, "kib": rss() - before}), flush=True)


def many(count: int) -> dict[str, float]:
    """`count` buses of another process with two clients each."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        begun = time.perf_counter()
        server.stdin.write(f"{count}\n")
        server.stdin.flush()
        made = json.loads(server.stdout.readline())
        took = time.perf_counter() - begun
        clients: list[Client] = []
        for number, address in enumerate(made["addresses"]):
            clients += converse(address, number)
        # Nothing else has come, to anybody.
        for client in clients:
            names = decode("as", True, *client.call("ListNames"))[0]
            assert sorted(names) == sorted([":1.0", ":1.1", NAME, "org.freedesktop.DBus"])
            client.sock.setblocking(False)
            try:
                assert not client.sock.recv(1), "a message from another bus"
                raise AssertionError("a bus has gone")
            except BlockingIOError:
                continue
        for client in clients:
            client.close()
        server.stdin.close()
    return {"buses": count, "made_ms": took * 1000 / count, "kib": made["kib"] / count}


def one_of_ours(host: afdbus.ThreadHost) -> float:
    begun = time.perf_counter()
    bus = host.create_bus()
    client = Client(bus.address)
    took = time.perf_counter() - begun
    client.close()
    bus.close()
    return took * 1000


def one_daemon() -> float:
    with Daemon("dbus-daemon") as daemon:
        client = Client(daemon.address)
        took = time.perf_counter() - daemon.started
        client.close()
    return took * 1000


def one_by_one(rounds: int) -> dict[str, float]:
    """Milliseconds until the first client's Hello is answered, ours and dbus-daemon's in turn."""
    ours, theirs, ratios = [], [], []
    with afdbus.ThreadHost() as host:
        one_of_ours(host)
        for _ in range(rounds):
            several = [one_of_ours(host) for _ in range(10)]
            ours += several
            if shutil.which("dbus-daemon"):
                theirs.append(one_daemon())
                ratios.append(statistics.median(several) / theirs[-1])
    found = {"ms": statistics.median(ours)}
    if theirs:
        found |= {"daemon_ms": statistics.median(theirs), "ratio": statistics.median(ratios)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="What a bus of one's own costs.")
    parser.add_argument("--buses", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30, help="dbus-daemons to start")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.serve:
        serve()
        return 0
    found = one_by_one(arguments.rounds) | many(arguments.buses)
    if arguments.json:
        print(json.dumps(found))
        return 0
    print(f"{found['buses']:.0f} buses in one process, two clients each: all answer, none is mixed")
    print(f"a bus until the first Hello is answered: {found['ms']:.2f} ms (goal {GOALS['ms']})")
    if "ratio" in found:
        print(f"a dbus-daemon until then: {found['daemon_ms']:.2f} ms")
        print(f"ratio: {found['ratio']:.3f} (goal {GOALS['ratio']})")
    print(f"memory of a bus: {found['kib']:.1f} KiB (goal {GOALS['kib']:.0f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
