"""Plans for headers that never repeat: what they stand for, and what they must never stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from busworld import NOBODY, FakeConnection, World, configuration, unframed
from kit import BUS, Message, call, peer_call, signal
from kit.message import (
    DESTINATION,
    ERROR_NAME,
    INTERFACE,
    MEMBER,
    PATH,
    REPLY_SERIAL,
    SENDER,
    SIGNATURE,
    Received,
    build,
)

from afdbus.bus import planning, router
from afdbus.bus.alike import MANY, MAX_LAYOUTS, MAX_SAMPLES
from afdbus.bus.plan import MAX_PLANS
from afdbus.errors import ProtocolViolation
from afdbus.wire.header import frame_length, parse, stamp

POLICY = """<policy context="default"><allow user="*"/><allow own="*"/>
  <allow send_type="method_call"/><allow send_type="signal"/>
  <allow send_type="method_return" send_requested_reply="false"/>
  <allow send_type="error" send_requested_reply="false"/>
  <allow receive_type="method_call"/><allow receive_type="signal"/>
  <allow receive_type="method_return" receive_requested_reply="false"/>
  <allow receive_type="error" receive_requested_reply="false"/>
  <deny send_type="method_call" send_path="/denied"/>
  <deny send_type="method_call" send_interface="com.example.Interface" send_member="Denied"/>
  <deny receive_type="method_call" receive_interface="a.Denied"/>
  <deny send_type="error" send_error="a.Denied"/>
  </policy>"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(configuration(tmp_path, policy=POLICY, max_replies_per_connection=100_000))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MANY", 0)


