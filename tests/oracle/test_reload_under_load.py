"""A hundred reloads while ten thousand calls are on their way.

What is asserted holds however fast anybody is: no call is lost, none overtakes another, every
verdict is one of the two that the two configurations give, and after the answer to ReloadConfig it
is that of the new one.
"""

from __future__ import annotations

from collections.abc import Callable

from kit import (
    ERROR,
    METHOD_CALL,
    METHOD_RETURN,
    Daemon,
    Received,
    busconfig,
    call,
    method_return,
    peer_call,
)

RELOADS = 100
# Calls that are sent before a reload, beside it, and after it was answered.
BEFORE, BESIDE, AFTER = 50, 25, 25

SENT = "Rejected send message, 2 matched rules;"
RECEIVED = "Rejected receive message, 2 matched rules;"

# By member: why a call is refused in the one and in the other configuration, empty if it is not.
# The last two are refused in both, and would pass by half of the one and half of the other.
VERDICTS = {
    "Always": ("", ""),
    "First": ("", SENT),
    "Second": (RECEIVED, ""),
    "Never": (SENT, RECEIVED),
    "NorThis": (RECEIVED, SENT),
}
MEMBERS = list(VERDICTS)
SERVICE = "com.example.Service"


def configuration(which: int) -> str:
    denials = {
        SENT: '<deny send_interface="com.example.Interface" send_member="{}"/>',
        RECEIVED: '<deny receive_interface="com.example.Interface" receive_member="{}"/>',
    }
    rules = [denials[whys[which]].format(name) for name, whys in VERDICTS.items() if whys[which]]
    # Many more, none of which fits.
    rules += [f'<deny send_destination="com.example.Other{number}"/>' for number in range(200)]
    return busconfig(
        policy=f"""
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    {"".join(rules)}
  </policy>"""
    )


# Serials of calls begin here; those of the client's own questions stay far below.
FIRST = 1_000_000


class Load:
    """One who calls, one who answers, and what has become of each call.

    The argument of a call is its number, which counts from 0; `outcomes` has why it was refused,
    empty if it arrived and was answered.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.caller, self.service = daemon.connect(), daemon.connect()
        self.service.own(SERVICE)
        self.sent = 0
        self.arrived = -1
        self.outcomes: dict[int, str] = {}

    def send(self, count: int) -> None:
        data = b""
        for number in range(self.sent, self.sent + count):
            message = peer_call(SERVICE, MEMBERS[number % len(MEMBERS)], "u", number)
            data += message.pack(FIRST + number)
        self.caller.send_bytes(data)
        self.sent += count

    def collect(self) -> None:
        """Let the service answer all that has arrived, and the caller hear of all that it sent."""
        # When this is answered the bus has routed or refused all calls that came before.
        self._hear(self.caller.sync(), ERROR)
        for message in self.service.sync():
            (number,) = message.args
            assert (message.type, message.member) == (METHOD_CALL, MEMBERS[number % len(MEMBERS)])
            assert number > self.arrived, "a call overtook another, or came twice"
            self.arrived = number
            self.service.send(method_return(message, "u", number))
        assert self.service.sync() == []
        self._hear(self.caller.sync(), METHOD_RETURN)
        assert len(self.outcomes) == self.sent, "calls without an answer"

    def _hear(self, messages: list[Received], kind: int) -> None:
        last = -1
        for message in messages:
            assert message.type == kind
            assert message.reply_serial is not None
            number = message.reply_serial - FIRST
            assert number not in self.outcomes, "a call was answered twice"
            assert number > last, "an answer overtook another"
            last = number
            if kind == METHOD_RETURN:
                assert message.args == (number,)
                self.outcomes[number] = ""
            else:
                self.outcomes[number] = message.args[0].partition(" type=")[0]


def test_reloads_under_load(start: Callable[..., Daemon]) -> None:
    daemon = start()
    texts = [configuration(which).replace("{directory}", str(daemon.directory)) for which in (0, 1)]
    daemon.config_file.write_text(texts[0])
    control = daemon.connect()
    assert control.bus("ReloadConfig").brief == ("return",)
    load = Load(daemon)
    judged = 0
    new = daemon.directory / "new.conf"
    for reload in range(1, RELOADS + 1):
        which = reload % 2
        load.send(BEFORE)
        # At once, so that it is whole whenever it is read.
        new.write_text(texts[which])
        new.rename(daemon.config_file)
        serial = control.send(call("ReloadConfig"))
        load.send(BESIDE)
        answer = control.read("the answer to ReloadConfig")
        assert (answer.reply_serial, answer.brief) == (serial, ("return",))
        settled = load.sent
        load.send(AFTER)
        load.collect()
        for number in range(judged, load.sent):
            outcome, verdicts = load.outcomes[number], VERDICTS[MEMBERS[number % len(MEMBERS)]]
            assert outcome in verdicts, f"call {number} was judged by neither configuration"
            if number >= settled:
                assert outcome == verdicts[which], f"call {number} was judged by the old one"
        judged = load.sent
    assert load.sent == RELOADS * (BEFORE + BESIDE + AFTER) == 10_000
