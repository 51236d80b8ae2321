"""The strategy `least-busy`: the one with the fewest running jobs and requests for its weight."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router.balancing.choice import Choice, Weighed, drawn
from router.operations import Demand

__all__ = ["least_busy"]


def least_busy(
    candidates: Sequence[Weighed],
    weights: Sequence[float],
    demand: Demand,
    now: float,
    rng: random.Random,
) -> Choice:
    """What would be under way there with this call, over the weight."""
    scores = [
        (candidate.load.busy + candidate.load.in_flight + 1) / (weight or 1.0)
        for candidate, weight in zip(candidates, weights, strict=True)
    ]
    return Choice(drawn(scores, weights, candidates, rng), scores)
