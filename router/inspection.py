"""Looking in: why a deployment would be picked, what is known of it, what the fleet is doing."""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from router import operations
from router.balancing.choice import LAST
from router.balancing.lowest_cost import in_words
from router.engine import Engine
from router.errors import (
    BadRequestError,
    InvalidIdError,
    NotFoundError,
    RouterError,
    StateUnavailableError,
)
from router.fleet import DOLLAR, Member
from router.ids import Copy, Kind, checked_native, decode_litellm
from router.leases import Job, Need, Release, holder_of
from router.messages import InvalidBody, Reply, Request
from router.observations import HTTP, JOB, Change, Latency, Series
from router.operations import Call, Demand
from router.ownership import Owned, owned_by, route_of
from router.providers import Bound
from router.reporting import id_of
from router.selection import Obstacle, Question, Tier, explain, tiers
from router.spending import Spending
from router.state import Picture
from router.transport import Patience, Unanswered
from router.trip import Side
from router.types import Operation, Video, length_in

__all__ = [
    "AccountView",
    "DeploymentView",
    "Explained",
    "Explanation",
    "Hold",
    "IdDescription",
    "JobView",
    "Out",
    "Overview",
    "Probe",
    "Room",
    "described",
    "explained",
    "holds",
    "known_of",
    "locate",
    "observe",
    "overview",
    "probe",
    "release",
    "spent_by",
]

# What a call carries; none of it decides where the call goes.
_CARRIED = frozenset(
    {"prompt", "name", "replicate", "to", "limit", "after", "order", "idempotency_key"}
)


class Explained(NamedTuple):
    """One deployment's part in a pick. `facts` hold what was known of it."""

    deployment: str
    verdict: str
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who would serve a call now, and why the others would not."""

    operation: str
    candidates: list[Explained]

    @property
    def picked(self) -> str | None:
        return next((c.deployment for c in self.candidates if c.verdict == "picked"), None)


@dataclass(frozen=True, slots=True)
class IdDescription:
    """What one of our ids says, and whether its accounts are configured here."""

    kind: str
    copies: tuple[Copy, ...]
    signed: bool
    known: bool


def explained(
    engine: Engine,
    operation: Operation | str,
    arguments: Mapping[str, Any],
) -> Explanation:
    """The verdict on each deployment for a call with these arguments."""
    named = {k: v for k, v in arguments.items() if k not in _CARRIED}
    call = operations.routing_only(operation, **named)
    fleet, now = engine.fleet, engine.now()
    route = route_of(call, fleet, owned_by(call, fleet))
    # A generator of its own, so that looking does not change what comes next.
    chance = random.Random(now)
    demand = Demand.of(call)
    by_cost = fleet.config.settings.strategy == "lowest-cost"
    told = functools.partial(_by_cost, demand) if by_cost else _by_time_or_load
    question: Question[Member] = Question(route, demand, fleet.strategy, now, chance, told=told)
    return Explanation(
        str(call.operation),
        [
            Explained(
                member.deployment.id,
                obstacle.verdict,
                obstacle.reason,
                {
                    "account": member.deployment.account,
                    "order": member.deployment.order,
                    "weight": member.deployment.weight,
                    "score": score,
                    "cost": _cost(member, call),
                    **known_of(member, now),
                },
            )
            for member, obstacle, score in _verdicts(engine, question, call)
        ],
    )


def _cost(member: Member, call: Call[Any]) -> float | None:
    sent = member.sent(call)
    return member.deployment.cost(sent.size, length_in(sent.seconds))


# A score is several things in one number, which nobody can read.


def _by_cost(demand: Demand, member: Member, score: float) -> str:
    return in_words(member, demand, score)


def _by_time_or_load(member: Member, score: float) -> str:
    return f"{score % LAST:.4g}{' (with hardly any room)' if score >= LAST else ''}"


_Verdicts = list[tuple[Member, Obstacle, float | None]]
_IN_THE_WAY = frozenset({"picked", "lost", "tier"})


def _verdicts(engine: Engine, question: Question[Member], call: Call[Any]) -> _Verdicts:
    """Selection's verdicts; whoever could serve and has no room gives way to the next."""
    fleet, route = engine.fleet, question.route
    known = list(fleet.members.values())
    every = tiers(known, route)
    judged = explain(known, every, question)
    full: dict[Member, Obstacle] = {}
    for member, obstacle, _ in judged:
        lacking = _lacking(engine, member, call)
        if lacking is not None and obstacle.verdict in _IN_THE_WAY:
            full[member] = lacking
    if not full:
        return judged
    others = [member for member in known if member not in full]
    left = (Tier.of(m for m in tier.candidates if m not in full) for tier in every)
    rest = explain(others, [tier for tier in left if tier.candidates], question)
    again = {member: (member, obstacle, score) for member, obstacle, score in rest}
    return [again.get(m) or (m, full[m], score) for m, _, score in judged]


