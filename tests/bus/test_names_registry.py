"""The registry of names as a state machine, against a model written from the specification
("RequestName", "ReleaseName")."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from afdbus.bus.names import NameChange, Names

ALLOW, REPLACE, DO_NOT_QUEUE = 1, 2, 4


class Someone:
    """A peer, as far as the registry knows one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, None] = {}

    def __repr__(self) -> str:
        return self.name


class NamesMachine(RuleBasedStateMachine):
    names_of_peers = ("com.a", "com.b")

    @initialize()
    def begin(self) -> None:
        self.names = Names()
        self.peers: list[Any] = [Someone(f":1.{n}") for n in range(4)]
        for peer in self.peers:
            assert self.names.add_unique(peer) == NameChange(peer.name, None, peer)
        # For each name its queue: [peer, allows replacement, does not queue].
        self.model: dict[str, list[list[Any]]] = {name: [] for name in self.names_of_peers}

    who = st.integers(0, 3)
    which = st.sampled_from(names_of_peers)

    @rule(who=who, name=which, flags=st.integers(0, 255))
    def request(self, who: int, name: str, flags: int) -> None:
        peer, queue = self.peers[who], self.model[name]
        entry = [peer, bool(flags & ALLOW), bool(flags & DO_NOT_QUEUE)]
        place = next((n for n, one in enumerate(queue) if one[0] is peer), None)
        change = None
        if not queue:
            queue.append(entry)
            answer, change = 1, NameChange(name, None, peer)
        elif place == 0:
            queue[0] = entry
            answer = 4
        elif flags & REPLACE and queue[0][1]:
            old = queue.pop(0)
            queue[:] = [one for one in queue if one[0] is not peer]
            queue.insert(0, entry)
            if not old[2]:
                queue.insert(1, old)
            answer, change = 1, NameChange(name, old[0], peer)
        elif flags & DO_NOT_QUEUE:
            queue[:] = [one for one in queue if one[0] is not peer]
            answer = 3
        else:
            if place is None:
                queue.append(entry)
                place = len(queue) - 1
            else:
                queue[place] = entry
            if flags & REPLACE:  # as dbus-daemon: first among those who wait
                queue.insert(1, queue.pop(place))
            answer = 2
        assert self.names.request(peer, name, flags) == (answer, change)

    @rule(who=who, name=which)
    def release(self, who: int, name: str) -> None:
        peer, queue = self.peers[who], self.model[name]
        change = None
        if not queue:
            answer = 2
        elif all(one[0] is not peer for one in queue):
            answer = 3
        else:
            answer = 1
            first = queue[0][0] is peer
            queue[:] = [one for one in queue if one[0] is not peer]
            if first:
                change = NameChange(name, peer, queue[0][0] if queue else None)
        assert self.names.release(peer, name) == (answer, change)

    @rule(name=st.sampled_from([":1.0", "com.unknown"]))
    def release_what_cannot_be_released(self, name: str) -> None:
        answer = 3 if name == ":1.0" else 2
        assert self.names.release(self.peers[0], name) == (answer, None)

    @invariant()
    def the_same(self) -> None:
        for name, queue in self.model.items():
            owner = self.names.owners.get(name)
            assert owner is (queue[0][0] if queue else None)
            assert self.names.queue(name) == [one[0] for one in queue]
        for peer in self.peers:
            held = {name for name, queue in self.model.items() if any(o[0] is peer for o in queue)}
            assert set(peer.names) == held
            assert self.names.queue(peer.name) == [peer]
        places = len(self.peers) + sum(map(len, self.model.values()))
        assert self.names.places == places <= self.names.peak


NamesMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestNames = NamesMachine.TestCase
