"""pytest runs over little test files, each in a process of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

INI = """
[pytest]
filterwarnings = error
addopts = -p no:cacheprovider -p no:asyncio -p no:trio -p no:anyio -p no:hypothesispytest
"""

# What nearly every test file begins with.
HEAD = """
import os, sys
import pytest
from jeepney import message_bus
from jeepney.io.blocking import open_dbus_connection

def call(connection, message):
    reply = connection.send_and_get_reply(message, timeout=60)
    return reply.body[0] if reply.body else None
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(source, *arguments, ini=..., head=...)`: the result; warnings are errors there."""
    monkeypatch.setenv("AFDBUS_STRICT", "1")
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    # What would be a bus of the machine, which no test may touch.
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")

    def run(source: str, *arguments: str, ini: str = "", head: str = HEAD) -> pytest.RunResult:
        pytester.makeini(INI + ini)
        pytester.makepyfile(test_it=head + textwrap.dedent(source))
        return pytester.runpytest_subprocess(*arguments, timeout=240)

    return run
