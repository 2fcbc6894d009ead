"""What a daemon does for a round trip, in instructions: `python benchmarks/instructions.py`.

Seconds depend on the machine and on who else works there; the number of instructions hardly does.
So a test can have limits for it.  valgrind counts them, in user space only, and the load is one
thing at a time, so that a daemon cannot choose how to do it: how fast it is, nothing here tells.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import load
from client import Client, Receiver, Template
from daemon import COMMANDS, Daemon

from afdbus.wire.header import METHOD_CALL, METHOD_RETURN

# Instructions of afdbus for one of each, with CPython 3.11 of Debian 12 (amd64).  To renew them,
# run this program there, on a machine that is not very busy, and write down what it prints.
KNOWN = {
    "ping": 40_900,
    "batch": 1_047_000,
    "driver": 29_100,
    "bcast 10": 35_000,
    "connect": 452_000,
}
SLACK = 1.2  # it may take so many times as much

BATCH = 64
# A hiccup of the machine can only add, as a daemon that waits too long does something else: the
# least of so many counts.
TIMES = 3

Once = Callable[[], None]


def ping(address: str) -> Once:
    """A call and its reply."""
    source = load.Ping(address)
    return lambda: source.step(True)


def batch(address: str) -> Once:
    """Many calls in one write, then all replies in one."""
    caller, callee = Client(address), Client(address)
    callee.own(load.SERVICE)
    load.settle(caller, callee)
    call, reply = map(Template, load.call_and_reply(load.SERVICE, caller, load.EMPTY))
    calls, replies = Receiver(callee.sock, METHOD_CALL), Receiver(caller.sock, METHOD_RETURN)

    def once() -> None:
        caller.sock.sendall(call.many(caller.next_serials(BATCH)))
        serials = calls.serials()
        while len(serials) < BATCH:
            serials += calls.serials()
        callee.sock.sendall(reply.many(callee.next_serials(BATCH), serials))
        answered = 0
        while answered < BATCH:
            answered += replies.count()

    return once


def driver(address: str) -> Once:
    """A call of the driver, and its reply."""
    client = Client(address)

    def once() -> None:
        client.call("GetNameOwner", "s", client.name)

    return once


def broadcast(address: str) -> Once:
    """A signal to ten."""
    source = load.OneAtATime(address, 10)

    def once() -> None:
        source.step(True)
        while source.under_way:
            source.step(False)

    return once


def connect(address: str) -> Once:
    """A client comes and goes, and another one hears of both."""
    watcher = Client(address)
    watcher.call("AddMatch", "s", "member='NameOwnerChanged'")

    def hear_of(name: str) -> None:
        while name.encode() + b"\0" not in watcher.sock.recv(65536):
            pass  # somebody else, before

    def once() -> None:
        client = Client(address)
        hear_of(client.name)
        client.close()
        hear_of(client.name)

    return once


# what is done, and how often
SCENARIOS = {
    "ping": (ping, 200),
    "batch": (batch, 10),
    "driver": (driver, 200),
    "bcast 10": (broadcast, 100),
    "connect": (connect, 10),
}


class Counter:
    """A daemon whose instructions are counted.

    valgrind writes down the count whenever the daemon accepts a connection.  So somebody connects,
    and all that it had done before is known.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self._folder = folder
        self._read: set[str] = set()
        self._total = 0
        self.daemon = Daemon(
            kind,
            under=[
                "valgrind", "--tool=callgrind", "--dump-before=accept4", "--dump-line=no",
                f"--callgrind-out-file={folder}/count",
            ],
            PYTHONHASHSEED="0",  # else the same names are in other places each time
        )  # fmt: skip
        self.daemon.arrive()
        self._client = Client(self.daemon.address)

    def mark(self) -> int:
        """The instructions until about now."""
        Client(self.daemon.address).close()
        self._client.call("GetId")
        for name in set(os.listdir(self._folder)) - self._read:
            self._read.add(name)
            for line in Path(self._folder, name).read_text().splitlines():
                if line.startswith("summary:"):
                    self._total += int(line.split()[1])
        return self._total

    def of(self, once: Once, times: int) -> float:
        """The instructions for one of these.

        The difference of two lengths, as what a mark costs is in both.
        """
        for _ in range(times):
            once()
        found: dict[int, list[int]] = {times: [], 2 * times: []}
        for _ in range(TIMES):
            for length, counts in found.items():
                begun = self.mark()
                for _ in range(length):
                    once()
                counts.append(self.mark() - begun)
        return (min(found[2 * times]) - min(found[times])) / times


def count(kind: str) -> dict[str, float]:
    """The instructions of a daemon for one of each scenario."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        counter = Counter(kind, Path(folder))
        with counter.daemon as daemon:
            return {
                name: counter.of(make(daemon.address), times)
                for name, (make, times) in SCENARIOS.items()
            }


def table(counts: dict[str, dict[str, float]]) -> str:
    """What was counted, what is known of ours, and how many times dbus-daemon's ours are."""
    lines = [["scenario", *counts, "known", "ratio"], ["---", *["---:"] * (len(counts) + 2)]]
    for name, known in KNOWN.items():
        figures = [found[name] for found in counts.values()]
        ratio = "-"
        if len(counts) == 2:
            ratio = f"{counts['afdbus'][name] / counts['dbus-daemon'][name]:.2f}"
        lines.append([name, *(f"{figure:.0f}" for figure in figures), str(known), ratio])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--daemon", choices=COMMANDS, help="only this one")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    installed = [kind for kind, command in COMMANDS.items() if shutil.which(command[0])]
    counts = {kind: count(kind) for kind in ([options.daemon] if options.daemon else installed)}
    print(table(counts))
    ours = counts.get("afdbus", {})
    beyond = [name for name, found in ours.items() if found > SLACK * KNOWN[name]]
    for name in beyond:
        print(f"{name}: {ours[name] / KNOWN[name]:.2f} times what is known, {SLACK} are allowed")
    return int(bool(beyond))


if __name__ == "__main__":
    sys.exit(main())
