"""What is known of a deployment's load: what is under way, and how long things take there."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.leases import QUEUED, Job
from router.observations import HTTP, JOB, RECENT, RUN, Latency, Series, Sums, percentile
from router.types import Operation

__all__ = ["Forecast", "Load"]

KEEP_EPOCHS = 2
USUAL_LENGTH = 4.0
"""Seconds of video, where nobody said how long a job's is."""
OVERDUE = 1.25
"""A job that has run so many times what is usual says that what is usual has changed."""
SURE = 4.0
"""Standard errors by which the newest times are off the mean, where they are taken for a change."""
RECENT_ERROR = math.sqrt(RECENT / (2 - RECENT))
"""The standard error of a mean in which the newest sample counts for `RECENT`, over that of one."""
LEAST_SPREAD = 0.15
"""How far the times of jobs lie apart, as a part of their mean, until many are known."""
LEAST_LEFT = 0.05
"""How much of its time a job that is not seen to have ended still has to run, at least."""
FRESH_SECONDS = 1.0
SLOTS_SECONDS = 900.0
"""For how long a provider that queued jobs is taken to run no more at a time than it did then."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a job would take, per second of video, and until when that is worth asking anew.

    `pace` is `None` while nobody knows, and may be off by `error`. `wait` are the seconds that it
    would be queued for.
    """

    pace: float | None
    error: float
    wait: float
    until: float


