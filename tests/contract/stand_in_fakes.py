"""A clock that stands still, and the accounts every test of the stand-in knows."""

from __future__ import annotations

ACCOUNTS = {"sk-east": "east", "sk-east-2": "east", "sk-west": "west"}


class FakeClock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return 1_000.0 + self.seconds

    def time(self) -> float:
        return 1_700_000_000.0 + self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)
