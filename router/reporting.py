"""What the caller is told: answers with our ids, errors with the facts, events.

Plain functions of a trip and what happened to it. A provider's own words go out redacted: some say
the key back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router import errors
from router.errors import RouterError
from router.events import Attempted, Picked
from router.fleet import Member
from router.ids import Copy, Kind
from router.leases import Grant
from router.limits import retry_after
from router.observations import Ejection
from router.outcomes import Exchange, Outcome, seconds_in
from router.trip import Trip
from router.types import Answer, Character, Routing, Video, VideoDeleted, VideoPage

__all__ = [
    "POLL_AFTER_SECONDS",
    "attempted",
    "error_of",
    "full",
    "id_of",
    "job_failed",
    "nobody",
    "own",
    "picked",
    "reason_of",
    "request_id_of",
    "too_late",
    "videos_in",
    "with_routing",
]

POLL_AFTER_SECONDS = 5.0


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
    return trip.owned.given.get(copy) or trip.fleet.codec.encode(kind, [copy])


def with_routing(
    trip: Trip, member: Member, answer: Answer, headers: Mapping[str, str], seconds: float
) -> Answer:
    """The answer with how it was served, in `seconds` from the call's start."""
    return answer.with_routing(
        Routing(
            deployment=member.deployment.id,
            account=member.deployment.account,
            attempts=tuple(trip.attempts),
            seconds=seconds,
            poll_after=_poll_after(answer, headers),
            metadata=trip.call.metadata,
        )
    )


def _poll_after(answer: Answer, headers: Mapping[str, str]) -> float | None:
    """When to look at an unfinished job again, in seconds, where the provider says so."""
    if not isinstance(answer, Video) or answer.done or answer.failed:
        return None
    return seconds_in(headers.get("openai-poll-after-ms"), 0.001)


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
        said = f"{outcome.result}: a job may be running; {said}".rstrip("; ")
    what = f"{exchange.status} " if exchange.status else ""
    return kind(f"{what}{member.deployment.redact(said or outcome.result)}", **facts)


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
    """The error of a call whose candidates are all out, by their ejections."""
    reasons = {name: f"{e.reason}, for {e.until - now:.1f} s more" for name, e in ejections.items()}
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    soonest = min((e.until - now for e in ejections.values()), default=1.0)
    return errors.NoDeploymentAvailableError(
        f"no deployment is in rotation for {trip.operation}: {listed}",
        reasons=reasons,
        retry_after=max(soonest, 0.1),
        **trip.facts(),
    )


def full(
    trip: Trip,
    members: Sequence[Member],
    grant: Grant,
    now: float,
    job_seconds: float | None,
) -> RouterError:
    """The error of a call for which nobody has room, and when to come back."""
    said = "; ".join(
        f"{member.deployment.id}: the {resource.partition(':')[0]} of its "
        f"{resource.split(':')[1]} are at their limit"
        for member, (resource, _) in zip(members, grant.full, strict=True)
    )
    return errors.CapacityError(
        f"no room for {trip.operation}: {said}",
        retry_after=retry_after(grant, now, job_seconds),
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
    return Picked(now, str(trip.operation), deployment.id, deployment.account, trip.call.metadata)


def attempted(
    trip: Trip, member: Member, outcome: Outcome, status: int | None, seconds: float, now: float
) -> Attempted:
    return Attempted(
        now,
        str(trip.operation),
        member.deployment.id,
        member.deployment.account,
        seconds,
        status,
        outcome.result,
        outcome.accepted,
        trip.call.metadata,
    )
