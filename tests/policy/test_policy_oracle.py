"""dbus-daemon and ours under policies made at random: whatever is said, all hear the same.

AFDBUS_TEST_PAIRS says how many messages are to be judged; without AFDBUS_TEST_SEED they are the
same ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from conversations import Leave, Load, Send, Stage, Step, come, differ, match
from generator import conversations
from hypothesis import HealthCheck, given, seed, settings
from kit import METHOD_CALL, METHOD_RETURN
from policies import OPEN

PAIRS = int(os.environ.get("AFDBUS_TEST_PAIRS", "300"))
SEED = os.environ.get("AFDBUS_TEST_SEED")
MESSAGES = 15  # in each conversation

Stages = tuple[Stage, Stage]


@pytest.fixture(scope="module")
def stages(program: Callable[[str], str]) -> Iterator[Stages]:
    program("dbus-daemon")
    with closing(Stage("dbus-daemon")) as theirs, closing(Stage("afdbus")) as ours:
        yield theirs, ours


def test_both_daemons_decide_alike(stages: Stages) -> None:
    judged = 0

    @settings(
        max_examples=-(-PAIRS // MESSAGES),
        deadline=None,
        database=None,
        derandomize=SEED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(conversations(MESSAGES))
    def converse(steps: list[Step]) -> None:
        nonlocal judged
        judged += MESSAGES
        difference = differ(stages, steps)
        assert not difference, difference

    (converse if SEED is None else seed(int(SEED))(converse))()
    assert judged >= PAIRS


# What once was judged differently.
FOUND: dict[str, list[Step]] = {
    "a refused answer uses up the call": [
        Load(OPEN),
        *come("alice", "bob"),
        Load(f'{OPEN}<policy context="mandatory"><deny receive_requested_reply="true" '
             'receive_type="method_return" receive_sender="{bob}"/></policy>'),
        Send("alice", METHOD_CALL, "bob", "/", "i.g", "M"),
        Send("bob", METHOD_RETURN, reply=-1),
        Send("bob", METHOD_RETURN, reply=-1),
    ],
    "of the calls that nobody will answer the latest comes first": [
        *come("alice", "bob"),
        *[Send("alice", METHOD_CALL, "bob", "/", "i.g", "M")] * 3,
        Leave("bob"),
    ],
    "a call whose descriptors the receiver cannot have stays open": [
        *come("alice", "carol"),
        Send("alice", METHOD_CALL, "carol", "/", "i.g", "M", fds=1),
        Leave("carol"),
    ],
    "an overheard Hello has the new name": [
        *come("alice"),
        match("alice", "eavesdrop='true'"),
        *come("bob"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("found", FOUND)
def test_what_once_was_different(stages: Stages, found: str) -> None:
    difference = differ(stages, FOUND[found])
    assert not difference, difference
