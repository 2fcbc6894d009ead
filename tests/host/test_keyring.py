"""The cookie file: its ages, its lock, and what it is not fooled by (P40)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from afdbus.host.keyring import CookieKeyring
from afdbus.host.users import Users

CONTEXT = "org_freedesktop_general"
NOW = 1_700_000_000


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyring(tmp_path: Path, clock: Clock) -> CookieKeyring:
    return CookieKeyring(Users(), str(tmp_path), clock)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".dbus-keyrings"


def write(directory: Path, *lines: str) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / CONTEXT
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)


def ids(directory: Path) -> list[int]:
    return [int(line.split()[0]) for line in (directory / CONTEXT).read_text().splitlines()]


def test_the_first_cookie(keyring: CookieKeyring, directory: Path) -> None:
    cookie = keyring.best_cookie(CONTEXT)
    line = re.fullmatch(r"(\d+) (\d+) ([0-9a-f]{48})\n", (directory / CONTEXT).read_text())
    assert line is not None
    assert int(line[1]) == cookie
    assert int(line[2]) == NOW
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / CONTEXT).stat().st_mode) == 0o600
    assert os.listdir(directory) == [CONTEXT]  # neither lock nor temporary file
    want = hashlib.sha1(b"theirs:ours:" + line[3].encode()).hexdigest().encode()
    assert cookie is not None
    assert keyring.proof(CONTEXT, cookie, b"theirs", b"ours") == want


def test_ages(keyring: CookieKeyring, directory: Path, clock: Clock) -> None:
    first = keyring.best_cookie(CONTEXT)
    assert first is not None
    clock.now = NOW + 299
    assert keyring.best_cookie(CONTEXT) == first
    clock.now = NOW + 300
    second = keyring.best_cookie(CONTEXT)
    assert second is not None
    assert second != first
    assert ids(directory) == [first, second]
    assert keyring.proof(CONTEXT, first, b"", b"") is not None  # a challenge may be under way
    clock.now = NOW + 420
    assert keyring.best_cookie(CONTEXT) == second
    assert keyring.proof(CONTEXT, first, b"", b"") is not None
    clock.now = NOW + 421
    assert keyring.best_cookie(CONTEXT) == second
    assert keyring.proof(CONTEXT, first, b"", b"") is None


def test_expired_cookies_leave_with_the_next_new_one(
    keyring: CookieKeyring, directory: Path
) -> None:
    write(directory, f"1 {NOW - 421} aa", f"2 {NOW - 420} bb", f"3 {NOW + 301} cc")
    cookie = keyring.best_cookie(CONTEXT)
    assert ids(directory) == [2, cookie]


def test_a_cookie_from_a_fast_clock(keyring: CookieKeyring, directory: Path) -> None:
    write(directory, f"1 {NOW + 300} aa")
    assert keyring.best_cookie(CONTEXT) == 1


@pytest.mark.parametrize(
    "line",
    ["", "x", "1", f"1 {NOW}", f"1 {NOW} ", f"1 {NOW} a", f"1 {NOW} xx", f"-1 {NOW} aa", "1 2 aa",
     f"2147483648 {NOW} aa", f"1 -{NOW} aa", f"1 {NOW} aa bb", f"{'9' * 5000} {NOW} aa", "ä\0"],
)  # fmt: skip
def test_lines_that_are_no_cookies(line: str, keyring: CookieKeyring, directory: Path) -> None:
    write(directory, line)
    cookie = keyring.best_cookie(CONTEXT)
    assert ids(directory) == [cookie]


def test_at_most_256_cookies(keyring: CookieKeyring, directory: Path) -> None:
    write(directory, *(f"{number} {NOW - 350} aa" for number in range(1000)))
    cookie = keyring.best_cookie(CONTEXT)
    assert ids(directory) == [*range(255), cookie]


def test_two_keyrings_share(keyring: CookieKeyring, tmp_path: Path, clock: Clock) -> None:
    other = CookieKeyring(Users(), str(tmp_path), clock)
    cookie = keyring.best_cookie(CONTEXT)
    assert cookie is not None
    assert other.proof(CONTEXT, cookie, b"a", b"b") == keyring.proof(CONTEXT, cookie, b"a", b"b")
    assert other.proof(CONTEXT, cookie + 1, b"a", b"b") is None
    assert other.best_cookie(CONTEXT) == cookie


# -- the lock


def test_a_lock_that_is_held(keyring: CookieKeyring, directory: Path, clock: Clock) -> None:
    directory.mkdir(mode=0o700)
    lock = directory / f"{CONTEXT}.lock"
    lock.touch()
    os.utime(lock, (NOW, NOW))
    clock.now = NOW + 7
    assert keyring.best_cookie(CONTEXT) is None
    assert lock.exists()
    assert not (directory / CONTEXT).exists()
    clock.now = NOW + 8  # whoever made it is dead
    assert keyring.best_cookie(CONTEXT) is not None
    assert not lock.exists()


def test_a_fresh_cookie_needs_no_lock(keyring: CookieKeyring, directory: Path) -> None:
    write(directory, f"5 {NOW} aa")
    lock = directory / f"{CONTEXT}.lock"
    lock.touch()
    os.utime(lock, (NOW, NOW))
    assert keyring.best_cookie(CONTEXT) == 5


# -- what it is not fooled by


@pytest.mark.parametrize(
    "context",
    ["", ".", "..", "a.lock", "a/b", "/etc/passwd", "a\\b", "a b", "a\tb", "a\n", "a\0", "ä"],
)
def test_p40_contexts(context: str, keyring: CookieKeyring, directory: Path) -> None:
    write(directory, f"5 {NOW} aa")
    assert keyring.best_cookie(context) is None
    assert keyring.proof(context, 5, b"", b"") is None
    assert os.listdir(directory) == [CONTEXT]


def refuses(keyring: CookieKeyring) -> bool:
    return keyring.best_cookie(CONTEXT) is None and keyring.proof(CONTEXT, 5, b"", b"") is None


def test_p40_a_linked_directory(keyring: CookieKeyring, directory: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, f"5 {NOW} aa")
    directory.symlink_to(elsewhere)
    assert refuses(keyring)


def test_p40_a_linked_file(keyring: CookieKeyring, directory: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", f"5 {NOW} aa")
    directory.mkdir(mode=0o700)
    (directory / CONTEXT).symlink_to(tmp_path / "elsewhere" / CONTEXT)
    assert refuses(keyring)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755, 0o711, 0o750])
def test_p40_a_directory_for_others(mode: int, keyring: CookieKeyring, directory: Path) -> None:
    write(directory, f"5 {NOW} aa")
    directory.chmod(mode)
    assert refuses(keyring)


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o644, 0o622])
def test_p40_a_file_for_others(mode: int, keyring: CookieKeyring, directory: Path) -> None:
    write(directory, f"5 {NOW} aa")
    (directory / CONTEXT).chmod(mode)
    assert refuses(keyring)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", [".", CONTEXT])
def test_p40_what_is_not_ours(what: str, keyring: CookieKeyring, directory: Path) -> None:
    write(directory, f"5 {NOW} aa")
    os.chown(directory / what, 4321, -1)
    assert refuses(keyring)


def test_p40_a_fifo_does_not_stop_us(keyring: CookieKeyring, directory: Path) -> None:
    directory.mkdir(mode=0o700)
    os.mkfifo(directory / CONTEXT, 0o600)
    assert refuses(keyring)


def test_p40_no_home(tmp_path: Path) -> None:
    assert refuses(CookieKeyring(Users(), str(tmp_path / "gone")))


def test_no_descriptor_is_left_open(keyring: CookieKeyring, directory: Path) -> None:
    before = os.listdir("/proc/self/fd")
    assert keyring.best_cookie(CONTEXT) is not None
    (directory / CONTEXT).chmod(0o644)
    assert keyring.best_cookie(CONTEXT) is None
    directory.chmod(0o755)
    assert keyring.best_cookie(CONTEXT) is None
    assert os.listdir("/proc/self/fd") == before


def test_home_is_found_as_dbus_daemon_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CookieKeyring(Users()).best_cookie(CONTEXT) is not None
    assert (directory / CONTEXT).exists()
