"""Everything that can go wrong, as one tree.

    RouterError
    ├── ConfigError                     the YAML, or an argument, is not what is allowed
    ├── InvalidIdError                  an id that is not ours, was altered, or names no clear owner
    ├── OwnershipError                  what the call names lives where the call may not go
    ├── UnknownModelError               no such model group
    ├── UnsupportedOperationError       (also NotImplementedError) no candidate can do this
    ├── StateUnavailableError           shared state was asked for and is out of reach
    ├── DeadlineExceededError           the call's deadline passed
    ├── JobFailedError                  the job ended without a video
    ├── VideoExpiredError               the video was made, and is no longer kept
    ├── WaitTimeoutError                the wait ended, the job did not: resume, never resubmit
    ├── AmbiguousSubmitError            sent, but no answer: a job may be running
    ├── TryLaterError                   always knows a `retry_after`, in seconds
    │   ├── NoDeploymentAvailableError  each candidate is out, with a reason for each
    │   ├── CapacityError               no slot, or no connection of our own, was free
    │   └── VideoNotReadyError          the provider says that the job is unfinished
    └── DeploymentError                 what one deployment answered, or failed to
        ├── ConnectError                never got through
        ├── AttemptTimeoutError         got through, and heard nothing in time
        ├── InvalidResponseError        an answer that is not one
        └── StatusError                 an HTTP status that says no
            ├── BadRequestError         400, 413, 415, 422, and what is refused before sending
            ├── AuthenticationError     401
            ├── PermissionDeniedError   403
            ├── NotFoundError           404, 410
            ├── ConflictError           409
            ├── RateLimitError          429 (also a TryLaterError)
            └── InternalServerError     5xx

Beside the tree stands `RouterWarning`, for what may be sent and may not come out as it was meant.

Each error carries the facts as attributes, and `accepted`: whether a provider took on a paid job or
stored an asset because of this call: `"no"`, `"maybe"` or `"yes"`. Errors survive pickling, so a
queue worker may return them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from router.types import AttemptRecord

__all__ = [
    "AmbiguousSubmitError",
    "AttemptTimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "CapacityError",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "DeadlineExceededError",
    "DeploymentError",
    "InternalServerError",
    "InvalidIdError",
    "InvalidResponseError",
    "JobFailedError",
    "NoDeploymentAvailableError",
    "NotFoundError",
    "OwnershipError",
    "PermissionDeniedError",
    "RateLimitError",
    "RouterError",
    "RouterWarning",
    "StateUnavailableError",
    "StatusError",
    "TryLaterError",
    "UnknownModelError",
    "UnsupportedOperationError",
    "VideoExpiredError",
    "VideoNotReadyError",
    "WaitTimeoutError",
]

Accepted = Literal["no", "maybe", "yes"]


class RouterError(Exception):
    """The root; catch this to catch all that the router raises by itself.

    Attributes: `message`; `deployment` and `account` (ids) where one was asked; `operation`;
    `attempts`, the HTTP exchanges made, in order; `status`, `code` and `request_id` as the
    provider gave them (`status` is `None` when nothing was sent or nothing came back);
    `accepted`; `metadata` and `idempotency_key`, the call's own; `video_id`, our id of the job,
    where there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        deployment: str | None = None,
        account: str | None = None,
        operation: str | None = None,
        attempts: tuple[AttemptRecord, ...] = (),
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        accepted: Accepted = "no",
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        video_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.deployment = deployment
        self.account = account
        self.operation = operation
        self.attempts = attempts
        self.status = status
        self.code = code
        self.request_id = request_id
        self.accepted: Accepted = accepted
        self.metadata = metadata
        self.idempotency_key = idempotency_key
        self.video_id = video_id

    def __str__(self) -> str:
        where = f" [{self.deployment}]" if self.deployment else ""
        return f"{self.message}{where}"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default rebuilds from `args` alone, which drops the keyword-only facts.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[RouterError], args: tuple[Any, ...]) -> RouterError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class RouterWarning(UserWarning):
    """Advice on a call that is about to be sent, which also stands in its `.routing.warnings`.

    It is issued by `warnings.warn`, so `warnings.simplefilter` silences it, or makes it an error:
    then the call ends before anything is sent.
    """


