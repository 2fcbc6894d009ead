"""The configuration of a system bus with the policies of many services, as a desktop has."""

from __future__ import annotations

import re
from pathlib import Path

import load

FRAGMENTS = 30
RULES = 500


def system_configuration(folder: Path) -> tuple[Path, Path]:
    """Write it to `folder`; the file, and one that it includes."""
    text = (Path(__file__).parent.parent / "config" / "system.conf").read_text()
    ours = (
        "user|fork|pidfile|syslog|servicehelper|standard_system_servicedirs|listen|include|"
        "includedir"
    )
    text = re.sub(rf"<({ours})\b([^>]*/>|.*?</\1>)", "", text, flags=re.DOTALL)
    services = folder / "system.d"
    services.mkdir()
    text = text.replace(
        "</busconfig>",
        f"<listen>unix:dir={folder}</listen>\n<includedir>{services}</includedir>\n</busconfig>",
    )
    head, _, _ = text.partition("<busconfig>")
    for number in range(FRAGMENTS):
        name = f"org.example.Service{number}"
        rules = [f'<allow send_destination="{name}" send_interface="{name}"/>']
        for other in range(RULES // FRAGMENTS - 3):
            deed = ("allow", "deny")[other % 2]
            member = f' send_member="Method{other}"' if other % 3 else ""
            interface = f'send_interface="{name}.Interface{other}"'
            rules.append(f'<{deed} send_destination="{name}" {interface}{member}/>')
        (services / f"{name}.conf").write_text(
            f'{head}<busconfig>\n  <policy user="root">\n    <allow own="{name}"/>\n'
            f'    <allow send_destination="{name}"/>\n  </policy>\n  <policy context="default">\n'
            + "".join(f"    {rule}\n" for rule in rules)
            + "  </policy>\n</busconfig>\n"
        )
    (services / "pinged.conf").write_text(
        f'{head}<busconfig>\n  <policy context="default">\n    <allow own="{load.SERVICE}"/>\n'
        f'    <allow send_destination="{load.SERVICE}"/>\n  </policy>\n</busconfig>\n'
    )
    config = folder / "system.conf"
    config.write_text(text)
    return config, services / "org.example.Service7.conf"
