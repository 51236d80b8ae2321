"""What an outcome changes: health, load, the other workers' view, events and the log.

The outcome table says what an exchange means; this is where that meaning goes. All of it takes
effect at once and in this process; the sharing hears of it in its next turn.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from router import _logs
from router.config import JOB_TTL
from router.errors import RateLimitError
from router.events import Ejected, Event, JobFinished, OnEvent, Restored
from router.fleet import Fleet, Member
from router.ids import Copy
from router.leases import Job, Seen, Settle, holder_of
from router.observations import (
    HEALTH_BUCKET,
    HTTP,
    JOB,
    JOBS,
    MICROS,
    READS,
    RUN,
    SERIES,
    SPEND,
    SUBMITS,
    Cause,
    Change,
    CountKey,
    Ejection,
    Scope,
    Series,
    bucket_of,
    day_of,
    epoch_of,
    micros_of,
    sample,
    side_of,
)
from router.outcomes import Effect, Outcome, is_callers_fault
from router.polling import pause
from router.spending import Spending
from router.state import News, Running, Sharing
from router.types import Operation, Video, length_in

__all__ = ["Learning"]

log = logging.getLogger("router")

# A failure weighs as a slow success, so that failing fast never looks fast.
PENALTY = 3.0
PENALTY_FLOOR_SECONDS = 1.0
CLOCKS_APART = 5.0
"""Seconds by which a provider's times may exceed ours: it may count from before its answer came."""
SAME_SECONDS = 1.0
DAYS_AWAY = 3 * 86_400.0
"""How far from now a provider's times may be, where nothing else is known of a job."""
LEAST_WORK = 0.25
"""How much of a job's time was its own at least, however long it was seen to wait."""
REMEMBERED_JOBS = 10_000
_COUNTED = frozenset({*SERIES, "health", SPEND})
# A job of another worker that failed longer ago says nothing of its deployment's health now.
RECENT_SECONDS = 3600.0


