"""What workers learn, as values that merge.

How long exchanges and jobs take, how many went well, and who is out of rotation for a while. All
of it is written so that merging needs no order and no lock: times are sums and counts, which add;
ejections are deadlines, which only ever extend.

Latency is forward-decayed (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay", ICDE 2009): a
sample that arrives at t weighs e^((t−L)/τ) for ever, where L is the start of its epoch. Old samples
fade because later ones weigh more, so sums from many workers add up without being rescaled.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from router.characters import MOST_CHARACTERS, CharacterFacts
from router.ids import Copy
from router.types import Operation

__all__ = [
    "BOTH",
    "DAY_SECONDS",
    "ENDLESS_SECONDS",
    "HEALTH_BUCKET",
    "HEALTH_BUCKETS",
    "HTTP",
    "JOB",
    "JOBS",
    "MICROS",
    "READS",
    "RUN",
    "SERIES",
    "SPEND",
    "SPEND_DAYS",
    "SUBMITS",
    "Batch",
    "Cause",
    "Change",
    "CountKey",
    "Ejection",
    "EjectionKey",
    "Latency",
    "Scope",
    "Series",
    "Sums",
    "SumsKey",
    "bucket_of",
    "day_of",
    "epoch_of",
    "kept_for",
    "micros_of",
    "percentile",
    "sample",
    "side_of",
]

SPENT = 5.0
RECENT = 0.25
"""What the newest sample counts for in the recent mean."""
KEEP_ARRIVALS = 16


@dataclass(frozen=True, slots=True)
class Series:
    """What is measured, and how fast it fades: `tau` and the length of an epoch, in seconds."""

    name: str
    tau: float
    epoch: float


HTTP = Series("http", tau=60.0, epoch=3600.0)
"""Seconds of an exchange, by operation."""
JOB = Series("job", tau=1800.0, epoch=36_000.0)
"""Seconds of a job per second of video, by the operation that started it."""
RUN = Series("run", tau=1800.0, epoch=36_000.0)
"""The same without the time that it was seen to wait in the provider's queue."""
SERIES = {series.name: series for series in (HTTP, JOB, RUN)}

# What an ejection covers: a side of the traffic, all of it, or one operation.
SUBMITS = "submits"
READS = "reads"
BOTH = "both"
Scope: TypeAlias = str
# What goes well or badly besides them, and keeps submits away where it goes badly.
JOBS = "jobs"


def side_of(operation: Operation) -> Scope:
    return SUBMITS if operation.is_submit else READS


class Cause(enum.Enum):
    """Why somebody is out.

    Failures are a judgement of ours, draining is an operator's, retirement the calendar's; the
    others are the provider's word.
    """

    FAILURES = "failures"
    THROTTLED = "throttled"
    DENIED = "denied"
    MISSING = "missing"
    DRAINED = "drained"
    RETIRED = "retired"


