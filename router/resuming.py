"""Going on from an error: to the end of the job that it is about.

    the error names the job ─────────────────────────────────────────► wait for it
    it names an idempotency key: the record names the job ───────────► wait for it
    it says where and when it was sent: the account's list has one
        job of the kind that nobody has accepted ────────────────────► wait for it

Nothing is ever submitted again. Where the job cannot be told from others, the error is raised anew
and says what was found; where surely nothing was accepted, there is nothing to go on from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Unpack

from router import operations
from router.claiming import key_of
from router.claims import ACCEPTED, UNKNOWN, Record
from router.engine import Engine
from router.errors import (
    AmbiguousSubmitError,
    BadRequestError,
    RouterError,
    UnsupportedOperationError,
)
from router.ids import Copy, Kind
from router.listing import list_videos
from router.operations import Options
from router.reporting import digest_of
from router.trip import Side
from router.types import Operation, Video
from router.waiting import wait

__all__ = ["resume"]

SKEW_SECONDS = 60.0
"""How far a provider's clock may be off ours, and how long it may take to write a job down."""
PAGE = 100
MOST_PAGES = 10
ASK_AGAIN_SECONDS = 1.0


async def resume(
    engine: Engine,
    side: Side,
    error: RouterError,
    *,
    wait_timeout: float | None = None,
    on_progress: Callable[[Video], Any] | None = None,
    raise_on_failure: bool = True,
    **options: Unpack[Options],
) -> Video:
    """Find the job that an error is about, wait for its end, and return the video.

    The error may have been pickled, and come from another process. Takes what `video_wait` takes.
    Raises `BadRequestError` where surely nothing was accepted, and `AmbiguousSubmitError` where
    nobody can say which job it was: of an account's jobs none, or more than one, may be it.
    """
    if not isinstance(error, RouterError):
        raise BadRequestError(f"resume takes an error of the router's, not {type(error).__name__}")
    if error.operation == Operation.CREATE_CHARACTER:
        raise BadRequestError(
            "resume follows jobs; a character is made at once: the same call, under the same "
            "idempotency key, answers with it"
        ) from error
    video_id = error.video_id or await _found(engine, side, error, options)
    return await wait(
        engine,
        side,
        video_id,
        wait_timeout=wait_timeout,
        on_progress=on_progress,
        raise_on_failure=raise_on_failure,
        **options,
    )


async def _found(engine: Engine, side: Side, error: RouterError, options: Options) -> str:
    """Our id of the job."""
    if error.accepted == "no":
        raise BadRequestError(
            "surely nothing was accepted, so there is nothing to resume: make the call again"
        ) from error
    record = None
    if error.idempotency_key is not None:
        record = await _record(engine, side, error.idempotency_key, options)
        if record is not None and record.state == ACCEPTED:
            return record.id
    found = await _listed(engine, side, error, options)
    if record is not None and error.idempotency_key is not None:
        engine.claiming.found(key_of(error.idempotency_key), record, found)
    return found


async def _record(engine: Engine, side: Side, key: str, options: Options) -> Record | None:
    """What stands under a key, once nobody is sending under it any more."""
    engine.on_call()
    patience = options.get("deadline") or engine.fleet.config.settings.deadline
    ends = engine.clock.monotonic() + patience
    while True:
        record = await engine.claiming.look(side, key_of(key))
        if record is None or record.state in (ACCEPTED, UNKNOWN):
            return record
        if engine.clock.monotonic() >= ends:
            raise AmbiguousSubmitError(
                f"another call under this idempotency key is still under way after {patience:g} s",
                idempotency_key=key,
            )
        await side.door.sleep(ASK_AGAIN_SECONDS)


# Looking for it ----------------------------------------------------------------------------------


async def _listed(engine: Engine, side: Side, error: RouterError, options: Options) -> str:
    """The one job in the account's list that may be it, and that nobody has accepted."""
    sent_at, account = getattr(error, "sent_at", None), error.account
    if sent_at is None or account is None:
        raise _anew(error, "where and when it was sent is not known")
    known = await side.door.offload(_accepted, engine)
    try:
        alike = [
            video
            async for video in _newest(engine, side, account, sent_at - SKEW_SECONDS, options)
            if _copy(engine, video) not in known and _is_alike(engine, video, error, sent_at)
        ]
    except UnsupportedOperationError:
        raise _anew(error, "the provider has no list of videos to look in") from error
    if len(alike) != 1:
        told = ", ".join(video.id for video in alike) or "none"
        raise _anew(error, f"of the videos in the account {account} it may be: {told}")
    return alike[0].id


def _accepted(engine: Engine) -> set[Copy]:
    return {Copy(job.account, job.native_id) for job in engine.leasing.picture(()).jobs}


def _copy(engine: Engine, video: Video) -> Copy | None:
    asset = engine.fleet.codec.decode(video.id, Kind.VIDEO)
    return asset.copies[0] if asset is not None else None


async def _newest(
    engine: Engine, side: Side, account: str, since: float, options: Options
) -> AsyncIterator[Video]:
    """The videos of an account that were made since, the newest first."""
    after: str | None = None
    looking = options.copy()
    looking["account"] = account
    for _ in range(MOST_PAGES):
        call = operations.listing(limit=PAGE, after=after, **looking)
        page = await list_videos(engine, call, side)
        for video in page.data:
            if video.created_at is not None and float(video.created_at) < since:
                return
            yield video
        if not page.has_more:
            return
        after = page.last_id


def _is_alike(engine: Engine, video: Video, error: RouterError, sent_at: float) -> bool:
    """Whether a job was made in the time of the call, and is of its kind as far as it says."""
    lasted = engine.fleet.config.settings.deadline
    made = video.created_at
    if made is None or float(made) > sent_at + lasted + SKEW_SECONDS:
        return False
    traits: dict[str, str | None] = getattr(error, "traits", {})
    says = {
        "seconds": video.seconds,
        "size": video.size,
        "prompt": video.prompt and digest_of(video.prompt),
    }
    alike = all(traits.get(name) in (None, said) for name, said in says.items() if said)
    # A provider may answer with a version of the model that was asked for.
    model = traits.get("model")
    return alike and (not model or not video.model or video.model.startswith(model))


def _anew(error: RouterError, why: str) -> RouterError:
    facts: dict[str, Any] = {
        name: getattr(error, name)
        for name in (
            "deployment",
            "account",
            "operation",
            "attempts",
            "status",
            "request_id",
            "metadata",
            "idempotency_key",
        )
    }
    return AmbiguousSubmitError(
        f"the job cannot be told: {why}",
        sent_at=getattr(error, "sent_at", None),
        traits=getattr(error, "traits", None),
        **facts,
    )
