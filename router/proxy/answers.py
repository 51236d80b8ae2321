"""What comes of a call, as the official clients expect it: answers, errors, their headers.

An error has OpenAI's shape and four keys, and says besides what a caller must know before it asks
again: `accepted`, where a paid job runs or may run. The clients repeat failed calls on their own,
POSTs too, so each such answer bears `x-should-retry: false`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from router import errors
from router.errors import RouterError
from router.types import Answer, AttemptRecord, Video

__all__ = [
    "ERRORS",
    "Refusal",
    "answered",
    "failed",
    "header_text",
    "json_response",
    "mistaken",
    "refused",
]

_LONGEST_MESSAGE = 4000


class Refusal(Exception):  # noqa: N818  (an answer, on its way to the caller)
    """The proxy's own no, before the Router was asked."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.param = code, param
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Row:
    """How an error is answered; `None` stands for what the provider said."""

    status: int | None
    code: str | None = None
    # Whether a client that repeats by itself may gain something by it.
    again: bool = True
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


# By type, the nearest in the tree. A key of ours that a provider refuses is no fault of the
# caller's key, so it is not told as 401. 501 and the 409s would be repeated for nothing; a
# redirect, or a 408 of who knows which hop, by clients that are less careful than the Router is.
ERRORS: Mapping[type[RouterError], Row] = MappingProxyType(
    {
        errors.RouterError: Row(502, "router_error"),
        errors.ConfigError: Row(400, "invalid_argument"),
        errors.InvalidIdError: Row(404, "invalid_id"),
        errors.OwnershipError: Row(404, "not_found"),
        errors.UnknownModelError: Row(404, "model_not_found"),
        errors.UnsupportedOperationError: Row(501, "unsupported_operation", again=False),
        errors.StateUnavailableError: Row(503, "state_unavailable"),
        errors.DeadlineExceededError: Row(504, "deadline_exceeded"),
        errors.JobFailedError: Row(409, "job_failed", again=False),
        errors.VideoExpiredError: Row(410, "video_expired"),
        errors.WaitTimeoutError: Row(504, "wait_timeout", again=False),
        errors.AmbiguousSubmitError: Row(502, "ambiguous_submit", again=False),
        errors.TryLaterError: Row(503, "try_later"),
        errors.NoDeploymentAvailableError: Row(503, "no_deployment_available"),
        errors.CapacityError: Row(429, "capacity"),
        errors.VideoNotReadyError: Row(404, "video_not_ready"),
        errors.DeploymentError: Row(502, "provider_error"),
        errors.ConnectError: Row(502, "provider_unreachable"),
        errors.AttemptTimeoutError: Row(504, "provider_timeout"),
        errors.InvalidResponseError: Row(502, "invalid_response", again=False),
        errors.StatusError: Row(502, "provider_error", again=False),
        errors.BadRequestError: Row(None, "invalid_request"),
        errors.AuthenticationError: Row(502, "provider_authentication", again=False),
        errors.PermissionDeniedError: Row(None, "permission_denied"),
        errors.NotFoundError: Row(None, "not_found"),
        errors.ConflictError: Row(None, "idempotency_conflict", again=False),
        errors.RateLimitError: Row(429, "rate_limit_exceeded"),
        errors.InternalServerError: Row(502, "provider_error"),
    }
)
# What stands for a provider's status where nothing was sent.
_UNSENT = {errors.ConflictError: 409}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "requests",
}


def json_response(
    data: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII, so that half a character of a provider's does no harm."""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(data), allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


def answered(answer: Answer) -> Response:
    """An answer of the Router's, with every key that it has, and how it was served."""
    headers = {}
    if answer.routing is not None:
        headers = _served(answer.routing.deployment, answer.routing.attempts)
        after = answer.routing.poll_after
        if isinstance(answer, Video) and after is not None:
            headers["openai-poll-after-ms"] = str(math.ceil(after * 1000))
    return json_response(answer.model_dump(), headers=headers)


def failed(error: RouterError) -> Response:
    """An error of the Router's."""
    row = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    status = row.status or _status(error)
    headers = _served(error.deployment, error.attempts)
    later = getattr(error, "retry_after", None)
    if later is not None:
        headers.update(_later(later))
    unsafe = error.accepted != "no"
    if unsafe or not row.again:
        headers["x-should-retry"] = "false"
    said: dict[str, Any] = {
        "message": _message(error),
        "type": _type(status),
        "param": "model" if isinstance(error, errors.UnknownModelError) else None,
        "code": error.code or row.code,
    }
    if unsafe:
        said["accepted"] = error.accepted
    if error.video_id is not None:
        said["video_id"] = error.video_id
    return json_response({"error": said}, status, headers)


def refused(refusal: Refusal) -> Response:
    """A refusal of the proxy's own."""
    said = {
        "message": refusal.message,
        "type": _type(refusal.status),
        "param": refusal.param,
        "code": refusal.code,
    }
    return json_response({"error": said}, refusal.status, refusal.headers)


def mistaken() -> Response:
    """A mistake of ours. Nobody knows what had been sent by then: it is not to be sent again."""
    return refused(Refusal(500, "an error of the proxy's", headers={"x-should-retry": "false"}))


def header_text(text: str) -> str:
    """A word of ours as a header may bear it."""
    return quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")


def _served(deployment: str | None, attempts: tuple[AttemptRecord, ...]) -> dict[str, str]:
    headers = {"x-router-attempts": str(len(attempts))}
    if deployment:
        headers["x-router-deployment"] = header_text(deployment)
    return headers


def _later(seconds: float) -> dict[str, str]:
    return {
        "retry-after": str(math.ceil(seconds)),
        "retry-after-ms": str(math.ceil(seconds * 1000)),
    }


def _status(error: RouterError) -> int:
    """The provider's own, where it refused the call; it sends no other statuses here."""
    if error.status is not None and 400 <= error.status < 500:
        return error.status
    return next((code for kind, code in _UNSENT.items() if isinstance(error, kind)), 400)


def _message(error: RouterError) -> str:
    message = error.message
    if error.status is not None:
        message = message.removeprefix(f"{error.status} ")
    return message[:_LONGEST_MESSAGE]


def _type(status: int) -> str:
    usual = "server_error" if status >= 500 else "invalid_request_error"
    return _TYPES.get(status, usual)


def _finite(value: Any) -> Any:
    """The value with null for what is no number: JSON has none, and clients read none."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
