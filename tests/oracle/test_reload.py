"""What a reload changes, what it does not, and what it says when it fails."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from kit import BUS, Daemon, RawClient, busconfig, call
from kit.daemon import OPEN_POLICY
from kit.waiting import until

CLOSED = OPEN_POLICY.replace("""<allow own="*"/>""", "")


def rewrite(daemon: Daemon, text: str, name: str = "bus.conf") -> None:
    path = daemon.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace("{directory}", str(daemon.directory)))


def reload(client: RawClient) -> tuple[object, ...]:
    return client.exchange(call("ReloadConfig"))[-1].brief


def may_own(client: RawClient, name: str) -> bool:
    return client.exchange(call("RequestName", "su", name, 0))[-1].brief[0] == "return"


def test_live_connections_get_the_new_policy(start: Callable[..., Daemon]) -> None:
    daemon = start()
    alice, bob = daemon.connect(), daemon.connect()
    assert may_own(bob, "com.example.A")
    rewrite(daemon, busconfig(policy=CLOSED))
    assert reload(alice) == ("return",)
    assert not may_own(bob, "com.example.B")
    assert bob.bus("GetNameOwner", "s", "com.example.A").args == (bob.name,)
    rewrite(daemon, busconfig())
    assert reload(alice) == ("return",)
    assert may_own(bob, "com.example.B")


# What is wrong, where (file, line), and what dbus-daemon says of it.
WRONG = {
    "an unknown element": (
        "<busconfig>\n<bees/></busconfig>",
        ("bus.conf", 2),
        "Element <bees> not allowed inside <busconfig> in configuration file",
    ),
    "an unknown limit": (
        "<busconfig>\n\n<limit name='bees'>1</limit></busconfig>",
        ("bus.conf", 3),
        'There is no limit called "bees"',
    ),
    "in an included file": (
        "<busconfig>\n<include>in.conf</include></busconfig>",
        ("in.conf", 3),
        "context attribute on <policy> must have the value \"default\" or \"mandatory\", "
        'not "bees"',
    ),
    "no file": (
        "<busconfig>\n\n<include>no.conf</include></busconfig>",
        ("bus.conf", 3),
        'Failed to open "{directory}/no.conf": No such file or directory',
    ),
    "no address": (
        "<busconfig>\n</busconfig>",
        ("bus.conf", None),
        "Configuration file needs one or more <listen> elements giving addresses",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_error_leaves_the_old_and_says_what_and_where(
    start: Callable[..., Daemon], kind: str, what: str
) -> None:
    text, (file, line), complaint = WRONG[what]
    daemon = start()
    alice = daemon.connect()
    rewrite(daemon, "<busconfig>\n\n<policy context='bees'/></busconfig>", "in.conf")
    rewrite(daemon, text)
    complaint = complaint.replace("{directory}", str(daemon.directory))
    if kind == "afdbus":
        at = "" if line is None else f", line {line}"
        complaint = f"Error in file {daemon.directory}/{file}{at}: {complaint}"
    name = "FileNotFound" if what == "no file" else "Failed"
    found = reload(alice)
    assert found[:2] == ("error", f"{BUS}.Error.{name}")
    assert str(found[2]).rstrip("\n") == complaint
    assert may_own(alice, "com.example.A")
    daemon.until_logged(f"Unable to reload configuration: {complaint}")


def test_an_error_of_xml_says_where_in_one_form(start: Callable[..., Daemon]) -> None:
    daemon = start()
    alice = daemon.connect()
    rewrite(daemon, "<busconfig>\n\n<type></busconfig>")
    _, name, text = reload(alice)
    assert name == f"{BUS}.Error.Failed"
    assert str(text).startswith(f"Error in file {daemon.config_file}, line 3, column ")
    assert may_own(alice, "com.example.A")


def test_no_file_at_all(start: Callable[..., Daemon]) -> None:
    daemon = start()
    alice = daemon.connect()
    daemon.config_file.unlink()
    text = f'Failed to open "{daemon.config_file}": No such file or directory'
    assert reload(alice) == ("error", f"{BUS}.Error.FileNotFound", text)
    assert may_own(alice, "com.example.A")


def test_what_is_skipped_is_told_in_the_log(start: Callable[..., Daemon]) -> None:
    """A broken file of an includedir does not make the reload fail."""
    daemon = start("<includedir>{directory}/d</includedir>")
    alice = daemon.connect()
    rewrite(daemon, "<busconfig><limit name='bees'>1</limit></busconfig>", "d/a.conf")
    rewrite(daemon, "<busconfig>", "d/b.conf")
    assert reload(alice) == ("return",)
    parsing = [f"while parsing '{daemon.directory}/d/{name}.conf'" for name in "ab"]
    daemon.until_logged('There is no limit called "bees"', *parsing)


def test_who_may_come_in_anonymously_is_settled_at_the_start(start: Callable[..., Daemon]) -> None:
    daemon = start(auth=None)
    client = daemon.connect()
    text = busconfig("<allow_anonymous/>", auth=None)
    daemon.config_file.write_text(text.replace("{directory}", str(daemon.directory)))
    assert client.bus("ReloadConfig").brief == ("return",)
    stranger = daemon.dial()
    stranger.send_bytes(b"\0")
    stranger.send_line("AUTH ANONYMOUS")
    assert stranger.read_line().startswith("OK ")
    stranger.send_line("BEGIN")
    assert stranger.closed() == []


def test_sighup(start: Callable[..., Daemon]) -> None:
    """Nothing has changed, and it is read again all the same."""
    daemon = start()
    alice = daemon.connect()
    alice.match(f"sender='{BUS}',member='ActivatableServicesChanged'")
    for _ in range(3):
        daemon.process.send_signal(signal.SIGHUP)
        assert alice.read().brief == ("signal", "ActivatableServicesChanged")
    until(lambda: daemon.log().count("Reloaded configuration") == 3, daemon.log)