Out: TypeAlias = tuple[Member, Ejection]
"""Who is out of rotation, and how."""


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
        # What this worker saw end, so that it is told of once.
        self._ended: OrderedDict[Copy, None] = OrderedDict()
        # What it saw run for longer than any job should: that is held against nobody twice.
        self._overdue: OrderedDict[Copy, None] = OrderedDict()
        self.spending = Spending()
        # Set where there are others to share with.
        self.sharing: Sharing | None = None
        self._puzzled = False
        # Told of each sight of a job.
        self.on_job: Callable[[Seen], object] = lambda seen: None

    # Exchanges ----------------------------------------------------------------------------------

    @contextmanager
    def in_flight(self, member: Member, operation: Operation) -> Iterator[None]:
        with self._lock:
            member.load.enter(operation)
        try:
            yield
        finally:
            with self._lock:
                member.load.leave(operation)

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
        ejected: list[Out] = []
        returned: Scope | None = None
        with self._lock:
            if outcome.effect is Effect.SUCCESS:
                returned = self._succeeded(member, operation, now)
                self._latency(member, operation, seconds, now)
            elif outcome.effect is Effect.FAILURE:
                self._latency(member, operation, self._penalised(member, operation, seconds), now)
                side = side_of(operation)
                ejected += self._failed(member, side, now, unreachable=unreachable)
            elif outcome.effect is Effect.AT_LEAST:
                # A censored sample: it says something only where it is longer than usual.
                known = member.load.latency.get(operation)
                if known is not None and seconds > known.mean:
                    self._latency(member, operation, seconds, now)
            if outcome.eject is not None:
                ejected += self._named(fleet, member, operation, outcome, now, reason)
            ejected = [(m, e) for m, e in ejected if m.health.eject(e)]
        self._announce(ejected, now)
        if returned is not None:
            self._welcome(member, returned, now)

    def _succeeded(self, member: Member, operation: Operation, now: float) -> Scope | None:
        """Count a success; the side that it brought back into rotation, if it did."""
        side = side_of(operation)
        self._judged(member, side, "s", now)
        self._worked.add((member.deployment.account, operation))
        scope = member.health.succeeded(side)
        return scope if scope is not None and member.health.returned(scope, now) else None

    def _failed(
        self,
        member: Member,
        side: Scope,
        now: float,
        *,
        unreachable: bool = False,
        job: Job | None = None,
    ) -> list[Out]:
        """Count a failure, of a `job` where it is one's; the ejection that it leads to, if any."""
        since = job.accepted_at if job is not None else now
        # Who cannot be reached fails both sides, to whichever worker it does.
        for one in (SUBMITS, READS) if unreachable else (side,):
            self._judged(member, one, "f", since)
        ejection = member.health.failed(side, now, self._rng, unreachable=unreachable, since=since)
        if self.sharing is not None:
            # The others are to hear of it before they make the same experience.
            self.sharing.ring()
        return [] if ejection is None else [(member, ejection)]

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

    def _judged(self, member: Member, side: Scope, verdict: str, at: float) -> None:
        """Count a success (`s`) or a failure (`f`), for the fleet."""
        bucket = int(at // HEALTH_BUCKET)
        known = member.health.counted(side, bucket, verdict)
        _count_health(member, side, bucket, verdict, known + 1)
        if self.sharing is not None:
            self.sharing.tell_count(("health", member.deployment.id, side, bucket, verdict))

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
        outcome: Outcome,
        now: float,
        reason: str,
    ) -> list[Out]:
        eject = outcome.eject
        assert eject is not None
        if eject.cause is Cause.THROTTLED:
            member.health.throttled(operation)
        ejection = Ejection(eject.scope, now + eject.seconds, eject.cause, reason, at=now)
        if not eject.whole_account:
            return [(member, ejection)]
        # What is refused is a key, and each deployment of the account is out that has it, as long
        # as it has it; but what is not paid for is the account's, whatever the key.
        unpaid = outcome.error is RateLimitError
        return [
            (m, dataclasses.replace(ejection, credential=m.credential))
            for m in fleet.of_account(member.deployment.account)
            if unpaid or _same_key(m, member)
        ]

    def spent(self, deployment: str, account: str, dollars: float, now: float) -> None:
        """Something was accepted, or may have been, that costs so much."""
        day, micros = day_of(now), micros_of(dollars)
        if micros <= 0:
            return
        with self._lock:
            self.spending.add(deployment, account, day, micros)
            if self.sharing is not None:
                self.sharing.tell_count((SPEND, deployment, account, day, MICROS), micros)

    # Jobs ---------------------------------------------------------------------------------------

    def started(self, member: Member, job: Job) -> None:
        """A job was accepted, and runs."""
        with self._lock:
            member.load.started(job)

    def seen(self, fleet: Fleet, copy: Copy, video_id: str, video: Video) -> None:
        """A job's status was seen. The first sight of its end is an event, and may be a failure.

        Each sight renews the slot that the job holds, or gives it back. How long it took is learned
        by whoever saw it end while it was still taken to run, so once in the fleet but for a race.
        """
        ended = video.done or video.failed
        now = self._now()
        self._slot_seen(fleet, copy, video.status, ended=ended)
        if not ended:
            with self._lock:
                ejected = self._goes_on(fleet, copy, video.status, now)
            self._announce(ejected, now)
            return
        with self._lock:
            if copy in self._ended:
                return
            _remember(self._ended, copy)
            member, job, ejected = self._job_ended(fleet, copy, video, now)
        self.tell(functools.partial(_finished, copy, video_id, video, member, job, now))
        self._announce(ejected, now)

    def pause(self, member: Member, copy: Copy, video: Video) -> float:
        """Seconds until the next look at a job that runs."""
        now = self._now()
        job = member.load.running.get(holder_of(*copy))
        accepted = job.accepted_at if job is not None else video.created_at
        length = (job.length if job is not None else length_in(video.seconds)) or 0.0
        known = member.load.lasting(_started_by(job), now)
        usual = known.recent * length if known is not None and length else None
        elapsed = now - float(accepted) if accepted is not None else 0.0
        return pause(max(elapsed, 0.0), usual)

    def gone(self, fleet: Fleet, copy: Copy) -> None:
        """Nobody knows this job any more, so it holds nothing."""
        self._slot_seen(fleet, copy, "gone", ended=True)

    def _slot_seen(self, fleet: Fleet, copy: Copy, status: str, *, ended: bool) -> None:
        ttl = max((m.job_ttl for m in fleet.of_account(copy.account)), default=JOB_TTL)
        resources = fleet.job_resources(copy.account)
        self.on_job(Seen(holder_of(*copy), resources, status, ended, self._now(), ttl))

    def _ran(self, fleet: Fleet, copy: Copy) -> tuple[Member, Job | None] | None:
        """Where a job ran, and what is known of it; `None` where nobody can tell."""
        holder, members = holder_of(*copy), fleet.of_account(copy.account)
        for member in members:
            job = member.load.running.get(holder)
            if job is not None:
                return member, job
        return (members[0], None) if len(members) == 1 else None

    def _goes_on(self, fleet: Fleet, copy: Copy, status: str, now: float) -> list[Out]:
        """A job runs; one that has for longer than `job_ttl` counts as failed."""
        member, job = self._ran(fleet, copy) or (None, None)
        if member is None or job is None:
            return []
        if now - job.accepted_at <= member.job_ttl:
            member.load.seen(job.holder, status, now)
            return []
        member.load.ended(job.holder)
        if copy in self._overdue:
            return []  # the store goes on telling of it
        _remember(self._overdue, copy)
        return self._job_failed(member, job, now - job.accepted_at, job.length, now)

    def _job_ended(
        self, fleet: Fleet, copy: Copy, video: Video, now: float
    ) -> tuple[Member | None, Job | None, list[Out]]:
        """What a job's end says of where it ran."""
        member, job = self._ran(fleet, copy) or (None, None)
        if member is None:
            return None, None, []
        member.load.ended(holder_of(*copy))
        # Where there are others, who knows nothing of it may not be the first to see its end.
        if job is None and (self.sharing is not None or _is_long_ago(video, now)):
            return member, None, []
        seconds = _lasted(video, job, now)
        # What an extension's answer tells of is the stitched whole; its job made the new part.
        length = (job.length if job is not None else length_in(video.seconds)) or 0.0
        if video.done:
            accepted = job.accepted_at if job is not None else now
            self._judged(member, JOBS, "s", accepted)
            member.health.succeeded(JOBS, accepted)
            self._job_time(member, job, seconds, length, now)
            return member, job, []
        error = video.error
        ours = video.status in ("cancelled", "canceled")
        kind = error.model_extra.get("type") if error is not None and error.model_extra else None
        if ours or (error is not None and is_callers_fault(error.code, error.message, kind)):
            return member, job, []
        return member, job, self._job_failed(member, job, seconds, length, now)

    def _job_failed(
        self, member: Member, job: Job | None, seconds: float | None, length: float, now: float
    ) -> list[Out]:
        """It failed by the provider, and weighs as a slow one: failing fast is not to look fast."""
        known = member.load.usual(_started_by(job), now)
        if known is not None:
            self._job_time(
                member, job, max(seconds or 0.0, PENALTY * known.mean * length), length, now
            )
        ejected = self._failed(member, JOBS, now, job=job)
        return [(m, e) for m, e in ejected if m.health.eject(e)]

    def _job_time(
        self, member: Member, job: Job | None, seconds: float | None, length: float, now: float
    ) -> None:
        if seconds is None or not length:
            return
        self._latency(member, _started_by(job), seconds / length, now, JOB)
        # Whoever looks at it seldom learns late that its wait was over.
        worked = max(seconds - (job.waited if job is not None else 0.0), LEAST_WORK * seconds)
        self._latency(member, _started_by(job), worked / length, now, RUN)

    # Other workers ------------------------------------------------------------------------------

    def absorb(self, fleet: Fleet, news: News) -> None:
        """What the store knows now: of sums and counts all that there is, but what is untold."""
        members, sharing = fleet.members, self.sharing
        assert sharing is not None
        with self._lock:
            for sums_key, sums in news.sums.items():
                series, name, operation, epoch = sums_key
                if series not in SERIES:
                    self._pass_by(f"the series {series!r}")
                elif name in members:
                    whole = sums + sharing.untold(sums_key)
                    members[name].load.put(operation, epoch, whole, SERIES[series])
            for count_key, count in news.counts.items():
                kind, name, _, _, bucket = count_key
                if kind not in _COUNTED:
                    self._pass_by(f"counts of the kind {kind!r}")
                elif kind in SERIES and not _is_whole(bucket):
                    self._pass_by(f"the bucket {bucket!r}")
                elif kind == SPEND:
                    # Also of a deployment that is no longer configured: it was paid for.
                    self._spent_by_all(count_key, count + sharing.uncounted(count_key))
                elif name in members:
                    _counted(members[name], count_key, count + sharing.uncounted(count_key))
            heard = self._heard(members, news)
            for name, running in news.running.items():
                if name in members:
                    self._run(members[name], running)
        for event in heard:
            try:
                self.tell(event)
            except BaseException:
                # In a thread of ours nobody is there to take it, and the thread is to live.
                if sharing.inline:
                    raise
                log.exception("on_event failed", extra=_logs.fields("hook-failed"))

    def _spent_by_all(self, key: CountKey, count: int) -> None:
        _, deployment, account, day, unit = key
        if unit == MICROS:
            self.spending.put(deployment, account, day, count)
        else:
            self._pass_by(f"money in {unit!r}")

    def _heard(self, members: Mapping[str, Member], news: News) -> list[Callable[[], Event]]:
        """Take in who is out by others' word, and who is back; what of it is news here, to tell."""
        now = self._now()
        events: list[Callable[[], Event]] = []
        was_out = {name for name, member in members.items() if member.health.clear_from > now}
        for name, at in news.restored.items():
            if name in members and members[name].health.restore(at) and name in was_out:
                events.append(functools.partial(_back, members[name], None, now))
        for (name, scope), at in news.returned.items():
            known = name in members and members[name].health.returned(scope, at)
            if known and name in was_out:
                events.append(functools.partial(_back, members[name], scope, now))
        for (name, *_), ejection in news.ejections.items():
            if name in members and members[name].health.eject(ejection) and ejection.until > now:
                events.append(functools.partial(_ejected, members[name], ejection, now, True))
        return events

    def _run(self, member: Member, running: Running) -> None:
        """Take the store's word for what runs there, but for what it has not been told yet."""
        assert self.sharing is not None
        member.load.put_running(running.jobs, running.count, self._now())
        for command in self.sharing.unordered():
            if isinstance(command, Settle) and command.job is not None:
                if command.job.deployment == member.deployment.id:
                    member.load.started(command.job)
            elif isinstance(command, Seen) and command.ended:
                member.load.ended(command.holder)

    def _pass_by(self, what: str) -> None:
        """Another release shares more than this one understands: that is left to it."""
        if not self._puzzled:
            self._puzzled = True
            extra = _logs.fields("not-understood")
            log.warning(
                "other workers share %s, which this release does not know; passed by",
                what,
                extra=extra,
            )

    # Operators ----------------------------------------------------------------------------------

    def drain(self, member: Member, seconds: float) -> None:
        """Out of rotation for new work, over all workers; what it owns it still serves."""
        now = self._now()
        ejection = Ejection(SUBMITS, now + seconds, Cause.DRAINED, "drained by an operator", at=now)
        with self._lock:
            known = [e for e in member.health.standing(now) if e.cause is Cause.DRAINED]
            # A moment more is no news: who hears of a drain and drains would hear it without end.
            longer = all(ejection.until - e.until > SAME_SECONDS for e in known)
            ejected = [(member, ejection)] if longer and member.health.eject(ejection) else []
        self._announce(ejected, now)

    def restore(self, member: Member) -> None:
        """Back into rotation, over all workers, whatever kept it out."""
        name = member.deployment.id
        with self._lock:
            was_out = bool(member.health.standing(self._now()))
            now = self._after_all_of(member)
            member.health.restore(now)
        if self.sharing is not None:
            change = Change(now, self.sharing.worker, name, "restored", "by an operator")
            self.sharing.tell_restored(name, now, change)
        # The calendar takes no operator's word: only another date in the configuration helps.
        retired, why = now >= member.health.retires, "by an operator"
        if retired:
            why += f"; out all the same: {member.health.retires_why}"
        if was_out:
            extra = _returned(member, None)
            log.warning("back in rotation (%s): %s", why, name, extra=extra)
        self.tell(lambda: Restored(now, name, member.deployment.account, why))
        if retired:
            self.retired(member)

    def retired(self, member: Member) -> None:
        """Tell who listens that it is out by its date."""
        now = self._now()
        self.tell(functools.partial(_ejected, member, member.health.retirement(now), now))

    def retires_no_more(self, member: Member) -> None:
        """It was out by its date, and has got another one, or none."""
        name, account = member.deployment.id, member.deployment.account
        why = "its retires_on was changed"
        self.tell(lambda: Restored(self._now(), name, account, why, scope=SUBMITS))

    def _after_all_of(self, member: Member) -> float:
        """Now, or right after what keeps it out: that may have been decided by a faster clock."""
        now = self._now()
        decided = (math.nextafter(e.at, math.inf) for e in member.health.standing(now))
        return max(now, *decided, now)

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
            log.exception("on_event failed", extra=_logs.fields("hook-failed"))

    def _welcome(self, member: Member, scope: Scope, now: float) -> None:
        """It is back in rotation, by a call that went well."""
        name, why = member.deployment.id, "a call went well"
        if self.sharing is not None:
            change = Change(now, self.sharing.worker, name, f"back ({scope})", why)
            self.sharing.tell_returned(name, scope, now, change)
        extra = _returned(member, scope)
        log.warning("back in rotation for %s (%s): %s", scope, why, name, extra=extra)
        account = member.deployment.account
        self.tell(lambda: Restored(now, name, account, why, scope=scope))

    def _announce(self, ejected: list[Out], now: float) -> None:
        for member, ejection in ejected:
            if self.sharing is not None:
                name = member.deployment.id
                what = f"out {ejection.lasts(now)} ({ejection.scope})"
                change = Change(now, self.sharing.worker, name, what, ejection.reason)
                self.sharing.tell_ejection(name, ejection, change)
        if ejected:
            # One line for one change, also where it takes out a whole account.
            deployments = [member.deployment for member, _ in ejected]
            ejection = ejected[0][1]
            log.warning(
                "out of rotation %s (%s): %s: %s",
                ejection.lasts(now),
                ejection.scope,
                ", ".join(deployment.id for deployment in deployments),
                ejection.reason,
                extra=_logs.fields(
                    "ejected",
                    deployment=deployments[0].id,
                    account=deployments[0].account,
                    deployments=[deployment.id for deployment in deployments],
                    scope=str(ejection.scope),
                    cause=ejection.cause.value,
                    seconds=ejection.until - now,
                ),
            )
        # At last, since who is told may act on it.
        for member, ejection in ejected:
            self.tell(functools.partial(_ejected, member, ejection, now))

    def after_fork(self) -> None:
        """In a child process: nothing of the parent's is under way here, and no lock is held."""
        self._lock = threading.Lock()
        self.spending.after_fork()
        if self.sharing is not None:
            self.sharing.after_fork()


