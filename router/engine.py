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
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from router import errors
from router.advising import ADVISED, Advising
from router.choosing import Choosing, left
from router.claiming import Claiming
from router.claims import digest_of
from router.errors import Accepted, RouterError
from router.fleet import Fleet, Member
from router.ids import Copy, Kind
from router.learning import Learning
from router.leases import Job, Settle
from router.leasing import Leasing, job_of
from router.messages import NOTHING_SAID, ErrorBody, InvalidBody, Reply, Request
from router.operations import Call, Demand, Upload, opened
from router.outcomes import Effect, Exchange, Fault, Outcome, judge, seconds_in
from router.ownership import Owned, owned_by, route_of
from router.providers import Bound, Provider
from router.reporting import (
    LEAST_PAUSE,
    LONGEST_PAUSE,
    attempted,
    cost_of,
    error_of,
    id_of,
    made_by,
    own,
    reason_of,
    request_id_of,
    too_dear,
    too_late,
    videos_in,
    with_routing,
)
from router.retry import Again, RetryBudget, back_off, retrying
from router.selection import Tier
from router.tenants import Tenant
from router.transport import Patience, Sink, SinkFailed, Unanswered
from router.trip import Side, Trip
from router.types import (
    Answer,
    AttemptRecord,
    Character,
    Clock,
    Operation,
    Video,
    VideoDeleted,
)

__all__ = ["Engine"]

AnswerT = TypeVar("AnswerT")

LOOK_SECONDS = 5.0
LOOKS_IN_TTL = 3
_DENIED = (401, 403)


def _keep_to_cost(trip: Trip, most: float) -> None:
    """Leave only those who do it for so many dollars. Raises where nobody does."""
    members = [member for tier in trip.tiers for member in tier.candidates]
    costs = {member: trip.cost(member) for member in members}
    cheap = {member for member, cost in costs.items() if cost is not None and cost <= most}
    if not cheap:
        raise too_dear(trip, members)
    kept = (Tier.of(m for m in tier.candidates if m in cheap) for tier in trip.tiers)
    trip.tiers = [tier for tier in kept if tier.candidates]


class Downloaded(Answer):
    """The answer to a download: its bytes went to the sink."""


def _is_news(operation: Operation, video: Video) -> bool:
    """Whether an answer says more of a job than is known.

    A page tells of the past, and that a job begins was booked when it was accepted.
    """
    if operation.starts_job:
        return video.done or video.failed
    return operation is not Operation.LIST


def _sent_key(trip: Trip, member: Member) -> str:
    """By which a provider may know a submit again: the same for all calls under the caller's key.

    Each deployment gets another one, since a provider may refuse one that comes with other
    parameters, and ours are other ones with each model.
    """
    key = trip.call.claim_key or uuid.uuid4().hex
    return digest_of(f"{member.deployment.id}\0{key}")


def _words_of(trip: Trip, member: Member) -> tuple[str, ...]:
    """What of a call's own words an error may quote."""
    call = trip.call
    natives = trip.owned.natives_in(member.deployment.account)
    named = (call.after, call.prompt, call.name, *(call.reference or {}).values())
    return tuple(filter(None, (*natives, *call.ids, *named)))


def _downloaded(reply: Reply) -> Downloaded:
    if reply.status != 200:
        raise errors.VideoNotReadyError(f"{reply.status} in place of the video")
    if reply.is_text:
        raise InvalidBody("text in place of the video")
    return Downloaded()


