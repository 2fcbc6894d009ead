"""A configuration file with everything it includes becomes a `Config`.

Each file is read into a draft of its own (see `draft`).  Includes are followed where they stand:
their rules, and the values they override, take that place in the reading order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from afdbus.config.document import Element, parse, read
from afdbus.config.draft import Draft
from afdbus.config.elements import add_element, wants_text
from afdbus.config.memory import Known, Memory, Piece
from afdbus.config.model import Config, MissingFile, Sources
from afdbus.config.paths import beside
from afdbus.config.place import Place, Report, check_attributes, no_children, no_text
from afdbus.config.policies import add_policy
from afdbus.config.users import UserDatabase
from afdbus.errors import ConfigError
from afdbus.limits import Limits
from afdbus.policy.ruleset import Buckets, Ruleset

# dbus-daemon has no such limit and goes on until a path is too long or its stack is.
MAX_DEPTH = 64

# What libselinux says where nothing is configured.
_SELINUX_ROOT = "/etc/selinux/targeted"


class Text(NamedTuple):
    """A configuration that is in no file; `name` is what errors and rules call it."""

    name: str
    text: str


def load(path: str, sources: Sources | None = None, memory: Memory | None = None) -> Config:
    """The configuration in the file `path`, which must say where to listen.

    Raises `ConfigError`, which names file, line and the offending text (`MissingFile` if a file
    is not there).  What is skipped is told in `Config.warnings`.  `sources`, if given, is filled
    with all that was looked at, even if it comes to nothing.  `memory` is that of the same
    configuration as it was before; what has not changed is taken from there.
    """
    config = compose(path, sources=sources, memory=memory)
    if not config.listen:
        raise ConfigError(
            "Configuration file needs one or more <listen> elements giving addresses", path
        )
    return config


def compose(
    *parts: str | Text,
    texts: Mapping[str, str] | None = None,
    sources: Sources | None = None,
    memory: Memory | None = None,
) -> Config:
    """The configuration that the parts, files by their paths or texts, make up in this order.

    `texts` are files that are taken to be there, whether they are or not: by their path, what is
    in them.  In a folder that is included they are the first to be read.  Raises, fills `sources`
    and takes a `memory` like `load`.
    """
    reader = Reader(texts=texts, sources=sources, memory=memory)
    draft = Draft(Limits())
    for part in parts:
        draft.absorb(reader.part(part, draft.limits))
    return _finished(draft, reader)


def _finished(draft: Draft, reader: Reader) -> Config:
    watched = [directory.path for directory in draft.servicedirs.values() if directory.watched]
    reader.sources.directories.update(dict.fromkeys(watched))
    buckets = Buckets(
        default=draft.default,
        groups=draft.groups,
        users=draft.users,
        at_console=draft.at_console,
        not_at_console=draft.not_at_console,
        mandatory=draft.mandatory,
    )
    return Config(
        type=draft.type,
        user=draft.user,
        fork=draft.fork,
        keep_umask=draft.keep_umask,
        syslog=draft.syslog,
        pidfile=draft.pidfile,
        listen=tuple(draft.listen),
        auth=tuple(draft.auth),
        allow_anonymous=draft.allow_anonymous,
        limits=draft.limits,
        ruleset=reader.ruleset(buckets),
        servicedirs=tuple(draft.servicedirs.values()),
        servicehelper=draft.servicehelper,
        apparmor=draft.apparmor or "enabled",
        selinux=tuple(draft.selinux.items()),
        warnings=tuple(reader.report.warnings),
        files=tuple(draft.files),
        sources=reader.sources,
        includedirs=tuple(draft.directories),
        memory=reader.memory,
    )


class Reader:
    """What the files of one configuration share: users, the report, and who includes whom."""

    def __init__(
        self,
        report: Report | None = None,
        texts: Mapping[str, str] | None = None,
        sources: Sources | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`memory` is what the files said before."""
        self.sources = sources or Sources()
        self.memory = Memory()
        self.users = UserDatabase()
        self.report = report or Report()
        self._before = memory or Memory()
        self._texts = texts or {}
        self._first = ""
        self._including: list[str] = []  # paths as spelled, the innermost last
        self._folders: dict[str, str] = {}  # where they really are
        self._open: list[tuple[int, int, str]] = []  # their devices, inodes and real folders

    def part(self, part: str | Text, limits: Limits) -> Draft:
        """What a file or a text says, where `limits` hold so far."""
        if isinstance(part, str):
            return self.file(part, limits)
        draft = Draft(limits)
        self._root(parse(part.text.encode(), part.name), part.name, draft)
        return draft

    def file(self, path: str, limits: Limits) -> Draft:
        """What a file says, where `limits` hold so far."""
        self.sources.files[path] = None
        draft = Draft(limits)
        draft.files.append(path)
        self._first = self._first or path
        text = self._texts.get(path)
        if text is not None:
            self._root(parse(text.encode(), path), path, draft)
            return draft
        known = self._known(path)
        root, stamp = read(path, None if known is None else known.stamp)
        if root is not None:
            parts = self._root(root, path, draft)
            if stamp is not None:
                self.memory.files[path] = Known(stamp, parts)
        else:
            assert known is not None
            self.memory.files[path] = known
            place = Place(path, 0, self.report)
            for part in known.parts:
                if isinstance(part, Piece):
                    part.draft.limits = draft.limits
                    draft.absorb(part.draft)
                else:
                    self._element(draft, part, place.at(part))
        return draft

    def _known(self, path: str) -> Known | None:
        """What the file said before, unless it would mean something else today."""
        known = self._before.files.get(path)
        if known is not None:
            for part in known.parts:
                if isinstance(part, Piece):
                    for key, number in part.asked:
                        if self.users.ask(key) != number:
                            return None
        return known

    def ruleset(self, buckets: Buckets) -> Ruleset:
        """The rules that were read, with what was made of them when they were the same before."""
        before = self._before.ruleset
        if before is not None and before.buckets == buckets:
            self.memory.ruleset = before.for_users(self.users)
        else:
            self.memory.ruleset = Ruleset(buckets, self.users)
        return self.memory.ruleset

    def _root(self, root: Element, path: str, draft: Draft) -> tuple[Element | Piece, ...]:
        """Add what a file says to `draft`; returns what to remember of it."""
        place = Place(path, root.line, self.report)
        if root.name != "busconfig":
            raise place.error(f"Unknown element <{root.name}> at root of configuration file")
        check_attributes(root, (), place)
        no_text(root, place)
        parts: list[Element | Piece] = []
        for name, elements in groupby(root.children, key=attrgetter("name")):
            if name == "policy":
                parts += self._policies(draft, list(elements), place)
                continue
            for element in elements:
                try:
                    self._element(draft, element, place.at(element))
                except ConfigError as error:
                    self.report.refuse(error)
                parts.append(element)
        return tuple(parts)

    def _policies(
        self, draft: Draft, elements: list[Element], place: Place
    ) -> Sequence[Element | Piece]:
        """Add what policies in a row say; returns what to remember of them."""
        piece = Draft(draft.limits)
        warnings = len(self.report.warnings)
        self.users.asked.clear()
        for element in elements:
            try:
                add_policy(piece, element, self.users, place.at(element))
            except ConfigError as error:
                self.report.refuse(error)
        draft.absorb(piece)
        if len(self.report.warnings) > warnings:
            return elements
        return [Piece(piece, tuple(self.users.asked.items()))]

    def _element(self, draft: Draft, element: Element, place: Place) -> None:
        if element.name == "policy":
            add_policy(draft, element, self.users, place)
        elif element.name == "include":
            self._include(draft, element, place)
        elif element.name == "includedir":
            self._includedir(draft, element, place)
        else:
            add_element(draft, element, place)

    def _include(self, draft: Draft, element: Element, place: Place) -> None:
        attributes = ("ignore_missing", "if_selinux_enabled", "selinux_root_relative")
        check_attributes(element, attributes, place)
        no_children(element, place)
        wants_text(element, place)
        wishes = []
        for name in attributes:
            value = element.attributes.get(name, "no")
            if value not in ("yes", "no"):
                place.refuse(f'{name} attribute must have value "yes" or "no", not "{value}"')
            wishes.append(value == "yes")
        ignore_missing, if_selinux, selinux_relative = wishes
        if if_selinux:  # there is no SELinux mediation here, so it is not enabled
            return
        path = beside(place.file, element.text)
        if selinux_relative:
            path = os.path.join(_SELINUX_ROOT, element.text)
        try:
            draft.absorb(self._included(path, draft, place))
        except MissingFile as error:
            if not ignore_missing:
                raise MissingFile(error.path, place.file, place.line) from None
            if error.path != path:  # the file is there, but one that it includes is not
                place.warn(f"'{path}' skipped: {error}")

    def _includedir(self, draft: Draft, element: Element, place: Place) -> None:
        check_attributes(element, (), place)
        no_children(element, place)
        wants_text(element, place)
        directory = beside(place.file, element.text)
        self.sources.directories[directory] = None
        try:
            names = os.listdir(directory)  # in readdir order, as dbus-daemon takes them
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise place.error(f'Failed to open directory "{directory}": {error}') from None
        paths = [os.path.join(directory, name) for name in names]
        for path in dict.fromkeys([*self._texts_in(directory), *paths]):
            if not path.endswith(".conf"):
                continue
            try:
                draft.absorb(self._included(path, draft, place))
            except ConfigError as error:
                if not isinstance(error, MissingFile) or error.path != path:
                    self.report.skip(path, error)
        draft.directories.append(directory)

    def _texts_in(self, directory: str) -> list[str]:
        return [path for path in self._texts if os.path.dirname(path) == directory]

    def _included(self, path: str, draft: Draft, place: Place) -> Draft:
        """What an included file says. Raises `ConfigError` if it includes itself."""
        # dbus-daemon compares the spelling only; `./x.conf` in x.conf goes on until the path is
        # too long.  A file met three times in the same folder will never end, so that is enough.
        if path in self._including:
            raise place.error(f"Circular inclusion of file '{path}'")
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return self.file(path, draft.limits)  # which says what is wrong
        folder = os.path.dirname(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        identity = (status.st_dev, status.st_ino, self._folders[folder])
        if self._open.count(identity) >= 2 or len(self._open) >= MAX_DEPTH:
            raise place.error(f"Circular inclusion of file '{path}', or nested too deeply")
        if self.report.is_known(path):
            if identity in self._open or os.path.samefile(path, self._first):
                raise place.error(f"Circular inclusion of file '{path}'")
            return Draft(draft.limits)
        self._including.append(path)
        self._open.append(identity)
        try:
            return self.file(path, draft.limits)
        finally:
            self._including.pop()
            self._open.pop()
