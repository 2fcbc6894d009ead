"""The measured semantics of dbus-daemon's policies that are decisions; s1 to s24 number them."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest
from policies import (
    DRIVER,
    NOBODY,
    OPEN,
    ROOT,
    Peer,
    Scratch,
    call,
    default,
    error,
    method_return,
    signal,
)

from afdbus.config.users import UserDatabase
from afdbus.identity import Identity
from afdbus.policy.decide import Question
from afdbus.policy.ruleset import PeerPolicy, Ruleset


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


@pytest.fixture
def peer(scratch: Scratch) -> Peer:
    return scratch.peer


def may(policy: PeerPolicy, question: Question) -> bool:
    return policy.may_send(question).allowed


# Which rules apply, in which order


@pytest.mark.parametrize("later", ['group="nogroup"', 'context="default"'])
def test_s1_the_bucket_decides_not_the_place_in_the_file(peer: Peer, later: str) -> None:
    policy = peer(
        f'{OPEN}<policy user="nobody"><allow own="a.b"/></policy>'
        f'<policy {later}><deny own="a.b"/></policy>'
    )
    assert policy.may_own("a.b").allowed


def test_s1_mandatory_comes_last_even_when_written_first(peer: Peer) -> None:
    policy = peer(
        f'<policy context="mandatory"><deny own="a.b"/></policy>{OPEN}'
        '<policy user="nobody"><allow own="a.b"/></policy>'
        '<policy at_console="false"><allow own="a.b"/></policy>'
    )
    assert not policy.may_own("a.b").allowed


def test_s1_at_console_comes_after_user(peer: Peer) -> None:
    policy = peer(
        f'{OPEN}<policy at_console="false"><deny own="a.b"/></policy>'
        '<policy user="nobody"><allow own="a.b"/></policy>'
    )
    assert not policy.may_own("a.b").allowed


def test_s1_includes_count_where_they_stand(scratch: Scratch) -> None:
    scratch.file("in.conf", default('<deny own="a.b"/>'))
    include = "<include>in.conf</include>"
    allow = default('<allow own="a.b"/>')
    for inside, expected in ((OPEN + include + allow, True), (OPEN + allow + include, False)):
        policy = scratch.config(inside).ruleset.for_peer(NOBODY)
        assert policy.may_own("a.b").allowed is expected


def test_s2_groups_count_by_ascending_number(peer: Peer) -> None:
    audio, dialout = grp.getgrnam("audio").gr_gid, grp.getgrnam("dialout").gr_gid
    low, high = sorted((audio, dialout))
    member = Identity(uid=65534, gid=high, gids=(low, high))
    for first, second in ((low, high), (high, low)):
        policy = peer(
            OPEN
            + "".join(
                f'<policy group="{gid}"><{"deny" if gid == high else "allow"} own="a.b"/></policy>'
                for gid in (first, second)
            ),
            member,
        )
        assert not policy.may_own("a.b").allowed


def test_s3_a_policy_asks_the_process_s_groups(peer: Peer) -> None:
    audio = grp.getgrnam("audio").gr_gid
    process = Identity(uid=65534, gid=100, gids=(audio, 100))
    for group, expected in (("audio", False), ("nogroup", True)):
        policy = peer(f'{OPEN}<policy group="{group}"><deny own="a.b"/></policy>', process)
        assert policy.may_own("a.b").allowed is expected


def test_s3_connecting_asks_the_user_database(scratch: Scratch) -> None:
    audio = grp.getgrnam("audio").gr_gid
    process = Identity(uid=65534, gid=100, gids=(audio, 100))
    for group, expected in (("audio", True), ("nogroup", False)):
        ruleset = scratch.config(OPEN + default(f'<deny group="{group}"/>')).ruleset
        assert ruleset.may_connect(process, 0).allowed is expected


def test_s4_a_user_without_an_entry_never_connects(scratch: Scratch) -> None:
    unknown = next(uid for uid in range(54321, 60000) if UserDatabase().groups_of(uid) is None)
    ruleset = scratch.config(OPEN).ruleset
    assert not ruleset.may_connect(Identity(uid=unknown, gid=0, gids=(0,)), 0).allowed
    assert not ruleset.may_connect(Identity(uid=unknown, gid=0, gids=(0,)), unknown).allowed
    assert not ruleset.may_connect(Identity(), 0).allowed
    assert ruleset.may_connect(NOBODY, 0).allowed


@pytest.mark.parametrize(
    ("policy", "expected"),
    [('context="mandatory"', False), ('at_console="false"', True), ('user="no-such-user"', True)],
)
def test_s5_connect_rules_count_in_default_and_mandatory(
    scratch: Scratch, policy: str, expected: bool
) -> None:
    ruleset = scratch.config(f'{OPEN}<policy {policy}><deny user="nobody"/></policy>').ruleset
    assert ruleset.may_connect(NOBODY, 0).allowed is expected


def test_s6_without_a_rule_only_the_bus_s_own_user_connects(scratch: Scratch) -> None:
    ruleset = scratch.config(default('<allow own="*"/>')).ruleset
    assert ruleset.may_connect(NOBODY, 65534).allowed
    assert not ruleset.may_connect(ROOT, 65534).allowed
    verdict = ruleset.may_connect(NOBODY, 0)
    assert (verdict.allowed, verdict.matched, verdict.rule) == (False, 0, None)


def test_s7_unknown_names_vanish_with_a_warning(scratch: Scratch) -> None:
    config = scratch.config(
        f'{OPEN}<policy user="no-such-user"><deny own="a.b"/></policy>'
        '<policy group="*"><deny own="a.b"/></policy>'
        '<policy user=""><deny own="a.b"/></policy>'
        '<policy context="default"><deny user="54321"/><deny group="no-such-group"/></policy>'
    )
    assert config.ruleset.for_peer(NOBODY).may_own("a.b").allowed
    assert config.ruleset.may_connect(NOBODY, 0).allowed
    assert len(config.warnings) == 5
    assert all(str(scratch.folder / "bus.conf") in warning for warning in config.warnings)


@pytest.mark.parametrize("number", ["0", "0x0", " 0", "00", "+0", "root"])
def test_s7_numbers_are_strtol_s(peer: Peer, number: str) -> None:
    policy = f'{OPEN}<policy user="{number}"><deny own="a.b"/></policy>'
    assert not peer(policy, ROOT).may_own("a.b").allowed
    assert peer(policy, NOBODY).may_own("a.b").allowed


def test_s8_the_console(scratch: Scratch) -> None:
    class Seats:
        def groups_of(self, uid: int) -> tuple[int, ...]:
            return (uid,)

        def at_console(self, uid: int) -> bool:
            return uid == 0

    policy = f'{OPEN}<policy at_console="%s"><deny own="a.b"/></policy>'
    for value, denied in (("true", ROOT), ("false", NOBODY)):
        ruleset = Ruleset(scratch.config(policy % value).ruleset.buckets, Seats())
        for who in (NOBODY, ROOT):
            assert ruleset.for_peer(who).may_own("a.b").allowed is (who is not denied)
        assert ruleset.for_peer(Identity()).may_own("a.b").allowed, "for no user neither holds"


# The reset


@pytest.mark.parametrize(
    "rule",
    [
        '<deny send_broadcast="true"/>',
        '<deny send_type="*" min_fds="1"/>',
        '<deny send_destination="*" max_fds="0"  min_fds="1"/>',
        '<deny send_requested_reply="false" send_broadcast="true"/>',
        '<deny send_interface="*" send_member="*" min_fds="7" eavesdrop="true"/>',
    ],
)
def test_s9_a_bare_send_rule_erases_all_before(peer: Peer, rule: str) -> None:
    verdict = peer(OPEN + default(rule)).may_send(call(destination=DRIVER))
    assert (verdict.allowed, verdict.matched, verdict.rule) == (False, 0, None)


def test_s9_a_bare_allow_erases_too(peer: Peer) -> None:
    policy = peer(OPEN + default('<allow send_broadcast="true"/>'))
    assert may(policy, signal())
    assert not may(policy, signal(destination="a.b"))
    assert not may(policy, call(destination=DRIVER))


@pytest.mark.parametrize(
    "rule",
    ['<deny send_destination_prefix="*" min_fds="1"/>', '<deny send_path="/x" min_fds="1"/>'],
)
def test_s9_a_rule_that_names_something_erases_nothing(peer: Peer, rule: str) -> None:
    assert may(peer(OPEN + default(rule)), call(destination=DRIVER))


def test_s10_a_bare_receive_rule_erases_all_before(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny eavesdrop="true"/>'))
    verdict = policy.may_receive(call(sender={":1.1"}))
    assert (verdict.allowed, verdict.matched) == (False, 0)
    assert may(policy, call(destination=DRIVER)), "send rules are not concerned"


def test_s10_an_own_rule_for_all_erases_all_before(peer: Peer) -> None:
    policy = peer(default('<allow own="a.b"/><allow own_prefix="c"/><deny own="*"/>'))
    for name in ("a.b", "c.d"):
        verdict = policy.may_own(name)
        assert (verdict.allowed, verdict.matched) == (False, 1)


def test_s10_stars_are_literal_in_prefixes_and_inside_names(peer: Peer) -> None:
    policy = peer(default('<allow own_prefix="*"/><allow own="a.*"/><allow own_prefix="b.*"/>'))
    assert not any(policy.may_own(name).allowed for name in ("a.b", "b.c", "x"))


# What a rule fits


def test_s11_an_absent_field_fits_path_member_and_error(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny send_error="e.E"/>'))
    assert not may(policy, call(destination=DRIVER))
    assert not may(policy, signal())
    assert may(policy, error(False, error_name="other.E"))
    policy = peer(OPEN + default('<deny send_path="/x" send_requested_reply="true"/>'))
    assert not may(policy, method_return(True))
    assert may(policy, call(path="/y"))
    policy = peer(OPEN + default('<deny send_path="/" send_member="N"/>'))
    assert may(policy, call(member="M"))
    assert not may(policy, call(member=None))


def test_s12_an_absent_interface_fits_only_denials(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny send_interface="i.g"/>'))
    assert not may(policy, call())
    assert not may(policy, method_return(False))
    assert may(policy, method_return(True))
    assert may(policy, call(interface="i.h"))
    policy = peer(default('<allow send_interface="i.g"/>'))
    assert not may(policy, call())
    assert may(policy, call(interface="i.g"))


def test_s13_whatever_has_a_reply_serial_is_a_reply(peer: Peer) -> None:
    policy = peer(default('<allow send_destination="*"/><allow receive_sender="*"/>'))
    for question in (call(reply=True), signal(reply=True, destination="a.b")):
        for verdict in (policy.may_send(question), policy.may_receive(question)):
            assert (verdict.allowed, verdict.matched) == (False, 0)
        assert may(policy, question._replace(requested=True))
    assert may(policy, call())


@pytest.mark.parametrize(
    ("rule", "requested", "unrequested"),
    [
        ('<allow send_type="method_return"/>', True, False),
        ('<allow send_type="method_return" send_requested_reply="true"/>', True, False),
        ('<allow send_type="method_return" send_requested_reply="false"/>', True, True),
        # s15: on an allow rule for sending eavesdrop means this and nothing else
        ('<allow send_type="method_return" eavesdrop="true"/>', True, True),
    ],
)
def test_s14_s15_what_allow_means_for_replies(
    peer: Peer, rule: str, requested: bool, unrequested: bool
) -> None:
    policy = peer(default('<deny send_type="signal"/>' + rule))
    assert may(policy, method_return(True)) is requested
    assert may(policy, method_return(False)) is unrequested


@pytest.mark.parametrize(
    ("rule", "requested", "unrequested"),
    [
        ('<deny send_type="method_return"/>', True, False),
        ('<deny send_type="method_return" send_requested_reply="false"/>', True, False),
        ('<deny send_type="method_return" send_requested_reply="true"/>', False, False),
        ('<deny send_type="method_return" eavesdrop="true"/>', True, False),
    ],
)
def test_s14_s15_what_deny_means_for_replies(
    peer: Peer, rule: str, requested: bool, unrequested: bool
) -> None:
    policy = peer(OPEN + default(rule))
    assert may(policy, method_return(True)) is requested
    assert may(policy, method_return(False)) is unrequested


def test_s14_errors_of_the_driver_are_always_requested(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny receive_type="error"/>'))
    assert policy.may_receive(error(True)).allowed
    assert not policy.may_receive(error(False, sender={":1.2"})).allowed


@pytest.mark.parametrize(
    ("rule", "plain", "overheard"),
    [
        ('<allow receive_type="method_call"/>', True, False),
        ('<allow receive_type="method_call" eavesdrop="false"/>', True, False),
        ('<allow receive_type="method_call" eavesdrop="true"/>', True, True),
    ],
)
def test_s15_what_allow_means_for_overhearing(
    peer: Peer, rule: str, plain: bool, overheard: bool
) -> None:
    policy = peer(default(rule))
    question = call(sender={":1.2"}, destination="a.b")
    assert policy.may_receive(question).allowed is plain
    assert policy.may_receive(question._replace(eavesdropping=True)).allowed is overheard


@pytest.mark.parametrize(
    ("rule", "plain", "overheard"),
    [
        ('<deny receive_type="method_call"/>', False, False),
        ('<deny receive_type="method_call" eavesdrop="false"/>', False, False),
        ('<deny receive_type="method_call" eavesdrop="true"/>', True, False),
    ],
)
def test_s15_what_deny_means_for_overhearing(
    peer: Peer, rule: str, plain: bool, overheard: bool
) -> None:
    policy = peer(OPEN + default(rule))
    question = call(sender={":1.2"}, destination="a.b")
    assert policy.may_receive(question).allowed is plain
    assert policy.may_receive(question._replace(eavesdropping=True)).allowed is overheard


def test_s15_eavesdrop_allows_unrequested_replies_to_be_received(peer: Peer) -> None:
    for rule, expected in (('eavesdrop="true"', True), ('receive_sender="*"', False)):
        policy = peer(default(f"<allow {rule}/>"))
        assert policy.may_receive(method_return(False)).allowed is expected


def test_s16_destination_is_any_name_that_the_receiver_has(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny send_destination="x.y"/><deny send_destination=":1.9"/>'))
    assert not may(policy, call(destination=":1.4", receiver={":1.4", "x.y"}))
    assert not may(policy, signal(receiver={":1.4", "x.y"}))
    assert not may(policy, call(destination="a.b", receiver={":1.9", "a.b"}))
    assert may(policy, call(destination="x.y", receiver={":1.4", "a.b"}))
    assert not may(policy, call(destination="x.y")), "nobody yet: the string is compared"
    assert may(policy, call()), "and without one nothing fits"


def test_s16_broadcasts_to_the_owner_only(peer: Peer) -> None:
    rules = '<deny send_type="signal"/><allow send_destination="x.y"/>'
    policy = peer(OPEN + default(rules))
    assert may(policy, signal(receiver={":1.4", "x.y"}))
    assert not may(policy, signal(receiver={":1.5", "x.z"}))


def test_s16_sender_is_any_name_that_the_sender_has(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny receive_sender="x.y"/>'))
    assert not policy.may_receive(call(sender={":1.4", "x.y"})).allowed
    assert policy.may_receive(call(sender={":1.4"})).allowed
    assert policy.may_receive(call(sender=None)).allowed


def test_s18_prefixes_fit_by_words(peer: Peer) -> None:
    rules = '<allow %s="a"/><allow %s="b.c"/><allow %s=""/><allow %s="d."/>'
    policy = peer(default(rules.replace("%s", "own_prefix")))
    allowed = ("a", "a.b", "a.b.c", "b.c", "b.c.d")
    denied = ("ab", "ab.c", "b", "b.cd", "b.d", "d.e", "d", "e.f")
    assert all(policy.may_own(name).allowed for name in allowed)
    assert not any(policy.may_own(name).allowed for name in denied)
    policy = peer(default(rules.replace("%s", "send_destination_prefix")))
    for names, expected in ((allowed, True), (denied, False)):
        for name in names:
            assert may(policy, call(destination=name)) is expected
            assert may(policy, call(destination=":1.1", receiver={":1.1", name})) is expected


def test_s18_a_prefix_covers_the_driver(peer: Peer) -> None:
    policy = peer(OPEN + default('<deny send_destination_prefix="org.freedesktop"/>'))
    assert not may(policy, call(destination=DRIVER))


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        ('min_fds="1"', {1, 2, 3}),
        ('max_fds="1"', {0, 1}),
        ('min_fds="1" max_fds="2"', {1, 2}),
        ('min_fds="2" max_fds="1"', set()),
        ('min_fds="0" max_fds="33554432"', {0, 1, 2, 3}),
        ('max_fds="0x1"', {0, 1}),
        ('max_fds="010"', {0, 1, 2, 3}),
        ('max_fds="1 x"', {0, 1}),
    ],
)
def test_s19_s32_descriptors(peer: Peer, rule: str, denied: set[int]) -> None:
    policy = peer(
        OPEN
        + default(f'<deny send_type="method_call" {rule}/><deny receive_type="signal" {rule}/>')
    )
    for fds in range(4):
        assert may(policy, call(fds=fds)) is (fds not in denied)
        assert policy.may_receive(signal(fds=fds)).allowed is (fds not in denied)


def test_s23_receive_rules_hold_for_the_driver(peer: Peer) -> None:
    deny = f'<deny receive_sender="{DRIVER}" receive_requested_reply="%s"/>'
    for value, hello_is_answered in (("true", False), ("false", True)):
        policy = peer(f'{OPEN}<policy user="nobody">{deny % value}</policy>')
        assert not policy.may_receive(signal(sender=None)).allowed
        assert policy.may_receive(method_return(True)).allowed is hello_is_answered


def test_s23_without_a_receive_rule_nothing_is_received(peer: Peer) -> None:
    for who in (NOBODY, ROOT):
        assert not peer("", who).may_receive(method_return(True)).allowed


def test_s24_a_denial_tells_how_many_rules_fitted_and_which_decided(peer: Peer) -> None:
    policy = peer(
        OPEN
        + default(
            '<deny send_destination="a.b"/>\n<allow send_interface="a.i"/>'
            '<deny send_member="M" send_path="/"/><deny send_type="signal"/>\n'
            '<deny send_destination="a.c"/><allow send_interface="no.fit"/>'
        )
    )
    verdict = policy.may_send(call(destination="a.b", interface="a.i"))
    assert (verdict.allowed, verdict.matched) == (False, 4)
    assert verdict.rule is not None
    assert (verdict.rule.line, Path(verdict.rule.file).name) == (2, "bus.conf")


def test_log_belongs_to_the_deciding_send_rule(peer: Peer) -> None:
    policy = peer(
        default(
            '<allow send_type="signal" log="true"/><allow send_type="method_call" log="yes"/>'
            '<allow receive_type="signal" log="true"/><deny send_type="error" log="true"/>'
        )
    )
    assert policy.may_send(signal()).log
    assert not policy.may_send(call()).log
    assert not policy.may_receive(signal()).log
    assert policy.may_send(error(False)).log


def test_send_broadcast(peer: Peer) -> None:
    for value, denied in (("true", {"broadcast"}), ("false", {"unicast", "call"})):
        rule = f'<deny send_path="/" send_broadcast="{value}"/>'
        policy = peer(OPEN + default(rule))
        answers = {
            "broadcast": may(policy, signal()),
            "unicast": may(policy, signal(destination="a.b")),
            # measured: a call without destination is no broadcast
            "call": may(policy, call()),
        }
        assert {name for name, allowed in answers.items() if not allowed} == denied


def test_peers_alike_to_the_rules_share_a_policy(scratch: Scratch) -> None:
    audio = grp.getgrnam("audio").gr_gid
    ruleset = scratch.config(f'{OPEN}<policy group="audio"><deny own="a.b"/></policy>').ruleset
    others = Identity(uid=pwd.getpwnam("daemon").pw_uid, gid=1, gids=(1,))
    assert ruleset.for_peer(NOBODY) is ruleset.for_peer(others)
    assert ruleset.for_peer(NOBODY) is not ruleset.for_peer(NOBODY._replace(gids=(1, audio)))


def test_without_process_groups_the_user_database_has_to_do(peer: Peer) -> None:
    policy = f'{OPEN}<policy group="nogroup"><deny own="a.b"/></policy>'
    assert not peer(policy, Identity(uid=65534)).may_own("a.b").allowed
    assert peer(policy, Identity()).may_own("a.b").allowed
