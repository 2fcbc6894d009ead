"""How the bus speaks to the world: small ports that `server` and `host` fill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from afdbus.errors import BusError
from afdbus.identity import Identity

if TYPE_CHECKING:
    from afdbus.bus.message import Message


class Clock(Protocol):
    """Monotonic time in seconds; tests turn it by hand."""

    def __call__(self) -> float: ...


class Journal(Protocol):
    """The log; a call neither blocks nor raises."""

    def info(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def security(self, text: str) -> None: ...


class Tap(Protocol):
    """Whom the maker of a bus lets see all that monitors can see."""

    def message(self, message: Message) -> None:
        """A message, before anything else is done with it."""

    def refused(self, text: str) -> None:
        """A copy that its receiver may not have, which nobody is told of; with the rule."""


class Host(Protocol):
    """What the bus asks of the system it runs on."""

    def machine_id(self) -> str:
        """The machine's UUID; raises BusError where there is none."""

    def describe(self, identity: Identity) -> str:
        """uid, pid, command and label of a peer, as dbus-daemon prints them in error texts."""

    def process_fd(self, port: Port) -> int | None:
        """A new pidfd for the process at the other end, the caller's to close; None: unknown."""

    def reload(self) -> None:
        """Read the configuration again and hand it to the bus; raises BusError, keeping the old."""


class Port(Protocol):
    """The connection of one peer, as far as the bus needs it."""

    def close(self) -> None:
        """End the connection after what is queued was offered to the socket once."""

    def cut(self) -> None:
        """End the connection soon, without writing anything more."""

    def active(self) -> None:
        """The peer has said Hello: it is no incomplete connection any more."""

    def resume(self) -> None:
        """The peer's messages were delivered: it may be read from again."""

    def take_fds(self, count: int) -> list[int] | None:
        """The next `count` descriptors that came with the peer's bytes; None if fewer did."""


class Service(Protocol):
    """A program that can be started since it will own `name`."""

    @property
    def name(self) -> str: ...

    @property
    def exec(self) -> str:
        """Its command line."""

    @property
    def user(self) -> str | None:
        """As whom a helper has to run it; None if the file does not say."""

    @property
    def systemd_service(self) -> str | None:
        """The unit that systemd is to start instead, where it starts services."""


class Services(Protocol):
    """The names that can be started."""

    def names(self) -> Iterable[str]: ...

    def find(self, name: str) -> Service | None:
        """Who provides `name` now, if anybody does."""


class Child(Protocol):
    """A program that was started and has not ended as far as the bus was told."""

    def kill(self) -> None: ...


class Launcher(Protocol):
    """Starts programs for the bus."""

    @property
    def uses_helper(self) -> bool:
        """Whether another program starts services, in an environment that is no client's."""

    def start(
        self,
        service: Service,
        environment: Mapping[str, str],
        ended: Callable[[BusError | None], None],
    ) -> Child:
        """Start `service` with `environment` added to its own; `ended` is called, never at once,
        with what is to be told of its end, None for success.  Raises BusError."""


class BusKeeper(Protocol):
    """Makes and closes other buses of the same process; raises BusError."""

    def create(self, name: str, config: str) -> str:
        """Make a bus by that name, a random one if it is empty; returns its address."""

    def closing(self, name: str) -> Callable[[], None]:
        """What closes the bus `name`, after the answer."""

    def buses(self) -> list[tuple[str, str]]:
        """Names and addresses of all."""