_TAKEN = {
    "jobs": "running jobs are taken",
    "requests": "requests in flight are taken",
    "rpm": "submits of any 60 seconds are used",
    "read_rpm": "reads of any 60 seconds are used",
}


def _lacking(engine: Engine, member: Member, call: Call[Any]) -> Obstacle | None:
    """What a member that could serve lacks: a price that is low enough, or room."""
    demand, max_cost = Demand.of(member.sent(call)), call.max_cost
    cost = member.deployment.cost(demand.size, demand.seconds)
    if max_cost is not None and demand.operation.starts_job and (cost is None or cost > max_cost):
        asks = "it names no price" if cost is None else f"it asks ${cost:.6g}"
        return Obstacle("full", f"{asks}, and max_cost is ${max_cost:.6g}")
    lacking = engine.leasing.lacking(member.needs_of(demand))
    return None if lacking is None else _full(*lacking)


def _full(need: Need, taken: int) -> Obstacle:
    kind, owner, _ = need.resource.split(":", 2)
    if need.in_day:
        spent, most = taken / DOLLAR, need.limit / DOLLAR
        return Obstacle("full", f"its account may spend ${most:.4g} a day, and spent ${spent:.4g}")
    of = "its account's" if owner == "account" else "its"
    verdict = "rpm" if need.in_window else "full"
    return Obstacle(verdict, f"all {need.limit} of {of} {_TAKEN[kind]}")


def known_of(member: Member, now: float) -> dict[str, Any]:
    """What is known of a deployment: load, latency by operation, job time, ejections.

    `running` are jobs, of the whole fleet where it shares; `pace` is how many seconds one would
    take now per second of video; `share` is how much of its share of new work it takes, below 1
    right after its return; `on_trial` says that one call is to show first that it is well.

    Latency is in seconds, and job time in seconds per second of video. `mean` and `deviation`
    weigh what is new more; `p50` and `p95` are right within a tenth, and count all samples of the
    last hour or two, for jobs of the last ten or twenty.
    """
    load = member.load
    return {
        "in_flight": load.in_flight,
        "running": load.busy - load.submitting,
        "pace": load.pace(Operation.GENERATION, now),
        "share": member.health.share(Operation.GENERATION, now),
        "on_trial": member.health.on_trial(Operation.GENERATION, now),
        "latency": _times(member, load.latency, HTTP),
        "job_time": _times(member, load.job_time, JOB),
        "ejections": [
            {
                "scope": str(e.scope),
                "seconds": e.until - now,
                "cause": e.cause.value,
                "reason": e.reason,
            }
            for e in member.health.standing(now)
        ],
    }


def spent_by(member: Member, spending: Spending, now: float) -> dict[str, Any]:
    """What was spent at a deployment, in dollars: `spent_today` and `spent_by_day`, in UTC.

    Of the whole fleet where it shares, as far as costs are known: `spent_today` is `None` where
    there is no price, and nothing was spent all the same. What was sent and may have been accepted
    is counted as spent.
    """
    named = member.deployment.id, member.deployment.account
    by_day = {day: spent[named] for day, spent in spending.by_day().items() if named in spent}
    known = member.deployment.cost_per_second is not None
    today = spending.today(now).get(named, 0.0 if known else None)
    return {"spent_today": today, "spent_by_day": by_day}


def _times(member: Member, known: Mapping[str, Latency], series: Series) -> dict[str, Any]:
    return {
        str(operation): {
            "mean": latency.mean,
            "deviation": latency.deviation,
            "count": latency.count,
            "p50": member.load.percentile(series, operation, 0.5),
            "p95": member.load.percentile(series, operation, 0.95),
        }
        for operation, latency in list(known.items())
    }


def described(engine: Engine, text: str) -> IdDescription:
    """What one of our ids says; raises `InvalidIdError` for any other."""
    for kind in (Kind.VIDEO, Kind.CHARACTER):
        if not str(text).startswith(kind.prefix):
            continue
        asset = engine.fleet.read(text, kind)
        if asset is not None:
            known = all(account in engine.fleet.accounts for account in asset.accounts)
            return IdDescription(str(kind), asset.copies, asset.signed, known)
    raise InvalidIdError("this id was not made by a router; `locate` finds the owner of such ids")


