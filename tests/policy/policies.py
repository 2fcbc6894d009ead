"""Policies for tests, written as the XML that a configuration would have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from afdbus.config.load import load
from afdbus.config.model import Config
from afdbus.identity import Identity
from afdbus.policy.decide import Question
from afdbus.policy.ruleset import PeerPolicy

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
DRIVER = "org.freedesktop.DBus"

OPEN = (
    '<policy context="default"><allow send_destination="*" eavesdrop="true"/>'
    '<allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy>'
)
NOBODY = Identity(uid=65534, gid=65534, gids=(65534,))
ROOT = Identity(uid=0, gid=0, gids=(0,))


def default(rules: str) -> str:
    return f'<policy context="default">{rules}</policy>'


class Scratch:
    """Configurations in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self, inside: str | bytes, head: str = "", name: str = "bus.conf") -> Config:
        """Load a file with a `<listen>` and what is given inside `<busconfig>`."""
        self.file(name, inside, head, listen="<listen>unix:tmpdir=/tmp</listen>")
        return load(str(self.folder / name))

    def file(self, name: str, inside: str | bytes, head: str = "", listen: str = "") -> Path:
        """Write a file; bytes are taken as they are."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(inside, str):
            inside = f"{head}<busconfig>{listen}{inside}</busconfig>".encode()
        path.write_bytes(inside)
        return path

    def peer(self, policies: str, identity: Identity = NOBODY) -> PeerPolicy:
        return self.config(policies).ruleset.for_peer(identity)


Peer = Callable[..., PeerPolicy]


def call(**fields: object) -> Question:
    return Question(**{"type": CALL, "path": "/", "member": "M", **fields})  # type: ignore[arg-type]


def signal(**fields: object) -> Question:
    named = {"type": SIGNAL, "path": "/", "interface": "a.i", "member": "M"}
    return Question(**{**named, **fields})  # type: ignore[arg-type]


def method_return(requested: bool, **fields: object) -> Question:
    named = {"type": RETURN, "reply": True, "requested": requested}
    return Question(**{**named, **fields})  # type: ignore[arg-type]


def error(requested: bool, **fields: object) -> Question:
    named = {"type": ERROR, "reply": True, "requested": requested, "error_name": "e.E"}
    return Question(**{**named, **fields})  # type: ignore[arg-type]
