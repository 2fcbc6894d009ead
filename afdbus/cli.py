"""`afdbus`: the command for people.  The daemon itself is `afdbus-daemon` (see `daemon_cli`).

`afdbus policy`, `afdbus config` and `afdbus shim` live in `tools`, and are imported when they are
asked for.

`afdbus run` does what dbus-run-session(1) does, and a little more carefully: a signal for us goes
to the command, and the bus does not outlive us even if we are killed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

import afdbus
from afdbus import daemon_cli

OWN_ERROR = 127  # as dbus-run-session and the shell have it
_STOP_TIME = 5.0  # seconds that the bus gets for an orderly end; it needs a few milliseconds
_PR_SET_PDEATHSIG = 1  # prctl(2)
_SI_KERNEL = 0x80  # sigaction(2): sent by no process, such as Ctrl-C
# Signals that are meant for the command when they reach us.
_FORWARDED = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
# What else may tell of another bus (dbus-run-session unsets the same).
_OTHER_BUS = (
    "DBUS_SESSION_BUS_PID",
    "DBUS_SESSION_BUS_WINDOWID",
    "DBUS_STARTER_ADDRESS",
    "DBUS_STARTER_BUS_TYPE",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(OWN_ERROR, f"{self.prog}: {message}\n")


class _Interrupted(Exception):  # noqa: N818 - what happened, not an error
    """A signal came while the bus was started."""


def main(argv: list[str] | None = None) -> int:
    """Do what the arguments (those of the process by default) say: the exit status."""
    parser = _Parser(prog="afdbus", description="A D-Bus message bus in pure Python.")
    parser.add_argument("--version", action="version", version=f"afdbus {afdbus.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    run_parser = commands.add_parser(
        "run",
        help="run a command with a message bus of its own",
        usage="afdbus run [--config-file FILE] [--] COMMAND [ARGUMENT...]",
        description="Run COMMAND with a message bus of its own as the session bus. The exit "
        f"status is COMMAND's, 128+N if signal N ended it, {OWN_ERROR} if it could not be run.",
    )
    run_parser.add_argument(
        "--config-file", metavar="FILE", help="configuration of the bus (default: session.conf)"
    )
    run_parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("policy", help="explain, list, check and test policies")
    commands.add_parser("config", help="check configuration files")
    commands.add_parser("shim", help="put a dbus-daemon that is afdbus into a directory")
    commands.add_parser("bus", help="make, close and list the buses of a daemon that runs")
    words = sys.argv[1:] if argv is None else argv
    if words[:1] and words[0] in ("bus", "policy", "config", "shim"):
        return _ask(words[0], words[1:])
    arguments = parser.parse_args(words)
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        run_parser.error("no COMMAND given")
    return run(command, arguments.config_file)


def _ask(group: str, words: list[str]) -> int:
    """Do what a command of `tools` is told: the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who pipes us to head(1) has seen enough
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text
    if group == "bus":
        from afdbus.tools import bus_command

        return bus_command.main(words)
    if group == "policy":
        from afdbus.tools import policy_command

        return policy_command.main(words)
    if group == "config":
        from afdbus.tools import config_command

        return config_command.main(words)
    from afdbus.tools import shim_command

    return shim_command.main(words)


def run(command: list[str], config_file: str | None = None) -> int:
    """Run `command` with a bus of its own; its exit status, 128+N if signal N ended it."""
    signals = _Signals()
    bus = _Bus(config_file, signals)
    try:
        signals.unblock()  # the start may take long, or hang, and must be interruptible
        address = bus.address()
        signals.block()
        if not address:
            return _complain("the bus did not start")
        return _run_command(command, address, bus, signals)
    except _Interrupted as interrupted:
        return 128 + int(interrupted.args[0])
    finally:
        bus.stop()


def _complain(text: str) -> int:
    print(f"afdbus: {text}", file=sys.stderr)
    return OWN_ERROR


class _Signals:
    """The signals that we pass on, blocked at first.  What is ignored when we start stays so."""

    def __init__(self) -> None:
        self._passed = [n for n in _FORWARDED if signal.getsignal(n) is not signal.SIG_IGN]
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, [*self._passed, signal.SIGCHLD])
        for number in self._passed:
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self.block()  # one is enough: what follows is cleaning up
        raise _Interrupted(number)

    def block(self) -> None:
        """Let signals wait until they are fetched."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self._passed)

    def unblock(self) -> None:
        """Let signals raise `_Interrupted`."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._passed)

    def reset(self) -> None:
        """In a child: all as it was when we were started."""
        for number in self._passed:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def fetch(self) -> signal.struct_siginfo:
        """Wait for the next signal, SIGCHLD included."""
        return signal.sigwaitinfo([*self._passed, signal.SIGCHLD])


class _Bus:
    """The daemon, a child.  It is forked and not another Python, which saves that one's start."""

    def __init__(self, config_file: str | None, signals: _Signals) -> None:
        parent = os.getpid()
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                signals.reset()
                _detach_from(parent, writer)
                which = ["--session"] if config_file is None else ["--config-file", config_file]
                status = daemon_cli.main(["--nofork", f"--print-address={writer}", *which])
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            finally:
                os._exit(status)
        os.close(writer)

    def address(self) -> str:
        """The address of the bus, empty if it ended without telling one."""
        with open(self._reader, encoding="utf-8", errors="surrogateescape") as pipe:
            return pipe.readline().rstrip("\n")

    def is_gone(self) -> bool:
        """Whether the daemon has ended, for whatever reason."""
        if self._pid != 0 and os.waitpid(self._pid, os.WNOHANG)[0] != 0:
            self._pid = 0
        return self._pid == 0

    def stop(self) -> None:
        """End the daemon, and wait until it is gone."""
        deadline = time.monotonic() + _STOP_TIME
        if not self.is_gone():
            os.kill(self._pid, signal.SIGTERM)
        while not self.is_gone():
            left = deadline - time.monotonic()
            if left <= 0:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                return
            signal.sigtimedwait([signal.SIGCHLD], left)


def _detach_from(parent: int, writer: int) -> None:
    """In the daemon: let go of what is not meant for it, and end when the parent ends."""
    os.setsid()  # Ctrl-C is for the command
    os.closerange(3, writer)
    os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
    # So the bus hears of it when the parent is killed; a Python without ctypes cannot ask for it.
    with contextlib.suppress(ImportError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _run_command(command: list[str], address: str, bus: _Bus, signals: _Signals) -> int:
    """Run the command, passing signals on to it; its exit status as a shell tells it."""
    environment = {key: value for key, value in os.environ.items() if key not in _OTHER_BUS}
    environment["DBUS_SESSION_BUS_ADDRESS"] = address
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            preexec_fn=signals.reset,  # noqa: PLW1509 - there are no threads here
            close_fds=False,
        )
    except OSError as error:
        return _complain(f"cannot run {command[0]}: {error.strerror}")
    told = False
    while (status := child.poll()) is None:
        information = signals.fetch()
        if information.si_signo == signal.SIGCHLD:
            if bus.is_gone() and not told:
                told = True
                _complain("the bus has ended; the command goes on without it")
        elif information.si_code != _SI_KERNEL:
            # What a terminal sends has reached the command already.
            child.send_signal(information.si_signo)
    return 128 - status if status < 0 else status