def _remember(copies: OrderedDict[Copy, None], copy: Copy) -> None:
    copies[copy] = None
    while len(copies) > REMEMBERED_JOBS:
        copies.popitem(last=False)


def _is_whole(written: str) -> bool:
    return written.removeprefix("-").isdecimal()


def _same_key(one: Member, other: Member) -> bool:
    """Whether both go out under one key; their hosts, regions of an account, may differ."""
    keys = one.deployment.api_key, other.deployment.api_key
    return one.headers == other.headers if keys == (None, None) else keys[0] == keys[1]


def _returned(member: Member, scope: Scope | None) -> dict[str, object]:
    """What the log's line carries of one that is back, for all it was out for or for `scope`."""
    return _logs.fields(
        "restored",
        deployment=member.deployment.id,
        account=member.deployment.account,
        scope=None if scope is None else str(scope),
    )


def _counted(member: Member, key: CountKey, count: int) -> None:
    kind, _, what, epoch, field = key
    if kind in SERIES:
        member.load.count(kind, what, epoch, int(field), count)
    elif kind == "health":
        _count_health(member, what, epoch, field, count)


def _count_health(member: Member, side: Scope, bucket: int, verdict: str, count: int) -> None:
    member.health.count(side, bucket, verdict, count)
    if verdict == "f":
        member.load.failed_at = max(member.load.failed_at, bucket * HEALTH_BUCKET)


