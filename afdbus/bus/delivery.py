"""Whether and to whom: the layered form of what the road does fast.

Misses, odd frames, the driver and held messages come through here.  In each function come first all
questions, then all deeds, without a pause between: a message reaches all its receivers or none, and
a refusal leaves nothing behind but what dbus-daemon leaves of it in the list of open calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afdbus.bus import message as messages
from afdbus.bus.judge import FULL, Denial, because, complaint, judge, log
from afdbus.bus.replies import check, take
from afdbus.errors import NOT_SUPPORTED, BusError
from afdbus.wire.encode import encode
from afdbus.wire.header import METHOD_CALL, NO_REPLY_EXPECTED, SIGNAL
from afdbus.wire.message import BUS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from afdbus.bus.bus import Bus
    from afdbus.bus.cell import Cell, Found
    from afdbus.bus.match import MatchRule
    from afdbus.bus.matchindex import MatchIndex
    from afdbus.bus.message import Message
    from afdbus.bus.outbox import Outbox
    from afdbus.bus.peer import Peer
    from afdbus.bus.plan import Plan


def push(message: Message, receiver: Peer) -> None:
    """Append the message to the receiver's outbox.

    What a monitor does not read is charged to nobody: here a stopped one stops nobody else (P15).
    """
    box = receiver.outbox
    payer = None if receiver.monitor else message.sender
    bus = receiver.bus
    if box.blocked and not bus.overflows.drops and box.is_full(bus.limits) and not box.shut:
        if payer is None and message.header.reply_serial:
            payer = receiver
        if not bus.overflows.admit(receiver, payer):
            return
    for piece in message.pieces(payer):
        box.push(piece)
    if box.blocked:
        box.charge(len(message), payer)


def to_peer(bus: Bus, message: Message, receiver: Peer) -> None:
    """Deliver an addressed message and its overheard copies; raises BusError, the refusal."""
    header = message.header
    sender = message.sender
    assert sender is not None
    # A deed before the questions: a call is answered even if the answer is refused, and waits for
    # no other one.  So does dbus-daemon.
    answers = header.reply_serial != 0 and header.type <= SIGNAL
    asked = answers and take(receiver, sender, header.reply_serial)
    refuse(bus, message, receiver, receiver, asked)
    expects = header.type == METHOD_CALL and not header.flags & NO_REPLY_EXPECTED
    if expects:
        check(sender, receiver, message.serial)
    if header.unix_fds and not receiver.can_fds:
        if expects:
            # It stays open, and is answered once more when the receiver leaves.  So it is there.
            bus.replies.expect(sender, receiver, message.serial)
        raise BusError(
            NOT_SUPPORTED,
            "Tried to send message with Unix file descriptors"
            "to a client that doesn't support that.",
        )
    overheard = overhearers(bus, message, receiver)
    if expects:
        bus.replies.expect(sender, receiver, message.serial)
    learn(bus, message)
    push(message, receiver)
    for peer in overheard:
        push(message, peer)


def own_to_peer(bus: Bus, message: Message, receiver: Peer) -> None:
    """Deliver what the bus itself sends to a name, which monitors have seen already; raises
    BusError, the refusal."""
    refuse(bus, message, receiver, receiver, False)
    overheard = overhearers(bus, message, receiver)
    learn(bus, message)
    push(message, receiver)
    for peer in overheard:
        push(message, peer)


def learn(bus: Bus, message: Message) -> None:
    """A message goes where it should: if the policy is on trial, note what that would need."""
    if message.lessons and bus.trial is not None:
        bus.trial.learn(message)


def refuse(
    bus: Bus, message: Message, receiver: Peer | None, addressed: Peer | None, requested: bool
) -> None:
    """Raise BusError, and log, if `message` may not go to `receiver`."""
    denial = judge(message, receiver, addressed, requested)
    if denial is None:
        return
    raise BusError(denial.error, log(denial, message, receiver, requested))


def broadcast(bus: Bus, message: Message) -> tuple[list[Cell], list[Peer], list[Peer]]:
    """Deliver a signal without destination to all who want and may have it.

    Returns what a plan is made of: the cells of rules that fit but for their arguments, the peers
    that get every such signal, and those among them whom only policy kept from getting it.
    """
    cells = bus.rules.cells(message.header, primary_names(bus, bus.rules, message.sender))
    always = list(dict.fromkeys(peer for rule, peer in plain(cells) if fits(bus, message, rule)))
    allowed = [peer for peer in always if may_have(bus, message, peer, None)]
    known = set(always)
    receivers = [peer for peer in allowed if has_room(bus, message, peer)]
    for peer in by_arguments(bus, message, cells):
        if peer not in known:
            known.add(peer)
            if may_have(bus, message, peer, None) and has_room(bus, message, peer):
                receivers.append(peer)
    learn(bus, message)
    for peer in receivers:
        push(message, peer)
    with_arguments = [cell for cell in cells if cell.has_arguments()]
    may = set(allowed)
    return with_arguments, allowed, [peer for peer in always if peer not in may]


def cast_by_arguments(bus: Bus, message: Message, plan: Plan, piece: bytes) -> None:
    """The road's broadcast, as far as it hangs on arguments; `piece` is the whole message."""
    chosen: list[Peer] = []
    seen = set(plan.decided)
    for peer in by_arguments(bus, message, list(plan.arguments)):
        if peer not in seen:
            seen.add(peer)
            if may_have(bus, message, peer, None):
                chosen.append(peer)
    learn(bus, message)
    for peer in chosen:
        if peer.outbox.blocked:
            push_counted(bus, peer.outbox, piece, message.sender)
        else:
            peer.outbox.push(piece)


