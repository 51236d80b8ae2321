"""The calls of a run: when they come, how long their videos are, how lucky they are.

Drawn from the seed before anything happens, so that each contender serves the very same calls: the
same lengths at the same moments, and a job that is a tenth longer than usual is so wherever it
runs. What is left between two contenders is what they chose.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["LENGTHS", "MEAN_LENGTH", "Burst", "Call", "calls"]

LENGTHS = (4, 8, 12)
MEAN_LENGTH = sum(LENGTHS) / len(LENGTHS)
JOB_SIGMA = math.sqrt(math.log(1 + 0.15**2))
"""Of the lognormal that a job's time is multiplied by: a coefficient of variation of 0.15."""
SUBMIT_SECONDS, SUBMIT_SIGMA = 0.55, 0.3
"""Median and sigma of a submit's lognormal latency: nineteen in twenty take 0.3 to 1 s."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: it comes `at`, for `length` seconds of video.

    `luck` is what its job takes over the usual, `latency` what its submit takes, and `lot`, from 0
    to 1, which worker it falls to, however many there are.
    """

    number: int
    at: float
    length: int
    luck: float
    latency: float
    lot: float


@dataclass(frozen=True, slots=True)
class Burst:
    """So many calls at the same moment."""

    at: float
    calls: int


def calls(rate: float, seconds: float, bursts: Sequence[Burst], seed: int) -> list[Call]:
    """Poisson arrivals at `rate` a second for so many seconds, and the bursts among them."""
    rng = random.Random(seed)
    times = sorted([*_poisson(rate, seconds, rng), *(b.at for b in bursts for _ in range(b.calls))])
    return [
        Call(
            number,
            at,
            rng.choice(LENGTHS),
            rng.lognormvariate(-(JOB_SIGMA**2) / 2, JOB_SIGMA),
            rng.lognormvariate(math.log(SUBMIT_SECONDS), SUBMIT_SIGMA),
            rng.random(),
        )
        for number, at in enumerate(times)
    ]


def _poisson(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    at = rng.expovariate(rate) if rate else seconds
    while at < seconds:
        yield at
        at += rng.expovariate(rate)
