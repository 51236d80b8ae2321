"""Many timelines: played in several processes, checked, and counted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from sim_invariants import violations
from sim_keys import Askers
from sim_plan import USED
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
    keyed: int = 0
    """Calls under idempotency keys."""
    most_per_key: int = 0
    """Submits accepted under one key in one account, where the store forgot nothing."""
    hours: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each operation, and each door, met with each fault."""
    endings: Counter[str] = field(default_factory=Counter)
    keys_met: Counter[str] = field(default_factory=Counter)
    """What befell calls under keys, and what they came to."""
    wrong: dict[int, list[str]] = field(default_factory=dict)
    story: str = ""
    """Of the one timeline that was asked for, or of the first that failed."""

    def add(self, other: Tally) -> None:
        self.timelines += other.timelines
        self.calls += other.calls
        self.requests += other.requests
        self.accepted += other.accepted
        self.keyed += other.keyed
        self.most_per_key = max(self.most_per_key, other.most_per_key)
        self.hours += other.hours
        self.struck += other.struck
        self.met += other.met
        self.endings += other.endings
        self.keys_met += other.keys_met
        self.wrong |= other.wrong

    def __str__(self) -> str:
        struck = ", ".join(f"{kind} {count:,}" for kind, count in self.struck.most_common())
        keys = ", ".join(f"{what} {count:,}" for what, count in self.keys_met.most_common())
        endings = ", ".join(f"{how} {count:,}" for how, count in self.endings.most_common())
        return (
            f"{self.timelines:,} timelines of {self.hours:,.0f} hours: {self.calls:,} calls, "
            f"{self.keyed:,} of them under keys, {self.requests:,} requests, {self.accepted:,} "
            f"submits accepted, {self.most_per_key} at most under a key, "
            f"{sum(map(len, self.wrong.values())):,} violations\n"
            f"what struck: {struck}\nhow calls ended: {endings}\n"
            f"what calls under keys met, and came to: {keys}"
        )


def tallied(timeline: Timeline) -> Tally:
    """What one timeline came to."""
    wrong = violations(timeline)
    ended = list(timeline.history.of("ended"))
    endings = Counter(
        type(entry["error"]).__name__ if entry["how"] == "error" else entry["how"]
        for entry in ended
    )
    askers = Askers(timeline)
    return Tally(
        timelines=1,
        calls=sum(1 for _ in timeline.history.of("begins")),
        requests=len(timeline.world.exchanges),
        accepted=len(timeline.world.provider.accepted),
        keyed=sum(map(len, askers.by_key.values())),
        most_per_key=_most_per_key(timeline, askers),
        keys_met=_keys_met(timeline, askers),
        hours=timeline.history.clock() / 3600,
        struck=timeline.world.struck,
        met=_met(timeline),
        endings=endings,
        wrong={timeline.plan.seed: wrong} if wrong else {},
    )


def _most_per_key(timeline: Timeline, askers: Askers) -> int:
    accepted: Counter[tuple[str, str]] = Counter()
    for taken in timeline.world.taken:
        asker = askers.asker(taken.exchange.call)
        if asker is not None and not timeline.store.emptied:
            accepted[asker.key, taken.submit.account] += 1
    return max(accepted.values(), default=0)


def _keys_met(timeline: Timeline, askers: Askers) -> Counter[str]:
    met: Counter[str] = Counter()
    cut = {entry.call: entry["kind"] for entry in timeline.history.of("cut")}
    for calls in askers.by_key.values():
        for asker in calls:
            met.update(e.fault for e in asker.exchanges if e.fault is not None and e.struck)
            if asker.call in cut:
                met[{"cancel": "cancelled", "kill": "killed"}[cut[asker.call]]] += 1
            elif asker.ended is None:
                met["worker died"] += 1
            met["in doubt"] += asker.in_doubt and not asker.made
            flushed = any(asker.begun < flush < asker.end for flush in timeline.store.flushes)
            met["store emptied"] += flushed
            if not asker.sent:
                how = type(asker.error).__name__ if asker.error is not None else asker.how
                met[f"without sending: {how}"] += 1
    return met


def _met(timeline: Timeline) -> Counter[tuple[str, str]]:
    met: Counter[tuple[str, str]] = Counter()
    for exchange in timeline.world.exchanges:
        if exchange.struck and exchange.fault is not None:
            met[exchange.operation, exchange.fault] += 1
            if exchange.call is not None:
                met[timeline.plan.errands[exchange.call].door, exchange.fault] += 1
    return met


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
    told = timeline.history.told
    named = sorted({int(n) for one in wrong for n in re.findall(r"\bcall (\d+)\b", one)})
    parts = [
        f"seed {seed} breaks {len(wrong)} times what must hold",
        *(f"  {one}" for one in wrong),
        f"replay it: pytest tests/simulation/test_timelines.py --seed {seed}",
        _header(timeline),
    ]
    if named:
        parts += [f"-- of {', '.join(f'call {n}' for n in named)}:", told(named), "-- of all:"]
    return wrong, "\n".join([*parts, told()])


def _header(timeline: Timeline) -> str:
    """The fleet as a table, the settings, the provider's limits, and what was to go wrong."""
    plan = timeline.plan
    columns = ("id", "account", "model_name", "order", "weight", "timeout", "operations")
    rows = [columns, *([_cell(d.get(c)) for c in columns] for d in plan.data["deployments"])]
    widths = [max(len(row[n]) for row in rows) for n in range(len(columns))]
    table = [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    skews = ", ".join(f"w{place} {skew:+.1f} s" for place, skew in enumerate(plan.skews))
    storms = [f"  {storm}" for storm in plan.storms]
    blows = [
        f"  {blow.at:.3f} s: {blow.kind} of place {blow.worker}"
        + "".join(f", {name} {getattr(blow, name):g}" for name in USED.get(blow.kind, ()))
        for blow in sorted(plan.blows, key=lambda blow: blow.at)
    ]
    settings = ", ".join(f"{name} {value}" for name, value in plan.data["settings"].items())
    limits = ", ".join(f"{name} {value}" for name, value in plan.limits.items())
    return "\n".join(
        [
            f"{plan.workers} workers for {plan.lasts:g} s from {plan.starts:.3f} on; {skews}",
            f"settings: {settings}",
            f"of each account: {limits}; of the jobs, {plan.fates:.0%} do not end well"
            + (f": {plan.fate}" if plan.fate else ""),
            *table,
            "storms:",
            *storms,
            "blows:",
            *blows,
        ]
    )


def _cell(value: object) -> str:
    listed = isinstance(value, list)
    return "" if value is None else " ".join(map(str, value)) if listed else str(value)
