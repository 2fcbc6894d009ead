"""The same random traffic on two buses, on the road with its plans and on the layered way alone:
after each step all outboxes are the same, byte for byte, and so is everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from busworld import NOBODY, PLENTY, ROOT, FakeConnection, World, configuration
from kit import call
from traffic import Traffic, with_fds

from afdbus.bus import planning, router
from afdbus.bus.alike import Alike
from afdbus.bus.message import Message
from afdbus.bus.peer import Peer
from afdbus.bus.plan import Plan
from afdbus.config.model import Config
from afdbus.wire import fds as wire_fds
from afdbus.wire.header import METHOD_CALL, NO_REPLY_EXPECTED, SIGNAL

RESTRICTIVE = """
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <deny own="com.example.D"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_requested_reply="true" receive_type="method_return"/>
    <allow receive_requested_reply="true" receive_type="error"/>
    <deny send_destination="com.example.B" send_interface="com.example.I" send_member="Hidden"/>
    <deny send_interface="com.example.Secret"/>
    <allow send_destination="com.example.C" send_interface="com.example.Secret"/>
    <deny receive_sender="com.example.C" receive_type="signal"/>
    <deny receive_interface="com.example.J" receive_member="Hidden"/>
    <allow send_destination="com.example.D" send_interface="com.example.I" log="true"/>
  </policy>
  <policy user="0">
    <allow send_interface="com.example.Secret" send_type="signal"/>
    <allow own="com.example.D"/>
  </policy>
  <policy context="mandatory">
    <deny send_type="method_call" send_path="/a/b" send_destination="com.example.A"/>
  </policy>"""

CONFIGURATIONS: dict[str, dict[str, object]] = {
    "open": {"max_replies_per_connection": 5000},
    "restrictive": {"policy": RESTRICTIVE, "max_replies_per_connection": 5000},
    "tight": {"max_outgoing_bytes": 3000, "max_replies_per_connection": 4,
              "max_incoming_bytes": 5000, "max_match_rules_per_connection": 4},
    "impatient": {"policy": RESTRICTIVE, "reply_timeout": 1000, "max_outgoing_bytes": 3000},
}  # fmt: skip
STEPS = 150


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Descriptors are mere numbers here; those that were closed."""
    numbers: list[int] = []
    monkeypatch.setattr(wire_fds, "close_all", numbers.extend)
    return numbers


def kind_of(header_type: int, flags: int, destination: str | None) -> str:
    if destination == "org.freedesktop.DBus":
        return "driver"
    if header_type in (2, 3):
        return "reply"
    if header_type == METHOD_CALL and not flags & NO_REPLY_EXPECTED:
        return "call"
    return "broadcast" if header_type == SIGNAL and destination is None else "send"


