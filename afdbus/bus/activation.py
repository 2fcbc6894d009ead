"""Messages for names that nobody owns yet: held while a program is started that will own them.

D-Bus specification, "Message Bus Starting Services (Activation)".  Texts of errors and the order of
all checks are those of dbus-daemon's bus_activation_activate_service().  How a program is started
is the launcher's matter.  A held message counts as its sender's, like one in a full outbox.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from afdbus.bus import delivery
from afdbus.bus import message as messages
from afdbus.errors import (
    LIMITS_EXCEEDED,
    SERVICE_UNKNOWN,
    SPAWN_CHILD_EXITED,
    SPAWN_CHILD_SIGNALED,
    TIMED_OUT,
    BusError,
)
from afdbus.wire.encode import encode
from afdbus.wire.message import BUS_INTERFACE

if TYPE_CHECKING:
    from afdbus.bus.bus import Bus
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer
    from afdbus.bus.ports import Child, Service

# The answers of StartServiceByName.
SUCCESS, ALREADY_RUNNING = 1, 2


def activate(bus: Bus, message: Message, name: str) -> None:
    """Hold `message` until `name` has an owner, who is to get it; raises BusError, the refusal."""
    service = _find(bus, name)
    # As far as the sender's rules can say it; the receiver's are asked when there is one.
    delivery.refuse(bus, message, None, None, False)
    bus.activations.hold(service, message, starts=False)


def start(bus: Bus, message: Message, name: str) -> int | None:
    """StartServiceByName: what to answer, or None if that is to be seen.  Raises BusError."""
    # The file comes first, as there: for a name without one it does not help to be running.
    service = _find(bus, name)
    if name in bus.names.owners:
        return ALREADY_RUNNING
    bus.activations.hold(service, message, starts=True)
    return None


def tell_reloaded(bus: Bus) -> None:
    """Other names may be activatable now."""
    delivery.broadcast_own(bus, BUS_INTERFACE, "ActivatableServicesChanged", "", ())


def _find(bus: Bus, name: str) -> Service:
    limit = bus.limits.max_pending_service_starts
    if bus.activations.count >= limit:
        raise BusError(
            LIMITS_EXCEEDED,
            f"The maximum number of pending activations has been reached, activation of {name} "
            f"failed (max_pending_service_starts={limit})",
        )
    service = bus.services.find(name)
    if service is None:
        raise BusError(
            SERVICE_UNKNOWN, f"The name {name} was not provided by any .service files"
        )
    return service


class Pending:
    """A program that was started and does not own its name yet, and what waits for that.

    `held`: the messages in order, and whether each is a StartServiceByName.
    """

    __slots__ = ("child", "held", "service")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.child: Child | None = None
        self.held: list[tuple[Message, bool]] = []


class Activations:
    """What is being started on one bus.  `count`: the messages that are held."""

    __slots__ = ("_bus", "_deadlines", "_pending", "_started", "count")

    def __init__(self, bus: Bus) -> None:
        self.count = 0
        self._bus = bus
        self._pending: dict[str, Pending] = {}
        self._deadlines: list[tuple[float, int, Pending]] = []
        self._started = 0

    def hold(self, service: Service, message: Message, *, starts: bool) -> None:
        """Keep `message`, starting `service` unless that was done.  Raises BusError."""
        sender = message.sender
        assert sender is not None
        pending = self._pending.get(service.name)
        if pending is None:
            pending = self._start(service, sender)
        pending.held.append((message, starts))
        self.count += 1
        sender.charge(len(message))
        if message.fds is not None:
            message.fds.hold()
            sender.charge_fds(len(message.fds.numbers))

    def _start(self, service: Service, sender: Peer) -> Pending:
        bus = self._bus
        name = service.name
        bus.journal.info(
            f"Activating service name='{name}' requested by '{sender.name}' "
            f"({bus.host.describe(sender.identity)})"
        )
        pending = Pending(service)
        try:
            pending.child = bus.launcher.start(
                service, bus.environment, lambda code: self._ended(pending, code)
            )
        except BusError as error:
            bus.journal.info(f"Activated service '{name}' failed: {error.text}")
            raise
        self._pending[name] = pending
        self._started += 1
        deadline = bus.clock() + bus.limits.service_start_timeout / 1000
        heappush(self._deadlines, (deadline, self._started, pending))
        bus.wake_at(deadline)
        return pending

    # -- the name has an owner ---------------------------------------------------------------

    def answer(self, name: str) -> None:
        """`name` gets an owner: tell those who asked for nothing but that."""
        pending = self._pending.get(name)
        if pending is None:
            return
        bus = self._bus
        bus.journal.info(f"Successfully activated service '{name}'")
        for message, starts in pending.held:
            sender = message.sender
            if starts and sender is not None:
                serial = sender.next_serial()
                body = encode("u", SUCCESS)
                reply = messages.own_return(serial, sender, message.serial, "u", body)
                delivery.send_own(bus, reply, sender)

    def deliver(self, name: str, owner: Peer) -> None:
        """`owner` has got `name`, and gets what was held for it, as far as it may."""
        pending = self._pending.pop(name, None)
        if pending is None:
            return
        bus = self._bus
        for message, starts in pending.held:
            sender = message.sender
            if not starts and sender is not None:
                try:
                    delivery.to_peer(bus, message, owner)
                except BusError as error:
                    # Not the owner's fault: its RequestName succeeds (CVE-2014-3477).
                    delivery.send_error(bus, sender, message.serial, error)
            self._release(message)

    # -- it never gets one -------------------------------------------------------------------

    def _ended(self, pending: Pending, code: int) -> None:
        """The program has ended, with `code` as its exit status or the negative of a signal."""
        name = pending.service.name
        # One that succeeded may have put itself into the background; the name may still come.
        if code == 0 or self._pending.get(name) is not pending:
            return
        if code > 0:
            error = BusError(SPAWN_CHILD_EXITED, f"Process {name} exited with status {code}")
        else:
            error = BusError(SPAWN_CHILD_SIGNALED, f"Process {name} received signal {-code}")
        self._bus.journal.info(f"Activated service '{name}' failed: {error.text}")
        # What the same command was to provide will not come either.
        command = pending.service.exec
        for other in [p for p in self._pending.values() if p.service.exec == command]:
            self._fail(other, error)

    def expire(self) -> None:
        """Give up what has taken longer than service_start_timeout."""
        bus = self._bus
        now = bus.clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            pending = heappop(self._deadlines)[2]
            name = pending.service.name
            if self._pending.get(name) is pending:
                if pending.child is not None:
                    pending.child.kill()
                text = (
                    f"Failed to activate service '{name}': timed out "
                    f"(service_start_timeout={bus.limits.service_start_timeout}ms)"
                )
                bus.journal.warning(text)
                self._fail(pending, BusError(TIMED_OUT, text))

    def _fail(self, pending: Pending, error: BusError) -> None:
        del self._pending[pending.service.name]
        for message, _ in pending.held:
            if message.sender is not None:
                delivery.send_error(self._bus, message.sender, message.serial, error)
            self._release(message)

    # -- nobody waits any more ---------------------------------------------------------------

    def forget(self, peer: Peer) -> None:
        """`peer` leaves: nothing that it has sent is delivered; what was started goes on."""
        if not peer.charged_messages:
            return
        for pending in self._pending.values():
            dropped = [message for message, _ in pending.held if message.sender is peer]
            if dropped:
                pending.held = [held for held in pending.held if held[0].sender is not peer]
                for message in dropped:
                    self._release(message)

    def _release(self, message: Message) -> None:
        sender = message.sender
        assert sender is not None
        self.count -= 1
        sender.discharge(len(message))
        if message.fds is not None:
            sender.charged_fds -= len(message.fds.numbers)
            message.fds.release()
        self._bus.relieve(sender)
