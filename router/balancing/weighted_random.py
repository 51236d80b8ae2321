"""The strategy `weighted-random`: shares by weight, whatever the load."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router.balancing.choice import Choice, Weighed, by_weight
from router.operations import Demand

__all__ = ["weighted_random"]


def weighted_random(
    candidates: Sequence[Weighed],
    weights: Sequence[float],
    demand: Demand,
    now: float,
    rng: random.Random,
) -> Choice:
    """All alike but for who was drawn."""
    return Choice(by_weight(weights, rng), [1.0] * len(candidates))
