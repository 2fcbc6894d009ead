"""A small process that stays root and starts services for a bus that does not stay it.

It is what a setuid helper is elsewhere, for a `<user>` without `<servicehelper>`: forked before
privileges are dropped, and before any thread.  From the bus it takes nothing but names.  What they
mean it reads by itself, in files that are root's alone, in the directories of the configuration
that the daemon was started with.  Each service is started in an environment of its
own (CVE-2012-3524) as the user that its file names; whatever becomes of it is told by an exit
status, that of dbus-daemon-launch-helper where it could not be started.

The process ends with the daemon, whose end of the socket pair is the only one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import select
import signal
import socket
import sys
from struct import Struct
from typing import NamedTuple

from afdbus.config import commandline
from afdbus.config.load import compose
from afdbus.errors import BusError, ConfigError
from afdbus.host.process import reset_oom_score
from afdbus.host.systemd import journal_stream
from afdbus.server import ownfiles
from afdbus.server.spawnerrors import (
    CONFIG_INVALID,
    EXEC_FAILED,
    FILE_INVALID,
    INVALID_ARGS,
    NAME_INVALID,
    NOT_FOUND,
    SETUP_FAILED,
)
from afdbus.wire.names import is_well_known_name

# Both ways a number that the bus has chosen; to here the name of a service, or nothing: kill it.
REQUEST = Struct("=I")
# From here the exit status, or the negative number of a signal.
REPORT = Struct("=Ii")

_MAX_REQUEST = 1024
_WARNING, _INFO = 4, 6  # syslog(3)


class Terms(NamedTuple):
    """How services are started.

    `config_file`: whose service directories count.  `environment`: all that services get.
    `nofile`: their RLIMIT_NOFILE (soft, hard).  `journals`: they print to the journal, if there is
    one.  `end`: they are told to end when the bus does.
    """

    config_file: str
    environment: dict[str, str]
    nofile: tuple[int, int]
    journals: bool
    end: bool


class Privileged(NamedTuple):
    """The process, as its starter sees it."""

    pid: int
    sock: socket.socket


def fork(terms: Terms, *, silent: bool) -> Privileged:
    """Start the process.

    `silent`: it must not hold our standard descriptors, since our starter may wait for their end.
    Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        # Nothing that belongs to the daemon is to be cleaned up here, so it never returns.
        try:
            _separate(theirs.fileno(), silent)
            _Launcher(theirs, terms).run()
        except BaseException:
            sys.excepthook(*sys.exc_info())  # there is nobody above who could tell it
        finally:
            os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return Privileged(pid, ours)


def _separate(kept: int, silent: bool) -> None:
    """Part from the daemon: its terminal, signals, descriptors, directory."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o022)
    if silent:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


class _Launcher:
    def __init__(self, sock: socket.socket, terms: Terms) -> None:
        self._sock = sock
        self._terms = terms
        self._poll = select.poll()
        # By pidfd: the pid, and the number that the bus has given it.
        self._running: dict[int, tuple[int, int]] = {}

    def run(self) -> None:
        """Serve until the bus is gone."""
        self._poll.register(self._sock, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._running:
                    self._reap(fd)
                elif not self._serve():
                    self._leave()
                    return

    def _serve(self) -> bool:
        try:
            request = self._sock.recv(_MAX_REQUEST)
        except ConnectionResetError:
            request = b""
        if len(request) < REQUEST.size:
            return False
        (number,) = REQUEST.unpack_from(request)
        name = request[REQUEST.size :]
        if name:
            self._start(number, name)
        else:
            for pid, its_number in self._running.values():
                if its_number == number:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _start(self, number: int, name: bytes) -> None:
        try:
            pid = os.fork()
        except OSError:
            self._report(number, SETUP_FAILED)
            return
        if pid == 0:
            status = SETUP_FAILED
            try:
                status = _become(name, self._terms)
            finally:
                os._exit(status)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._report(number, SETUP_FAILED)
            return
        self._running[pidfd] = pid, number
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, number = self._running.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        self._report(number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def _report(self, number: int, code: int) -> None:
        with contextlib.suppress(OSError):  # the bus is gone, which is seen next
            self._sock.send(REPORT.pack(number, code))

    def _leave(self) -> None:
        if self._terms.end:
            for pid, _ in self._running.values():
                with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
                    os.killpg(pid, signal.SIGTERM)


def _become(name: bytes, terms: Terms) -> int:
    """Become the service of this name; returns, as the exit status, why that is not possible."""
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        return NAME_INVALID
    if not is_well_known_name(text):
        return NAME_INVALID
    try:
        directories = compose(terms.config_file).servicedirs
    except ConfigError as error:
        return _refuse(CONFIG_INVALID, str(error))
    try:
        service = ownfiles.find(text, [directory.path for directory in directories])
    except ConfigError as error:
        return _refuse(FILE_INVALID, str(error))
    if service is None:
        return NOT_FOUND
    if service.user is None:
        return _refuse(FILE_INVALID, f"{service.path}: no user")
    try:
        arguments = commandline.split(service.exec)
    except BusError:
        return INVALID_ARGS
    try:
        user = pwd.getpwnam(service.user)
        _set_up(text, user, terms)
    except (KeyError, OSError, ValueError) as error:
        return _refuse(SETUP_FAILED, f"{service.path}: {error}")
    return _execute(arguments, terms.environment)


def _refuse(status: int, why: str) -> int:
    """What the status does not tell goes where a service would print."""
    with contextlib.suppress(OSError):
        os.write(2, f"{why}\n".encode())
    return status


def _set_up(name: str, user: pwd.struct_passwd, terms: Terms) -> None:
    os.setsid()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    if terms.journals:
        with contextlib.suppress(OSError):  # there is no journal everywhere
            for fd, priority in ((1, _INFO), (2, _WARNING)):
                os.dup2(journal_stream(name, priority), fd)
    reset_oom_score(os.getpid())
    resource.setrlimit(resource.RLIMIT_NOFILE, terms.nofile)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def _execute(arguments: list[str], environment: dict[str, str]) -> int:
    # All descriptors but the standard ones are close-on-exec.
    with contextlib.suppress(OSError, ValueError):
        os.execve(arguments[0], arguments, environment)
    return EXEC_FAILED
