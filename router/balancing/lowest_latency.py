"""The strategy `lowest-latency`: the one that answers soonest, counting those who wait there."""

from __future__ import annotations

from collections.abc import Sequence

from router.balancing.load import Load
from router.types import Operation

__all__ = ["lowest_latency"]


def lowest_latency(loads: Sequence[Load], operation: Operation, now: float) -> list[float]:
    """(decayed mean + deviation) × (in flight + 1).

    Adding the deviation lets the steadier of two equals win. A deployment without a sample, or
    whose samples have faded, takes the median of the others as its prior, and while it has none
    counts what is in flight there double: it is tried, and not flooded on a guess. So one bad
    answer, once, keeps nobody away for ever.
    """
    costs: list[float] = []
    unknown: list[int] = []
    for load in loads:
        latency = load.latency.get(operation)
        if latency is None or latency.known_until < now:
            unknown.append(len(costs))
            costs.append(0.0)
        else:
            costs.append(latency.cost * (load.in_flight + 1))
    if unknown:
        known = [load.latency[operation].cost for load in loads if _is_known(load, operation, now)]
        prior = _median(known) if known else 1.0
        for index in unknown:
            costs[index] = prior * (2 * loads[index].in_flight + 1)
    return costs


def _is_known(load: Load, operation: Operation, now: float) -> bool:
    latency = load.latency.get(operation)
    return latency is not None and latency.known_until >= now


def _median(values: list[float]) -> float:
    # The statistics module would be imported for this alone, and takes long to be.
    ordered, middle = sorted(values), len(values) // 2
    return (ordered[middle] + ordered[~middle]) / 2
