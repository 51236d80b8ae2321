"""The one path of a call.

    describe ── who may serve it ── pick ── build ── send ── judge ── answer
                 (fleet, ids)        ▲                         │
                                     └──────── again ──────────┴── error

A call arrives as a description. The fleet says who may serve it, by the groups it names and by the
accounts that own what it names. `_attempt` makes one pass: it picks a deployment from memory, lets
the provider build the request, sends it, and asks the outcome table what that taught. The table
says whether there may be another pass; `retry` counts them. What was learned is in force before
the next pick, of this call or any other.

Everything is written once, as coroutines; the side that a call came in by (`Side`) knows how to
send, to sleep, and to do several things at once. Nothing in here reads a global clock.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from router import errors
from router.balancing import draw
from router.errors import Accepted, RouterError
from router.fleet import Fleet, Member
from router.ids import Copy
from router.learning import Learning
from router.leases import Job
from router.leasing import Asking, Leasing, job_of
from router.messages import NOTHING_SAID, ErrorBody, InvalidBody, Reply, Request
from router.observations import Cause, Ejection
from router.operations import Call, Upload, opened
from router.outcomes import Effect, Exchange, Fault, Outcome, judge, seconds_in
from router.ownership import Owned, owned_by, route_of
from router.providers import Bound
from router.reporting import (
    attempted,
    error_of,
    full,
    nobody,
    own,
    picked,
    reason_of,
    request_id_of,
    too_late,
    videos_in,
    with_routing,
)
from router.retry import Again, RetryBudget, back_off, retrying
from router.selection import choose, rank
from router.transport import Patience, Sink, SinkFailed, Unanswered
from router.trip import Side, Trip
from router.types import Answer, AttemptRecord, Clock, Operation, VideoDeleted

__all__ = ["Engine"]

AnswerT = TypeVar("AnswerT")

# A lease that nobody settles lapses so long after the call's deadline.
LAPSE_SECONDS = 30.0
ASK_AGAIN_SECONDS = 0.25
LOOK_SECONDS = 5.0
# Seconds of video, where the call names none.
USUAL_LENGTH = 4.0


class Downloaded(Answer):
    """The answer to a download: its bytes went to the sink."""


def _downloaded(reply: Reply) -> Downloaded:
    if reply.status != 200:
        raise errors.VideoNotReadyError(f"{reply.status} in place of the video")
    if reply.is_text:
        raise InvalidBody("text in place of the video")
    return Downloaded()


class Engine:
    """Runs calls over a fleet. Safe under threads, tasks, and several event loops."""

    def __init__(
        self,
        fleet: Fleet,
        learning: Learning,
        *,
        clock: Clock,
        now: Callable[[], float],
        rng: random.Random,
        leasing: Leasing,
    ) -> None:
        self.fleet = fleet
        self.learning = learning
        self.leasing = leasing
        self.on_call: Callable[[], object] = lambda: None
        self.clock = clock
        self.now = now
        self._rng = rng
        self._budget = RetryBudget()

    def after_fork(self) -> None:
        """In a child process: no lock is held, and nothing is in flight."""
        self._budget.after_fork()
        self.learning.after_fork()
        self.leasing.after_fork()
        for member in self.fleet.members.values():
            member.load.in_flight = 0

    # The path -----------------------------------------------------------------------------------

    async def run(
        self,
        call: Call[AnswerT],
        side: Side,
        *,
        sink: Sink | None = None,
        upload: Upload | None = None,
        owned: Owned | None = None,
    ) -> AnswerT:
        """One call, from description to answer, with our ids and its routing.

        `sink` takes a download. `upload` is the call's file where it has been opened before, and
        `owned` its owners where they are known.
        """
        trip = self.trip(call, side, owned)
        trip.sink = sink
        self._budget.called()
        if call.upload is None or upload is not None:
            trip.upload = upload
            answer = await self._served(trip)
        else:
            async with opened(call.upload, side.door, lambda: self.left(trip)) as trip.upload:
                answer = await self._served(trip)
        return cast("AnswerT", answer)  # the operation of a Call[T] is one that answers T

    async def _served(self, trip: Trip) -> Answer:
        try:
            return await self._attempt(trip)
        except Again as first:
            return await self._go_on(trip, first)

    def trip(self, call: Call[Any], side: Side, owned: Owned | None = None) -> Trip:
        """A call with its owners found; raises where the configuration or an id forbids it."""
        self.on_call()
        fleet = self.fleet
        started = self.clock.monotonic()
        owned = owned or owned_by(call, fleet)
        route = route_of(call, fleet, owned)
        return Trip(
            call=call,
            side=side,
            fleet=fleet,
            route=route,
            tiers=fleet.tiers(route),
            owned=owned,
            started=started,
            deadline=started + self.patience(call),
        )

    def patience(self, call: Call[Any]) -> float:
        """Seconds that a call may take."""
        return call.deadline or self.fleet.config.settings.deadline

    async def _go_on(self, trip: Trip, first: Again) -> Answer:
        limit = trip.call.retries
        return await retrying(
            first,
            lambda: self._attempt(trip),
            retries=trip.fleet.config.settings.retries if limit is None else limit,
            budget=self._budget,
            wait=lambda attempt: self._wait_before(trip, attempt),
            too_late=lambda wait: self.clock.monotonic() + wait >= trip.deadline,
            sleep=trip.side.door.sleep,
        )

    async def _attempt(self, trip: Trip) -> Answer:
        """One pass: pick, build, send, judge. Raises `Again` where another may follow."""
        member = await self.pick(trip)
        natives = trip.owned.natives_in(member.deployment.account)
        bound = Bound(trip.call, member.deployment, natives, trip.upload)
        try:
            request = self._request(trip, bound, member)
        except BaseException:
            self.leasing.settle(trip.lease, "no")
            raise
        started = self.clock.monotonic()
        try:
            with self.learning.in_flight(member):
                exchange, answer, cause = await self._exchange(trip, bound, member, request)
        except BaseException as exc:
            self._ended(trip, member, request, exc, self.clock.monotonic() - started)
            raise
        outcome = judge(exchange)
        seconds = self.clock.monotonic() - started
        self._record(trip, member, exchange, outcome, seconds)
        if outcome.error is None:
            if answer is None:  # a repeated delete that found nothing left to delete
                answer = VideoDeleted(id=bound.native)
            return self._answered(trip, member, answer, exchange)
        asked_after = trip.operation in (Operation.STATUS, Operation.DELETE)
        if asked_after and outcome.error is errors.NotFoundError and outcome.eject is None:
            self.learning.gone(trip.fleet, Copy(member.deployment.account, bound.native))
        error = error_of(trip, member, exchange, outcome, cause)
        if not outcome.again:
            raise error from cause
        if self._is_late(trip):
            raise too_late(trip) from error
        error.__cause__ = cause
        trip.failed = error
        raise Again(error, surely_refused=not request.sent_whole or exchange.status is not None)

    # Picking ------------------------------------------------------------------------------------

    async def pick(self, trip: Trip) -> Member:
        """The deployment of the next attempt. From memory; waits only where a read may."""
        while True:
            self.left(trip)
            limited = trip.fleet.is_limited(trip.operation)
            member = await self._with_room(trip) if limited else self.choose(trip)
            if member is not None:
                trip.tried.append(member)
                self.learning.tell(functools.partial(picked, trip, member, self.now()))
                return member
            wait = self._until_unthrottled(trip)
            if wait is None:
                raise trip.failed or self.nobody(trip)
            await trip.side.door.sleep(wait)

    async def _with_room(self, trip: Trip) -> Member | None:
        """The first of the candidates in whose limits there is room; `None` without candidates."""
        settings = trip.fleet.config.settings
        patience = settings.max_wait if trip.call.max_wait is None else trip.call.max_wait
        until = self.clock.monotonic() + patience
        asking = Asking(trip.operation, self.left(trip) + LAPSE_SECONDS, waits=patience > 0)
        looked, put_out = False, list[Member]()
        while True:
            self.left(trip)
            asking.members = self._ranked(trip, put_out)
            if not asking.members:
                return None
            grant, trip.lease = await self.leasing.ask(trip.side, asking)
            if grant.index is not None:
                member = asking.members[grant.index]
                if self._in_rotation(trip, member):
                    return member
                # Put out while the store was asked: to this call it is as if it had been tried.
                self.leasing.settle(trip.lease, "no")
                put_out.append(member)
                continue
            # The store tells one worker whom to ask after, and nobody for a while after that.
            if grant.unseen and (not looked or self.clock.monotonic() < until):
                looked = True
                await self._look_after(trip, grant.unseen)
                continue
            left = min(until - self.clock.monotonic(), self.left(trip))
            if left <= 0:
                usual = self._usual_job(trip, asking.members)
                raise trip.failed or full(trip, asking.members, grant, self.now(), usual)
            await trip.side.door.sleep(min(ASK_AGAIN_SECONDS, left))

    def _in_rotation(self, trip: Trip, member: Member) -> bool:
        ignoring = trip.route.ignoring
        return member.health.ejection(trip.operation, self.now(), ignoring) is None

    def _ranked(self, trip: Trip, put_out: Sequence[Member]) -> list[Member]:
        scores, now = trip.fleet.strategy, self.now()
        tries = [[*trip.tried, *put_out]]
        if not trip.operation.is_submit:
            tries.append(list(put_out))
        for tried in tries:
            ranked = rank(trip.tiers, trip.route, scores, draw, now=now, rng=self._rng, tried=tried)
            if ranked:
                return ranked
        return []

    async def _look_after(self, trip: Trip, jobs: Sequence[Job]) -> None:
        """Ask how the jobs are that hold what this call needs; each answer is learned from."""
        await trip.side.door.together([self._look(trip, job) for job in jobs])

    async def _look(self, trip: Trip, job: Job) -> None:
        ask: Call[Any] = Call(
            operation=Operation.STATUS,
            ids=(job.native_id,),
            account=job.account,
            retries=0,
            deadline=min(LOOK_SECONDS, max(trip.deadline - self.clock.monotonic(), 0.001)),
        )
        owner = Owned((job.account,), {job.account: (job.native_id,)})
        with contextlib.suppress(RouterError):
            await self.run(ask, trip.side, owned=owner)

    def _usual_job(self, trip: Trip, members: Sequence[Member]) -> float | None:
        """Seconds that a job like this one usually takes at the quickest of these."""
        length = seconds_in(trip.call.seconds) or USUAL_LENGTH
        known = [time.mean * length for m in members for time in m.load.job_time.values()]
        return min(known, default=None)

    def choose(self, trip: Trip) -> Member | None:
        """Who serves next; a read may go to a deployment again, a submit never does."""
        found = self._chosen(trip, trip.tried)
        if found is None and trip.tried and not trip.operation.is_submit:
            found = self._chosen(trip, ())
        return found

    def _chosen(self, trip: Trip, tried: Sequence[Member]) -> Member | None:
        scores, now = trip.fleet.strategy, self.now()
        return choose(trip.tiers, trip.route, scores, draw, now=now, rng=self._rng, tried=tried)

    def _wait_before(self, trip: Trip, attempt: int) -> float:
        """Seconds before another attempt: none for another deployment, a back-off for the same."""
        if trip.operation.is_submit or self._chosen(trip, trip.tried) is not None:
            return 0.0
        nobody_left = self._chosen(trip, ()) is None
        return 0.0 if nobody_left else back_off(attempt, self._rng)

    def _until_unthrottled(self, trip: Trip) -> float | None:
        """Seconds until a read may be sent again, where it is throttled and that is soon enough."""
        if trip.operation.is_submit:
            return None
        now = self.now()
        ends = [e.until for e in self._ejections(trip).values() if e.cause is Cause.THROTTLED]
        if not ends or self.clock.monotonic() + min(ends) - now >= trip.deadline:
            return None
        return max(min(ends) - now, 0.0)

    def _ejections(self, trip: Trip) -> dict[str, Ejection]:
        now = self.now()
        found = {
            m.deployment.id: m.health.ejection(trip.operation, now, trip.route.ignoring)
            for m in trip.fleet.candidates(trip.route)
        }
        return {name: ejection for name, ejection in found.items() if ejection is not None}

    # Sending ------------------------------------------------------------------------------------

    def _request(self, trip: Trip, bound: Bound, member: Member) -> Request:
        try:
            request = member.provider.request(bound)
            if trip.call.extra_query:
                request.add_query(trip.call.extra_query)
        except (TypeError, ValueError, RecursionError) as exc:
            why = f"the call cannot be written as a request: {exc}"
            raise errors.BadRequestError(why, **trip.facts(member)) from exc
        given = {name.lower(): value for name, value in (trip.call.extra_headers or {}).items()}
        request.headers = {**member.headers, **request.headers, **given}
        return request

    async def _exchange(
        self, trip: Trip, bound: Bound, member: Member, request: Request
    ) -> tuple[Exchange, Answer | None, Exception | None]:
        """Send, and read what comes: the facts for the table, the answer, and a foreign cause."""
        provider = member.provider
        reply = Reply(0, {})
        answer: Answer | Request = request
        try:
            while isinstance(answer, Request):
                asked = answer
                reply = await self._send(trip, bound, asked)
                request.sent_whole = True
                if not 200 <= reply.status < 300:
                    said = provider.error(reply).without(member.deployment.redact)
                    return self._happened(trip, member, reply, body=said), None, None
                answer = _downloaded(reply) if asked.download else provider.answer(bound, reply)
        except Unanswered as exc:
            sent = request.sent_whole
            return self._happened(trip, member, None, fault=exc.fault, sent=sent), None, exc
        except InvalidBody as exc:
            # Without its frames, which hold the body: an error may outlive its call by a while.
            unread = exc.with_traceback(None)
            return self._happened(trip, member, reply, invalid=str(exc)), None, unread
        # Success asks nothing of the table but that it was one.
        happened = Exchange(
            trip.operation, status=reply.status, headers=reply.headers, at=self.now()
        )
        return happened, answer, None

    async def _send(self, trip: Trip, bound: Bound, request: Request) -> Reply:
        settings = trip.fleet.config.settings
        left = max(trip.deadline - self.clock.monotonic(), 0.001)
        timeout = trip.call.timeout or bound.deployment.timeout or settings.timeout
        # A JSON call is bounded as a whole; where many bytes move, only their silence is.
        moving = request.download or request.body.uploads
        whole = left if moving else min(timeout, left)
        patience = Patience(settings.connect_timeout, timeout, whole)
        fresh = trip.operation.is_submit
        return await trip.side.transport.exchange(request, patience, trip.sink, fresh=fresh)

    def _happened(
        self,
        trip: Trip,
        member: Member,
        reply: Reply | None,
        *,
        body: ErrorBody | None = None,
        fault: Fault | None = None,
        invalid: str | None = None,
        sent: bool = True,
    ) -> Exchange:
        return Exchange(
            trip.operation,
            status=reply.status if reply is not None else None,
            headers=reply.headers if reply is not None else {},
            body=body or NOTHING_SAID,
            fault=fault,
            invalid=invalid,
            sent_whole=sent,
            names_id=bool(trip.call.ids),
            worked_before=self.learning.has_worked(member.deployment.account, trip.operation),
            sent_before=trip.may_have_arrived,
            retry_on_5xx=member.deployment.retry_on_5xx,
            throttled_in_a_row=member.health.throttled_in_a_row(trip.operation),
            deadline_passed=self._is_late(trip),
            at=self.now(),
        )

    # After --------------------------------------------------------------------------------------

    def _record(
        self, trip: Trip, member: Member, exchange: Exchange, outcome: Outcome, seconds: float
    ) -> None:
        deployment = member.deployment
        if outcome.error is not None:
            self.leasing.settle(trip.lease, outcome.accepted)
        trip.may_have_arrived = trip.may_have_arrived or exchange.sent_whole
        self.learning.learn(
            trip.fleet,
            member,
            trip.operation,
            outcome,
            seconds,
            unreachable=exchange.fault is Fault.CONNECT,
            reason=reason_of(exchange, outcome) if outcome.eject else "",
        )
        request_id = request_id_of(member, exchange)
        trip.attempts.append(
            AttemptRecord(
                deployment.id,
                deployment.account,
                seconds,
                exchange.status,
                outcome.result,
                request_id,
            )
        )
        status, now = exchange.status, exchange.at
        self.learning.tell(lambda: attempted(trip, member, outcome, status, seconds, now))

    def _answered(self, trip: Trip, member: Member, answer: Answer, exchange: Exchange) -> Answer:
        """The provider's answer with our ids and its routing; what it says of jobs is noted."""
        account = member.deployment.account
        copies = [Copy(account, video.id) for video in videos_in(answer)]
        own(trip, member, answer)
        if not trip.operation.starts_job:
            self.leasing.settle(trip.lease, "no")
        if trip.operation is Operation.DELETE:
            self.learning.gone(trip.fleet, Copy(account, trip.owned.natives_in(account)[0]))
        for copy, video in zip(copies, videos_in(answer), strict=True):
            if trip.operation.starts_job:
                self.accepted(trip, member, copy, video.status)
            # A page tells of the past; only what somebody asks after is news.
            if trip.operation is not Operation.LIST:
                self.learning.seen(trip.fleet, copy, video.id, video)
        seconds = self.clock.monotonic() - trip.started
        return with_routing(trip, member, answer, exchange.headers, seconds)

    def accepted(self, trip: Trip, member: Member, copy: Copy, status: str) -> None:
        """A job was accepted: it takes over the slot that its submit held."""
        self.learning.submitted(copy, member)
        worker = self.learning.sharing.worker if self.learning.sharing else ""
        job = job_of(copy, member, trip.operation, status, worker, self.now())
        self.leasing.settle(trip.lease, "yes", job)

    def reported(
        self,
        trip: Trip,
        member: Member,
        reply: Reply | None,
        body: ErrorBody,
        fault: Fault | None,
        seconds: float,
        *,
        failed: bool,
    ) -> RouterError:
        """Take in an exchange that the caller made; the error that it amounts to."""
        odd = "reported as failed" if failed and reply and reply.status < 300 else None
        exchange = self._happened(trip, member, reply, body=body, fault=fault, invalid=odd)
        outcome = judge(exchange)
        self._record(trip, member, exchange, outcome, seconds)
        return error_of(trip, member, exchange, outcome)

    def _ended(
        self, trip: Trip, member: Member, request: Request, exc: BaseException, seconds: float
    ) -> None:
        """The attempt ended by neither answer nor fault of the deployment's."""
        if isinstance(exc, (RouterError, SinkFailed)):
            # It answered: what the answer says, or where it was to go, is another matter.
            exchange = self._happened(trip, member, Reply(200, {}))
            self._record(trip, member, exchange, judge(exchange), seconds)
            self.leasing.settle(trip.lease, "no")
            if isinstance(exc, RouterError):
                exc.message = member.deployment.redact(exc.message)
                exc.args = (exc.message,)
                vars(exc).update(trip.facts(member))
            return
        reached = trip.operation.is_submit and request.sent_whole
        self.left_by_caller(trip, member, seconds, reached=reached)

    def left_by_caller(self, trip: Trip, member: Member, seconds: float, *, reached: bool) -> None:
        """The caller was cancelled: the exchange would have taken at least so long."""
        accepted: Accepted = "maybe" if reached else "no"
        outcome = Outcome("cancelled", Effect.AT_LEAST, accepted)
        self.leasing.settle(trip.lease, accepted)
        self.learning.learn(trip.fleet, member, trip.operation, outcome, seconds)
        now = self.now()
        self.learning.tell(lambda: attempted(trip, member, outcome, None, seconds, now))

    def nobody(self, trip: Trip) -> RouterError:
        """The error of a call for which nobody is in rotation."""
        return nobody(trip, self._ejections(trip), self.now())

    def left(self, trip: Trip) -> float:
        """Seconds of the deadline that are left; raises when there are none."""
        left = trip.deadline - self.clock.monotonic()
        if left <= 0:
            raise too_late(trip)
        return left

    def _is_late(self, trip: Trip) -> bool:
        # Timers may go off a moment early; a call has no use for its last millisecond.
        return self.clock.monotonic() >= trip.deadline - 0.001
