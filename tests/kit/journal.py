"""A log that keeps its lines."""

from __future__ import annotations


class FakeJournal:
    """Keeps every line, with what kind it is."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(f"info: {text}")

    def warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def security(self, text: str) -> None:
        self.lines.append(f"security: {text}")
