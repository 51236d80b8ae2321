"""The draw among the best.

Workers that share a view of the fleet would all choose the same best deployment at once. So those
within a tenth of the best are equals, and chance, by weight, decides among them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["draw"]

NEAR = 1.1


def draw(scores: Sequence[float], weights: Sequence[float], rng: random.Random) -> int:
    """The index drawn. Weights count among the near-best only; all zero counts as all equal."""
    limit = min(scores) * NEAR
    near = [index for index, score in enumerate(scores) if score <= limit]
    if len(near) == 1:
        return near[0]
    drawn = rng.random() * sum([weights[index] for index in near])
    for index in near:
        drawn -= weights[index]
        if drawn < 0:
            return index
    return near[int(rng.random() * len(near))]
