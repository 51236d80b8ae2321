"""Many timelines: played in several processes, checked, and counted."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from sim_invariants import violations
from simulation import Timeline, run

__all__ = ["Tally", "played", "retold"]

AT_A_TIME = 25


@dataclass
class Tally:
    """What some timelines came to."""

    timelines: int = 0
    calls: int = 0
    requests: int = 0
    accepted: int = 0
    hours: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, list[str]] = field(default_factory=dict)
    story: str = ""
    """Of the one timeline that was asked for, or of the first that failed."""

    def add(self, other: Tally) -> None:
        self.timelines += other.timelines
        self.calls += other.calls
        self.requests += other.requests
        self.accepted += other.accepted
        self.hours += other.hours
        self.struck += other.struck
        self.endings += other.endings
        self.wrong |= other.wrong

    def __str__(self) -> str:
        struck = ", ".join(f"{kind} {count:,}" for kind, count in self.struck.most_common())
        endings = ", ".join(f"{how} {count:,}" for how, count in self.endings.most_common())
        return (
            f"{self.timelines:,} timelines of {self.hours:,.0f} hours: {self.calls:,} calls, "
            f"{self.requests:,} requests, {self.accepted:,} submits accepted, "
            f"{sum(map(len, self.wrong.values())):,} violations\n"
            f"what struck: {struck}\nhow calls ended: {endings}"
        )


def tallied(timeline: Timeline) -> Tally:
    """What one timeline came to."""
    wrong = violations(timeline)
    ended = list(timeline.history.of("ended"))
    endings = Counter(
        type(entry["error"]).__name__ if entry["how"] == "error" else entry["how"]
        for entry in ended
    )
    return Tally(
        timelines=1,
        calls=sum(1 for _ in timeline.history.of("begins")),
        requests=len(timeline.world.exchanges),
        accepted=len(timeline.world.provider.accepted),
        hours=timeline.history.clock() / 3600,
        struck=timeline.world.struck,
        endings=endings,
        wrong={timeline.plan.seed: wrong} if wrong else {},
    )


def some(seeds: Iterable[int]) -> Tally:
    """The timelines of these seeds, one after another."""
    logging.getLogger("router").disabled = True
    tally = Tally()
    for seed in seeds:
        tally.add(tallied(run(seed)))
    return tally


def played(seeds: Sequence[int]) -> Iterator[Tally]:
    """The timelines of these seeds, by as many processes as there are cores."""
    batches = [seeds[start : start + AT_A_TIME] for start in range(0, len(seeds), AT_A_TIME)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield from pool.map(some, batches)


def retold(seed: int) -> tuple[list[str], str]:
    """What is wrong with the timeline of a seed, and its story: plan, history, how to see it."""
    timeline = run(seed)
    wrong = violations(timeline)
    storms = "\n".join(f"  {storm}" for storm in timeline.plan.storms)
    blows = "\n".join(f"  {blow}" for blow in timeline.plan.blows)
    story = (
        f"seed {seed} breaks {len(wrong)} times what must hold\n"
        + "".join(f"  {one}\n" for one in wrong)
        + f"replay it: pytest tests/simulation/test_timelines.py --seed {seed}\n"
        + f"settings: {timeline.plan.data['settings']}\nstorms:\n{storms}\nblows:\n{blows}\n"
        + timeline.history.told()
    )
    return wrong, story
