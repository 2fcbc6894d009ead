"""Where services are looked for, and who wins: the same on both daemons."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import BUS, Daemon, RawClient, busconfig, call

NAME = "com.example.Found"


class Bus(Daemon):
    """A daemon in an environment of its own: `XDG_RUNTIME_DIR` and the like by its caller."""

    def __init__(self, kind: str, more: str, **environment: str | None) -> None:
        self.variables = environment
        super().__init__(kind, busconfig(more))

    def environment(self) -> dict[str, str]:
        both = super().environment() | self.variables
        return {name: value for name, value in both.items() if value is not None}


class World:
    """Directories by their short names; in each lies, if wanted, a service that exits with a
    status of its own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.home = Path(tempfile.mkdtemp(prefix="dirs-"))
        self.folders = {
            "runtime": self.home / "run" / "dbus-1/services",
            "home": self.home / "home" / "dbus-1/services",
            "one": self.home / "one" / "dbus-1/services",
            "two": self.home / "two" / "dbus-1/services",
            "configured": self.home / "configured",
        }
        (self.home / "run").mkdir(mode=0o700)
        self.bus: Bus | None = None

    def start(self, more: str = "<standard_session_servicedirs/>", **rest: str | None) -> RawClient:
        given: dict[str, str | None] = {
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "XDG_DATA_HOME": str(self.home / "home"),
            "XDG_DATA_DIRS": f"{self.home}/one:{self.home}/two",
        }
        more = more.replace("CONFIGURED", str(self.folders["configured"]))
        self.bus = Bus(self.kind, more, **given | rest)
        return self.bus.connect()

    def provide(self, folder: str, name: str = NAME, file: str = "") -> Path:
        path = self.folders[folder] / (file or f"{name}.service")
        path.parent.mkdir(parents=True, exist_ok=True)
        status = list(self.folders).index(folder) + 1
        path.write_text(f"[D-BUS Service]\nName={name}\nExec=/bin/sh -c 'exit {status}'\n")
        return path

    def found(self, client: RawClient, name: str = NAME) -> str | None:
        """The short name of the directory whose file was taken."""
        assert client.exchange(call("ReloadConfig"))[-1].brief == ("return",)
        answer = client.exchange(call("StartServiceByName", "su", name, 0))[-1].brief
        if answer[1] == f"{BUS}.Error.ServiceUnknown":
            return None
        assert answer[2].startswith(f"Process {name} exited with status "), answer
        return list(self.folders)[int(answer[2].split()[-1]) - 1]

    def close(self) -> None:
        if self.bus is not None:
            self.bus.stop()
        shutil.rmtree(self.home)


@pytest.fixture
def make(kind: str) -> Iterator[Callable[[], World]]:
    worlds: list[World] = []

    def begin() -> World:
        worlds.append(World(kind))
        return worlds[-1]

    yield begin
    for world in worlds:
        world.close()


@pytest.fixture
def world(make: Callable[[], World]) -> World:
    return make()


def test_the_order_of_the_standard_directories(world: World) -> None:
    order = ["runtime", "home", "one", "two"]
    files = {folder: world.provide(folder) for folder in order}
    alice = world.start()
    for folder in order:
        assert world.found(alice) == folder
        files[folder].unlink()
    assert world.found(alice) is None


@pytest.mark.parametrize("first", [True, False])
def test_directories_count_in_the_order_of_the_configuration(world: World, first: bool) -> None:
    elements = ["<servicedir>CONFIGURED</servicedir>", "<standard_session_servicedirs/>"]
    for folder in ("configured", "home"):
        world.provide(folder)
    alice = world.start("".join(elements if first else elements[::-1]))
    assert world.found(alice) == ("configured" if first else "home")


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_DATA_DIRS"])
def test_variables_that_are_not_set(world: World, variable: str) -> None:
    order = {"XDG_RUNTIME_DIR": "runtime", "XDG_DATA_HOME": "home", "XDG_DATA_DIRS": "one"}
    files = {folder: world.provide(folder) for folder in order.values()}
    # HOME counts for nothing: it may be somebody else's
    local = world.home / ".local" / "share"
    local.mkdir(parents=True)
    (local / "dbus-1").symlink_to(world.folders["two"].parent)
    world.provide("two")
    alice = world.start(**{variable: None, "HOME": str(world.home)})
    left = [folder for name, folder in order.items() if name != variable]
    for folder in left:
        assert world.found(alice) == folder
        files[folder].unlink()
    assert world.found(alice) == (None if variable == "XDG_DATA_DIRS" else "two")


def test_transient_services_bear_their_names(world: World) -> None:
    """ACT7: no other file name counts there, and new ones are seen by a reload."""
    alice = world.start()
    for folder in ("runtime", "one"):
        world.provide(folder, file="x.service")
    assert world.found(alice) == "one"
    world.provide("runtime", "com.example.Other", f"{NAME}.service")
    assert world.found(alice) == "one"
    assert world.found(alice, "com.example.Other") is None
    world.provide("runtime")
    assert world.found(alice) == "runtime"


def test_the_transient_directory_is_made(world: World) -> None:
    world.start()
    for path in (world.folders["runtime"], world.folders["runtime"].parent):
        status = os.stat(path)
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == os.geteuid()


@pytest.mark.parametrize("which", ["run", "run/dbus-1", "run/dbus-1/services"])
@pytest.mark.parametrize(("mode", "used"), [(0o755, True), (0o775, False), (0o702, False)])
def test_a_transient_directory_that_others_may_write_to(
    world: World, which: str, mode: int, used: bool
) -> None:
    world.provide("runtime")
    world.provide("one")
    (world.home / which).chmod(mode)
    assert world.found(world.start()) == ("runtime" if used else "one")
    assert world.bus is not None
    told = f'"{world.home}/{which}" can be written by others (mode 040{mode:o})'
    if used:
        assert told not in world.bus.log()
    else:
        world.bus.until_logged(told)


def test_of_two_files_in_one_directory_one_counts(world: World) -> None:
    alice = world.start()
    files = [world.provide("one", file=f"{name}.service") for name in "abc"]
    assert world.found(alice) == "one"
    (names,) = alice.bus("ListActivatableNames").args
    assert names.count(NAME) == 1
    for file in files[:2]:
        file.unlink()
        assert world.found(alice) == "one"
    files[2].unlink()
    assert world.found(alice) is None
