"""P37: a name in the abstract namespace has no permissions; who comes in is a matter of policy."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from kit import RawClient
from kit.process import Run, run

from afdbus import ThreadHost

__all__ = ["run"]

EVERYBODY = "<policy context='default'><allow user='*'/></policy>"


@pytest.fixture
def stranger() -> int:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else for a moment")
    return pwd.getpwnam("nobody").pw_uid


def comes_in(address: str, uid: int) -> bool:
    with RawClient(address, uid=uid) as client:  # the kernel lets anybody connect
        client.authenticate()
        try:
            client.hello()
        except AssertionError:
            return False
        return True


@pytest.mark.parametrize("type_", ["session", "system"])
def test_p37_by_default_only_our_own_user_comes_in(
    host: ThreadHost, stranger: int, type_: str
) -> None:
    bus = host.create_bus(type=type_)  # type: ignore[arg-type]
    assert comes_in(bus.address, 0)
    assert not comes_in(bus.address, stranger)
    assert bus.statistics().connections == ()


def test_p37_more_have_to_be_let_in_by_a_rule(host: ThreadHost, stranger: int) -> None:
    bus = host.create_bus(policy=EVERYBODY)
    assert comes_in(bus.address, stranger)


def test_p37_a_daemon_s_bus_of_its_own_lets_in_whom_its_configuration_does(
    run: Run, stranger: int, tmp_path: Path
) -> None:
    policy = "<policy context='default'><allow send_destination='*'/><allow receive_sender='*'/>"
    closed, opened = tmp_path / "closed.conf", tmp_path / "open.conf"
    for file, more in ((closed, ""), (opened, "<allow user='*'/>")):
        file.write_text(f"<busconfig>{policy}{more}</policy></busconfig>")
    daemon = run([f"--bus=={closed}", f"--bus=={opened}"], 2)
    assert [comes_in(line, stranger) for line in daemon.lines] == [False, True]


def test_p37_a_name_that_somebody_has_is_an_error(host: ThreadHost) -> None:
    """Whoever was first keeps it; nothing is taken over, and nobody is led astray in silence."""
    bus = host.create_bus()
    with ThreadHost() as other, pytest.raises(OSError, match="in use"):
        other.create_bus(bus.name)


def test_p37_random_names_cannot_be_guessed(host: ThreadHost) -> None:
    names = {host.create_bus().name for _ in range(50)}
    assert len(names) == 50
    assert {len(name) for name in names} == {len("afdbus-") + 20}
