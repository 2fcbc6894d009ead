"""`afdbus shim`: what it puts there is the daemon, and nothing of others is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import RawClient, busconfig

from afdbus.cli import main


@pytest.fixture
def shim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["shim", str(tmp_path / "new" / "bin")]) == 0
    path = Path(capsys.readouterr().out.rstrip("\n"))
    assert path == tmp_path / "new" / "bin" / "dbus-daemon"
    return path


def test_what_finds_it_in_path_starts_ours(shim: Path, tmp_path: Path) -> None:
    """As python-dbusmock: the pid that is printed is the one of the process that it started."""
    config = tmp_path / "bus.conf"
    config.write_text(busconfig(listen=f"unix:abstract={tmp_path}"))
    # in whose modules nothing of ours may be looked for
    (tmp_path / "socket.py").write_text("raise SystemExit('the wrong module')\n")
    environment = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--print-pid=1", "--print-address=1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().rstrip("\n")
            assert process.stdout.readline() == f"{process.pid}\n"
            with RawClient(address) as client:
                client.authenticate()
                client.hello()
                assert client.bus("GetConnectionUnixProcessID", "s", "org.freedesktop.DBus").args
        finally:
            process.terminate()
    assert process.returncode == 0


def test_arguments_reach_it_as_they_are(shim: Path) -> None:
    told = subprocess.run(
        [shim, "--config-file=a b'\"$c"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert "a b'\"$c" in told.stderr


def test_an_earlier_one_is_replaced(
    shim: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/some where/python")
    assert main(["shim", str(shim.parent)]) == 0
    assert "exec '/some where/python' -P -m afdbus.daemon_cli \"$@\"\n" in shim.read_text()
    assert os.access(shim, os.X_OK)
    assert [path.name for path in shim.parent.iterdir()] == ["dbus-daemon"]


@pytest.mark.parametrize("what", ["file", "link", "directory"])
def test_what_is_not_ours_stays(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dbus-daemon"
    if what == "file":
        path.write_text("somebody's")
    elif what == "link":
        path.symlink_to("/no/where")
    else:
        path.mkdir()
    before = os.lstat(path)
    assert main(["shim", str(tmp_path)]) == 1
    assert os.lstat(path).st_ino == before.st_ino
    assert capsys.readouterr().err == f"afdbus: {path}: is there already, and not ours\n"
    assert [path.name for path in tmp_path.iterdir()] == ["dbus-daemon"]


def test_where_nothing_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shim", "/proc/self"]) == 1
    assert capsys.readouterr().err.startswith("afdbus: /proc/")
