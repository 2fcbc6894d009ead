"""The plan of the house, held against the imports: who may know whom, and what stays small.

The table is the one in docs/architecture.md.  A module knows a room if it imports from it anywhere,
inside a function too; imports for annotations only (`if TYPE_CHECKING:`) bind nobody.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeGuard

import pytest

PACKAGE = Path(__file__).parent.parent / "afdbus"

# room: its height, and what it may import from (itself and the version of the package aside)
ROOMS: dict[str, tuple[int, set[str]]] = {
    "errors": (0, set()),
    "limits": (0, set()),
    "identity": (0, set()),
    "wire": (1, {"limits", "errors"}),
    "policy": (2, {"wire", "identity", "errors"}),
    "sasl": (2, {"identity", "errors"}),
    "host": (2, {"wire", "identity", "errors"}),
    "bus": (3, {"policy", "wire", "identity", "limits", "errors"}),
    "config": (3, {"policy", "wire", "limits", "errors"}),
    "server": (4, {"bus", "config", "sasl", "host", "wire", "identity", "limits", "errors"}),
    "client": (4, {"sasl", "wire", "errors"}),
    "tools": (5, {"client", "config", "policy", "host", "wire", "identity", "limits", "errors"}),
    "pytest_plugin": (6, {"server", "config", "errors"}),
    "daemon_cli": (6, {"server", "bus", "config", "host", "errors"}),
    "cli": (7, {"daemon_cli", "tools"}),
    "__main__": (8, {"cli", "daemon_cli"}),
}
# Of wire, host needs what holds descriptors; everything else there is about messages.
ONLY = {("host", "wire"): {"afdbus.wire.fds"}}
# packages that only some rooms may know
VISITORS = {
    "trio": {room for room, (height, _) in ROOMS.items() if height >= ROOMS["server"][0]},
    "lxml": {"config"},
}

# Where the names come from that the package itself has.
FACADE = "afdbus.server"

MAX_LINES = 400


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The room of a module of ours; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def statements(node: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements that can ever run, or only those that run at import."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inner = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
        for child in inner:
            yield from statements(child, inside_functions)


def imports(source: str, inside_functions: bool) -> Iterator[tuple[str, int]]:
    """(imported module, line) of a source; modules of ours to the module, not the name in it."""
    for node in statements(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
            continue
        assert node.level == 0, f"line {node.lineno}: a relative import hides the room"
        assert node.module
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in MODULES:
                yield inner, node.lineno
            elif node.module == PACKAGE.name and alias.name != "__version__":
                yield FACADE, node.lineno
            else:
                yield node.module, node.lineno


def test_the_table_only_goes_down() -> None:
    wrong = [
        f"{room} ({height}) may import {other} ({ROOMS[other][0]})"
        for room, (height, others) in ROOMS.items()
        for other in others
        if ROOMS[other][0] >= height
    ]
    assert not wrong


def test_every_module_has_a_room() -> None:
    assert {room_of(module) for module in MODULES} - {""} <= set(ROOMS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import trio", ["trio"]),
        ("from afdbus.wire import names", ["afdbus.wire.names"]),
        ("from afdbus import wire", ["afdbus.wire"]),
        ("from afdbus import ThreadHost, __version__", [FACADE, "afdbus"]),
        ("from afdbus.wire.names import is_bus_name", ["afdbus.wire.names"]),
        ("def f():\n import a\n", ["a"]),
        ("if x:\n import a\nelse:\n import b\n", ["a", "b"]),
        ("try:\n import a\nexcept ImportError:\n import b\n", ["a", "b"]),
        ("if TYPE_CHECKING:\n import a\nelse:\n import b\n", ["b"]),
        ("class C:\n def f(self):\n  from afdbus import cli\n", ["afdbus.cli"]),
    ],
)
def test_the_reader_of_imports(source: str, expected: list[str]) -> None:
    assert [name for name, _ in imports(source, inside_functions=True)] == expected


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    room = room_of(module)
    wrong = []
    for imported, line in imports(MODULES[module].read_text(), inside_functions=True):
        top = imported.split(".")[0]
        if top in VISITORS and room not in VISITORS[top]:
            wrong.append(f"line {line}: {imported} is for {sorted(VISITORS[top])}")
        if top != "afdbus" or room_of(imported) in ("", room):
            continue
        other = room_of(imported)
        if not room or other not in ROOMS[room][1]:
            wrong.append(f"line {line}: {room or 'afdbus'} may not know {other}")
        elif imported not in ONLY.get((room, other), {imported}):
            wrong.append(f"line {line}: {room} may not know {imported}")
    assert not wrong


def test_no_module_needs_itself_to_be_imported() -> None:
    graph = {
        module: {
            imported
            for imported, _ in imports(path.read_text(), inside_functions=False)
            if imported in MODULES and imported != module
        }
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import one another: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long(module: str) -> None:
    """At 400 lines there is a second idea in it."""
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


# What takes 10 to 100 ms to import, and is not needed before a client is answered.
HEAVY = frozenset(
    {"trio", "asyncio", "dataclasses", "logging", "subprocess", "argparse", "inspect"}
)
TO_THE_FIRST_ANSWER = """
import sys
import lxml.etree  # what it imports itself (inspect since lxml 6) is not ours to save
before = set(sys.modules)
import afdbus.daemon_cli
from afdbus.config.load import load
from afdbus.config.paths import session_config
from afdbus.server.listeners import bind_all, printable
listeners = bind_all(load(session_config()).listen)
printable(listeners)
for listener in listeners:
    listener.close()
print(*set(sys.modules) - before)
import afdbus.server.daemon
print(*set(sys.modules) - before)
"""


def test_nothing_heavy_is_imported_before_the_first_answer() -> None:
    run = subprocess.run(
        [sys.executable, "-c", TO_THE_FIRST_ANSWER], capture_output=True, text=True, check=True
    )
    to_the_address, to_the_answer = (set(line.split()) for line in run.stdout.splitlines())
    assert "afdbus.config.load" in to_the_address
    assert "afdbus.bus.bus" in to_the_answer - to_the_address
    assert sorted(to_the_answer & HEAVY) == []
