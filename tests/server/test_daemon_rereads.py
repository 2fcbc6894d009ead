"""What a daemon reads when it is told to read its configuration again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import busconfig

from afdbus.config import document, memory
from afdbus.errors import BusError
from afdbus.host.journal import Journal
from afdbus.server.boundbus import bind_buses, wanted_buses
from afdbus.server.daemon import Daemon
from afdbus.server.options import Options


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that includes two files; none was changed just now."""
    monkeypatch.setattr(memory, "RECENT", -3600.0)
    path = tmp_path / "bus.conf"
    path.write_text(busconfig("<includedir>bus.d</includedir>", listen="unix:tmpdir=/tmp"))
    (tmp_path / "bus.d").mkdir()
    for name in ("one", "two"):
        (tmp_path / "bus.d" / f"{name}.conf").write_text(
            '<busconfig><policy context="default"><allow own="a.b"/></policy></busconfig>'
        )
    return path


@pytest.fixture
def daemon(file: Path) -> Iterator[Daemon]:
    options = Options()
    options.config_file = str(file)
    running = Daemon(options, bind_buses(wanted_buses(options)), Journal())
    yield running
    running._buses.close()
    running._loop.close()


@pytest.fixture
def parsed(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are parsed from now on."""
    names: list[str] = []
    parse = document.parse

    def noted(data: bytes, path: str) -> document.Element:
        names.append(os.path.basename(path))
        return parse(data, path)

    monkeypatch.setattr(document, "parse", noted)
    return names


def test_a_daemon_parses_what_has_changed_since_it_was_started(
    daemon: Daemon, file: Path, parsed: list[str]
) -> None:
    (server,) = daemon._buses
    server.reload()
    assert not parsed
    changed = file.parent / "bus.d" / "two.conf"
    changed.write_text(changed.read_text().replace("allow", "deny"))
    for _ in range(2):
        server.reload()
        assert parsed == ["two.conf"]
    rules = server.bus.ruleset.buckets.default
    assert sorted(rule.allow for rule in rules if rule[1:2] == ("a.b",)) == [False, True]


def test_a_daemon_remembers_past_a_configuration_that_cannot_be_used(
    daemon: Daemon, file: Path, parsed: list[str]
) -> None:
    (server,) = daemon._buses
    text = file.read_text()
    file.write_text("<busconfig><nonsense/></busconfig>")
    with pytest.raises(BusError):
        server.reload()
    file.write_text(text)
    parsed.clear()
    server.reload()
    assert parsed == ["bus.conf"]
