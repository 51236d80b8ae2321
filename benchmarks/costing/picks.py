"""A pick: `Choosing.choose` on a described call, by how many there are to choose from.

A last line adds what precedes it: the public method's arguments checked, owners and route found.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks.costing.fleet import GROUP, PROMPT, SEED, fleet, learned
from benchmarks.measure import Figure, Report, rounds, table
from router import Router, operations
from router._doors import step

__all__ = ["in_turns", "microseconds", "pick_of", "picks", "whole_pick_of"]

SIZES = (4, 32, 100, 1_000)
# Microseconds; from 32 on a pick is to be flat, so that a thousand take what 32 take.
GOALS = {4: 5.0, 32: 20.0, 100: 20.0, 1_000: 20.0}
FLAT = 1.2

# What is known before the picks: the share of deployments with latencies, and of those ejected.
SCENARIOS = {
    "latencies known of all": (1.0, 0.0),
    "of half": (0.5, 0.0),
    "of none": (0.0, 0.0),
    "of all, a tenth ejected": (1.0, 0.1),
}
WHOLE = "with arguments, owners, route"

Contenders = Mapping[tuple[str, int], Callable[[], object]]


def pick_of(router: Router) -> Callable[[], object]:
    engine = router._engine
    trip = engine.trip(operations.generation(prompt=PROMPT, model=GROUP), router._async)

    def pick() -> object:
        engine.fleet.tiers(trip.route)  # the candidates are looked up once in each call
        return engine.choosing.choose(trip)

    return pick


def whole_pick_of(router: Router) -> Callable[[], object]:
    engine, side = router._engine, router._async

    def pick() -> object:
        call = operations.generation(prompt=PROMPT, model=GROUP)
        return step(engine.choosing.pick(engine.trip(call, side)))

    return pick


def picks(report: Report, *, most: int, seconds: float, each: int) -> None:
    """At most so many rounds of `each` picks, for about so many seconds."""
    contenders: dict[tuple[str, int], Callable[[], object]] = {}
    for size in SIZES:
        for name, past in SCENARIOS.items():
            router = fleet("http://127.0.0.1:9/v1", size)
            learned(router, *past)
            contenders[name, size] = pick_of(router)
            if name == next(iter(SCENARIOS)):
                contenders[WHOLE, size] = whole_pick_of(router)
    seen = in_turns(contenders, most=most, seconds=seconds, each=each)
    rows = [_row(report, name, seen) for name in SCENARIOS]
    rows.append(_row(report, WHOLE, seen, judged=False))
    columns = ["pick, µs", *(f"{size:,}" for size in SIZES), "1,000 over 32"]
    done = len(next(iter(seen.values())))
    note = f"median of {done} rounds of {each} picks, in turns; seed {SEED}"
    print(table("A pick, by deployments in the group", columns, rows, note), flush=True)


def in_turns(
    contenders: Contenders, *, most: int, seconds: float, each: int
) -> dict[tuple[str, int], list[float]]:
    """Microseconds of each, by round."""
    seen: dict[tuple[str, int], list[float]] = {key: [] for key in contenders}
    for _ in rounds(most, seconds):
        for key, pick in contenders.items():
            seen[key].append(microseconds(pick, each))
    return seen


def microseconds(action: Callable[[], object], times: int) -> float:
    """The median of some short stretches, so that a neighbour who takes the processor shows not."""
    stretch = max(times // 10, 1)
    for _ in range(stretch):
        action()
    found = []
    for _ in range(max(times // stretch, 1)):
        started = time.perf_counter()
        for _ in range(stretch):
            action()
        found.append((time.perf_counter() - started) / stretch * 1e6)
    return statistics.median(found)


def _row(
    report: Report, name: str, seen: Mapping[tuple[str, int], list[float]], *, judged: bool = True
) -> list[str]:
    figures = {
        size: Figure.median(
            f"pick, {name}, {size:,}", seen[name, size], "µs", GOALS[size] if judged else None
        )
        for size in SIZES
    }
    growth = [a / b for a, b in zip(seen[name, 1_000], seen[name, 32], strict=True)]
    flat = Figure(
        f"pick, {name}, 1,000 over 32",
        figures[1_000].value / figures[32].value,
        "×",
        FLAT if judged else None,
        growth,
    )
    report.add(*figures.values(), flat)
    return [name, *(f.told() for f in figures.values()), flat.told()]