class ConfigError(RouterError):
    """The configuration, or an argument, is refused; `problems` lists every reason found."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.problems = problems or (message,)


class InvalidIdError(RouterError):
    """The id is not one of ours, was altered, is of the other kind, or names no clear owner."""


class OwnershipError(RouterError):
    """What the call names lives in an account that the call may not, or can no longer, reach."""


class UnknownModelError(RouterError):
    """No model group of this name; the message lists those there are."""


class UnsupportedOperationError(RouterError, NotImplementedError):
    """No candidate's provider can do this. Raised by the call, never by the configuration."""


class StateUnavailableError(RouterError):
    """Shared state is configured, needed for this promise, and out of reach."""


class DeadlineExceededError(RouterError):
    """The call's deadline passed before an answer; `accepted` tells whether something was sent."""


class JobFailedError(RouterError):
    """The job ended without a video; `code` and `message` are the provider's."""


class VideoExpiredError(RouterError):
    """The video was made and is no longer kept: 410, or 404 while the status says completed."""


class WaitTimeoutError(RouterError):
    """`video_wait` gave up waiting; the job goes on. Wait again with `video_id`, never resubmit.

    `last_status` is how the job was seen last.
    """

    def __init__(self, message: str, *, last_status: str | None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.last_status = last_status


class AmbiguousSubmitError(RouterError):
    """A submit went out and no usable answer came back: a paid job may be running.

    The router never sends such a call again. `deployment`, `account` and `operation` say where
    and what; `sent_at` when, as a Unix time in seconds; `traits` (`model`, `seconds`, `size`, and a
    digest of the prompt) tell the job from others; `token` is that of the slot it still holds, as
    `video-router jobs` lists it. `router.resume(error)` looks for the job, and follows it where it
    is found.
    """

    def __init__(
        self,
        message: str,
        *,
        sent_at: float | None = None,
        traits: Mapping[str, str | None] | None = None,
        token: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **{"accepted": "maybe", **facts})
        self.sent_at = sent_at
        self.token = token
        self.traits = dict(traits or {})


class TryLaterError(RouterError):
    """Nothing is wrong with the call; `retry_after` says in how many seconds to make it again."""

    def __init__(self, message: str, *, retry_after: float = 5.0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = float(retry_after)


class NoDeploymentAvailableError(TryLaterError):
    """Every candidate is out; `reasons` maps each deployment's id to why."""

    def __init__(
        self, message: str, *, reasons: Mapping[str, str] | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.reasons = dict(reasons or {})


class CapacityError(TryLaterError):
    """No slot, or no connection of our own pool, became free in time."""


class VideoNotReadyError(TryLaterError):
    """The provider says that the job is unfinished."""


class DeploymentError(RouterError):
    """What one deployment answered, or failed to answer."""


class ConnectError(DeploymentError):
    """Never got through: refused, DNS, TLS, connect timeout, or broken off while sending."""


class AttemptTimeoutError(DeploymentError):
    """Got through, and no whole answer came within the attempt's timeout."""


class InvalidResponseError(DeploymentError):
    """An answer that is not one: not JSON, cut off, too large, no id, or a redirection."""


class StatusError(DeploymentError):
    """An HTTP status that says no; `status`, `code` and `request_id` are the provider's."""


class BadRequestError(StatusError):
    """The call itself is at fault. With status `None` it was refused before anything was sent."""


class AuthenticationError(StatusError):
    """401: the deployment's key is not accepted."""


class PermissionDeniedError(StatusError):
    """403: the key is known, and may not do this."""


class NotFoundError(StatusError):
    """404 or 410: the account has nothing of this name."""


class ConflictError(StatusError):
    """409: what the call names is in a state that does not allow it.

    With status `None`: the idempotency key stands for a call with other parameters.
    """


class RateLimitError(StatusError, TryLaterError):
    """429: throttled. `retry_after` is the provider's word, within 1 and 300 seconds."""


class InternalServerError(StatusError):
    """5xx: the provider failed. `retry_after`, in seconds, is set where a 503 said when to come."""

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after
