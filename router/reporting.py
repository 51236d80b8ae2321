"""What the caller is told: answers with our ids, errors with the facts, events.

Plain functions of a trip and what happened to it. A provider's own words go out redacted: some say
the key back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from router import errors
from router.claims import digest_of
from router.errors import RouterError
from router.events import Attempted, Picked, Waiting
from router.fleet import Member
from router.ids import Copy, Kind
from router.leases import Grant
from router.observations import Ejection
from router.operations import Call
from router.outcomes import Exchange, Outcome
from router.trip import Trip
from router.types import (
    Answer,
    Character,
    Operation,
    Routing,
    Video,
    VideoDeleted,
    VideoPage,
    length_in,
)

__all__ = [
    "LEAST_PAUSE",
    "LONGEST_PAUSE",
    "POLL_AFTER_SECONDS",
    "attempted",
    "cost_of",
    "error_of",
    "full",
    "id_of",
    "job_failed",
    "made_by",
    "nobody",
    "own",
    "picked",
    "reason_of",
    "request_id_of",
    "too_dear",
    "too_late",
    "traits_of",
    "videos_in",
    "waiting",
    "with_routing",
]

POLL_AFTER_SECONDS = 5.0
LEAST_PAUSE = 0.05
LONGEST_PAUSE = 60.0
"""Seconds between two looks at a job, where the provider does not say when to look."""
# For who is out for good: come back tomorrow, a configuration may have changed by then.
LONGEST_WAIT = 86_400.0
_PORTS = {"http": 80, "https": 443}


# Answers ---------------------------------------------------------------------------------------


def own(trip: Trip, member: Member, answer: Answer) -> None:
    """Replace the native ids of an answer by ours."""
    account = member.deployment.account
    if isinstance(answer, Character):
        answer.id = id_of(trip, Kind.CHARACTER, account, answer.id)
    elif isinstance(answer, VideoDeleted):
        answer.id = id_of(trip, Kind.VIDEO, account, answer.id)
    for video in videos_in(answer):
        video.id = id_of(trip, Kind.VIDEO, account, video.id)
        source = video.remixed_from_video_id
        if source:
            video.remixed_from_video_id = id_of(trip, Kind.VIDEO, account, source)
        if video.error is not None:
            redact = member.deployment.redact
            video.error.code = video.error.code and redact(video.error.code)
            video.error.message = video.error.message and redact(video.error.message)


def videos_in(answer: Answer) -> list[Video]:
    """The videos that an answer tells of."""
    if isinstance(answer, Video):
        return [answer]
    return answer.data if isinstance(answer, VideoPage) else []


def id_of(trip: Trip, kind: Kind, account: str, native: str) -> str:
    """Our id of an asset: the one the caller used for it, if the call named it."""
    copy = Copy(account, native)
    return trip.owned.given.get(copy) or trip.codec.encode(kind, [copy])


def with_routing(
    trip: Trip, member: Member, answer: Answer, seconds: float, poll_after: float | None
) -> Answer:
    """The answer with how it was served, in `seconds` from the call's start."""
    return answer.with_routing(
        Routing(
            deployment=member.deployment.id,
            account=member.deployment.account,
            attempts=tuple(trip.attempts),
            seconds=seconds,
            cost=cost_of(trip, member, answer),
            warnings=_warnings(trip, member),
            poll_after=poll_after,
            metadata=trip.call.metadata,
        )
    )


def _warnings(trip: Trip, member: Member) -> tuple[str, ...]:
    """What the caller may want to know of the call, and of how it was served."""
    advice = trip.advice or ()
    advice += tuple(
        f"{lack.parameter} was dropped: {lack.advice}" for lack in member.dropped(trip.call)
    )
    names, groups = trip.route.names, member.deployment.model_names
    if names is None or set(names) & set(groups):
        return advice
    fell_back = f"nobody of {', '.join(names)} was left: served by the fallback {groups[0]}"
    return (*advice, fell_back)


def cost_of(trip: Trip, member: Member, answer: Answer | None) -> float | None:
    """Dollars for the job that was started; `None` where there is none, or no price.

    By what the answer says of the video, since that is what is made and billed, and else by what
    the call asked for. What is new in an extension only the call knows: its answer tells of the
    stitched whole.
    """
    if not trip.operation.starts_job or member.deployment.cost_per_second is None:
        return None
    return member.deployment.cost(*made_by(trip, member, answer))


def made_by(trip: Trip, member: Member, answer: Answer | None) -> tuple[str | None, float | None]:
    """The size and the seconds of the video that is new, as far as they are known."""
    sent = member.sent(trip.call)
    size, length = sent.size, length_in(sent.seconds)
    if isinstance(answer, Video):
        extended = trip.operation is Operation.EXTENSION
        size, told = answer.size or size, length_in(answer.seconds)
        length = length if told is None or extended else told
    return size, length


# Errors ----------------------------------------------------------------------------------------


def error_of(
    trip: Trip,
    member: Member,
    exchange: Exchange,
    outcome: Outcome,
    cause: Exception | None = None,
) -> RouterError:
    """The error that an exchange amounts to."""
    kind = outcome.error or RouterError
    said = exchange.body.message or exchange.invalid or (str(cause) if cause else "")
    facts: dict[str, Any] = {
        **trip.facts(member),
        "status": exchange.status,
        "code": exchange.body.code,
        "request_id": request_id_of(member, exchange),
        "accepted": outcome.accepted,
    }
    if issubclass(kind, errors.InternalServerError):
        facts["retry_after"] = outcome.retry_after
    if issubclass(kind, errors.TryLaterError):
        facts["retry_after"] = outcome.retry_after or POLL_AFTER_SECONDS
    if issubclass(kind, errors.AmbiguousSubmitError):
        facts["sent_at"] = exchange.at - trip.attempts[-1].seconds
        natives = trip.owned.natives_in(member.deployment.account)
        facts["traits"] = {
            **traits_of(member.sent(trip.call), member),
            "source": next(iter(natives), None),
        }
        facts["token"] = trip.lease.token if trip.lease is not None else None
        said = f"{outcome.result}: a job may be running; {said}".rstrip("; ")
    what = f"{exchange.status} " if exchange.status else ""
    return kind(f"{what}{member.deployment.redact(said or outcome.result)}", **facts)


