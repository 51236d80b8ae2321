"""What is known of a deployment's load: the exchanges in flight, and how long they take."""

from __future__ import annotations

from router.observations import Latency, Sums
from router.types import Operation

__all__ = ["Load"]


class Load:
    """One deployment's load, as this worker knows it. Written under the engine's lock."""

    __slots__ = ("in_flight", "latency")

    def __init__(self) -> None:
        self.in_flight = 0
        self.latency: dict[Operation, Latency] = {}

    def add(self, operation: Operation, epoch: int, sums: Sums) -> None:
        latency = self.latency.get(operation)
        if latency is None:
            latency = self.latency[operation] = Latency()
        latency.add(epoch, sums)
