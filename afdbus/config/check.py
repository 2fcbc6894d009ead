"""All that is wrong with a configuration, where `load` stops at the first error.

The same reader reads on behind each error that leaves something to go on with.  A file that is no
XML, or not there, has no more than that error.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from afdbus.config.draft import Draft
from afdbus.config.load import Reader
from afdbus.config.place import Report
from afdbus.errors import ConfigError
from afdbus.limits import Limits


class Finding(NamedTuple):
    """One thing to be told, in the words of `load`, and where it is (line 0: the whole file).

    `kind`: "error", "warning", or the name of the check of `lint` that it belongs to.
    """

    file: str
    line: int
    text: str
    kind: str

    @property
    def is_error(self) -> bool:
        return self.kind == "error"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {'error' if self.is_error else 'warning'}: {self.text}"


class Checked(NamedTuple):
    """`draft` is all that could be made out; `files` are those that were read, in that order."""

    draft: Draft
    findings: tuple[Finding, ...]
    files: tuple[str, ...]


class _FullReport(Report):
    """Takes note of each error and each warning once."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: dict[Finding, None] = {}
        self.files: dict[str, str] = {}  # by their real path, as spelled

    def warn(self, text: str, kind: str, file: str, line: int) -> None:
        self._note(Finding(file, line, text, kind))

    def remark(self, text: str, kind: str, file: str, line: int) -> None:
        self._note(Finding(file, line, text, kind))

    def refuse(self, error: ConfigError) -> None:
        self._note(Finding(error.file or "", error.line or 0, error.text, "error"))

    def skip(self, path: str, error: ConfigError) -> None:
        self.refuse(error)

    def _note(self, finding: Finding) -> None:
        self.findings.setdefault(finding)

    def is_known(self, path: str) -> bool:
        # So it is read once, however many files include it, and takes no more time than it has
        # bytes.  It is found under the first spelling.
        real = os.path.realpath(path)
        known = real in self.files
        self.files.setdefault(real, path)
        return known


def check(path: str) -> Checked:
    """Read the file `path` with all that it includes, and tell all that is wrong. Never raises.

    A file that has nothing but policies and limits may do without `<listen>`: it is one for an
    `<includedir>`.  If `path` is such a directory, all its files are read, by their names.
    """
    report = _FullReport()
    reader = Reader(report)
    draft = Draft(Limits())
    is_directory = os.path.isdir(path)
    for file in _files_of(path) if is_directory else [path]:
        if report.is_known(file):
            continue
        try:
            draft.absorb(reader.file(file, draft.limits))
        except ConfigError as error:
            report.refuse(error)
    if not is_directory and is_main(draft) and not draft.listen:
        report.refuse(ConfigError("Configuration file needs one or more <listen> elements", path))
    return Checked(draft, tuple(report.findings), tuple(report.files.values()))


def _files_of(directory: str) -> list[str]:
    names = (name for name in os.listdir(directory) if name.endswith(".conf"))
    return [os.path.join(directory, name) for name in sorted(names)]


def is_main(draft: Draft) -> bool:
    """Whether this describes a bus, and not only what another file includes."""
    return bool(
        draft.listen
        or draft.type
        or draft.user
        or draft.pidfile
        or draft.auth
        or draft.fork
        or draft.servicedirs
        or draft.directories
    )
