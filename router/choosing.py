"""Who serves a call next: from memory where it can be, else with the store's word; else a wait.

in rotation? ──nobody──► out by failures alone? ──nobody──► back soon? ──no──► the error says who
     │ some                    │ some                          │ yes           is out, and why
     ▼                         ▼                               ▼
limits, or a trial? ──yes──► room? ──no──► ask after old jobs, wait, ask again; CapacityError
     │ no                      │ yes
     └─────────────────────────┴──► the deployment of the next attempt
"""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from router.errors import RouterError
from router.fleet import Member
from router.learning import Learning
from router.leases import Grant, Job
from router.leasing import Asking, Leasing
from router.limits import Usual, retry_after, usual
from router.observations import JOB, Cause, Ejection
from router.reporting import full, nobody, picked, too_late, waiting
from router.selection import Question, choose, least_bad, panicked, rank
from router.trip import Trip
from router.types import Clock

__all__ = ["Choosing", "left"]

# A lease that nobody settles lapses so long after the call's deadline.
LAPSE_SECONDS = 30.0
ASK_AGAIN_SECONDS = 0.25
# One slot is enough: of many deployments that are full, not each is asked before a call is refused.
MOST_LOOKS = 4
# How many reads are sent though everybody is out.
LEAST_BAD = 0.1

Look = Callable[[Trip, Job], Coroutine[Any, Any, None]]


def left(trip: Trip, clock: Clock) -> float:
    """Seconds of a call's deadline that are left; raises when there are none."""
    seconds = trip.deadline - clock.monotonic()
    if seconds <= 0:
        raise too_late(trip)
    return seconds


