"""One measurement of one daemon, and all of them in turn.

What counts is the CPU time that a daemon takes for a message, and the ratio of the two.  They are
measured in turn, in one run, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import load
from client import Client
from daemon import BROKER, Daemon
from systembus import system_configuration

WARM_UP = 0.3  # of the time of a measurement, before it
IDLE_CLIENTS = 1000
RULES = 10000

Figures = dict[str, float]  # metric (its unit is the end of its name): value
Measure = Callable[[Daemon, float], Figures]


class Scenario(NamedTuple):
    """What is done to a daemon.

    With `one_core` its client works on the same core; `system` is whether the bus has the policy of
    a system bus with many services; `broker`, whether it says anything about dbus-broker.
    """

    name: str
    measure: Measure
    one_core: bool = False
    system: bool = False
    broker: bool = True


def cpu_under(make: Callable[[str], load.Load]) -> Measure:
    """CPU time for each thing done under a load."""

    def measure(daemon: Daemon, seconds: float) -> Figures:
        daemon.arrive()
        source = make(daemon.address)
        work(source, seconds * WARM_UP)
        before, cpu, begun = source.done, daemon.cpu(), time.perf_counter()
        work(source, seconds)
        took = time.perf_counter() - begun
        cpu, done = daemon.cpu() - cpu, source.done - before
        figures = {"cpu_us": cpu / done * 1e6, "per_s": done / took}
        if isinstance(source, load.Ping):
            cuts = statistics.quantiles(source.latencies[before:], n=100)
            figures |= {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6}
        source.close()
        return figures

    return measure


def work(source: load.Load, seconds: float) -> None:
    """Keep the daemon busy, until there is something to measure; then let it come to rest."""
    end = time.perf_counter() + seconds
    least = source.done + 2
    while time.perf_counter() < end or source.done < least:
        source.step(True)
    while source.under_way:
        source.step(False)


def measure_memory(daemon: Daemon, seconds: float) -> Figures:
    """What an idle daemon, an idle connection and a match rule cost."""
    daemon.arrive()
    clients = [Client(daemon.address)]
    idle = daemon.memory()
    clients += [Client(daemon.address) for _ in range(IDLE_CLIENTS)]
    connected = daemon.memory()
    load.add_foreign_rules(clients[:50], RULES)
    rules = daemon.memory()
    for client in clients:
        client.close()
    return {
        "idle_KiB": idle / 1024,
        "connection_KiB": (connected - idle) / IDLE_CLIENTS / 1024,
        "rule_B": (rules - connected) / RULES,
    }


def measure_start(daemon: Daemon, seconds: float) -> Figures:
    """From the exec to the address, and to the answer to the first Hello."""
    client = Client(daemon.address)
    greeted = time.perf_counter()
    figures = {
        "address_ms": (daemon.told - daemon.started) * 1e3,
        "hello_ms": (greeted - daemon.started) * 1e3,
        "cpu_ms": daemon.cpu() * 1e3,
    }
    client.close()
    return figures


@contextlib.contextmanager
def on_cores(turn: int, one_core: bool) -> Iterator[Callable[[], None]]:
    """The daemon is started on one core; the function that is given moves its client away.

    Daemon and client change places from round to round, as cores are not all alike.
    """
    cores = sorted(os.sched_getaffinity(0))
    here = cores[turn % len(cores)]
    away = here if one_core else cores[(turn + 1) % len(cores)]
    os.sched_setaffinity(0, {here})
    try:
        yield lambda: os.sched_setaffinity(0, {away})
    finally:
        os.sched_setaffinity(0, cores)


def run(
    kinds: list[str], scenarios: list[Scenario], rounds: int, seconds: float
) -> dict[str, dict[str, list[Figures]]]:
    """scenario -> daemon -> figures, one for each round."""
    results: dict[str, dict[str, list[Figures]]] = {}
    for turn in range(rounds):
        first = turn % len(kinds)
        for scenario in scenarios:
            found = results.setdefault(scenario.name, {})
            for kind in kinds[first:] + kinds[:first]:
                if scenario.broker or kind not in BROKER:
                    found.setdefault(kind, []).append(measured(kind, scenario, turn, seconds))
                    gc.collect()
            print(f"round {turn + 1} of {rounds}: {scenario.name}", file=sys.stderr)
    return results


def measured(kind: str, scenario: Scenario, turn: int, seconds: float) -> Figures:
    with (
        tempfile.TemporaryDirectory(prefix="compare-") as folder,
        on_cores(turn, scenario.one_core) as move_away,
    ):
        config = system_configuration(Path(folder))[0] if scenario.system else None
        with Daemon(kind, config) as daemon:
            move_away()
            return scenario.measure(daemon, seconds)
