"""File descriptors on their way: one owner at a time, closed once (P29, CVE-2020-12049).

`sendmsg` gives the kernel its own duplicate, so a broadcast shares one `Fds` among its receivers
and no descriptor is ever duplicated here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def close_all(numbers: Iterable[int]) -> None:
    """Close descriptors that came with a message nobody gets."""
    for number in numbers:
        os.close(number)


class Fds:
    """The descriptors of one message, with a count of those who still need them.

    Whoever makes it holds it once; each outbox that queues it holds it once more.  The last
    `release` closes the descriptors.
    """

    __slots__ = ("numbers", "uses")

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.uses = 1

    def hold(self) -> None:
        self.uses += 1

    def release(self) -> None:
        self.uses -= 1
        if not self.uses:
            close_all(self.numbers)
