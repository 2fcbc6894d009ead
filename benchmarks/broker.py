"""dbus-broker without systemd: `python benchmarks/broker.py --session`, or `--config-file=FILE`.

dbus-broker reads no configuration and makes no sockets; a controller, its parent elsewhere, sends
both.  Here this process becomes dbus-broker, so that what is measured is that, and a child of it is
the controller.  The policy is that of the configuration as afdbus reads it.  Not for daily use: no
service is started, `<listen>` is not looked at, limits are as high as those of a session bus.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from itertools import count
from typing import NoReturn

from afdbus.config.load import load
from afdbus.config.paths import session_config
from afdbus.policy.rules import MessageRule, OwnRule, Rule
from afdbus.policy.ruleset import Ruleset
from afdbus.wire.encode import encode
from afdbus.wire.header import (
    ERROR,
    METHOD_CALL,
    METHOD_RETURN,
    NO_REPLY_EXPECTED,
    frame_length,
    parse,
)
from afdbus.wire.message import build

MAX_MESSAGE = 128 * 1024 * 1024
LISTENER = "/org/bus1/DBus/Listener/0"
# Whether to connect, what to own, to send, to receive; each with a verdict and a priority.
BATCH = "bta(btbs)a(btssssuutt)a(btssssuutt)"
# For users, for ranges of users and groups; SELinux, AppArmor, the type of the bus.
POLICY = f"(a(u({BATCH}))a(buu({BATCH}))a(ss)bs)"
EVERYBODY = 2**32 - 1
LIMITS = {
    "max-matches": 1_000_000,
    "max-objects": 100_000_000,
    "max-bytes": 1_000_000_000_000,
    "max-fds": 100_000,
}

Message = tuple[bool, int, str, str, str, str, int, int, int, int]
Batch = tuple[
    bool, int, list[tuple[bool, int, bool, str]], list[Message], list[Message]
]  # as BATCH says


def batch(rules: Sequence[Rule]) -> Batch:
    """All rules for one kind of user; a later one has a higher priority.

    What dbus-broker does not know, or no benchmark needs, is left out: errors, broadcasts, prefixes
    of destinations, numbers of descriptors.
    """
    own: list[tuple[bool, int, bool, str]] = []
    messages: tuple[list[Message], list[Message]] = [], []  # sent, received
    for priority, rule in enumerate(rules, 1):
        if isinstance(rule, OwnRule):
            own.append((rule.allow, priority, rule.prefix or not rule.name, rule.name or ""))
        elif isinstance(rule, MessageRule):
            messages[rule.receiving].append((
                rule.allow, priority, rule.name or "", rule.path or "", rule.interface or "",
                rule.member or "", rule.type, 0, 0, 2**64 - 1,
            ))  # fmt: skip
    return True, 1, own, *messages


def policy(ruleset: Ruleset) -> tuple[object, ...]:
    """The policy as POLICY says; for everybody and for single users, others there are none here.

    A user with a batch has that only.
    """
    default = ruleset.buckets.default
    users = [(EVERYBODY, batch(default))]
    users += [(uid, batch([*default, *more])) for uid, more in ruleset.buckets.users.items()]
    return users, [], [], False, "session"


def control(broker: socket.socket, listener: socket.socket, address: str, rules: Ruleset) -> None:
    """Send everything, print the address, and agree to whatever is asked, until the end."""
    broker.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
    data = b""
    while data.count(b"\r\n") < 3:
        data += broker.recv(4096)
    *_, data = data.split(b"\r\n", 3)
    body = encode("ohv", LISTENER, 0, (POLICY, policy(rules)))
    call = build(
        METHOD_CALL, 1, flags=0, path="/org/bus1/DBus/Broker", interface="org.bus1.DBus.Broker",
        member="AddListener", sender=None, signature="ohv", body=body, fds=1,
    )  # fmt: skip
    socket.send_fds(broker, [call[:1]], [listener.fileno()])
    broker.sendall(call[1:])
    listener.close()
    serials = count(2)
    while True:
        while len(data) >= 16:
            start, end = frame_length(data, 0, MAX_MESSAGE)
            if len(data) < end:
                break
            header = parse(data, 0, start)
            if header.type == ERROR:
                raise SystemExit(f"dbus-broker takes no such configuration: {data[:end]!r}")
            if header.type == METHOD_RETURN:
                print(address, flush=True)
            elif header.type == METHOD_CALL and not header.flags & NO_REPLY_EXPECTED:
                serial = int.from_bytes(data[8:12], "little" if header.little else "big")
                broker.sendall(
                    build(METHOD_RETURN, next(serials), reply_serial=serial, sender=None)
                )
            data = data[end:]
        more = broker.recv(65536)
        if not more:
            return
        data += more


def main() -> NoReturn:
    paths = [text.partition("=")[2] for text in sys.argv if text.startswith("--config-file=")]
    rules = load(paths[0] if paths else session_config()).ruleset
    name = f"afdbus-benchmarks-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind("\0" + name)
    listener.listen(4096)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    if os.fork() == 0:
        theirs.close()
        control(ours, listener, f"unix:abstract={name}", rules)
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    theirs.set_inheritable(True)
    options = [f"--{option}={number}" for option, number in LIMITS.items()]
    options += ["--controller", str(theirs.fileno()), "--machine-id", "0123456789abcdef" * 2]
    os.execvp("dbus-broker", ["dbus-broker", *options])


if __name__ == "__main__":
    main()
