"""What a configuration says, with everything it includes."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

import pytest
from policies import DRIVER, NOBODY, OPEN, ROOT, Scratch, call, default

from afdbus.config.load import load
from afdbus.config.model import MissingFile, ServiceDirectory
from afdbus.errors import ConfigError
from afdbus.limits import Limits


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return Scratch(tmp_path)


def refused(scratch: Scratch, inside: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        scratch.config(inside)
    return caught.value


def test_the_values_of_all_elements(scratch: Scratch) -> None:
    config = scratch.config(
        "<type>session</type><user>nobody</user><fork/><keep_umask/><syslog/><allow_anonymous/>"
        "<pidfile>/run/x</pidfile><auth>EXTERNAL</auth><auth>ANONYMOUS</auth>"
        "<listen>unix:path=/b</listen><servicedir>services</servicedir>"
        "<servicehelper>helper</servicehelper><apparmor mode='disabled'/>"
        '<selinux><associate own="a.b" context="c"/><associate own="a.b" context="d"/></selinux>'
        '<limit name="max_replies_per_connection">7</limit>'
    )
    folder = scratch.folder
    assert list(config.sources.files) == [f"{folder}/bus.conf"]
    assert list(config.sources.directories) == [f"{folder}/services"]
    assert config._replace(ruleset=None, sources=None, memory=None) == (  # type: ignore[arg-type]
        "session",
        "nobody",
        True,
        True,
        True,
        "/run/x",
        ("unix:tmpdir=/tmp", "unix:path=/b"),
        ("EXTERNAL", "ANONYMOUS"),
        True,
        Limits()._replace(max_replies_per_connection=7),
        None,
        (ServiceDirectory(f"{folder}/services"),),
        f"{folder}/helper",
        "disabled",
        (("a.b", "d"),),
        (),
        (f"{folder}/bus.conf",),
        None,
        (),
        None,
    )


def test_what_is_not_said(scratch: Scratch) -> None:
    config = scratch.config("")
    assert (config.type, config.user, config.pidfile, config.servicehelper) == (None,) * 4
    flags = (config.fork, config.keep_umask, config.syslog, config.allow_anonymous)
    assert flags == (False,) * 4
    assert (config.auth, config.servicedirs, config.limits) == ((), (), Limits())
    assert config.apparmor == "enabled"


def test_an_error_names_file_line_and_text(scratch: Scratch) -> None:
    error = refused(scratch, '\n\n<limit name="max_bees">1</limit>')
    assert (error.file, error.line) == (str(scratch.folder / "bus.conf"), 3)
    assert "max_bees" in str(error)
    error = refused(scratch, "\n<policy context='default'>\n<allow bees='1'/></policy>")
    assert (error.line, "bees" in error.text) == (3, True)
    assert str(error) == f"Error in file {error.file}, line 3: {error.text}"
    error = refused(scratch, "\n<type>\n</typo>")
    assert (error.line, error.column is not None) == (3, True)
    assert str(error).startswith(f"Error in file {error.file}, line 3, column {error.column}: ")
    error = refused(scratch, "\n\n<include>no-such.conf</include>")
    assert (error.line, "no-such.conf" in error.text) == (3, True)
    scratch.file("in.conf", "\n<bees/>")
    error = refused(scratch, "<include>in.conf</include>")
    assert (error.file, error.line) == (str(scratch.folder / "in.conf"), 2)


def test_rules_remember_where_they_were_written(scratch: Scratch) -> None:
    scratch.file("in.conf", default('\n\n<deny own="a.b"/>'))
    config = scratch.config(OPEN + "<include>in.conf</include>")
    rule = config.ruleset.for_peer(NOBODY).may_own("a.b").rule
    assert rule is not None
    assert (rule.file, rule.line) == (str(scratch.folder / "in.conf"), 3)


@pytest.mark.parametrize(
    ("inside", "type_"),
    [
        ("<type>ses<!-- x -->sion</type>", "session"),
        ("<type>ses<![CDATA[si]]>o<?pi x?>n</type>", "session"),
        ("<type> session\n</type>", " session\n"),
        ("<type> </type>", " "),
        ("<type>a</type><type>b</type>", "b"),
        ("<type>a\r\nb</type>", "a\nb"),
    ],
)
def test_s31_text_is_never_trimmed(scratch: Scratch, inside: str, type_: str) -> None:
    assert scratch.config(inside).type == type_


def test_s31_a_path_with_blanks_is_another_path(scratch: Scratch) -> None:
    scratch.file("x.conf", "<type>x</type>")
    include = '<include ignore_missing="yes"> x.conf </include>'
    assert scratch.config(include).type is None
    config = scratch.config("<servicedir> s </servicedir>")
    assert config.servicedirs == (ServiceDirectory(f"{scratch.folder}/ s "),)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("0x2", 2),
        ("010", 8),
        (" 2", 2),
        ("+2", 2),
        ("-0", 0),
        ("2.9", 2),
        ("2e3", 2),
        ("2 apples", 2),
        ("0xg", 0),
        ("2147483647", 2**31 - 1),
    ],
)
def test_s32_limits_are_strtol_s(scratch: Scratch, number: str, value: int) -> None:
    config = scratch.config(f'<limit name="max_names_per_connection">{number}</limit>')
    assert config.limits.max_names_per_connection == value


def test_s32_a_reply_timeout_of_0_is_never(scratch: Scratch) -> None:
    config = scratch.config('<limit name="reply_timeout">0</limit>')
    assert config.limits.reply_timeout == -1
    config = scratch.config('<limit name="reply_timeout">1</limit>')
    assert config.limits.reply_timeout == 1


def test_s32_every_limit_can_be_set(scratch: Scratch) -> None:
    inside = "".join(
        f'<limit name="{name}">{place}</limit>' for place, name in enumerate(Limits._fields, 1)
    )
    assert scratch.config(inside).limits == tuple(range(1, len(Limits._fields) + 1))


# include


def test_s35_include_is_relative_to_the_including_file(scratch: Scratch) -> None:
    scratch.file("sub/a.conf", "<include>b.conf</include>")
    scratch.file("sub/b.conf", "<type>b</type><servicedir>s</servicedir>")
    config = scratch.config("<include>sub/a.conf</include>")
    assert config.type == "b"
    assert config.servicedirs[0].path == f"{scratch.folder}/sub/s"
    names = ("bus.conf", "sub/a.conf", "sub/b.conf")
    assert config.files == tuple(f"{scratch.folder}/{name}" for name in names)


def test_s35_a_missing_file_is_an_error_of_its_own(scratch: Scratch) -> None:
    assert isinstance(refused(scratch, "<include>no-such.conf</include>"), MissingFile)
    assert not isinstance(refused(scratch, "<include>.</include>"), MissingFile)
    with pytest.raises(MissingFile):
        load(str(scratch.folder / "no-such.conf"))


def test_s35_a_missing_file_inside_drops_the_whole_included_file(scratch: Scratch) -> None:
    scratch.file("in.conf", default('<deny own="a.b"/>') + "<include>no-such.conf</include>")
    config = scratch.config(OPEN + '<include ignore_missing="yes">in.conf</include>')
    assert config.ruleset.for_peer(NOBODY).may_own("a.b").allowed
    (warning,) = config.warnings
    assert "no-such.conf" in warning
    assert isinstance(refused(scratch, "<include>in.conf</include>"), MissingFile)


def test_s35_ignore_missing_ignores_nothing_else(scratch: Scratch) -> None:
    for inside in ("<bees/>", b"", b"<busconfig>"):
        scratch.file("in.conf", inside)
        refused(scratch, '<include ignore_missing="yes">in.conf</include>')


@pytest.mark.parametrize("spelling", ["bus.conf", "./bus.conf", "../%s/bus.conf"])
def test_s35_a_file_that_includes_itself(scratch: Scratch, spelling: str) -> None:
    path = spelling.replace("%s", scratch.folder.name)
    error = refused(scratch, f'<include ignore_missing="yes">{path}</include>')
    assert "Circular" in error.text


def test_s35_the_same_file_twice_is_no_circle(scratch: Scratch) -> None:
    scratch.file("in.conf", "<listen>unix:path=/a</listen>")
    config = scratch.config("<include>in.conf</include><include>./in.conf</include>")
    assert config.listen == ("unix:tmpdir=/tmp", "unix:path=/a", "unix:path=/a")


def test_a_deep_chain_ends_in_an_error(scratch: Scratch) -> None:
    for place in range(200):
        scratch.file(f"{place}.conf", f"<include>{place + 1}.conf</include>")
    assert "deep" in refused(scratch, "<include>0.conf</include>").text


def test_s36_includedir_takes_conf_files_in_readdir_order(scratch: Scratch) -> None:
    names = ["z.conf", "a.conf", ".hidden.conf", ".conf", "no.txt", "x.conf.bak", "m.conf"]
    for name in names:
        scratch.file(f"d/{name}", f"<listen>unix:path={name}</listen>")
    scratch.file("d/sub.d/deeper.conf", "<listen>unix:path=deeper</listen>")
    config = scratch.config("<includedir>d</includedir>")
    order = [name for name in os.listdir(scratch.folder / "d") if name.endswith(".conf")]
    assert config.listen == ("unix:tmpdir=/tmp", *(f"unix:path={name}" for name in order))
    assert list(config.sources.directories) == [f"{scratch.folder}/d"]


def test_s36_a_broken_file_is_skipped_whole_with_a_warning(scratch: Scratch) -> None:
    good = '<limit name="max_names_per_connection">5</limit>' + default('<deny own="a.b"/>')
    scratch.file("d/broken.conf", good + "<type>x</type>\n<bees/>")
    scratch.file("d/cut.conf", b"<busconfig>")
    scratch.file("d/not.conf", "<include>no-such.conf</include>")
    (scratch.folder / "d/dangling.conf").symlink_to("no-such-file")
    (scratch.folder / "d/folder.conf").mkdir()
    config = scratch.config(OPEN + "<includedir>d</includedir>")
    assert config.type is None
    assert config.limits == Limits()
    assert config.ruleset.for_peer(NOBODY).may_own("a.b").allowed
    assert len(config.files) == 1
    names = ("broken.conf, line 2", "cut.conf", "not.conf", "folder.conf")
    assert len(config.warnings) == len(names)
    for name in names:
        assert any(name in warning for warning in config.warnings), name


def test_s36_a_missing_folder_is_fine_and_a_file_is_not(scratch: Scratch) -> None:
    config = scratch.config("<includedir>no-such.d</includedir>")
    assert config.warnings == ()
    assert list(config.sources.directories) == [f"{scratch.folder}/no-such.d"]
    assert "bus.conf" in refused(scratch, "<includedir>bus.conf</includedir>").text


def test_s36_a_folder_that_includes_itself_ends(scratch: Scratch) -> None:
    scratch.file("d/a.conf", "<includedir>../d</includedir>" + default('<deny own="a.b"/>'))
    scratch.file("d/b.conf", "<includedir>../d</includedir>")
    config = scratch.config(OPEN + "<includedir>d</includedir>")
    assert not config.ruleset.for_peer(NOBODY).may_own("a.b").allowed
    assert any("Circular" in warning for warning in config.warnings)


def test_s37_the_last_one_in_reading_order_wins(scratch: Scratch) -> None:
    scratch.file(
        "in.conf",
        "<type>in</type><user>in</user><pidfile>in</pidfile><auth>ANONYMOUS</auth>"
        "<listen>unix:path=in</listen>"
        '<limit name="max_names_per_connection">5</limit>'
        '<limit name="auth_timeout">6</limit>',
    )
    before = '<type>a</type><limit name="auth_timeout">1</limit><auth>EXTERNAL</auth>'
    after = '<user>b</user><limit name="max_names_per_connection">7</limit>'
    config = scratch.config(f"{before}<include>in.conf</include>{after}")
    assert (config.type, config.user, config.pidfile) == ("in", "b", "in")
    assert (config.limits.auth_timeout, config.limits.max_names_per_connection) == (6, 7)
    assert config.auth == ("EXTERNAL", "ANONYMOUS")
    assert config.listen == ("unix:tmpdir=/tmp", "unix:path=in")


def test_flags_of_an_included_file_count(scratch: Scratch) -> None:
    scratch.file("in.conf", "<fork/><syslog/><keep_umask/><allow_anonymous/>")
    config = scratch.config("<include>in.conf</include>")
    assert config.fork
    assert config.syslog
    assert config.keep_umask
    assert config.allow_anonymous


def test_s38_types_are_free_and_mechanisms_are_not(scratch: Scratch) -> None:
    assert scratch.config("<type>no-such-type</type>").type == "no-such-type"
    assert "external" in refused(scratch, "<auth>EXTERNAL</auth><auth>external</auth>").text


def test_s39_users_are_not_looked_up_yet(scratch: Scratch) -> None:
    assert scratch.config("<user>no-such-user</user>").user == "no-such-user"


def test_s40_only_regular_files(scratch: Scratch) -> None:
    """A FIFO would keep us waiting for a writer; a folder and a device are no files."""
    os.mkfifo(scratch.folder / "fifo.conf")
    began = time.monotonic()
    for path in (str(scratch.folder / "fifo.conf"), str(scratch.folder), "/dev/null"):
        with pytest.raises(ConfigError):
            load(path)
    assert time.monotonic() - began < 60, "it would have waited for ever"


def test_without_listen_there_is_no_bus(scratch: Scratch) -> None:
    path = scratch.file("bus.conf", OPEN)
    with pytest.raises(ConfigError, match="listen"):
        load(str(path))


# .service directories


def test_the_standard_session_directories(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scratch.folder / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    monkeypatch.setenv("XDG_DATA_HOME", "/h")
    monkeypatch.setenv("XDG_DATA_DIRS", "/d1: /d2 ::/usr/share")
    config = scratch.config(
        "<servicedir>/d2/dbus-1/services</servicedir><standard_session_servicedirs/>"
    )
    assert config.servicedirs == (
        ServiceDirectory("/d2/dbus-1/services"),
        ServiceDirectory(f"{run}/dbus-1/services", strict=True, watched=False),
        ServiceDirectory("/h/dbus-1/services"),
        ServiceDirectory("/d1/dbus-1/services"),
        ServiceDirectory("/usr/share/dbus-1/services"),
    )
    assert (run / "dbus-1/services").is_dir()
    assert f"{run}/dbus-1/services" not in config.sources.directories
    assert config.warnings == ()


def test_the_session_directories_by_default(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.delenv(name, raising=False)
    config = scratch.config("<standard_session_servicedirs/>")
    assert [directory.path for directory in config.servicedirs] == [
        f"{pwd.getpwuid(os.getuid()).pw_dir}/.local/share/dbus-1/services",
        "/usr/local/share/dbus-1/services",
        "/usr/share/dbus-1/services",
    ]


def test_a_runtime_directory_of_others_is_not_used(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scratch.folder / "run"
    run.mkdir()
    run.chmod(0o775)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    config = scratch.config("<standard_session_servicedirs/>")
    assert not any(directory.path.startswith(str(run)) for directory in config.servicedirs)
    assert f'"{run}" can be written by others (mode 040775)' in config.warnings[0]
    assert list(run.iterdir()) == []


def test_a_directory_twice_keeps_its_place_and_is_watched(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scratch.folder / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    path = f"{run}/dbus-1/services"
    config = scratch.config(f"<standard_session_servicedirs/><servicedir>{path}</servicedir>")
    assert config.servicedirs[0] == ServiceDirectory(path, strict=False, watched=True)
    assert path in config.sources.directories


def test_the_standard_system_directories(scratch: Scratch) -> None:
    config = scratch.config("<standard_system_servicedirs/>")
    assert [directory.path for directory in config.servicedirs] == [
        f"{folder}/dbus-1/system-services" for folder in ("/usr/local/share", "/usr/share", "/lib")
    ]


def test_a_config_does_not_change(scratch: Scratch) -> None:
    config = scratch.config(OPEN)
    with pytest.raises(AttributeError):
        config.type = "x"  # type: ignore[misc]
    assert config.ruleset.for_peer(ROOT).may_send(call(destination=DRIVER)).allowed
