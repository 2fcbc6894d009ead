"""S1 to S11: one bus per bound name."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import (
    BUS,
    METHOD_CALL,
    RawClient,
    busconfig,
    call,
    method_return,
    peer_call,
)
from kit import signal as signal_of
from kit.client import TIMEOUT, dial
from kit.hosted import Connect, fresh_name
from kit.process import Run

from afdbus import ThreadBus, ThreadHost
from afdbus.errors import ConfigError

STATS = f"{BUS}.Debug.Stats"
UNKNOWN = f"{BUS}.Error.ServiceUnknown"
DENIED = f"{BUS}.Error.AccessDenied"
EXCEEDED = f"{BUS}.Error.LimitsExceeded"


def refuses(name: str) -> bool:
    """Whether nobody listens on the name."""
    try:
        dial(f"unix:abstract={name}").close()
    except ConnectionRefusedError:
        return True
    return False


def is_free(name: str) -> bool:
    """Whether the name can be bound at this moment."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.bind("\0" + name)
        except OSError:
            return False
    return True


def error_of(client: RawClient, *arguments: object) -> str | None:
    return client.exchange(call(*arguments))[-1].error_name  # type: ignore[arg-type]


def config_file(folder: Path) -> str:
    file = folder / "bus.conf"
    file.write_text(busconfig(listen="unix:tmpdir=/tmp"))
    return str(file)


# -- S1


def test_semantics_s01_binding_and_listening_makes_a_bus_and_nothing_else_does(
    host: ThreadHost, connect: Connect
) -> None:
    name = fresh_name()
    assert refuses(name)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("\0" + name)
        assert refuses(name), "bound is not enough"
    bus = host.create_bus(name)
    connect(bus).alive()
    bus.close()
    assert refuses(name)


# -- S2, S3


@pytest.fixture
def pair(host: ThreadHost) -> tuple[ThreadBus, ThreadBus]:
    return host.create_bus(), host.create_bus()


Pair = tuple[ThreadBus, ThreadBus]


def test_semantics_s02_names_and_their_counters_are_separate(pair: Pair, connect: Connect) -> None:
    one, two = map(connect, pair)
    assert one.name == two.name == ":1.0"
    assert one.own("com.example.A") == two.own("com.example.A") == 1
    connect(pair[0])
    connect(pair[0])
    assert connect(pair[1]).name == ":1.1"
    for client, count in ((one, 3), (two, 2)):
        names = client.exchange(call("ListNames"))[-1].args[0]
        assert sorted(names) == sorted(
            [BUS, "com.example.A", *(f":1.{number}" for number in range(count))]
        )


def test_semantics_s02_guids_are_separate(pair: Pair, connect: Connect) -> None:
    found = {connect(bus).bus("GetId").args[0] for bus in pair}
    assert found == {pair[0].guid, pair[1].guid}
    assert len(found) == 2


def test_semantics_s02_rules_are_separate(pair: Pair, connect: Connect) -> None:
    one, two = map(connect, pair)
    one.match("type='signal'")
    rules = [
        client.exchange(call("GetAllMatchRules", interface=STATS))[-1].args[0][client.name]
        for client in (one, two)
    ]
    assert rules == [["type='signal'"], []]
    assert error_of(two, "RemoveMatch", "s", "type='signal'") == f"{BUS}.Error.MatchRuleNotFound"


def test_semantics_s02_policies_limits_and_features_are_separate(
    host: ThreadHost, connect: Connect
) -> None:
    closed = host.create_bus(
        config=busconfig(
            "<policy context='mandatory'><deny own='com.example.Mine'/></policy>",
            max_names_per_connection=2,
        )
    )
    one, two = connect(host.create_bus()), connect(closed)
    request = ("RequestName", "su")
    assert one.own("com.example.Mine") == one.own("com.example.B") == one.own("com.example.C") == 1
    assert error_of(two, *request, "com.example.Mine", 0) == DENIED
    assert two.own("com.example.B") == 1
    assert error_of(two, *request, "com.example.C", 0) == EXCEEDED


