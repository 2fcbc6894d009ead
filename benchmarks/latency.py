"""How long a ping takes while others disturb: `python benchmarks/latency.py`.

A ping is a call and its reply between two clients of one process, one at a time, a millisecond
after the other.  Both daemons are pinged in turn, in one run; what counts is the ratio of the two.
The daemon has one core, and whoever pings has the other.  Whoever disturbs is a process of its own
on the core of the pings, and yields to them (see `disturb`), so that a ping waits for the daemon
and never for a client.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import commandline
import load
from daemon import COMMANDS, Daemon
from measure import Figures, on_cores
from report import summary, table, versions
from systembus import system_configuration

BENCHMARKS = Path(__file__).parent
EVERY = 0.001  # seconds from one ping to the next, at least
WARM_UP = 0.2  # of the time of a measurement, before it


class Situation(NamedTuple):
    """What goes on while somebody pings: a kind of `disturb`, if anything; `system` is whether
    the bus has the policy of a system bus with many services."""

    name: str
    kind: str = ""
    system: bool = False


SITUATIONS = (
    Situation("nothing else"),
    Situation("one floods", "flood"),
    Situation("one floods in bulk", "flood in bulk"),
    Situation("one floods, new headers", "flood of new headers"),
    Situation("eight flood", "eight floods"),
    Situation("eight flood, new headers", "eight floods of new headers"),
    Situation("eight flood in bulk", "eight floods in bulk"),
    Situation("one is stuck", "stuck"),
    Situation("system bus, nothing else", system=True),
    Situation("system bus, reloads", "reload", system=True),
    Situation("system bus, reloads of changes", "changed", system=True),
    Situation("1000 connects a second", "connects"),
    Situation("1000 connects a second, in crowds", "crowds"),
)


def measure(situation: Situation, daemon: Daemon, seconds: float, fragment: Path) -> Figures:
    """Ping for so long while it goes on."""
    daemon.arrive()
    ping = load.Ping(daemon.address)
    with disturbed(situation, daemon, fragment) as rate:
        pings(ping, seconds * WARM_UP)
        before = ping.done
        pings(ping, seconds)
    ping.close()
    cuts = statistics.quantiles(ping.latencies[before:], n=100)
    return {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6, **rate}


def pings(ping: load.Ping, seconds: float) -> None:
    """Ping for so long, and until there is something to tell."""
    due = time.perf_counter()
    end = due + seconds
    least = ping.done + 2
    while due < end or ping.done < least:
        ping.step(True)
        now = time.perf_counter()
        due = max(due + EVERY, now)
        time.sleep(due - now)


@contextlib.contextmanager
def disturbed(situation: Situation, daemon: Daemon, fragment: Path) -> Iterator[Figures]:
    """While it goes on; afterwards the figures say how often the disturber did what it does."""
    rate: Figures = {}
    if not situation.kind:
        yield rate
        return
    command = [sys.executable, str(BENCHMARKS / "disturb.py"), situation.kind, daemon.address]
    with subprocess.Popen(
        [*command, str(fragment)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"nobody disturbs: {situation.kind}")
        yield rate
        told, _ = process.communicate()
        rate["disturbed_per_s"] = float(told)


def run(
    kinds: list[str], situations: list[Situation], rounds: int, seconds: float
) -> dict[str, dict[str, list[Figures]]]:
    """situation -> daemon -> figures, one for each round."""
    results: dict[str, dict[str, list[Figures]]] = {
        situation.name: {kind: [] for kind in kinds} for situation in situations
    }
    with tempfile.TemporaryDirectory() as folder:
        system, fragment = system_configuration(Path(folder))
        for turn in range(rounds):
            first = turn % len(kinds)
            for situation in situations:
                config = system if situation.system else None
                for kind in kinds[first:] + kinds[:first]:
                    with on_cores(turn, False) as move_away, Daemon(kind, config) as daemon:
                        move_away()
                        figures = measure(situation, daemon, seconds, fragment)
                    results[situation.name][kind].append(figures)
                    gc.collect()
                print(f"round {turn + 1} of {rounds}: {situation.name}", file=sys.stderr)
    return results


def main() -> None:
    parser = commandline.parser(__doc__, 3, 1.5)
    options = parser.parse_args()
    situations = commandline.chosen(parser, options.only, SITUATIONS)
    kinds = [kind for kind, command in COMMANDS.items() if shutil.which(command[0])]
    if "dbus-daemon" not in kinds:
        print("dbus-daemon is not installed: there are no ratios", file=sys.stderr)
    gc.disable()  # no pause of the client may look like one of the daemon

    results = run(kinds, situations, options.rounds, options.secs)
    rows = list(summary(results))
    print(table(rows))
    if options.json is not None:
        told = {"versions": versions(kinds), "summary": rows, "rounds": results}
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
