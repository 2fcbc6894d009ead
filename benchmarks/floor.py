"""What no Python program can do with less: `python benchmarks/floor.py`.

A relay that passes on bytes and understands nothing of them (`relay.py`) takes part in a comparison
where what it does is the same as what a bus does: one write for each message and receiver.  What it
takes is the kernel's and the interpreter's; only what afdbus takes beyond is the bus's.  `least` is
a relay that does what no bus can do without, and nothing else.
"""

from __future__ import annotations

from compare import SCENARIOS, main
from daemon import RELAYS, installed

SINGLE = (
    "ping",
    "ping a{sv}",
    "64 pairs",
    "bcast 10, one at a time",
    "bcast 100, one at a time",
)

if __name__ == "__main__":
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in SINGLE]
    main(__doc__, scenarios, [*RELAYS, *installed()])
