"""`--systemd-activation`: units are started by who owns org.freedesktop.systemd1.

That is a client of the test, which sees what it is asked for and says what comes of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kit import BUS, BUS_PATH, Daemon, Message, RawClient, Received, busconfig, call, peer_call
from kit import signal as signal_of

NAME, TWIN, OTHER = "com.example.Unit", "com.example.Twin", "com.example.Other"
PLAIN = "com.example.Plain"
SYSTEMD = "org.freedesktop.systemd1"
ACTIVATOR = f"{SYSTEMD}.Activator"
SERVICES = {
    NAME: "Exec=/bin/unit\nSystemdService=unit.service",
    TWIN: "Exec=/bin/twin\nSystemdService=unit.service",
    OTHER: "Exec=/bin/false\nSystemdService=other.service",
    PLAIN: "Exec=/bin/false",
}


@pytest.fixture
def begin(kind: str) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon with these services: `begin(policy=..., limit=...)`."""
    running: list[Daemon] = []

    def start(arguments: tuple[str, ...] = ("--systemd-activation",), **config: Any) -> Daemon:
        text = busconfig("<servicedir>{directory}/services</servicedir>", **config)
        daemon = Daemon(kind, text, list(arguments))
        running.append(daemon)
        (daemon.directory / "services").mkdir()
        for name, content in SERVICES.items():
            file = daemon.directory / "services" / f"{name}.service"
            file.write_text(f"[D-BUS Service]\nName={name}\n{content}\n")
        return daemon

    yield start
    for daemon in running:
        daemon.stop()


@pytest.fixture
def daemon(begin: Callable[..., Daemon]) -> Daemon:
    return begin()


def join(daemon: Daemon, count: int) -> list[RawClient]:
    return [daemon.connect() for _ in range(count)]


def systemd(daemon: Daemon, **rest: Any) -> RawClient:
    client = daemon.connect(**rest)
    client.own(SYSTEMD)
    return client


def start(name: str = NAME) -> Message:
    return call("StartServiceByName", "su", name, 0)


def request(name: str = NAME) -> Message:
    return call("RequestName", "su", name, 0)


def update(**variables: str) -> Message:
    return call("UpdateActivationEnvironment", "a{ss}", variables)


def failure(unit: str, name: str = "com.example.Error.Failed", text: str = "%s") -> Message:
    return signal_of(
        "ActivationFailure", "sss", unit, name, text,
        interface=ACTIVATOR, path=BUS_PATH, destination=BUS,
    )  # fmt: skip


def briefs(messages: list[Received]) -> list[tuple[Any, ...]]:
    return [message.brief for message in messages]


ASKED = "signal", "ActivationRequest", "unit.service"


def whole(message: Received) -> tuple[Any, ...]:
    return (
        message.brief, message.sender, message.destination, message.path, message.interface,
        message.raw[2],
    )  # fmt: skip


# -- asking


def test_systemd_is_asked_once_for_each_name(daemon: Daemon) -> None:
    alice, carol, bob = join(daemon, 3)
    manager = systemd(daemon)
    alice.send(peer_call(NAME, "A"))
    alice.send(start(NAME))
    assert alice.sync() == []
    carol.send(peer_call(NAME, "C"))
    carol.send(peer_call(TWIN, "T"))
    assert carol.sync() == []
    came = manager.sync()
    assert [whole(message) for message in came] == [
        (ASKED, BUS, SYSTEMD, BUS_PATH, ACTIVATOR, 1),
    ] * 2
    assert briefs(bob.exchange(request())) == [
        ("signal", "NameAcquired", NAME),
        ("call", "A"),
        ("call", "C"),
        ("return", 1),
    ]
    assert alice.briefs() == [("return", 1)]
    assert carol.sync() == manager.sync() == []


def test_what_is_no_unit_is_started_as_ever(daemon: Daemon) -> None:
    (alice,) = join(daemon, 1)
    manager = systemd(daemon)
    (answer,) = alice.exchange(start(PLAIN))
    assert answer.brief[1:] == (
        f"{BUS}.Error.Spawn.ChildExited",
        f"Process {PLAIN} exited with status 1",
    )
    assert manager.sync() == []