@pytest.fixture
def layered(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """The messages that took the layered way."""
    found: list[Message] = []
    dispatch = router.dispatch

    def note(bus, message, size):  # type: ignore[no-untyped-def]
        found.append(message)
        return dispatch(bus, message, size)

    monkeypatch.setattr(router, "dispatch", note)
    return found


def reply(to: str, name: str | None = None, serial: int = 1, fields: str = "") -> Message:
    known = {ERROR_NAME: name, REPLY_SERIAL: serial, DESTINATION: to}
    return build(2 if name is None else 3, known, fields, [""] * len(fields), True, (), {})


def name_of(connection: FakeConnection) -> str:
    assert connection.peer is not None
    return connection.peer.name


def received(connection: FakeConnection) -> list[Received]:
    connection.world.flush()
    messages = [Received(one) for one in unframed(bytes(connection.written))]
    connection.written.clear()
    return messages


def listen(world: World, rule: str = "") -> FakeConnection:
    listener = world.connect()
    world.say(listener, call("AddMatch", "s", rule).pack(2))
    received(listener)
    return listener


VARIED: dict[str, Callable[[str, int], Message]] = {
    "path": lambda to, n: peer_call(to, path=f"/x/{n}"),
    "interface": lambda to, n: peer_call(to, interface=f"a.b{n}"),
    "member": lambda to, n: peer_call(to, f"M{n}", "s", "text"),
    "all": lambda to, n: peer_call(to, f"M{n}", "s", "text", path=f"/x/{n}", interface=f"a.b{n}"),
    "last field": lambda to, n: peer_call(to).without(MEMBER).plus((MEMBER, "s", f"M{n}")),
    "signal": lambda to, n: signal("M", destination=to, path=f"/x/{n}"),
    "error name": lambda to, n: reply(to, f"a.b{n}", n),
    "serial and place": lambda to, n: reply(to, f"a.{'b' * n}", n),
    "serial last": lambda to, n: reply(to, f"a.{'b' * n}")
        .without(REPLY_SERIAL).plus((REPLY_SERIAL, "u", n)),
}  # fmt: skip


@pytest.mark.parametrize("kind", VARIED)
def test_one_plan_stands_for_all(world: World, layered: list[Message], kind: str) -> None:
    sender, receiver = world.connect(), world.connect()
    to = name_of(receiver)
    received(receiver)
    layered.clear()
    sent = [VARIED[kind](to, n) for n in range(1, 40)]
    for serial, message in enumerate(sent, 100):
        world.say(sender, message.pack(serial))
    assert len(layered) == 2, "the second shows what is different"
    for message, got in zip(sent, received(receiver), strict=True):
        expected = sorted([*message.fields, (SENDER, "s", name_of(sender))])
        assert (sorted(got.fields), got.body, got.type) == (expected, message.body, message.type)


def test_destinations_that_are_names_of_few_peers(world: World, layered: list[Message]) -> None:
    sender, one, other = world.connect(), world.connect(), world.connect()
    for number in range(20):
        name = f"com.example.N{number}"
        world.say(one if number % 2 else other, call("RequestName", "su", name, 0).pack(9))
    received(one), received(other)
    layered.clear()
    for number in range(20):
        world.say(sender, peer_call(f"com.example.N{number}").pack(50 + number))
    assert len(layered) == 3
    assert [m.destination[-1] for m in received(one)] == [str(n % 10) for n in range(1, 20, 2)]
    world.say(sender, peer_call("com.example.N99").pack(99))
    assert received(sender)[-1].error_name == "org.freedesktop.DBus.Error.ServiceUnknown"
    # A name changes hands.
    world.say(one, call("ReleaseName", "s", "com.example.N1").pack(9))
    world.say(other, call("RequestName", "su", "com.example.N1", 0).pack(9))
    received(one), received(other)
    for number in (3, 1, 5, 3, 1, 5):
        assert sender.peer is not None
        world.bus.replies.give_up(sender.peer)
        world.say(sender, peer_call(f"com.example.N{number}").pack(60 + number))
    assert [m.destination for m in received(one)] == [f"com.example.N{n}" for n in (3, 5, 3, 5)]
    assert [m.destination for m in received(other)] == ["com.example.N1"] * 2


@pytest.mark.parametrize("about", ["nobody", "a unique name"])
def test_many_peers_with_unique_names_only(
    tmp_path: Path, layered: list[Message], about: str
) -> None:
    """They are alike, unless a rule is about one of them, or they have names, or another policy."""
    rule = '<deny send_destination=":1.3" send_type="method_call"/>' * (about != "nobody")
    policy = POLICY.replace("</policy>", rule + """
      <deny send_destination="com.example.Deaf" send_type="method_call"/></policy>
      <policy user="65534"><deny receive_type="method_call"/></policy>""")
    world = World(configuration(tmp_path, policy=policy, max_replies_per_connection=100_000))
    sender = world.connect()
    peers = [world.connect() for _ in range(10)]
    deaf, nobody = world.connect(), world.connect(NOBODY)
    everybody = [*peers, deaf, nobody]
    for peer in everybody:
        received(peer)
    layered.clear()

    def heard(number: int) -> list[bool]:
        for peer in everybody:
            world.say(sender, peer_call(name_of(peer)).pack(number + 10))
        return [received(peer) != [] for peer in everybody]

    expected = [True] * 12
    expected[10] = True
    expected[11] = False
    if about != "nobody":
        expected[2] = False
    for number in range(3):
        assert heard(number) == expected
    if about == "nobody":
        assert len(layered) <= 5, "the first two, and who is refused"
    world.say(deaf, call("RequestName", "su", "com.example.Deaf", 0).pack(9))
    received(deaf)
    expected[10] = False
    for number in range(3, 6):
        assert heard(number) == expected
    world.say(deaf, call("ReleaseName", "s", "com.example.Deaf").pack(9))
    received(deaf)
    expected[10] = True
    assert heard(7) == expected
    # Each of them answers, or leaves.
    assert sender.peer is not None
    for peer in peers[:5]:
        for number in range(3):
            world.say(peer, reply(name_of(sender), serial=number + 10).pack(30 + number))
    before = sender.peer.open_calls
    world.leave(peers[5])
    assert sender.peer.open_calls == before - 7
    errors = [m for m in received(sender) if m.error_name == f"{BUS}.Error.NoReply"]
    assert len(errors) == 7


def test_what_does_not_hold_any_more_is_learned_anew(world: World, layered: list[Message]) -> None:
    sender, receiver, listener = world.connect(), world.connect(), listen(world)
    to = name_of(receiver)
    for change in ("start", "name", "rule"):
        if change == "name":
            world.say(receiver, call("RequestName", "su", "com.example.N", 0).pack(9))
        if change == "rule":
            world.say(listener, call("AddMatch", "s", "type='signal'").pack(9))
        layered.clear()
        for number in range(20):
            world.say(sender, peer_call(to, f"{change}{number}").pack(9))
            world.say(sender, signal(f"{change}{number}").pack(9))
            assert sender.peer is not None
            world.bus.replies.give_up(sender.peer)
        assert 1 <= len(layered) <= 4, change


def test_broadcasts(world: World, layered: list[Message]) -> None:
    listener, sender = listen(world, "interface='a.b'"), world.connect()
    layered.clear()
    for number in range(20):
        world.say(sender, signal(f"M{number}", path=f"/x/{number}", interface="a.b").pack(9))
    assert len(layered) == 2
    assert [(m.member, m.path) for m in received(listener)[-20:]] == [
        (f"M{n}", f"/x/{n}") for n in range(20)
    ]


def test_paths_in_and_outside_of_namespaces(world: World, layered: list[Message]) -> None:
    listeners = {space: listen(world, f"path_namespace='{space}'") for space in ("/", "/a", "/a/b")}
    sender = world.connect()
    for listener in listeners.values():
        received(listener)
    layered.clear()
    places = ("a/b/", "ab/", "a/bc/", "a/", "", "a/b/c/")
    paths = [f"/{place}{n}" for n in range(20) for place in places]
    paths += ["/", "/a", "/a/b"]
    for path in paths:
        world.say(sender, signal("M", path=path).pack(9))
    assert len(layered) <= 6
    for space, listener in listeners.items():
        inside = [p for p in paths if p == space or p.startswith(space.rstrip("/") + "/")]
        assert [m.path for m in received(listener)] == inside


@pytest.mark.parametrize(
    ("rule", "special"),
    [
        ("path='/special'", {"path": "/special"}),
        ("path='/special',interface='a.b',member='M'", {"path": "/special"}),
        ("path_namespace='/special'", {"path": "/special/one"}),
        ("path_namespace='/special',arg0='x'", {"path": "/special/one"}),
        ("member='Special'", {"member": "Special"}),
        ("interface='a.Special'", {"interface": "a.Special"}),
        ("interface='a.Special',member='M0'", {"interface": "a.Special", "member": "M0"}),
    ],
)
@pytest.mark.parametrize("early", [True, False], ids=["rule first", "rule last"])
def test_values_that_a_rule_of_a_receiver_names(
    world: World, rule: str, special: dict[str, str], early: bool
) -> None:
    sender = world.connect()

    def say(number: int, **known: str) -> None:
        fields = {"member": "M", "path": f"/x/{number}", "interface": "a.b", **known}
        for key in special:
            if key not in known:
                fields[key] = f"{fields[key]}{number}"
        world.say(sender, signal(fields.pop("member"), "s", "x", **fields).pack(number + 5))

    if early:
        listener = listen(world, rule)
    for number in range(1, 10):
        say(number)
    if not early:
        listener = listen(world, rule)
    for number in range(10, 20):
        say(number)
        say(number, **special)
        say(number, **special)
    world.say(listener, call("RemoveMatch", "s", rule).pack(3))
    assert len([m for m in received(listener) if m.type == 4 and m.interface != BUS]) == 20
    say(21, **special)
    assert received(listener) == []


@pytest.mark.parametrize(
    "denied",
    [
        {"path": "/denied"},
        {"member": "Denied"},
        {"interface": "a.Denied"},
        {"path": "/org/freedesktop/DBus/Local"},
        {"path": "/org/freedesktop/DBus/Locally"},
        {"interface": "org.freedesktop.DBus.Local"},
    ],
    ids=str,
)
def test_values_that_the_policy_names_or_nobody_may_use(
    world: World, denied: dict[str, str]
) -> None:
    sender, receiver = world.connect(NOBODY), world.connect(NOBODY)
    to = name_of(receiver)
    received(receiver)
    for number in range(20):
        for which in denied:
            start = {"path": "/x/", "member": "M", "interface": "a.b"}[which]
            world.say(sender, peer_call(to, **{which: f"{start}{number}"}).pack(number + 10))
    assert len(received(receiver)) == 20
    received(sender)
    world.say(sender, peer_call(to, **denied).pack(100))
    assert received(receiver) == []
    if "Local" in str(denied):
        assert sender.closed
    else:
        assert [m.error_name for m in received(sender)] == [f"{BUS}.Error.AccessDenied"]


def test_values_that_alone_are_allowed(tmp_path: Path) -> None:
    """A plan for one of them must not stand for those that are not."""
    rules = '<deny send_type="method_call" send_interface="a.Secret"/>' + "".join(
        f'<allow send_type="method_call" send_interface="a.Secret" send_path="/{name}"/>'
        for name in ("one", "two")
    )
    world = World(configuration(tmp_path, policy=POLICY.replace("</policy>", rules + "</policy>")))
    sender, receiver = world.connect(NOBODY), world.connect(NOBODY)
    received(receiver)
    for serial, path in enumerate(["/one", "/two", "/three", "/two", "/one", "/four"], 10):
        message = peer_call(name_of(receiver), path=path, interface="a.Secret")
        world.say(sender, message.pack(serial))
    assert [m.path for m in received(receiver)] == ["/one", "/two", "/two", "/one"]


def test_an_error_name_that_the_policy_names(world: World) -> None:
    sender, receiver = world.connect(NOBODY), world.connect(NOBODY)
    received(receiver)
    for number in range(1, 20):
        world.say(sender, reply(name_of(receiver), f"a.b{number}", number).pack(9))
    assert len(received(receiver)) == 19
    world.say(sender, reply(name_of(receiver), "a.Denied", 5).pack(9))
    assert received(receiver) == []


def test_rules_about_arguments_see_the_true_header(world: World) -> None:
    """They are asked for each message, with the path and member that it has."""
    listener = listen(world, "path_namespace='/x/1',arg0='x'")
    sender = world.connect()
    for number in range(1, 20):
        world.say(sender, signal("M", "s", "x", path=f"/x/{number}/y").pack(9))
    assert [m.path for m in received(listener) if m.interface != BUS] == ["/x/1/y"]
    world.say(sender, signal("M", "s", "x", path="/x/1/z").pack(9))
    assert [m.path for m in received(listener)] == ["/x/1/z"]


def test_signals_to_one_peer_share_no_layout_with_broadcasts(world: World) -> None:
    """To them no path is special, though the same field is cut out at the same place."""
    listener = listen(world, "path='/special'")
    sender, other = world.connect(), world.connect()
    received(listener)
    for number in range(6):
        world.say(sender, signal("M", path=f"/x/{number}", destination=name_of(other)).pack(9))
    for number in range(6):
        world.say(sender, signal("M", path=f"/x/{number}").pack(9))
    world.say(sender, signal("M", path="/special").pack(9))
    assert [m.path for m in received(listener)] == ["/special"]


def test_broadcasts_with_names_of_errors(world: World) -> None:
    """Of no use, and allowed; no rule of a receiver names any."""
    sender, listener = world.connect(), listen(world, "type='signal'")
    for number in range(9):
        message = signal("M").without(MEMBER).plus((ERROR_NAME, "s", f"a.b{number}"))
        world.say(sender, message.plus((MEMBER, "s", f"M{number}")).pack(9))
    assert [m.member for m in received(listener)] == [f"M{number}" for number in range(9)]


def test_a_namespace_is_not_taken_for_the_bytes_behind_a_path(world: World) -> None:
    """A header that is none, but has the bytes of a namespace where its next field should be."""
    sender, listener = world.connect(), listen(world, "path_namespace='/special'")
    for number in range(6):
        world.say(sender, signal("M", path=f"/special/{number}").pack(9))
    received(listener)
    good = signal("M", path="/x/1").pack(9)
    size = int.from_bytes(good[12:16], "little")
    path_end = 16 + 16
    bad = good[:12] + (size + 8).to_bytes(4, "little")
    bad += good[16:path_end] + b"/special" + good[path_end:]
    world.say(sender, bad)
    assert sender.closed
    assert [m.member for m in received(listener)] == []


def test_who_keeps_an_old_policy_is_judged_by_it(tmp_path: Path, world: World) -> None:
    """Its rules may name other values than those of the new configuration."""
    world.bus.keeps_old_policies = True
    sender, receiver = world.connect(), world.connect()
    for number in range(20):
        world.say(sender, peer_call(name_of(receiver), f"M{number}").pack(number + 10))
    assert sender.peer is not None
    assert sender.peer.alike is None
    world.bus.configure(world.bus.limits, world.bus.ruleset)
    assert not world.bus.keeps_old_policies


def test_plans_of_their_own_come_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MANY", MANY)
    sender, receiver = world.connect(), world.connect()
    assert sender.peer is not None
    for number in range(MANY):
        world.say(sender, peer_call(name_of(receiver), f"M{number}").pack(number + 10))
    assert sender.peer.alike is None
    world.say(sender, peer_call(name_of(receiver), "M").pack(5))
    assert sender.peer.alike is not None
    sender.peer.changed()
    assert sender.peer.alike is None


# -- nothing but what `parse` accepts, and the same goes out


def cases(to: str) -> Iterator[tuple[Callable[[int], Message], list[int]]]:
    """Messages that are alike, and the fields that vary."""
    yield lambda n: peer_call(to, path=f"/x/{n}"), [PATH]
    yield lambda n: peer_call(to, f"M{n}", "s", "", interface=f"a.b{n}"), [INTERFACE, MEMBER]
    yield lambda n: signal(f"M{n}", path=f"/x/{n}"), [PATH, MEMBER]
    yield lambda n: reply(to, f"a.b{n}", n + 1, "s"), [ERROR_NAME, REPLY_SERIAL]
    yield lambda n: VARIED["last field"](to, n), [MEMBER]
    yield lambda n: peer_call([to, "com.example.N"][n % 2]), [DESTINATION]


TEXTS = [
    "", "/", "//", "/a", "/a/", "/a_/b0", "/a-b", "/ä", "a", "a.b", "a..b", ".a", "a.", "a.0",
    "a.b_0", "a.b-c", "0", "_", "M", "M\0", "M\n", "é", "x" * 255, "x" * 256, "a." + "b" * 253,
    "a." + "b" * 254, "/" + "x" * 254, "/" + "x" * 400, ":1.1", "com.example.N", "com.example.No",
    "org.freedesktop.DBus.Local", "org.freedesktop.DBus.Locally", "org.freedesktop.DBus.L",
    "/org/freedesktop/DBus/Local", "/org/freedesktop/DBus/Loca", BUS,
]  # fmt: skip


def changed(message: Message, codes: list[int], random: Random) -> bytes:
    """The message, with something different in its header."""
    what = random.randrange(8)
    fields = message.fields
    at = random.randrange(len(fields))
    code, kind, value = fields[at]
    if what < 3:
        code = random.choice(codes)
        text = random.choice(TEXTS) if code != REPLY_SERIAL else random.randrange(3)
        message.fields = [(c, k, text if c == code else v) for c, k, v in fields]
        if kind == "u" and random.random() < 0.2:
            message.fields[at] = (code, "s", "x")
    elif what == 3:
        message.fields.insert(at, random.choice([(code, kind, value), (SIGNATURE, "g", "s"),
                                                 (77, "s", "x"), (SENDER, "s", ":1.5")]))
    elif what == 4:
        random.shuffle(message.fields)
    elif what == 5:
        packed = message.pack(9)
        message.fields_length = int.from_bytes(packed[12:16], "little") + random.randrange(-9, 9)
    packed = bytearray(message.pack(9))
    if what > 5:
        for _ in range(random.choice([1, 1, 2])):
            place = random.randrange(16, len(packed))
            packed[place] ^= random.choice([1 << random.randrange(8), packed[place]])
    return bytes(packed)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_was_valid_and_goes_out_the_same(world: World, seed: int) -> None:
    random = Random(seed)
    sender, receiver = world.connect(), world.connect()
    world.say(receiver, call("RequestName", "su", "com.example.N", 0).pack(9))
    listen(world, "type='signal'")
    peer = sender.peer
    assert peer is not None
    found = 0
    for make, codes in cases(name_of(receiver)):
        peer.forget_plans()
        world.bus.replies.give_up(peer)
        for number in range(6):
            world.say(sender, make(number).pack(number + 5))
        assert peer.alike is not None
        for _ in range(1500):
            frame = changed(make(random.randrange(6)), codes, random)
            word = int.from_bytes(frame[:4], "little")
            try:
                head, _ = frame_length(frame, 0, 1 << 20)
            except ProtocolViolation:
                continue
            if head > len(frame):
                continue  # not here yet
            plan = peer.alike.find(frame, 0, head, word)
            # Somewhere in the middle of what was read, and with more behind it.
            assert peer.alike.find(b"12345" + frame + frame, 5, head + 5, word) is plan
            at = plan.serial_at if plan is not None else 0
            if plan is None or (at and frame[at : at + 4] == bytes(4)):
                continue  # the road looks at the serial
            found += 1
            header = parse(frame, 0, head)
            rest = plan.rest
            assert at == (header.reply_serial_at if codes[-1] == REPLY_SERIAL else 0)
            if at:
                assert len(rest) == at - 12
                rest += frame[at : at + 4] + plan.tail
                assert plan.pack(0, 0, 0, plan.rest, 7, plan.tail)[12:] == (
                    plan.rest + b"\7\0\0\0" + plan.tail
                )
            assert rest == stamp(header, peer.name)
            assert plan.header.signature == header.signature
            if header.destination is not None:
                assert plan.receiver is world.bus.names.owners[header.destination]
    assert found > 300, "too few to mean anything"


# -- P8, P17: bounded


def test_p17_what_is_alike_is_bounded(world: World) -> None:
    sender, receiver = world.connect(), world.connect()
    to = name_of(receiver)
    random = Random(1)
    peer = sender.peer
    assert peer is not None
    most = 0
    for number in range(3000):
        known = {"path": f"/x/{random.random()}".replace(".", ""), "interface": f"a.b{number % 7}"}
        message = peer_call(to, f"M{number % 5}", **known)
        random.shuffle(message.fields)
        message.flags = random.choice([1, 3, 5, 7])
        world.say(sender, message.pack(number + 10))
        assert peer.alike is not None
        layouts = [one for some in peer.alike._layouts.values() for one in some]
        assert len(layouts) <= MAX_LAYOUTS
        assert len(peer.alike._samples) <= MAX_SAMPLES
        for layout in layouts:
            assert len(layout.plans.young) + len(layout.plans.old or ()) <= MAX_PLANS
        most = max(most, len(layouts))
    assert most == MAX_LAYOUTS


def test_p17_values_named_by_rules_are_forgotten_with_them(world: World) -> None:
    listener = world.connect()
    rules = [f"interface='a.b{n}',member='M{n}',path='/x{n}'" for n in range(50)]
    rules += [f"path_namespace='/x{n}'" for n in range(50)]
    for rule in rules:
        world.say(listener, *[call("AddMatch", "s", rule).pack(2)] * 2)
    assert {len(values) for values in world.bus.rules.named.values()} == {50}
    for rule in rules[:50]:
        world.say(listener, *[call("RemoveMatch", "s", rule).pack(2)] * 2)
    assert {len(values) for values in world.bus.rules.named.values()} == {0}
    assert len(world.bus.rules.namespaces) == 50
    world.leave(listener)
    assert not any(world.bus.rules.named.values())
    assert not world.bus.rules.namespaces
