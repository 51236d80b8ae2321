"""The strategy `lowest-latency`: the one that answers soonest, counting those who wait there."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from router.balancing.load import Load
from router.types import Operation

__all__ = ["lowest_latency"]


def lowest_latency(loads: Sequence[Load], operation: Operation) -> list[float]:
    """(decayed mean + deviation) × (in flight + 1).

    Adding the deviation lets the steadier of two equals win. A deployment without a sample takes
    the median of the others as its prior, and while it has none counts what is in flight there
    double: it is tried, and not flooded on a guess.
    """
    costs = []
    unknown = []
    for index, load in enumerate(loads):
        latency = load.latency.get(operation)
        if latency is None:
            unknown.append(index)
            costs.append(0.0)
        else:
            costs.append(latency.cost * (load.in_flight + 1))
    if unknown:
        known = [load.latency[operation].cost for load in loads if operation in load.latency]
        prior = statistics.median(known) if known else 1.0
        for index in unknown:
            costs[index] = prior * (2 * loads[index].in_flight + 1)
    return costs
