"""What a reload does not change."""

from __future__ import annotations

from collections.abc import Callable

from kit import Daemon, busconfig


def test_who_may_come_in_anonymously_is_settled_at_the_start(start: Callable[..., Daemon]) -> None:
    daemon = start(auth=None)
    client = daemon.connect()
    text = busconfig("<allow_anonymous/>", auth=None)
    daemon.config_file.write_text(text.replace("{directory}", str(daemon.directory)))
    assert client.bus("ReloadConfig").brief == ("return",)
    stranger = daemon.dial()
    stranger.send_bytes(b"\0")
    stranger.send_line("AUTH ANONYMOUS")
    assert stranger.read_line().startswith("OK ")
    stranger.send_line("BEGIN")
    assert stranger.closed() == []
