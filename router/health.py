"""Which deployments are out of rotation, until when, and how they come back.

                   3 failures in a row, or under half of
                   at least 5 went well in 30 s, fleet-wide
      in rotation ────────────────────────────────────────► ejected: 5 s, doubling to 300 s
           ▲                                                  │           ▲
           │ 10 jobs accepted,                  deadline past │           │ the trial fails
           │ or a minute has passed                           ▼           │
      slow start ◄────────── the trial goes well ─────────  on trial: one call of the whole fleet
           ▲                                                  │
           └── a read gets through to a host that ────────────┘
               could not be reached

That is a judgement of ours, of submits, reads and jobs apart, since they fail apart: whoever takes
every job may fail them all. But a host that cannot be reached is out for both sides, and failed
jobs keep submits away. Reads are free, so they need no trial: they are back when the deadline has
passed, one failure from the next ejection; and so are jobs, of which a trial tells only minutes
later. Beside it stand what others say, each with its own deadline: throttled (429), denied (the
account's key or bill) and missing (it has no such operation or model) are the provider's word,
drained is an operator's, retired the calendar's.

Successes and failures are counted by the whole fleet, in buckets of time; so three failures that
three workers met one each are three in a row. Jobs are counted at the time of their acceptance: one
that was accepted when all was well, and ends well, does not speak for those that came after it.
While the last ones failed (`doubt`), it gets few, one at a time, until it is out or one goes well.
Nothing here knows a clock or a network: `now` and the random generator are handed in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from router.observations import (
    BOTH,
    HEALTH_BUCKET,
    HEALTH_BUCKETS,
    JOBS,
    READS,
    SUBMITS,
    Cause,
    Ejection,
    Scope,
    side_of,
)
from router.types import Operation

__all__ = ["FAILURES_IN_A_ROW", "Health"]

FAILURES_IN_A_ROW = 3
FEWEST_JUDGED = 5
JUDGED_SECONDS = 30.0
BACK_OFF_SECONDS = 5.0
LONGEST_BACK_OFF = 300.0
SLOW_START_JOBS = 10
SLOW_START_SECONDS = 60.0
DOUBTED = 0.25
"""How much of its share one takes whose last jobs failed: workers hear of each other's late."""
ASK_FOR_TRIAL_AGAIN = 1.0
"""Seconds after which to ask again for a trial that another worker has."""
NEVER = math.inf
FOR_GOOD = 10 * 365 * 86_400.0


@dataclass(slots=True)
class _Side:
    """Submits, reads, or jobs: what is counted of them."""

    failures: int = 0
    # When what failed last had been asked for; a job, when it was accepted.
    failed_last: float = -math.inf
    step: int = 0
    throttled: int = 0
    # By bucket of time, over the whole fleet: how many went well, and how many failed.
    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    # As of when what failed before counts no more, and as of when it starts slowly.
    since: float = 0.0
    returned_at: float = 0.0

    def forget(self) -> None:
        self.failures = self.step = self.throttled = 0


