"""Does a message cost more the more there is on the bus?  `python benchmarks/growth.py`.

Connections, names, match rules, open calls, queued bytes: of each there are ten times as many, time
after time, while the same is said.  What counts is the CPU time that a daemon takes for a message:
flat, or growing with the logarithm at most.  afdbus and the installed dbus-daemon take turns.
"""

from __future__ import annotations

import gc
import json
import resource
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import commandline
import plot
from crowds import Connections, Crowd, Names, Pending, Queued, Rules
from daemon import COMMANDS, Daemon
from load import Load
from measure import cpu_under, on_cores
from report import versions

COUNTS = (10, 100, 1000, 10_000)
BYTES = (64 * 1024, 640 * 1024, 6400 * 1024, 64_000 * 1024)
# Descriptors that a daemon, and this program, have besides those of idle connections.
SPARE = 128
COLUMNS = 4


class Conversation(NamedTuple):
    """What is said, and what there is to pay for; `of` is what begins it with a crowd."""

    what: str
    unit: str
    of: Callable[[Any], Load]


class Thing(NamedTuple):
    """What grows, to which sizes, and what is said meanwhile."""

    name: str
    crowd: type[Crowd]
    sizes: tuple[int, ...]
    conversations: tuple[Conversation, ...]


THINGS = (
    Thing("connections", Connections, COUNTS, (
        Conversation("ping of two others", "round trip", Connections.ping),
        Conversation("one comes and goes", "client", Connections.churn),
    )),
    Thing("names", Names, COUNTS, (
        Conversation("calls to all of them", "message", Names.call),
        Conversation("GetNameOwner of all of them", "call", Names.look_up),
        Conversation("RequestName, ReleaseName", "call", Names.change),
        Conversation("new signals of their owner", "message", Names.signal),
    )),
    Thing("match rules", Rules, COUNTS, (
        Conversation("the same signal", "message", Rules.signal),
        Conversation("new signals", "message", Rules.signals),
        Conversation("AddMatch, RemoveMatch", "call", Rules.change),
        Conversation("one comes and goes", "client", Rules.churn),
    )),
    Thing("open calls", Pending, COUNTS, (
        Conversation("calls and replies of the caller", "message", Pending.own),
        Conversation("calls and replies of others", "message", Pending.other),
        Conversation("another callee goes", "client", Pending.parting),
    )),
    Thing("queued bytes", Queued, BYTES, (
        Conversation("calls and replies of others", "message", Queued.other),
        Conversation("signals for who has the queue", "message", Queued.more),
    )),
)  # fmt: skip


class Curve(NamedTuple):
    """daemon -> for each size the figures of all rounds, in microseconds of CPU time."""

    thing: str
    what: str
    unit: str
    sizes: tuple[int, ...]
    cpu_us: dict[str, list[list[float]]]

    def medians(self, kind: str) -> list[float]:
        return [statistics.median(figures) for figures in self.cpu_us[kind]]


def within_limits(things: list[Thing], largest: int) -> list[Thing]:
    """The things in the sizes that are asked for, and that the limit of descriptors allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = []
    for thing in things:
        sizes = thing.sizes[: sum(count <= largest for count in COUNTS)]
        if thing.crowd is Connections:
            sizes = tuple(size for size in sizes if size + SPARE <= hard)
        found.append(thing._replace(sizes=sizes))
    return found


def run(kinds: list[str], things: list[Thing], rounds: int, seconds: float) -> list[Curve]:
    curves = {
        (thing.name, conversation.what): Curve(
            thing.name, conversation.what, conversation.unit, thing.sizes,
            {kind: [[] for _ in thing.sizes] for kind in kinds},
        )
        for thing in things for conversation in thing.conversations
    }  # fmt: skip
    for turn in range(rounds):
        first = turn % len(kinds)
        for thing in things:
            for place, size in enumerate(thing.sizes):
                for kind in kinds[first:] + kinds[:first]:
                    for what, cpu_us in measure(kind, thing, size, turn, seconds):
                        curves[thing.name, what].cpu_us[kind][place].append(cpu_us)
                    gc.collect()
                print(f"round {turn + 1} of {rounds}: {thing.name} {size}", file=sys.stderr)
    return list(curves.values())


def measure(
    kind: str, thing: Thing, size: int, turn: int, seconds: float
) -> Iterator[tuple[str, float]]:
    """Hold every conversation on one bus with so many of the thing, all on one core: nobody is
    faster than the other, so that a daemon finds as much to do at a time in each round."""
    with on_cores(turn, True), Daemon(kind) as daemon:
        crowd = thing.crowd(daemon.address, size)
        for conversation in thing.conversations:
            hold = cpu_under(lambda _: conversation.of(crowd))  # noqa: B023 - called at once
            yield conversation.what, hold(daemon, seconds)["cpu_us"]
        crowd.close()


def grown(cost: list[float]) -> float:
    """How many times the first cost the last is."""
    return cost[-1] / cost[0]


def written(size: int, thing: str) -> str:
    return f"{size // 1024} KiB" if thing == "queued bytes" else f"{size}"


def table(curves: list[Curve]) -> str:
    """Microseconds for each size, and how many times the first the last is."""
    lines = []
    before = ""
    for curve in curves:
        if curve.thing != before:
            before = curve.thing
            sizes = [written(size, curve.thing) for size in curve.sizes]
            columns = [curve.thing, "", *sizes, "grown"]
            lines += [columns, ["---", "---", *["---:"] * (len(columns) - 2)]]
        for kind in curve.cpu_us:
            cost = curve.medians(kind)
            figures = [f"{figure:.4g}" for figure in cost]
            lines.append([f"{curve.what} ({curve.unit})", kind, *figures, f"{grown(cost):.2f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(curves: list[Curve], path: Path) -> None:
    rows = -(-len(curves) // COLUMNS)
    with plot.drawn(path, 2.7 * COLUMNS, 2.3 * rows) as figure:
        panels = list(figure.subplots(rows, COLUMNS, sharey=True).flat)
        for panel, curve in zip(panels, curves, strict=False):
            for kind in curve.cpu_us:
                panel.plot(
                    curve.sizes, curve.medians(kind), "o-", label=kind, color=plot.COLORS[kind]
                )
            panel.set(xscale="log", yscale="log", xlabel=curve.thing, title=curve.what)
            panel.minorticks_off()
            panel.text(0.02, 0.98, f"µs per {curve.unit}", transform=panel.transAxes, va="top")
        for panel in panels[len(curves) :]:
            panel.set_axis_off()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="lower right")
        figure.suptitle("CPU time of the daemon, the more there is on the bus")


def main() -> None:
    parser = commandline.parser(__doc__, 3, 0.2)
    parser.add_argument(
        "--largest", type=int, default=COUNTS[-1], help="no more of a thing (default: %(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a drawing, as docs/growth.svg")
    options = parser.parse_args()
    things = commandline.chosen(parser, options.only, THINGS)
    if options.plot is not None:
        plot.require()
    kinds = [kind for kind, command in COMMANDS.items() if shutil.which(command[0])]
    gc.disable()  # no pause of the client may look like one of the daemon

    curves = run(kinds, within_limits(things, options.largest), options.rounds, options.secs)
    if options.json is not None:
        told = {"versions": versions(kinds), "curves": [curve._asdict() for curve in curves]}
        options.json.write_text(json.dumps(told, indent=1))
    if options.plot is not None:
        draw(curves, options.plot)
    print(table(curves))


if __name__ == "__main__":
    main()
