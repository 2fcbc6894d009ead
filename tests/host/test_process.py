"""Becoming a daemon, in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afdbus.host.process import PidFile, StartError, find_user, print_line

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, all its standard descriptors pipes."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def gone_pid() -> int:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    return child.pid


# descriptors


PREPARE = """
import os, sys
from afdbus.host.process import prepare_descriptors
for fd in map(int, sys.argv[1:]):
    os.close(fd)
prepare_descriptors()
print(*(os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)))
print(os.get_inheritable(extra := os.dup2(0, 40)))
prepare_descriptors()
print(os.get_inheritable(extra), *(os.get_inheritable(fd) for fd in (0, 1, 2)))
"""


def test_stdin_is_null_and_nothing_is_inherited() -> None:
    lines = python(PREPARE).stdout.splitlines()
    assert lines[0].startswith("/dev/null pipe:")
    assert lines[1:] == ["True", "False True True True"]


def test_missing_standard_descriptors_are_null(tmp_path: Path) -> None:
    # else a socket would become "standard output"
    code = f"""
import os
from afdbus.host.process import prepare_descriptors
for fd in 0, 1, 2:
    os.close(fd)
prepare_descriptors()
names = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in (0, 1, 2)]
open({str(tmp_path / "out")!r}, "w").write(" ".join(names))
"""
    assert python(code).returncode == 0
    assert (tmp_path / "out").read_text() == "/dev/null /dev/null /dev/null"


# limits


LIMIT = """
import resource, sys
from afdbus.host.process import raise_fd_limit
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:])))
print(*raise_fd_limit()[0], *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_fd_limit_is_raised_to_the_hard_one() -> None:
    soft, hard, new_soft, new_hard = map(int, python(LIMIT, "100", "1000").stdout.split())
    assert (soft, hard) == (100, 1000)
    # root may get more, if it really is root
    assert new_soft == new_hard
    assert new_soft in ({1000, 65536} if os.getuid() == 0 else {1000})


# what is printed


def test_a_line_is_one_write_and_the_descriptor_is_closed() -> None:
    reader, writer = os.pipe2(os.O_DIRECT)  # packets: each read gives one write
    print_line(writer, "unix:path=/run/bus;unix:path=/run/other")
    assert os.read(reader, 4096) == b"unix:path=/run/bus;unix:path=/run/other\n"
    assert os.read(reader, 4096) == b""
    os.close(reader)


def test_standard_descriptors_stay_open() -> None:
    code = "from afdbus.host.process import print_line\nfor n in 1, 2, 1: print_line(n, 'line')"
    done = python(code)
    assert (done.stdout, done.stderr, done.returncode) == ("line\nline\n", "line\n", 0)


def test_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(StartError, match=r"^Writing to pipe: Broken pipe$"):
        print_line(writer, "line")
    os.close(writer)
    with pytest.raises(StartError, match=r"^Writing to pipe: Bad file descriptor$"):
        print_line(writer, "line")


# fork


DAEMON = """
import os, signal, sys
from afdbus.host.process import daemonise
os.umask(0o077)
part = daemonise({keep_umask})
told = [os.getpid(), os.getsid(0), os.getcwd(), oct(os.umask(0))]
print(*told, flush=True)
{then}
"""


def test_daemonise(tmp_path: Path) -> None:
    code = DAEMON.format(
        keep_umask=False,
        then="part(); print('not heard', flush=True); os.write(2, b'nor this'); signal.pause()",
    )
    # The daemon closes our pipes, or this would not come back.
    done = python(code, cwd=tmp_path)
    pid, session, directory, umask = done.stdout.split()
    try:
        assert session == pid
        assert directory == "/"
        assert umask == "0o22"
        assert (done.returncode, done.stderr) == (0, "")
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}
        assert links == {"/dev/null"}
    finally:
        os.kill(int(pid), signal.SIGKILL)


def test_daemonise_keeps_the_umask_if_told() -> None:
    done = python(DAEMON.format(keep_umask=True, then="part()"))
    assert done.stdout.split()[3] == "0o77"