class Choosing:
    """Finds who serves a call. `look` asks how a job is, as any call does. Safe under threads."""

    def __init__(
        self,
        learning: Learning,
        leasing: Leasing,
        *,
        clock: Clock,
        now: Callable[[], float],
        rng: random.Random,
        look: Look,
    ) -> None:
        self._learning = learning
        self._leasing = leasing
        self._clock = clock
        self._now = now
        self._rng = rng
        self._look = look
        self._picks = 0

    async def pick(self, trip: Trip) -> Member:
        """The deployment of the next attempt. From memory; waits only where a read may."""
        while True:
            left(trip, self._clock)
            member = await self._member(trip)
            if member is not None:
                trip.tried.append(member)
                self._picks += 1
                member.load.picked[trip.operation] = self._picks
                self._tell_picked(trip, member)
                trip.waited = 0.0
                return member
            wait = self._until_back(trip)
            if wait is None:
                raise trip.failed or self.nobody(trip)
            self._tell_wait(trip, wait, "throttled", "everybody who may serve is out for a while")
            await trip.side.door.sleep(wait)
            trip.waited += wait

    async def _member(self, trip: Trip) -> Member | None:
        """Who serves next: in rotation and with room, else in a panic, else nobody."""
        limited = trip.fleet.is_limited(trip.operation)
        member = None if limited else self.choose(trip)
        if limited or (member is not None and self._is_on_trial(trip, member)):
            member = await self._with_room(trip)
        if member is None and not trip.tried and not self._owners_submit(trip):
            member = await self._in_panic(trip)
        return member

    @staticmethod
    def _owners_submit(trip: Trip) -> bool:
        return trip.operation.is_submit and trip.route.follow_up

    async def _in_panic(self, trip: Trip) -> Member | None:
        """Where nobody is in rotation: one of those whom failure counting alone keeps out.

        Once in a call, so that a fleet that is down is not sent every call several times. Where
        nobody is left even so, some reads are sent all the same: they are free, and may be heard.
        """
        question = self._question(trip)
        ignoring: tuple[Cause, ...] = (Cause.FAILURES,)
        found = panicked(trip.tiers, question)
        # An owner's read has nowhere else to go: it waits, or its caller hears why not.
        unowned = not trip.operation.is_submit and not trip.call.ids
        if not found and unowned and self._rng.random() < LEAST_BAD:
            found, ignoring = least_bad(trip.tiers, question), tuple(Cause)
        if not found:
            return None
        trip.ignoring = ignoring
        return await self._with_room(trip, found)

    async def _with_room(self, trip: Trip, given: Sequence[Member] = ()) -> Member | None:
        """The first of the candidates in whose limits there is room; `None` without candidates.

        `given` are the only ones, in place of those in rotation.
        """
        patience = self._max_wait(trip)
        until = self._clock.monotonic() + patience
        seconds = left(trip, self._clock) + LAPSE_SECONDS
        asking = Asking(trip.needs_of, seconds, waits=patience > 0)
        with self._leasing.waiting(asking):
            return await self._room(trip, asking, until, given)

    async def _room(
        self, trip: Trip, asking: Asking, until: float, given: Sequence[Member]
    ) -> Member | None:
        looked, told, put_out = False, False, list[Member]()
        while True:
            left(trip, self._clock)
            others = [m for m in given if m not in put_out]
            asking.members = others if given else self._ranked(trip, put_out)
            if not asking.members:
                return None
            asking.trials = [m for m in asking.members if self._is_on_trial(trip, m)]
            asking.last = self._clock.monotonic() >= until
            grant, trip.lease = await self._leasing.ask(trip.side, asking)
            if self._has_trial_elsewhere(asking, grant):
                continue
            if grant.index is not None:
                member = asking.members[grant.index]
                if self._in_rotation(trip, member):
                    return member
                # Put out while the store was asked: to this call it is as if it had been tried.
                self._leasing.settle(trip.lease, "no")
                put_out.append(member)
                continue
            still = min(until - self._clock.monotonic(), left(trip, self._clock))
            if still > 0 and not told:
                told = True
                self._tell_wait(trip, still, "room", "everybody who may serve is at a limit")
            began = self._clock.monotonic()
            # The store tells one worker whom to ask after, and nobody for a while after that.
            if grant.unseen and (not looked or still > 0):
                looked = True
                await self._look_after(trip, grant.unseen)
            elif still > 0:
                await trip.side.door.sleep(min(ASK_AGAIN_SECONDS, still))
            else:
                raise trip.failed or self._full(trip, asking.members, grant)
            trip.waited += self._clock.monotonic() - began

    def _has_trial_elsewhere(self, asking: Asking, grant: Grant) -> bool:
        """Note whose trial another worker has; whether that is all that stood in the way."""
        refused = asking.members if grant.index is None else asking.members[: grant.index]
        now, tested = self._now(), False
        for place, member in enumerate(refused):
            if member in asking.trials and grant.blocked_by(place, member.trial):
                member.health.trial_is_taken(now)
                tested = True
        return tested and grant.index is None

    def _is_on_trial(self, trip: Trip, member: Member) -> bool:
        return member.health.on_trial(trip.operation, self._now())

    def _in_rotation(self, trip: Trip, member: Member) -> bool:
        ignoring = (*trip.route.ignoring, *trip.ignoring)
        return member.health.ejection(trip.operation, self._now(), ignoring) is None

    def _ranked(self, trip: Trip, put_out: Sequence[Member]) -> list[Member]:
        ranked = rank(trip.tiers, self._question(trip, [*trip.tried, *put_out]))
        if trip.tried and not trip.operation.is_submit:
            # Better one that was tried and has room than to wait for one that has none.
            again = rank(trip.tiers, self._question(trip, put_out))
            ranked += [member for member in again if member in trip.tried]
        return ranked

    def _question(self, trip: Trip, tried: Sequence[Member] = ()) -> Question[Member]:
        strategy, now = trip.fleet.strategy, self._now()
        return Question(trip.route, trip.demand, strategy, now, self._rng, tried)

    def _tell_picked(self, trip: Trip, member: Member) -> None:
        try:
            self._learning.tell(functools.partial(picked, trip, member, self._now()))
        except BaseException:
            # What a hook raises to end the process ends the call, before anything was sent.
            self._leasing.settle(trip.lease, "no")
            raise

    def _tell_wait(self, trip: Trip, seconds: float, cause: str, reason: str) -> None:
        self._learning.tell(lambda: waiting(trip, seconds, cause, reason, self._now()))

    async def _look_after(self, trip: Trip, jobs: Sequence[Job]) -> None:
        """Ask how the jobs are that hold what this call needs; each answer is learned from."""
        unseen = sorted(jobs, key=lambda job: job.seen_at)[:MOST_LOOKS]
        await trip.side.door.together([self._look(trip, job) for job in unseen])

    def _full(self, trip: Trip, members: Sequence[Member], grant: Grant) -> RouterError:
        """The error of a call for which nobody has room; it says when there will likely be some."""
        times = self._usual(trip, members)
        later = retry_after(grant, self._now(), times, self._rng, self._leasing.ahead)
        self._leasing.told(later)
        return full(trip, members, grant, later.seconds)

    def _usual(self, trip: Trip, members: Sequence[Member]) -> Usual:
        """How long jobs like this one, and requests, usually take at these."""
        buckets: Counter[int] = Counter()
        for member in members:
            for operation in member.load.job_time:
                buckets.update(member.load.histogram(JOB, operation))
        flights = [m.load.latency.get(trip.operation) for m in members]
        flight = max((known.cost for known in flights if known is not None), default=None)
        return usual(buckets, trip.demand.seconds, flight)

    def choose(self, trip: Trip) -> Member | None:
        """Who serves next; a read may go to a deployment again, a submit never does."""
        found = self.chosen(trip, trip.tried)
        if found is None and trip.tried and not trip.operation.is_submit:
            found = self.chosen(trip, ())
        return found

    def chosen(self, trip: Trip, tried: Sequence[Member]) -> Member | None:
        """The strategy's choice, but for these; `None` where nobody is left."""
        return choose(trip.tiers, self._question(trip, tried))

    def _until_back(self, trip: Trip) -> float | None:
        """Seconds until an owner is back, where that is soon enough to wait for it.

        A read waits out a throttling, as long as its deadline lets it; an owner's submit waits as
        long as a call may wait for a slot, also where the owner is out by failures.
        """
        causes: tuple[Cause, ...] = (Cause.THROTTLED,)
        until, tried = trip.deadline, set[str]()
        if trip.operation.is_submit:
            if not self._owners_submit(trip):
                return None
            # It goes nowhere twice, so nobody waits for who was tried.
            tried = {member.deployment.id for member in trip.tried}
            causes = (Cause.THROTTLED, Cause.FAILURES)
            until = trip.started + self._max_wait(trip)
        now = self._now()
        ejections = self._ejections(trip)
        ends = [e.until for name, e in ejections.items() if e.cause in causes and name not in tried]
        wait = max(min(ends, default=math.inf) - now, 0.0)
        return wait if self._clock.monotonic() + wait < min(until, trip.deadline) else None

    def _max_wait(self, trip: Trip) -> float:
        given = trip.call.max_wait
        return trip.fleet.config.settings.max_wait if given is None else given

    def _ejections(self, trip: Trip) -> dict[str, Ejection]:
        now = self._now()
        found = {
            m.deployment.id: m.health.ejection(trip.operation, now, trip.route.ignoring)
            for tier in trip.tiers
            for m in tier.candidates
        }
        return {name: ejection for name, ejection in found.items() if ejection is not None}

    def nobody(self, trip: Trip) -> RouterError:
        """The error of a call for which nobody is in rotation."""
        return nobody(trip, self._ejections(trip), self._now())
