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
from router.claims import ACCEPTED, UNKNOWN, Record, digest_of
from router.config import size_of
from router.engine import Engine
from router.errors import (
    AmbiguousSubmitError,
    BadRequestError,
    RouterError,
)
from router.ids import Copy, Kind
from router.listing import list_videos
from router.operations import Options
from router.trip import Side
from router.types import Operation, Video, length_in
from router.waiting import wait

__all__ = ["resume"]

SKEW_SECONDS = 60.0
"""How far a provider's clock may be off ours, and how long it may take to write a job down."""
PAGE = 100
MOST_PAGES = 10
ASK_AGAIN_SECONDS = 1.0
ASK_SECONDS = 5.0


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
    `wait_timeout` bounds the waiting alone, `deadline` each look. Raises `BadRequestError` where
    surely nothing was accepted, and `AmbiguousSubmitError` where nobody can say which job it was:
    of an account's jobs none, or more than one, may be it, or they could not be looked at.
    """
    if not isinstance(error, RouterError):
        raise BadRequestError(f"resume takes an error of the router's, not {type(error).__name__}")
    if error.operation == Operation.CREATE_CHARACTER:
        raise BadRequestError(
            "resume follows jobs, and a character is none: look for it in the account; where it is "
            "not, make the call again, under another idempotency key if it had one"
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
    tenant = options.get("tenant")
    if getattr(error, "traits", {}).get("tenant") != (None if tenant is None else tenant.name):
        raise BadRequestError("the call was made for another tenant: name the same one")
    if error.accepted == "no":
        raise BadRequestError(
            "surely nothing was accepted, so there is nothing to resume: make the call again"
        ) from error
    try:
        return await _sought(engine, side, error, options)
    except AmbiguousSubmitError:
        raise
    except RouterError as why:
        # Whatever keeps us from looking says nothing of the job.
        raise _anew(error, f"it could not be looked for: {why}") from why


async def _sought(engine: Engine, side: Side, error: RouterError, options: Options) -> str:
    tenant, key = options.get("tenant"), error.idempotency_key
    claim = None
    if isinstance(key, str):
        claim = digest_of(key if tenant is None else tenant.scoped(key))
    record = await _record(engine, side, error, claim, options) if claim is not None else None
    if record is not None and record.state == ACCEPTED:
        return record.id
    copy = await _listed(engine, side, error, options)
    found = engine.fleet.codec_of(tenant).encode(Kind.VIDEO, [copy])
    if record is not None and claim is not None:
        engine.claiming.found(claim, record, found)
    return found


async def _record(
    engine: Engine, side: Side, error: RouterError, claim: str, options: Options
) -> Record | None:
    """What stands under the error's key, once nobody is sending under it any more."""
    engine.on_call()
    patience = options.get("deadline") or engine.fleet.config.settings.deadline
    ends = engine.clock.monotonic() + patience
    while True:
        record = await engine.claiming.look(side, claim)
        if record is None or record.state in (ACCEPTED, UNKNOWN):
            return record
        if engine.clock.monotonic() >= ends:
            raise AmbiguousSubmitError(
                f"another call under this idempotency key is still under way after {patience:g} s",
                idempotency_key=error.idempotency_key,
            )
        await side.door.sleep(ASK_AGAIN_SECONDS)


# Looking for it ----------------------------------------------------------------------------------


async def _listed(engine: Engine, side: Side, error: RouterError, options: Options) -> Copy:
    """The one job in the account's list that may be it, and that is nobody else's."""
    sent_at, account = getattr(error, "sent_at", None), error.account
    tenant = options.get("tenant")
    if sent_at is None or account is None:
        raise _anew(error, "where and when it was sent is not known")
    accepted = await side.door.offload(_accepted, engine)
    alike = list[tuple[Copy, str]]()
    async for video in _newest(engine, side, account, sent_at - SKEW_SECONDS, options):
        copy = _copy(engine, video.id)
        if copy is None or not _is_alike(engine, video, error, sent_at):
            continue
        finder = await engine.claiming.look(side, _find(copy))
        if finder is not None and finder.fingerprint == _whose(error):
            return copy  # this very error has been resumed before
        if finder is None and copy not in accepted:
            alike.append((copy, video.id))
    if len(alike) != 1:
        told = ", ".join(video_id for _, video_id in alike) or "none"
        if tenant is not None:  # they may be anybody's
            told = f"any of {len(alike)}" if alike else "none"
        raise _anew(error, f"of the videos in the account {account} it may be: {told}")
    ((copy, our_id),) = alike
    claimed = await engine.claiming.ask(side, _find(copy), _whose(error), ASK_SECONDS)
    if not claimed.mine:
        raise _anew(error, "it was found by another caller in this moment")
    engine.claiming.found(_find(copy), claimed.record, our_id)
    engine.adopted(copy, error.deployment, error.operation, getattr(error, "token", None), tenant)
    return copy


def _find(copy: Copy) -> str:
    """The key under which a job is given to the one caller that finds it."""
    return digest_of(f"found\0{copy.account}\0{copy.native_id}")


def _whose(error: RouterError) -> str:
    """What tells one lost call from another."""
    told = (error.idempotency_key, getattr(error, "sent_at", None), getattr(error, "traits", None))
    return digest_of(repr(told))


def _accepted(engine: Engine) -> set[Copy]:
    return {Copy(job.account, job.native_id) for job in engine.leasing.picture(()).jobs}


def _copy(engine: Engine, our_id: str | None) -> Copy | None:
    asset = engine.fleet.codec.decode(our_id, Kind.VIDEO) if our_id else None
    return asset.copies[0] if asset is not None else None


async def _newest(
    engine: Engine, side: Side, account: str, since: float, options: Options
) -> AsyncIterator[Video]:
    """The videos of an account that were made since, the newest first."""
    after: str | None = None
    looking = options.copy()
    looking["account"] = account
    looking.pop("tenant", None)  # to whom only what is known to be its own is listed
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
    prompt = video.prompt and digest_of(video.prompt)
    sizes = [size and size_of(size) for size in (traits.get("size"), video.size)]
    pairs: list[tuple[object, object]] = [
        (traits.get("prompt"), prompt),
        (sizes[0], sizes[1]),
    ]
    seconds, told = length_in(traits.get("seconds")), length_in(video.seconds)
    if error.operation == Operation.EXTENSION:
        # Its answer tells of the stitched whole.
        if seconds and told and told <= seconds:
            return False
    else:
        pairs.append((seconds, told))
    source = _copy(engine, video.remixed_from_video_id)
    if error.operation == Operation.GENERATION and source is not None:
        return False
    pairs.append((traits.get("source"), source.native_id if source is not None else None))
    # A provider may answer with a version of the model that was asked for.
    model = traits.get("model")
    same_model = not model or not video.model or video.model.startswith(model)
    return same_model and all(one == other for one, other in pairs if one and other)


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
        token=getattr(error, "token", None),
        **facts,
    )
