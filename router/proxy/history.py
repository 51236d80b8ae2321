"""How times went in the last hour: what the process samples, for small charts.

A sample is the decayed mean that choosing goes by, of each operation of each deployment. Where
workers share through Redis it is of the whole fleet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from router.types import Operation

__all__ = ["SAMPLES", "SAMPLE_SECONDS", "History", "busiest"]

SAMPLE_SECONDS = 15.0
SAMPLES = 240

_Means = dict[str, dict[str, float]]


class _Sample(NamedTuple):
    """By deployment: the means by operation."""

    at: float
    latency: _Means
    job_time: _Means


class History:
    """The last `SAMPLES` samples. `count` is how many there ever were."""

    def __init__(self) -> None:
        self.count = 0
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def sample(self, at: float, statistics: Mapping[str, Mapping[str, Any]]) -> None:
        """Take down what `Router.statistics` says at a moment."""
        made = _Sample(at, _means(statistics, "latency"), _means(statistics, "job_time"))
        self._samples.append(made)
        self.count += 1

    def of(self, deployment: str, latency: str | None, job_time: str | None) -> dict[str, Any]:
        """A deployment's two lines, of these operations; `None` where nothing was known yet."""
        return {
            "latency": [_at(s.latency, deployment, latency) for s in self._samples],
            "job_time": [_at(s.job_time, deployment, job_time) for s in self._samples],
        }

    @property
    def times(self) -> list[float]:
        return [round(sample.at, 1) for sample in self._samples]


def _means(statistics: Mapping[str, Mapping[str, Any]], what: str) -> _Means:
    return {
        name: {operation: times["mean"] for operation, times in known[what].items()}
        for name, known in statistics.items()
        if known[what]
    }


def _at(means: _Means, deployment: str, operation: str | None) -> float | None:
    known = means.get(deployment, {}).get(operation or "")
    # Three digits are more than a small chart can show.
    return None if known is None else float(f"{known:.3g}")


def busiest(times: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The operation to chart: the submit with the most samples, else the read with the most.

    Reads come at every poll; what choosing goes by is how submits are.
    """
    submits = [name for name in times if Operation(name).is_submit]
    return max(submits or times, key=lambda name: times[name]["count"], default=None)
