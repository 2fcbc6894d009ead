"""Does a daemon stay as it was, under mixed load, for as long as one likes?

Rounds of mixed load: calls and their answers, signals to many, descriptors, clients that come and
go, clients and services that are killed, services that are started.  Every message carries a
number, so that one that is lost, doubled or out of order is seen.  After each round the daemon must
have as many descriptors as before it.  Its memory is looked at in windows of a minute: the first is
for warming up, the median of the second is the level, and no later median may be further above it
than `--growth` says.

The load is bounded: nothing is sent before what was sent has come, and between rounds everybody
sleeps until all of it, the daemon's part included, was `--share` of one core.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from client import MAX_MESSAGE, Client
from daemon import COMMANDS, Daemon

from afdbus.wire.decode import decode
from afdbus.wire.encode import encode
from afdbus.wire.header import METHOD_CALL, METHOD_RETURN, SIGNAL, Header, frame_length, parse
from afdbus.wire.message import BUS_NAME, build

STARTED = "org.example.Started"
SERVICE = f"""[D-BUS Service]
Name={STARTED}
Exec={shutil.which("dbus-test-tool")} echo --session --name={STARTED}
"""
PATIENCE = 60.0  # seconds; more than a daemon needs that shares its core with others
SUBSCRIBERS = 8
SIZES = [0, 10, 100, 1000, 10_000, 100_000]
RARELY = 10  # rounds from one large message, killed process or started service to the next

Message = tuple[Header, bytes, list[int]]


class TroubleError(Exception):
    """The daemon has not done what it should."""


class Talker(Client):
    """A client that counts: what it gets of each sender must be numbered 1, 2, 3 ..."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.sock.settimeout(PATIENCE)
        self.call("GetId")  # with NameAcquired before it
        self._came: list[int] = []
        self._last: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def say(
        self, type_: int, to: str | None = None, *, size: int = 0, reply_to: int = 0,
        fds: list[int] | None = None,
    ) -> int:  # fmt: skip
        """Send the next message to that name, or to all (""); answers its serial."""
        number = self._sent[to or ""] = self._sent.get(to or "", 0) + 1
        serial = self.next_serials(1)[0]
        named = type_ != METHOD_RETURN
        message = build(
            type_, serial, flags=0, path="/org/example/Soak" if named else None,
            interface="org.example.Soak" if named else None, member="Tell" if named else None,
            destination=to, sender=None, reply_serial=reply_to, signature="uay",
            body=encode("uay", number, bytes(size)), fds=len(fds or ()),
        )  # fmt: skip
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
            message = message[self.sock.sendmsg([message], rights) :]
        self.sock.sendall(message)
        return serial

    def read(self) -> Message:
        """The next message; the descriptors are the caller's."""
        while len(self._rest) < 16:
            self._fill()
        body, end = frame_length(self._rest, 0, MAX_MESSAGE)
        while len(self._rest) < end:
            self._fill()
        header = parse(self._rest, 0, body)
        content, self._rest = self._rest[body:end], self._rest[end:]
        fds, self._came = self._came[: header.unix_fds], self._came[header.unix_fds :]
        return header, content, fds

    def _fill(self) -> None:
        data, ancillary, _, _ = self.sock.recvmsg(1 << 20, 4096, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise TroubleError(f"the daemon has closed the connection of {self.name}")
        for _, _, packed in ancillary:
            self._came += array("i", packed)
        self._rest += data

    def expect(self, type_: int, sender: str = "", size: int = 0) -> Message:
        """The next message, which must be its sender's next one to all, or to us."""
        header, content, fds = message = self.read()
        if header.type != type_ or (sender or header.sender) != header.sender:
            raise TroubleError(f"{header.type} of {header.sender} instead of {type_} of {sender}")
        number, filling = decode("uay", header.little, content, 0, len(content))
        stream = f"{header.sender} to {'all' if header.destination is None else 'us'}"
        expected = self._last.get(stream, 0) + 1
        if number != expected or len(fds) != header.unix_fds:
            raise TroubleError(
                f"message {number} from {stream}, with {len(fds)} fds, not {expected}"
            )
        if sender and len(filling) != size:
            raise TroubleError(f"{len(filling)} bytes from {stream} instead of {size}")
        self._last[stream] = number
        return message

    def expect_owner(self, name: str, old: str, new: str | None) -> str:
        """The next message, which must tell of this change; answers the new owner (None: any)."""
        header, content, _ = self.read()
        told = decode("sss", header.little, content, 0, len(content))
        if header.sender != BUS_NAME or told != (name, old, told[2] if new is None else new):
            raise TroubleError(f"{header.member}{told} instead of NameOwnerChanged{name, old, new}")
        return str(told[2])


class Soak:
    """The clients that stay, and what they do in a round."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.messages = 0
        self.caller = Talker(daemon.address)
        self.callee = Talker(daemon.address)
        self.watcher = Talker(daemon.address)
        self.crowd = [Talker(daemon.address) for _ in range(SUBSCRIBERS)]
        for member in self.crowd:
            member.call("AddMatch", "s", "type='signal',interface='org.example.Soak'")
        self.watcher.call("AddMatch", "s", "member='NameOwnerChanged',arg0namespace='org.example'")
        self.environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": daemon.address}

    def settle(self, descriptors: int) -> None:
        """Wait until the daemon has as many descriptors as that."""
        end = time.monotonic() + PATIENCE
        while (now := self.daemon.descriptors()) != descriptors:
            if time.monotonic() > end:
                raise TroubleError(f"{now} descriptors and not {descriptors}")
            self.caller.call("GetId")
            time.sleep(0.01)

    def round(self, number: int) -> None:
        rarely = number % RARELY == 0
        self.calls(rarely)
        self.signals()
        self.pass_descriptors()
        self.come_and_go()
        if rarely:
            self.kill()
            self.start()
            self.run("spam", f"--dest={self.callee.name}", "--no-reply", "--count=100")
            for _ in range(100):
                self.callee.read()
            self.messages += 100

    def calls(self, rarely: bool) -> None:
        sizes = SIZES * 5 + [5_000_000] * rarely
        serials = [self.caller.say(METHOD_CALL, self.callee.name, size=size) for size in sizes]
        for serial, size in zip(serials, sizes, strict=True):
            self.callee.expect(METHOD_CALL, self.caller.name, size)
            self.callee.say(METHOD_RETURN, self.caller.name, reply_to=serial, size=size)
        for serial, size in zip(serials, sizes, strict=True):
            header, _, _ = self.caller.expect(METHOD_RETURN, self.callee.name, size)
            if header.reply_serial != serial:
                raise TroubleError(f"an answer to {header.reply_serial} instead of {serial}")
        self.messages += 2 * len(sizes)

    def signals(self) -> None:
        for size in SIZES:
            self.caller.say(SIGNAL, size=size)
            self.callee.say(SIGNAL, size=size)
        for member in self.crowd:
            for _ in range(2 * len(SIZES)):
                member.expect(SIGNAL)
        self.messages += 2 * len(SIZES) * len(self.crowd)

    def pass_descriptors(self) -> None:
        for count in (1, 2, 16):
            fds = [os.memfd_create(f"soak-{number}") for number in range(count)]
            for number, fd in enumerate(fds):
                os.write(fd, b"%d" % number)
            self.caller.say(SIGNAL, self.callee.name, fds=fds)
            _, _, came = self.callee.expect(SIGNAL, self.caller.name)
            marks = [int(os.pread(fd, 20, 0)) for fd in came]
            for fd in fds + came:
                os.close(fd)
            if marks != list(range(count)):
                raise TroubleError(f"descriptors {marks} instead of {count}")
        self.messages += 3

    def come_and_go(self) -> None:
        for number in range(5):
            client = Talker(self.daemon.address)
            client.call("AddMatch", "s", f"member='M{number}',arg0='{client.name}'")
            client.own("org.example.Guest")
            self.watcher.expect_owner("org.example.Guest", "", client.name)
            # with a call that is not answered, and one that it will never read
            client.say(METHOD_CALL, self.callee.name)
            self.callee.expect(METHOD_CALL, client.name)
            self.callee.say(SIGNAL, client.name, size=100_000)
            self.callee.call("GetId")
            client.close()
            self.watcher.expect_owner("org.example.Guest", client.name, "")
            self.messages += 5

    def kill(self) -> None:
        """A process with a name and a queue of messages."""
        process = subprocess.Popen(
            ["dbus-test-tool", "black-hole", "--no-read", "--name=org.example.Hole"],
            env=self.environment,
        )
        owner = self.watcher.expect_owner("org.example.Hole", "", None)
        for _ in range(20):
            self.caller.say(SIGNAL, owner, size=100_000)
        self.caller.call("GetId")
        process.kill()
        process.wait()
        self.watcher.expect_owner("org.example.Hole", owner, "")
        self.messages += 20

    def start(self) -> None:
        """A service, by a call; it is killed again."""
        self.run("spam", f"--dest={STARTED}", "--count=50", "--queue=10")
        owner = self.watcher.expect_owner(STARTED, "", None)
        data, begin, end = self.caller.call("GetConnectionUnixProcessID", "s", STARTED)
        os.kill(decode("u", True, data, begin, end)[0], signal.SIGKILL)
        self.watcher.expect_owner(STARTED, owner, "")
        self.messages += 100

    def run(self, *arguments: str) -> None:
        """dbus-test-tool, to a good end."""
        subprocess.run(
            ["dbus-test-tool", *arguments], env=self.environment, check=True, timeout=PATIENCE
        )


def cpu(daemon: Daemon) -> float:
    """Seconds that we, our processes that have ended and the daemon have used."""
    used = daemon.cpu()
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        used += usage.ru_utime + usage.ru_stime
    return used


def window_of(options: argparse.Namespace, number: int, seconds: float) -> int | None:
    """Which window a round belongs to; None when it is time to end."""
    if options.rounds is not None:
        return number * 3 // options.rounds if number < options.rounds else None
    return int(seconds // 60) if seconds < options.minutes * 60 else None


def soak(options: argparse.Namespace, daemon: Daemon) -> list[float]:
    """Run all rounds; answers the median memory of each window, in KiB.  Raises TroubleError."""
    daemon.arrive()
    load = Soak(daemon)
    descriptors = daemon.descriptors()
    windows: list[list[int]] = []
    number = 0
    begun = time.monotonic()
    while (window := window_of(options, number, time.monotonic() - begun)) is not None:
        if window >= len(windows):
            if windows:
                report(window, number, load, windows[-1])
            windows.append([])
        start, used = time.monotonic(), cpu(daemon)
        load.round(number)
        load.settle(descriptors)
        windows[-1].append(daemon.memory() // 1024)
        number += 1
        pause = (cpu(daemon) - used) / options.share - (time.monotonic() - start)
        if pause > 0:
            time.sleep(pause)
    report(len(windows), number, load, windows[-1])
    print(f"daemon: {daemon.cpu():.1f} s of CPU time in {time.monotonic() - begun:.0f} s")
    return [statistics.median(window) for window in windows]


def report(window: int, rounds: int, load: Soak, memory: list[int]) -> None:
    print(
        f"window {window}: {rounds} rounds, {load.messages} messages, "
        f"{load.daemon.descriptors()} fds, {min(memory)} to {max(memory)} KiB, "
        f"median {statistics.median(memory):.0f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--daemon", choices=COMMANDS, default="afdbus")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rounds", type=int, help="so many instead, in three windows")
    parser.add_argument("--share", type=float, default=0.3, help="of one core (0.3)")
    parser.add_argument("--growth", type=float, default=5, help="of memory, in percent (5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        services = Path(home, "dbus-1", "services")
        services.mkdir(parents=True)
        (services / f"{STARTED}.service").write_text(SERVICE)
        with Daemon(options.daemon, XDG_DATA_HOME=home) as daemon:
            try:
                medians = soak(options, daemon)
            except (TroubleError, OSError, subprocess.SubprocessError) as trouble:
                print(f"{type(trouble).__name__}: {trouble}")
                return 1
    if len(medians) < 3:
        print("too short to say anything about memory")
        return 0
    level, highest = medians[1], max(medians[2:])
    growth = 100 * (highest / level - 1)
    print(f"memory: {level:.0f} KiB in window 2, then at most {highest:.0f}: {growth:+.1f} %")
    return int(growth > options.growth)


if __name__ == "__main__":
    sys.exit(main())
