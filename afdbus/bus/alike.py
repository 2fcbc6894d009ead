"""Plans for headers that never repeat, since they differ in values that no rule names.

Whoever speaks of another object each time, or calls a thousand names by turns, sends only headers
that are new.  But a path, interface, member or error name that no rule names, neither the policy's
nor those of receivers of broadcasts, is judged as any other such value is, a path as any other in
the same namespace of theirs, and a destination as any other name of the same peer, or of all peers
with the same policy that have no name but a unique one.  So these fields are cut out, and one plan
stands for all headers that are the same in the rest: a call with a new path takes 2 us instead of
18 (13 since misses are cheaper), a signal 2 instead of 20 (16).

Nothing is taken on trust: the rest is, byte by byte, that of a header that was parsed, and what was
cut out of it is judged anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from functools import cache
from typing import TYPE_CHECKING

from afdbus.bus.plan import MAX_PLANS, MAX_VALUE, Kind, Plan, Plans, packer
from afdbus.bus.replies import introduce
from afdbus.wire import names
from afdbus.wire.header import (
    DESTINATION,
    ERROR_NAME,
    FIXED,
    INTERFACE,
    LOCAL_INTERFACE,
    LOCAL_PATH,
    MEMBER,
    PATH,
    REPLY_SERIAL,
    SENDER,
    SIGNATURE,
    UNIX_FDS,
    field,
)

if TYPE_CHECKING:
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer
    from afdbus.wire.header import Header

# So many headers of a peer must have been new, before any are taken for alike: as long as there is
# room for all, a plan for each is quicker.
MANY = MAX_PLANS // 2
# What is kept for one peer, besides plans.
MAX_LAYOUTS = 4
MAX_SAMPLES = 16

_CALL, _REPLY = int(Kind.CALL), int(Kind.REPLY)
_ATTRIBUTES = {PATH: "path", INTERFACE: "interface", MEMBER: "member", ERROR_NAME: "error_name"}
_CONDITIONS = {**_ATTRIBUTES, ERROR_NAME: "error"}  # what a policy calls them
_ZEROS = tuple(bytes(count) for count in range(9))
_RESIDUES = tuple(bytes((count,)) for count in range(8))
_from_bytes = int.from_bytes


@cache
def _matcher(code: int) -> Callable[[bytes, int, int], object]:
    """What judges the text of a field; the codes are a handful.  Not compiled at the start."""
    pattern = {
        PATH: f"(?!{LOCAL_PATH})(?:{names.PATH})",
        INTERFACE: f"(?!{re.escape(LOCAL_INTERFACE)}){names.INTERFACE}",
        MEMBER: names.MEMBER,
        ERROR_NAME: names.INTERFACE,
        DESTINATION: "[!-~]*",  # it has an owner, or not
    }[code]
    return re.compile(pattern.encode()).fullmatch


# A field that is cut out: where its value begins, from the end of the last one; its code; what
# judges a text, None for a REPLY_SERIAL; the values that rules name, the policy's and those of
# receivers.  Not a NamedTuple, which takes longer to unpack.
_Cut = tuple[int, int, Callable[[bytes, int, int], object] | None, Container[str], Container[str]]


class _Layout:
    """Headers of which the same fields are cut out at the same places, and their plans by the rest.

    `open_end`: the last field is one of them.
    """

    __slots__ = ("cuts", "open_end", "plans")

    def __init__(self, cuts: tuple[_Cut, ...], open_end: bool) -> None:
        self.cuts = cuts
        self.open_end = open_end
        self.plans = Plans()

    def fill(self, header: Header, data: bytes, pos: int) -> None:
        """Put what is cut out of the header at `pos` into another one: whoever has rules about
        arguments is asked with the whole message."""
        at = pos + FIXED
        for gap, code, matches, _, _ in self.cuts:
            begin = at + gap + 4
            if matches is None:
                at = begin
                continue
            end = begin + _from_bytes(data[begin - 4 : begin], "little")
            at = end + 8 - (end - pos & 7)
            setattr(header, _ATTRIBUTES[code], data[begin:end].decode())


class Alike:
    """What one peer says that is alike."""

    __slots__ = (
        "_layouts", "_peer", "_samples", "_sender", "_sender_size", "_unique_matter",
    )  # fmt: skip

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        # By the first four bytes of their headers.
        self._layouts: dict[int, list[_Layout]] = {}
        # By first four bytes and codes of fields: the last new header's fields.
        self._samples: dict[bytes, list[bytes]] = {}
        sender = field(SENDER, peer.name)
        self._sender_size = len(sender)
        self._sender = sender + _ZEROS[-len(sender) & 7]
        # Whether any rule is about a unique name.
        self._unique_matter = any(name[:1] == ":" for name in peer.bus.ruleset.values("name"))

    def find(self, data: bytes, pos: int, body: int, word: int) -> Plan | None:
        """The plan for the header data[pos:body] that begins with `word`, filled in for it.

        Whether it still holds is for the road to find out; if not, `learn` puts another in its
        place.
        """
        bus = self._peer.bus
        for layout in self._layouts.get(word, ()):
            # What the plan is filed under is all but what was cut out.
            key = b""
            at = pos + FIXED
            end = serial_at = 0
            owner: Peer | None = None
            for gap, code, matches, ruled, wanted in layout.cuts:
                start = at + gap
                key += data[at:start]
                begin = start + 4
                if matches is None:
                    serial_at = start - pos
                    at = end = begin
                    continue
                end = begin + _from_bytes(data[start:begin], "little")
                at = end + 8 - (end - pos & 7)
                if (
                    end - begin > MAX_VALUE
                    or not matches(data, begin, end)
                    or data[end:at] != _ZEROS[at - end]
                ):
                    break
                if code == DESTINATION:
                    owner = bus.names.owners.get(data[begin:end].decode())
                    if owner is None:
                        break
                    key += self._whom(owner)
                    if owner.names or self._unique_matter:
                        owner = None  # the plan has it
                else:
                    if ruled or wanted:
                        text = data[begin:end].decode()
                        if text in ruled or text in wanted:
                            break
                    if code == PATH and bus.rules.namespaces:
                        key += _deepest(data[begin:end].decode(), bus.rules.namespaces)
                end += 1
            else:
                # The length of the fields is known, but for the padding that follows.
                residue = data[pos + 12] & 7
                if layout.open_end:
                    if at != body or end - pos & 7 != residue:
                        continue
                elif at > body:
                    continue
                else:
                    key += data[at:body] + _RESIDUES[residue]
                plan = layout.plans.young.get(key) or layout.plans.find(key)
                if plan is None:
                    continue
                size = (body - pos - FIXED + self._sender_size).to_bytes(4, "little")
                if serial_at:
                    plan.serial_at = serial_at
                    plan.rest = size + data[pos + FIXED : pos + serial_at]
                    plan.tail = data[pos + serial_at + 4 : body] + self._sender
                    plan.pack = packer(len(plan.rest), len(plan.tail))
                else:
                    plan.rest = size + data[pos + FIXED : body] + self._sender
                if owner is not None:
                    # One of many who are alike, too.
                    plan.receiver, plan.version, plan.box = owner, owner.version, owner.outbox
                    if plan.kind == _CALL:
                        plan.calls = introduce(self._peer, owner)
                    elif plan.kind == _REPLY:
                        plan.calls = introduce(owner, self._peer)
                if plan.arguments:
                    layout.fill(plan.header, data, pos)
                return plan
        return None

    def _whom(self, owner: Peer) -> bytes:
        """Who is meant, to the policy: one who has no names but a unique one is as all such (2 us
        instead of 16 to speak to one of 600)."""
        if owner.names or self._unique_matter:
            return owner.destination
        return b"\0" + id(owner.policy).to_bytes(8, "little")

    def learn(self, message: Message, raw: bytes, plan: Plan) -> bool:
        """Whether `plan`, made for a `message` whose header is `raw` from byte 12 on, is kept for
        all that are like it."""
        fields = message.header.fields
        if not message.header.little or not _is_whole(fields, raw):
            return False
        shape = message.head[:4] + bytes([one[0] for one in fields])
        before = self._samples.get(shape)
        if before is None and len(self._samples) >= MAX_SAMPLES:
            self._samples.clear()
        self._samples[shape] = fields
        if before is None:
            return False
        varying = {
            one[0]
            for one, other in zip(fields, before, strict=True)
            if one != other and self._may_vary(message, one)
        }
        if not varying:
            return False
        if plan.kind == _REPLY:
            varying.add(REPLY_SERIAL)
        layout = self._layout(fields, plan.word, varying)
        layout.plans.add(self._key(message.header, raw, varying), plan)
        return True

    def _key(self, header: Header, raw: bytes, varying: set[int]) -> bytes:
        """What `find` will look for when it sees a header like this one."""
        bus = self._peer.bus
        key = b""
        for one in header.fields:
            code = one[0]
            if code not in varying:
                key += one
                continue
            key += one[:4]
            if code == DESTINATION and header.destination is not None:
                key += self._whom(bus.names.owners[header.destination])
            elif code == PATH and header.path is not None and bus.rules.namespaces:
                key += _deepest(header.path, bus.rules.namespaces)
        if header.fields[-1][0] not in varying:
            residue = raw[0] & 7
            key += _ZEROS[-residue & 7] + _RESIDUES[residue]
        return key

    def _may_vary(self, message: Message, one: bytes) -> bool:
        """Whether this field of the message may be cut out, and stand for any."""
        code = one[0]
        if code == DESTINATION:
            return True
        if code not in _ATTRIBUTES:
            return False
        bus = self._peer.bus
        wanted: Container[str] = ()
        if message.header.destination is None:
            wanted = bus.rules.named.get(code, ())
        text = one[8 : _size(one) - 1].decode()
        return text not in bus.ruleset.values(_CONDITIONS[code]) and text not in wanted

    def _layout(self, fields: list[bytes], word: int, varying: set[int]) -> _Layout:
        """The layout with these fields cut out, perhaps a new one."""
        bus = self._peer.bus
        broadcast = not any(one[0] == DESTINATION for one in fields)
        cuts: list[_Cut] = []
        gap = 0
        for one in fields:
            code = one[0]
            if code not in varying:
                gap += len(one)
                continue
            ruled: Container[str] = ()
            wanted: Container[str] = ()
            if code in _ATTRIBUTES:
                ruled = bus.ruleset.values(_CONDITIONS[code])
                wanted = bus.rules.named.get(code, ()) if broadcast else ()
            cuts.append(
                (gap + 4, code, None if code == REPLY_SERIAL else _matcher(code), ruled, wanted)
            )
            gap = 0
        found, open_end = tuple(cuts), fields[-1][0] in varying
        layouts = self._layouts.setdefault(word, [])
        for layout in layouts:
            # Rules name other values for broadcasts than for signals to one peer.
            if layout.open_end == open_end and layout.cuts == found:
                return layout
        if sum(map(len, self._layouts.values())) >= MAX_LAYOUTS:
            self._layouts.clear()
            layouts = self._layouts[word] = []
        layouts.append(_Layout(found, open_end))
        return layouts[-1]


def _deepest(path: str, namespaces: Container[str]) -> bytes:
    """The deepest of the namespaces that `path` lies in, which decides about all others.

    A NUL ends it, or fields that follow it in a key could be taken for a part of it.
    """
    while path not in namespaces:
        if len(path) < 2:
            return b"\0"
        path = path[: path.rfind("/")] or "/"
    return path.encode() + b"\0"


def _size(raw: bytes) -> int:
    """The length of a field without the padding behind it."""
    code = raw[0]
    if code in (REPLY_SERIAL, UNIX_FDS):
        return 8
    if code == SIGNATURE:
        return 6 + raw[4]
    return 9 + _from_bytes(raw[4:8], "little")


def _is_whole(fields: list[bytes], raw: bytes) -> bool:
    """Whether the fields are all that there was."""
    return b"".join(fields) == raw[4 : 4 + _from_bytes(raw[:4], "little")]
