"""What one may say to all programs that compare daemons."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class Named(Protocol):
    """What is measured."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def parser(about: str | None, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """For the program whose docstring is `about`; how often and how long it measures by itself."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    made.add_argument(
        "--secs",
        type=float,
        default=seconds,
        help="seconds of a measurement (default: %(default)s)",
    )
    made.add_argument("--only", default="", metavar="REGEX", help="only what is called so")
    made.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    return made


def chosen(made: argparse.ArgumentParser, only: str, known: Sequence[N]) -> list[N]:
    """Those of `known` that `--only` asks for; ends the program if there are none."""
    found = [one for one in known if re.search(only, one.name)]
    if not found:
        made.error("nothing is called so; there are " + ", ".join(one.name for one in known))
    return found
