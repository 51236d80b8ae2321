"""What an outcome changes: health, load, the other workers' view, events and the log.

The outcome table says what an exchange means; this is where that meaning goes. All of it takes
effect at once and in this process; the sharing hears of it in its next turn.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from router.config import JOB_TTL
from router.events import Ejected, Event, JobFinished, OnEvent, Restored
from router.fleet import Fleet, Member
from router.ids import Copy
from router.leases import Seen, holder_of
from router.observations import (
    HEALTH_BUCKET,
    HTTP,
    JOB,
    READS,
    SERIES,
    SUBMITS,
    Cause,
    Change,
    Ejection,
    Series,
    bucket_of,
    epoch_of,
    sample,
)
from router.outcomes import Effect, Eject, Outcome, is_callers_fault, seconds_in
from router.state import News, Sharing
from router.types import Operation, Video

__all__ = ["Learning"]

log = logging.getLogger("router")

# A failure weighs as a slow success, so that failing fast never looks fast.
PENALTY = 3.0
PENALTY_FLOOR_SECONDS = 1.0
REMEMBERED_JOBS = 10_000
# A job of another worker that failed longer ago says nothing of its deployment's health now.
RECENT_SECONDS = 3600.0


class Learning:
    """Takes outcomes in, from any thread."""

    def __init__(
        self,
        now: Callable[[], float],
        rng: random.Random,
        on_event: OnEvent | None = None,
    ) -> None:
        self._now = now
        self._rng = rng
        self._on_event = on_event
        self._lock = threading.Lock()
        self._worked: set[tuple[str, Operation]] = set()
        # What this worker submitted, and what it saw end: whose failure a failed job was, and once.
        self._submitted: OrderedDict[Copy, str] = OrderedDict()
        self._ended: OrderedDict[Copy, None] = OrderedDict()
        # Set where there are others to share with.
        self.sharing: Sharing | None = None
        # Told of each sight of a job.
        self.on_job: Callable[[Seen], object] = lambda seen: None

    # Exchanges ----------------------------------------------------------------------------------

    @contextmanager
    def in_flight(self, member: Member) -> Iterator[None]:
        with self._lock:
            member.load.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                member.load.in_flight -= 1

    def has_worked(self, account: str, operation: Operation) -> bool:
        """Whether the account has answered this operation with a 2xx."""
        return (account, operation) in self._worked

    def learn(
        self,
        fleet: Fleet,
        member: Member,
        operation: Operation,
        outcome: Outcome,
        seconds: float,
        *,
        unreachable: bool = False,
        reason: str = "",
    ) -> None:
        """An exchange ended. `unreachable`: no connection came about. `reason` is for people."""
        now = self._now()
        ejected: list[tuple[Member, Ejection]] = []
        with self._lock:
            if outcome.effect is Effect.SUCCESS:
                member.health.succeeded(operation)
                self._judged(member, operation, "s", now)
                self._worked.add((member.deployment.account, operation))
                self._latency(member, operation, seconds, now)
            elif outcome.effect is Effect.FAILURE:
                self._latency(member, operation, self._penalised(member, operation, seconds), now)
                self._judged(member, operation, "f", now)
                ejection = member.health.failed(operation, now, self._rng, unreachable=unreachable)
                if ejection is not None:
                    ejected.append((member, ejection))
            elif outcome.effect is Effect.AT_LEAST:
                # A censored sample: it says something only where it is longer than usual.
                known = member.load.latency.get(operation)
                if known is not None and seconds > known.mean:
                    self._latency(member, operation, seconds, now)
            if outcome.eject is not None:
                ejected += self._named(fleet, member, operation, outcome.eject, now, reason)
            ejected = [(m, e) for m, e in ejected if m.health.eject(e)]
        self._announce(ejected, now)

    def _latency(
        self,
        member: Member,
        operation: str,
        seconds: float,
        now: float,
        series: Series = HTTP,
    ) -> None:
        epoch, sums, bucket = (
            epoch_of(now, series),
            sample(seconds, now, series),
            bucket_of(seconds),
        )
        load, name = member.load, member.deployment.id
        load.add(operation, epoch, sums, series)
        counted = load.counted(series.name, operation, epoch, bucket)
        load.count(series.name, operation, epoch, bucket, counted + 1)
        if self.sharing is not None:
            self.sharing.tell_sums((series.name, name, str(operation), epoch), sums)
            self.sharing.tell_count((series.name, name, str(operation), epoch, str(bucket)))

    def _judged(self, member: Member, operation: Operation, verdict: str, now: float) -> None:
        """Count a success or a failure for the fleet."""
        if self.sharing is not None:
            side = SUBMITS if operation.is_submit else READS
            epoch = int(now // HEALTH_BUCKET)
            self.sharing.tell_count(("health", member.deployment.id, side, epoch, verdict))

    @staticmethod
    def _penalised(member: Member, operation: Operation, seconds: float) -> float:
        known = member.load.latency.get(operation)
        usual = known.mean if known is not None else 0.0
        return max(seconds, PENALTY * usual, PENALTY_FLOOR_SECONDS)

    def _named(
        self,
        fleet: Fleet,
        member: Member,
        operation: Operation,
        eject: Eject,
        now: float,
        reason: str,
    ) -> list[tuple[Member, Ejection]]:
        if eject.cause is Cause.THROTTLED:
            member.health.throttled(operation)
        ejection = Ejection(eject.scope, now + eject.seconds, eject.cause, reason, at=now)
        if not eject.whole_account:
            return [(member, ejection)]
        # What is refused is a key; each deployment of the account is out as long as it has it.
        return [
            (m, dataclasses.replace(ejection, credential=m.credential))
            for m in fleet.of_account(member.deployment.account)
        ]

    # Jobs ---------------------------------------------------------------------------------------

    def submitted(self, copy: Copy, member: Member) -> None:
        with self._lock:
            self._submitted[copy] = member.deployment.id
            while len(self._submitted) > REMEMBERED_JOBS:
                self._submitted.popitem(last=False)

    def seen(self, fleet: Fleet, copy: Copy, video_id: str, video: Video) -> None:
        """A job's status was seen. The first sight of its end is an event, and may be a failure.

        Each sight renews the slot that the job holds, or gives it back.
        """
        ended = video.done or video.failed
        self._slot_seen(fleet, copy, video.status, ended=ended)
        if not ended:
            return
        now = self._now()
        with self._lock:
            if copy in self._ended:
                return
            self._ended[copy] = None
            while len(self._ended) > REMEMBERED_JOBS:
                self._ended.popitem(last=False)
            ejected = self._job_failed(fleet, copy, video, now) if video.failed else []
            if video.done:
                self._job_done(fleet, copy, video, now)
        code = video.error.code if video.error else None
        self.tell(lambda: JobFinished(now, video_id, copy.account, video.status, code))
        self._announce(ejected, now)

    def gone(self, fleet: Fleet, copy: Copy) -> None:
        """Nobody knows this job any more, so it holds nothing."""
        self._slot_seen(fleet, copy, "gone", ended=True)

    def _slot_seen(self, fleet: Fleet, copy: Copy, status: str, *, ended: bool) -> None:
        ttl = max((m.job_ttl for m in fleet.of_account(copy.account)), default=JOB_TTL)
        resources = fleet.job_resources(copy.account)
        self.on_job(Seen(holder_of(*copy), resources, status, ended, self._now(), ttl))

    def _job_done(self, fleet: Fleet, copy: Copy, video: Video, now: float) -> None:
        """How long a finished job took, per second of video, by the provider's own times."""
        member = fleet.members.get(self._submitted.get(copy, ""))
        seconds, length = _lasted(video), _length(video)
        if member is not None and seconds is not None and length:
            self._latency(member, Operation.GENERATION, seconds / length, now, JOB)

    def _job_failed(
        self, fleet: Fleet, copy: Copy, video: Video, now: float
    ) -> list[tuple[Member, Ejection]]:
        error = video.error
        ours = video.status in ("cancelled", "canceled")
        if ours or (error is not None and is_callers_fault(error.code, error.message)):
            return []
        ended = video.completed_at or video.created_at
        if copy not in self._submitted and ended is not None and now - ended > RECENT_SECONDS:
            return []
        member = fleet.members.get(self._submitted.get(copy, ""))
        if member is None:
            of_account = fleet.of_account(copy.account)
            member = of_account[0] if len(of_account) == 1 else None
        if member is None:
            return []
        ejection = member.health.failed(Operation.GENERATION, now, self._rng, unreachable=False)
        return [(member, ejection)] if ejection and member.health.eject(ejection) else []

    # Other workers ------------------------------------------------------------------------------

    def absorb(self, fleet: Fleet, news: News) -> None:
        """What the store knows now: of sums and counts all that there is, but what is untold."""
        members, sharing = fleet.members, self.sharing
        assert sharing is not None
        with self._lock:
            for sums_key, sums in news.sums.items():
                series, name, operation, epoch = sums_key
                if name in members:
                    whole = sums + sharing.untold(sums_key)
                    members[name].load.put(operation, epoch, whole, SERIES[series])
            for count_key, count in news.counts.items():
                kind, name, operation, epoch, bucket = count_key
                if name in members and kind in SERIES:
                    whole_count = count + sharing.uncounted(count_key)
                    members[name].load.count(kind, operation, epoch, int(bucket), whole_count)
            for name, at in news.restored.items():
                if name in members:
                    members[name].health.restore(at)
            for (name, *_), ejection in news.ejections.items():
                if name in members:
                    members[name].health.eject(ejection)

    # Operators ----------------------------------------------------------------------------------

    def drain(self, member: Member, seconds: float) -> None:
        """Out of rotation for new work, over all workers; what it owns it still serves."""
        now = self._now()
        ejection = Ejection(SUBMITS, now + seconds, Cause.DRAINED, "drained by an operator", at=now)
        with self._lock:
            ejected = [(member, ejection)] if member.health.eject(ejection) else []
        self._announce(ejected, now)

    def restore(self, member: Member) -> None:
        """Back into rotation, over all workers, whatever kept it out."""
        now, name = self._now(), member.deployment.id
        with self._lock:
            member.health.restore(now)
        if self.sharing is not None:
            change = Change(now, self.sharing.worker, name, "restored", "by an operator")
            self.sharing.tell_restored(name, now, change)
        self.tell(lambda: Restored(now, name, member.deployment.account, "by an operator"))
        log.warning("back in rotation (by an operator): %s", name, extra=_extra(member))

    # Telling ------------------------------------------------------------------------------------

    def tell(self, event: Callable[[], Event]) -> None:
        """Hand an event, made only where somebody listens, to the user's hook.

        The hook's failures are its own: they are logged, and no call ends by them.
        """
        if self._on_event is None:
            return
        try:
            self._on_event(event())
        except Exception:
            log.exception("on_event failed")

    def _announce(self, ejected: list[tuple[Member, Ejection]], now: float) -> None:
        for member, ejection in ejected:
            if self.sharing is not None:
                name = member.deployment.id
                what = f"out for {ejection.until - now:.1f} s ({ejection.scope})"
                change = Change(now, self.sharing.worker, name, what, ejection.reason)
                self.sharing.tell_ejection(name, ejection, change)
            self.tell(functools.partial(_ejected, member, ejection, now))
        if ejected:
            # One line for one change, also where it takes out a whole account.
            deployments = [member.deployment for member, _ in ejected]
            ejection = ejected[0][1]
            log.warning(
                "out of rotation for %.1f s (%s): %s: %s",
                ejection.until - now,
                ejection.scope,
                ", ".join(deployment.id for deployment in deployments),
                ejection.reason,
                extra=_extra(ejected[0][0]),
            )

    def after_fork(self) -> None:
        """In a child process: nothing of the parent's is under way here, and no lock is held."""
        self._lock = threading.Lock()
        if self.sharing is not None:
            self.sharing.after_fork()


def _extra(member: Member) -> dict[str, str]:
    return {"deployment": member.deployment.id, "account": member.deployment.account}


def _lasted(video: Video) -> float | None:
    """Seconds from a job's creation to its end, where the provider tells both."""
    if video.created_at is None or video.completed_at is None:
        return None
    return max(float(video.completed_at) - float(video.created_at), 0.0)


def _length(video: Video) -> float | None:
    """Seconds of video, where the answer says so in numbers."""
    return seconds_in(str(getattr(video, "seconds", "") or ""))


def _ejected(member: Member, ejection: Ejection, now: float) -> Ejected:
    return Ejected(
        now,
        member.deployment.id,
        member.deployment.account,
        str(ejection.scope),
        ejection.cause.value,
        ejection.until - now,
        ejection.reason,
    )