def observe(
    engine: Engine, side: Side, video_id: str, status: str | Video | Mapping[str, Any]
) -> None:
    """Take in a job's status, or the video, that somebody else saw."""
    said = {"status": status} if isinstance(status, str) else status
    if not isinstance(said, (Mapping, Video)) or not isinstance(dict(said).get("status"), str):
        raise BadRequestError("status is a word, a Video, or a mapping with a `status`")
    trip = engine.trip(operations.status(video_id), side)
    copy = Copy(*next((a, natives[0]) for a, natives in trip.owned.natives.items()))
    video = Video.tolerant({**dict(said), "id": copy.native_id})
    engine.learning.seen(trip.fleet, copy, id_of(trip, Kind.VIDEO, *copy), video)


async def locate(engine: Engine, side: Side, text: str) -> str:
    """Our id of a native (or LiteLLM) id: each account is asked for it by a free read.

    Raises `NotFoundError` where no account has it, or the error of an account that could not be
    asked, when the others have it not.
    """
    text = operations.id_in(text)
    for kind in (Kind.VIDEO, Kind.CHARACTER):
        if text.startswith(kind.prefix):
            engine.fleet.codec.decode(text, kind)
            return text
    foreign = decode_litellm(text)
    native = checked_native(foreign.native_id if foreign else text)
    kinds = (foreign.kind,) if foreign else _likely_kinds(native)
    asked = [
        _ask(engine, side, account, native, kind)
        for kind in kinds
        for account in engine.fleet.accounts
    ]
    results = await side.door.together(asked)
    found = [result for result in results if isinstance(result, str)]
    if found:
        return found[0]
    failed = [r for r in results if isinstance(r, RouterError) and not _says_no(r)]
    if failed:
        raise failed[0]
    raise NotFoundError(f"no account has {native!r}", operation="locate")


def _likely_kinds(native: str) -> tuple[Kind, ...]:
    if native.startswith("char"):
        return (Kind.CHARACTER,)
    if native.startswith("video"):
        return (Kind.VIDEO,)
    return (Kind.VIDEO, Kind.CHARACTER)


def _says_no(error: RouterError) -> bool:
    # An account whose providers have no such read has nothing of the kind either.
    return isinstance(error, (NotFoundError, NotImplementedError))


async def _ask(
    engine: Engine, side: Side, account: str, native: str, kind: Kind
) -> str | RouterError:
    character = kind is Kind.CHARACTER
    operation = Operation.GET_CHARACTER if character else Operation.STATUS
    call: Call[Any] = Call(operation=operation, ids=(native,), account=account)
    # The owner is a guess to be tried, so the id is not read as one that a caller vouches for.
    guess = Owned((account,), {account: (native,)})
    try:
        answer = await engine.run(call, side, owned=guess)
    except RouterError as error:
        return error
    return str(answer.id)


# The fleet as a whole ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Out:
    """An ejection in force: what it covers, and for how many seconds more."""

    scope: str
    cause: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Room:
    """A limit (`jobs`, `requests`, `rpm` or `read_rpm`), and how much of it is taken."""

    kind: str
    taken: int
    limit: int


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A deployment as the fleet sees it. `known` is as in `Router.statistics`."""

    id: str
    account: str
    provider: str
    model_names: tuple[str, ...]
    weight: float
    out: tuple[Out, ...]
    running: int
    rooms: tuple[Room, ...]
    known: Mapping[str, Any]

    @property
    def busiest(self) -> str | None:
        """The operation with the most samples."""
        latency = self.known["latency"]
        return max(latency, key=lambda name: latency[name]["count"], default=None)


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account: the jobs that run there, and what is taken of its limits.

    `spent_today` is in dollars, since midnight UTC, `None` where no cost is known; `cost_per_day`
    is how much it may spend at most, `None` for any sum.
    """

    id: str
    running: int
    rooms: tuple[Room, ...]
    spent_today: float | None = None
    cost_per_day: float | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job or an asset that was accepted. `id` is ours; `slot` is for how many seconds more it
    holds a slot unless it is seen again, `None` where it holds none."""

    id: str
    account: str
    native_id: str
    deployment: str
    operation: str
    worker: str
    accepted_at: float
    seen_at: float
    status: str
    running: bool
    slot: float | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A slot that is taken: `job` is our id, or `None` where nobody knows of a job.

    Then it is a call under way, or a submit whose answer was lost: `holder` is its token.
    """

    resource: str
    holder: str
    seconds: float
    job: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """What the fleet is doing, at a moment of the shared time. `shared`: over all workers."""

    at: float
    shared: bool
    workers: tuple[str, ...]
    deployments: tuple[DeploymentView, ...]
    accounts: tuple[AccountView, ...]
    jobs: tuple[JobView, ...]
    holds: tuple[Hold, ...]
    changes: tuple[Change, ...]


