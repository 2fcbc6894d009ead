"""How the plots of the benchmarks look.

matplotlib draws them, and nobody needs it who wants no plot: `pip install 'afdbus[benchmarks]'`.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLORS = {
    "afdbus": "#1b6ca8",
    "dbus-daemon": "#d1495b",
    "dbus-broker": "#6b8f3c",
    "relay": "#aaaaaa",
    "least": "#555555",
}

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    # Text stays text, and the same figures make the same file: a plot is under version control.
    "svg.fonttype": "none",
    "svg.hashsalt": "afdbus",
}


def require() -> None:
    """Tell whoever asks for a plot that matplotlib is missing, before anything is measured.

    Raises SystemExit.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("a plot needs matplotlib: pip install 'afdbus[benchmarks]'")


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of so many inches, empty (`figure.subplots(...)`), written to `path` in the end.

    The suffix of the path says in which format.  Raises OSError if it cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