def test_without_the_option_units_are_programs(begin: Callable[..., Daemon]) -> None:
    daemon = begin(())
    (alice,) = join(daemon, 1)
    manager = systemd(daemon)
    (answer,) = alice.exchange(start(OTHER))
    assert answer.brief[1:] == (
        f"{BUS}.Error.Spawn.ChildExited",
        f"Process {OTHER} exited with status 1",
    )
    alice.exchange(update(A="1"))
    assert manager.sync() == []


@pytest.mark.parametrize("on", [True, False])
def test_the_feature_is_told(begin: Callable[..., Daemon], on: bool) -> None:
    daemon = begin(("--systemd-activation",) if on else ())
    (alice,) = join(daemon, 1)
    get = call("Get", "ss", BUS, "Features", interface=f"{BUS}.Properties")
    ((_, features),) = alice.ask(get).args
    assert ("SystemdActivation" in features) is on


# -- before systemd is there


def test_systemd_is_waited_for(daemon: Daemon) -> None:
    alice, bob, manager = join(daemon, 3)
    alice.send(peer_call(NAME, "A"))
    assert briefs(alice.exchange(update(A="1"))) == [("return",)]
    alice.send(peer_call(SYSTEMD, "S"))
    alice.send(start(SYSTEMD))
    alice.send(start(TWIN))
    assert alice.sync() == []
    came = manager.exchange(request(SYSTEMD))
    assert [message.brief for message in came] == [
        ("signal", "NameAcquired", SYSTEMD),
        ASKED,
        ("call", "SetEnvironment", ["A=1"]),
        ("call", "S"),
        ASKED,
        ("return", 1),
    ]
    assert [whole(message)[1:] for message in came[1:5]] == [
        (BUS, SYSTEMD, BUS_PATH, ACTIVATOR, 1),
        (BUS, SYSTEMD, f"/{SYSTEMD.replace('.', '/')}", f"{SYSTEMD}.Manager", 1),
        (alice.name, SYSTEMD, came[3].path, came[3].interface, 0),
        (BUS, SYSTEMD, BUS_PATH, ACTIVATOR, 1),
    ]
    assert alice.briefs() == [("return", 1)]
    assert briefs(bob.exchange(request()))[1] == ("call", "A")


def test_nobody_is_started_as_systemd(begin: Callable[..., Daemon]) -> None:
    daemon = begin()
    file = daemon.directory / "services" / f"{SYSTEMD}.service"
    file.write_text(f"[D-BUS Service]\nName={SYSTEMD}\nExec=/bin/false\n")
    alice, manager = join(daemon, 2)
    alice.send(start(SYSTEMD))
    assert alice.sync() == []
    manager.own(SYSTEMD)
    assert alice.briefs() == [("return", 1)]
    assert alice.ask(start(SYSTEMD)).brief == ("return", 2)


def test_systemd_does_not_come_in_time(begin: Callable[..., Daemon]) -> None:
    daemon = begin(service_start_timeout=300)
    (alice,) = join(daemon, 1)
    for name in (NAME, SYSTEMD):
        (answer,) = alice.exchange(start(name))
        assert answer.brief[1:] == (
            f"{BUS}.Error.TimedOut",
            f"Failed to activate service '{name}': timed out (service_start_timeout=300ms)",
        )


def test_what_waits_for_systemd_counts(begin: Callable[..., Daemon]) -> None:
    daemon = begin(max_pending_service_starts=3)
    (alice,) = join(daemon, 1)
    assert briefs(alice.exchange(update(A="1"))) == [("return",)]

    def refused(name: str) -> list[tuple[Any, ...]]:
        return [
            (
                "error",
                f"{BUS}.Error.LimitsExceeded",
                "The maximum number of pending activations has been reached, activation of "
                f"{name} failed (max_pending_service_starts=3)",
            )
        ]

    alice.send(peer_call(SYSTEMD, "S"))
    assert alice.sync() == []
    # the call itself would be the third, and the message to systemd one too many
    assert briefs(alice.exchange(peer_call(NAME, "A"))) == refused(SYSTEMD)
    alice.send(peer_call(SYSTEMD, "S"))
    assert briefs(alice.exchange(peer_call(NAME, "A"))) == refused(NAME)
    assert briefs(alice.exchange(update(B="1"))) == refused(SYSTEMD)
    manager = daemon.connect()
    assert briefs(manager.exchange(request(SYSTEMD)))[1:] == [
        ("call", "SetEnvironment", ["A=1"]),
        ("call", "S"),
        ("call", "S"),
        ("return", 1),
    ]