# A store gives out so many changes in a turn, so this ends.
_MOST_TURNS = 1000


def overview(engine: Engine) -> Overview:
    """All that the fleet knows; raises `StateUnavailableError` where its store does not answer.

    Takes turns until there is nothing new to hear, so what this worker had to tell is told too.
    """
    fleet, sharing = engine.fleet, engine.learning.sharing
    limits = {n.resource: n.limit for m in fleet.members.values() for n in _needs(m)}
    try:
        if sharing is not None:
            for _ in range(_MOST_TURNS):
                if not sharing.step():
                    break
        picture = engine.leasing.picture(tuple(limits))
    except OSError as exc:
        raise StateUnavailableError(f"the shared state is out of reach: {exc}") from exc
    jobs = _jobs(engine, picture)
    running = [job for job in jobs if job.running]
    now, spending = engine.now(), engine.learning.spending
    return Overview(
        at=picture.now,
        shared=sharing is not None,
        workers=tuple(picture.workers),
        deployments=tuple(
            _deployment(
                member,
                _rooms("deployment", name, limits, picture),
                sum(job.deployment == name for job in running),
                spent_by(member, spending, now),
                now,
            )
            for name, member in fleet.members.items()
        ),
        accounts=tuple(
            AccountView(
                account,
                sum(job.account == account for job in running),
                _rooms("account", account, limits, picture),
                *_spent(account, fleet.of_account(account), spending, now),
            )
            for account in fleet.accounts
        ),
        jobs=jobs,
        holds=_holds(jobs, picture),
        changes=tuple(picture.changes),
    )


def _spent(
    account: str, members: Collection[Member], spending: Spending, now: float
) -> tuple[float | None, float | None]:
    """What was spent today in an account, and how much may be."""
    spent = [dollars for named, dollars in spending.today(now).items() if named[1] == account]
    known = spent or any(member.deployment.cost_per_second is not None for member in members)
    at_most = next((m.cost_per_day for m in members if m.cost_per_day is not None), None)
    return (round(sum(spent), 6) if known else None), at_most


def _needs(member: Member) -> Iterable[Need]:
    return (need for needs in member.needs.values() for need in needs)


def _rooms(owner: str, name: str, limits: Mapping[str, int], picture: Picture) -> tuple[Room, ...]:
    kinds = ("jobs", "requests", "rpm", "read_rpm")
    resources = {kind: f"{kind}:{owner}:{name}" for kind in kinds}
    return tuple(
        Room(kind, picture.held[resource], limits[resource])
        for kind, resource in resources.items()
        if resource in limits
    )


def _deployment(
    member: Member, rooms: tuple[Room, ...], running: int, spent: Mapping[str, Any], now: float
) -> DeploymentView:
    deployment = member.deployment
    known = {**known_of(member, now), **spent}
    out = tuple(Out(**ejection) for ejection in known["ejections"])
    return DeploymentView(
        deployment.id,
        deployment.account,
        deployment.provider,
        deployment.model_names,
        deployment.weight,
        out,
        running,
        rooms,
        known,
    )


def _jobs(engine: Engine, picture: Picture) -> tuple[JobView, ...]:
    slots: dict[str, float] = {}
    for holders in picture.holders.values():
        slots.update(holders)
    return tuple(_job(engine, job, slots.get(job.holder), picture.now) for job in picture.jobs)


def _job(engine: Engine, job: Job, slot: float | None, now: float) -> JobView:
    character = job.operation == Operation.CREATE_CHARACTER
    kind = Kind.CHARACTER if character else Kind.VIDEO
    member = engine.fleet.members.get(job.deployment)
    # Who has not been seen for so long is not counted on any more.
    forgotten = member is not None and job.seen_at < now - member.job_ttl
    return JobView(
        engine.fleet.codec.encode(kind, (Copy(job.account, job.native_id),)),
        job.account,
        job.native_id,
        job.deployment,
        job.operation,
        job.worker,
        job.accepted_at,
        job.seen_at,
        job.status,
        not (character or forgotten or _is_final(job.status)),
        slot,
    )


@functools.lru_cache(maxsize=256)
def _is_final(status: str) -> bool:
    video = Video(id="-", status=status)
    return video.done or video.failed or status == "gone"


