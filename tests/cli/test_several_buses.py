"""One daemon, several buses: `afdbus:` in a configuration, and `--bus`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit import RawClient, busconfig
from kit.client import TIMEOUT
from kit.daemon import DAEMONS
from kit.hosted import fresh_name
from kit.process import Run, run

__all__ = ["run"]


def refused(arguments: list[str]) -> str:
    """What a daemon says that does not start."""
    run = subprocess.run(
        [*DAEMONS["afdbus"], "--nofork", "--print-address", *arguments],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stdout == ""
    return run.stderr.partition("Failed to start message bus: ")[2].rstrip("\n")


def config(folder: Path, *listens: str) -> str:
    """A configuration file with these addresses."""
    elements = "".join(f"<listen>{address}</listen>" for address in listens[1:])
    file = folder / f"{len(os.listdir(folder))}.conf"
    file.write_text(busconfig(elements, listen=listens[0]))
    return str(file)


def ids(addresses: list[str]) -> list[str]:
    found = []
    for address in addresses:
        with RawClient(address) as client:
            assert client.join() == ":1.0"
            found.append(client.bus("GetId").args[0])
    return found


def test_each_afdbus_address_is_a_bus_of_its_own(
    run: Run, tmp_path: Path
) -> None:
    one, two = fresh_name("one"), fresh_name("two")
    daemon = run(
        [
            "--config-file",
            config(
                tmp_path, f"afdbus:name={one}", f"unix:path={tmp_path}/a", f"afdbus:abstract={two}",
                f"unix:path={tmp_path}/b",
            ),
        ],
        3,
    )  # fmt: skip
    shared, first, second = daemon.lines
    assert daemon.rest == ""
    assert [entry.partition(",")[0] for entry in shared.split(";")] == [
        f"unix:path={tmp_path}/b", f"unix:path={tmp_path}/a",
    ]  # fmt: skip
    assert first.startswith(f"unix:abstract={one},guid=")
    assert second.startswith(f"unix:abstract={two},guid=")
    with RawClient(shared.split(";")[0]) as a, RawClient(shared.split(";")[1]) as b:
        assert (a.join(), b.join()) == (":1.0", ":1.1")
        with RawClient(first) as c:
            assert c.join() == ":1.0"
            assert c.bus("ListNames").args == (["org.freedesktop.DBus", ":1.0"],)
    assert len(set(ids([second]))) == 1
    daemon.stop()


def test_without_a_name_it_is_random(run: Run, tmp_path: Path) -> None:
    daemon = run(["--config-file", config(tmp_path, "afdbus:", "afdbus:")], 2)
    assert len({line.partition(",")[0] for line in daemon.lines}) == 2
    assert len(set(ids(daemon.lines))) == 2


def test_bus_options(run: Run, tmp_path: Path) -> None:
    """Each with its own configuration, or with that of the process."""
    file = config(tmp_path, f"unix:path={tmp_path}/never")
    other = tmp_path / "other.conf"
    # needs no <listen>
    other.write_text(
        "<busconfig><type>session</type><policy context='default'>"
        "<allow send_destination='*'/><allow receive_sender='*'/><deny own='*'/>"
        "</policy></busconfig>"
    )
    one, two = fresh_name("a/b"), fresh_name("é")
    escaped = two.replace("é", "%c3%a9")
    daemon = run(["--config-file", file, f"--bus={one}", "--bus", f"{escaped}={other}"], 2)
    assert [line.partition(",")[0] for line in daemon.lines] == [
        f"unix:abstract={one}", f"unix:abstract={escaped}",
    ]  # fmt: skip
    assert not (tmp_path / "never").exists()
    with RawClient(daemon.lines[0]) as first, RawClient(daemon.lines[1]) as second:
        first.join()
        second.join()
        assert first.own("com.example.A") == 1
        answer = second.bus("RequestName", "su", "com.example.A", 0)
        assert answer.error_name == "org.freedesktop.DBus.Error.AccessDenied"
    errors = daemon.stop()
    assert "Failed to start" not in errors


def test_the_id_of_a_bus_of_its_own_is_in_its_address(
    run: Run, tmp_path: Path
) -> None:
    file = config(tmp_path, f"unix:path={tmp_path}/never")
    daemon = run([f"--bus={fresh_name('a')}={file}", f"--bus=={file}"], 2)
    assert [line.partition("guid=")[2] for line in daemon.lines] == ids(daemon.lines)


def test_an_address_comes_first(run: Run, tmp_path: Path) -> None:
    file = config(tmp_path, f"unix:path={tmp_path}/never")
    name = fresh_name("a")
    address = f"unix:path={tmp_path}/bus"
    daemon = run(["--config-file", file, f"--bus={name}", "--address", address], 2)
    assert daemon.lines[0].startswith(address)
    assert daemon.lines[1].startswith(f"unix:abstract={name},")


def test_reloading_all_buses(run: Run, tmp_path: Path) -> None:
    file = Path(config(tmp_path, "unix:tmpdir=/tmp"))
    daemon = run([f"--bus={fresh_name('a')}={file}", f"--bus={fresh_name('b')}={file}"], 2)
    with RawClient(daemon.lines[0]) as a, RawClient(daemon.lines[1]) as b:
        for client in (a, b):
            client.join()
            client.match("member='ActivatableServicesChanged'")
        file.write_text(busconfig("<policy context='mandatory'><deny own='*'/></policy>"))
        daemon.process.send_signal(signal.SIGHUP)
        for client in (a, b):
            assert client.read().member == "ActivatableServicesChanged"
            answer = client.bus("RequestName", "su", "com.example.A", 0)
            assert answer.error_name == "org.freedesktop.DBus.Error.AccessDenied"


def test_the_log_says_which_bus(run: Run, tmp_path: Path) -> None:
    name = fresh_name("a")
    file = config(tmp_path, "unix:tmpdir=/tmp")
    daemon = run([f"--bus={name}={file}", f"--bus=={file}"], 2)
    with RawClient(daemon.lines[0]) as client:
        client.join()
        client.bus("ReloadConfig")
    assert f"[{name}] Reloaded configuration" in daemon.stop()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("afdbus:name=a,abstract=b",
         'Could not parse server address: cannot specify both "name" and "abstract"'),
        ("afdbus:name=" + "x" * 108, "Failed to bind: not a name of 1 to 107 bytes without NUL: "),
        ("afdbus:name=a%00b", "Failed to bind: not a name of 1 to 107 bytes without NUL: "),
        ("afdbus:name=%00", "Failed to bind: not a name of 1 to 107 bytes without NUL: "),
        ("afdbus:name=a b", "In D-Bus address, character ' ' should have been escaped"),
    ],
)  # fmt: skip
def test_addresses_that_are_refused(tmp_path: Path, address: str, complaint: str) -> None:
    assert refused(["--config-file", config(tmp_path, address)]).startswith(complaint)


@pytest.mark.parametrize("name", ["a,b", "a;unix:tmpdir=/tmp", "a b", "%0"])
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    assert "In D-Bus address" in refused([f"--bus={name}={config(tmp_path, 'unix:tmpdir=/tmp')}"])


def test_a_name_of_107_bytes(run: Run, tmp_path: Path) -> None:
    name = fresh_name("x" * 90)
    assert len(name) == 107
    daemon = run(["--config-file", config(tmp_path, f"afdbus:name={name}")], 1)
    assert len(ids(daemon.lines)) == 1


def test_a_bus_without_any_configuration() -> None:
    run = subprocess.run(
        [*DAEMONS["afdbus"], "--bus=a"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("No configuration file specified.")


def test_a_start_that_fails_leaves_nothing_bound(
    run: Run, tmp_path: Path
) -> None:
    first, second = fresh_name("a"), fresh_name("b")
    file = config(tmp_path, "unix:tmpdir=/tmp")
    living = run([f"--bus={second}={file}"], 1)
    told = refused([f"--bus={first}={file}", f"--bus={second}={file}"])
    assert told == f'Failed to bind socket "{second}": Address already in use'
    with pytest.raises(ConnectionRefusedError):
        RawClient(f"unix:abstract={first}")
    with RawClient(living.lines[0]) as client:
        client.join()


LISTENING = """
import os, socket, sys
names = sys.argv[1].split(":")
sockets = []
for name in names:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\\0" + name + "-passed")
    sock.listen()
    sockets.append(sock)
