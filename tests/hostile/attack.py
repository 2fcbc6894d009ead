"""What attackers and those who watch them share."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kit import Daemon, RawClient, busconfig, call
from kit.client import TIMEOUT
from kit.daemon import DAEMONS

DAEMONS_OF_ATTACKS = {
    "afdbus": DAEMONS["afdbus"],
    "watched": [sys.executable, str(Path(__file__).with_name("watched_daemon.py"))],
}

# As in session.conf.
GENEROUS = {
    "max_incoming_bytes": 10**9,
    "max_outgoing_bytes": 10**9,
    "max_message_size": 10**9,
    "max_completed_connections": 100000,
    "max_incomplete_connections": 10000,
    "max_connections_per_user": 100000,
    "max_names_per_connection": 50000,
    "max_match_rules_per_connection": 50000,
    "max_replies_per_connection": 50000,
}


class Victim(Daemon):
    """Our daemon, to be attacked.  `strict` off: it runs as it does for users."""

    def __init__(self, program: str = "afdbus", strict: bool = True, **limits: int) -> None:
        self.strict = strict
        super().__init__(program, busconfig(**{**GENEROUS, **limits}))  # type: ignore[arg-type]

    def environment(self) -> dict[str, str]:
        environment = super().environment()
        # the program of the tests imports the package from where they run
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
        if not self.strict:
            del environment["AFDBUS_STRICT"]
        return environment

    def status(self, key: str) -> int:
        """A number of /proc/PID/status."""
        self.arrive()
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def rss(self) -> int:
        """Resident memory, in KiB."""
        return self.status("VmRSS")

    def ticks(self) -> int:
        """CPU time used, in clock ticks."""
        self.arrive()
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Meanwhile the daemon does nothing, and afterwards it finds everything at once."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: self.state() == "T", "the daemon to stop")
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(what: Callable[[], bool], name: str, ask: Callable[[], object] = lambda: None) -> None:
    """Look until it is so; `ask` gives the daemon something to do in between."""
    deadline = time.monotonic() + TIMEOUT
    while not what():
        ask()
        assert time.monotonic() < deadline, f"waited in vain for {name}"


def windows(client: RawClient) -> tuple[int, int, int]:
    """Passes of the loop, bugs, violations of a watched daemon."""
    message = call("GetMachineId", interface="org.freedesktop.DBus.Peer")
    text = client.exchange(message)[-1].args[0]
    return int(text[:16]), int(text[16:24]), int(text[24:])


def stats(asking: RawClient, about: RawClient, key: str) -> int:
    """A number of Debug.Stats about a connection."""
    message = call(
        "GetConnectionStats", "s", about.name, path="/org/freedesktop/DBus",
        interface="org.freedesktop.DBus.Debug.Stats",
    )  # fmt: skip
    number: int = asking.exchange(message)[-1].args[0][key][1]
    return number


def push(client: RawClient, data: bytes) -> int:
    """As many bytes as the socket takes without waiting; answers how many."""
    sent = 0
    client.sock.setblocking(False)
    try:
        while sent < len(data):
            sent += client.sock.send(data[sent : sent + 65536])
    except BlockingIOError:
        pass
    finally:
        client.sock.settimeout(TIMEOUT)
    return sent


class Pusher(threading.Thread):
    """Sends bytes as fast as the bus takes them; `over` when all are sent or the bus has ended it.

    Not a daemon thread: `stop` ends it by shutting the socket.
    """

    def __init__(self, client: RawClient, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self.client = client
        self.pieces = pieces
        self.stopping = False
        self.start()

    @property
    def over(self) -> bool:
        return not self.is_alive()

    def run(self) -> None:
        try:
            for piece in self.pieces:
                if self.stopping:
                    return
                self.client.sock.sendall(piece)
        except OSError:
            return

    def stop(self) -> None:
        self.stopping = True
        try:
            self.client.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            assert self.stopping, "the bus was faster"
        self.join(TIMEOUT)
        assert not self.is_alive()


class Drainer(threading.Thread):
    """Reads and throws away what comes, so that its client never holds anybody up."""

    def __init__(self, client: RawClient) -> None:
        super().__init__()
        self.client = client
        self.bytes = 0
        self.start()

    def run(self) -> None:
        try:
            while data := self.client.sock.recv(1 << 20):
                self.bytes += len(data)
        except OSError:
            return

    def stop(self) -> None:
        try:
            self.client.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            assert self.bytes >= 0, "the bus was faster"
        self.join(TIMEOUT)
        assert not self.is_alive()
