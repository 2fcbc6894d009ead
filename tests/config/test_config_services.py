"""Service files: what one says, and what a set of directories provides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.servicefiles import BROKEN, READ, SERVICE

from afdbus.config import memory, services
from afdbus.config.model import ServiceDirectory
from afdbus.config.services import MAX_FILE, PATIENCE, Service, ServiceFiles, parse
from afdbus.errors import ConfigError


@pytest.mark.parametrize(("content", "name"), READ)
def test_read(content: bytes, name: str) -> None:
    assert parse(content, "/f").name == name


@pytest.mark.parametrize("content", BROKEN)
def test_broken(content: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(content, "/f")
    assert caught.value.file == "/f"


def test_everything_a_file_can_say() -> None:
    content = b"[D-BUS Service]\nName=a.b\nExec=/c d\nUser=root\nSystemdService=x.service\n"
    content += b"AssumedAppArmorLabel=/l\nOther=1\n"
    assert parse(content, "/f") == Service("a.b", "/c d", "root", "x.service", "/l", "/f")
    assert parse(b"[D-BUS Service]\nName=a.b\nExec=/c", "/f") == (
        "a.b", "/c", None, None, None, "/f",
    )  # fmt: skip


def test_the_line_of_an_error_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(b"[D-BUS Service]\r\n\r\nName=a.b\rExec\n", "/f")
    assert str(caught.value) == "Error in file /f, line 4: No '=' in key/value pair"


@given(st.binary())
def test_any_bytes_are_a_service_or_an_error(content: bytes) -> None:
    for data in (content, SERVICE % b"a.b" + content, b"[D-BUS Service]\n" + content):
        try:
            service = parse(data, "/f")
        except ConfigError:
            continue
        assert "\0" not in service.name + service.exec


class Folder:
    """Directories `one` and `two`, read in this order, and what was warned of."""

    def __init__(self, path: Path, **flags: bool) -> None:
        self.paths = [path / "one", path / "two"]
        for folder in self.paths:
            folder.mkdir(exist_ok=True)
        self.warnings: list[str] = []
        self.files = ServiceFiles(self.warnings.append)
        self.directories = [ServiceDirectory(str(folder), **flags) for folder in self.paths]
        self.files.reload(self.directories)

    def write(self, name: str, file: str, command: str = "/c", folder: int = 0) -> Path:
        path = self.paths[folder] / file
        path.write_text(f"[D-BUS Service]\nName={name}\nExec={command}\n")
        return path

    def command(self, name: str) -> str | None:
        service = self.files.find(name)
        return None if service is None else service.exec


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_new_file_is_found_without_a_reload(folder: Folder) -> None:
    for number in range(20):
        assert folder.command(f"a.b{number}") is None
        folder.write(f"a.b{number}", f"{number}.service")
        assert folder.command(f"a.b{number}") == "/c"
    assert sorted(folder.files.names()) == sorted(f"a.b{number}" for number in range(20))


def test_what_is_changed_is_seen(folder: Folder) -> None:
    path = folder.write("a.b", "x.service")
    assert folder.command("a.b") == "/c"
    folder.write("a.b", "x.service", "/longer")
    assert folder.command("a.b") == "/longer"
    path.unlink()
    assert folder.command("a.b") is None


def test_the_first_directory_wins_as_long_as_it_provides_the_name(folder: Folder) -> None:
    folder.write("a.b", "x.service", "/second", folder=1)
    assert folder.command("a.b") == "/second"
    path = folder.write("a.b", "y.service", "/first")
    folder.files.reload(folder.directories)
    assert folder.command("a.b") == "/first"
    path.unlink()
    assert folder.command("a.b") == "/second"


def test_a_directory_may_come_later_or_not_at_all(tmp_path: Path) -> None:
    warnings: list[str] = []
    files = ServiceFiles(warnings.append)
    files.reload([ServiceDirectory(str(tmp_path / "none"))])
    assert files.find("a.b") is None
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.service").write_bytes(SERVICE % b"a.b")
    assert files.find("a.b") is not None
    assert not warnings


def test_names_that_nothing_provides_do_not_cost_a_walk_each(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = 0
    listdir = os.listdir

    def count(path: str) -> list[str]:
        nonlocal walks
        walks += 1
        return listdir(path)

    now = 1000.0
    monkeypatch.setattr(services.time, "monotonic", lambda: now)
    folder.write("a.b", "x.service")
    for path in folder.paths:
        os.utime(path, (1000, 1000))  # long ago: what is there now is all there was
    folder.files.reload(folder.directories)
    monkeypatch.setattr(services.os, "listdir", count)
    for number in range(1000):
        assert folder.command(f"a.c{number}") is None
    assert not walks
    now += PATIENCE
    assert folder.command("a.c") is None
    assert walks == len(folder.paths)


def test_a_broken_file_is_told_once(folder: Folder) -> None:
    path = folder.paths[0] / "x.service"
    path.write_text("nonsense")
    for _ in range(3):
        assert folder.command("a.b") is None
    assert folder.warnings == [
        f"Service file skipped: Error in file {path}, line 1: "
        "invalid service file: key=value before [Section]"
    ]
    folder.write("a.b", "x.service")
    assert folder.command("a.b") == "/c"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were parsed."""
    names: list[str] = []

    def noted(data: bytes, path: str) -> Service:
        names.append(os.path.basename(path))
        return parse(data, path)

    monkeypatch.setattr(services, "parse", noted)
    return names


