"""The strategy `lowest-completion`: the one from which the caller has the video soonest."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router.balancing.choice import LAST, Choice, Weighed, drawn, explored, median
from router.balancing.lowest_latency import latencies
from router.operations import Demand

__all__ = ["completions", "lowest_completion"]

HOT = 0.9
"""A deployment with more of its job cap than this taken is hot."""
UNPROVEN = 1.25
"""What is counted on top for a deployment that has work and has not shown how long it takes."""
SURE = 1.5
"""Standard errors that each of two scores may be off, for them to be as good as the same."""
USUAL_PACE = 20.0
"""Seconds of a job per second of video, before anybody has seen one end."""


def lowest_completion(
    candidates: Sequence[Weighed],
    weights: Sequence[float],
    demand: Demand,
    now: float,
    rng: random.Random,
) -> Choice:
    scores, errors = completions(candidates, demand, now)
    found = explored(scores, candidates, demand.operation, now, rng)
    if found is None:
        found = drawn(scores, weights, candidates, rng, errors)
    return Choice(found, scores)


def completions(
    candidates: Sequence[Weighed], demand: Demand, now: float
) -> tuple[list[float], list[float] | None]:
    """Predicted seconds until the caller has the video: the exchange, and then the job.

    With them, by how many seconds each may be off, where that is known.

    Whoever is close to its job cap comes after all who are not, whatever its times: it is there
    that a stale view does harm (Prequal's rule of hot and cold: Wydrowski et al., "Load is not what
    you should balance", NSDI 2024). A deployment whose jobs nobody has seen takes the median of the
    others as its prior, and is not preferred beyond one running job until it has shown itself.
    """
    operation, length = demand.operation, demand.seconds
    scores = latencies(candidates, operation, now)
    if not operation.starts_job:
        return scores, None
    known: list[float] = []
    errors = [0.0] * len(scores)
    unknown: list[int] = []
    for index, candidate in enumerate(candidates):
        load = candidate.load
        forecast = load.forecasts.get(operation)
        if forecast is None or forecast.until <= now:
            forecast = load.forecast(operation, now)
        pace = forecast.pace
        if pace is None:
            unknown.append(index)
        else:
            known.append(pace)
            scores[index] += pace * length + forecast.wait
            errors[index] = SURE * forecast.error * length
        cap = candidate.job_cap
        if cap is not None and load.busy + 1 > HOT * cap and load.busy:
            scores[index] += LAST
    prior = median(known) if unknown and known else USUAL_PACE
    for index in unknown:
        load = candidates[index].load
        # Where nobody is known, nobody is less known than the others.
        less = UNPROVEN if known and load.busy else 1.0
        scores[index] += prior * less * (length + load.ahead)
    return scores, errors
