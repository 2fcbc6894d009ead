"""From a call of the bus to its handler, and from the handler's answer to the reply."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from afdbus.bus import delivery, systemd
from afdbus.bus import message as messages
from afdbus.bus.driver import host1
from afdbus.bus.driver.privilege import check_privileged
from afdbus.bus.driver.table import ANY_PATH, FIRST, PRIVILEGED, WHOLE, Answer, Method
from afdbus.bus.judge import judge, surely_allowed
from afdbus.bus.message import Message
from afdbus.errors import (
    ACCESS_DENIED,
    INVALID_ARGS,
    UNKNOWN_INTERFACE,
    UNKNOWN_METHOD,
    BusError,
)
from afdbus.wire.decode import decode
from afdbus.wire.fds import Fds
from afdbus.wire.header import METHOD_CALL, METHOD_RETURN, Header, stamp
from afdbus.wire.message import BUS_NAME, BUS_PATH, method_return

if TYPE_CHECKING:
    from collections.abc import Callable

    from afdbus.bus.bus import Bus
    from afdbus.bus.peer import Peer
    from afdbus.bus.plan import Plan

_fixed = Struct("<III").pack
# So many answers about names are kept, to questions up to so many bytes.
_MAX_ANSWERS = 256
_MAX_QUESTION = 300
_u32 = Struct("<I").unpack_from


def handle(bus: Bus, message: Message) -> Method | None:
    """Do what a message to the driver asks for; returns the method if a plan may stand for it.

    What is not a call is ignored.  Raises BusError, the answer to be sent instead.
    """
    header = message.header
    peer = message.sender
    assert peer is not None
    if systemd.is_failure(header):
        systemd.activation_failed(bus, message)
        return None
    if header.type != METHOD_CALL:
        return None
    method = find(peer, header)
    if header.signature != method.takes:
        raise BusError(
            INVALID_ARGS,
            f"Call to {method.name} has wrong args ({header.signature}, "
            f"expected {method.takes})\n",
        )
    arguments = decode(header.signature, header.little, bytes(message.body), 0, len(message.body))
    given = message if method.flags & WHOLE else header
    answer = method.handler(peer, given, *arguments)
    if method.flags & FIRST and bus.watched:
        # Monitors see it from the name that it has brought, as there.
        delivery.capture(bus, message.renamed(peer.name), None)
    if answer is not None:
        reply(peer, message.serial, method, answer)
    return None if method.flags & (PRIVILEGED | WHOLE) else method


def find(peer: Peer, header: Header) -> Method:
    """The method that a call means, if it exists at this path and for this peer."""
    if header.interface == host1.INTERFACE:
        return host1.find(peer, header)
    canonical = header.path == BUS_PATH
    found_interface = False
    for interface in peer.bus.interfaces:
        if not (canonical or interface.any_path):
            continue
        if header.interface is not None and header.interface != interface.name:
            continue
        found_interface = True
        for method in interface.methods:
            if method.name != header.member:
                continue
            if method.flags & PRIVILEGED:
                check_privileged(peer, header)
            if not (canonical or method.flags & ANY_PATH):
                raise BusError(
                    ACCESS_DENIED,
                    f"Method '{method.name}' is only available at the canonical object path "
                    f"'{BUS_PATH}'",
                )
            return method
    raise BusError(
        UNKNOWN_METHOD if found_interface else UNKNOWN_INTERFACE,
        f"{BUS_NAME} does not understand message {header.member}",
    )


def reply(peer: Peer, serial: int, method: Method, answer: Answer) -> None:
    """Send a handler's answer, then do what it wants done after it."""
    body, more = answer if isinstance(answer, tuple) else (answer, None)
    fds = more if isinstance(more, Fds) else None
    own = peer.next_serial()
    delivery.send_own(
        peer.bus, messages.own_return(own, peer, serial, method.returns, body, fds), peer
    )
    if isinstance(more, Fds):
        more.release()
    elif more is not None:
        more()


def planned(
    peer: Peer, plan: Plan, data: bytes, start: int, end: int, serial: int
) -> bool:
    """The call of a plan, with the body data[start:end]: known to exist and to be allowed.

    Returns whether it did no more than to repeat an answer.
    """
    method = plan.method
    assert method is not None
    bus = peer.bus
    box = peer.outbox
    answers = plan.answers
    if answers is not None and peer.may_have_replies and not box.blocked and not bus.watched:
        known = answers.get(data[start:end])
        if known is not None:
            # 0.9 us less, 1.8 where it is GetNameOwner, than to ask and to answer anew.
            peer.serial = own = peer.serial % 0xFFFFFFFF + 1
            box.push(method_return(own, serial, peer.destination, method.returns, known))
            return True
    header = plan.header
    arguments: tuple[Any, ...]
    # The body was checked: a length, the text, a NUL (1.2 us less than `decode`).
    if method.takes == "s":
        arguments = (data[start + 4 : end - 1].decode(),)
    elif method.takes == "su" and header.little:
        (length,) = _u32(data, start)
        arguments = (data[start + 4 : start + 4 + length].decode(), *_u32(data, end - 4))
    elif method.takes:
        arguments = decode(method.takes, header.little, data, start, end)
    else:
        arguments = ()
    try:
        answer = method.handler(peer, header, *arguments)
    except BusError as error:
        delivery.send_error(bus, peer, serial, error)
        return False
    assert answer is not None  # no plan stands for a method that may answer later
    more: Callable[[], None] | Fds | None = None
    if isinstance(answer, tuple):
        body, more = answer
    else:
        body = answer
    allowed = peer.may_have_replies
    if allowed is None:
        allowed = peer.may_have_replies = _may_have_replies(peer)
    if not allowed or box.blocked or bus.watched or isinstance(more, Fds):
        reply(peer, serial, method, answer)
    else:
        # The same without a Message.
        own = peer.next_serial()
        box.push(method_return(own, serial, peer.destination, method.returns, body))
        if more is not None:
            more()
        elif answers is not None and end - start <= _MAX_QUESTION:
            if len(answers) >= _MAX_ANSWERS:
                answers.clear()
            answers[data[start:end]] = body
    if bus.eavesdropping:
        _overheard(peer, plan, data[start:end], serial)
    return False


def _overheard(peer: Peer, plan: Plan, body: bytes, serial: int) -> None:
    """While anybody eavesdrops there are no plans, so this is the call that has begun it: an
    AddMatch, whose own rule may fit it."""
    fixed = _fixed(plan.word, len(body), serial)
    message = Message(plan.header, peer, serial, fixed + stamp(plan.header, peer.name), body)
    for other in delivery.overhearers(peer.bus, message, None):
        delivery.push(message, other)


def _may_have_replies(peer: Peer) -> bool:
    """Whether policy lets the driver's replies through to the peer: they differ in nothing that a
    rule could look at, so it is asked once.  Where a policy is on trial it is asked each time."""
    if peer.bus.trial is not None:
        return False
    if surely_allowed(peer, METHOD_RETURN, None, None):
        return True
    example = messages.own_return(1, peer, 1, "", b"")
    return judge(example, peer, peer, True) is None