def _read(
    provider: Provider, bound: Bound, asked: Request, reply: Reply
) -> Answer | Request | None:
    """What a reply says, or what to ask next; `None` for a refusal."""
    if 200 <= reply.status < 300:
        if asked.download:
            return _downloaded(reply)
        return asked.reader(reply) if asked.reader else provider.answer(bound, reply)
    if asked.verdict and asked.reader:
        with contextlib.suppress(InvalidBody):
            return asked.reader(reply)
    return None


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
        claiming: Claiming,
        advising: Advising,
    ) -> None:
        self.fleet = fleet
        self.learning = learning
        self.leasing = leasing
        self.claiming = claiming
        self.advising = advising
        self.on_call: Callable[[], object] = lambda: None
        self.clock = clock
        self.now = now
        self._rng = rng
        self._budget = RetryBudget()
        self.choosing = Choosing(learning, leasing, clock=clock, now=now, rng=rng, look=self._look)

    def after_fork(self) -> None:
        """In a child process: no lock is held, and nothing is in flight."""
        self._budget.after_fork()
        self.learning.after_fork()
        self.leasing.after_fork()
        self.claiming.after_fork()
        self.advising.after_fork()
        for member in self.fleet.members.values():
            member.load.forget_flights()

    # The path -----------------------------------------------------------------------------------

    async def run(
        self,
        call: Call[AnswerT],
        side: Side,
        *,
        sink: Sink | None = None,
        upload: Upload | None = None,
        owned: Owned | None = None,
        part_of: Trip | None = None,
    ) -> AnswerT:
        """One call, from description to answer, with our ids and its routing.

        `sink` takes a download. `upload` is the call's file where it has been opened before, and
        `owned` its owners where they are known. What it is `part_of` has had its advice.
        """
        trip = self.trip(call, side, owned)
        trip.sink = sink
        if part_of is not None:
            trip.advice, trip.clip = part_of.advice, part_of.clip
        self._budget.called()
        if call.upload is None or upload is not None:
            trip.upload = upload
            answer = await self._served(trip)
        else:
            async with opened(call.upload, side.door, lambda: self.left(trip)) as trip.upload:
                answer = await self._served(trip)
        return cast("AnswerT", answer)  # the operation of a Call[T] is one that answers T

    async def _served(self, trip: Trip) -> Answer:
        if trip.operation in ADVISED and trip.advice is None:
            await self.advising.on(trip)
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
        trip = Trip(
            call=call,
            side=side,
            fleet=fleet,
            route=route,
            demand=Demand.of(call),
            tiers=fleet.tiers(route),
            owned=owned,
            started=started,
            deadline=started + self.patience(call),
            held=self.claiming.of(call.claim_key),
        )
        if call.max_cost is not None and call.operation.starts_job:
            _keep_to_cost(trip, call.max_cost)
        return trip

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
        member = await self.choosing.pick(trip)
        natives = trip.owned.natives_in(member.deployment.account)
        call = member.sent(trip.call)
        upload = trip.upload if call.upload is not None else None
        bound = Bound(call, member.deployment, natives, upload)
        try:
            request = self._request(trip, bound, member)
        except BaseException:
            self.leasing.settle(trip.lease, "no")
            raise
        if trip.held is not None:
            self.claiming.sending(trip.held, member, trip.operation)
        started = self.clock.monotonic()
        try:
            with self.learning.in_flight(member, trip.operation):
                exchange, answer, cause = await self._exchange(trip, bound, member, request)
        except BaseException as exc:
            self._ended(trip, member, request, exc, self.clock.monotonic() - started)
            raise
        outcome = judge(exchange)
        seconds = self.clock.monotonic() - started
        if isinstance(answer, Video) and trip.operation.starts_job:
            # Before anybody is told: what a hook raises must not lose a job that is paid for.
            self.accepted(trip, member, Copy(member.deployment.account, answer.id), answer)
        elif isinstance(answer, Character) and trip.held is not None:
            copy = Copy(member.deployment.account, answer.id)
            trip.held.accepted(id_of(trip, Kind.CHARACTER, *copy))
        self._record(trip, member, exchange, outcome, seconds, answer)
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
        if trip.ignoring:
            raise error from cause
        error.__cause__ = cause
        trip.failed = error
        raise Again(error, surely_refused=not request.sent_whole or exchange.status is not None)

    def _wait_before(self, trip: Trip, attempt: int) -> float:
        """Seconds before another attempt: none for another deployment, a back-off for the same."""
        if trip.operation.is_submit or self.choosing.chosen(trip, trip.tried) is not None:
            return 0.0
        nobody_left = self.choosing.chosen(trip, ()) is None
        return 0.0 if nobody_left else back_off(attempt, self._rng)

    async def _look(self, trip: Trip, job: Job) -> None:
        """Ask how a job is that holds what a call needs."""
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
        header = member.deployment.idempotency_header
        if header is not None and trip.operation.is_submit:
            request.headers.setdefault(header, _sent_key(trip, member))
        return request

    async def _exchange(
        self, trip: Trip, bound: Bound, member: Member, request: Request
    ) -> tuple[Exchange, Answer | None, Exception | None]:
        """Send, and read what comes: the facts for the table, the answer, and a foreign cause.

        Where a call takes several exchanges, its preludes are judged as the reads that they are;
        and once a submit was taken on, nothing that goes wrong afterwards lets it be sent again.
        """
        reply = Reply(0, {})
        answer: Answer | Request = request
        asked, taken = request, False

        def met(reply: Reply | None, **facts: Any) -> Exchange:
            sent, look = request.sent_whole, asked.prelude
            return self._happened(trip, member, reply, sent=sent, look=look, **facts)

        try:
            while isinstance(answer, Request):
                if answer is not request and not answer.download:
                    answer.headers = {**request.headers, **answer.headers}
                    answer.add_query(trip.call.extra_query or {})
                asked = answer
                try:
                    reply = await self._send(trip, bound, asked)
                    asked.sent_whole = True
                finally:
                    request.sent_whole = taken or (asked.sent_whole and not asked.prelude)
                read = _read(member.provider, bound, asked, reply)
                if read is None:
                    said = member.provider.error(reply).without(member.deployment.redact)
                    if asked.by_link and reply.status in _DENIED:
                        # Nobody has said there who asks: the link is at fault, and no key.
                        said = replace(said, means=404)
                    if not taken:
                        return met(reply, body=said), None, None
                    why = f"it was accepted; the next look at it got {reply.status}: {said.message}"
                    return met(Reply(200, reply.headers), invalid=why), None, None
                answer, taken = read, taken or (trip.operation.is_submit and not asked.prelude)
        except Unanswered as exc:
            return met(None, fault=exc.fault), None, exc
        except InvalidBody as exc:
            # Without its frames, which hold the body: an error may outlive its call by a while.
            return met(reply, invalid=str(exc)), None, exc.with_traceback(None)
        # Success asks nothing of the table but that it was one; a verdict on a job is one too.
        status = min(reply.status, 299)
        happened = Exchange(trip.operation, status=status, headers=reply.headers, at=self.now())
        return happened, answer, None

    async def _send(self, trip: Trip, bound: Bound, request: Request) -> Reply:
        settings = trip.fleet.config.settings
        if request.pause:
            room = trip.deadline - self.clock.monotonic()
            await trip.side.door.sleep(max(min(request.pause, room), 0.0))
            if self._is_late(trip):
                raise Unanswered(Fault.TIMEOUT, "the deadline passed before the next look")
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
        look: bool = False,
    ) -> Exchange:
        return Exchange(
            Operation.STATUS if look else trip.operation,
            status=reply.status if reply is not None else None,
            headers=reply.headers if reply is not None else {},
            body=body or NOTHING_SAID,
            echoes=() if body is None else _words_of(trip, member),
            fault=fault,
            invalid=invalid,
            sent_whole=sent,
            names_id=trip.call.names_id,
            worked_before=self.learning.has_worked(member.deployment.account, trip.operation),
            sent_before=trip.may_have_arrived,
            retry_on_5xx=member.deployment.retry_on_5xx,
            throttled_in_a_row=member.health.throttled_in_a_row(trip.operation),
            deadline_passed=self._is_late(trip),
            at=self.now(),
        )

    # After --------------------------------------------------------------------------------------

    def _record(
        self,
        trip: Trip,
        member: Member,
        exchange: Exchange,
        outcome: Outcome,
        seconds: float,
        answer: Answer | None = None,
    ) -> None:
        deployment = member.deployment
        trip.may_have_arrived = trip.may_have_arrived or exchange.sent_whole
        try:
            self.learning.learn(
                trip.fleet,
                member,
                trip.operation,
                outcome,
                seconds,
                unreachable=exchange.fault is Fault.CONNECT,
                reason=reason_of(exchange, outcome) if outcome.eject else "",
            )
        finally:
            # After it was learned from: who gets the next trial is to know how this one went.
            if outcome.error is not None:
                self._broke_off(trip, member, outcome.accepted)
            elif not trip.operation.starts_job:
                self.leasing.settle(trip.lease, "no")
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
        self.learning.tell(lambda: attempted(trip, member, outcome, seconds, exchange, answer))

    def _answered(self, trip: Trip, member: Member, answer: Answer, exchange: Exchange) -> Answer:
        """The provider's answer with our ids and its routing; what it says of jobs is noted."""
        account = member.deployment.account
        copies = [Copy(account, video.id) for video in videos_in(answer)]
        native = answer.id if isinstance(answer, Character) else ""
        own(trip, member, answer)
        if trip.operation is Operation.CREATE_CHARACTER:
            self.advising.made(trip, Copy(account, native))
        if trip.operation is Operation.DELETE:
            self.learning.gone(trip.fleet, Copy(account, trip.owned.natives_in(account)[0]))
        for copy, video in zip(copies, videos_in(answer), strict=True):
            if _is_news(trip.operation, video):
                self.learning.seen(trip.fleet, copy, video.id, video)
        seconds = self.clock.monotonic() - trip.started
        poll_after = self._poll_after(member, copies, answer, exchange.headers)
        return with_routing(trip, member, answer, seconds, poll_after)

    def _poll_after(
        self, member: Member, copies: Sequence[Copy], answer: Answer, headers: Mapping[str, str]
    ) -> float | None:
        """When to look at an unfinished job again: the provider's word, else what is usual.

        Often enough, whoever says it, that one lost look loses the job no slot.
        """
        if not isinstance(answer, Video) or answer.done or answer.failed:
            return None
        written = headers.get("openai-poll-after-ms", "")
        seconds = None if written.strip().startswith("-") else seconds_in(written, 0.001)
        if seconds is None:
            seconds = min(self.learning.pause(member, copies[0], answer), LONGEST_PAUSE)
        return max(min(seconds, member.job_ttl / LOOKS_IN_TTL), LEAST_PAUSE)

    def accepted(self, trip: Trip, member: Member, copy: Copy, video: Video | None = None) -> None:
        """A job was accepted, this one as far as known: it takes over its submit's slot."""
        status = video.status if video is not None else "queued"
        _, length = made_by(trip, member, video)
        seconds = trip.demand.seconds if length is None else length
        tenant = trip.call.tenant
        job = self._started(copy, member, trip.operation, status, seconds, tenant)
        if trip.held is not None:
            # Told together with the job: whoever finds one finds the other.
            self.claiming.accepted(trip.held, id_of(trip, Kind.VIDEO, *copy))
        self.leasing.settle(trip.lease, "yes", job, member.job_ttl)
        self._spent(trip, member, video)

    def adopted(
        self,
        copy: Copy,
        deployment: str | None,
        operation: str | None,
        token: str | None,
        tenant: Tenant | None,
    ) -> None:
        """A job was found of which nobody heard that it was accepted: it is booked as one that was.

        It takes over the slot that its submit held under `token`.
        """
        members = self.fleet.of_account(copy.account)
        member = next((m for m in members if m.deployment.id == deployment), members[0])
        started = Operation(operation or Operation.GENERATION)
        job = self._started(copy, member, started, "queued", 0.0, tenant)
        slots = self.fleet.job_resources(copy.account) if token else ()
        self.leasing.order(Settle(token or "", (), slots, member.job_ttl, job))

    def _started(
        self,
        copy: Copy,
        member: Member,
        operation: Operation,
        status: str,
        seconds: float,
        tenant: Tenant | None,
    ) -> Job:
        """The record of a job that this worker knows to run from now on."""
        worker = self.learning.sharing.worker if self.learning.sharing else ""
        whose = tenant.name if tenant is not None else ""
        job = job_of(copy, member, operation, status, worker, self.now(), seconds, whose)
        self.learning.started(member, job)
        return job

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
            try:
                self._record(trip, member, exchange, judge(exchange), seconds)
            finally:
                self._broke_off(trip, member, "no")
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
        self._broke_off(trip, member, accepted)
        self.learning.learn(trip.fleet, member, trip.operation, outcome, seconds)
        gone = Exchange(trip.operation, at=self.now())
        self.learning.tell(lambda: attempted(trip, member, outcome, seconds, gone))

    def _broke_off(self, trip: Trip, member: Member, accepted: Accepted) -> None:
        """An exchange has ended without an answer to return; whether a job may run all the same."""
        self.leasing.settle(trip.lease, accepted)
        if trip.held is not None and accepted == "no":
            self.claiming.refused(trip.held)
        if accepted != "no":
            self._spent(trip, member)

    def _spent(self, trip: Trip, member: Member, answer: Answer | None = None) -> None:
        dollars = cost_of(trip, member, answer)
        if dollars is not None:
            deployment = member.deployment
            self.learning.spent(deployment.id, deployment.account, dollars, self.now())
        if member.cost_per_day is None:
            return
        size, length = made_by(trip, member, answer)
        seconds = trip.demand.seconds if length is None else length
        budget = member.budget(Demand(trip.operation, seconds, size))
        if budget is not None:
            self.leasing.costs(trip.lease, budget)

    def left(self, trip: Trip) -> float:
        """Seconds of the deadline that are left; raises when there are none."""
        return left(trip, self.clock)

    def _is_late(self, trip: Trip) -> bool:
        # Timers may go off a moment early; a call has no use for its last millisecond.
        return self.clock.monotonic() >= trip.deadline - 0.001
