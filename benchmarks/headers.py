"""Headers that never repeat, compared with dbus-daemon: `python benchmarks/headers.py`.

afdbus remembers what it decided about a header.  Here every message has one that was never seen
before, or a destination that is hardly ever the same, so that nothing remembered is of any use.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from random import Random

import compare
import load
from client import Client, Receiver, Template
from daemon import installed
from load import INTERFACE, OBJECT, SERVICE
from measure import Scenario, cpu_under

from afdbus.wire.encode import encode
from afdbus.wire.header import ERROR, METHOD_CALL, METHOD_RETURN, NO_REPLY_EXPECTED, SIGNAL
from afdbus.wire.message import build, method_call

NUMBER = "00000000"  # what is another number in each message
OWNERS, NAMES = 8, 1024  # so many names have so many owners
CLIENTS = 700
PLACES = 16  # of a REPLY_SERIAL

_numbers = count()  # nothing comes twice in a run


class Varied(Template):
    """Messages of equal length that take turns; where NUMBER is in one it is never the same."""

    def __init__(self, *turns: bytes) -> None:
        assert len({len(one) for one in turns}) == 1
        super().__init__(turns[0])
        self._all = array("I", b"".join(turns))
        self._turns = [(Template(one).reply_serial, one.find(NUMBER.encode())) for one in turns]
        self._next = 0

    def many(self, serials: array[int], replies_to: array[int] | None = None) -> memoryview:
        messages, turns, length = len(serials), len(self._turns), self.length
        first = self._next
        self._next = (first + messages) % turns
        words = self._all * ((first + messages - 1) // turns + 1)
        words = words[first * length // 4 : (first + messages) * length // 4]
        words[2 :: length // 4] = serials
        data = memoryview(words).cast("B")
        for turn, (reply_serial, number) in enumerate(self._turns[first:] + self._turns[:first]):
            mine = range(turn, messages, turns)
            if not mine:
                break
            start, step = turn * length, turns * length
            if replies_to is not None:
                words[start // 4 + reply_serial :: step // 4] = replies_to[turn::turns]
            if number >= 0:
                digits = b"".join(b"%08d" % one for one in islice(_numbers, len(mine)))
                for place in range(len(NUMBER)):
                    data[start + number + place :: step] = digits[place :: len(NUMBER)]
        return data


def call_of(field: str) -> bytes:
    """A call in which this field is another each time."""
    path, interface, member = _fields_of(field)
    return method_call(1, SERVICE, path, interface, member)


def signal_of(field: str) -> bytes:
    path, interface, member = _fields_of(field)
    return build(SIGNAL, 1, path=path, interface=interface, member=member, sender=None)


def _fields_of(field: str) -> tuple[str, str, str]:
    return (
        f"{OBJECT}/x{NUMBER}" if field in ("path", "namespace") else OBJECT,
        f"{INTERFACE}.x{NUMBER}" if field == "interface" else INTERFACE,
        f"Member{NUMBER}" if field == "member" else "Member",
    )


class Calls(load.Pipe):
    """Calls in which `field` is another each time, and plain replies."""

    def __init__(self, field: str, address: str, window: int) -> None:
        self._field = field
        self.window = window
        super().__init__(address)

    def templates(self, caller: Client, content: tuple[str, bytes]) -> tuple[Template, Template]:
        reply = build(METHOD_RETURN, 1, reply_serial=1, destination=caller.name, sender=None)
        return Varied(call_of(self._field)), Template(reply)


class Errors(load.Pipe):
    """Plain calls, answered by errors that are all new; `places`: and have REPLY_SERIAL at one of
    many offsets."""

    def __init__(self, places: int, address: str, window: int) -> None:
        self._places = places
        self.window = window
        super().__init__(address)

    def templates(self, caller: Client, content: tuple[str, bytes]) -> tuple[Template, Template]:
        # What the name is longer, which comes before REPLY_SERIAL, the text is shorter.
        errors = [
            build(ERROR, 1, reply_serial=1, destination=caller.name, sender=None,
                  error_name=f"org.example.Error{'x' * 8 * place}.x{NUMBER}",
                  signature="s", body=encode("s", "x" * (8 * (self._places - place) - 1)))
            for place in range(self._places)
        ]  # fmt: skip
        return Template(call_of("")), Varied(*errors)


class Signals(load.Broadcast):
    """Signals in which `field` is another each time, to who wants all of this interface or path;
    `namespace`: the path is, to who wants all below."""

    def __init__(self, field: str, receivers: int, address: str, window: int) -> None:
        self._field = field
        self.window = window
        rules = {"interface": f"path='{OBJECT}'", "namespace": f"path_namespace='{OBJECT}'"}
        self.rule = rules.get(field, f"interface='{INTERFACE}'")
        super().__init__(address, receivers)

    def template(self) -> Template:
        return Varied(signal_of(self._field))


class Absent(load.Driver):
    """Calls of names that nobody has and nothing provides; counts calls."""

    def __init__(self, address: str, window: int) -> None:
        self.window = window
        super().__init__(address)

    def template(self, client: Client) -> tuple[Template, int]:
        call = method_call(1, f"org.example.x{NUMBER}", OBJECT, INTERFACE, "Member")
        return Varied(call), ERROR


class Scattered(load.Driver):
    """Calls of many names, in no order, that want no reply; counts calls.

    `clients`: unique names of as many clients, and not well-known names of a few.
    """

    def __init__(self, clients: bool, address: str, window: int) -> None:
        self.window = window
        if clients:
            self._owners = [Client(address) for _ in range(CLIENTS)]
            # Messages must be equally long.
            names = [owner.name for owner in self._owners]
            self._names = [name for name in names if len(name) == len(names[-1])]
        else:
            self._owners = [Client(address) for _ in range(OWNERS)]
            self._names = [f"org.example.Name{number:04}" for number in range(NAMES)]
            for number, name in enumerate(self._names):
                self._owners[number % OWNERS].own(name)
        Random(1).shuffle(self._names)
        load.settle(*self._owners)
        super().__init__(address)
        self._received = {}
        for owner in self._owners:
            self._waiting.add(owner)
            self._received[owner.sock.fileno()] = Receiver(owner.sock, METHOD_CALL)

    def template(self, client: Client) -> tuple[Template, int]:
        calls = [
            method_call(1, name, OBJECT, INTERFACE, "Member", flags=NO_REPLY_EXPECTED)
            for name in self._names
        ]
        return Varied(*calls), METHOD_RETURN

    def receive(self) -> int:
        return sum(self._received[fd].count() for fd, _ in self._waiting.wait())

    def close(self) -> None:
        super().close()
        for owner in self._owners:
            owner.close()


LOADS: dict[str, Callable[[str, int], load.Load]] = {
    "call: same": partial(Calls, ""),
    "call: path": partial(Calls, "path"),
    "call: interface": partial(Calls, "interface"),
    "call: member": partial(Calls, "member"),
    "reply: error name": partial(Errors, 1),
    "reply: places": partial(Errors, PLACES),
    "signal to 1: same": partial(Signals, "", 1),
    "signal to 1: path": partial(Signals, "path", 1),
    "signal to 1: interface": partial(Signals, "interface", 1),
    "signal to 1: member": partial(Signals, "member", 1),
    "signal to 1: namespace": partial(Signals, "namespace", 1),
    "signal to 10: path": partial(Signals, "path", 10),
    "signal to 10: interface": partial(Signals, "interface", 10),
    "signal to 10: member": partial(Signals, "member", 10),
    "many names": partial(Scattered, False),
    "many clients": partial(Scattered, True),
    "absent names": Absent,
}


def scenarios() -> Iterator[Scenario]:
    """Each load with many messages under way, and one at a time."""
    for name, make in LOADS.items():
        yield Scenario(name, cpu_under(partial(_start, make, load.WINDOW)))
        yield Scenario(f"{name}, alone", cpu_under(partial(_start, make, 1)), one_core=True)


def _start(make: Callable[[str, int], load.Load], window: int, address: str) -> load.Load:
    return make(address, window)


if __name__ == "__main__":
    compare.main(__doc__, [*scenarios()], installed())
