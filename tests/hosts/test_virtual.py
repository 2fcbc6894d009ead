"""P38: identities that a test makes up.  Policy believes in them, and nobody else does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kit import BUS, RawClient, call, peer_call

from afdbus import ThreadBus, ThreadHost

DENIED = "org.freedesktop.DBus.Error.AccessDenied"

POLICY = """
<policy context="default"><deny own="com.example.User"/><deny own="com.example.Group"/></policy>
<policy user="root"><allow own="com.example.User"/></policy>
<policy group="root"><allow own="com.example.Group"/></policy>
"""


@pytest.fixture
def act() -> Iterator[Callable[..., RawClient]]:
    """A client on a bus, as somebody."""

    with ExitStack() as clients:

        def act(bus: ThreadBus, **who: object) -> RawClient:
            client = clients.enter_context(RawClient(bus.socket(**who)))  # type: ignore[arg-type]
            client.join()
            return client

        yield act


def test_p38_policy_takes_a_virtual_peer_for_whom_it_says(
    host: ThreadHost, act: Callable[..., RawClient]
) -> None:
    bus = host.create_bus(policy=POLICY)

    def results(**who: object) -> list[str]:
        client = act(bus, **who)
        asked = (call("RequestName", "su", f"com.example.{name}", 4) for name in ("User", "Group"))
        return [client.exchange(message)[-1].brief[0] for message in asked]

    assert results(uid=0, gids=[1]) == ["return", "error"]
    assert results(uid=12345, gids=[0, 7]) == ["error", "return"]
    assert results(uid=12345, gids=[]) == ["error", "error"]
    assert results(uid=0, gids=[0])[0] == "return"


def test_p38_the_bus_tells_the_virtual_identity(
    host: ThreadHost, act: Callable[..., RawClient]
) -> None:
    bus = host.create_bus()
    peer = act(bus, uid=4711, gids=[3, 2, 3], pid=77)
    (found,) = peer.bus("GetConnectionCredentials", "s", peer.name).args
    assert found == {
        "UnixUserID": ("u", 4711), "ProcessID": ("u", 77), "UnixGroupIDs": ("au", [2, 3]),
    }  # fmt: skip
    ours = act(bus)
    (found,) = ours.bus("GetConnectionCredentials", "s", ours.name).args
    assert (found["UnixUserID"], found["ProcessID"]) == (("u", os.geteuid()), ("u", os.getpid()))


def test_p38_rules_about_connecting_hold_for_virtual_peers(
    host: ThreadHost, act: Callable[..., RawClient]
) -> None:
    policy = (
        '<policy context="default"><deny user="*"/><allow user="root"/><allow group="root"/>'
        "</policy>"
    )
    bus = host.create_bus(policy=policy)
    act(bus, uid=0, gids=[5])
    act(bus, uid=12345, gids=[0])
    refused = RawClient(bus.socket(uid=12345, gids=[5]))
    with refused:
        refused.authenticate()
        assert refused.closed() == []


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_p38_a_virtual_peer_can_do_nothing_outside_the_bus(
    host: ThreadHost, act: Callable[..., RawClient], tmp_path: Path, uid: int
) -> None:
    (tmp_path / "a.service").write_text(
        "[D-BUS Service]\nName=com.example.Started\nExec=/bin/false\n"
    )
    bus = host.create_bus(services=[tmp_path], messages=100)
    real = act_really(bus)
    with real:
        # Plans of the driver's methods are shared by peers with the same policy.
        assert real.exchange(call("ReloadConfig"))[-1].brief == ("return",)
        peer = act(bus, uid=uid)
        assert peer.exchange(call("ReloadConfig"))[-1].error_name == DENIED
        environment = call("UpdateActivationEnvironment", "a{ss}", {"A": "b"})
        assert peer.exchange(environment)[-1].error_name == DENIED
        start = call("StartServiceByName", "su", "com.example.Started", 0)
        assert peer.exchange(start)[-1].error_name == DENIED
        assert peer.exchange(peer_call("com.example.Started"))[-1].error_name == DENIED
        assert bus.statistics().children == ()
        assert "has a virtual identity and may not start services" in "\n".join(bus.messages)


def act_really(bus: ThreadBus) -> RawClient:
    client = RawClient(bus.address)
    client.join()
    return client


def test_p38_a_virtual_peer_may_watch_its_bus(
    host: ThreadHost, act: Callable[..., RawClient]
) -> None:
    bus = host.create_bus()
    root, other = act(bus, uid=0), act(bus, uid=12345)
    become = call("BecomeMonitor", "asu", [], 0, interface=BUS + ".Monitoring")
    assert other.exchange(become)[-1].error_name == DENIED
    assert root.exchange(become)[-1].brief[0] == "return"
