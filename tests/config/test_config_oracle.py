"""What dbus-daemon accepts we accept, and what it refuses we refuse.

AFDBUS_TEST_FILES says how many files made at random are tried; without AFDBUS_TEST_SEED they are
the same ones each time.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from mutations import files

from afdbus.config.load import load
from afdbus.errors import ConfigError

FILES = int(os.environ.get("AFDBUS_TEST_FILES", "150"))
SEED = os.environ.get("AFDBUS_TEST_SEED")

LISTEN = "<listen>unix:tmpdir=/tmp</listen>"
PUBLIC = '<!DOCTYPE busconfig PUBLIC "-//x" "http://nowhere.invalid/busconfig.dtd">'


def inside(text: str, head: str = "") -> str:
    return f"{head}<busconfig>{LISTEN}{text}</busconfig>"


def rules(*attributes: str) -> list[str]:
    return [inside(f'<policy context="default"><deny {a}/></policy>') for a in attributes]


def limit(value: str, name: str = "max_names_per_connection") -> str:
    return inside(f'<limit name="{name}">{value}</limit>')


FIVE_AND_B = '<limit name="max_names_per_connection">5&b;</limit>'


def subset(declarations: str, body: str = "") -> list[str]:
    """A document with an internal subset, then with an external one too, then standalone."""
    alone = inside(body, f"<!DOCTYPE busconfig [{declarations}]>")
    both = alone.replace("busconfig [", 'busconfig PUBLIC "a" "b" [', 1)
    return [alone, both, f'<?xml version="1.0" standalone="yes"?>{both}']


WAYS = {
    "send": "interface member error destination destination_prefix path broadcast requested_reply",
    "receive": "interface member error sender path requested_reply",
}
ATTRIBUTES = [f"{way}_{what}" for way, all_ in WAYS.items() for what in all_.split()]
ATTRIBUTES += ["eavesdrop", "min_fds", "log", "own", "own_prefix", "user", "group"]
VALUES = {"send_broadcast": "true", "send_requested_reply": "true", "eavesdrop": "true"}
VALUES |= {"receive_requested_reply": "false", "min_fds": "1"}

RULES = [
    *rules(*(f'{name}="{VALUES.get(name, "*")}"' for name in ATTRIBUTES)),
    *rules(
        *(
            f'{a}="{VALUES.get(a, "*")}" {b}="{VALUES.get(b, "*")}"'
            for a, b in itertools.combinations(ATTRIBUTES, 2)
        )
    ),
    *rules(
        "",
        'bogus="1"',
        'send_type="x"',
        'send_type=""',
        'send_type="signal" eavesdrop="yes"',
        'send_broadcast="1"',
        'send_requested_reply="maybe"',
        'receive_requested_reply=""',
        'send_broadcast="true" send_destination="a.b"',
        'send_broadcast="false" send_destination="a.b"',
        'send_broadcast="true" send_destination_prefix="a.b"',
        'send_interface="*" send_member="x" send_error="*"',
        'send_path="*" send_member="*" send_error="y"',
        'send_type="signal" log="perhaps"',
        *(f'send_type="signal" min_fds="{n}"' for n in ("x", "-1", "33554432", "33554433", "2 x")),
        'send_path="not a path" send_interface="..." send_member="" send_destination=""',
    ),
]
POLICIES = [
    inside(f"<policy {policy}>{body}</policy>")
    for policy, body in itertools.product(
        (
            'context="default"',
            'context="x"',
            'user="root"',
            'user="*"',
            'user="no-such"',
            'group="root"',
            'at_console="true"',
            'at_console="x"',
            "",
            'user="root" group="root"',
            'bogus="1"',
        ),
        (
            "",
            '<allow user="*"/>',
            '<allow user="no-such"/>',
            '<allow own="x"> </allow>',
            '<allow own="x">x</allow>',
            '<allow own="x"><deny own="x"/></allow>',
            "x",
            "<foo/>",
        ),
    )
]
NUMBERS = (
    "0x2 02 +2 -0 2.9 2e3 2_0 two \uff12 9223372036854775808 0x 0xg 08 0b1 --2 -1 2147483647 "
    f"2147483648 {'0' * 40}1 {'9' * 40}"
)
LIMITS = [
    *map(limit, NUMBERS.split()),
    *map(limit, ("", " ", " 2", "2 apples", "\t\n2", "+ 2", "5<!-- x -->6", "5<a/>")),
    *(limit(v, "max_message_size") for v in ("2147483648", "-1", "9223372036854775807")),
    limit("5", "bees"),
    inside("<limit>5</limit>"),
    inside('<limit name="max_names_per_connection" x="y">5</limit>'),
]
NAMES = (
    "type servicehelper servicedir syslog keep_umask allow_anonymous selinux apparmor "
    "standard_session_servicedirs standard_system_servicedirs includedir busconfig allow"
)
ELEMENTS = [
    inside(f"<{name}>{body}</{name}>")
    for name, body in itertools.product(
        NAMES.split(),
        ("", " ", "x", "<b/>", "&#160;", "<![CDATA[ ]]>"),
    )
] + [
    inside(text)
    for text in (
        "<auth>EXTERNAL</auth>",
        "<auth>external</auth>",
        "<auth> EXTERNAL</auth>",
        "<auth>EXTERNAL</auth><auth>KERBEROS</auth>",
        '<type a="b">x</type>',
        '<apparmor mode="enabled"/>',
        '<apparmor mode="sometimes"/>',
        '<selinux><associate own="a" context="b"/></selinux>',
        '<selinux><associate own="a"/></selinux>',
        '<selinux><associate own="a" context="b">x</associate></selinux>',
        "<selinux><foo/></selinux>",
        "<include>no-such</include>",
        '<include ignore_missing="yes">no-such</include>',
        '<include ignore_missing="true">no-such</include>',
        '<include if_selinux_enabled="yes">no-such</include>',
        '<include selinux_root_relative="yes">no-such</include>',
        '<include ignore_missing="yes">/</include>',
        "<include>bus.conf</include>",
        '<include ignore_missing="yes">bus.conf</include>',
        '<include ignore_missing="yes">./bus.conf</include>',
        "<includedir>no-such.d</includedir>",
        "<includedir>bus.conf</includedir>",
        "<includedir>.</includedir>",
    )
]
ROOTS = [
    "",
    "<a/>",
    "<busconfig/>",
    f'<busconfig a="b">{LISTEN}</busconfig>',
    f"<busconfig>{LISTEN}</busconfig>x",
    f"<busconfig>{LISTEN}</busconfig><busconfig/>",
    f"<busconfig>{LISTEN}",
]
XML = [
    *(
        inside("<!-- é -->", head)
        for head in (
            '<?xml version="1.1"?>',
            '<?xml version="9z"?>',
            '<?xml version="1.0" encoding="no-such"?>',
            '<?xml version="1.0" encoding="8x"?>',
            '<?xml version="1.0" encoding="UTF-16"?>',
            '<?xml encoding="utf-8"?>',
            '<?xml version="1.0" standalone="maybe"?>',
            "<!DOCTYPE busconfig>",
            "<!DOCTYPE foo>",
            "<!DOCTYPE>",
            '<!DOCTYPE busconfig PUBLIC "x">',
            '<!DOCTYPE busconfig PUBLIC "é" "x">',
            "<!DOCTYPE busconfig SYSTEM 'x'[]>",
            PUBLIC + PUBLIC,
            "<!-- a -- b -->",
        )
    ),
    *(inside(f"<type>x{c}</type>") for c in "\0\f\x01\x7f\x85\ufffe\uffff\ufdd0"),
    *(inside(c) for c in ("\xa0", "]]>", "<![CDATA[x]]>", "<d:x/>", "<!-- -- -->", "&lt;")),
    *(inside(f"<type>{c}</type>") for c in ("&#0;", "&#1;", "&#xD800;", "&nope;", "&", "]]>")),
    inside("<type>x&nope;</type>", PUBLIC),
    inside('<policy context="default&nope;"/>', PUBLIC),
    inside('<policy xmlns="x" context="default"/>'),
    inside('<policy xml:lang="x" context="default"/>'),
    inside('<policy d:x="x" context="default"/>'),
    inside('<policy context="default" context="default"/>'),
    f'<x:busconfig xmlns:x="x">{LISTEN}</x:busconfig>',
    *subset('<!ENTITY a "x">', "<type>&a;</type>"),
    *subset('<!ENTITY a "x">', "<type>y&b;</type>"),
    *subset('<!ENTITY % a "x">%a;', "<type>y&b;</type>"),
    *subset("<!ENTITY % a \"<!ENTITY b 'x'>\">%a;", FIVE_AND_B),
    *subset('<!ENTITY % a "x">%a;<!ENTITY b "x">', FIVE_AND_B),
    *subset('<!ENTITY e SYSTEM "file:///etc/hostname">', "<type>y&e;</type>"),
    *subset('<!ENTITY e SYSTEM "file:///etc/hostname">', "<type>&e;</type>"),
    *subset('<!ENTITY e SYSTEM "file:///etc/hostname">', '<policy context="default&e;"/>'),
    *subset('<!ENTITY e "<type>x</type>">', "&e;&e;"),
    *subset('<!ENTITY e "<type>x">', "&e;</type>"),
    *subset('<!ENTITY e "&e;">', "&e;"),
    *subset('<!ATTLIST policy context CDATA "default">', "<policy/>"),
    *subset("<!ATTLIST policy context NMTOKEN #IMPLIED>", '<policy context=" default "/>'),
    *subset('<!ATTLIST busconfig xmlns CDATA "x">'),
    *subset("<!-- ] > --><?a ]> ?>"),
    *subset("<!FOO>"),
    *subset("<!ENTITY e>"),
]


def accepts(file: Path) -> bool:
    """Whether dbus-daemon starts with this configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(file.parent)}
    with subprocess.Popen(
        ["dbus-daemon", "--nofork", "--nosyslog", "--print-address=1", f"--config-file={file}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        process.terminate()
    return bool(address)


def loads(file: Path) -> bool:
    try:
        load(str(file))
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    "texts",
    [RULES, POLICIES, LIMITS, ELEMENTS, ROOTS, XML],
    ids=["rules", "policies", "limits", "elements", "roots", "xml"],
)
def test_the_same_files_are_refused(
    program: Callable[[str], str], tmp_path: Path, texts: list[str]
) -> None:
    program("dbus-daemon")
    file = tmp_path / "bus.conf"
    answers = set()
    differ = []
    for text in texts:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        expected = accepts(file)
        answers.add(expected)
        if loads(file) is not expected:
            differ.append((expected, text))
    assert differ == []
    assert answers == ({True, False} if texts is not ROOTS else {False})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_the_same_encodings_are_read(
    program: Callable[[str], str], tmp_path: Path, encoding: str
) -> None:
    program("dbus-daemon")
    file = tmp_path / "bus.conf"
    for head in ("", f'<?xml version="1.0" encoding="{encoding}"?>'):
        file.write_bytes(inside("<type>é</type>", head).encode(encoding))
        assert loads(file) is accepts(file) is (encoding != "latin-1")


def test_the_same_sizes_are_read(program: Callable[[str], str], tmp_path: Path) -> None:
    program("dbus-daemon")
    file = tmp_path / "bus.conf"
    for size, expected in ((2**20, True), (2**20 + 1, False)):
        file.write_bytes(inside("").encode().ljust(size))
        assert loads(file) is accepts(file) is expected


def test_files_that_are_nearly_right(
    program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("dbus-daemon")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "some.d").mkdir()
    for name in ("", "some.d/"):
        (tmp_path / f"{name}good.conf").write_text("<busconfig><type>x</type></busconfig>")
        (tmp_path / f"{name}broken.conf").write_text("<busconfig><type>x</type><bees/></busconfig>")
    file = tmp_path / "bus.conf"
    answers = {True: 0, False: 0}

    @settings(
        max_examples=FILES,
        deadline=None,
        database=None,
        derandomize=SEED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files())
    def compare(text: str) -> None:
        file.write_text(text)
        expected = accepts(file)
        answers[expected] += 1
        assert loads(file) is expected, text

    (compare if SEED is None else seed(int(SEED))(compare))()
    assert min(answers.values()) * 10 >= FILES, answers
