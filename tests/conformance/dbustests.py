"""The reference's compiled tests, as Debian's package dbus-tests installs them: found and played.

Each case runs in a process of its own with directories of its own, so one that hangs or aborts
takes no other along.  The programs start the daemon that `DBUS_TEST_DAEMON` names.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kit.client import TIMEOUT
from kit.daemon import DAEMONS, group_alive

PLACES = [
    Path(prefix, "installed-tests/dbus")
    for prefix in ("/usr/lib/dbus-1.0", "/usr/libexec", "/usr/lib")
]
TESTS = next((place for place in PLACES if place.is_dir()), None)

LIMIT = 300.0
"""Seconds that a case may take.  Nothing is measured by it: it turns a hang into a failure."""

PATIENCE = "10"
"""The programs have time limits of their own; these are multiplied by it."""

TAP = re.compile(
    r"(?P<no>not )?ok (?:\d+ )?(?:- )?(?P<name>[^#]*?)\s*(?:#\s*SKIP\b[\s-]*(?P<why>.*))?"
)


class Result(NamedTuple):
    """What became of a case: `status` is "ok", "not ok", "skip" or "died", `output` all it said."""

    status: str
    reason: str
    output: str


def list_cases(program: str) -> list[str]:
    """The names of a program's cases; none where dbus-tests is not installed."""
    if TESTS is None or not os.access(TESTS / program, os.X_OK):
        return []
    listed = subprocess.run(
        [TESTS / program, "-l"], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    return [line for line in listed.stdout.splitlines() if line.startswith("/")]


def read_tap(text: str) -> dict[str, tuple[str, str]]:
    """Name -> ("ok", "not ok" or "skip", reason) of all results in the output of a program."""
    results = {}
    for line in text.splitlines():
        found = TAP.fullmatch(line)
        if found is not None:
            status = "not ok" if found["no"] else "ok" if found["why"] is None else "skip"
            results[found["name"].partition(" - ")[0]] = status, found["why"] or ""
    return results


class Place:
    """Directories of one case, owned by the user as whom it runs, and its environment."""

    def __init__(self, kind: str, user: str | None = None) -> None:
        assert TESTS is not None
        self.user = None if user is None else pwd.getpwnam(user)
        who = self.user or pwd.getpwuid(os.geteuid())
        # not pytest's tmp_path: others must enter, and the paths of sockets are short
        self.root = Path(tempfile.mkdtemp(prefix="case-"))
        self.root.chmod(0o755)
        self.home, self.run_dir, self.tmp = (self.root / name for name in ("home", "run", "tmp"))
        for path in (self.home, self.run_dir, self.tmp):
            path.mkdir(0o700)
            os.chown(path, who.pw_uid, who.pw_gid)
        daemon = self.root / "dbus-daemon"
        daemon.write_text(f'#!/bin/sh\nexec {shlex.join(DAEMONS[kind])} "$@"\n')
        daemon.chmod(0o755)
        self.env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            "LC_ALL": "C.UTF-8",
            "SHELL": "/bin/sh",
            "USER": who.pw_name,
            "LOGNAME": who.pw_name,
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "XDG_RUNTIME_DIR": str(self.run_dir),
            "DBUS_TEST_DAEMON": str(daemon),
            "DBUS_TEST_EXEC": str(TESTS),
            "DBUS_TEST_DATA": str(TESTS / "data"),
            "DBUS_TEST_TIMEOUT_MULTIPLIER": PATIENCE,
            # never a bus of the machine
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.root}/none",
            # a bug of ours in one peer's turn ends the daemon, and so the case
            "AFDBUS_STRICT": "1",
        }

    def play(self, arguments: list[str], more: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a program to its end; answers its status and all that it and its daemons said."""
        rights = {}
        if self.user is not None:
            rights = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        with (self.root / "output").open("w+b") as output:
            process = subprocess.Popen(
                arguments,
                cwd=self.tmp,
                env={**self.env, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **rights,  # type: ignore[arg-type]
            )
            try:
                status = process.wait(LIMIT)
                # Its daemons were told to end, and are removing their sockets.
                deadline = time.monotonic() + TIMEOUT
                while group_alive(process.pid) and time.monotonic() < deadline:
                    os.sched_yield()
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            return status, output.read().decode(errors="replace")

    def close(self) -> None:
        shutil.rmtree(self.root)


def play_case(kind: str, program: str, case: str, user: str | None = None) -> Result:
    """One case of a program, with a daemon of that kind, as `user` (None: as we are)."""
    assert TESTS is not None
    place = Place(kind, user)
    try:
        status, output = place.play([str(TESTS / program), "--tap", "-p", case])
    finally:
        place.close()
    found, reason = read_tap(output).get(case, ("died", ""))
    if found == "ok" and status != 0:
        found = "died"
    return Result(found, reason or f"exit status {status}", output)
