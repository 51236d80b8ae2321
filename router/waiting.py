"""Following a job to its end.

A wait may last as long as the job, so no deadline ends it; each look is a call of its own. A look
that fails ends nothing either: the job was paid for. Only when no look has succeeded for as long as
one call may take is the last error let through. Whoever waits hears nothing in between, so the log
says when looks begin to fail, and when they go well again.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable
from typing import Any, Unpack

from router import _logs, operations
from router.engine import Engine
from router.errors import (
    BadRequestError,
    DeadlineExceededError,
    DeploymentError,
    RouterError,
    StatusError,
    TryLaterError,
    WaitTimeoutError,
)
from router.operations import Call, Options
from router.reporting import LEAST_PAUSE, POLL_AFTER_SECONDS, job_failed
from router.trip import Side
from router.types import Video

__all__ = ["wait"]

LEAST_LOOK = 1.0

# A job's own line is no warning: whoever fails is ejected, and that one is.
log = logging.getLogger("router")


async def wait(
    engine: Engine,
    side: Side,
    video_id: str | Video,
    *,
    wait_timeout: float | None = None,
    on_progress: Callable[[Video], Any] | None = None,
    raise_on_failure: bool = True,
    **options: Unpack[Options],
) -> Video:
    """Look at a job until it ends, and return the video.

    `wait_timeout` is in seconds, `None` for as long as the job takes; when it passes,
    `WaitTimeoutError` carries the id to wait for again. `on_progress` is called with each answer
    (and awaited, where it is a coroutine function). A job that failed raises `JobFailedError`
    unless `raise_on_failure=False`. Looks that fail are made again; the log says so, once.
    """
    call = operations.status(video_id, **options)
    _check(wait_timeout, on_progress)
    started = heard = engine.clock.monotonic()
    patience = engine.patience(call)
    last: Video | None = None
    unheard = False
    while True:
        left = None if wait_timeout is None else started + wait_timeout - engine.clock.monotonic()
        error: RouterError | None = None
        try:
            last = await engine.run(_bounded(call, patience, left), side)
        except RouterError as caught:
            error = caught
            if not _passing(error):
                raise
            pause = getattr(error, "retry_after", None) or POLL_AFTER_SECONDS
        else:
            heard = engine.clock.monotonic()
            if unheard:
                unheard = False
                _log_heard(last)
            await _report(on_progress, last, side)
            if last.done or (last.failed and not raise_on_failure):
                return last
            if last.failed:
                raise _failure(last)
            pause = _next(last)
        if wait_timeout is not None:
            left = started + wait_timeout - engine.clock.monotonic()
            if left <= 0:
                raise _timed_out(call.ids[0], last, wait_timeout, error) from error
            # The last look is at the very end of the wait.
            pause = min(pause, left)
        if error is not None:
            if engine.clock.monotonic() - heard >= patience:
                raise error
            if not unheard:
                unheard = True
                _log_unheard(call.ids[0], error)
        await side.door.sleep(pause)


def _bounded(call: Call[Video], patience: float, left: float | None) -> Call[Video]:
    """A look that ends with the wait, but for the moment that the last one needs."""
    if left is None or left >= patience:
        return call
    return dataclasses.replace(call, deadline=min(patience, max(left, LEAST_LOOK)))


def _check(wait_timeout: object, on_progress: object) -> None:
    if wait_timeout is not None:
        number = isinstance(wait_timeout, int | float) and not isinstance(wait_timeout, bool)
        if not number or not wait_timeout >= 0:  # type: ignore[operator]  # a number by now
            raise BadRequestError("wait_timeout is a number of seconds, or None for no end")
    if on_progress is not None and not callable(on_progress):
        raise BadRequestError("on_progress is a function that takes a Video")


def _next(video: Video) -> float:
    """Seconds to the next look, as the answer says: by the provider, or by what is usual."""
    told = video.routing.poll_after if video.routing else None
    return POLL_AFTER_SECONDS if told is None else max(told, LEAST_PAUSE)


def _passing(error: RouterError) -> bool:
    """Whether a later look may well succeed."""
    if isinstance(error, (TryLaterError, DeadlineExceededError)):
        return True
    if isinstance(error, StatusError):
        return (error.status or 0) >= 500
    return isinstance(error, DeploymentError)


def _log_unheard(video_id: str, error: RouterError) -> None:
    told = _logs.fields("job-unheard", deployment=error.deployment, account=error.account)
    log.info(
        "looking at %s fails, and is tried until it goes well: %s", video_id, error, extra=told
    )


def _log_heard(video: Video) -> None:
    routing = video.routing
    told = _logs.fields(
        "job-heard",
        deployment=routing.deployment if routing else None,
        account=routing.account if routing else None,
    )
    log.info("looking at %s goes well again", video.id, extra=told)


async def _report(on_progress: Callable[[Video], Any] | None, video: Video, side: Side) -> None:
    if on_progress is None:
        return
    returned = on_progress(video)
    if inspect.isawaitable(returned):
        await side.door.foreign(returned)


def _failure(video: Video) -> RouterError:
    routing = video.routing
    return job_failed(
        video,
        operation="status",
        deployment=routing.deployment if routing else None,
        account=routing.account if routing else None,
        metadata=routing.metadata if routing else None,
    )


def _timed_out(
    video_id: str, last: Video | None, seconds: float, error: RouterError | None
) -> WaitTimeoutError:
    routing = last.routing if last else None
    status = last.status if last else "unknown"
    known = last.id if last else video_id
    why = f" (the last look failed: {error})" if error is not None else ""
    return WaitTimeoutError(
        f"the job is {status} after {seconds:g} s of waiting{why}; it goes on: wait again for "
        f"{known}, do not submit again",
        video_id=known,
        last_status=last.status if last else None,
        operation="status",
        accepted="yes",
        deployment=routing.deployment if routing else None,
        account=routing.account if routing else None,
    )
