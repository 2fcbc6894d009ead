"""What comes out of a comparison: a table, a drawing, and what was compared."""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plot
from measure import Figures

import afdbus

OURS = "afdbus"
BUSES = ("dbus-daemon", "dbus-broker")
RELAYS = ("relay", "least")
OTHERS = (*BUSES, *RELAYS)

Results = dict[str, dict[str, list[Figures]]]  # scenario -> daemon -> figures of each round

# What is drawn: what one pays, and not what depends on the clients as well.
DRAWN = {
    "cpu_us": "",
    "idle_KiB": "idle",
    "connection_KiB": "a connection",
    "rule_B": "a match rule",
    "address_ms": "to the address",
    "hello_ms": "to the first answer",
}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


def ratios(daemons: dict[str, list[Figures]], metric: str, other: str) -> list[float]:
    """How many times what the other takes ours takes, in each round."""
    both = zip(daemons[OURS], daemons[other], strict=True)
    return [ours[metric] / theirs[metric] for ours, theirs in both]


def summary(results: Results) -> Iterator[dict[str, Any]]:
    """One row for each scenario and metric: medians, and the medians of the rounds' ratios."""
    for scenario, daemons in results.items():
        for metric in daemons[OURS][0]:
            row: dict[str, Any] = {"scenario": scenario, "metric": metric}
            for kind, rounds in daemons.items():
                row[kind] = statistics.median(figures[metric] for figures in rounds)
            row["ratios"] = {
                other: statistics.median(ratios(daemons, metric, other))
                for other in OTHERS
                if other in daemons
            }
            yield row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of a summary; what was not measured is a dash."""
    kinds = [kind for kind in (*OTHERS, OURS) if any(kind in row for row in rows)]
    others = [f"to {kind}" for kind in kinds if kind != OURS]
    lines = [["scenario", "metric", *kinds, *others]]
    lines.append(["---", "---", *["---:"] * (len(lines[0]) - 2)])
    for row in rows:
        figures = [f"{row[kind]:.4g}" if kind in row else "-" for kind in kinds]
        for other in kinds[:-1]:
            figures.append(f"{row['ratios'][other]:.2f}" if other in row["ratios"] else "-")
        lines.append([row["scenario"], row["metric"], *figures])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(results: Results, path: Path) -> None:
    """A row for each scenario: the median of the ratios, and a line from the least to the most."""
    rows = [
        (f"{scenario}: {DRAWN[metric]}" if DRAWN[metric] else scenario, daemons, metric)
        for scenario, daemons in results.items()
        for metric in daemons[OURS][0]
        if metric in DRAWN
    ]
    with plot.drawn(path, 7, 1 + 0.24 * len(rows)) as figure:
        axes = figure.subplots()
        axes.axvline(1, color="black", linewidth=1)
        for other, aside in zip(OTHERS, (-0.12, 0.12, 0, 0), strict=True):
            color = plot.COLORS[other]
            found = [
                (place + aside, ratios(daemons, metric, other))
                for place, (_, daemons, metric) in enumerate(rows)
                if other in daemons
            ]
            if not found:
                continue
            for place, spread in found:
                axes.plot([min(spread), max(spread)], [place, place], color=color, alpha=0.5)
            medians = [statistics.median(spread) for _, spread in found]
            axes.plot(medians, [place for place, _ in found], "o", color=color, label=f"to {other}")
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
        least, most = axes.get_xlim()
        ticks = [tick for tick in TICKS if least <= tick <= most]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_title("What afdbus takes, as a multiple of what others take")
        axes.set_xlabel("less than 1 is less; CPU time of the daemon, but for memory and start")
        axes.legend(loc="lower left")


def versions(kinds: list[str]) -> dict[str, str]:
    """Of everything that has a part in a comparison."""
    told = {"python": platform.python_version(), "kernel": platform.release()}
    told[OURS] = afdbus.__version__
    for kind in BUSES:
        if kind in kinds:
            text = subprocess.run([kind, "--version"], capture_output=True, text=True, check=True)
            told[kind] = text.stdout.split("\n")[0].split()[-1]
    return told
