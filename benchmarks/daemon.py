"""A daemon under load: started, looked at through /proc, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

COMMANDS = {
    "dbus-daemon": ["dbus-daemon"],
    "afdbus": [sys.executable, "-m", "afdbus.daemon_cli"],
}
# It starts no services and has no configuration but a policy: not everybody can compare with it.
BROKER = {"dbus-broker": [sys.executable, str(Path(__file__).with_name("broker.py"))]}
# Not buses for long.
_RELAY = [sys.executable, str(Path(__file__).with_name("relay.py"))]
RELAYS = {"relay": _RELAY, "least": [*_RELAY, "--least"]}


def installed() -> list[str]:
    """The daemons that can be started, dbus-broker as well."""
    others = [kind for kind in ("dbus-daemon", *BROKER) if shutil.which(kind)]
    return [*others, "afdbus"]


class Daemon:
    """A bus of its own: a session bus, unless a configuration says what it is.

    `started` is when it was executed and `told` when its address came, both in seconds of
    `time.perf_counter`.
    """

    def __init__(
        self,
        kind: str,
        config: Path | None = None,
        under: Sequence[str] = (),
        **variables: str,
    ) -> None:
        """Start it, with these variables besides ours, by a program `under` which it runs."""
        self.kind = kind
        which = "--session" if config is None else f"--config-file={config}"
        program = (COMMANDS | BROKER | RELAYS)[kind]
        command = [*under, *program, which, "--nofork", "--print-address=1"]
        environment = {key: value for key, value in os.environ.items() if key[:5] != "DBUS_"}
        environment |= variables
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()
        self.told = time.perf_counter()
        if not self.address:
            raise SystemExit(f"no address came from {' '.join(command)}")

    def descriptors(self, of: str = "") -> int:
        """How many it has open, those only whose name begins with `of`."""
        found = 0
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += os.readlink(path).startswith(of)
        return found

    def arrive(self) -> None:
        """Wait until it has all that it needs: ours serves before it comes to trio."""
        needed = 2 if self.kind in ("afdbus", *RELAYS) else 1
        while self.descriptors("anon_inode:[eventpoll]") < needed:
            if self._process.poll() is not None:
                raise SystemExit(f"{self.kind} has ended")
            time.sleep(0.01)

    def cpu(self) -> float:
        """Seconds of CPU time that the daemon has had, threads that have ended included.

        It is exact only while the daemon sleeps, so this waits a moment for it.
        """
        time.sleep(0.003)
        return time.clock_gettime((~self.pid << 3) | 2)  # as clock_getcpuclockid(3) makes it

    def memory(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("a process without memory")

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
