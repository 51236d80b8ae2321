"""Virtual time: what happens, in order, and the clock that the routers are given."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

__all__ = ["BEGINS", "Timeline"]

BEGINS = 1_790_000_000.0
"""Unix time at which every run begins; nothing depends on the machine's clock."""


class Timeline:
    """Runs what is due, in the order of time; what is due at the same time, as it was planned.

    It is the `Clock` of the routers too. None of them may sleep: time passes here by events alone,
    and a call that has to wait is planned anew.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = itertools.count()

    def at(self, when: float, action: Callable[..., object], *arguments: Any) -> None:
        heapq.heappush(self._due, (max(when, self.now), next(self._number), action, arguments))

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Let time pass as long as something is planned and `goes_on`."""
        while self._due and goes_on():
            self.now, _, action, arguments = heapq.heappop(self._due)
            action(*arguments)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return BEGINS + self.now

    def sleep(self, seconds: float) -> None:
        raise RuntimeError("a pick wants to sleep; with max_wait 0 it has nothing to wait for")

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