class Load:
    """One deployment's load, as this worker knows it. Written under the lock of `Learning`.

    `latency` is of exchanges; `job_time` of jobs, per second of video, and `run_time` the same
    without their wait in the provider's queue; all by operation. `running` are the jobs that run
    there, the longest first, and `more` how many there are besides. `picked` is the number of the
    last pick that fell on it, by operation: to look after a job is no turn in making them.
    `failed_at` is about when somebody last had a failure there.
    """

    __slots__ = (
        "_histograms",
        "_slots",
        "_slots_until",
        "_tells_waiting",
        "ahead",
        "busy",
        "failed_at",
        "forecasts",
        "in_flight",
        "job_time",
        "latency",
        "more",
        "picked",
        "run_time",
        "running",
        "submitting",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.submitting = 0
        self.picked: dict[str, int] = {}
        self.failed_at = -math.inf
        self.latency: dict[str, Latency] = {}
        self.job_time: dict[str, Latency] = {}
        self.run_time: dict[str, Latency] = {}
        self.running: dict[str, Job] = {}
        self.more = 0
        # Jobs that run, and those that are being submitted.
        self.busy = 0
        # Seconds of video that are to be made before those of a job that comes now.
        self.ahead = 0.0
        self.forecasts: dict[str, Forecast] = {}
        # How many jobs the provider runs at a time, where it was seen to queue others.
        self._slots: int | None = None
        self._slots_until = 0.0
        self._tells_waiting = False
        # By series and operation: the buckets of each epoch.
        self._histograms: dict[tuple[str, str], dict[int, dict[int, int]]] = {}

    # Exchanges ----------------------------------------------------------------------------------

    def enter(self, operation: Operation) -> None:
        """An exchange begins."""
        self.in_flight += 1
        self.submitting += operation.starts_job
        self._recount()

    def leave(self, operation: Operation) -> None:
        self.in_flight -= 1
        self.submitting -= operation.starts_job
        self._recount()

    def forget_flights(self) -> None:
        """In a child process, where nothing of the parent's is under way."""
        self.in_flight = self.submitting = 0
        self._recount()

    # Jobs ---------------------------------------------------------------------------------------

    def started(self, job: Job) -> None:
        """A job runs here, unless it is known already."""
        self.running.setdefault(job.holder, job)
        self._recount()

    def seen(self, holder: str, status: str, at: float) -> None:
        """A job that runs here was seen to do so."""
        job = self.running.get(holder)
        if job is not None:
            self.running[holder] = job.sighted(status, at)
            # Thousands may run here, and each is looked at again and again: to count those that
            # wait is worth it only where it may have changed.
            if status != job.status or status == QUEUED or self._slots is not None:
                self._note_queue(at)
            self._recount()

    def ended(self, holder: str) -> Job | None:
        """A job runs here no more; the job, where it was known to."""
        job = self.running.pop(holder, None)
        self._recount()
        return job

    def put_running(self, jobs: Iterable[Job], count: int, now: float) -> None:
        """Take these for all that runs here, of `count` in all."""
        self.running = {job.holder: job for job in jobs}
        self.more = max(count - len(self.running), 0)
        self._note_queue(now)
        self._recount()

    def younger(self, at: float) -> int:
        """How many jobs under way here were accepted since then, or may have been."""
        return self.busy - sum(job.accepted_at < at for job in self.running.values())

    def _note_queue(self, now: float) -> None:
        """How many run at a time: those that came before the first that waits, at least.

        Some providers call a job queued until it is done; what they say of that says nothing.
        """
        at_work = sum(job.status != QUEUED for job in self.running.values())
        self._tells_waiting = self._tells_waiting or at_work > 0
        waiting = [job.accepted_at for job in self.running.values() if job.is_queued]
        if waiting and self._tells_waiting:
            first = min(waiting)
            before = sum(job.accepted_at < first for job in self.running.values())
            self._slots, self._slots_until = max(before, at_work, 1), now + SLOTS_SECONDS
        elif self._slots is not None:
            self._slots = max(self._slots, at_work) if now < self._slots_until else None

    def _recount(self) -> None:
        self.busy = len(self.running) + self.more + self.submitting
        slots = self._slots
        queued = max(self.busy + 1 - slots, 0) / slots if slots is not None else 0.0
        self.ahead = queued * USUAL_LENGTH
        self.forecasts = {}

    # Times --------------------------------------------------------------------------------------

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
        return percentile(self.histogram(series, operation), share)

    def histogram(self, series: Series, operation: str) -> dict[int, int]:
        """How many samples fell into each bucket."""
        total: dict[int, int] = {}
        # Copied as they stand: other threads go on counting.
        for buckets in list(self._histograms.get((series.name, operation), {}).values()):
            _merge(total, dict(buckets))
        return total

    def usual(self, operation: str, now: float) -> Latency | None:
        """How long jobs ran lately: of this operation, else of the one most is known of."""
        return _best_known(self.run_time, operation, now)

    def lasting(self, operation: str, now: float) -> Latency | None:
        """The same with the time that they waited in the provider's queue."""
        return _best_known(self.job_time, operation, now)

    def pace(self, operation: Operation, now: float) -> float | None:
        """Seconds that a job is going to take, per second of video; `None` while nobody knows."""
        kept = self.forecasts.get(operation)
        return (
            kept if kept is not None and kept.until > now else self.forecast(operation, now)
        ).pace

    def forecast(self, operation: Operation, now: float) -> Forecast:
        """Asked at every pick, so it is kept for a moment, and until something changes."""
        known = self.usual(operation, now)
        pace, error, wait = None, 0.0, 0.0
        if known is not None:
            usual, error = typical(known)
            pace = _overdue(self.running.values(), known, usual)
            wait = self.wait(pace, now)
        forecast = self.forecasts[operation] = Forecast(pace, error, wait, now + FRESH_SECONDS)
        return forecast

    def wait(self, pace: float, now: float) -> float:
        """Seconds until a job that comes now would be begun, first come first served.

        Where it is not known how many run at a time, nobody waits.
        """
        slots = self._slots
        if slots is None or self.busy < slots:
            return 0.0
        jobs = sorted(self.running.values(), key=lambda job: job.accepted_at)
        lasts = [pace * (job.length or USUAL_LENGTH) for job in jobs]
        usual = sum(lasts) / len(lasts) if lasts else pace * USUAL_LENGTH
        # When each slot becomes free; of who is not known, it is only known that they are there.
        free = [
            max(whole - (now - job.accepted_at - job.waited), LEAST_LEFT * whole)
            for job, whole in zip(jobs[:slots], lasts, strict=False)
        ]
        unseen = self.busy - len(jobs)
        at_work = min(slots - len(free), unseen)
        free += [usual] * at_work
        heapq.heapify(free)
        for whole in lasts[slots:]:
            heapq.heapreplace(free, free[0] + whole)
        return free[0] + (unseen - at_work) * usual / slots

    def _of(self, series: Series, operation: str) -> Latency:
        known = {HTTP: self.latency, JOB: self.job_time, RUN: self.run_time}[series]
        latency = known.get(operation)
        if latency is None:
            latency = known[operation] = Latency(series)
        if series is RUN:
            self.forecasts = {}
        return latency


def _best_known(times: Mapping[str, Latency], operation: str, now: float) -> Latency | None:
    known = times.get(operation)
    if known is None:
        known = max(times.values(), key=lambda time: time.count, default=None)
    return known if known is not None and known.known_until >= now else None


def typical(known: Latency) -> tuple[float, float]:
    """How long it takes now, and the standard error of that.

    It is the mean, or that of the newest where those surely take another time: the mean of a few
    is a matter of luck, and of equals the luckiest would draw all that comes.
    """
    newest = RECENT_ERROR * known.deviation
    if abs(known.recent - known.mean) > SURE * newest:
        return known.recent, newest
    # Two that took the same time by chance are no proof that all do.
    spread = max(known.deviation, LEAST_SPREAD * known.mean)
    return known.mean, spread / math.sqrt(max(known.count, 1))


def _overdue(jobs: Iterable[Job], known: Latency, usual: float) -> float:
    """What a job takes, by those that ended lately and by those that should have.

    A job that was seen to run is a censored sample: it takes at least so long. One that is overdue
    may be an odd one out; where more are than have ended meanwhile, the deployment has become slow,
    and it shows before the first of them ends.
    """
    ran = [(job.seen_at - job.accepted_at - job.waited, job.length or USUAL_LENGTH) for job in jobs]
    late = [(seconds, length) for seconds, length in ran if seconds > OVERDUE * usual * length]
    if not late:
        return usual
    last_seen = max(job.seen_at for job in jobs)
    ended = known.arrived_since(last_seen - usual * max(length for _, length in late))
    share = max(len(late) - ended, 0) / (len(late) + ended)
    mean = sum(seconds / length for seconds, length in late) / len(late)
    return usual + share * (mean - usual)


def _merge(total: dict[int, int], buckets: Mapping[int, int]) -> None:
    for bucket, count in buckets.items():
        total[bucket] = total.get(bucket, 0) + count
