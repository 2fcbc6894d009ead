"""Rules as they are written back."""

from __future__ import annotations

from pathlib import Path

import pytest
from policies import Scratch, default

from afdbus.policy.written import written


@pytest.mark.parametrize(
    "rule",
    [
        '<allow own="a.b"/>',
        '<deny own="*"/>',
        '<deny own_prefix="a"/>',
        '<allow user="*"/>',
        '<deny group="0"/>',
        '<allow send_destination="*"/>',
        '<allow send_destination="*" eavesdrop="true"/>',
        '<allow receive_sender="*" eavesdrop="true"/>',
        '<deny send_destination="a.b" send_path="/" send_interface="i.f" send_member="M"/>',
        '<deny send_destination_prefix="a" send_error="e.E"/>',
        '<allow send_type="signal" send_broadcast="false" min_fds="1" max_fds="2" log="true"/>',
        '<allow send_destination="a.b" send_path="*" send_member="M"/>',
        '<allow receive_path="*" receive_member="M"/>',
        '<allow send_type="error" send_requested_reply="false"/>',
        '<deny receive_type="method_call" receive_requested_reply="true"/>',
        '<deny send_path="&lt;&amp;&quot;"/>',
    ],
)
def test_written_is_what_was_read(tmp_path: Path, rule: str) -> None:
    (read,) = Scratch(tmp_path).config(default(rule)).ruleset.buckets.default
    assert written(read) == rule
