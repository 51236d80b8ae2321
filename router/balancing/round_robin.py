"""The strategy `round-robin`: each in its turn, by weight."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router.balancing.choice import Choice, Weighed
from router.operations import Demand

__all__ = ["round_robin"]


def round_robin(
    candidates: Sequence[Weighed],
    weights: Sequence[float],
    demand: Demand,
    now: float,
    rng: random.Random,
) -> Choice:
    """Who has waited longest for its turn, by picks of this worker and counted by weight.

    The wait begins anew with each turn, so that whoever was away for long, or is new, gets one turn
    and not all that it missed. Scores are the places in that order.
    """
    turns = [candidate.load.picked.get(demand.operation, 0) for candidate in candidates]
    last = max(turns)
    waited = [
        (last + 1 - turn) * (weight or 1.0) for turn, weight in zip(turns, weights, strict=True)
    ]
    # The heavier comes first, which makes its share whole; among equals chance decides, or else
    # every worker would begin with the same one.
    tied = [rng.random() for _ in candidates]
    order = sorted(
        range(len(candidates)),
        key=lambda index: (-waited[index], -weights[index], tied[index]),
    )
    places = [0.0] * len(candidates)
    for place, index in enumerate(order):
        places[index] = float(place)
    return Choice(order[0], places)
