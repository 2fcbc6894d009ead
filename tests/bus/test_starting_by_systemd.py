"""What systemd says that nobody should say, and what dbus-daemon does not survive."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import FakeConnection, World, configuration
from kit import BUS, BUS_PATH, Message, call, peer_call, signal
from test_activation import came, clean, join, send

NAME = "com.example.Unit"
SYSTEMD = "org.freedesktop.systemd1"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(configuration(tmp_path))
    world.bus.systemd_activation = True
    world.services.commands[NAME] = "/bin/unit"
    world.services.units[NAME] = "unit.service"
    return world


def failure(signature: str, *values: object) -> Message:
    return signal(
        "ActivationFailure", signature, *values,
        interface=f"{SYSTEMD}.Activator", path=BUS_PATH, destination=BUS,
    )  # fmt: skip


def waiting(world: World) -> tuple[FakeConnection, FakeConnection]:
    """One who waits for the unit, and systemd."""
    alice, manager = join(world, 2)
    send(world, manager, call("RequestName", "su", SYSTEMD, 0))
    send(world, alice, peer_call(NAME, "A"))
    came(manager)
    assert world.bus.activations.count == 1
    return alice, manager


def test_an_error_needs_a_name(world: World) -> None:
    alice, manager = waiting(world)
    send(world, manager, failure("sss", "unit.service", "no name", "text"))
    assert came(alice) == [("error", f"{BUS}.Error.Failed", "text")]
    clean(world, alice)


@pytest.mark.parametrize(
    ("signature", "values"),
    [("", ()), ("s", ("unit.service",)), ("ss", ("unit.service", "a.b")), ("u", (1,))],
)
def test_wrong_arguments(world: World, signature: str, values: tuple[object, ...]) -> None:
    alice, manager = waiting(world)
    send(world, manager, failure(signature, *values))
    assert came(alice) == came(manager) == []
    assert world.bus.activations.count == 1


def test_what_systemd_has_no_room_for_is_lost(world: World) -> None:
    """It gets its name all the same; there is nobody to be told but the log."""
    alice, manager = join(world, 2)
    send(world, alice, peer_call(NAME, "A"))
    assert world.bus.activations.count == 2
    world.bus.limits = world.bus.limits._replace(max_outgoing_bytes=0)
    manager.room = 0
    send(world, manager, call("GetId"))
    send(world, manager, call("RequestName", "su", SYSTEMD, 0))
    assert world.bus.names.owners[SYSTEMD] is manager.peer
    assert world.bus.activations.count == 1
    assert any(
        line.startswith("security: Rejected: destination has a full message queue")
        for line in world.journal.lines
    )