ENDLESS_SECONDS = 365 * 86_400.0
"""What is to last for longer was given no end."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """Out of rotation until a deadline; `at` is when that was decided (shared time, in seconds).

    `step` counts the back-off. `credential` is a digest of the key that was refused: who holds
    another key was not meant.
    """

    scope: Scope
    until: float
    cause: Cause
    reason: str
    step: int = 0
    credential: str = ""
    at: float = 0.0

    def covers(self, operation: Operation) -> bool:
        return self.scope in (BOTH, SUBMITS if operation.is_submit else READS, operation)

    def void_before(self, restored_at: float, returned: Mapping[Scope, float]) -> float:
        """When it has to have been decided to count: after an operator restored the deployment.

        What failures decided is void too once what it covers has `returned`, side by side; what
        the calendar says no operator's word makes void.
        """
        if self.cause is Cause.RETIRED:
            return 0.0
        if self.cause is not Cause.FAILURES:
            return restored_at
        return max(restored_at, min((returned.get(side, 0.0) for side in self.sides), default=0.0))

    def lasts(self, now: float, more: str = "") -> str:
        """For how long, to people: `for 4.2 s`, with `more` behind it, or what would end it."""
        seconds = self.until - now
        if seconds < ENDLESS_SECONDS:
            return f"for {seconds:.1f} s{more}"
        return "for good" if self.cause is Cause.RETIRED else "until it is restored"

    @property
    def sides(self) -> tuple[Scope, ...]:
        """The sides of the traffic that are covered whole."""
        return tuple(side for side in (SUBMITS, READS) if self.scope in (side, BOTH))

    def outlasts(self, known: Ejection, restored_at: float) -> bool:
        """Whether this one takes the place of a known one, as those do that last longer.

        What was decided before an operator restored the deployment stands in nobody's way, nor
        does what is about another key.
        """
        if self.at < restored_at <= known.at:
            return False
        if known.at < restored_at <= self.at or known.credential != self.credential:
            return True
        return self.until > known.until


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


def epoch_of(now: float, series: Series = HTTP) -> int:
    return int(now // series.epoch)


def sample(seconds: float, now: float, series: Series = HTTP) -> Sums:
    """One measurement, weighed by its arrival."""
    weight = math.exp((now - epoch_of(now, series) * series.epoch) / series.tau)
    return Sums(weight, weight * seconds, weight * seconds * seconds, 1)


class Latency:
    """Decayed mean and deviation, in seconds, of one operation at one deployment.

    Both stay as they are between samples, since a mean's numerator and denominator fade alike; so
    a pick reads `cost` and computes nothing.
    """

    __slots__ = (
        "_arrivals",
        "_series",
        "_sums",
        "cost",
        "count",
        "deviation",
        "known_until",
        "mean",
        "recent",
    )

    def __init__(self, series: Series = HTTP) -> None:
        self._series = series
        self._sums: dict[int, Sums] = {}
        self.mean = self.deviation = self.cost = self.known_until = 0.0
        self.count = 0
        # The mean of about the last four samples: it follows a change long before `mean` does.
        self.recent = 0.0
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=KEEP_ARRIVALS)

    def add(self, epoch: int, sums: Sums) -> None:
        """Merge sums into an epoch."""
        self.put(epoch, self._sums.get(epoch, Sums()) + sums)

    def put(self, epoch: int, sums: Sums) -> None:
        """Take these for all that is known of an epoch; only the two newest are kept."""
        self._arrived(epoch, self._sums.get(epoch, Sums()), sums)
        self._sums[epoch] = sums
        newest = max(self._sums)
        for old in [e for e in self._sums if e < newest - 1]:
            del self._sums[old]
        last = self._sums[newest]
        before = self._sums.get(newest - 1)
        if before is not None:
            # The epoch before began earlier, so the same instant weighs e^(epoch/τ) more in it.
            fade = math.exp(-self._series.epoch / self._series.tau)
            last = last + Sums(before.weight * fade, before.total * fade, before.squares * fade)
        self.count = sum(kept.count for kept in self._sums.values())
        if last.weight <= 0.0:
            return
        self.mean = last.total / last.weight
        variance = last.squares / last.weight - self.mean * self.mean
        self.deviation = math.sqrt(max(variance, 0.0))
        self.cost = self.mean + self.deviation
        # The weight that is left at t is W·e^(−(t−L)/τ); below e^−5 of a sample nothing is known.
        tau = self._series.tau
        self.known_until = newest * self._series.epoch + tau * (math.log(last.weight) + SPENT)

    def _arrived(self, epoch: int, known: Sums, sums: Sums) -> None:
        """What came on top of what was known: how long it took and, by its weight, when."""
        count, weight = sums.count - known.count, sums.weight - known.weight
        if count <= 0 or weight <= 0.0:
            return
        batch = (sums.total - known.total) / weight
        share = 1.0 - (1.0 - RECENT) ** count if self._arrivals else 1.0
        self.recent += share * (batch - self.recent)
        at = epoch * self._series.epoch + self._series.tau * math.log(weight / count)
        self._arrivals.append((at, count))

    def arrived_since(self, at: float) -> int:
        """How many samples came after a moment, as far back as is remembered."""
        return sum(count for when, count in self._arrivals if when >= at)


# Histograms: the buckets of a logarithmic scale, each a quarter of an octave wide, so that a
# percentile is right within a tenth.
_PER_OCTAVE = 4


def bucket_of(seconds: float) -> int:
    return math.floor(math.log2(max(seconds, 1e-6)) * _PER_OCTAVE)


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """The value in seconds below which this share of the samples lies; `None` without samples."""
    left = share * sum(buckets.values())
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return math.exp2((bucket + 0.5) / _PER_OCTAVE)
    return None


SumsKey: TypeAlias = tuple[str, str, str, int]
"""Series, deployment, operation, epoch."""
CountKey: TypeAlias = tuple[str, str, str, int, str]
"""Kind (`histogram` of a series, or `health`), deployment, operation or side, epoch, field.

