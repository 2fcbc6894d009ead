"""What a configuration was read from is watched, and a change of it causes a reload.

dbus-daemon watches `<includedir>`s and service directories if they are there.  Here also the files
themselves are, and for what is not there the nearest directory that is.  A path is followed step by
step: in a directory where a step is missing or a symbolic link that one entry is watched, and of
the others only whether they are moved or removed.  No entry is watched where everybody may make
them, as in /tmp: strangers must not keep the bus awake.

Reading causes none of the events that are waited for, so a reload is not the cause of another.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING

from afdbus.host import inotify
from afdbus.host.inotify import Inotify

if TYPE_CHECKING:
    from afdbus.bus.ports import Journal
    from afdbus.config.model import Sources
    from afdbus.server.loop import Loop

# How long after a change is waited for more of it, in seconds, and for how many times the duration
# of a reload the next one has to wait: whoever may write there does not keep the bus from its work.
SETTLE = 0.05
REST = 4
# So often it is looked whether what was there a moment ago still is; then a reload comes later.
ROUNDS = 4
# As many symbolic links are followed as by Linux.
MAX_LINKS = 40

_SELF = inotify.DELETE_SELF | inotify.MOVE_SELF
_ENTRIES = inotify.CREATE | inotify.DELETE | inotify.MOVED_FROM | inotify.MOVED_TO
_GONE = _SELF | inotify.IGNORED | inotify.UNMOUNT

# Stands for all entries of a directory, and for a file itself; no entry can be called so.
ALL = "/"
# What to watch, by path: the names of entries.
_Plan = dict[str, set[str]]


class Watch:
    """Calls `changed` in the loop when a change of what `follow` was told has settled.

    Watching begins with `begin`, so that it need not be done before there is time for it; what was
    changed since the files were read counts.
    """

    def __init__(self, loop: Loop, journal: Journal, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._journal = journal
        self._changed = changed
        self._begun = False
        self._since = inf
        self._inotify: Inotify | None = None
        self._files: dict[str, None] = {}
        self._directories: dict[str, None] = {}
        # By the number of the watch: path, and names as in a plan.
        self._watched: dict[int, tuple[str, set[str]]] = {}
        self._complaints: set[str] = set()
        self._due: float | None = None
        self._rested = 0.0

    def reading(self) -> None:
        """Everything is about to be read: what has changed so far will be known by that."""
        self._due = None
        if self._inotify is not None:
            self._inotify.read()

    def follow(self, sources: Sources, *, also: bool = False) -> None:
        """Watch these from now on; `also`: besides what was watched before, since they were of no
        use as they are.  What has changed since their reading began counts."""
        if also:
            self._files.update(sources.files)
            self._directories.update(sources.directories)
        else:
            self._files = dict(sources.files)
            self._directories = dict(sources.directories)
        self._since = sources.begun
        if self._begun:
            self._arm()

    def begin(self) -> None:
        self._begun = True
        self._arm()

    def _arm(self) -> None:
        before = set(self._watched)
        if not self._open():
            return
        plan = self._plan()
        for _ in range(ROUNDS):
            self._apply(plan)
            again = self._plan()
            if again == plan:
                break
            plan = again
        else:
            self._schedule()
        if not before.issuperset(self._watched) and self._changed_late():
            self._schedule()

    def close(self) -> None:
        self._due = None
        if self._inotify is not None:
            self._loop.unregister(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    # -- what to watch -------------------------------------------------------------------------

    def _plan(self) -> _Plan:
        plan: _Plan = {}
        for path in self._directories:
            _add(plan, path)
        for path in self._files:
            if os.path.dirname(path) not in self._directories or os.path.islink(path):
                _add(plan, path)
        return plan

    def _open(self) -> bool:
        if self._inotify is None:
            try:
                self._inotify = Inotify()
            except OSError as error:
                self._complain(f"Cannot initialize inotify: {error.strerror}")
                return False
            self._loop.register(self._inotify.fd, self._look)
        return True

    def _apply(self, plan: _Plan) -> None:
        assert self._inotify is not None
        watched: dict[int, tuple[str, set[str]]] = {}
        for path, names in plan.items():
            try:
                number = self._inotify.add(path, _mask(path, names))
                if number in watched:
                    # The same thing by another way (a bind mount): whatever is wanted of it.
                    self._inotify.add(path, _mask(*watched[number]) | inotify.MASK_ADD)
                    names = names | watched[number][1]
                watched[number] = (path, names)
            except (FileNotFoundError, NotADirectoryError):
                continue  # this very moment; the plan will be another
            except PermissionError as error:
                if ALL in names:  # on the way there it is usual
                    self._complain(f"Cannot setup inotify for '{path}'; error '{error.strerror}'")
            except OSError as error:
                self._complain(f"Cannot setup inotify for '{path}'; error '{error.strerror}'")
                break  # there are no more to be had
        for number in self._watched.keys() - watched.keys():
            self._inotify.remove(number)
        self._watched = watched

    def _complain(self, text: str) -> None:
        """Warn, of the same thing once."""
        if text not in self._complaints:
            self._complaints.add(text)
            self._journal.warning(text)

    def _changed_late(self) -> bool:
        """Whether anything was changed before it was watched, and perhaps after it was read."""
        paths = (*self._files, *self._directories)
        return any(_changed_at(path) >= self._since for path in paths)

    # -- changes -------------------------------------------------------------------------------

    def _look(self, _event: int) -> None:
        assert self._inotify is not None
        # All of them in any case: none may be left to come again.
        changes = [event for event in self._inotify.read() if self._matters(event)]
        if changes:
            self._schedule()

    def _matters(self, event: inotify.Event) -> bool:
        if event.mask & inotify.OVERFLOW:
            return True
        watched = self._watched.get(event.watch)
        if watched is None:
            return False
        path, names = watched
        if event.mask & _GONE or event.name in names:
            return True
        if ALL not in names:
            return False
        if event.mask & inotify.CREATE:
            # What is being written is there when it is closed; a link is there at once.
            return _is_whole(os.path.join(path, event.name))
        return True

    def _schedule(self) -> None:
        if self._due is not None:
            return
        self._due = max(self._loop.timers.clock() + SETTLE, self._rested)
        self._loop.timers.call_at(self._due, self._fire)

    def _fire(self) -> None:
        clock = self._loop.timers.clock
        begun = clock()
        if self._due is None or begun < self._due:
            return  # something was read meanwhile
        self._due = None
        if not all(map(os.path.exists, list(self._files)[:1])):
            # The file itself was removed, as some do who have started a bus with it.  There is
            # nothing to be read; but it may come back.
            self._arm()
            return
        self._changed()
        self._rested = clock() + REST * (clock() - begun)


def _add(plan: _Plan, path: str) -> None:
    """Add to `plan` all that may change what `path` leads to."""
    for place, name in _steps(path):
        names = plan.setdefault(place, set())
        if name:
            names.add(name)


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """The directories on the way to `path`, each with the name of the entry that may be another
    one at any time, empty if there is none; at last what is there, with ALL."""
    place = "/"
    links = 0
    names = deque(path.split("/"))
    while names:
        name = names.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            place = os.path.dirname(place)
            continue
        found = os.path.join(place, name)
        try:
            mode = os.lstat(found).st_mode
        except OSError:
            yield place, _if_private(place, name)
            return
        if not stat.S_ISLNK(mode):
            yield place, ""
            place = found
            continue
        yield place, _if_private(place, name)
        links += 1
        try:
            target = os.readlink(found)
        except OSError:
            return  # gone this very moment
        if links > MAX_LINKS:
            return
        names.extendleft(reversed(target.split("/")))
        if target.startswith("/"):
            place = "/"
    yield place, ALL


def _if_private(place: str, name: str) -> str:
    """`name`, or nothing if everybody may make entries of the directory `place`."""
    try:
        return "" if os.stat(place).st_mode & stat.S_IWOTH else name
    except OSError:
        return name


def _mask(path: str, names: set[str]) -> int:
    if not names:
        return _SELF
    if ALL not in names:
        return _SELF | _ENTRIES
    if os.path.isdir(path):
        return _SELF | _ENTRIES | inotify.CLOSE_WRITE
    return _SELF | inotify.CLOSE_WRITE | inotify.ATTRIB


def _is_whole(path: str) -> bool:
    """Whether what was just made there is complete: a symbolic link, or a file's second name."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1)


def _changed_at(path: str) -> float:
    try:
        status = os.stat(path)
    except OSError:
        return 0.0
    return max(status.st_mtime, status.st_ctime)