def _lasted(video: Video, job: Job | None, now: float) -> float | None:
    """Seconds that a job took: by the provider's own times, else until its end was seen.

    Its times are believed where they can be true; some are in milliseconds, or 0.
    """
    seen = None if job is None else max(now - job.accepted_at, 0.0)
    if not video.created_at or not video.completed_at:
        return seen
    told = float(video.completed_at) - float(video.created_at)
    if seen is not None:
        return told if 0.0 <= told <= seen + CLOCKS_APART else seen
    near = all(abs(now - at) <= DAYS_AWAY for at in (video.created_at, video.completed_at))
    return told if near and told >= 0.0 else None


def _started_by(job: Job | None) -> str:
    return str(Operation.GENERATION) if job is None else job.operation


def _is_long_ago(video: Video, now: float) -> bool:
    ended = video.completed_at or video.created_at
    return ended is not None and now - float(ended) > RECENT_SECONDS


def _finished(
    copy: Copy, video_id: str, video: Video, member: Member | None, job: Job | None, now: float
) -> JobFinished:
    code = video.error.code if video.error else None
    deployment = member.deployment.id if member is not None else None
    operation = job.operation if job is not None else None
    seconds = _lasted(video, job, now)
    return JobFinished(
        now, video_id, copy.account, video.status, code, deployment, operation, seconds
    )


def _back(member: Member, scope: Scope | None, now: float) -> Restored:
    deployment = member.deployment
    why = "another worker says so"
    return Restored(now, deployment.id, deployment.account, why, scope=scope, shared=True)


def _ejected(member: Member, ejection: Ejection, now: float, shared: bool = False) -> Ejected:
    return Ejected(
        now,
        member.deployment.id,
        member.deployment.account,
        str(ejection.scope),
        ejection.cause.value,
        ejection.until - now,
        ejection.reason,
        shared,
    )