Of money: `SPEND`, deployment, account, day, `MICROS`.
"""
EjectionKey: TypeAlias = tuple[str, Scope, Cause]
"""Deployment, scope, cause."""

HEALTH_BUCKET = 10.0
"""Seconds over which successes and failures are counted together."""
HEALTH_BUCKETS = 60
"""How many of those are kept: where calls are few, three in a row may take minutes."""

SPEND = "spend"
"""Counts of money, for people to look at, in `MICROS`."""
MICROS = "micros"
"""Millionths of a dollar: whole numbers, whose sums are exact in any order."""
DAY_SECONDS = 86_400.0
SPEND_DAYS = 35
"""Days of which it is known what was spent: any month, and some more."""


def day_of(now: float) -> int:
    """The UTC day of a moment, counted from 1970."""
    return int(now // DAY_SECONDS)


def micros_of(dollars: float) -> int:
    return round(dollars * 1_000_000)


def kept_for(kind: str) -> float:
    """Seconds that sums and counts of a kind are kept; of a series readers add the two newest
    epochs."""
    if kind in SERIES:
        return 2 * SERIES[kind].epoch
    return SPEND_DAYS * DAY_SECONDS if kind == SPEND else HEALTH_BUCKETS * HEALTH_BUCKET


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state, for people: who went out of rotation or came back, when and why."""

    at: float
    worker: str
    deployment: str
    what: str
    reason: str


@dataclass(slots=True)
class Batch:
    """What a worker learned since its last turn; bounded by what there is to know, not by calls.

    All of it commutes: sums and counts add, ejections and restorations extend.
    """

    sums: dict[SumsKey, Sums] = field(default_factory=dict)
    counts: dict[CountKey, int] = field(default_factory=dict)
    ejections: dict[EjectionKey, Ejection] = field(default_factory=dict)
    restored: dict[str, float] = field(default_factory=dict)
    returned: dict[tuple[str, Scope], float] = field(default_factory=dict)
    characters: dict[Copy, CharacterFacts] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def add_sums(self, key: SumsKey, sums: Sums) -> None:
        self.sums[key] = self.sums.get(key, Sums()) + sums

    def add_count(self, key: CountKey, count: int = 1) -> None:
        self.counts[key] = self.counts.get(key, 0) + count

    def add_spend(self, deployment: str, account: str, day: int, micros: int) -> None:
        self.add_count((SPEND, deployment, account, day, MICROS), micros)

    def add_ejection(self, deployment: str, ejection: Ejection) -> None:
        key = (deployment, ejection.scope, ejection.cause)
        known = self.ejections.get(key)
        if known is None or ejection.outlasts(known, self.restored.get(deployment, 0.0)):
            self.ejections[key] = ejection

    def add_restored(self, deployment: str, at: float) -> None:
        self.restored[deployment] = max(self.restored.get(deployment, 0.0), at)

    def add_returned(self, deployment: str, scope: Scope, at: float) -> None:
        """What failures kept out is back, in what `scope` says."""
        for side in (SUBMITS, READS) if scope == BOTH else (scope,):
            key = deployment, side
            self.returned[key] = max(self.returned.get(key, 0.0), at)

    def add_character(self, copy: Copy, facts: CharacterFacts) -> None:
        """One was made; while nobody takes the batch, the oldest are dropped for it."""
        self.characters[copy] = facts
        if len(self.characters) > MOST_CHARACTERS:
            del self.characters[next(iter(self.characters))]

    def __bool__(self) -> bool:
        learned = self.sums or self.counts or self.ejections or self.restored or self.returned
        return bool(learned or self.characters or self.changes)