# -- failing


def test_failure_of_a_unit_is_passed_on(daemon: Daemon) -> None:
    alice, carol = join(daemon, 2)
    manager = systemd(daemon)
    alice.send(peer_call(NAME, "A"))
    alice.send(start(TWIN))
    alice.send(peer_call(OTHER, "O"))
    assert alice.sync() == []
    carol.send(peer_call(NAME, "C"))
    assert carol.sync() == []
    manager.send(failure("nothing.service"))
    manager.send(failure("unit.service"))
    other = "signal", "ActivationRequest", "other.service"
    assert briefs(manager.sync()) == [ASKED, ASKED, other]
    error = "error", "com.example.Error.Failed", "%s"
    assert alice.briefs() == [error, error]
    assert carol.briefs() == [error]
    manager.send(failure("other.service", "org.example.Bad", ""))
    manager.sync()
    assert alice.briefs() == [("error", "org.example.Bad", "")]
    alice.send(peer_call(NAME, "A"))
    assert alice.sync() == []
    assert manager.briefs() == [ASKED]


def test_cve_2015_0245_only_systemd_may_tell_of_a_failure(daemon: Daemon) -> None:
    alice, eve = join(daemon, 2)
    alice.send(peer_call(NAME, "A"))
    eve.send(failure("unit.service"))
    assert eve.sync() == []
    manager = daemon.connect()
    assert ASKED in briefs(manager.exchange(request(SYSTEMD)))
    eve.send(failure("unit.service"))
    assert eve.sync() == alice.sync() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="to be another user one has to be root")
def test_cve_2015_0245_systemd_has_to_be_privileged(daemon: Daemon) -> None:
    (alice,) = join(daemon, 1)
    manager = systemd(daemon, uid=65534)
    alice.send(peer_call(NAME, "A"))
    assert alice.sync() == []
    assert manager.briefs() == [ASKED]
    (answer,) = manager.exchange(failure("unit.service"))
    kind, name, text = answer.brief
    assert (kind, name) == ("error", f"{BUS}.Error.AccessDenied")
    attempt = "rejected attempt to call ActivationFailure by connection"
    assert text.startswith(f"{attempt} {manager.name} (")
    assert alice.sync() == []


def test_a_failure_is_no_news_where_systemd_starts_nothing(begin: Callable[..., Daemon]) -> None:
    daemon = begin(())
    manager = systemd(daemon)
    manager.send(failure("unit.service"))
    assert manager.sync() == []


# -- the environment


def test_the_environment_is_passed_on(daemon: Daemon) -> None:
    alice, watcher = join(daemon, 2)
    manager = systemd(daemon)
    become = call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring")
    watcher.exchange(become)
    variables = {"A": "1", "X=Y": "2", "": "3"}
    answer = alice.ask(call("UpdateActivationEnvironment", "a{ss}", variables))
    assert answer.brief == ("return",)
    (told,) = manager.sync()
    assert told.brief == ("call", "SetEnvironment", ["A=1", "X=Y=2", "=3"])
    path, interface = f"/{SYSTEMD.replace('.', '/')}", f"{SYSTEMD}.Manager"
    assert whole(told)[1:] == (BUS, manager.name, path, interface, 1)
    seen = watcher.read_until(lambda m: m.raw == answer.raw, "the answer")
    assert [m.member for m in seen[-3:]] == [
        "UpdateActivationEnvironment", "SetEnvironment", None,
    ]  # fmt: skip


# -- policy and monitors

POLICY = """
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
    <allow receive_type="method_call"/><allow receive_type="error"/>
    <allow receive_type="method_return"/><allow receive_type="signal"/>
    {rule}
  </policy>"""