class Health:
    """The health of one deployment, as this worker knows it.

    Written under the lock of `Learning`, and read without: the ejections are replaced, not changed.
    `retires` is when an operator wants new work to end (Unix seconds), `retires_why` says so.
    """

    __slots__ = (
        "_ejections",
        "_out_until",
        "_sides",
        "_trial_asked",
        "clear_from",
        "credential",
        "doubt",
        "restored_at",
        "retires",
        "retires_why",
    )

    def __init__(self, credential: str = "") -> None:
        # A new key is a new start: what was refused to the old one no longer counts, nor does the
        # word of a call, or of another worker, that still used it.
        self.credential = credential
        # What was decided before an operator brought it back no longer counts either.
        self.restored_at = 0.0
        self.retires, self.retires_why = NEVER, ""
        self._sides = {SUBMITS: _Side(), READS: _Side(), JOBS: _Side()}
        self._ejections: dict[tuple[Scope, Cause], Ejection] = {}
        self._trial_asked = 0.0
        # Since when its jobs fail, where the last ones that were accepted did.
        self.doubt: float | None = None
        # From when on nothing of all this is to be asked: one comparison tells a pick.
        self.clear_from = 0.0
        # Until when each side surely is out: likewise.
        self._out_until = {SUBMITS: 0.0, READS: 0.0}

    # Counting -----------------------------------------------------------------------------------

    def succeeded(self, side: Scope, since: float = math.inf) -> Scope | None:
        """Count a success; what it brings back into rotation, if it does.

        Whatever gets through ends what a host's being unreachable began, for both sides. A job
        that was accepted (`since`) before one that failed says nothing of how it is now.
        """
        if since >= self._sides[side].failed_last:
            self._sides[side].forget()
        failing = None if side == JOBS else self._failing(side)
        if failing is None:
            return None
        # What failed after the host was reached again is another matter.
        both = all(self._failing(name) in (failing, None) for name in (SUBMITS, READS))
        return BOTH if failing.scope == BOTH and both else side

    def failed(
        self,
        side: Scope,
        now: float,
        rng: random.Random,
        *,
        unreachable: bool = False,
        since: float = -math.inf,
    ) -> Ejection | None:
        """Count a failure; the ejection that it leads to, if it does.

        `unreachable` failures say that the host is gone, so they count for both sides. `since` is
        when a job was accepted.
        """
        judged = (SUBMITS, READS) if unreachable else (side,)
        # Who is out is not judged: an owner's reads go on, and must not drive the back-off.
        names = [name for name in judged if not self._is_out(name, now)]
        for name in names:
            self._sides[name].failures += 1
            self._sides[name].failed_last = max(self._sides[name].failed_last, since)
        if not any(self._is_too_much(name, now) for name in names):
            return None
        step = max(self._sides[name].step for name in names)
        seconds = min(BACK_OFF_SECONDS * 2.0**step, LONGEST_BACK_OFF)
        # A tenth of jitter, so that a fleet does not come back as one.
        until = now + seconds * (1 + 0.1 * rng.random())
        why = self._why(names, now)
        for name in names:
            self._sides[name].step = step + 1
        scope = BOTH if unreachable else SUBMITS if side == JOBS else names[0]
        return Ejection(scope, until, Cause.FAILURES, why, step, at=now)

    def _is_too_much(self, name: Scope, now: float) -> bool:
        if self._sides[name].failures >= FAILURES_IN_A_ROW:
            return True
        if name != JOBS and self._failing(name) is not None:
            return True  # the trial failed, or the first read after the deadline
        in_a_row, well, badly = self._judged(name, now)
        return in_a_row >= FAILURES_IN_A_ROW or (well + badly >= FEWEST_JUDGED and well < badly)

    def _why(self, names: Iterable[Scope], now: float) -> str:
        what = "jobs failed" if JOBS in names else "failures"
        if any(self._sides[name].step for name in names):
            return f"{what} again"
        in_a_row, well, badly = max(self._judged(name, now) for name in names)
        local = max(self._sides[name].failures for name in names)
        if max(local, in_a_row) >= FAILURES_IN_A_ROW:
            return f"{what} in a row"
        return f"{what}: {badly} of {well + badly} in {JUDGED_SECONDS:g} s"

    def _judged(self, name: Scope, now: float) -> tuple[int, int, int]:
        """Failures since the last success, and what went well and badly lately, fleet-wide."""
        side = self._sides[name]
        first = int(side.since // HEALTH_BUCKET)
        # Jobs lie in the buckets of their acceptance, which is long ago when they end.
        latest = max(side.counts, default=0) * HEALTH_BUCKET if name == JOBS else now
        recent = int((latest - JUDGED_SECONDS) // HEALTH_BUCKET)
        in_a_row, row_ended = 0, False
        well = badly = 0
        for bucket in sorted(side.counts, reverse=True):
            if bucket <= first:
                break
            counts = side.counts[bucket]
            row_ended = row_ended or counts.get("s", 0) > 0
            in_a_row += 0 if row_ended else counts.get("f", 0)
            if bucket > recent:
                well += counts.get("s", 0)
                badly += counts.get("f", 0)
        return in_a_row, well, badly

    def counted(self, name: Scope, bucket: int, verdict: str) -> int:
        return self._sides[name].counts.get(bucket, {}).get(verdict, 0)

    def count(self, name: Scope, bucket: int, verdict: str, count: int) -> None:
        """So many went well (`s`) or failed (`f`) in a bucket of time, in all."""
        side = self._sides.get(name)
        if side is None:
            return
        counts = {**side.counts, bucket: {**side.counts.get(bucket, {}), verdict: count}}
        if len(counts) > HEALTH_BUCKETS:
            del counts[min(counts)]
        # Replaced, since a pick may be reading it.
        side.counts = counts
        if name == JOBS:
            self._doubt()

    def _doubt(self) -> None:
        """Since when jobs fail, if the last ones that were accepted did."""
        side = self._sides[JOBS]
        first = int(side.since // HEALTH_BUCKET)
        self.doubt = None
        for bucket in sorted(side.counts, reverse=True):
            if bucket <= first or side.counts[bucket].get("s", 0):
                break
            self.doubt = bucket * HEALTH_BUCKET
        self._reckon()

    def throttled(self, operation: Operation) -> int:
        """Count a throttling; how many came in a row before it."""
        side = self._sides[side_of(operation)]
        side.throttled += 1
        return side.throttled - 1

    def throttled_in_a_row(self, operation: Operation) -> int:
        return self._sides[side_of(operation)].throttled

    # Out and back -------------------------------------------------------------------------------

    def eject(self, ejection: Ejection) -> bool:
        """Take out of rotation; ejections only extend. Whether this one did."""
        key = (ejection.scope, ejection.cause)
        known = self._ejections.get(key)
        if not self._stands(ejection):
            return False
        if known is not None and not ejection.outlasts(known, self._void_before(ejection)):
            return False
        self._ejections = {**self._ejections, key: ejection}
        if ejection.cause is Cause.FAILURES:
            self._start_over(ejection)
            self._trial_asked = 0.0
        self._reckon()
        return True

    def _start_over(self, ejection: Ejection) -> None:
        """Count from here, and go on with the back-off of whoever decided it."""
        for name in ejection.sides:
            side = self._sides[name]
            side.step = max(side.step, ejection.step + 1)
            side.failures, side.since = 0, max(side.since, ejection.at)
        if ejection.scope != READS:
            # Of jobs a trial tells nothing, so the next one that fails puts it out again.
            jobs = self._sides[JOBS]
            jobs.step = max(jobs.step, ejection.step + 1)
            jobs.failures, jobs.since = FAILURES_IN_A_ROW - 1, max(jobs.since, ejection.at)
            self._doubt()

    def returned(self, scope: Scope, at: float) -> bool:
        """Failures keep it out no more, as of a moment; whether that is news."""
        names = [name for name in (SUBMITS, READS) if scope in (name, BOTH)]
        fresh = [name for name in names if at > self._sides[name].returned_at]
        for name in fresh:
            side = self._sides[name]
            side.returned_at = side.since = at
            side.forget()
        self._reckon()
        return bool(fresh)

    def restore(self, at: float) -> bool:
        """Back into rotation, as of a moment, whatever kept it out; whether that is news."""
        if at <= self.restored_at:
            return False
        self.restored_at = at
        for side in self._sides.values():
            side.forget()
            side.since = max(side.since, at)
        self._doubt()
        return True

    def hold(self, credential: str) -> None:
        """From now on its key is this one: what was refused to another says nothing of it."""
        self.credential = credential
        self._reckon()

    def _reckon(self) -> None:
        """From when on a pick need not ask."""
        ends = [e.until for e in self._ejections.values() if self._stands(e)]
        trial = NEVER if self.doubt is not None or self._failing(SUBMITS) is not None else 0.0
        started = self._sides[SUBMITS].returned_at
        slow = started + SLOW_START_SECONDS if started else 0.0
        self.clear_from = max([*ends, trial, slow])
        whole = self._ejections.values()
        self._out_until = {
            side: max(
                (e.until for e in whole if side in e.sides and self._stands(e, side)), default=0.0
            )
            for side in (SUBMITS, READS)
        }

    # Asking -------------------------------------------------------------------------------------

    def ejection(
        self, operation: Operation, now: float, ignoring: Iterable[Cause] = ()
    ) -> Ejection | None:
        """The longest ejection that keeps this operation away now; `None` in rotation."""
        if self.clear_from <= now < self.retires:
            return None
        side = side_of(operation)
        standing = [
            e
            for e in self.standing(now)
            if e.covers(operation) and e.cause not in ignoring and self._stands(e, side)
        ]
        return max(standing, key=lambda e: e.until, default=None)

    def is_out(self, operation: Operation, now: float, ignoring: Sequence[Cause] = ()) -> bool:
        """Whether an ejection keeps this operation away now."""
        if not ignoring and now < self._out_until[side_of(operation)]:
            return True
        return self.ejection(operation, now, ignoring) is not None

    def standing(self, now: float) -> list[Ejection]:
        """All ejections in force."""
        found = [e for e in self._ejections.values() if e.until > now and self._stands(e)]
        tested = self._tested_elsewhere(now)
        if tested is not None:
            found.append(tested)
        if now >= self.retires:
            found.append(self.retirement(now))
        return found

    def retirement(self, now: float) -> Ejection:
        """What the calendar says, once the day has come."""
        until, why = now + FOR_GOOD, self.retires_why
        return Ejection(SUBMITS, until, Cause.RETIRED, why, at=self.retires)

    def on_trial(self, operation: Operation, now: float) -> bool:
        """Whether it is back in rotation only once a submit, which may be this one, went well."""
        if self.clear_from <= now or not operation.is_submit:
            return False
        failing = self._failing(SUBMITS)
        return failing is not None and failing.until <= now and self._trial_asked <= now

    def trial_is_taken(self, now: float) -> None:
        """Another worker has the trial; it is asked for again in a moment."""
        self._trial_asked = now + ASK_FOR_TRIAL_AGAIN

    def share(self, operation: Operation, now: float) -> float:
        """How much of its share of new work it takes, from 0 to 1: less right after its return."""
        if self.clear_from <= now or not operation.is_submit:
            return 1.0
        most = DOUBTED if self.doubt is not None and operation.starts_job else 1.0
        side = self._sides[SUBMITS]
        passed = now - side.returned_at
        if passed >= SLOW_START_SECONDS:
            return most
        first = int(side.returned_at // HEALTH_BUCKET)
        jobs = sum(c.get("s", 0) for bucket, c in side.counts.items() if bucket >= first)
        return min(max((jobs + 1) / SLOW_START_JOBS, passed / SLOW_START_SECONDS), most)

    def _failing(self, name: Scope) -> Ejection | None:
        """What failures last decided of a side, while it has not returned since."""
        found = [self._ejections.get((scope, Cause.FAILURES)) for scope in (name, BOTH)]
        standing = [e for e in found if e is not None and self._stands(e, name)]
        return max(standing, key=lambda e: e.until, default=None)

    def _is_out(self, name: Scope, now: float) -> bool:
        failing = self._failing(SUBMITS if name == JOBS else name)
        return failing is not None and failing.until > now

    def _tested_elsewhere(self, now: float) -> Ejection | None:
        failing = self._failing(SUBMITS)
        if failing is None or failing.until > now or self._trial_asked <= now:
            return None
        reason = "another worker has its trial"
        return Ejection(SUBMITS, self._trial_asked, Cause.FAILURES, reason, at=failing.at)

    def _stands(self, ejection: Ejection, side: Scope | None = None) -> bool:
        """Whether it is about the key that is held, and nothing since has made it void.

        For one side, or for any that it covers.
        """
        mine = ejection.credential in ("", self.credential)
        return mine and ejection.at >= self._void_before(ejection, side)

    def _void_before(self, ejection: Ejection, side: Scope | None = None) -> float:
        returned = {name: self._sides[side or name].returned_at for name in (SUBMITS, READS)}
        return ejection.void_before(self.restored_at, returned)