def _holds(jobs: Iterable[JobView], picture: Picture) -> tuple[Hold, ...]:
    known = {holder_of(job.account, job.native_id): job.id for job in jobs}
    return tuple(
        Hold(resource, holder, seconds, known.get(holder))
        for resource, holders in picture.holders.items()
        for holder, seconds in holders.items()
    )


def holds(engine: Engine, text: str) -> tuple[Hold, ...]:
    """The slots that a job holds, by our id or its native one, or a token, by itself."""
    seen = overview(engine)
    try:
        named: Collection[str] = {holder_of(*copy) for copy in described(engine, text).copies}
    except InvalidIdError:
        if text.startswith(tuple(kind.prefix for kind in Kind)):
            raise
        named = {text} | {
            holder_of(j.account, j.native_id) for j in seen.jobs if j.native_id == text
        }
    return tuple(hold for hold in seen.holds if hold.holder in named)


def release(engine: Engine, text: str) -> tuple[Hold, ...]:
    """Give back what `holds` tells of; returns what was given back."""
    given_back = holds(engine, text)
    resources: dict[str, list[str]] = {}
    for hold in given_back:
        resources.setdefault(hold.holder, []).append(hold.resource)
    for holder, held in resources.items():
        engine.leasing.order(Release(holder, tuple(held)))
    if given_back:
        overview(engine)
    return given_back


# Asking -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """What a deployment answered to a free read; `operation` is `None` where it has none.

    `status` is `None` where no answer came, and `trouble` what is wrong, in words; `None` if
    nothing is.
    """

    deployment: str
    operation: str | None
    status: int | None
    seconds: float
    trouble: str | None


PROBE_SECONDS = 10.0
_UNKNOWN_ID = "video_router_asks_for_nobody"
_FREE: Mapping[Operation, Call[Any]] = {
    Operation.LIST: Call(operation=Operation.LIST, limit=1),
    Operation.STATUS: Call(operation=Operation.STATUS, ids=(_UNKNOWN_ID,)),
    Operation.GET_CHARACTER: Call(operation=Operation.GET_CHARACTER, ids=(_UNKNOWN_ID,)),
}
# What says that the read is not there, and nothing of the deployment.
_LACKING = (404, 405, 501)


async def probe(engine: Engine, side: Side) -> list[Probe]:
    """Ask each deployment by one free read, or two, whether it is there and takes our key.

    Nothing is learned from it, no limit is asked for room, and nothing is started or paid.
    """
    return await side.door.together(
        [_probe(engine, side, member) for member in engine.fleet.members.values()]
    )


async def _probe(engine: Engine, side: Side, member: Member) -> Probe:
    name, answered = member.deployment.id, None
    for operation, call in _FREE.items():
        if operation in member.deployment.operations:
            answered = await _probed(engine, side, member, call)
            if answered.status not in _LACKING:
                return answered
    return answered or Probe(name, None, None, 0.0, None)


async def _probed(engine: Engine, side: Side, member: Member, call: Call[Any]) -> Probe:
    deployment, clock = member.deployment, engine.clock
    bound = Bound(call, deployment, call.ids)
    started = clock.monotonic()
    status: int | None = None
    try:
        request: Request = member.provider.request(bound)
        request.headers = {**member.headers, **request.headers}
        connect = min(engine.fleet.config.settings.connect_timeout, PROBE_SECONDS)
        patience = Patience(connect, PROBE_SECONDS, PROBE_SECONDS)
        reply = await side.transport.exchange(request, patience, None, fresh=False)
        status = reply.status
        trouble = _trouble(member, bound, request, reply)
    except Unanswered as exc:
        trouble = f"{exc.fault.value}: {exc}" if str(exc) else exc.fault.value
    except (InvalidBody, ValueError) as exc:
        trouble = f"its answer is not one of this API: {exc}"
    seconds = clock.monotonic() - started
    # Words of the other side's may quote a key.
    told = None if trouble is None else deployment.redact(trouble)[:300]
    return Probe(deployment.id, str(call.operation), status, seconds, told)


def _trouble(member: Member, bound: Bound, asked: Request, reply: Reply) -> str | None:
    """What an answer to a free read says against its deployment."""
    if 200 <= reply.status < 300:
        read = asked.reader or functools.partial(member.provider.answer, bound)
        read(reply)
        return None
    body = member.provider.error(reply)
    if bound.call.ids and (body.means or reply.status) in (400, 404, 422):
        return None  # it knows us, and not whom we ask for
    said = body.message.strip()
    return f"it answered {reply.status}: {said}" if said else f"it answered {reply.status}"
