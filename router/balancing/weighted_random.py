"""The strategy `weighted-random`: shares by weight, whatever the load."""

from __future__ import annotations

from collections.abc import Sequence

from router.balancing.load import Load
from router.types import Operation

__all__ = ["weighted_random"]


def weighted_random(loads: Sequence[Load], operation: Operation, now: float) -> list[float]:
    """All alike, so that the draw by weight decides."""
    return [1.0] * len(loads)