def test_who_may_not_call_does_not_start(begin: Callable[..., Daemon]) -> None:
    daemon = begin(policy=POLICY.format(rule=f'<deny send_destination="{NAME}"/>'))
    (alice,) = join(daemon, 1)
    manager = systemd(daemon)
    (answer,) = alice.exchange(peer_call(NAME, "A"))
    assert answer.brief[1] == f"{BUS}.Error.AccessDenied"
    assert answer.brief[2].startswith("Rejected send message, ")
    assert manager.sync() == []


def test_systemd_may_not_be_asked(begin: Callable[..., Daemon]) -> None:
    daemon = begin(policy=POLICY.format(rule=f'<deny receive_interface="{ACTIVATOR}"/>'))
    (alice,) = join(daemon, 1)
    manager = systemd(daemon)
    for message in (peer_call(NAME, "A"), start()):
        (answer,) = alice.exchange(message)
        assert answer.brief[1] == f"{BUS}.Error.AccessDenied"
        assert answer.brief[2].startswith("Rejected receive message, ")
        assert f'interface="{ACTIVATOR}" member="ActivationRequest"' in answer.brief[2]
        assert f'destination="{SYSTEMD}"' in answer.brief[2]
    assert manager.sync() == []


def test_cve_2014_3477_held_messages_are_judged_again(begin: Callable[..., Daemon]) -> None:
    """CVE-2014-3477: systemd gets what it may have, and its name in any case."""
    rule = '<deny receive_interface="com.example.Interface" receive_type="method_call"/>'
    daemon = begin(policy=POLICY.format(rule=rule))
    alice, manager = join(daemon, 2)
    alice.send(peer_call(SYSTEMD, "S"))
    alice.send(start(NAME))
    assert alice.sync() == []
    assert briefs(manager.exchange(request(SYSTEMD)))[1:] == [ASKED, ("return", 1)]
    (answer,) = alice.sync()
    assert answer.brief[1] == f"{BUS}.Error.AccessDenied"


def test_monitors_see_what_systemd_is_asked_for_when_it_is(daemon: Daemon) -> None:
    alice, watcher = join(daemon, 2)
    become = call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring")
    watcher.exchange(become)
    alice.send(peer_call(NAME, "A"))
    answer = alice.ask(call("GetId"))
    seen = watcher.read_until(lambda m: m.raw == answer.raw, "the answer to GetId")
    at = next(n for n, message in enumerate(seen) if message.member == "A")
    assert seen[at - 1].brief == ASKED
    manager = systemd(daemon)
    answer = manager.ask(call("GetId"))
    seen = watcher.read_until(lambda m: m.raw == answer.raw, "the answer to GetId")
    assert "ActivationRequest" not in [message.member for message in seen]


def test_monitors_see_who_fails_before_systemd_says_so(daemon: Daemon) -> None:
    alice, watcher = join(daemon, 2)
    manager = systemd(daemon)
    alice.send(peer_call(NAME, "A"))
    alice.sync()
    watcher.exchange(call("BecomeMonitor", "asu", [], 0, interface=f"{BUS}.Monitoring"))
    manager.send(failure("unit.service"))
    seen = watcher.read_until(lambda m: m.member == "ActivationFailure", "the failure")
    assert seen[-2].brief == ("error", "com.example.Error.Failed", "%s")


def test_who_eavesdrops_hears_it_when_it_is_delivered(daemon: Daemon) -> None:
    alice, eve = join(daemon, 2)
    eve.match(f"eavesdrop='true',interface='{ACTIVATOR}'")
    manager = systemd(daemon)
    alice.send(peer_call(NAME, "A"))
    assert alice.sync() == []
    assert manager.briefs() == [ASKED]
    assert eve.briefs() == [ASKED]


def test_what_waits_leaves_with_its_sender_but_the_request_stays(daemon: Daemon) -> None:
    alice, carol, bob, manager = join(daemon, 4)
    alice.send(peer_call(NAME, "A"))
    alice.sync()
    alice.close()
    carol.until_gone(alice.name)
    assert briefs(manager.exchange(request(SYSTEMD)))[1:] == [ASKED, ("return", 1)]
    assert briefs(bob.exchange(request())) == [("signal", "NameAcquired", NAME), ("return", 1)]
