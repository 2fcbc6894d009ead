"""What was read is read again only where it has changed, and says the same."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from afdbus.config import document, memory
from afdbus.config.load import load
from afdbus.config.model import Config
from afdbus.identity import Identity

FRAGMENTS = {
    "allow.conf": '<policy context="default"><allow send_destination="a.b"/></policy>',
    "deny.conf": '<policy context="mandatory"><deny own="*"/></policy><!-- Kommentar -->',
    "root.conf": '<policy user="root"><allow own="a.b"/></policy>'
    '<policy group="root"><allow own="a.c"/></policy>',
    "nobody.conf": '<policy context="default"><allow user="no-such-user"/></policy>',
    "limits.conf": '<limit name="max_names_per_connection">3</limit>',
    "services.conf": "<servicedir>here</servicedir><standard_session_servicedirs/>",
    "empty.conf": "",
    "broken.conf": "<policy>",
    "wrong.conf": '<policy context="default"><allow send_nothing="a"/></policy>',
    "mixed.conf": '<policy context="default"><deny own="a.d"/></policy><type>system</type>'
    '<policy user="root"><allow own="a.d"/></policy><policy group="0"><deny own="a.e"/></policy>'
    '<limit name="max_names_per_connection">4</limit><policy context="mandatory"/>',
    "nested.conf": "<include>other</include><includedir>more.d</includedir><auth>EXTERNAL</auth>",
}
WRONG = ["broken.conf", "wrong.conf"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of many files, none of which was changed just now."""
    monkeypatch.setattr(memory, "RECENT", -3600.0)
    (tmp_path / "bus.d" / "more.d").mkdir(parents=True)
    write(tmp_path / "bus.conf", "<listen>unix:tmpdir=/tmp</listen><includedir>bus.d</includedir>")
    write(tmp_path / "bus.d" / "other", FRAGMENTS["allow.conf"])
    write(tmp_path / "bus.d" / "more.d" / "more.conf", FRAGMENTS["deny.conf"])
    for name, inside in FRAGMENTS.items():
        write(tmp_path / "bus.d" / name, inside)
    return tmp_path


def write(path: Path, inside: str) -> None:
    path.write_text(f"<busconfig>{inside}</busconfig>")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were parsed."""
    names: list[str] = []
    parse = document.parse

    def noted(data: bytes, path: str) -> document.Element:
        names.append(os.path.basename(path))
        return parse(data, path)

    monkeypatch.setattr(document, "parse", noted)
    return names


def first(folder: Path) -> Config:
    return load(str(folder / "bus.conf"))


def again(folder: Path, before: Config) -> Config:
    """The configuration by what is remembered, which is the same as without."""
    config = load(str(folder / "bus.conf"), memory=before.memory)
    anew = first(folder)
    assert told(config) == told(anew)
    return config


def told(config: Config) -> tuple[object, ...]:
    sources = (list(config.sources.files), list(config.sources.directories))
    values = config._replace(sources=None, memory=None, ruleset=None)  # type: ignore[arg-type]
    return (*values, config.ruleset.buckets, sources)


def test_what_has_not_changed_is_not_parsed_again(folder: Path, parsed: list[str]) -> None:
    config = first(folder)
    assert set(parsed) == {*FRAGMENTS, "bus.conf", "other", "more.conf"}
    for _ in range(3):
        parsed.clear()
        config = load(str(folder / "bus.conf"), memory=config.memory)
        assert sorted(parsed) == WRONG, "an error is looked for in the file as it is"
        assert told(config) == told(first(folder))


def change(path: Path) -> None:
    path.write_text(path.read_text().replace("a.b", "b.c"))


def keep_times(path: Path) -> None:
    """A change of a few bytes that are as many as before, at the same time as before."""
    status = path.stat()
    change(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    new = path.with_suffix(".new")
    write(new, '<policy context="default"><deny send_destination="a.b"/></policy>')
    new.replace(path)


def become_a_link(path: Path) -> None:
    elsewhere = path.with_suffix(".new")
    write(elsewhere, FRAGMENTS["deny.conf"])
    path.unlink()
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("how", [change, keep_times, replace, become_a_link])
def test_what_has_changed_is_parsed_and_counts(
    folder: Path, parsed: list[str], how: Callable[[Path], None]
) -> None:
    before = first(folder)
    how(folder / "bus.d" / "allow.conf")
    parsed.clear()
    config = load(str(folder / "bus.conf"), memory=before.memory)
    assert sorted(parsed) == ["allow.conf", *WRONG]
    assert config.ruleset.buckets != before.ruleset.buckets
    assert told(config) == told(first(folder))


def test_files_come_and_go(folder: Path) -> None:
    config = first(folder)
    text = (folder / "bus.d" / "allow.conf").read_text()
    (folder / "bus.d" / "allow.conf").unlink()
    config = again(folder, config)
    assert str(folder / "bus.d" / "allow.conf") not in config.memory.files
    (folder / "bus.d" / "new.conf").write_text(text)
    again(folder, config)


def test_what_was_changed_just_now_may_change_again_unseen(
    folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within one tick of the file system's clock leave the same times behind."""
    monkeypatch.setattr(memory, "RECENT", 3600.0)
    config = first(folder)
    assert not config.memory.files
    parsed.clear()
    load(str(folder / "bus.conf"), memory=config.memory)
    assert set(parsed) == {*FRAGMENTS, "bus.conf", "other", "more.conf"}


