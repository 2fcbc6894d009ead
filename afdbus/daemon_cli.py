"""`afdbus-daemon`: the command line of dbus-daemon(1), and what is done before the bus serves.

Options, texts and exit statuses are those of dbus-daemon 1.14.  The order of what happens is its
order too, since launchers rely on it: configuration, pid file looked at, bind, address printed,
user looked up, fork, pid file and pid, limits, privileges.  No argparse: its import alone would
take a tenth of the time until the address is printed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import afdbus
from afdbus.config.paths import session_config, system_config
from afdbus.errors import AddressError, ConfigError
from afdbus.host.journal import Journal
from afdbus.host.process import (
    PidFile,
    StartError,
    become,
    daemonise,
    find_user,
    prepare_descriptors,
    print_line,
    raise_fd_limit,
)
from afdbus.server.boundbus import BoundBus, bind_buses, wanted_buses
from afdbus.server.options import SIGNALS, WAYS, Options
from afdbus.server.starterenv import about_bus

if TYPE_CHECKING:
    from afdbus.config.model import Config
    from afdbus.server.privileged import Privileged

# What dbus-daemon does not have (--bus, --full-receiver, --permissive, --learn) is not in it:
# scripts may compare.
USAGE = (
    "dbus-daemon [--version] [--session] [--system] [--config-file=FILE] "
    "[--print-address[=DESCRIPTOR]] [--print-pid[=DESCRIPTOR]] [--introspect] "
    "[--address=ADDRESS] [--nopidfile] [--nosyslog] [--syslog] [--syslog-only] [--nofork] [--fork] "
    "[--systemd-activation] [--ready-fd=DESCRIPTOR]\n"
)
# Configure scripts take the first line apart and compare the number with what they need.
VERSION = (
    f"D-Bus Message Bus Daemon 1.14.10 (afdbus {afdbus.__version__})\n"
    "afdbus speaks the protocol of that version of the reference implementation.\n"
    "This is free software under the MIT licence; there is NO warranty.\n"
)

_FLAGS: dict[str, dict[str, bool]] = {
    "--fork": {"fork": True},
    "--nofork": {"fork": False},
    "--nopidfile": {"pidfile": False},
    "--nosyslog": {"syslog": False},
    "--syslog": {"syslog": True},
    "--syslog-only": {"syslog": True, "syslog_only": True},
    "--systemd-activation": {"systemd_activation": True},
    "--permissive": {"permissive": True},
}
_TEXTS = {
    "--config-file": "configuration file",
    "--address": "address",
    "--print-address": "printing address to",
    "--print-pid": "printing pid to",
    "--ready-fd": "reporting readiness to",
    "--full-receiver": "full receiver",
    "--learn": "learning to",
}
_CONFIG_FILES = {"--session": session_config, "--system": system_config}


class _Done(Exception):  # noqa: N818 - an end, not always an error
    """The command line was all there is to do: print and exit."""

    def __init__(self, status: int, out: str = "", err: str = "") -> None:
        super().__init__(status, out, err)
        self.status = status
        self.out = out
        self.err = err


def parse_options(arguments: list[str]) -> Options:
    """The options in `arguments` (without the program).  Raises `_Done`.

    An option that takes a value may have it behind an equals sign or as the next argument; the
    next argument is no value if it is an option itself (so in dbus-daemon since 1.15.8).
    """
    options = Options()
    texts = dict.fromkeys(_TEXTS, "")
    asked = set()

    def take(option: str, value: str, as_option: str) -> None:
        if texts[option]:
            already = f"{_TEXTS[option]} {texts[option]} already requested"
            raise _Done(1, err=f"{as_option} specified but {already}\n")
        texts[option] = value

    previous = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument in _FLAGS:
            for key, on in _FLAGS[argument].items():
                setattr(options, key, on)
        elif argument in _CONFIG_FILES:
            take("--config-file", _CONFIG_FILES[argument](), argument)
        elif name == "--bus":
            if equals:
                options.buses.append(_bus(value))
        elif name in _TEXTS:
            asked.add(name)
            if equals:
                take(name, value, name)
        elif argument == "--version":
            raise _Done(0, VERSION)
        elif argument == "--introspect":
            raise _Done(0, _introspection())
        elif previous in _TEXTS:
            take(previous, argument, previous)
        elif previous == "--bus":
            options.buses.append(_bus(argument))
        else:
            raise _Done(1, err=USAGE)
        previous = argument
    has_own = options.buses and all(file for _, file in options.buses) and not texts["--address"]
    if not texts["--config-file"] and not has_own:
        raise _Done(1, err="No configuration file specified.\n" + USAGE)
    # absolute, as a daemon changes its directory and may have to read the file again
    if texts["--config-file"]:
        options.config_file = os.path.abspath(texts["--config-file"])
    if texts["--full-receiver"]:
        if texts["--full-receiver"] not in WAYS:
            raise _Done(1, err=USAGE)
        options.full_receiver = texts["--full-receiver"]
    options.address = texts["--address"]
    if texts["--learn"]:
        options.learn = os.path.abspath(texts["--learn"])
    if "--print-address" in asked:
        options.print_address = _descriptor(texts["--print-address"])
    if "--print-pid" in asked:
        options.print_pid = _descriptor(texts["--print-pid"])
    if "--ready-fd" in asked:
        options.ready_fd = _descriptor(texts["--ready-fd"])
    return options


def _bus(text: str) -> tuple[str, str]:
    """Name, escaped as in addresses, and file of a `--bus`."""
    name, _, file = text.partition("=")
    return name, os.path.abspath(file) if file else ""


def _descriptor(text: str) -> int:
    """The descriptor `text` names, standard output if it is empty.  A number as for strtol(3)."""
    if not text:
        return 1
    digits = text.lstrip(" \t\n\v\f\r").removeprefix("+")
    with contextlib.suppress(ValueError):
        if digits.isalnum() and digits.isascii():
            is_octal = digits[0] == "0" and digits.isdecimal()
            number = int(digits, 8) if is_octal else int(digits, 0)
            if number < 2**31 and digits[1:2] not in ("b", "B", "o", "O"):
                return number
    raise _Done(1, err=f'Invalid file descriptor: "{text}"\n')


def _introspection() -> str:
    from afdbus.bus.driver.interfaces import INTERFACES
    from afdbus.bus.driver.table import introspection

    return introspection(INTERFACES, "/org/freedesktop/DBus") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the daemon with these arguments (those of the process by default): its exit status."""
    prepare_descriptors()
    try:
        options = parse_options(sys.argv[1:] if argv is None else argv)
    except _Done as done:
        _write(1, done.out)
        _write(2, done.err)
        return done.status

    try:
        wanted = wanted_buses(options)
    except (ConfigError, AddressError) as error:
        return _fail(Journal(), str(error))
    config = wanted[0].config
    journal = _journal(options, config)
    if options.learn:
        from afdbus.server.learning import Lessons

        try:
            options.lessons = Lessons(options.learn)
        except ConfigError as error:
            return _fail(journal, f'Cannot learn to "{options.learn}": {error}')
    pidfile = PidFile(config.pidfile) if config.pidfile and options.pidfile else None
    buses: list[BoundBus] = []
    try:
        notice = pidfile.check() if pidfile else None
        # Until the loop can end in an orderly way they wait; it unblocks them.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        buses = bind_buses(wanted)
        return _start(options, config, buses, journal, pidfile, notice)
    except (StartError, AddressError) as error:
        return _fail(journal, str(error))
    finally:
        for bus in buses:
            for listener in bus.listeners:
                listener.close()
        if pidfile:
            pidfile.remove()
        journal.close()