for number, sock in enumerate(sockets):
    # high first, since descriptor 3 may be taken
    sockets[number] = os.dup2(sock.fileno(), 100 + number, inheritable=False)
for number, fd in enumerate(sockets):
    os.dup2(fd, 3 + number)
os.environ |= {
    "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": sys.argv[1]
}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_names_of_passed_sockets_pick_the_bus(tmp_path: Path) -> None:
    """Socket activation: a bus whose name a socket bears is served there, the rest is `systemd:`'s.
    """
    one, two, rest = fresh_name("one"), fresh_name("two"), fresh_name("rest")
    file = config(tmp_path, "systemd:", f"afdbus:name={two}", f"afdbus:name={one}")
    # `systemd:` takes all that are left, so it has to come last.
    text = Path(file).read_text()
    first = "<listen>systemd:</listen>"
    Path(file).write_text(text.replace(first, "").replace("</busconfig>", first + "</busconfig>"))
    process = subprocess.Popen(
        [
            sys.executable, "-c", LISTENING, f"{rest}:{one}", sys.executable,
            "-m", "afdbus.daemon_cli", "--nofork", "--print-address=1", f"--config-file={file}",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert [line.partition(",")[0] for line in lines] == [
            f"unix:abstract={rest}-passed", f"unix:abstract={two}", f"unix:abstract={one}-passed",
        ]  # fmt: skip
        assert len(set(ids(lines))) == 3
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0
