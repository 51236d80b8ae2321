"""What workers learn, as values that merge.

Two kinds of thing are learned from an exchange: how long it took, and that somebody is out of
rotation for a while. Both are written so that merging needs no order and no lock: latencies are
sums, which add; ejections are deadlines, which only ever extend.

Latency is forward-decayed (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay", ICDE 2009): a
sample that arrives at t weighs e^((t−L)/τ) for ever, where L is the start of its epoch. Old samples
fade because later ones weigh more, so sums from many workers add up without being rescaled.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TypeAlias

from router.types import Operation

__all__ = [
    "BOTH",
    "READS",
    "SUBMITS",
    "Batch",
    "Cause",
    "Ejection",
    "Latency",
    "Scope",
    "Sums",
    "epoch_of",
    "sample",
]

TAU = 60.0
EPOCH = 3600.0
SPENT = 5.0

# What an ejection covers: a side of the traffic, all of it, or one operation.
SUBMITS = "submits"
READS = "reads"
BOTH = "both"
Scope: TypeAlias = str


class Cause(enum.Enum):
    """Why somebody is out. Only failures are a judgement of ours; the others are their own word."""

    FAILURES = "failures"
    THROTTLED = "throttled"
    DENIED = "denied"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Ejection:
    """Out of rotation until a deadline (shared time, in seconds). `step` counts the back-off.

    `credential` is a digest of the key that was refused: who holds another key was not meant.
    """

    scope: Scope
    until: float
    cause: Cause
    reason: str
    step: int = 0
    credential: str = ""

    def covers(self, operation: Operation) -> bool:
        return self.scope in (BOTH, SUBMITS if operation.is_submit else READS, operation)


@dataclass(frozen=True, slots=True)
class Sums:
    """Decayed sums of one epoch: Σw, Σw·x, Σw·x², and how many samples."""

    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    count: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.weight + other.weight,
            self.total + other.total,
            self.squares + other.squares,
            self.count + other.count,
        )


def epoch_of(now: float) -> int:
    return int(now // EPOCH)


def sample(seconds: float, now: float) -> Sums:
    """One latency, weighed by its arrival."""
    weight = math.exp((now - epoch_of(now) * EPOCH) / TAU)
    return Sums(weight, weight * seconds, weight * seconds * seconds, 1)


class Latency:
    """Decayed mean and deviation, in seconds, of one operation at one deployment.

    Both stay as they are between samples, since a mean's numerator and denominator fade alike; so
    a pick reads `cost` and computes nothing.
    """

    __slots__ = ("_sums", "cost", "count", "deviation", "known_until", "mean")

    def __init__(self) -> None:
        self._sums: dict[int, Sums] = {}
        self.mean = self.deviation = self.cost = self.known_until = 0.0
        self.count = 0

    def add(self, epoch: int, sums: Sums) -> None:
        """Merge sums of an epoch; only the two newest epochs are kept."""
        self._sums[epoch] = self._sums.get(epoch, Sums()) + sums
        newest = max(self._sums)
        for old in [e for e in self._sums if e < newest - 1]:
            del self._sums[old]
        last = self._sums[newest]
        before = self._sums.get(newest - 1)
        if before is not None:
            # The epoch before began one EPOCH earlier, so the same instant weighs e^(EPOCH/τ) more.
            fade = math.exp(-EPOCH / TAU)
            last = last + Sums(before.weight * fade, before.total * fade, before.squares * fade)
        self.count += sums.count
        self.mean = last.total / last.weight
        variance = last.squares / last.weight - self.mean * self.mean
        self.deviation = math.sqrt(max(variance, 0.0))
        self.cost = self.mean + self.deviation
        # The weight that is left at t is W·e^(−(t−L)/τ); below e^−5 of a sample nothing is known.
        self.known_until = newest * EPOCH + TAU * (math.log(last.weight) + SPENT)


@dataclass(slots=True)
class Batch:
    """What a worker learned since its last turn; bounded by what there is to know, not by calls."""

    latency: dict[tuple[str, Operation, int], Sums] = field(default_factory=dict)
    ejections: dict[tuple[str, Scope, Cause], Ejection] = field(default_factory=dict)

    def add_latency(self, deployment: str, operation: Operation, epoch: int, sums: Sums) -> None:
        key = (deployment, operation, epoch)
        self.latency[key] = self.latency.get(key, Sums()) + sums

    def add_ejection(self, deployment: str, ejection: Ejection) -> None:
        key = (deployment, ejection.scope, ejection.cause)
        known = self.ejections.get(key)
        if known is None or known.until < ejection.until:
            self.ejections[key] = ejection

    def merge(self, other: Batch) -> None:
        for (deployment, operation, epoch), sums in other.latency.items():
            self.add_latency(deployment, operation, epoch, sums)
        for (deployment, *_), ejection in other.ejections.items():
            self.add_ejection(deployment, ejection)

    def __bool__(self) -> bool:
        return bool(self.latency or self.ejections)