def _start(
    options: Options,
    config: Config,
    buses: list[BoundBus],
    journal: Journal,
    pidfile: PidFile | None,
    notice: str | None,
) -> int:
    """From the printed address to the end of the daemon.  Raises StartError."""
    if options.print_address is not None:
        print_line(options.print_address, "\n".join(map(str, buses)))
    # Its existence is looked at before a fork, so that the starter sees the error.
    user = find_user(config.user) if config.user else None
    fork = config.fork if options.fork is None else options.fork
    part = daemonise(config.keep_umask) if fork else None
    if pidfile:
        pidfile.write()
    if options.print_pid is not None:
        print_line(options.print_pid, str(os.getpid()))
    options.nofile, complaint = raise_fd_limit()
    if any(bus.config.apparmor == "required" for bus in buses):  # which is not there yet
        raise StartError("AppArmor mediation required but not present")
    if user and user[0] != 0 and os.geteuid() == 0 and config.servicehelper is None:
        options.privileged = _fork_launcher(options, buses[0], journal.syslog, fork)
    # Everything is imported before privileges go: afterwards the files may be unreadable.
    from afdbus.server.daemon import TASK, run_daemon

    if user:
        import_module(TASK)
        import_module("hashlib")  # for cookies
        become(*user)
    if part:
        part()
    configs = dict.fromkeys(bus.config for bus in buses)
    for warning in (notice, complaint, *(w for one in configs for w in one.warnings)):
        if warning:
            journal.warning(warning)
    return run_daemon(options, buses, journal)


def _fork_launcher(options: Options, bus: BoundBus, journals: bool, silent: bool) -> Privileged:
    """Leave somebody behind who can start services of `bus` as other users.  Raises StartError."""
    from afdbus.server import privileged

    terms = privileged.Terms(
        bus.config_file,
        about_bus(str(bus), bus.config.type),
        options.nofile,
        journals,
        end=bus.config.type != "system",
    )
    try:
        return privileged.fork(terms, silent=silent)
    except OSError as error:
        raise StartError(f"Failed to fork launcher: {error.strerror}") from None


def _journal(options: Options, config: Config) -> Journal:
    syslog = config.syslog if options.syslog is None else options.syslog
    prefix = ""
    if config.type == "system":
        prefix = "[system] "
    elif config.type == "session":
        prefix = f"[session uid={os.getuid()} pid={os.getpid()}] "
    return Journal(
        stderr=not (options.syslog and options.syslog_only), syslog=syslog, prefix=prefix
    )


def _fail(journal: Journal, text: str) -> int:
    journal.prefix = ""
    journal.error(f"Failed to start message bus: {text}")
    journal.close()
    return 1


def _write(fd: int, text: str) -> None:
    # Not by sys.stdout, which does not exist if the descriptor was closed at the start.
    data = text.encode()
    with contextlib.suppress(OSError):  # nobody reads: nobody to tell
        while data:
            data = data[os.write(fd, data) :]


if __name__ == "__main__":
    sys.exit(main())
