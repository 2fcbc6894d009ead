"""The measured semantics of configuration files, asked of both daemons; s28 to s40 number them.

Each file has the rule `<deny own="a.b"/>`, written in some way.  Whether it was read is seen by
somebody who requests that name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from conversations import LAST_WORDS, Stage
from kit import DAEMONS, Daemon, call
from policies import OPEN, default

LISTEN = "<listen>unix:tmpdir=/tmp</listen>"
DENY = '<deny own="a.b"/>'
RULE = default(DENY)

# What comes of a request for a.b, or of the file.
READ, NOT_READ, LIMITED, REFUSED, MISSING = (
    "AccessDenied", "", "LimitsExceeded", "Failed", "FileNotFound",
)  # fmt: skip


def document(inside: str, head: str = "") -> str:
    return f"{head}<busconfig>{LISTEN}{OPEN}{inside}{LAST_WORDS}</busconfig>"


class Case(NamedTuple):
    """A file as text or bytes, other files beside it, and what comes of it."""

    name: str
    text: str | bytes
    expected: str
    files: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


def xml(name: str, inside: str, expected: str = READ, head: str = "", **files: str) -> Case:
    """`files`: their names with an underscore for the dot; there is a folder d with the same."""
    beside = {
        folder + file.replace("_", "."): f"<busconfig>{text}</busconfig>"
        for file, text in files.items()
        for folder in ("", "d/")
    }
    return Case(name, document(inside, head), expected, beside)


def subset(declarations: str, external: bool = False) -> str:
    return f"<!DOCTYPE busconfig {'SYSTEM `x` '.replace('`', chr(34)) * external}[{declarations}]>"


def names(value: str, limit: str = "max_names_per_connection") -> str:
    return f'<limit name="{limit}">{value}</limit>'


ENCODED = [
    Case(f"s28 {encoding}, {declared or 'not'} declared",
         document(RULE, head).encode(encoding), READ)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
    for declared in ("", "us-ascii", "no-such-encoding")
    for head in [declared and f'<?xml version="1.0" encoding="{declared}"?>']
]  # fmt: skip
NUMBERS = [
    *((value, NOT_READ) for value in ("0x2", "02", " 2", "+2", "2.9", "2e3", "2 apples", "2_0")),
    *((value, LIMITED) for value in ("-0", "0", "1", "0x1", "1e9")),
    *((value, REFUSED) for value in ("", " ", "two", "\uff12", "-1", "2147483648", "9" * 20)),
]
ODD_RULES = [
    ('send_path="not a path"', NOT_READ), ('send_interface=""', NOT_READ),
    ('send_path="/x" log="perhaps"', NOT_READ), ('send_type="x"', REFUSED),
    ('eavesdrop="yes"', REFUSED), ('send_broadcast="1"', REFUSED),
    ('send_requested_reply=""', REFUSED), ('min_fds="1"', REFUSED), ('max_fds="1"', REFUSED),
    ('log="true"', REFUSED), ("", REFUSED),
]  # fmt: skip
COMBINED = [
    ('send_member="x"', REFUSED), ('receive_member="x"', REFUSED),
    ('send_destination="x" send_member="x"', REFUSED),
    ('receive_path="*" receive_member="x"', NOT_READ),
    ('send_interface="*" send_member="x"', NOT_READ),
    ('send_interface="*" send_error="*"', REFUSED),
    ('send_broadcast="true" send_destination="x"', REFUSED),
    ('send_broadcast="true" send_destination_prefix="x"', NOT_READ),
    ('send_broadcast="false" send_destination="x"', NOT_READ),
    ('own="x" user="x"', REFUSED), ('send_path="/x" receive_path="/x"', REFUSED),
]  # fmt: skip
LOL = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
IGNORE = '<include ignore_missing="yes">'
IN_DENY = f'{RULE}<include>no.such</include>'

CASES = [
    *ENCODED,
    Case("s28 no latin-1", document("<!-- é -->" + RULE).encode("latin-1"), REFUSED),
    Case("s28 nor if it is declared",
         document("<!-- é -->", '<?xml version="1.0" encoding="ISO-8859-1"?>').encode("latin-1"),
         REFUSED),
    xml("s28 UTF-8 declared as ASCII", "<!-- é -->" + RULE,
        head='<?xml version="1.0" encoding="us-ascii"?>'),
    xml("s29 an entity with elements", default("&e;"),
        head=subset("<!ENTITY e \"<deny own='a.b'/>\">")),
    xml("s29 a default attribute", f"<policy>{DENY}</policy>",
        head=subset('<!ATTLIST policy context CDATA "default">')),
    xml("s29 NMTOKEN trims", f'<policy context=" default ">{DENY}</policy>',
        head=subset("<!ATTLIST policy context NMTOKEN #IMPLIED>")),
    xml("s29 else nothing does", f'<policy context=" default ">{DENY}</policy>', REFUSED),
    xml("s29 an undefined entity", default('<deny own="a.b&x;"/>'), REFUSED),
    xml("s29 vanishes with an external subset", default('<deny own="a.b&x;"/>'),
        head=subset("", external=True)),
    xml("s29 or a parameter entity", default('<deny own="a.b&x;"/>'), head=subset("%p;")),
    xml("s29 an external entity is nothing", default(f"&e;{DENY}"),
        head=subset('<!ENTITY e SYSTEM "file:///etc/passwd">')),
    xml("s29 and an error in an attribute", default('<deny own="&e;a.b"/>'), REFUSED,
        head=subset('<!ENTITY e SYSTEM "file:///etc/passwd">')),
    xml("s29 a billion laughs", f"<type>&l11;</type>{RULE}", REFUSED,
        head=subset(f'<!ENTITY l0 "lol">{LOL}')),
    xml("s30 xmlns", f'<policy xmlns="x" context="default">{DENY}</policy>', REFUSED),
    xml("s30 a prefix", f'<d:policy context="default">{DENY}</d:policy>', REFUSED),
    xml("s30 a prefix of an attribute", f'<policy d:context="default">{DENY}</policy>', REFUSED),
    xml("s30 XML 1.1", RULE, head='<?xml version="1.1"?>'),
    *(xml(f"s30 {c!r}", f"<type>{c}</type>{RULE}", REFUSED) for c in ("\0", "\f", "\ufffe")),
    xml("s31 blanks belong to a path", "<include> x.conf </include>", MISSING, x_conf=RULE),
    xml("s31 also where it may be missing", f"{IGNORE} x.conf </include>", NOT_READ, x_conf=RULE),
    *(xml(f"s31 {text}", f"<include>{text}</include>", x_conf=RULE)
      for text in ("x.c<!-- -->onf", "<![CDATA[x]]>.conf", "x.<?a b?>conf")),
    xml("s31 blanks belong to a folder", "<includedir> d </includedir>", NOT_READ, x_conf=RULE),
    xml("s31 a no-break space is text", f"\xa0{RULE}", REFUSED),
    xml("s31 a blank is content", f"<type> </type>{RULE}"),
    xml("s31 nothing is none", f"<type></type>{RULE}", REFUSED),
    *(xml(f"s32 {value!r} names", names(value), expected) for value, expected in NUMBERS),
    xml("s32 bytes are a long", f'{names("2147483648", "max_message_size")}{RULE}'),
    *(xml(f"s33 {rule}", default(f"<deny {rule}/>"), expected) for rule, expected in ODD_RULES),
    *(xml(f"s34 {rule}", default(f"<deny {rule}/>"), expected) for rule, expected in COMBINED),
    xml("s35 a missing file", "<include>no.such</include>", MISSING),
    xml("s35 that may be missing", f"{IGNORE}no.such</include>{RULE}"),
    xml("s35 missing in an included file", "<include>x.conf</include>", MISSING, x_conf=IN_DENY),
    xml("s35 that drops the included file whole", f"{IGNORE}x.conf</include>", NOT_READ,
        x_conf=IN_DENY),
    xml("s35 a broken file is another thing", f"{IGNORE}x.conf</include>{RULE}", REFUSED,
        x_conf="<bees/>"),
    xml("s35 yes and no only", '<include ignore_missing="true">x.conf</include>', REFUSED,
        x_conf=RULE),
    xml("s35 a circle", f"{IGNORE}bus.conf</include>{RULE}", REFUSED),
    xml("s35 not if SELinux must be enabled",
        '<include if_selinux_enabled="yes">x.conf</include>', NOT_READ, x_conf=RULE),
    xml("s36 hidden files", "<includedir>d</includedir>", _x_conf=RULE),
    xml("s36 other endings", "<includedir>d</includedir>", NOT_READ, x_xml=RULE),
    xml("s36 a broken file is skipped", "<includedir>d</includedir>", NOT_READ,
        x_conf=f"{names('1')}{RULE}<bees/>"),
    xml("s36 a missing folder", f"<includedir>no.such</includedir>{RULE}"),
    xml("s36 a file is no folder", f"<includedir>x.conf</includedir>{RULE}", REFUSED, x_conf=""),
    xml("s37 limits flow back", "<include>x.conf</include>", LIMITED, x_conf=names("1")),
    xml("s37 the last one counts", f"<include>x.conf</include>{names('9')}{RULE}",
        x_conf=names("1")),
    xml("s38 any type", f"<type>no-such-type</type>{RULE}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def stage(kind: str) -> Iterator[Stage]:
    with closing(Stage(kind)) as stage:
        yield stage


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name))
def test_measured(stage: Stage, case: Case) -> None:
    folder = stage.daemon.directory
    others = {folder / name: text for name, text in case.files.items()}
    try:
        for path, text in others.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        data = case.text if isinstance(case.text, bytes) else case.text.encode("utf-8")
        stage.daemon.config_file.write_bytes(data)
        answer = stage.control.exchange(call("ReloadConfig"))[-1]
        if answer.error_name is None:
            answer = stage.control.exchange(call("RequestName", "su", "a.b", 0))[-1]
            stage.control.exchange(call("ReleaseName", "s", "a.b"))
        assert (answer.error_name or "").rpartition(".")[2] == case.expected
    finally:
        for path in others:
            path.unlink()
        stage.settle()


def test_s36_the_order_is_that_of_the_folder(stage: Stage) -> None:
    folder = stage.daemon.directory / "ordered.d"
    folder.mkdir()
    for name in ("z.conf", "a.conf", "m.conf"):
        rule = '<{} own="a.b"/>'.format("deny" if name == "m.conf" else "allow")
        (folder / name).write_text(f"<busconfig>{default(rule)}</busconfig>")
    try:
        text = document("<includedir>ordered.d</includedir>")
        stage.daemon.config_file.write_text(text)
        assert stage.control.bus("ReloadConfig").error_name is None
        answer = stage.control.exchange(call("RequestName", "su", "a.b", 0))[-1]
        stage.control.exchange(call("ReleaseName", "s", "a.b"))
        last = os.listdir(folder)[-1]
        assert (answer.error_name is not None) is (last == "m.conf")
    finally:
        stage.settle()


# -- the start


def begin(kind: str, folder: Path, inside: str) -> tuple[bool, int]:
    """Start a daemon that will not last: whether it printed an address, and its exit status."""
    file = folder / "bus.conf"
    file.write_text(f"<busconfig>{LISTEN}{inside}</busconfig>")
    done = subprocess.run(
        [*DAEMONS[kind], "--nofork", "--print-address", f"--config-file={file}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Failed to start message bus: " in done.stderr
    return bool(done.stdout), done.returncode


@pytest.mark.parametrize(
    ("inside", "printed"),
    [
        ("<auth>KERBEROS</auth>", False),
        ("<auth>EXTERNAL</auth><auth>external</auth>", False),
        ("<user>no-such-user</user>", True),
        ("<pidfile>{folder}/no/pid</pidfile>", True),
        ("<pidfile>{folder}/bus.conf</pidfile>", False),
        ('<apparmor mode="required"/>', True),
    ],
)
def test_s38_s39_when_a_start_ends(
    kind: str, tmp_path: Path, inside: str, printed: bool
) -> None:
    if "apparmor" in inside and os.path.exists("/sys/module/apparmor/parameters/enabled"):
        pytest.skip("here AppArmor may be present")
    inside = inside.replace("{folder}", str(tmp_path))
    assert begin(kind, tmp_path, inside) == (printed, 1)


def test_s38_without_auth_anonymous_is_offered_and_cut_off(start: Callable[..., Daemon]) -> None:
    client = start(auth=None).dial()
    client.send_bytes(b"\0")
    client.send_line("AUTH")
    assert client.read_line() == "REJECTED EXTERNAL DBUS_COOKIE_SHA1 ANONYMOUS"
    client.send_line("AUTH ANONYMOUS")
    assert client.read_line().startswith("OK ")
    client.send_line("BEGIN")
    assert client.closed() == []


def test_s40_only_regular_files_below_a_mebibyte(stage: Stage) -> None:
    text = document(RULE)
    try:
        for size, error in ((2**20, None), (2**20 + 1, "Failed")):
            stage.daemon.config_file.write_text(text.ljust(size))
            answer = stage.control.bus("ReloadConfig").error_name
            assert (answer and answer.rpartition(".")[2]) == error
    finally:
        stage.settle()
