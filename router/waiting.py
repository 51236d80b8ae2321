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
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
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


def wait(
    engine: Engine,
    side: Side,
    video_id: str | Video,
    *,
    wait_timeout: float | None = None,
    on_progress: Callable[[Video], Any] | None = None,
    raise_on_failure: bool = True,
    **options: Unpack[Options],
) -> Coroutine[Any, Any, Video]:
    """Look at a job until it ends, and return the video.

    `wait_timeout` is in seconds, `None` for as long as the job takes; when it passes,
    `WaitTimeoutError` carries the id to wait for again. `on_progress` is called with each answer
    (and awaited, where it is a coroutine function). A job that failed raises `JobFailedError`
    unless `raise_on_failure=False`. Looks that fail are made again; the log says so, once.
    """
    call = operations.status(video_id, **options)
    _check(wait_timeout, on_progress)
    now = engine.clock.monotonic()
    ends = None if wait_timeout is None else now + wait_timeout
    return _followed(
        _Followed(
            engine=engine,
            side=side,
            video_id=call.ids[0],
            options=options or None,
            timeout=wait_timeout,
            ends=ends,
            on_progress=on_progress,
            raise_on_failure=raise_on_failure,
            heard=now,
        )
    )


async def _followed(job: _Followed) -> Video:
    # Between two looks nothing is held but this: a worker may follow ten thousand.
    while not isinstance(seen := await job.look(), Video):
        await job.side.door.sleep(seen)
    return seen


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class _Followed:
    """A job that is followed, by the id that the caller named it with.

    The last look told its `status`, where it is, and `known`, our id, where that is another one.
    """

    engine: Engine
    side: Side
    video_id: str
    options: Options | None
    timeout: float | None
    ends: float | None
    on_progress: Callable[[Video], Any] | None
    raise_on_failure: bool
    heard: float
    unheard: bool = False
    known: str | None = None
    status: str | None = None
    deployment: str | None = None
    account: str | None = None

    async def look(self) -> Video | float:
        """The video, once the job has ended, or the seconds until the next look."""
        monotonic = self.engine.clock.monotonic
        call = operations.status(self.video_id, **(self.options or {}))
        patience = self.engine.patience(call)
        error: RouterError | None = None
        try:
            video = await self.engine.run(_bounded(call, patience, self._left()), self.side)
        except RouterError as caught:
            error = caught
            if not _passing(error):
                raise
            pause = getattr(error, "retry_after", None) or POLL_AFTER_SECONDS
        else:
            self.heard = monotonic()
            self._note(video)
            await _report(self.on_progress, video, self.side)
            if video.done or (video.failed and not self.raise_on_failure):
                return video
            if video.failed:
                raise _failure(video)
            pause = _next(video)
        left = self._left()
        if left is not None:
            if left <= 0:
                raise self._timed_out(error) from error
            # The last look is at the very end of the wait.
            pause = min(pause, left)
        if error is not None:
            if monotonic() - self.heard >= patience:
                raise error
            if not self.unheard:
                self.unheard = True
                _log_unheard(self.video_id, error)
        return pause

    def _left(self) -> float | None:
        """Seconds until the wait is to end."""
        return None if self.ends is None else self.ends - self.engine.clock.monotonic()

    def _note(self, video: Video) -> None:
        if self.unheard:
            self.unheard = False
            _log_heard(video)
        routing = video.routing
        self.known = video.id if video.id != self.video_id else None
        self.status = sys.intern(video.status)  # thousands of jobs have the same few
        self.deployment = routing.deployment if routing else None
        self.account = routing.account if routing else None

    def _timed_out(self, error: RouterError | None) -> WaitTimeoutError:
        why = f" (the last look failed: {error})" if error is not None else ""
        known = self.known or self.video_id
        return WaitTimeoutError(
            f"the job is {self.status or 'unknown'} after {self.timeout:g} s of waiting{why}; it "
            f"goes on: wait again for {known}, do not submit again",
            video_id=known,
            last_status=self.status,
            operation="status",
            accepted="yes",
            deployment=self.deployment,
            account=self.account,
        )


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
