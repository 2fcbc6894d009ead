"""Our session.conf and system.conf, and Debian's: equal in effect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afdbus.config import paths
from afdbus.config.load import load
from afdbus.config.paths import shipped, system_config
from afdbus.policy.rules import Rule

DEBIAN = "/usr/share/dbus-1/%s.conf"


def without_place(rules: object) -> object:
    if isinstance(rules, dict):
        return {number: without_place(some) for number, some in rules.items()}
    assert isinstance(rules, list)
    plain: list[Rule] = [rule._replace(file="", line=0) for rule in rules]
    return plain


@pytest.mark.parametrize("name", ["session", "system"])
def test_ours_is_debian_s(name: str) -> None:
    path = DEBIAN % name
    if not os.path.exists(path):
        missing = f"no {path} to compare with"
        if os.environ.get("AFDBUS_TEST_REQUIRE") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    ours, theirs = load(shipped(f"{name}.conf")), load(path)
    for field in ours._fields:
        if field not in ("ruleset", "files", "sources", "warnings", "memory"):
            assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.sources.directories == theirs.sources.directories
    assert ours.files[1:] == theirs.files[1:], "the same files are included"
    for bucket, mine in ours.ruleset.buckets._asdict().items():
        assert without_place(mine) == without_place(getattr(theirs.ruleset.buckets, bucket)), bucket


@pytest.mark.parametrize("name", ["session", "system"])
def test_it_is_found_in_the_source_tree(name: str) -> None:
    path = Path(shipped(f"{name}.conf"))
    assert path.is_file()
    assert path.name == f"{name}.conf"
    assert load(str(path)).type == name


@pytest.mark.parametrize("there", [True, False])
def test_the_distribution_knows_the_user_of_its_system_bus(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "system.conf"
    monkeypatch.setattr(paths, "_SYSTEM", str(file))
    if there:
        file.touch()
    assert system_config() == (str(file) if there else shipped("system.conf"))


def test_debian_s_service_files_are_understood() -> None:
    folders = (Path("/usr/share/dbus-1/system.d"), Path("/etc/dbus-1/system.d"))
    files = [str(file) for folder in folders for file in folder.glob("*.conf")]
    if not files:
        pytest.skip("no service has a policy here")
    config = load(system_config())
    assert set(files) <= set(config.files)
