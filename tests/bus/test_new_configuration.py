"""Who is judged by a new configuration."""

from __future__ import annotations

from pathlib import Path

from busworld import World, configuration
from kit import call
from kit.daemon import OPEN_POLICY

CLOSED = OPEN_POLICY.replace("""<allow own="*"/>""", "")


def test_who_says_hello_after_a_reload_is_judged_by_the_new_rules(tmp_path: Path) -> None:
    world = World(configuration(tmp_path))
    newcomer = world.join()
    config = configuration(tmp_path, policy=CLOSED)
    world.bus.configure(config.limits, config.ruleset)
    world.say(newcomer, call("Hello").pack(1))
    world.say(newcomer, call("RequestName", "su", "com.example.A", 0).pack(2))
    world.flush()
    assert b"not allowed to own" in newcomer.written
