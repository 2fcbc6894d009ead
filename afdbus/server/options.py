"""What whoever starts a daemon asks of it, beside the configuration."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from afdbus.server.learning import Lessons
    from afdbus.server.privileged import Privileged

# What the daemon reacts to: its end, the user's Ctrl-C, and a reload.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# What `--full-receiver` may say; see `afdbus.bus.overflow`.
WAYS = ("drop-in", "disconnect", "block")


class Options:
    """What the command line asks for.

    `config_file`: absolute, empty if none is needed.  `address`: instead of all `<listen>`, empty
    if not given.  `buses`: names and configuration files of buses of their own, the file empty
    where it is `config_file`.
    `print_address`, `print_pid`, `ready_fd`: descriptors, None if not asked for.  `fork` and
    `syslog`: None leaves it to the configuration.  `nofile`: the (soft, hard) RLIMIT_NOFILE
    before it was raised, for children.  `privileged`: who starts services as other users, if
    anybody does.  `permissive`: the policy is on trial; `lessons`: what it needs is
    written down there.
    """

    __slots__ = (
        "address",
        "buses",
        "config_file",
        "fork",
        "full_receiver",
        "learn",
        "lessons",
        "nofile",
        "permissive",
        "pidfile",
        "print_address",
        "print_pid",
        "privileged",
        "ready_fd",
        "syslog",
        "syslog_only",
        "systemd_activation",
    )

    def __init__(self) -> None:
        self.config_file = ""
        self.address = ""
        self.buses: list[tuple[str, str]] = []
        self.full_receiver = "drop-in"
        self.print_address: int | None = None
        self.print_pid: int | None = None
        self.ready_fd: int | None = None
        self.fork: bool | None = None
        self.pidfile = True
        self.syslog: bool | None = None
        self.syslog_only = False
        self.systemd_activation = False
        self.nofile = (0, 0)
        self.permissive = False
        self.learn = ""
        self.lessons: Lessons | None = None
        self.privileged: Privileged | None = None
