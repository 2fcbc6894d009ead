"""Listening sockets: the text of a `<listen>` or of `--address` is bound, and told back.

D-Bus specification, "Server Addresses" and "Transports"; where it leaves a choice, libdbus is
followed.  One text becomes one guid and one or more sockets (a host name with several addresses,
several sockets from systemd).  Of addresses separated by semicolons the first that can be bound
is taken, as libdbus does; a bus that is to listen on several has several `<listen>` elements.

Little is imported here, so that the address can be printed early.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterable
from typing import Any

from afdbus.errors import AddressError
from afdbus.host.systemd import listen_fds
from afdbus.server.listener import File, Listener
from afdbus.server.ownname import bind_name, random_name
from afdbus.wire.address import OWN_METHOD, Address, new_guid, parse

# libdbus's limit for a path, or for an abstract name with the NUL before it; its clients have the
# same one, although the kernel would take 108.
_MAX_UNIX_NAME = 99
_NONCE_BYTES = 16
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FAMILIES = {
    None: socket.AF_UNSPEC,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
}


def bind_all(texts: Iterable[str], passed: Passed | None = None) -> list[Listener]:
    """Bind each text, in order.  The listeners of the last one come first, as they are printed.

    Raises AddressError with libdbus's text; nothing is left behind then.
    """
    listeners: list[Listener] = []
    passed = passed or Passed()
    try:
        for text in texts:
            listeners[:0] = bind(text, passed)
    except AddressError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def printable(listeners: Iterable[Listener]) -> str:
    """The address of a bus as it is printed: of all its listeners, each with its guid."""
    # Sockets of one host name, or the same one twice from systemd, have one address.
    return ";".join(dict.fromkeys(map(str, listeners)))


def bind(text: str, passed: Passed | None = None) -> list[Listener]:
    """Bind the first of the addresses in `text` that can be, and listen there.

    `passed` are the sockets from systemd that are left.  Raises AddressError with libdbus's text.
    """
    addresses = parse(text)
    guid = new_guid()
    passed = passed or Passed()
    first_failure: AddressError | None = None
    for address in addresses:
        method = _METHODS.get(address.method)
        if method is None:
            continue
        try:
            return method(address, guid, passed)
        except _UnavailableError as failure:
            first_failure = first_failure or failure
    raise first_failure or AddressError(f"Unknown address type '{addresses[0].method}'")


class _UnavailableError(AddressError):
    """A sound address that cannot be bound here and now: the next one is tried."""


# unix:


def _unix(address: Address, guid: str, _passed: Passed) -> list[Listener]:
    given = [key for key in _UNIX if key in address.options]
    if not given:
        raise AddressError(
            "Server address of type unix was missing argument "
            "path or tmpdir or abstract or runtime or dir"
        )
    if len(given) > 1:
        raise AddressError(
            'Could not parse server address: cannot specify two of "path", "tmpdir", "abstract", '
            '"runtime" and "dir" at the same time'
        )
    return [_UNIX[given[0]](address.options[given[0]], guid)]


def _unix_path(path: str, guid: str) -> Listener:
    if len(os.fsencode(path)) > _MAX_UNIX_NAME:
        raise _UnavailableError("Socket name too long")
    _remove_stale(path)
    listening = _bound_unix(path, path)
    file = File(path)
    # Who may connect is decided by authentication and by the directory.  Where modes cannot be
    # set, go on: it may be good enough.
    with contextlib.suppress(OSError):
        os.chmod(path, 0o777)
    return Listener(listening, Address("unix", {"path": path}), guid, "unix", [file])


def _unix_abstract(name: str, guid: str) -> Listener:
    raw = b"\0" + name.encode("utf-8", "surrogateescape")
    if len(raw) > _MAX_UNIX_NAME:
        raise _UnavailableError("Abstract socket name too long")
    listening = _bound_unix(raw, name)
    return Listener(listening, Address("unix", {"abstract": name}), guid, "unix")


def _unix_directory(directory: str, guid: str) -> Listener:
    # `tmpdir` too: since 1.14.4 libdbus never takes an abstract name for it.
    return _unix_path(os.path.join(directory, "dbus-" + _random_name(10)), guid)


def _unix_runtime(value: str, guid: str) -> Listener:
    if value != "yes":
        raise AddressError(
            'Could not parse server address: if given, the only value allowed for "runtime" '
            'is "yes"'
        )
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if directory is None:
        raise _UnavailableError('"XDG_RUNTIME_DIR" is not set')
    return _unix_path(os.path.join(directory, "bus"), guid)


_UNIX: dict[str, Callable[[str, str], Listener]] = {
    "path": _unix_path,
    "tmpdir": _unix_directory,
    "abstract": _unix_abstract,
    "runtime": _unix_runtime,
    "dir": _unix_directory,
}


def _bound_unix(where: str | bytes, name: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(where)
        listening.listen(socket.SOMAXCONN)
    except OSError as error:
        listening.close()
        raise _UnavailableError(f'Failed to bind socket "{name}": {error.strerror}') from None
    return listening


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on.  dbus-daemon removes a live one as well.

    Whatever is left in the way makes the bind fail: Address already in use.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # lstat, not stat: what a link points to is not ours to judge
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


# tcp: and nonce-tcp:


def _tcp(address: Address, guid: str, _passed: Passed) -> list[Listener]:
    options = address.options
    family = options.get("family")
    if family not in _FAMILIES:
        raise _UnavailableError(f"Unknown address family {family}")
    host = options.get("host", "localhost")
    bind_to = options.get("bind", host)
    sockets = _bound_tcp(None if bind_to == "*" else bind_to, options.get("port", "0"), family)
    told = {"host": host, "port": str(sockets[0].getsockname()[1])}
    families = {listening.family for listening in sockets}
    if len(families) == 1:
        told["family"] = "ipv4" if socket.AF_INET in families else "ipv6"
    nonce: bytes | None = None
    files: list[File] = []
    if address.method == "nonce-tcp":
        nonce = os.urandom(_NONCE_BYTES)
        # A given `noncefile` is not looked at: it is for connectable addresses (specification).
        told["noncefile"], files = _write_nonce(nonce, sockets)
    advertised = Address(address.method, told)
    return [
        Listener(listening, advertised, guid, address.method, files, nonce) for listening in sockets
    ]


def _bound_tcp(host: str | None, port: str, family: str | None) -> list[socket.socket]:
    """Sockets on all addresses of `host` that can be bound, at least one, on one port."""
    try:
        found = socket.getaddrinfo(
            # as bytes, since for a str Python loads its codec for international names
            None if host is None else host.encode("utf-8", "surrogateescape"),
            port.encode("utf-8", "surrogateescape"),
            _FAMILIES[family],
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            socket.AI_ADDRCONFIG | socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        raise _UnavailableError(
            f'Failed to lookup host/port: "{host or "*"}:{port}": {error.args[1]} ({error.args[0]})'
        ) from None
    sockets: list[socket.socket] = []
    failures: list[str] = []
    chosen = 0  # the port that the kernel gave to the first, where it was free to choose
    for kind, sockaddr in dict.fromkeys((info[0], info[4]) for info in found):
        where: list[Any] = list(sockaddr)
        where[1] = where[1] or chosen
        try:
            # Else the wildcard of IPv6 would collide with that of IPv4.
            alone = kind == socket.AF_INET6 and family is None
            sockets.append(_listening_tcp(kind, tuple(where), alone))
        except OSError as error:
            failures.append(f'Failed to bind socket "{where[0]}" port {where[1]}: {error.strerror}')
        else:
            chosen = sockets[-1].getsockname()[1]
    if sockets:
        return sockets
    if len(failures) == 1:
        raise _UnavailableError(failures[0])
    raise _UnavailableError(f'Failed to bind to "{host or "*"}":{port} ({"; ".join(failures)})')


def _listening_tcp(family: int, where: tuple[Any, ...], v6_only: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # accepted sockets inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if v6_only:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(socket.SOMAXCONN)
    except OSError:
        listening.close()
        raise
    return listening


def _write_nonce(nonce: bytes, sockets: list[socket.socket]) -> tuple[str, list[File]]:
    """Write the nonce where only our user can read it; its path, and what is to be removed."""
    temporary = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")
    directory = os.path.join(temporary, "dbus_nonce-" + _random_name(8))
    path = os.path.join(directory, "nonce")
    try:
        os.mkdir(directory, 0o700)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(nonce)
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise _UnavailableError(f"Could not write nonce file {path}: {error.strerror}") from None
    return path, [File(path), File(directory)]


# systemd:


class Passed:
    """The sockets that systemd has opened for us, taken from the environment when first needed."""

    __slots__ = ("_fds",)

    def __init__(self) -> None:
        self._fds: list[tuple[int, str]] | None = None

    def take(self, name: str | None = None) -> list[socket.socket]:
        """Those that are called `name`, all that are left if it is None.  Raises AddressError."""
        try:
            if self._fds is None:
                self._fds = listen_fds()
        except OSError as error:
            raise _UnavailableError(f"Failed to acquire systemd socket: {error.strerror}") from None
        taken = [entry for entry in self._fds if name in (None, entry[1])]
        if not all(_is_listening(fd) for fd, _ in taken):
            raise _UnavailableError("Passed socket has wrong type.")
        self._fds = [entry for entry in self._fds if entry not in taken]
        return [socket.socket(fileno=fd) for fd, _ in taken]


def _systemd(address: Address, guid: str, passed: Passed) -> list[Listener]:
    sockets = passed.take()
    if not sockets:
        raise _UnavailableError("No socket received.")
    # The files of these sockets are systemd's.
    return [Listener(sock, _address_of(sock), guid, "systemd") for sock in sockets]


def _is_listening(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as passed:
        return (
            passed.type == socket.SOCK_STREAM
            and passed.family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
            and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        )


def _address_of(passed: socket.socket) -> Address:
    # dbus-daemon 1.14 tells abstract names and IP addresses with stray bytes at the end, or cut.
    where = passed.getsockname()
    if passed.family == socket.AF_UNIX:
        if isinstance(where, bytes):
            return Address("unix", {"abstract": where[1:].decode("utf-8", "surrogateescape")})
        return Address("unix", {"path": where})
    family = "ipv4" if passed.family == socket.AF_INET else "ipv6"
    return Address("tcp", {"family": family, "port": str(where[1]), "host": where[0]})


# afdbus:


def _afdbus(address: Address, guid: str, passed: Passed) -> list[Listener]:
    given = [key for key in ("name", "abstract") if key in address.options]
    if len(given) > 1:
        raise AddressError(
            'Could not parse server address: cannot specify both "name" and "abstract"'
        )
    name = address.options[given[0]] if given else random_name()
    sockets = passed.take(name)
    if sockets:
        return [
            Listener(sock, _address_of(sock), guid, OWN_METHOD, own_name=name) for sock in sockets
        ]
    try:
        return [bind_name(name, guid)]
    except ValueError as error:
        raise _UnavailableError(f"Failed to bind: {error}") from None
    except OSError as error:
        raise _UnavailableError(f'Failed to bind socket "{name}": {error.strerror}') from None


_METHODS: dict[str, Callable[[Address, str, Passed], list[Listener]]] = {
    OWN_METHOD: _afdbus,
    "unix": _unix,
    "tcp": _tcp,
    "nonce-tcp": _tcp,
    "systemd": _systemd,
}


def _random_name(length: int) -> str:
    # 256 is no multiple of 62: eight letters are likelier by a quarter, which does no harm here
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(length))
