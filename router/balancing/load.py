"""What is known of a deployment's load: what is in flight, and how long things take there."""

from __future__ import annotations

from collections.abc import Mapping

from router.observations import HTTP, Latency, Series, Sums, percentile

__all__ = ["Load"]

KEEP_EPOCHS = 2


class Load:
    """One deployment's load, as this worker knows it. Written under the engine's lock.

    `latency` is of exchanges and `job_time` of jobs, per second of video, both by operation.
    """

    __slots__ = ("_histograms", "in_flight", "job_time", "latency")

    def __init__(self) -> None:
        self.in_flight = 0
        self.latency: dict[str, Latency] = {}
        self.job_time: dict[str, Latency] = {}
        # By series and operation: the buckets of each epoch.
        self._histograms: dict[tuple[str, str], dict[int, dict[int, int]]] = {}

    def add(self, operation: str, epoch: int, sums: Sums, series: Series = HTTP) -> None:
        """Add what was measured."""
        self._of(series, operation).add(epoch, sums)

    def put(self, operation: str, epoch: int, sums: Sums, series: Series = HTTP) -> None:
        """Take these for all that is known of an epoch."""
        self._of(series, operation).put(epoch, sums)

    def count(self, series: str, operation: str, epoch: int, bucket: int, count: int) -> None:
        """So many samples fell into a bucket of an epoch, in all."""
        epochs = self._histograms.setdefault((series, operation), {})
        epochs.setdefault(epoch, {})[bucket] = count
        for old in sorted(epochs)[:-KEEP_EPOCHS]:
            del epochs[old]

    def counted(self, series: str, operation: str, epoch: int, bucket: int) -> int:
        epochs = self._histograms.get((series, operation), {})
        return epochs.get(epoch, {}).get(bucket, 0)

    def percentile(self, series: Series, operation: str, share: float) -> float | None:
        """The time below which this share of the samples lies; right within a tenth."""
        total: dict[int, int] = {}
        # Copied as they stand: other threads go on counting.
        for buckets in list(self._histograms.get((series.name, operation), {}).values()):
            _merge(total, dict(buckets))
        return percentile(total, share)

    def _of(self, series: Series, operation: str) -> Latency:
        known = self.latency if series is HTTP else self.job_time
        latency = known.get(operation)
        if latency is None:
            latency = known[operation] = Latency(series)
        return latency


def _merge(total: dict[int, int], buckets: Mapping[int, int]) -> None:
    for bucket, count in buckets.items():
        total[bucket] = total.get(bucket, 0) + count