class Counter:
    """How many messages of each kind took the layered way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layered: dict[str, int] = {}
        dispatch: Callable[[object, Message, int], Plan | None] = router.dispatch

        def count(bus: object, message: Message, size: int) -> Plan | None:
            header = message.header
            kind = kind_of(header.type, header.flags, header.destination)
            self.layered[kind] = self.layered.get(kind, 0) + 1
            return dispatch(bus, message, size)

        monkeypatch.setattr(router, "dispatch", count)

    def take(self) -> dict[str, int]:
        taken, self.layered = self.layered, {}
        return taken


class Pair:
    """Two worlds that hear the same."""

    def __init__(self, config: Config, counter: Counter) -> None:
        self.road = World(config)
        self.layers = World(config, plans=False)
        self.counter = counter
        self.on_the_road: dict[str, int] = {}
        self.on_layers: dict[str, int] = {}

    def worlds(self) -> Iterator[World]:
        yield self.road
        yield self.layers

    def both(self, deed: Callable[[World], object]) -> None:
        """Do it in both worlds, flush, compare."""
        for world, counts in ((self.road, self.on_the_road), (self.layers, self.on_layers)):
            deed(world)
            world.flush()
            for kind, count in self.counter.take().items():
                counts[kind] = counts.get(kind, 0) + count
        self.compare()

    def compare(self) -> None:
        road, layers = self.road, self.layers
        for one, other in zip(road.connections, layers.connections, strict=True):
            assert one.written == other.written
            assert one.waiting() == other.waiting()
            assert one.passed == other.passed
            assert one.closed == other.closed
            assert one.resumed == other.resumed
            mine, yours = one.peer, other.peer
            assert mine is not None
            assert yours is not None
            assert mine.name == yours.name
            assert list(mine.names) == list(yours.names)
            assert mine.rules == yours.rules
            assert mine.paused == yours.paused
            assert (mine.charged, mine.charged_fds) == (yours.charged, yours.charged_fds)
            assert open_calls(mine) == open_calls(yours)
        assert road.bus.dropped == layers.bus.dropped
        assert road.journal.lines == layers.journal.lines
        assert road.wake_ups == layers.wake_ups


def open_calls(peer: Peer) -> dict[str, list[int]]:
    """Callee -> serials, in order."""
    calls = {callee.name: list(calls) for callee, calls in (peer.callees or {}).items() if calls}
    assert sum(map(len, calls.values())) == peer.open_calls
    return calls


def living(world: World) -> list[int]:
    return [i for i, connection in enumerate(world.connections) if not connection.closed]


class Run:
    """One seeded run of steps."""

    def __init__(self, pair: Pair, configs: list[Config], seed: int, fresh: float) -> None:
        self.pair = pair
        self.configs = configs
        self.random = Random(seed)
        self.traffic = Traffic(seed, fresh)
        self.sent: dict[str, int] = {}
        self.next_fd = 1000
        self.given: list[int] = []
        for _ in range(5):
            self.join()

    def join(self) -> None:
        identity = self.random.choice([ROOT, NOBODY])
        can_fds = self.random.random() < 0.7
        self.pair.both(lambda world: world.connect(identity, can_fds=can_fds))

    def step(self) -> None:
        what = self.random.random()
        alive = living(self.pair.layers)
        if len(alive) < 4 or (what < 0.015 and len(alive) < 8):
            self.join()
            return
        who = self.random.choice(alive)
        if what < 0.025:
            self.pair.both(lambda world: world.leave(world.connections[who]))
        elif what < 0.07:
            room = self.random.choice([0, 100, 3000])
            self.pair.both(lambda world: self.narrow(world.connections[who], room))
        elif what < 0.18:
            room = self.random.choice([1, 150, 1000, 20000, PLENTY])
            self.pair.both(lambda world: world.widen(world.connections[who], room))
        elif what < 0.20:
            config = self.random.choice(self.configs)
            self.pair.both(lambda world: world.bus.configure(config.limits, config.ruleset))
        elif what < 0.21:
            self.watch(who)
        elif what < 0.26:
            self.stop_watching()
        elif what < 0.28:
            self.pair.both(self.clock)
        elif what < 0.31:
            self.with_fds(who)
        else:
            self.talk(who)

    def narrow(self, connection: FakeConnection, room: int) -> None:
        connection.room = room

    def clock(self, world: World) -> None:
        world.now += 0.4
        world.bus.expire()

    def watch(self, who: int) -> None:
        """An eavesdropper or a monitor, for a while: nothing is planned meanwhile."""
        message = self.random.choice([
            call("AddMatch", "s", "eavesdrop=true"),
            call("BecomeMonitor", "asu", ["type='signal'"], 0,
                 interface="org.freedesktop.DBus.Monitoring"),
        ]).pack(9)  # fmt: skip
        self.pair.both(lambda world: world.say(world.connections[who], message))

    def stop_watching(self) -> None:
        message = call("RemoveMatch", "s", "eavesdrop=true").pack(9)

        def stop(world: World) -> None:
            for index in living(world):
                connection = world.connections[index]
                assert connection.peer is not None
                if connection.peer.monitor:
                    world.leave(connection)
                elif any(rule.eavesdrop for rule in connection.peer.rules):
                    world.say(connection, message)

        self.pair.both(stop)

    def with_fds(self, who: int) -> None:
        alive = living(self.pair.layers)
        peer = self.pair.layers.connections[self.random.choice(alive)].peer
        assert peer is not None
        where = self.random.choice([None, peer.name, "com.example.A"])
        count = self.random.randrange(1, 4)
        little = self.random.random() < 0.5
        message = with_fds(little, where, count, 7)
        first = self.next_fd
        self.next_fd += count

        def say(world: World) -> None:
            connection = world.connections[who]
            connection.fds = list(range(first, first + count))
            self.given.extend(connection.fds)
            world.say(connection, message)
            # Left over when the peer is no more; the framer's, who closes them.
            self.given = [n for n in self.given if n not in connection.fds]

        self.pair.both(say)

    def talk(self, who: int) -> None:
        world = self.pair.layers
        names = [
            connection.peer.name
            for connection in world.connections
            if not connection.closed and connection.peer is not None
        ]
        gone = [c.peer.name for c in world.connections if c.closed and c.peer is not None]
        me = world.connections[who].peer
        assert me is not None
        for _ in range(self.random.choice([1, 3])):
            if world.connections[who].closed:
                return
            messages = self.traffic.batch(me.name, names, gone)
            self.pair.both(lambda w, batch=messages: w.say(w.connections[who], *batch))  # type: ignore[misc]


def run(
    seed: int,
    first: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed: list[int],
    fresh: float = 0.0,
) -> Pair:
    configs = {
        name: configuration(folder, **options)  # type: ignore[arg-type]
        for name, options in CONFIGURATIONS.items()
    }
    pair = Pair(configs[first], Counter(monkeypatch))
    # In every other run each read is alone in its pass: signals may be written at once.
    pair.road.touched.news = [None] * (1 + seed % 2)
    others = [configs[first], configs[first], *configs.values()]
    # A reply_timeout keeps calls off the road for good, so it is a run of its own.
    others = [c for c in others if (c.limits.reply_timeout > 0) == (first == "impatient")]
    steps = Run(pair, others, seed, fresh)
    for _ in range(STEPS):
        steps.step()
    for index in living(pair.road):
        pair.both(lambda world, i=index: world.leave(world.connections[i]))  # type: ignore[misc]
    assert sorted(closed) == sorted(steps.given), "each descriptor is closed once in each world"
    for world in pair.worlds():
        assert not world.bus.peers
        assert not world.bus.rules
        assert not world.bus.names.owners
        assert not world.bus.users
        for connection in world.connections:
            assert connection.peer is not None
            assert connection.peer.charged == connection.peer.charged_fds == 0
            assert not open_calls(connection.peer)
    return pair


@pytest.mark.parametrize("first", CONFIGURATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_road_and_layers_do_the_same(
    seed: int,
    first: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed: list[int],
) -> None:
    pair = run(seed, first, tmp_path, monkeypatch, closed)
    for kind in ("broadcast", "send", "driver", *(["call", "reply"] * (first != "impatient"))):
        layered, road = pair.on_layers[kind], pair.on_the_road.get(kind, 0)
        assert layered > 100, f"too few of kind {kind} to mean anything"
        assert road < layered, f"no plan was ever used for {kind}"


@pytest.mark.parametrize("first", ["open", "restrictive", "tight"])
@pytest.mark.parametrize("seed", range(6))
def test_plans_for_all_that_is_alike_do_the_same(
    seed: int,
    first: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed: list[int],
) -> None:
    monkeypatch.setattr(planning, "MANY", 0)
    find = Alike.find
    found = 0

    def count(self: Alike, data: bytes, pos: int, body: int, word: int) -> Plan | None:
        nonlocal found
        plan = find(self, data, pos, body, word)
        found += plan is not None
        return plan

    monkeypatch.setattr(Alike, "find", count)
    run(seed, first, tmp_path, monkeypatch, closed, fresh=0.5)
    assert found > 50, "too few to mean anything"


def test_the_call_that_begins_eavesdropping_is_overheard_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a plan stands for it, as no call before it was overheard."""
    pair = Pair(configuration(tmp_path), Counter(monkeypatch))
    pair.both(lambda world: world.connect())
    for rule in ("type='signal'", "type='error'", "eavesdrop=true", "member='M'"):
        message = call("AddMatch", "s", rule).pack(9)
        pair.both(lambda world, m=message: world.say(world.connections[0], m))  # type: ignore[misc]
    assert pair.on_the_road["driver"] == pair.on_layers["driver"] - 2
    assert pair.road.connections[0].written.count(b"AddMatch") == 2


def test_much_of_the_traffic_takes_the_road(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: list[int]
) -> None:
    pair = run(100, "open", tmp_path, monkeypatch, closed)
    hits = {kind: count - pair.on_the_road[kind] for kind, count in pair.on_layers.items()}
    assert min(hits.values()) > 20, hits
