"""`afdbus policy explain`: allowed or denied, by which rule, and what would turn it."""

from __future__ import annotations

import argparse
import json

from afdbus.host.users import Users
from afdbus.policy.written import written
from afdbus.tools.answers import Answers, Step, rests_on
from afdbus.tools.command import BAD, GOOD, add_config_options, config_path
from afdbus.tools.people import add_person_options
from afdbus.tools.questions import Asked, asked, described
from afdbus.tools.remedies import Remedy, beyond, find

DESCRIPTION = """\
Ask a configuration whether somebody may do something, as the bus would decide it.
The answer has the rule that decides, how many rules fit, and the smallest file that
would turn it. What a message is not said to have is taken for some other: a path,
member or error name that no rule names; only the interface is taken for absent.
The exit status is 0 for allowed, 1 for denied, 2 if there is no answer."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_person_options(parser.add_argument_group("who"))
    what = parser.add_argument_group("does what")
    what.add_argument("--send", action="store_true", help="send a message")
    what.add_argument("--receive", action="store_true", help="receive a message")
    what.add_argument("--own", metavar="NAME", help="own a name")
    what.add_argument("--connect", action="store_true", help="connect to the bus")
    message = parser.add_argument_group("which message")
    message.add_argument("--type", help="method_call (the default), method_return, error or signal")
    message.add_argument("--path", help="the object path")
    message.add_argument("--interface", help="without it the message has none")
    message.add_argument("--member", help="the method or signal")
    message.add_argument("--error", metavar="NAME", help="the error name")
    message.add_argument("--destination", metavar="NAME", help="whom it is addressed to")
    message.add_argument("--broadcast", action="store_true", help="a signal to all")
    message.add_argument(
        "--reply", action="store_true", help="it is a reply (as method_return and error are)"
    )
    message.add_argument("--requested", action="store_true", help="a reply to an open call")
    message.add_argument("--fds", type=int, metavar="N", help="how many descriptors it has")
    message.add_argument(
        "--eavesdrop", action="store_true", help="it is addressed to another than its receiver"
    )
    others = parser.add_argument_group("the other party")
    others.add_argument(
        "--to-names",
        type=_names,
        metavar="NAME,...",
        help="names that the receiver owns or waits for, besides the destination",
    )
    others.add_argument("--to-uid", type=int, metavar="N", help="the receiver's user, by number")
    others.add_argument("--to-user", metavar="NAME", help="the receiver's user, by name")
    others.add_argument("--to-gid", type=int, action="append", dest="to_gids", metavar="N")
    others.add_argument(
        "--sender",
        type=_names,
        metavar="NAME,...",
        help="names that the sender owns (org.freedesktop.DBus: it is the bus)",
    )
    parser.add_argument("--json", action="store_true", help="answer with a JSON object")


def _names(text: str) -> list[str]:
    return text.split(",")


_NO_FIELDS = ("json", "config_file", "session", "system", "run")


def run(arguments: argparse.Namespace) -> int:
    """Answer. Raises `UsageError` and `ConfigError`."""
    path = config_path(arguments)
    fields = {name: value for name, value in vars(arguments).items() if name not in _NO_FIELDS}
    users = Users()
    question = asked(fields, users)
    answers = Answers.of(users, path)
    step = answers.deciding(question)
    remedy = find(path, answers, question, users)
    remarks = [*_remarks(answers, question, step), *remedy.remarks]
    if arguments.json:
        print(json.dumps(_as_json(step, remedy, remarks), indent=2))
    else:
        print("\n".join(_as_text(path, question, step, remedy, remarks)))
    return GOOD if step.verdict.allowed else BAD


def _remarks(answers: Answers, question: Asked, step: Step) -> list[str]:
    remarks = []
    if answers.config.warnings:
        remarks.append("The bus skips some of its configuration: see afdbus config check.")
    if question.question is not None:
        found = rests_on(answers, step, question.question)
        if found is not None:
            options, rule = found
            remarks.append(
                f"It rests on --{' and --'.join(options)}, not given: {written(rule)} at "
                f"{rule.file}:{rule.line} decides otherwise."
            )
    if question.kind != "connect" and not answers.may_connect(question.who):
        remarks.append(f"{question.who} may not even connect.")
    return remarks + beyond(question)


def _policy(step: Step) -> str | None:
    bucket = step.holder
    return None if bucket is None else f'{bucket.attribute}="{bucket.value}"'


def _as_json(step: Step, remedy: Remedy, remarks: list[str]) -> dict[str, object]:
    rule = step.verdict.rule
    return {
        "allowed": step.verdict.allowed,
        "side": step.side,
        "rule": None if rule is None else written(rule),
        "file": None if rule is None else rule.file,
        "line": None if rule is None else rule.line,
        "policy": _policy(step),
        "matched": step.verdict.matched,
        "remedy": remedy.text or None,
        "remedy_file": remedy.path or None,
        "remedy_at_end": remedy.at_end,
        "remarks": remarks,
    }


def _as_text(
    path: str, question: Asked, step: Step, remedy: Remedy, remarks: list[str]
) -> list[str]:
    verdict, rule = step.verdict, step.verdict.rule
    lines = [f"{'allowed' if verdict.allowed else 'denied'}: {described(question)}"]
    if rule is not None:
        lines.append(f"{rule.file}:{rule.line}: {written(rule)}")
        lines.append(f"  in <policy {_policy(step)}>, the last of {verdict.matched} {step.side} "
                     f"rules of {step.who} that fit")  # fmt: skip
    elif verdict.allowed:
        lines.append("  no rule fits, and this is the user of the bus")
    else:
        lines.append(f"  no {step.side} rule of {step.who} fits, which denies")
    lines += [f"Note: {remark}" for remark in remarks]
    if remedy.text:
        lines += ["", _where(path, step, remedy), "", remedy.text.rstrip()]
    return lines


def _where(path: str, step: Step, remedy: Remedy) -> str:
    what = "deny" if step.verdict.allowed else "allow"
    if remedy.at_end:
        return (
            f"To {what} this, save this as {remedy.path}, include it behind everything else in "
            f"{path}, and reload:"
        )
    return f"To {what} this, save this as {remedy.path} and reload:"
