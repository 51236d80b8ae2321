"""Who carries out what the plan has in store for a fleet."""

from __future__ import annotations

import functools
import heapq
import itertools
import time
from collections.abc import Callable

from chaos_fleet import Fleet
from chaos_plan import Blow

__all__ = ["rage"]

REPLACED_SECONDS = 0.5
"""After so long another worker takes the place of one that was killed."""


def rage(fleet: Fleet) -> None:
    """All blows of the plan, in their time; returns when the run's seconds have passed.

    A blow that lasts puts its own end on the list, so several may last at once.
    """
    began, order = time.monotonic(), itertools.count()
    due: list[tuple[float, int, Callable[[], None]]] = []

    def at(seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(due, (seconds, next(order), act))

    def strike(blow: Blow) -> None:
        end = _strike(fleet, blow)
        if end is not None:
            after = REPLACED_SECONDS if blow.kind == "kill" else blow.seconds
            at(time.monotonic() - began + after, end)

    for blow in fleet.plan.blows:
        at(blow.at, functools.partial(strike, blow))
    while due:
        seconds, _, act = heapq.heappop(due)
        time.sleep(max(began + seconds - time.monotonic(), 0.0))
        act()
    time.sleep(max(began + fleet.plan.seconds - time.monotonic(), 0.0))


def _strike(fleet: Fleet, blow: Blow) -> Callable[[], None] | None:
    """One blow; what ends it, if it lasts."""
    match blow.kind:
        case "freeze":
            fleet.freeze_redis()
            return fleet.thaw_redis
        case "flush":
            fleet.flush_redis()
        case "restart":
            fleet.kill_redis()
            return fleet.start_redis
        case "cut":
            fleet.cut(blow.target)
        case "kill":
            return fleet.kill_worker(int(blow.target))
        case "stop":
            return fleet.stop_worker(int(blow.target))
    return None
