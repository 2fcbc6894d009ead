"""Messages for names that nobody owns yet: held while a program is started that will own them.

D-Bus specification, "Message Bus Starting Services (Activation)".  Texts of errors and the order of
all checks are those of dbus-daemon's bus_activation_activate_service().  How a program is started
is the launcher's matter, or systemd's.  A held message counts as its sender's, like one in a full
outbox.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from afdbus.bus import delivery, systemd
from afdbus.bus import message as messages
from afdbus.bus.driver.privilege import check_real
from afdbus.errors import LIMITS_EXCEEDED, SERVICE_UNKNOWN, TIMED_OUT, BusError
from afdbus.wire.encode import encode
from afdbus.wire.message import BUS_INTERFACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from afdbus.bus.bus import Bus
    from afdbus.bus.message import Message
    from afdbus.bus.peer import Peer
    from afdbus.bus.ports import Child, Service

# The answers of StartServiceByName.
SUCCESS, ALREADY_RUNNING = 1, 2


def activate(bus: Bus, message: Message, name: str) -> None:
    """Hold `message` until `name` has an owner, who is to get it; raises BusError, the refusal."""
    service = _find(bus, name)
    if service is not None:
        # As far as the sender's rules can say it; the receiver's are asked when there is one.
        delivery.refuse(bus, message, None, None, False)
    bus.activations.hold(name, service, message, starts=False)


def start(bus: Bus, message: Message, name: str) -> int | None:
    """StartServiceByName: what to answer, or None if that is to be seen.  Raises BusError."""
    # The file comes first, as there: for a name without one it does not help to be running.
    service = _find(bus, name)
    if name in bus.names.owners:
        return ALREADY_RUNNING
    bus.activations.hold(name, service, message, starts=True)
    return None


def tell_systemd(bus: Bus, variables: dict[str, str]) -> None:
    """The environment of what is started gets `variables`; raises BusError if too much waits for
    systemd."""
    manager = bus.names.owners.get(systemd.NAME)
    if manager is not None:
        delivery.send_own(bus, systemd.set_environment(bus, variables, manager.name), manager)
        return
    message = systemd.set_environment(bus, variables, systemd.NAME)
    delivery.capture(bus, message, None)
    bus.activations.hold(systemd.NAME, _find(bus, systemd.NAME), message, starts=False)


def tell_reloaded(bus: Bus) -> None:
    """Other names may be activatable now."""
    delivery.broadcast_own(bus, BUS_INTERFACE, "ActivatableServicesChanged", "", ())


def _find(bus: Bus, name: str) -> Service | None:
    """Who provides `name`; None for systemd where it starts the others: it comes by itself."""
    _refuse_too_many(bus, bus.activations.count, name)
    if bus.systemd_activation and name == systemd.NAME:
        return None
    service = bus.services.find(name)
    if service is None:
        raise BusError(
            SERVICE_UNKNOWN, f"The name {name} was not provided by any .service files"
        )
    return service


def _refuse_too_many(bus: Bus, count: int, name: str) -> None:
    limit = bus.limits.max_pending_service_starts
    if count >= limit:
        raise BusError(
            LIMITS_EXCEEDED,
            f"The maximum number of pending activations has been reached, activation of {name} "
            f"failed (max_pending_service_starts={limit})",
        )


class Pending:
    """A name that is to come, and what waits for it.

    `service`: who provides it, None for systemd.  `child`: its program, if we have started one.
    `deadline`: when it is given up.  `held`: the messages in order, and whether each is a
    StartServiceByName.  It is emptied when they are done with: the program remembers the rest.
    """

    __slots__ = ("child", "deadline", "held", "name", "service")

    def __init__(self, name: str, service: Service | None, deadline: float) -> None:
        self.name = name
        self.service = service
        self.deadline = deadline
        self.child: Child | None = None
        self.held: list[tuple[Message, bool]] = []

    def take(self) -> list[tuple[Message, bool]]:
        """What was held, and is no more."""
        held, self.held = self.held, []
        return held


class Activations:
    """What is being started on one bus.  `count`: the messages that are held."""

    __slots__ = ("_bus", "_pending", "_wake_at", "count")

    def __init__(self, bus: Bus) -> None:
        self.count = 0
        self._bus = bus
        self._pending: dict[str, Pending] = {}
        # When `expire` will be called; infinity: it is not asked for.
        self._wake_at = inf

    def hold(self, name: str, service: Service | None, message: Message, *, starts: bool) -> None:
        """Keep `message`, starting `service` unless that was done.  Raises BusError."""
        pending = self._pending.get(name)
        if pending is None:
            pending = self._begin(name, service, message.sender)
        pending.held.append((message, starts))
        self.count += 1
        sender = message.sender
        if sender is None:
            return
        sender.charge(len(message))
        if message.fds is not None:
            message.fds.hold()
            sender.charge_fds(len(message.fds.numbers))

    def _begin(self, name: str, service: Service | None, sender: Peer | None) -> Pending:
        bus = self._bus
        timeout = bus.limits.service_start_timeout / 1000
        pending = Pending(name, service, bus.clock() + timeout)
        if service is not None:
            assert sender is not None  # the bus itself wants nobody but systemd
            check_real(sender, "start services")
            if bus.systemd_activation and service.systemd_service is not None:
                self._hand_over(name, service.systemd_service, sender)
            else:
                self._start(pending, service, sender)
        self._pending[name] = pending
        self._wake(pending.deadline)
        return pending

    def _wake(self, deadline: float) -> None:
        """Be called at `deadline`, at the latest."""
        if deadline < self._wake_at:
            self._wake_at = deadline
            self._bus.wake_at(deadline)

    def _start(self, pending: Pending, service: Service, sender: Peer) -> None:
        bus = self._bus
        bus.journal.info(
            f"Activating service name='{pending.name}' requested by '{sender.name}' "
            f"({bus.host.describe(sender.identity)})"
            + (" (using servicehelper)" if bus.launcher.uses_helper else "")
        )
        try:
            pending.child = bus.launcher.start(
                service, bus.environment, lambda error: self._ended(pending, service.exec, error)
            )
        except BusError as error:
            bus.journal.info(f"Activated service '{pending.name}' failed: {error.text}")
            raise

    def _hand_over(self, name: str, unit: str, sender: Peer) -> None:
        """Let systemd start `unit`, now or when it connects.  Raises BusError."""
        bus = self._bus
        manager = bus.names.owners.get(systemd.NAME)
        request = systemd.activation_request(bus, unit)
        delivery.capture(bus, request, manager)
        how = "Activating systemd to hand-off" if manager is None else "Activating via systemd"
        bus.journal.info(
            f"{how}: service name='{name}' unit='{unit}' requested by '{sender.name}' "
            f"({bus.host.describe(sender.identity)})"
        )
        try:
            if manager is not None:
                delivery.own_to_peer(bus, request, manager)
            else:
                # The message that wants `name` counts as well.
                _refuse_too_many(bus, self.count + 1, systemd.NAME)
                self.hold(systemd.NAME, None, request, starts=False)
        except BusError:
            bus.journal.info(f"Failed to activate via systemd: service name='{name}' unit='{unit}'")
            raise

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
        for message, starts in pending.take():
            sender = message.sender
            # Not the owner's fault: its RequestName succeeds (CVE-2014-3477).
            try:
                if sender is None:
                    delivery.own_to_peer(bus, message, owner)
                elif not starts:
                    delivery.to_peer(bus, message, owner)
            except BusError as error:
                if sender is not None:
                    delivery.send_error(bus, sender, message.serial, error)
            self._release(message)

    # -- it never gets one -------------------------------------------------------------------

    def _ended(self, pending: Pending, command: str, error: BusError | None) -> None:
        """The program has ended; None if it succeeded."""
        # One that succeeded may have put itself into the background; the name may still come.
        if error is None or self._pending.get(pending.name) is not pending:
            return
        self._bus.journal.info(f"Activated service '{pending.name}' failed: {error.text}")
        # What the same command was to provide will not come either.
        self._fail_all(lambda service: service.exec == command, error)

    def fail_unit(self, unit: str, error: BusError) -> None:
        """systemd could not start `unit`."""
        self._fail_all(lambda service: service.systemd_service == unit, error)

    def _fail_all(self, concerned: Callable[[Service], bool], error: BusError) -> None:
        for pending in list(self._pending.values()):
            if pending.service is not None and concerned(pending.service):
                self._fail(pending, error)

    def expire(self) -> None:
        """Give up what has taken longer than service_start_timeout."""
        bus = self._bus
        now = bus.clock()
        if now < self._wake_at:
            return
        self._wake_at = inf
        for pending in [p for p in self._pending.values() if p.deadline <= now]:
            if pending.child is not None:
                pending.child.kill()
            text = (
                f"Failed to activate service '{pending.name}': timed out "
                f"(service_start_timeout={bus.limits.service_start_timeout}ms)"
            )
            bus.journal.warning(text)
            self._fail(pending, BusError(TIMED_OUT, text))
        self._wake(min((pending.deadline for pending in self._pending.values()), default=inf))

    def _fail(self, pending: Pending, error: BusError) -> None:
        del self._pending[pending.name]
        for message, _ in pending.take():
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
        self.count -= 1
        sender = message.sender
        if sender is None:
            return
        sender.discharge(len(message))
        if message.fds is not None:
            sender.charged_fds -= len(message.fds.numbers)
            message.fds.release()
        self._bus.relieve(sender)
