"""What a message on its way is asked for, and how often it looks."""

from __future__ import annotations

from pathlib import Path

import pytest
from busworld import World, configuration
from kit import call, signal

from afdbus.bus import message as messages
from afdbus.bus.road import whole
from afdbus.wire.header import frame_length

RULES = ["arg3='x'", "member='M',arg3='x'", "path='/a',arg3path='/x'", "sender=':1.0',arg3='x'"]


def test_a_body_is_looked_into_once_for_all_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are fewer arguments than the rules ask about; and it is not copied."""
    world = World(configuration(tmp_path))
    sender, receiver = world.connect(), world.connect()
    for serial, rule in enumerate(RULES, 10):
        world.say(receiver, call("AddMatch", "s", rule).pack(serial))
    seen: list[object] = []
    look = messages.string_arguments

    def note(signature, little, data, start, end, count):  # type: ignore[no-untyped-def]
        seen.append(data)
        return look(signature, little, data, start, end, count)

    monkeypatch.setattr(messages, "string_arguments", note)
    frame = bytearray(signal("M", "s", "x" * 100_000, path="/a").pack(20))
    assert sender.peer is not None
    head, _ = frame_length(frame, 0, len(frame))
    whole(sender.peer, frame, head, checked=True)
    assert len(seen) == 1
    assert isinstance(seen[0], memoryview), "a copy, perhaps of 100 MiB"
