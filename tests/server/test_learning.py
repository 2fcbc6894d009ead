"""`--permissive` and `--learn` of a running daemon, and the file that is written."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import Daemon, RawClient, busconfig, peer_call
from kit.journal import FakeJournal
from kit.waiting import until

from afdbus.bus.learned import ABOUT
from afdbus.errors import ConfigError
from afdbus.host.users import Users
from afdbus.policy.rules import OwnRule
from afdbus.server.learning import Lessons

CLOSED = """
  <policy context="default">
    <allow own="com.example.Free"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow receive_sender="org.freedesktop.DBus"/>
  </policy>"""

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")


# -- the file


def own(name: str) -> OwnRule:
    return OwnRule(True, name)


def test_it_is_written_when_there_is_more(tmp_path: Path) -> None:
    path = tmp_path / "learned.conf"
    lessons = Lessons(str(path))
    users, journal = Users(), FakeJournal()
    lessons.write(users, journal)
    assert ABOUT in path.read_text()
    first = path.stat().st_ino
    lessons.write(users, journal)
    assert path.stat().st_ino == first
    lessons.learned.note(0, own("a.b"), 0)
    lessons.write(users, journal)
    assert '<policy user="root">\n    <allow own="a.b"/>' in path.read_text()
    assert path.stat().st_ino != first
    assert os.listdir(tmp_path) == ["learned.conf"]
    assert not journal.lines


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "learned.conf"
    lessons = Lessons(str(path))
    lessons.learned.note(0, own("a.b"), 0)
    lessons.learned.note(None, own("c.d"), 0)
    lessons.write(Users(), FakeJournal())
    text = path.read_text()
    again = Lessons(str(path))
    again.write(Users(), FakeJournal())
    assert path.read_text() == text
    again.learned.note(0, own("e.f"), 0)
    again.write(Users(), FakeJournal())
    assert all(name in path.read_text() for name in ("a.b", "c.d", "e.f"))


@pytest.mark.parametrize("content", [b"root:x:0:0\n", b"\xff", b"<busconfig/>", None])
def test_somebody_else_s_file_is_not_overwritten(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError):
        Lessons(str(path))


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "learned.conf.new").symlink_to("victim")
    lessons = Lessons(str(tmp_path / "learned.conf"))
    lessons.write(Users(), FakeJournal())
    assert (tmp_path / "victim").read_text() == "precious"
    assert ABOUT in (tmp_path / "learned.conf").read_text()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    lessons = Lessons(str(tmp_path / "later/learned.conf"))
    journal = FakeJournal()
    for _ in range(3):
        lessons.write(Users(), journal)
    assert len(journal.lines) == 1
    assert journal.lines[0].endswith('later/learned.conf": No such file or directory')
    (tmp_path / "later").mkdir()
    lessons.write(Users(), journal)
    assert (tmp_path / "later/learned.conf").is_file()


# -- the daemon


@pytest.fixture
def trial() -> Iterator[Callable[..., Daemon]]:
    running: list[Daemon] = []

    def begin(*arguments: str, **rest: str) -> Daemon:
        running.append(Daemon("afdbus", busconfig(**{"policy": CLOSED} | rest), [*arguments]))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for daemon in running:
        daemon.stop()


def talk(alice: RawClient, bob: RawClient) -> None:
    """What the policy denies."""
    alice.send(peer_call(bob.name, "Get"))
    assert alice.sync() == []
    assert [brief[:2] for brief in bob.briefs()] == [("call", "Get")]


def test_permissive(trial: Callable[..., Daemon]) -> None:
    daemon = trial("--permissive")
    talk(daemon.connect(), daemon.connect())
    daemon.until_logged("The policy is on trial", "Would deny send message", "[no rule fits]\n")


def test_learn_is_permissive_and_writes_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "learned.conf"
    with Daemon("afdbus", busconfig(policy=CLOSED), [f"--learn={file}"]) as daemon:
        alice, bob = daemon.connect(), daemon.connect()
        assert bob.own("com.example.Free") == 1
        talk(alice, bob)
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: 'send_member="Get"' in file.read_text(), daemon.log)
        assert bob.own("com.example.Denied") == 1
    text = file.read_text()
    for rule in (
        '<allow send_destination="com.example.Free" send_path="/com/example/Object" '
        'send_interface="com.example.Interface" send_member="Get" send_type="method_call"/>',
        '<allow own="com.example.Denied"/>',
    ):
        assert rule in text


def test_it_may_lie_where_it_is_read(trial: Callable[..., Daemon], tmp_path: Path) -> None:
    """Each lesson is a change, and a reload, after which there is nothing to be learned of it."""
    daemon = trial(
        f"--learn={tmp_path}/learned.conf",
        policy=f"{CLOSED}<includedir>{tmp_path}</includedir>",
    )
    alice, bob = daemon.connect(), daemon.connect()
    assert bob.own("com.example.Free") == 1
    talk(alice, bob)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: 'send_member="Get"' in (tmp_path / "learned.conf").read_text(), daemon.log)
    numbers = itertools.count()

    def allowed() -> bool:
        count = daemon.log().count("Would deny send message")
        talk(alice, bob)
        # What was denied is in the log when this is.
        name = f"com.example.Denied{next(numbers)}"
        bob.own(name)
        daemon.until_logged(f'service "{name}"')
        return daemon.log().count("Would deny send message") == count

    until(allowed, daemon.log)


@ROOT
def test_the_door_is_not_on_trial(trial: Callable[..., Daemon]) -> None:
    daemon = trial("--permissive")
    assert daemon.join(uid=65534).closed() == []
    daemon.until_logged("Rejected connection, 0 matched rules")


def test_a_file_that_is_not_ours_ends_the_start(tmp_path: Path) -> None:
    config = tmp_path / "bus.conf"
    config.write_text(busconfig(listen=f"unix:path={tmp_path}/bus"))
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "afdbus.daemon_cli",
            f"--config-file={config}",
            "--print-address",
            f"--learn={config}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert "was not written by --learn" in run.stderr
    assert run.stdout == ""
    assert "--learn" not in config.read_text()
