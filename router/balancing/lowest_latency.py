"""The strategy `lowest-latency`: the one that answers soonest, counting those who wait there."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router.balancing.choice import Choice, Weighed, drawn, explored, median
from router.operations import Demand
from router.types import Operation

__all__ = ["latencies", "lowest_latency"]


def lowest_latency(
    candidates: Sequence[Weighed],
    weights: Sequence[float],
    demand: Demand,
    now: float,
    rng: random.Random,
) -> Choice:
    scores = latencies(candidates, demand.operation, now)
    found = explored(scores, candidates, demand.operation, now, rng)
    return Choice(drawn(scores, weights, candidates, rng) if found is None else found, scores)


def latencies(candidates: Sequence[Weighed], operation: Operation, now: float) -> list[float]:
    """(decayed mean + deviation) × (in flight + 1), in seconds.

    Adding the deviation lets the steadier of two equals win. A deployment without a sample, or
    whose samples have faded, takes the median of the others as its prior, and while it has none
    counts what is in flight there double: it is tried, and not flooded on a guess. So one bad
    answer, once, keeps nobody away for ever.
    """
    scores: list[float] = []
    known: list[float] = []
    unknown: list[int] = []
    for candidate in candidates:
        load = candidate.load
        latency = load.latency.get(operation)
        if latency is None or latency.known_until < now:
            unknown.append(len(scores))
            scores.append(0.0)
        else:
            known.append(latency.cost)
            scores.append(latency.cost * (load.in_flight + 1))
    if unknown:
        prior = median(known) if known else 1.0
        for index in unknown:
            scores[index] = prior * (2 * candidates[index].load.in_flight + 1)
    return scores
