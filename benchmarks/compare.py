"""Compare afdbus with the installed dbus-daemon: `python benchmarks/compare.py`.

What counts is the CPU time that a daemon takes for a message, and the ratio of the two.  They are
measured in turn, in one run, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import load
from client import Client
from daemon import COMMANDS, Daemon

import afdbus

WARM_UP = 0.3  # of the time of a measurement, before it
IDLE_CLIENTS = 1000
RULES = 10000

Figures = dict[str, float]  # metric (its unit is the end of its name): value
Measure = Callable[[Daemon, float], Figures]


class Scenario(NamedTuple):
    """What is done to a daemon; with `one_core` its client works on the same core."""

    name: str
    measure: Measure
    one_core: bool = False


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
    for number in range(RULES):
        clients[number % 50].call("AddMatch", "s", load.foreign_rule(number))
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


def pipe(content: tuple[str, bytes]) -> Measure:
    return cpu_under(lambda address: load.Pipe(address, content))


def broadcast(receivers: int, foreign: int = 0) -> Measure:
    return cpu_under(lambda address: load.Broadcast(address, receivers, foreign))


SCENARIOS = (
    Scenario("ping", cpu_under(load.Ping), one_core=True),
    Scenario(
        "ping a{sv}", cpu_under(lambda address: load.Ping(address, load.DICTIONARY)), one_core=True
    ),
    Scenario("64 pairs", cpu_under(lambda address: load.Pairs(address, 64))),
    Scenario("pipe 0", pipe(load.EMPTY)),
    Scenario("pipe a{sv}", pipe(load.DICTIONARY)),
    Scenario("pipe 1 KiB", pipe(load.bytes_of(1024))),
    Scenario("pipe 64 KiB", pipe(load.bytes_of(65536))),
    Scenario("driver", cpu_under(load.Driver)),
    Scenario("bcast 1", broadcast(1)),
    Scenario("bcast 10", broadcast(10)),
    Scenario("bcast 100", broadcast(100)),
    Scenario("match 1000", broadcast(1, 1000)),
    Scenario("churn", cpu_under(load.Churn)),
    Scenario("memory", measure_memory),
    Scenario("start", measure_start),
)


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
    results: dict[str, dict[str, list[Figures]]] = {
        scenario.name: {kind: [] for kind in kinds} for scenario in scenarios
    }
    for turn in range(rounds):
        first = turn % len(kinds)
        for scenario in scenarios:
            for kind in kinds[first:] + kinds[:first]:
                with on_cores(turn, scenario.one_core) as move_away, Daemon(kind) as daemon:
                    move_away()
                    figures = scenario.measure(daemon, seconds)
                results[scenario.name][kind].append(figures)
                gc.collect()
            print(f"round {turn + 1} of {rounds}: {scenario.name}", file=sys.stderr)
    return results


def summary(results: dict[str, dict[str, list[Figures]]]) -> Iterator[dict[str, Any]]:
    """One row for each scenario and metric: medians, and the median of the rounds' ratios."""
    for scenario, daemons in results.items():
        for metric in next(iter(daemons.values()))[0]:
            row: dict[str, Any] = {"scenario": scenario, "metric": metric}
            for kind, rounds in daemons.items():
                row[kind] = statistics.median(figures[metric] for figures in rounds)
            if len(daemons) == 2:
                both = zip(daemons["afdbus"], daemons["dbus-daemon"], strict=True)
                row["ratio"] = statistics.median(a[metric] / b[metric] for a, b in both)
            yield row


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---", "---", *["---:"] * (len(columns) - 2)]]
    for row in rows:
        figures = [f"{row[column]:.4g}" for column in columns[2:]]
        lines.append([row["scenario"], row["metric"], *figures])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def versions(kinds: list[str]) -> dict[str, str]:
    told = {"python": platform.python_version(), "kernel": platform.release()}
    told["afdbus"] = afdbus.__version__
    if "dbus-daemon" in kinds:
        command = [*COMMANDS["dbus-daemon"], "--version"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told["dbus-daemon"] = text.split("\n")[0].split()[-1]
    return told


def main(about: str | None, known: Sequence[Scenario]) -> None:
    """The program whose docstring is `about`, for the scenarios that are `known`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--secs", type=float, default=0.6, help="seconds of a measurement (default: %(default)s)"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="only scenarios called so")
    parser.add_argument("--json", action="store_true", help="all figures, instead of a table")
    options = parser.parse_args()
    scenarios = [scenario for scenario in known if re.search(options.only, scenario.name)]
    if not scenarios:
        parser.error("no scenario is called so; there are " + ", ".join(s.name for s in known))
    kinds = [kind for kind, command in COMMANDS.items() if shutil.which(command[0])]
    if "dbus-daemon" not in kinds:
        print("dbus-daemon is not installed: there are no ratios", file=sys.stderr)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # no pause of the client may look like one of the daemon

    results = run(kinds, scenarios, options.rounds, options.secs)
    rows = list(summary(results))
    if options.json:
        told = {"versions": versions(kinds), "summary": rows, "rounds": results}
        print(json.dumps(told, indent=1))
    else:
        print(table(rows))


if __name__ == "__main__":
    main(__doc__, SCENARIOS)
