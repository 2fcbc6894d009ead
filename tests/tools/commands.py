"""The `afdbus` command as a program, and a bus whose policy is in many files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

from kit import Daemon, busconfig, call

from afdbus.tools import policy_command

ME = pwd.getpwuid(os.geteuid()).pw_name

# The rules of Debian's system.conf, without what concerns the machine.
MAIN = """
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <includedir>{directory}/system.d</includedir>"""

FILES = 40

# In each file the first line of <policy context="default"> is line 4.
SERVICE = """<busconfig>
  <!-- service {n:02} -->
  <policy user="{me}"><allow own="com.example.S{n:02}"/></policy>
  <policy context="default">
    <allow send_destination="com.example.S{n:02}"
           send_interface="com.example.I{n:02}"/>
    <deny send_destination="com.example.S{n:02}" send_interface="com.example.I{n:02}"
          send_member="Secret"/>
    <deny send_destination="com.example.S{n:02}" send_interface="com.example.I{n:02}"
          send_member="Hidden"/>
    <deny send_interface="com.example.Loud{n:02}" send_type="signal"/>
    <deny receive_sender="com.example.S{n:02}" receive_interface="com.example.Hush{n:02}"/>
    <deny receive_sender="com.example.S{n:02}" receive_interface="com.example.Hash{n:02}"/>
  </policy>
</busconfig>
"""


def afdbus(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "afdbus", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def explain(config: Path, *arguments: str) -> dict[str, Any]:
    """What `policy explain` says, as JSON; the exit status is compared with it.

    In this process, as there are many questions.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = policy_command.main(
            ["explain", "--config-file", str(config), "--json", *arguments]
        )
    answer: dict[str, Any] = json.loads(printed.getvalue())
    assert status == (0 if answer["allowed"] else 1)
    return answer


class Site:
    """A daemon with a main file and an `<includedir>` of forty files."""

    def __init__(self, kind: str, more: str = "") -> None:
        # It starts without the folder, whose name it decides.
        self.daemon = Daemon(kind, busconfig(policy=MAIN + more))
        try:
            self.folder = self.daemon.directory / "system.d"
            self.folder.mkdir(mode=0o755)
            for number in range(1, FILES + 1):
                self.write(f"s{number:02}.conf", SERVICE.format(n=number, me=ME))
            self.control = self.daemon.connect()
            self.reload()
        except BaseException:
            self.daemon.stop()
            raise

    def write(self, name: str, text: str) -> None:
        """All at once, for daemons that watch the folder."""
        part = self.folder / f"{name}.part"
        part.write_text(text)
        part.rename(self.folder / name)

    def reload(self) -> None:
        assert self.control.exchange(call("ReloadConfig"))[-1].brief == ("return",)

    def explain(self, *arguments: str) -> dict[str, Any]:
        return explain(self.daemon.config_file, *arguments)

    def apply(self, answer: dict[str, Any]) -> None:
        """Put the remedy where the answer says, and reload."""
        path = Path(answer["remedy_file"])
        assert path.parent == self.folder
        assert not path.exists()
        self.write(path.name, answer["remedy"])
        self.reload()
