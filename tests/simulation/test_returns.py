"""Who is refused for want of room, and comes back when told to, is served then.

In eight of ten cases over all, under bursts of traffic that ask for 60 to 80 % of the slots there
are, and for up to 95 % of the submits a minute. Nothing is kept free for who was refused: a slot
that others take in between is taken. So where nearly all slots are taken nearly always, coming back
cannot succeed more often than anybody finds room; a window, which opens at a known moment, is lost
to nobody.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from sim_returns import Scenario, Tally, played

REFUSALS = 60
SEED = 4


def capped(*caps: int, **how: Any) -> Scenario:
    """Deployments of an account each, with so many jobs at a time."""
    seconds = how.setdefault("job_seconds", 120.0)
    deployments = tuple(
        {"id": f"{n}-1", "account": str(n), "max_parallel_jobs": cap} for n, cap in enumerate(caps)
    )
    return Scenario(deployments, room=sum(caps) / seconds, **how)


def limited(job_seconds: float, room: float, **limits: int) -> Scenario:
    """Two deployments with these limits, whose jobs last so long."""
    deployments = tuple({"id": f"{a}-1", "account": a, **limits} for a in "ab")
    return Scenario(deployments, room=room, job_seconds=job_seconds)


FOUR, EIGHT, SIXTEEN = (1, 2, 3, 4), (1, 2, 3, 4) * 2, (1, 2, 3, 4) * 4
ACCOUNTS = Scenario(
    tuple({"id": f"{a}-{n}", "account": a} for a in "abcd" for n in (1, 2)),
    accounts={a: {"max_parallel_jobs": 4} for a in "abcd"},
    room=16 / 120,
)
SCENARIOS: dict[str, tuple[Scenario, tuple[float, ...]]] = {
    "jobs of four deployments": (capped(*FOUR), (0.6, 0.7)),
    "jobs of eight": (capped(*EIGHT), (0.6, 0.8)),
    "long jobs, far apart, of eight": (
        capped(*EIGHT, job_seconds=200.0, spread=0.5),
        (0.6, 0.7),
    ),
    "jobs of sixteen": (capped(*SIXTEEN, job_seconds=80.0), (0.8,)),
    "jobs of four accounts, of two deployments each": (ACCOUNTS, (0.6, 0.7)),
    "jobs of four, whose callers wait": (capped(*FOUR, max_wait=10.0), (0.6,)),
    "submits a minute": (limited(30.0, 16 / 60, rpm=8), (0.6, 0.8, 0.95)),
    "jobs and submits a minute": (
        limited(60.0, 12 / 60, rpm=8, max_parallel_jobs=6),
        (0.6, 0.7),
    ),
    "requests in flight": (limited(3.0, 7.0, max_parallel_requests=4), (0.6, 0.7)),
}


def play(scenario_and_load: tuple[str, float]) -> Tally:
    logging.getLogger("router").disabled = True
    name, load = scenario_and_load
    return played(SCENARIOS[name][0], load, REFUSALS, SEED)


def test_who_comes_back_when_told_to_is_served() -> None:
    whole, lines = Tally(), []
    plays = [(name, load) for name, (_, loads) in SCENARIOS.items() for load in loads]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for (name, load), tally in zip(plays, pool.map(play, plays), strict=True):
            lines.append(f"{name}, {load:.0%}: {tally}")
            # About as often as anybody finds room, who comes by at any time.
            assert tally.success > tally.room - 0.25, lines[-1]
            whole += tally
    sys.stdout.write("\n".join([*lines, f"over all: {whole}\n"]))
    assert whole.returned >= 1000
    assert whole.success >= 0.8, "\n".join(lines)
