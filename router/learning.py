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

from router.events import Ejected, Event, JobFinished, OnEvent
from router.fleet import Fleet, Member
from router.ids import Copy
from router.observations import Batch, Cause, Ejection, epoch_of, sample
from router.outcomes import Effect, Eject, Outcome, is_callers_fault
from router.state import Sharing
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
                self._worked.add((member.deployment.account, operation))
                self._latency(member, operation, seconds, now)
            elif outcome.effect is Effect.FAILURE:
                self._latency(member, operation, self._penalised(member, operation, seconds), now)
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

    def _latency(self, member: Member, operation: Operation, seconds: float, now: float) -> None:
        epoch, sums = epoch_of(now), sample(seconds, now)
        member.load.add(operation, epoch, sums)
        if self.sharing is not None:
            self.sharing.tell_latency(member.deployment.id, operation, epoch, sums)

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
        ejection = Ejection(eject.scope, now + eject.seconds, eject.cause, reason)
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
        """A job's status was seen. The first sight of its end is an event, and may be a failure."""
        if not (video.done or video.failed):
            return
        now = self._now()
        with self._lock:
            if copy in self._ended:
                return
            self._ended[copy] = None
            while len(self._ended) > REMEMBERED_JOBS:
                self._ended.popitem(last=False)
            ejected = self._job_failed(fleet, copy, video, now) if video.failed else []
        code = video.error.code if video.error else None
        self.tell(lambda: JobFinished(now, video_id, copy.account, video.status, code))
        self._announce(ejected, now)

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

    def absorb(self, fleet: Fleet, news: Batch) -> None:
        """What another worker learned."""
        members = fleet.members
        with self._lock:
            for (name, operation, epoch), sums in news.latency.items():
                if name in members:
                    members[name].load.add(operation, epoch, sums)
            for (name, *_), ejection in news.ejections.items():
                if name in members:
                    members[name].health.eject(ejection)

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
                self.sharing.tell_ejection(member.deployment.id, ejection)
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
                extra={"deployment": deployments[0].id, "account": deployments[0].account},
            )

    def after_fork(self) -> None:
        """In a child process: nothing of the parent's is under way here, and no lock is held."""
        self._lock = threading.Lock()
        if self.sharing is not None:
            self.sharing.after_fork()


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