def test_a_reload_parses_what_may_have_changed(
    folder: Folder, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a.b", "x.service")
    path = folder.write("a.c", "y.service")
    (folder.paths[1] / "z.service").write_text("nonsense")
    for _ in range(2):
        parsed.clear()
        folder.files.reload(folder.directories)
        assert sorted(parsed) == ["x.service", "y.service", "z.service"], "all were just written"
    # As if that had been a while ago.
    monkeypatch.setattr(memory, "RECENT", -3600.0)
    folder.files.reload(folder.directories)
    parsed.clear()
    folder.warnings.clear()
    folder.files.reload(folder.directories)
    assert parsed == ["z.service"]
    assert len(folder.warnings) == 1
    assert sorted(folder.files.names()) == ["a.b", "a.c"]
    status = path.stat()
    folder.write("a.c", "y.service", "/d")  # as long as before, and of the same time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    folder.files.reload(folder.directories)
    assert parsed == ["z.service", "y.service", "z.service"]
    assert folder.command("a.c") == "/d"
    (folder.paths[0] / "x.service").unlink()
    folder.files.reload(folder.directories[::-1])
    assert folder.files.names() == ["a.c"]


def test_a_directory_that_is_strict_from_now_on_is_read_anew(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "RECENT", -3600.0)
    folder.write("a.b", "x.service")
    for _ in range(2):
        folder.files.reload(folder.directories)
        assert folder.files.names() == ["a.b"]
    folder.files.reload([folder.directories[0]._replace(strict=True)])
    assert folder.files.names() == []


def test_strict_directories_want_files_called_after_their_names(tmp_path: Path) -> None:
    folder = Folder(tmp_path, strict=True)
    path = folder.write("a.b", "x.service")
    folder.write("a.c", "a.c.service")
    assert folder.command("a.b") is None
    assert folder.command("a.c") == "/c"
    assert folder.warnings == [
        f'Service file "{path}" should have been named "a.b.service": not loading it'
    ]


def test_what_is_no_readable_file_is_skipped(folder: Folder) -> None:
    os.mkfifo(folder.paths[0] / "pipe.service")
    (folder.paths[0] / "folder.service").mkdir()
    (folder.paths[0] / "nowhere.service").symlink_to("/nonexistent")
    folder.write("a.c", "a.c.txt")
    folder.write("a.b", "x.service")
    assert folder.command("a.b") == "/c"
    assert folder.files.names() == ["a.b"]


@pytest.mark.parametrize(("size", "found"), [(MAX_FILE, True), (MAX_FILE + 1, False)])
def test_size(folder: Folder, size: int, found: bool) -> None:
    content = SERVICE % b"a.b"
    content += b"#" * (size - len(content))
    (folder.paths[0] / "x.service").write_bytes(content)
    assert (folder.command("a.b") is not None) is found
