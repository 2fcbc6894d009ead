"""What causes a reload, and what does not: real files and a real inotify, the clock turned by hand.

The kernel queues an event before the call that caused it returns, so nothing is waited for.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
from kit.journal import FakeJournal

from afdbus.config.model import Sources
from afdbus.host import inotify
from afdbus.host.inotify import Inotify
from afdbus.server.timers import Timers
from afdbus.server.watch import REST, SETTLE, Watch


class FakeLoop:
    """Descriptors and timers; `turn` does what is to be done and turns the clock until all is."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers = Timers(lambda: self.now)
        self.handlers: dict[int, Callable[[int], None]] = {}

    def register(self, fd: int, handler: Callable[[int], None]) -> None:
        self.handlers[fd] = handler

    def unregister(self, fd: int) -> None:
        del self.handlers[fd]

    def look(self) -> None:
        for fd, handler in list(self.handlers.items()):
            if select.select([fd], [], [], 0)[0]:
                handler(select.EPOLLIN)

    def turn(self) -> None:
        self.look()
        while self.timers.soonest != inf:
            self.now = max(self.now, self.timers.soonest)
            for deed in self.timers.due():
                deed()
            self.look()


class Scene:
    """A folder with a configuration, and who watches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = FakeLoop()
        self.journal = FakeJournal()
        self.files = ["etc/bus.conf", "etc/more.conf"]
        self.directories = ["etc/bus.d", "etc/none/bus.d"]
        self.reloads = 0
        self.takes = 0.0
        for name in ("etc/bus.d", "etc/other", "elsewhere/bus.d"):
            (folder / name).mkdir(parents=True)
        for name in (*self.files, "etc/bus.d/a.conf", "etc/neighbour", "elsewhere/a.conf"):
            (folder / name).write_text("1")
        self.watch = Watch(self.loop, self.journal, self.reload)  # type: ignore[arg-type]

    def path(self, name: str) -> Path:
        return self.folder / name

    def sources(self) -> Sources:
        sources = Sources()
        sources.files = dict.fromkeys(str(self.folder / name) for name in self.files)
        sources.directories = dict.fromkeys(str(self.folder / name) for name in self.directories)
        return sources

    def follow(self) -> None:
        """As at the start; what was changed before does not count."""
        sources = self.sources()
        sources.begun = inf
        self.watch.follow(sources)
        self.watch.begin()
        self.loop.turn()
        assert self.reloads == 0

    def reload(self) -> None:
        """As the daemon does it."""
        self.reloads += 1
        self.watch.reading()
        sources = self.sources()
        sources.begun = inf
        for name in self.files:
            if self.path(name).is_file():
                self.path(name).read_text()
        for name in self.directories:
            if self.path(name).is_dir():
                for path in self.path(name).iterdir():
                    path.is_file() and path.read_text()
        self.loop.now += self.takes
        self.watch.follow(sources)

    def noticed(self) -> bool:
        """Whether anything has caused a reload since the last question, and only one."""
        before, self.reloads = self.reloads, 0
        assert before == 0
        self.loop.turn()
        found, self.reloads = self.reloads, 0
        assert found <= 1
        return found == 1


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.watch.close()
    assert not made.loop.handlers


# -- one change


def _replace(path: Path, text: str = "2") -> None:
    path.with_name("new").write_text(text)
    path.with_name("new").rename(path)


def _link(path: Path, target: str) -> None:
    """Make the link anew under another name and put it there at once."""
    new = path.with_name("new")
    new.symlink_to(target)
    new.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is written in a folder": lambda at: (at / "etc/bus.d/b.conf").write_text("2"),
    "a file is overwritten in a folder": lambda at: (at / "etc/bus.d/a.conf").write_text("2"),
    "a file is replaced in a folder": lambda at: _replace(at / "etc/bus.d/a.conf"),
    "a file is moved in": lambda at: (at / "elsewhere/a.conf").rename(at / "etc/bus.d/b.conf"),
    "a file is moved out": lambda at: (at / "etc/bus.d/a.conf").rename(at / "elsewhere/b.conf"),
    "a file is removed": lambda at: (at / "etc/bus.d/a.conf").unlink(),
    "a symbolic link is made": lambda at: (at / "etc/bus.d/l.conf").symlink_to("a.conf"),
    "a second name is made": lambda at: os.link(at / "elsewhere/a.conf", at / "etc/bus.d/l.conf"),
    "the folder is moved": lambda at: (at / "etc/bus.d").rename(at / "etc/gone"),
    "a folder above it is replaced": lambda at: shutil.copytree(
        (at / "etc").rename(at / "gone"), at / "etc"
    ),
    "the first folder on the way is made": lambda at: (at / "etc/none").mkdir(),
    "all folders on the way are made": lambda at: (at / "etc/none/bus.d").mkdir(parents=True),
    "the folder is moved in whole": lambda at: (at / "elsewhere").rename(at / "etc/none"),
    "the file is overwritten": lambda at: (at / "etc/bus.conf").write_text("2"),
    "the file is replaced": lambda at: _replace(at / "etc/bus.conf"),
    "an included file is removed": lambda at: (at / "etc/more.conf").unlink(),
    "the file may be read by others": lambda at: (at / "etc/bus.conf").chmod(0o644),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_it_causes_a_reload(scene: Scene, what: str) -> None:
    (scene.path("etc/bus.conf")).chmod(0o600)
    scene.follow()
    CHANGES[what](scene.folder)
    assert scene.noticed()
    assert not scene.noticed()


NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "all is read": lambda at: [p.read_text() for p in at.rglob("*") if p.is_file()],
    "a neighbour of the file is written": lambda at: (at / "etc/neighbour").write_text("2"),
    "a neighbour of the folder is made": lambda at: (at / "etc/third").mkdir(),
    "a neighbour of the folder is removed": lambda at: (at / "etc/other").rmdir(),
    "a file is moved beside": lambda at: (at / "elsewhere/a.conf").rename(at / "etc/b.conf"),
    "a neighbour higher up is made": lambda at: (at / "third").mkdir(),
    "a folder is made": lambda at: (at / "etc/bus.d/sub").mkdir(),
    "something is changed elsewhere": lambda at: (at / "elsewhere/bus.d/a.conf").write_text("2"),
}


@pytest.mark.parametrize("what", NO_CHANGES)
def test_it_causes_none(scene: Scene, what: str) -> None:
    scene.follow()
    NO_CHANGES[what](scene.folder)
    assert not scene.noticed()


def test_a_file_counts_when_it_is_closed(scene: Scene) -> None:
    scene.follow()
    with scene.path("etc/bus.d/b.conf").open("w") as file:
        file.write("half of it")
        file.flush()
        assert not scene.noticed()
    assert scene.noticed()


# -- one after the other


def test_what_was_not_there_is_watched_as_soon_as_it_is(scene: Scene) -> None:
    scene.follow()
    scene.path("etc/none").mkdir()
    assert scene.noticed()
    scene.path("etc/none/other").mkdir()
    assert not scene.noticed()
    scene.path("etc/none/bus.d").mkdir()
    assert scene.noticed()
    scene.path("etc/none/bus.d/x.conf").write_text("2")
    assert scene.noticed()


def test_a_folder_that_is_removed_and_made_again(scene: Scene) -> None:
    scene.follow()
    for _ in range(3):
        scene.path("etc/bus.d/a.conf").unlink()
        scene.path("etc/bus.d").rmdir()
        assert scene.noticed()
        scene.path("etc/bus.d").mkdir()
        scene.path("etc/bus.d/a.conf").write_text("2")
        assert scene.noticed()
        scene.path("etc/bus.d/a.conf").write_text("3")
        assert scene.noticed()


def test_a_folder_that_is_removed_and_made_again_before_we_look(scene: Scene) -> None:
    scene.follow()
    scene.path("etc/bus.d/a.conf").unlink()
    scene.path("etc/bus.d").rmdir()
    scene.path("etc/bus.d").mkdir()
    assert scene.noticed()
    scene.path("etc/bus.d/a.conf").write_text("2")
    assert scene.noticed()


def test_a_folder_whose_place_is_taken_by_another(scene: Scene) -> None:
    scene.follow()
    scene.path("etc/bus.d").rename(scene.path("etc/old"))
    scene.path("elsewhere/bus.d").rename(scene.path("etc/bus.d"))
    assert scene.noticed()
    scene.path("etc/old/a.conf").write_text("2")
    assert not scene.noticed()
    scene.path("etc/bus.d/a.conf").write_text("2")
    assert scene.noticed()


def test_a_file_that_is_moved_away_and_written_anew(scene: Scene) -> None:
    """As some editors do."""
    scene.follow()
    scene.path("etc/bus.conf").rename(scene.path("etc/bus.conf~"))
    assert not scene.noticed()
    scene.path("etc/bus.conf~").write_text("2")
    assert not scene.noticed()
    scene.path("etc/bus.conf").write_text("2")
    assert scene.noticed()
    scene.path("etc/bus.conf").write_text("3")
    assert scene.noticed()


def test_a_file_that_is_removed_when_the_bus_runs(scene: Scene) -> None:
    """As some do who start one: nothing is to be read then."""
    scene.follow()
    scene.path("etc/bus.conf").unlink()
    assert not scene.noticed()
    scene.path("etc/bus.d/b.conf").write_text("2")
    assert not scene.noticed()
    scene.path("etc/bus.conf").write_text("2")
    assert scene.noticed()


def test_where_everybody_may_make_files_none_is_waited_for(scene: Scene) -> None:
    scene.path("etc").chmod(0o1777)
    scene.follow()
    scene.path("etc/none").mkdir()
    assert not scene.noticed()
    scene.path("etc/bus.d/b.conf").write_text("2")
    assert scene.noticed()
    # It is there by now, and was seen with the reload.
    scene.path("etc/none/bus.d").mkdir()
    assert scene.noticed()


def test_links_to_folders(scene: Scene) -> None:
    """Both what the link says and what it leads to, over more than one of them."""
    scene.directories = ["etc/link/bus.d"]
    scene.path("etc/link").symlink_to("../second")
    scene.path("second").symlink_to("elsewhere")
    scene.path("third/bus.d").mkdir(parents=True)
    scene.follow()
    scene.path("elsewhere/bus.d/a.conf").write_text("2")
    assert scene.noticed()
    _link(scene.path("second"), "third")
    assert scene.noticed()
    scene.path("elsewhere/bus.d/a.conf").write_text("3")
    assert not scene.noticed()
    scene.path("third/bus.d/a.conf").write_text("3")
    assert scene.noticed()
    _link(scene.path("etc/link"), str(scene.path("elsewhere")))
    assert scene.noticed()
    scene.path("elsewhere/bus.d/a.conf").write_text("4")
    assert scene.noticed()


def test_a_link_to_what_is_not_there(scene: Scene) -> None:
    scene.directories = ["etc/link"]
    scene.path("etc/link").symlink_to("../later/bus.d")
    scene.follow()
    scene.path("later").mkdir()
    assert scene.noticed()
    scene.path("later/bus.d").mkdir()
    assert scene.noticed()
    scene.path("later/bus.d/a.conf").write_text("2")
    assert scene.noticed()


def test_a_link_to_a_file_in_a_folder(scene: Scene) -> None:
    scene.path("etc/bus.d/a.conf").unlink()
    scene.path("etc/bus.d/a.conf").symlink_to("../../elsewhere/a.conf")
    scene.files.append("etc/bus.d/a.conf")
    scene.follow()
    scene.path("elsewhere/a.conf").write_text("2")
    assert scene.noticed()
    _replace(scene.path("elsewhere/a.conf"))
    assert scene.noticed()
    scene.path("elsewhere/a.conf").write_text("3")
    assert scene.noticed()


def test_links_in_a_circle(scene: Scene) -> None:
    scene.directories = ["etc/link/bus.d"]
    scene.path("etc/link").symlink_to("knot")
    scene.path("etc/knot").symlink_to("link")
    scene.follow()
    _link(scene.path("etc/knot"), "../elsewhere")
    assert scene.noticed()
    scene.path("elsewhere/bus.d/a.conf").write_text("2")
    assert scene.noticed()


def test_the_same_folder_by_two_ways(scene: Scene) -> None:
    scene.directories = ["etc/bus.d", "etc/link", "etc/bus.d/later", "etc/../etc/bus.d"]
    scene.path("etc/link").symlink_to("bus.d")
    scene.follow()
    scene.path("etc/bus.d/a.conf").write_text("2")
    assert scene.noticed()
    scene.path("etc/bus.d/later").mkdir()
    assert scene.noticed()
    scene.path("etc/bus.d/later/a.conf").write_text("2")
    assert scene.noticed()


def test_what_cannot_be_used_is_watched_besides_the_rest(scene: Scene) -> None:
    scene.follow()
    sources = Sources()
    sources.files = {str(scene.path("elsewhere/a.conf")): None}
    sources.begun = inf
    scene.watch.follow(sources, also=True)
    scene.path("elsewhere/a.conf").write_text("2")
    assert scene.noticed()
    # The reload was of use, and this file has no part in it any more.
    scene.path("elsewhere/a.conf").write_text("3")
    assert not scene.noticed()


# -- how often


def test_a_burst_is_one_reload(scene: Scene) -> None:
    scene.follow()
    for number in range(100):
        scene.path(f"etc/bus.d/{number}.conf").write_text("2")
        scene.loop.look()
    assert scene.noticed()


def test_reloads_leave_time_for_the_bus(scene: Scene) -> None:
    scene.follow()
    scene.takes = 3.0
    begun = scene.loop.now
    for _ in range(3):
        scene.path("etc/bus.d/a.conf").write_text("2")
        assert scene.noticed()
    # Each takes three seconds, and twelve are between two of them.
    assert scene.loop.now - begun == pytest.approx(SETTLE + 3 * 3 + 2 * REST * 3)


def test_what_is_read_anyway_is_not_read_twice(scene: Scene) -> None:
    """SIGHUP after a change, be it seen or not."""
    scene.follow()
    for seen in (True, False):
        scene.path("etc/bus.d/a.conf").write_text("2")
        if seen:
            scene.loop.look()
        scene.reload()
        scene.reloads = 0
        assert not scene.noticed()
        scene.path("etc/bus.d/a.conf").write_text("3")
        assert scene.noticed()


@pytest.mark.parametrize("changed", [True, False])
def test_what_has_changed_before_it_was_watched(scene: Scene, changed: bool) -> None:
    sources = scene.sources()
    if changed:
        scene.path("etc/bus.d/b.conf").write_text("2")
    else:
        sources.begun = inf
    scene.watch.follow(sources)
    scene.watch.begin()
    assert scene.noticed() == changed
    assert not scene.noticed()


def test_what_changes_all_the_time_is_looked_at_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody moves a folder on the way to and fro, whenever we look."""
    plan = Watch._plan

    def shaken(self: Watch) -> dict[str, set[str]]:
        found = plan(self)
        where, other = scene.path("etc/bus.d"), scene.path("etc/moved")
        if where.exists():
            where.rename(other)
        else:
            other.rename(where)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "_plan", shaken)
        sources = scene.sources()
        sources.begun = inf
        scene.watch.follow(sources)
        scene.watch.begin()
    assert scene.noticed()


