"""The strategy `lowest-cost`: the cheapest, and among the cheapest the soonest."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router.balancing.choice import LAST, Choice, Weighed, drawn
from router.balancing.lowest_completion import completions
from router.operations import Demand

__all__ = ["in_words", "lowest_cost"]


def lowest_cost(
    candidates: Sequence[Weighed],
    weights: Sequence[float],
    demand: Demand,
    now: float,
    rng: random.Random,
) -> Choice:
    """Whoever's price nobody knows comes after all whose price is known.

    Money comes first: where the cheapest are hot, they are still asked first, and who has no room
    is passed over by the limits.
    """
    scores, errors = completions(candidates, demand, now)
    if not demand.operation.is_submit:
        return Choice(drawn(scores, weights, candidates, rng, errors), scores)
    costs = [c.deployment.cost(demand.size, demand.seconds) for c in candidates]
    dearer = {cost: rank for rank, cost in enumerate(sorted({c for c in costs if c is not None}))}
    for index, cost in enumerate(costs):
        rank = len(dearer) if cost is None else dearer[cost]
        scores[index] += 2 * LAST * rank
    return Choice(drawn(scores, weights, candidates, rng, errors), scores)


def in_words(candidate: Weighed, demand: Demand, score: float) -> str:
    """What is compared, in its order: the price of a submit, and then the predicted seconds."""
    soon = f"{score % LAST:.4g} s"
    if not demand.operation.is_submit:
        return soon
    cost = candidate.deployment.cost(demand.size, demand.seconds)
    price = "no price" if cost is None else f"${cost:.6g}"
    hot = " (with hardly any room)" if score // LAST % 2 else ""
    return f"{price} then {soon}{hot}"