def test_who_is_who_is_asked_each_time(
    folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = first(folder)
    assert set(before.ruleset.buckets.users) == {0}
    found = pwd.getpwnam

    def changed(name: str) -> object:
        return SimpleNamespace(pw_uid=4711) if name == "root" else found(name)

    monkeypatch.setattr(pwd, "getpwnam", changed)
    parsed.clear()
    config = load(str(folder / "bus.conf"), memory=before.memory)
    assert sorted(parsed) == sorted(["mixed.conf", "root.conf", *WRONG])
    assert set(config.ruleset.buckets.users) == {4711}
    assert told(config) == told(first(folder))


def test_a_user_who_was_unknown_is_warned_of_until_he_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = first(folder)
    for _ in range(2):
        assert any("no-such-user" in warning for warning in config.warnings)
        config = again(folder, config)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=4711))
    config = again(folder, config)
    assert not any("no-such-user" in warning for warning in config.warnings)


def test_what_may_not_be_read_any_more_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for who has dropped its privileges since."""
    config = first(folder)
    found = os.open

    def denied(path: str, flags: int) -> int:
        if path.endswith("allow.conf"):
            raise PermissionError(13, "Permission denied", path)
        return found(path, flags)

    monkeypatch.setattr(os, "open", denied)
    config = again(folder, config)
    assert any("allow.conf" in w and "Permission denied" in w for w in config.warnings)


def test_limits_before_a_file_that_is_remembered(folder: Path) -> None:
    """They are part of what a file is read into, and not of what it says."""
    for name in ("limits.conf", "mixed.conf"):
        (folder / "bus.d" / name).unlink()
    config = first(folder)
    limit = '<limit name="max_names_per_connection">%d</limit>'
    for number in (5, 6):
        write(
            folder / "bus.conf",
            f"<listen>unix:tmpdir=/tmp</listen>{limit % number}<includedir>bus.d</includedir>",
        )
        config = again(folder, config)
        assert config.limits.max_names_per_connection == number


ALICE = Identity(uid=1000, gid=1000, gids=(1000,))


def test_policies_are_made_again_only_for_other_rules(folder: Path) -> None:
    before = first(folder)
    policy = before.ruleset.for_peer(ALICE)
    config = load(str(folder / "bus.conf"), memory=before.memory)
    assert config.ruleset.for_peer(ALICE) is policy
    change(folder / "bus.d" / "allow.conf")
    config = load(str(folder / "bus.conf"), memory=config.memory)
    assert config.ruleset.for_peer(ALICE) is not policy


def test_groups_are_asked_for_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell them."""
    entry = SimpleNamespace(pw_name="alice", pw_gid=1000, pw_dir="/nowhere")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [1000])
    before = first(folder)
    unknown = ALICE._replace(gids=None)
    groups = [bucket.value for bucket in before.ruleset.buckets_of(unknown)]
    assert groups == ["default", "mandatory"]
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [1000, 0])
    config = load(str(folder / "bus.conf"), memory=before.memory)
    groups = [bucket.value for bucket in config.ruleset.buckets_of(unknown)]
    assert groups == ["default", "0", "mandatory"]