def test_semantics_s02_statistics_and_monitors_are_separate(pair: Pair, connect: Connect) -> None:
    one, two = map(connect, pair)
    watcher = connect(pair[0])
    watcher.exchange(call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring"))
    one.own("com.example.A")
    two.own("com.example.B")
    stats = [c.exchange(call("GetStats", interface=STATS))[-1].args[0] for c in (one, two)]
    assert [found["BusNames"] for found in stats] == [("u", 2), ("u", 2)]
    assert [found["ActiveConnections"] for found in stats] == [("u", 2), ("u", 1)]
    assert [len(bus.statistics().connections) for bus in pair] == [2, 1]
    one.send(call("GetStats", interface=STATS))
    seen = watcher.read_until(
        lambda m: m.type == METHOD_CALL and m.member == "GetStats", "what the other bus has seen"
    )
    assert all("com.example.B" not in m.args for m in seen if m.signature)
    assert any("com.example.A" in m.args for m in seen if m.signature)


def test_semantics_s03_nothing_crosses(pair: Pair, connect: Connect) -> None:
    one, two = map(connect, pair)
    for client in (one, two):
        client.match("type='signal'")
    connect(pair[1])
    two.own("com.example.Two")
    one.send(signal_of("Changed", "s", "one"))
    assert [m.args for m in one.sync() if m.member == "Changed"] == [("one",)]
    # what it was told is of its own bus: the others are of the bus, or of the third client
    told = two.sync()
    assert [m.member for m in told if m.sender != BUS] == []
    assert all(":1.2" not in m.args for m in told)
    # of the other bus it has heard nothing at all
    assert one.sync() == []


def test_semantics_s03_a_name_of_the_other_bus_is_unknown_here(
    pair: Pair, connect: Connect
) -> None:
    one, two = map(connect, pair)
    stranger = connect(pair[1])
    two.own("com.example.Two")
    assert stranger.name == ":1.1"
    for name in (stranger.name, "com.example.Two"):
        serial = one.send(peer_call(name))
        answer = one.read()
        assert (answer.reply_serial, answer.error_name) == (serial, UNKNOWN)
        assert error_of(one, "GetNameOwner", "s", name) == f"{BUS}.Error.NameHasNoOwner"
    file = os.memfd_create("kit")
    one.send(peer_call(":1.0", "Take", "h", 0, fds=[file]))  # itself, and nobody over there
    os.close(file)
    os.close(one.receive_call().fds[0])
    assert stranger.sync() == []
    assert [m for m in two.sync() if m.sender != BUS] == []


# -- S4


def test_semantics_s04_the_type_changes_no_routing(host: ThreadHost, connect: Connect) -> None:
    def conversation(type_: str) -> list[tuple[object, ...]]:
        text = busconfig().replace("<type>session<", f"<type>{type_}<")
        bus = host.create_bus(config=text)
        alice, bob = connect(bus), connect(bus)
        bob.own("com.example.Bob")
        alice.match("type='signal'")
        alice.send(peer_call("com.example.Bob", "Method", "s", "x"))
        bob.send(method_return(bob.receive_call(), "s", "y"))
        bob.send(signal_of("Changed"))
        bob.send(peer_call("com.example.None"))
        bob.sync()
        connect(bus).send(peer_call(":1.0"))
        return [m.brief for m in (*alice.read_until(lambda m: m.type == METHOD_CALL, "a call"),)]

    assert conversation("session") == conversation("system") == conversation("anything")
    assert "DBUS_SYSTEM_BUS_ADDRESS" in host.create_bus(type="system").env()
    assert "DBUS_SESSION_BUS_ADDRESS" in host.create_bus(type="session").env()


# -- S5


def test_semantics_s05_a_live_name_is_not_taken(
    host: ThreadHost, connect: Connect, tmp_path: Path
) -> None:
    bus = host.create_bus()
    client = connect(bus)
    client.own("com.example.A")
    with pytest.raises(OSError, match="Address already in use"):
        host.create_bus(bus.name)
    run = subprocess.run(
        [
            sys.executable, "-m", "afdbus.daemon_cli", "--nofork", "--print-address",
            f"--bus={bus.name}={config_file(tmp_path)}",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.endswith(
        f'Failed to start message bus: Failed to bind socket "{bus.name}": Address already in use\n'
    )
    client.alive()
    assert connect(bus).name == ":1.1"


# -- S6


def test_semantics_s06_the_policy_is_there_before_the_name(host: ThreadHost) -> None:
    name = fresh_name()
    with pytest.raises(ConfigError):
        host.create_bus(name, config="<busconfig><nonsense/></busconfig>")
    assert refuses(name)

    class Watched(os.PathLike[str]):
        """A path that is asked for just before the file is read."""

        def __fspath__(self) -> str:
            asked.append(is_free(name))
            return "/nonexistent/bus.conf"

    asked: list[bool] = []
    with pytest.raises(ConfigError):
        host.create_bus(name, config=Watched())
    assert asked
    assert all(asked)
    policy = "<policy context='default'><deny user='*'/></policy>"
    with RawClient(host.create_bus(name, policy=policy).address) as first:
        first.authenticate()
        assert first.closed() == []


# -- S7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_semantics_s07_the_end_of_the_creator(run: Run, tmp_path: Path, number: int) -> None:
    name = fresh_name()
    place = tmp_path / "tmp"
    place.mkdir()
    daemon = run([f"--bus={name}={config_file(tmp_path)}"], 1, TMPDIR=str(place))
    with RawClient(daemon.lines[0]) as client, RawClient(daemon.lines[0]) as half_way:
        client.join()
        half_way.send_bytes(b"\0AUTH ")
        client.sync()
        # one who is not accepted yet when it happens
        daemon.process.send_signal(signal.SIGSTOP)
        with RawClient(daemon.lines[0]) as late:
            daemon.process.send_signal(number)
            daemon.process.send_signal(signal.SIGCONT)
            for one in (client, half_way, late):
                assert one.closed() == []
        daemon.process.wait(TIMEOUT)
        assert is_free(name)
    assert os.listdir(place) == []


# -- S8


def test_semantics_s08_one_of_many_is_closed(host: ThreadHost, connect: Connect) -> None:
    buses = [host.create_bus() for _ in range(5)]
    clients = [connect(bus) for bus in buses]
    for client in clients:
        client.own("com.example.A")
        client.match("type='signal'")
    buses[2].close()
    clients[2].closed()
    for number in (0, 1, 3, 4):
        assert clients[number].sync() == []
        assert connect(buses[number]).name == ":1.1"


def test_semantics_s08_nobody_talks_on_a_bus_whose_name_is_free(
    host: ThreadHost, connect: Connect
) -> None:
    """No split brain: when the name can be bound, the last connection is at its end already."""
    bus = host.create_bus()
    clients = [connect(bus) for _ in range(10)]
    ended: list[bool] = []

    def squat() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            while True:
                try:
                    sock.bind("\0" + bus.name)
                    break
                except OSError:
                    continue
            for client in clients:
                client.sock.setblocking(False)
                data = b"x"
                while data:  # what the others' leaving has told is before the end
                    try:
                        data = client.sock.recv(65536)
                    except BlockingIOError:
                        break
                ended.append(not data)

    thread = threading.Thread(target=squat)
    thread.start()
    bus.close()
    thread.join()
    assert ended == [True] * len(clients)


# -- S9, S10


def test_semantics_s09_a_bus_made_again_inherits_nothing(
    host: ThreadHost, connect: Connect
) -> None:
    bus = host.create_bus()
    client = connect(bus)
    client.own("com.example.A")
    client.match("type='signal'")
    client.send(signal_of("Changed"))
    bus.close()
    again = host.create_bus(bus.name)
    assert again.guid != bus.guid
    fresh = connect(again)
    assert fresh.name == ":1.0"
    assert fresh.sync() == []
    assert fresh.bus("ListNames").args == ([BUS, ":1.0"],)
    assert fresh.bus("GetId").args == (again.guid,)
    assert again.statistics().match_rules == 0


def test_semantics_s10_unique_names_are_never_used_again(host: ThreadHost) -> None:
    bus = host.create_bus()
    names = []
    for _ in range(50):
        with RawClient(bus.address) as client:
            names.append(client.join())
    assert len(set(names)) == 50


# -- S11

INSIDE = """
import sys
from afdbus import ThreadHost
from kit import RawClient
with ThreadHost() as host:
    bus = host.create_bus(sys.argv[1])
    with RawClient("unix:abstract=" + sys.argv[1]) as client:
        client.join()
        print(bus.guid, client.bus("GetId").args[0], flush=True)
        sys.stdin.read()
"""


def test_semantics_s11_each_network_namespace_has_its_own_names(
    host: ThreadHost, connect: Connect, program: Callable[[str], str]
) -> None:
    unshare = program("unshare")
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    may = subprocess.run([unshare, "--net", "true"], capture_output=True, text=True, check=False)
    if may.returncode:
        pytest.skip(f"no network namespaces here: {may.stderr.strip()}")
    bus = host.create_bus()
    client = connect(bus)
    with subprocess.Popen(
        [unshare, "--net", sys.executable, "-c", INSIDE, bus.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as other:
        assert other.stdout is not None
        made, asked = other.stdout.readline().split()
        assert made == asked != bus.guid
        assert client.bus("GetId").args == (bus.guid,)
        connect(bus).alive()
        other.communicate()
    assert other.returncode == 0
