"""A place for a daemon of either kind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place


@pytest.fixture
def place(kind: str) -> Iterator[Place]:
    path = Path(tempfile.mkdtemp(prefix="afd-"))
    path.chmod(0o755)
    place = Place(kind, path)
    yield place
    place.clean()
    shutil.rmtree(path)
