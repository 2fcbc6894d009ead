"""Random traffic of a few peers, the same again and again so that plans are hit, and everything
that must not be taken for the same."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from kit import (
    METHOD_CALL,
    METHOD_RETURN,
    NO_AUTO_START,
    NO_REPLY_EXPECTED,
    SIGNAL,
    Message,
    call,
    peer_call,
    signal,
)
from kit.message import (
    DESTINATION,
    ERROR_NAME,
    INTERFACE,
    MEMBER,
    PATH,
    REPLY_SERIAL,
    SENDER,
    UNIX_FDS,
    build,
)

NAMES = [f"com.example.{letter}" for letter in "ABCD"]
PATHS = ["/", "/a", "/a/b", "/com/example/Object"]
INTERFACES = ["com.example.I", "com.example.J", "com.example.Secret"]
MEMBERS = ["M", "N", "Hidden"]
TEXTS = ["", "x", "hello", "/a/", "/a/b", "com.example.A", "com.example", "ä"]
BODIES: list[tuple[str, Any]] = [
    ("", lambda r: ()),
    ("s", lambda r: (r.choice(TEXTS),)),
    ("ss", lambda r: (r.choice(TEXTS), r.choice(TEXTS))),
    ("us", lambda r: (r.randrange(9), r.choice(TEXTS))),
    ("o", lambda r: (r.choice(PATHS),)),
    ("b", lambda r: (r.random() < 0.5,)),
    ("a{sv}", lambda r: ({"k": ("s", r.choice(TEXTS)), "n": ("u", r.randrange(9))},)),
    ("as", lambda r: ([r.choice(TEXTS) for _ in range(r.randrange(4))],)),
]
RULES = [
    "",
    "type='signal'",
    "interface='com.example.I'",
    "interface='com.example.I',member='M'",
    "interface='com.example.J',member='N',type='signal'",
    "member='M'",
    "path='/a'",
    "path_namespace='/a'",
    "sender='com.example.A'",
    "sender='com.example.B',interface='com.example.I'",
    "interface='com.example.I',arg0='x'",
    "arg0='hello'",
    "arg1='x',interface='com.example.J'",
    "arg0path='/a/'",
    "interface='com.example.I',arg0path='/a/b'",
    "arg0namespace='com.example'",
    "sender='org.freedesktop.DBus'",
    "type='method_call'",
    "destination='com.example.A'",
    "arg0='x',arg1='x'",
]
FIELD_ORDERS = 3


class Traffic:
    """Makes steps: who says which messages.  `names` are the unique names of those connected."""

    def __init__(self, seed: int, fresh: float = 0.0) -> None:
        """`fresh`: how many of all fields have a value that never comes again."""
        self.seed = seed
        self.fresh = fresh
        self.random = Random(seed)
        self.serials: dict[str, int] = {}
        # (serial, caller, whom it was for): what replies may answer, again and again
        self.calls: deque[tuple[int, str, str]] = deque(maxlen=40)
        self.rules: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def batch(self, who: str, names: list[str], gone: list[str]) -> list[bytes]:
        """Some messages of `who`; runs of the same kind, as programs do."""
        messages: list[bytes] = []
        while len(messages) < self.random.randrange(1, 40):
            kind = self.random.choice(KINDS)
            # A few shapes come back again and again; some come once.
            often = self.random.random() < 0.85
            template = self.random.randrange(5) if often else self.random.random()
            shape = f"{self.seed} {kind} {template}"
            for _ in range(self.random.choice([1, 3, 8])):
                message = self.message(kind, who, names, gone, Random(shape))
                if message is not None:
                    self.counts[kind] = self.counts.get(kind, 0) + 1
                    messages.append(message)
        return messages

    def message(
        self, kind: str, who: str, names: list[str], gone: list[str], shape: Random
    ) -> bytes | None:
        """One message; what `shape` decides is the same for a whole run, `self.random` is not."""
        self.serials[who] = serial = self.serials.get(who, 1) + 1
        if self.random.random() < 0.01:
            serial = self.random.randrange(2, serial + 1)  # perhaps one that is in use
        if self.random.random() < 0.0005:
            serial = 0
        little = shape.random() < 0.85
        where = shape.choice([*names * 2, *NAMES * 2, shape.choice(gone or names)])
        signature, values = shape.choice(BODIES)
        body = values(self.random)
        common: dict[str, Any] = {
            "path": shape.choice(PATHS),
            "interface": shape.choice(INTERFACES),
            "little": little,
        }
        member = shape.choice(MEMBERS)
        for key in ("path", "interface"):
            common[key] = self.refreshed(common[key])
        member = self.refreshed(member)
        made: Message | None
        if kind == "call":
            made = peer_call(where, member, signature, *body, **common)
            if shape.random() < 0.1:
                made.without(INTERFACE)
            self.calls.append((serial, who, where))
        elif kind == "no reply":
            made = peer_call(where, member, signature, *body, **common)
            made.flags = NO_REPLY_EXPECTED
            if self.random.random() < 0.3:
                made.flags = self.random.choice([0, NO_AUTO_START, 7, 0x41])
        elif kind == "signal to":
            made = signal(member, signature, *body, destination=where, **common)
            if shape.random() < 0.2 and self.calls:
                self.answer(made, shape)
        elif kind == "broadcast":
            made = signal(member, signature, *body, **common)
            if shape.random() < 0.05 and self.calls:
                made.plus((REPLY_SERIAL, "u", shape.choice(self.calls)[0]))
        elif kind == "reply":
            made = self.reply(who, signature, body, little, shape)
        elif kind == "driver":
            made = self.driver(who, shape)
        else:
            made = self.odd(kind, where, member, signature, body, common)
        if made is None:
            return None
        return self.finish(made, serial, shape)

    def refreshed(self, value: str) -> str:
        """`value`, or a new one of its kind."""
        if not self.fresh or self.random.random() >= self.fresh:
            return value
        return f"{value.rstrip('/')}{'/' * (value[0] == '/')}x{self.random.randrange(10**6)}"

    def answer(self, made: Message, shape: Random) -> None:
        serial, caller, _ = shape.choice(self.calls)
        made.without(DESTINATION).plus((REPLY_SERIAL, "u", serial), (DESTINATION, "s", caller))

    def reply(
        self, who: str, signature: str, body: Any, little: bool, shape: Random
    ) -> Message | None:
        if not self.calls:
            return None
        # Mostly the latest, so that replies are asked for; the same header but for the serial.
        mine = [one for one in self.calls if one[2] == who] or list(self.calls)
        serial, caller, _ = mine[-1] if self.random.random() < 0.7 else self.random.choice(mine)
        if self.random.random() < 0.1:
            serial = self.random.randrange(1, 2**32)
        if self.random.random() < 0.002:
            serial = 0
        known = {REPLY_SERIAL: serial, DESTINATION: caller}
        if shape.random() < 0.2:
            known[ERROR_NAME] = self.refreshed("com.example.Error")
            return build(3, known, signature, body, little, (), {})
        return build(METHOD_RETURN, known, signature, body, little, (), {})

    def driver(self, who: str, shape: Random) -> Message:
        random = self.random
        little = shape.random() < 0.9
        name = random.choice(NAMES)
        what = shape.randrange(10)
        if what == 0:
            rules = self.rules.setdefault(who, [])
            if len(rules) < 6:
                rules.append(random.choice(RULES))
                return call("AddMatch", "s", rules[-1], little=little)
        if what in (0, 1):
            rules = self.rules.setdefault(who, [])
            rule = rules.pop(random.randrange(len(rules))) if rules else random.choice(RULES)
            return call("RemoveMatch", "s", rule, little=little)
        if what == 2:
            return call("RequestName", "su", name, random.choice([3, 3, 0, 7]), little=little)
        if what == 3 and random.random() < 0.5:
            return call("ReleaseName", "s", name, little=little)
        if what in (3, 4, 5):
            return call("ListQueuedOwners", "s", name, little=little)
        if what in (6, 7):
            return call("GetNameOwner", "s", name, little=little)
        if what == 8:
            return call(random.choice(["GetId", "ListNames", "Nonsense"]), little=little)
        return call("Ping", interface="org.freedesktop.DBus.Peer", little=little)

    def odd(
        self, kind: str, where: str, member: str, signature: str, body: Any, common: dict[str, Any]
    ) -> Message | None:
        random = self.random
        if kind == "large header":
            made = peer_call(where, member, signature, *body, **common).without(PATH)
            return made.plus((PATH, "o", "/" + "x" * random.choice([300, 1100])))
        if kind == "unknown field":
            made = signal(member, signature, *body, **common)
            return made.plus((200, "s", "new"), (10, "o", "/x"))
        if kind == "forged sender":
            made = signal(member, signature, *body, **common)
            return made.plus((SENDER, "s", "com.example.A"))
        if kind == "unknown type":
            known = {DESTINATION: where, MEMBER: member}
            return build(random.choice([5, 77]), known, signature, body, True, (), {})
        if kind == "no destination":
            return call(member, signature, *body, destination=None)
        # What follows costs the sender its connection, so it is rare.
        if random.random() < 0.9:
            return None
        made = peer_call(where, member, "s", "text", path="/a", interface="com.example.I")
        if kind == "bad body":
            made.body = made.body[:-1] + b"x"
        elif kind == "no signature":
            made.fields = [field for field in made.fields if field[0] != 8]
        else:
            made.plus((UNIX_FDS, "u", 1))  # which did not come
        return made

    def finish(self, made: Message, serial: int, shape: Random) -> bytes:
        order = shape.randrange(FIELD_ORDERS)
        if order == 1:
            made.fields.reverse()
        elif order == 2:
            shape.shuffle(made.fields)
        return made.pack(serial)


KINDS = [
    *["call"] * 10, *["reply"] * 10, *["broadcast"] * 8, *["driver"] * 5, *["no reply"] * 4,
    *["signal to"] * 4, "large header", "unknown field", "forged sender", "unknown type",
    "no destination", "bad body", "no signature", "missing fds",
]  # fmt: skip


def with_fds(little: bool, where: str | None, count: int, serial: int) -> bytes:
    """A message that says it brings descriptors."""
    known = {
        PATH: "/a", INTERFACE: "com.example.I", MEMBER: "M", DESTINATION: where, UNIX_FDS: count,
    }  # fmt: skip
    kind = SIGNAL if where is None else METHOD_CALL
    return build(kind, known, "h", [0], little, (), {}).pack(serial)