@pytest.mark.parametrize(
    "then", ["sys.exit('it went wrong')", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_the_starter_sees_that_the_daemon_failed(then: str) -> None:
    done = python(DAEMON.format(keep_umask=False, then=then))
    assert done.returncode == 1
    assert done.stderr == ("it went wrong\n" if "wrong" in then else "")


def test_a_killed_parent_leaves_the_files_to_the_daemon(tmp_path: Path) -> None:
    # The parent must not run what the daemon does at its end.
    code = f"""
import os, signal, sys
from afdbus.host.process import daemonise
def stop(*_): raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
try:
    part = daemonise(False)
    os.kill(os.getppid(), signal.SIGTERM)
    while os.getppid() == int(sys.argv[1] or 0): pass
    part()
finally:
    open({str(tmp_path)!r} + f"/{{os.getpid()}}", "w").close()
"""
    done = python(code, "0")
    assert done.returncode == -signal.SIGTERM
    deadline = time.monotonic() + 30
    while not (ends := list(tmp_path.iterdir())) and time.monotonic() < deadline:
        os.sched_yield()
    assert len(ends) == 1


# pid file


def test_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    assert file.check() is None
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()
    file.remove()


def test_p40_a_pid_file_that_exists_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "pid").symlink_to(tmp_path / "victim")
    with pytest.raises(StartError, match=r'^Failed to open ".*/pid": File exists$'):
        PidFile(str(tmp_path / "pid")).write()
    assert (tmp_path / "victim").read_text() == "precious"


def test_p40_a_live_daemons_pid_file_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(StartError) as refusal:
        PidFile(str(path)).check()
    assert str(refusal.value) == (
        f'The pid file "{path}" exists, if the message bus is not running, remove this file'
    )
    assert path.exists()


@pytest.mark.parametrize("content", ["", "garbage\n"])
def test_p40_when_in_doubt_it_is_respected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pid"
    path.write_text(content)
    with pytest.raises(StartError, match="exists, if the message bus is not running"):
        PidFile(str(path)).check()


def test_p40_what_is_no_file_is_respected_and_holds_nobody_up(tmp_path: Path) -> None:
    """The directory may belong to the user of the bus, and it is root who starts."""
    path = tmp_path / "pid"
    stale = f"{gone_pid()}\n".ljust(64).encode()
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    os.write(pipe, stale)
    with pytest.raises(StartError, match="exists, if the message bus is not running"):
        PidFile(str(path)).check()
    os.close(pipe)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(stale)
    path.symlink_to("elsewhere")
    with pytest.raises(StartError, match="exists, if the message bus is not running"):
        PidFile(str(path)).check()


def test_p40_a_stale_pid_file_is_replaced_with_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{gone_pid()}\n")
    notice = PidFile(str(path)).check()
    assert notice is not None
    assert str(path) in notice
    assert not path.exists()


def test_p40_a_number_that_was_given_again_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    # written long before our parent was started
    path.write_text(f"{os.getppid()}\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert PidFile(str(path)).check() is not None
    path.write_text(f"{os.getpid()}\n")
    assert PidFile(str(path)).check() is not None


def test_the_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    os.rename(path, tmp_path / "old")
    path.write_text("1\n")
    file.remove()
    assert path.read_text() == "1\n"


def test_no_place_for_a_pid_file(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r'^Failed to open ".*": No such file or directory$'):
        PidFile(str(tmp_path / "no" / "pid")).write()


# users


def test_users_by_name_and_number() -> None:
    assert find_user("root") == (0, 0)
    assert find_user("0") == (0, 0)
    for unknown in "no such user", "4294967290", "99999999999999999999":
        with pytest.raises(
            StartError, match=f'^Could not get UID and GID for username "{unknown}"$'
        ):
            find_user(unknown)


BECOME = """
import os
from afdbus.host.process import become
become(65534, 65533)
print(os.getresuid(), os.getresgid(), os.getgroups())
"""


@only_root
def test_privileges_are_dropped_for_good() -> None:
    done = python("import os; os.setgroups([1, 2])\n" + BECOME)
    assert done.stdout == f"{(65534,) * 3} {(65533,) * 3} []\n"


@only_root
def test_without_privileges_nothing_is_dropped() -> None:
    done = python("import os; os.setgroups([]); os.setgid(1); os.setuid(1)\n" + BECOME)
    assert done.stdout == "(1, 1, 1) (1, 1, 1) []\n"
