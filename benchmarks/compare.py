"""Compare afdbus with the daemons that are installed: `python benchmarks/compare.py`.

These are dbus-daemon and dbus-broker, and what counts is the ratio to each (see `measure`).
"""

from __future__ import annotations

import gc
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import commandline
import load
import plot
from daemon import installed
from measure import Measure, Scenario, cpu_under, measure_memory, measure_start, run
from report import OURS, draw, summary, table, versions


class HasOwner(load.Driver):
    member = "NameHasOwner"


class Seldom(load.Ping):
    """As on a desktop where not much goes on."""

    gap = 0.005


def pipe(content: tuple[str, bytes]) -> Measure:
    return cpu_under(lambda address: load.Pipe(address, content))


def broadcast(receivers: int, foreign: int = 0) -> Measure:
    return cpu_under(lambda address: load.Broadcast(address, receivers, foreign))


def one_at_a_time(receivers: int) -> Measure:
    return cpu_under(lambda address: load.OneAtATime(address, receivers))


SCENARIOS = (
    Scenario("ping", cpu_under(load.Ping), one_core=True),
    Scenario(
        "ping a{sv}", cpu_under(lambda address: load.Ping(address, load.DICTIONARY)), one_core=True
    ),
    Scenario("ping every 5 ms", cpu_under(Seldom), one_core=True),
    Scenario("64 pairs", cpu_under(lambda address: load.Pairs(address, 64))),
    Scenario("pipe 0", pipe(load.EMPTY)),
    Scenario("pipe a{sv}", pipe(load.DICTIONARY)),
    Scenario("pipe 1 KiB", pipe(load.bytes_of(1024))),
    Scenario("pipe 64 KiB", pipe(load.bytes_of(65536))),
    Scenario("NameHasOwner", cpu_under(HasOwner)),
    Scenario("GetNameOwner", cpu_under(load.Driver)),
    Scenario("bcast 1", broadcast(1)),
    Scenario("bcast 10", broadcast(10)),
    Scenario("bcast 100", broadcast(100)),
    Scenario("bcast 10, one at a time", one_at_a_time(10)),
    Scenario("bcast 100, one at a time", one_at_a_time(100)),
    Scenario("match 100", broadcast(1, 100)),
    Scenario("match 1000", broadcast(1, 1000)),
    Scenario("match 10000", broadcast(1, 10000)),
    Scenario("policy ping", cpu_under(load.Ping), one_core=True, system=True),
    Scenario("policy pipe 0", pipe(load.EMPTY), system=True),
    Scenario("churn", cpu_under(load.Churn)),
    Scenario("memory", measure_memory),
    Scenario("start", measure_start, broker=False),
)


def main(about: str | None, known: Sequence[Scenario], kinds: list[str]) -> None:
    """The program whose docstring is `about`, for these daemons and the scenarios `known`."""
    parser = commandline.parser(about, 5, 0.6)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a drawing of the ratios")
    options = parser.parse_args()
    scenarios = commandline.chosen(parser, options.only, known)
    if options.plot is not None:
        plot.require()
        if kinds == [OURS]:
            parser.error("no other daemon is installed: there is nothing to draw")
    if kinds == [OURS]:
        print("no other daemon is installed: there are no ratios", file=sys.stderr)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # no pause of the client may look like one of the daemon

    results = run(kinds, scenarios, options.rounds, options.secs)
    rows = list(summary(results))
    if options.json is not None:
        told = {"versions": versions(kinds), "summary": rows, "rounds": results}
        options.json.write_text(json.dumps(told, indent=1))
    if options.plot is not None:
        draw(results, options.plot)
    print(table(rows))


if __name__ == "__main__":
    main(__doc__, SCENARIOS, installed())