def push_counted(bus: Bus, box: Outbox, piece: bytes, sender: Peer | None) -> None:
    """Append to a full outbox, or drop and count the drop when its limit is reached."""
    receiver = box.peer
    if receiver is None:
        return  # it is shut
    if not box.is_full(bus.limits) or bus.overflows.admit(receiver, sender):
        box.push(piece)
        box.charge(len(piece), sender)


def overhearers(bus: Bus, message: Message, addressed: Peer | None) -> list[Peer]:
    """Who has a rule to eavesdrop on an addressed message, and may."""
    if not bus.eavesdropping:
        return []
    found = matching(bus, bus.eavesdropping, message, addressed)
    return [
        peer
        for peer in found
        if peer is not addressed
        and may_have(bus, message, peer, addressed)
        and has_room(bus, message, peer)
    ]


def capture(bus: Bus, message: Message, addressed: Peer | None) -> None:
    """Show a message to the monitors, before anything else is done with it."""
    if not bus.watched:
        return
    if bus.tap is not None:
        bus.tap.message(message)
    _show(bus, message, addressed)


def _show(bus: Bus, message: Message, addressed: Peer | None) -> None:
    for peer in matching(bus, bus.monitor_rules, message, addressed):
        if message.header.unix_fds and not peer.can_fds:
            continue
        if has_room(bus, message, peer):
            push(message, peer)


def send_own(bus: Bus, message: Message, receiver: Peer) -> None:
    """Send a message of the driver to one peer; dropped if it may not have it."""
    capture(bus, message, receiver)
    answers = message.header.reply_serial != 0
    denial = judge(message, receiver, receiver, answers)
    if denial is None:
        learn(bus, message)
        push(message, receiver)
        return
    show_refusal(bus, message, denial, receiver, answers)
    if denial.complaint is FULL:
        bus.drop(receiver)  # and not logged: a peer that does not read would fill the log
    else:
        log(denial, message, receiver, answers)


def show_refusal(
    bus: Bus, message: Message, denial: Denial, receiver: Peer, requested: bool
) -> None:
    """Show monitors the error for a refusal that nobody else is told of.

    Driver broadcasts, too: there 1.14.10 would abort (CVE-2023-34969 and what it left open).
    """
    if not bus.monitors:
        return
    to = BUS_NAME if message.sender is None else message.sender.name
    text = complaint(denial, message, receiver, requested)
    error = messages.own_error(bus.next_serial(), to, message.serial, denial.error, text)
    _show(bus, error, message.sender)


