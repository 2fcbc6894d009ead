"""What would turn a verdict: for a question, the rule that answers this question and no other.

A rule says no more than its question: the message's type, interface, member and path (or error),
its direction, and the other party by a well-known name.  Some things no rule can say; then the
rule is as narrow as the language is, and `limits_of` tells in words what else it covers.
"""

from __future__ import annotations

from collections.abc import Collection

from afdbus.policy.decide import DRIVER, Question
from afdbus.policy.rules import ERROR, MAX_RULE_FDS, MESSAGE_TYPES, SIGNAL, MessageRule
from afdbus.wire.names import is_well_known_name

# Stands in a question for a path or member that no rule names; XML cannot contain it.
SOME = "\0"


def remedy(
    question: Question, *, receiving: bool, allow: bool = True, count_fds: bool = False
) -> MessageRule:
    """The narrowest rule that fits `question`, to be the last of its peer's send or receive rules.

    What is absent from the question, or `SOME`, is no condition of the rule.  `count_fds`: only as
    many descriptors as the question has; otherwise their number does not matter.
    """
    broadcast = question.destination is None and question.type == SIGNAL
    name = None
    if receiving:
        name = _name_of(question.sender, DRIVER, None)
    elif not broadcast:
        name = _name_of(question.receiver, question.destination, question.destination)
    is_error = question.type == ERROR and question.error_name is not None
    return MessageRule(
        allow=allow,
        receiving=receiving,
        type=question.type,
        path=_said(question.path),
        interface=None if is_error else question.interface,
        member=None if is_error else _said(question.member),
        error=_said(question.error_name) if is_error else None,
        name=name,
        # Without it a rule for signals to a service would fit broadcasts that reach it, too.
        broadcast=broadcast if question.type == SIGNAL and not receiving else None,
        requested_reply=question.requested or not question.reply if allow else question.requested,
        eavesdrop=receiving and question.eavesdropping,
        min_fds=question.fds if count_fds else 0,
        max_fds=question.fds if count_fds else MAX_RULE_FDS,
    )


def limits_of(rule: MessageRule, question: Question) -> list[str]:
    """What `rule`, the remedy for `question`, covers beyond it, a sentence each."""
    found = []
    named = rule.name is not None or rule.broadcast
    if not named:
        who = "sender" if rule.receiving else "receiver"
        found.append(f"The {who} has no well-known name, so the rule holds for every {who}.")
    if question.interface is None and question.type == MESSAGE_TYPES["method_call"]:
        found.append("No rule can demand that there is no interface: it holds for every interface.")
    if question.member == SOME:
        found.append("No member is given: it holds for every member.")
    if question.reply and rule.allow and not question.requested:
        found.append("It holds for replies that were asked for, too.")
    if rule.eavesdrop and rule.allow:
        found.append("It holds for messages that are addressed to this peer, too.")
    return found


def _said(text: str | None) -> str | None:
    return None if text == SOME else text


def _name_of(
    names: Collection[str] | None, unowned: str | None, preferred: str | None
) -> str | None:
    """The well-known name by which a rule may call a party; None if it has none.

    `names` are all names of a peer, None for the driver or a peer still to be started, which is
    called `unowned`.
    """
    if names is None:
        return unowned
    well_known = sorted(name for name in names if is_well_known_name(name))
    if preferred in well_known:
        return preferred
    return well_known[0] if well_known else None
