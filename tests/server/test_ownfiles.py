"""Service files that are root's alone: which are, and which are not (P34, P40)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afdbus.errors import ConfigError
from afdbus.server import ownfiles

NAME = "com.example.Own"
NOBODY = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are root's")


def write(folder: Path, name: str = NAME, file: str = NAME) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{file}.service"
    path.write_text(f"[D-BUS Service]\nName={name}\nExec=/bin/{folder.name}\nUser=nobody\n")
    return path


def command(*folders: Path) -> str | None:
    service = ownfiles.find(NAME, [str(folder) for folder in folders])
    return None if service is None else service.exec


@root_only
def test_the_first_directory_that_has_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(two)
    assert command(one, two) == "/bin/two"
    write(one, "com.example.Other", "com.example.Other")
    assert command(one, two) == "/bin/two"
    write(one)
    assert command(one, two) == "/bin/one"
    assert command(tmp_path / "none") is None


@root_only
def test_links_between_what_is_roots_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / path.name).symlink_to(path)
    (tmp_path / "three").symlink_to(tmp_path / "two")
    assert command(tmp_path / "three") == "/bin/one"


@root_only
@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.chmod(0o664),
        lambda file: file.chmod(0o646),
        lambda file: os.chown(file, NOBODY, 0),
        lambda file: file.parent.chmod(0o775),
        lambda file: file.parent.chmod(0o757),
        lambda file: os.chown(file.parent, NOBODY, 0),
        # a sticky directory helps only if it is root's
        lambda file: (file.parent.chmod(0o1777), os.chown(file.parent, NOBODY, 0)),
        lambda file: file.parent.parent.chmod(0o777),
        lambda file: os.chown(file.parent.parent, NOBODY, 0),
    ],
)  # fmt: skip
def test_cve_2012_3524_what_another_could_change_is_refused(
    tmp_path: Path, change: object
) -> None:
    (tmp_path / "outer").mkdir()
    file = write(tmp_path / "outer" / "inner")
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    assert command(file.parent) == command(link) == "/bin/inner"
    change(file)  # type: ignore[operator]
    for folder in (file.parent, link):
        with pytest.raises(ConfigError, match="not root's alone"):
            command(folder)


@root_only
def test_a_sticky_directory_of_root_is_safe(tmp_path: Path) -> None:
    file = write(tmp_path / "one")
    file.parent.chmod(0o1777)
    assert command(file.parent) == "/bin/one"


@pytest.mark.skipif(os.geteuid() == 0, reason="what root writes is root's")
def test_what_is_mine_is_not_roots(tmp_path: Path) -> None:
    write(tmp_path / "one")
    with pytest.raises(ConfigError, match="not root's alone"):
        command(tmp_path / "one")


@root_only
def test_p40_what_is_no_such_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(two)
    file = write(one, "com.example.Other")
    with pytest.raises(ConfigError, match="the name is "):
        command(one, two)
    file.write_text("nonsense")
    with pytest.raises(ConfigError, match="key=value before"):
        command(one, two)
    file.write_bytes(file.read_bytes() + b"#" * (1 << 18))
    with pytest.raises(ConfigError, match="too large"):
        command(one, two)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        command(one, two)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError):
        command(one, two)
    file.rmdir()
    file.symlink_to(one / "nowhere")
    assert command(one, two) == "/bin/two"
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(ConfigError):
        command(one, two)
