"""What a strategy is given, what it answers, and the draws that strategies share.

Workers that share a view of the fleet would all choose the same best deployment at once. So those
within a tenth of the best, or of whom too little is known to tell them apart, are equals, and
chance decides among them: some are drawn by weight, and
the least busy of those is taken (Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing", 2001), which evens out a burst without a herd.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeAlias

from router.balancing.load import Load
from router.config import Deployment
from router.operations import Demand
from router.types import Operation

__all__ = ["LAST", "Choice", "Strategy", "Weighed", "by_weight", "drawn", "explored", "median"]

NEAR = 1.1
DRAWN = 4
EXPLORED = 1 / 32
"""How many picks go to who has been asked for nothing for longest, to see how it is now."""
WARY_SECONDS = 300.0
LAST = 1e9
"""On top of a score: after all others, and among those in their order."""


class Weighed(Protocol):
    """A candidate, as far as strategies look at it. `job_cap`: so many jobs may run there."""

    @property
    def deployment(self) -> Deployment: ...
    @property
    def load(self) -> Load: ...
    @property
    def job_cap(self) -> int | None: ...


class Choice(NamedTuple):
    """The candidate that was chosen, by its index, and the score of each; lower is better."""

    chosen: int
    scores: Sequence[float]


Strategy: TypeAlias = Callable[
    [Sequence[Weighed], Sequence[float], Demand, float, random.Random], Choice
]
"""Of candidates and their weights, for a demand, at a moment of the shared time."""


def drawn(
    scores: Sequence[float],
    weights: Sequence[float],
    candidates: Sequence[Weighed],
    rng: random.Random,
    errors: Sequence[float] | None = None,
) -> int:
    """One of those within a tenth of the best: the least busy of some that are drawn by weight.

    `errors` are by how much each score may be off by chance; who is worse by no more than that of
    both is as good as the best.
    """
    best = min(scores)
    # What was put on top of a score says who comes later, and makes nobody more alike.
    top = best // LAST * LAST
    limit = top + (best - top) * NEAR
    if errors is None:
        near = [index for index, score in enumerate(scores) if score <= limit]
    else:
        limit += errors[scores.index(best)]
        near = [i for i, score in enumerate(scores) if score - errors[i] <= limit]
    if len(near) == 1:
        return near[0]
    some = _drawn_by_weight(near, weights, rng, DRAWN)
    return min(some, key=lambda index: _crowd(candidates[index], weights[index]))


def explored(
    scores: Sequence[float],
    candidates: Sequence[Weighed],
    operation: Operation,
    now: float,
    rng: random.Random,
) -> int | None:
    """At times, who has been asked for nothing for longest, of those where nothing is under way.

    What is known of a deployment comes from what it was given, so one slow answer would keep it
    away for ever. This is how it is heard of again, by one job at a time; not soon after a
    failure, which somebody would pay for.
    """
    if rng.random() >= EXPLORED:
        return None
    idle = [
        index
        for index, candidate in enumerate(candidates)
        if not candidate.load.busy
        and scores[index] < LAST
        and now - candidate.load.failed_at > WARY_SECONDS
    ]
    # Chance decides among those who never were, or else every new worker would explore the same.
    rng.shuffle(idle)
    return min(
        idle, key=lambda index: candidates[index].load.picked.get(operation, 0), default=None
    )


def by_weight(weights: Sequence[float], rng: random.Random) -> int:
    return _drawn_by_weight(range(len(weights)), weights, rng, 1)[0]


def _drawn_by_weight(
    indices: Sequence[int], weights: Sequence[float], rng: random.Random, count: int
) -> list[int]:
    """So many indices, maybe the same again; all of weight zero count as equal."""
    cumulative = list(accumulate([weights[index] for index in indices]))
    return rng.choices(indices, cum_weights=cumulative if cumulative[-1] > 0 else None, k=count)


def _crowd(candidate: Weighed, weight: float) -> float:
    return (candidate.load.busy + candidate.load.in_flight) / (weight or 1.0)


def median(values: Sequence[float]) -> float:
    # The statistics module would be imported for this alone, and takes long to be.
    ordered, middle = sorted(values), len(values) // 2
    return (ordered[middle] + ordered[~middle]) / 2