def traits_of(call: Call[Any], member: Member | None = None) -> dict[str, str | None]:
    """What tells the job that a call started from others; of its prompt only a digest."""
    whose = {} if call.tenant is None else {"tenant": call.tenant.name}
    return {
        "model": member.deployment.model if member is not None else None,
        "seconds": call.seconds,
        "size": call.size,
        "prompt": call.prompt and digest_of(call.prompt),
        **whose,
    }


def request_id_of(member: Member, exchange: Exchange) -> str | None:
    written = exchange.headers.get("x-request-id")
    return written and member.deployment.redact(written)[:200]


def job_failed(video: Video, **facts: Any) -> RouterError:
    """The error of a job that ended without a video; it was accepted, whatever became of it."""
    error = video.error
    said = (error and error.message) or f"the job is {video.status}"
    code = error.code if error else None
    return errors.JobFailedError(
        said, **{**facts, "video_id": video.id, "code": code, "accepted": "yes"}
    )


def nobody(trip: Trip, ejections: Mapping[str, Ejection], now: float) -> RouterError:
    """The error of a call whose candidates are all out, by their ejections.

    A tenant hears no words of the provider's: they were an answer to another call, of whomever.
    """
    whole = trip.call.tenant is None
    reasons = {
        name: f"{e.reason if whole else e.cause}, {e.lasts(now, ' more')}"
        for name, e in ejections.items()
    }
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    soonest = min((e.until - now for e in ejections.values()), default=1.0)
    return errors.NoDeploymentAvailableError(
        f"no deployment is in rotation for {trip.operation}: {listed}",
        reasons=reasons,
        retry_after=min(max(soonest, 0.1), LONGEST_WAIT),
        **trip.facts(),
    )


def full(
    trip: Trip,
    members: Sequence[Member],
    grant: Grant,
    retry_after: float,
) -> RouterError:
    """The error of a call for which nobody has room, and when to come back, in seconds."""
    said = "; ".join(
        f"{member.deployment.id}: {_lacks(member, resource)}"
        for member, (resource, _) in zip(members, grant.full, strict=True)
    )
    return errors.CapacityError(
        f"no room for {trip.operation}: {said}",
        retry_after=retry_after,
        **trip.facts(),
    )


def _lacks(member: Member, resource: str) -> str:
    kind, owner = resource.split(":")[:2]
    if kind == "cost":
        most = member.cost_per_day or 0.0
        return f"{member.deployment.account} may spend ${most:.4g} a day, and this would be more"
    return f"the {kind} of its {owner} are at their limit"


def too_dear(trip: Trip, members: Sequence[Member]) -> RouterError:
    """The error of a call for which nobody is cheap enough, or says what it asks."""
    told = []
    for member in members:
        cost = trip.cost(member)
        asks = "names no price" if cost is None else f"asks ${cost:.6g}"
        told.append(f"{member.deployment.id} {asks}")
    return errors.BadRequestError(
        f"nobody does this for max_cost=${trip.call.max_cost:.6g}: {'; '.join(told)}",
        **trip.facts(),
    )


def too_late(trip: Trip) -> RouterError:
    seconds = trip.deadline - trip.started
    return errors.DeadlineExceededError(f"the deadline of {seconds:g} s passed", **trip.facts())


def reason_of(exchange: Exchange, outcome: Outcome) -> str:
    """Why somebody is ejected, in a line for people."""
    said = exchange.body.message or exchange.invalid or ""
    return f"{exchange.status or ''} {outcome.result}{': ' + said if said else ''}".strip()[:300]


# Events ----------------------------------------------------------------------------------------


def picked(trip: Trip, member: Member, now: float) -> Picked:
    deployment = member.deployment
    return Picked(
        now,
        str(trip.operation),
        deployment.id,
        deployment.account,
        trip.call.metadata,
        attempt=len(trip.tried),
        waited=trip.waited,
    )


def attempted(
    trip: Trip,
    member: Member,
    outcome: Outcome,
    seconds: float,
    exchange: Exchange,
    answer: Answer | None = None,
) -> Attempted:
    """An exchange has ended, or its caller went away; what is accepted, or may be, has a price."""
    deployment = member.deployment
    cost = None if outcome.accepted == "no" else cost_of(trip, member, answer)
    address = urlsplit(deployment.base_url)
    return Attempted(
        exchange.at,
        str(trip.operation),
        deployment.id,
        deployment.account,
        seconds,
        exchange.status,
        outcome.result,
        outcome.accepted,
        trip.call.metadata,
        attempt=len(trip.tried),
        cost=cost,
        request_id=request_id_of(member, exchange),
        provider=deployment.provider,
        model=deployment.model,
        host=address.hostname,
        port=address.port or _PORTS.get(address.scheme),
    )


def waiting(trip: Trip, seconds: float, cause: str, reason: str, now: float) -> Waiting:
    return Waiting(now, str(trip.operation), seconds, reason, trip.call.metadata, cause)