def send_error(bus: Bus, receiver: Peer, reply_serial: int, error: BusError) -> None:
    """Answer a peer's message with an error of the driver."""
    to = receiver.name or messages.NOT_ACTIVE
    serial = receiver.next_serial()
    send_own(bus, messages.own_error(serial, to, reply_serial, error.name, error.text), receiver)


def broadcast_own(
    bus: Bus, interface: str, member: str, signature: str, values: tuple[str, ...]
) -> None:
    """Broadcast a signal of the driver, whose arguments are texts; marshalled only if anybody may
    want it."""
    if not bus.watched:
        if not bus.rules:
            return
        header = messages.own_signal_header(interface, member, signature)
        found: Found = [("s", value) for value in values]
        # Most wait for one name, and hear nothing of others.
        for cell in bus.rules.cells(header, (BUS_NAME,)):
            if cell.plain or cell.may_fit(found):
                break
        else:
            return
    body = encode(signature, *values)
    message = messages.own_signal(bus.next_serial(), None, interface, member, signature, body)
    capture(bus, message, None)
    broadcast(bus, message)


def primary_names(bus: Bus, index: MatchIndex, sender: Peer | None) -> list[str]:
    """The names by which `sender=` in the rules of an index finds a peer: those it is the owner of.

    Of thousands of names, only those that rules give.
    """
    if sender is None:
        return [BUS_NAME]
    owners = bus.names.owners
    if len(sender.names) > len(index.senders):
        return [name for name in index.senders if owners.get(name) is sender]
    return [sender.name, *[name for name in sender.names if owners.get(name) is sender]]


def plain(cells: list[Cell]) -> Iterator[tuple[MatchRule, Peer]]:
    """The entries that look at no argument."""
    for cell in cells:
        yield from cell.plain


def fits(bus: Bus, message: Message, rule: MatchRule, addressed: Peer | None = None) -> bool:
    """What the index has not looked at: type and destination."""
    header = message.header
    if rule.type and rule.type != header.type:
        return False
    if rule.destination is None:
        return True
    if header.destination is None:
        return False
    if addressed is None:
        return rule.destination == header.destination
    return bus.names.owners.get(rule.destination) is addressed


def by_arguments(
    bus: Bus, message: Message, cells: list[Cell], addressed: Peer | None = None
) -> Iterator[Peer]:
    """The peers whose rules in `cells` fit the arguments of the message."""
    for cell in cells:
        if cell.has_arguments():
            for rule, peer in cell.with_arguments(message.arguments(cell.highest)):
                if fits(bus, message, rule, addressed):
                    yield peer


def matching(
    bus: Bus, index: MatchIndex, message: Message, addressed: Peer | None
) -> list[Peer]:
    """All peers with a rule in `index` that fits, once each."""
    cells = index.cells(message.header, primary_names(bus, index, message.sender))
    found = {p: None for rule, p in plain(cells) if fits(bus, message, rule, addressed)}
    found.update(dict.fromkeys(by_arguments(bus, message, cells, addressed)))
    return list(found)


def may_have(bus: Bus, message: Message, peer: Peer, addressed: Peer | None) -> bool:
    """Whether policy and the peer's abilities allow it a copy; room is another question."""
    denial = judge(message, peer, addressed, False)
    if denial is not None and denial.complaint is not FULL:
        show_refusal(bus, message, denial, peer, False)
        if bus.tap is not None and denial.verdict is not None:
            text = complaint(denial, message, peer, False)
            bus.tap.refused(text + because(denial.verdict))
        return False
    return peer.can_fds or not message.header.unix_fds


def has_room(bus: Bus, message: Message, peer: Peer) -> bool:
    """Whether the peer's queue takes one more; if not, the drop is counted."""
    if peer.outbox.is_full(bus.limits) and (bus.overflows.drops or peer.monitor):
        bus.drop(peer)
        return False
    return True
