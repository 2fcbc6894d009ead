"""Files are changed under a running daemon, which reads them again by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from kit import BUS, Daemon, RawClient, busconfig, call
from kit.daemon import OPEN_POLICY
from kit.waiting import until

DENY = "<busconfig><policy context='default'><deny own='com.example.{}'/></policy></busconfig>"
SERVICE = "[D-BUS Service]\nName=com.example.{}\nExec=/bin/false\n"


def may_own(client: RawClient, letter: str) -> bool:
    name = f"com.example.{letter}"
    brief = client.exchange(call("RequestName", "su", name, 0))[-1].brief
    if brief[0] == "return":
        client.exchange(call("ReleaseName", "s", name))
    return brief[0] == "return"


@pytest.fixture
def watching(start: Callable[..., Daemon]) -> Daemon:
    """With one folder of each kind that is there, and one that is not."""
    text = "".join(
        f"<{element}>{{directory}}/{name}</{element}>"
        for element in ("includedir", "servicedir")
        for name in (f"{element}s", f"none/{element}s")
    )
    daemon = start(f"{text}<include ignore_missing='yes'>{{directory}}/more.conf</include>")
    # The folders are made only now, so they are not watched before this.
    for name in ("includedirs", "servicedirs"):
        (daemon.directory / name).mkdir()
    assert daemon.connect().bus("ReloadConfig").brief == ("return",)
    return daemon


def test_a_policy_is_put_into_the_folder_and_taken_out(watching: Daemon) -> None:
    alice = watching.connect()
    assert may_own(alice, "A")
    path = watching.directory / "includedirs/a.conf"
    path.write_text(DENY.format("A"))
    until(lambda: not may_own(alice, "A"), watching.log)
    path.write_text(DENY.format("B"))
    until(lambda: may_own(alice, "A") and not may_own(alice, "B"), watching.log)
    path.unlink()
    until(lambda: may_own(alice, "B"), watching.log)


def test_a_service_is_installed(watching: Daemon) -> None:
    alice = watching.connect()
    alice.match(f"sender='{BUS}',member='ActivatableServicesChanged'")
    (watching.directory / "servicedirs/a.service").write_text(SERVICE.format("A"))
    assert alice.read().brief == ("signal", "ActivatableServicesChanged")
    assert "com.example.A" in alice.exchange(call("ListActivatableNames"))[-1].args[0]


def test_a_broken_file_is_told_and_the_rest_holds(watching: Daemon) -> None:
    alice = watching.connect()
    (watching.directory / "includedirs/a.conf").write_text(DENY.format("A"))
    until(lambda: not may_own(alice, "A"), watching.log)
    path = watching.directory / "includedirs/b.conf"
    path.write_text(DENY.format("B") + "<")
    until(lambda: f"while parsing '{path}'" in watching.log(), watching.log)
    assert not may_own(alice, "A")
    assert may_own(alice, "B")
    path.write_text(DENY.format("B"))
    until(lambda: not may_own(alice, "B"), watching.log)


# -- what dbus-daemon does not see


@pytest.fixture
def ours() -> Iterator[Daemon]:
    with Daemon("afdbus", busconfig("<includedir>{directory}/later/a.d</includedir>"
                                    "<include ignore_missing='yes'>more.conf</include>")
                ) as running:  # fmt: skip
        yield running


def test_folders_that_are_made_later(ours: Daemon) -> None:
    alice = ours.connect()
    folder = ours.directory / "later/a.d"
    for _ in range(2):
        folder.mkdir(parents=True)
        (folder / "a.conf").write_text(DENY.format("A"))
        until(lambda: not may_own(alice, "A"), ours.log)
        shutil.rmtree(folder.parent)
        until(lambda: may_own(alice, "A"), ours.log)


def test_the_file_itself_and_what_it_includes(ours: Daemon) -> None:
    alice = ours.connect()
    (ours.directory / "more.conf").write_text(DENY.format("A"))
    until(lambda: not may_own(alice, "A"), ours.log)
    (ours.directory / "more.conf").unlink()
    until(lambda: may_own(alice, "A"), ours.log)
    closed = busconfig(policy=OPEN_POLICY.replace('<allow own="*"/>', ""))
    text = closed.replace("{directory}", str(ours.directory))
    new = ours.directory / "new"
    new.write_text(text)
    new.rename(ours.config_file)
    until(lambda: not may_own(alice, "A"), ours.log)


def test_a_file_that_breaks_leaves_the_old_until_it_is_right(ours: Daemon) -> None:
    alice = ours.connect()
    text = ours.config_file.read_text()
    include = "<include>{}</include></busconfig>".format(ours.directory / "new.conf")
    (ours.directory / "new.conf").write_text("<busconfig><bees/></busconfig>")
    ours.config_file.write_text(text.replace("</busconfig>", include))
    ours_error = f"Unable to reload configuration: Error in file {ours.directory}/new.conf, line 1"
    until(lambda: ours_error in ours.log(), ours.log)
    assert may_own(alice, "A")
    # It has never been part of what holds, and is watched all the same.
    (ours.directory / "new.conf").write_text(DENY.format("A"))
    until(lambda: not may_own(alice, "A"), ours.log)