# -- what may fail


def test_no_more_watches(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: Inotify, path: str, mask: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Inotify, "add", add)
    scene.follow()
    scene.reload()
    assert len(scene.journal.lines) == 1
    assert "No space left on device" in scene.journal.lines[0]


def test_no_more_instances(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Inotify) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "__init__", fail)
        scene.follow()
        scene.reload()
        assert scene.journal.lines == ["warning: Cannot initialize inotify: Too many open files"]
    scene.reload()
    scene.reloads = 0
    scene.path("etc/bus.d/a.conf").write_text("2")
    assert scene.noticed()


def test_a_folder_that_we_may_not_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told if it is one of those that count; on the way to them it is usual."""
    add = Inotify.add
    closed = {str(scene.path("etc/bus.d")), str(scene.path("etc"))}

    def refuse(self: Inotify, path: str, mask: int) -> int:
        if path in closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return add(self, path, mask)

    monkeypatch.setattr(Inotify, "add", refuse)
    scene.follow()
    assert scene.journal.lines == [
        f"warning: Cannot setup inotify for '{scene.path('etc/bus.d')}'; error 'Permission denied'"
    ]
    scene.path("etc/bus.conf").write_text("2")
    assert scene.noticed()


def test_when_events_were_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.follow()
    lost = [inotify.Event(-1, inotify.OVERFLOW, "")]
    monkeypatch.setattr(Inotify, "read", lambda self: lost and [lost.pop()])
    scene.path("etc/bus.d/a.conf").write_text("2")
    scene.loop.look()
    assert scene.noticed()
