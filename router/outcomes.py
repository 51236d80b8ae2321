"""What an exchange taught: the outcome table.

Every HTTP exchange ends in one of some twenty ways, and each of them answers five questions at
once: was the job accepted, does it count against the deployment's health, is somebody put out of
rotation, may the call go on elsewhere, and which error does the caller see if it may not. `judge`
is that table, as a pure function.

The rule that the table exists for: a submit whose whole body the transport was given, and whose
refusal is not certain, is never sent again. Certain refusals are a connection that never came
about, a body that surely did not go over whole, a status below 500 that says no, and a 503 that
says when to come back. The type of an exception decides nothing: a failed write surfaces as a
failed read.
"""

from __future__ import annotations

import datetime
import email.utils
import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from router import errors
from router.errors import Accepted, RouterError
from router.messages import NOTHING_SAID, ErrorBody
from router.observations import BOTH, READS, SUBMITS, Cause, Scope
from router.types import Operation

__all__ = [
    "Effect",
    "Eject",
    "Exchange",
    "Fault",
    "Outcome",
    "is_callers_fault",
    "judge",
    "seconds_in",
]

ACCOUNT_SECONDS = 300.0
MISSING_SECONDS = 300.0
RETRY_AFTER_FLOOR = 1.0
RETRY_AFTER_CAP = 300.0
RETRY_AFTER_DEFAULT = 5.0


class Fault(enum.Enum):
    """Why an exchange brought no status, as far as the transport can tell."""

    CONNECT = "could not connect"
    POOL = "no connection of our own pool was free"
    TIMEOUT = "no answer in time"
    BROKEN = "the connection broke"
    LOCAL = "the request cannot be sent as it is"
    ENDLESS = "an answer without end"


class Effect(enum.Enum):
    """What an outcome says of the deployment that it came from."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"
    AT_LEAST = "it takes at least this long"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What happened, in the words that the table needs.

    `sent_whole`: the transport was given the last byte of the request. `names_id`: the call names
    something that exists. `worked_before`: the account has answered this operation with a 2xx.
    `sent_before`: an earlier attempt of this call may have reached the provider. `echoes` are the
    caller's own words, which a provider may quote.
    """

    operation: Operation
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: ErrorBody = NOTHING_SAID
    echoes: tuple[str, ...] = ()
    fault: Fault | None = None
    invalid: str | None = None
    sent_whole: bool = True
    names_id: bool = False
    worked_before: bool = False
    sent_before: bool = False
    retry_on_5xx: bool = False
    throttled_in_a_row: int = 0
    deadline_passed: bool = False
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Eject:
    """Out of rotation for `seconds`: one deployment, or all of its account."""

    scope: Scope
    seconds: float
    cause: Cause
    whole_account: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table. `error` is `None` only for success; `again` allows another attempt."""

    result: str
    effect: Effect = Effect.NOTHING
    accepted: Accepted = "no"
    again: bool = False
    error: type[RouterError] | None = None
    eject: Eject | None = None
    retry_after: float | None = None


_BILLING = re.compile(
    r"insufficient_quota|billing|exceeded your current quota|payment|"
    r"(out of|insufficient|not enough|no) (credit|balance|fund)"
)
_POLICY = re.compile(
    r"moderation|content.(management.)?policy|content.?filter|safety|likeness|copyright"
)
_MISSING_MODEL = re.compile(
    r"model_not_found|deploymentnotfound|"
    r"\b(model|deployment)\b.{0,200}?\b(does not exist|not found|doesn't exist|unknown)|"
    r"\b(unknown|no such) (model|deployment)\b",
    re.DOTALL,
)
_UNFINISHED = re.compile(
    r"not (yet )?(been )?(ready|completed?|finished|done)\b|"
    r"still (processing|running|generating|being|in.progress|queued)|"
    r"(is|has status|status:?) ['\"]?(queued|in_progress|in progress|processing)|not_ready"
)
_CALLERS_CODES = re.compile(
    r"moderation|policy|safety|invalid|bad_request|likeness|copyright|input|^(400|413|415|422)$"
)

_ERRORS: dict[int, type[RouterError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.NotFoundError,
    413: errors.BadRequestError,
    415: errors.BadRequestError,
    422: errors.BadRequestError,
    429: errors.RateLimitError,
}


_SUCCESS = Outcome("success", Effect.SUCCESS, accepted="yes")


def judge(exchange: Exchange) -> Outcome:
    """The outcome of an exchange. Pure; every exchange has one."""
    if exchange.body.means is not None:
        exchange = replace(exchange, status=exchange.body.means)
    if exchange.echoes:
        # Else who names a video `model_not_found` would take a deployment out for everybody.
        exchange = replace(exchange, body=exchange.body.without(partial(_unsaid, exchange.echoes)))
    outcome = _row(exchange)
    if outcome.again and exchange.headers.get("x-should-retry", "").lower() == "false":
        return replace(outcome, again=False)
    return outcome


def _unsaid(echoes: tuple[str, ...], text: str) -> str:
    for echo in sorted(echoes, key=len, reverse=True):
        text = text.replace(echo, "…")
    return text


def _row(exchange: Exchange) -> Outcome:
    if exchange.fault is not None:
        return _unanswered(exchange, exchange.fault)
    status = exchange.status or 0
    if status < 300:
        return _success(exchange) if status >= 200 else _no_answer(exchange)
    if status < 400:
        return Outcome("redirected", Effect.FAILURE, again=True, error=errors.InvalidResponseError)
    retry_after = _wait_told(exchange)
    if status == 429 and not _is_billing(exchange.body):
        return _throttled(exchange, retry_after)
    if status == 503 and retry_after is not None:
        return _throttled(exchange, retry_after)
    unpaid = status == 402 and _is_billing(exchange.body)
    if status in (429, 401) or unpaid or (status == 403 and _denied_anew(exchange)):
        return _account_out(exchange)
    if _is_missing(exchange, status):
        return _missing(exchange, status)
    if status >= 500:
        return _server_error(exchange)
    return _callers_error(exchange, status)


def _is_billing(body: ErrorBody) -> bool:
    if _BILLING.search((body.code or "").lower()):
        return True
    # The text of an ordinary throttling may well end in advice on billing.
    throttled = body.code == "rate_limit_exceeded" or "rate limit" in body.words
    return not throttled and bool(_BILLING.search(body.words))


def _success(exchange: Exchange) -> Outcome:
    if exchange.invalid is None:
        return _SUCCESS
    return _no_answer(exchange)


def _no_answer(exchange: Exchange) -> Outcome:
    if exchange.operation.is_submit:
        return _ambiguous("invalid answer")
    return Outcome("invalid answer", Effect.FAILURE, again=True, error=errors.InvalidResponseError)


def _unanswered(exchange: Exchange, fault: Fault) -> Outcome:
    out_of_time = fault is Fault.TIMEOUT and exchange.deadline_passed
    if exchange.operation.is_submit and exchange.sent_whole:
        return _ambiguous(fault.value, Effect.AT_LEAST if out_of_time else Effect.FAILURE)
    if out_of_time:
        return Outcome("deadline passed", Effect.AT_LEAST, error=errors.DeadlineExceededError)
    if fault is Fault.POOL and not exchange.sent_whole:
        return Outcome(fault.value, error=errors.CapacityError, retry_after=1.0)
    if fault is Fault.LOCAL and not exchange.sent_whole:
        return Outcome(fault.value, error=errors.BadRequestError)
    error: type[RouterError] = errors.ConnectError
    if exchange.sent_whole and fault is not Fault.CONNECT:
        late = fault is Fault.TIMEOUT
        error = errors.AttemptTimeoutError if late else errors.InvalidResponseError
    return Outcome(fault.value, Effect.FAILURE, again=True, error=error)


def _ambiguous(result: str, effect: Effect = Effect.FAILURE) -> Outcome:
    return Outcome(result, effect, accepted="maybe", error=errors.AmbiguousSubmitError)


def _throttled(exchange: Exchange, retry_after: float | None) -> Outcome:
    if retry_after is None:
        retry_after = RETRY_AFTER_DEFAULT * 2.0 ** min(exchange.throttled_in_a_row, 10)
    wait = min(max(retry_after, RETRY_AFTER_FLOOR), RETRY_AFTER_CAP)
    scope = SUBMITS if exchange.operation.is_submit else READS
    error = errors.RateLimitError if exchange.status == 429 else errors.InternalServerError
    return Outcome(
        "throttled",
        again=True,
        error=error,
        eject=Eject(scope, wait, Cause.THROTTLED),
        retry_after=wait,
    )


def _account_out(exchange: Exchange) -> Outcome:
    billing = exchange.status in (429, 402)
    return Outcome(
        "billing" if billing else "denied",
        # Another account may hold a copy of what the call names; where none does, nobody is left.
        again=True,
        error=_ERRORS.get(exchange.status or 401, errors.StatusError),
        eject=Eject(BOTH, ACCOUNT_SECONDS, Cause.DENIED, whole_account=True),
        retry_after=ACCOUNT_SECONDS if billing else None,
    )


def _denied_anew(exchange: Exchange) -> bool:
    return exchange.worked_before and not _POLICY.search(exchange.body.words)


def _is_missing(exchange: Exchange, status: int) -> bool:
    if status == 501:
        return True
    if status != 404:
        return False
    return not exchange.names_id or bool(_MISSING_MODEL.search(exchange.body.words))


def _missing(exchange: Exchange, status: int) -> Outcome:
    return Outcome(
        "not offered",
        again=True,
        error=errors.NotFoundError if status == 404 else errors.InternalServerError,
        eject=Eject(exchange.operation, MISSING_SECONDS, Cause.MISSING),
    )


def _server_error(exchange: Exchange) -> Outcome:
    if exchange.operation.is_submit and not exchange.retry_on_5xx:
        return _ambiguous("server error")
    return Outcome("server error", Effect.FAILURE, again=True, error=errors.InternalServerError)


def _callers_error(exchange: Exchange, status: int) -> Outcome:
    if status == 404 and exchange.operation is Operation.DELETE and exchange.sent_before:
        return Outcome("already deleted", accepted="yes")
    if exchange.names_id and _UNFINISHED.search(exchange.body.words):
        wait = _wait_told(exchange) or RETRY_AFTER_DEFAULT
        return Outcome("not ready", error=errors.VideoNotReadyError, retry_after=wait)
    return Outcome("refused", error=_ERRORS.get(status, errors.StatusError))


def _wait_told(exchange: Exchange) -> float | None:
    """Seconds to wait, as the headers say; else as the body does."""
    told = _retry_after(exchange.headers, exchange.at)
    return exchange.body.retry_after if told is None else told


def _retry_after(headers: Mapping[str, str], at: float) -> float | None:
    """Seconds to wait: `retry-after-ms`, else `Retry-After` in seconds or as an HTTP date."""
    seconds = seconds_in(headers.get("retry-after-ms"), 0.001)
    if seconds is not None:
        return seconds
    written = headers.get("retry-after")
    seconds = seconds_in(written)
    return seconds if seconds is not None or written is None else _until_date(written, at)


def seconds_in(written: str | None, scale: float = 1.0) -> float | None:
    """A header's number as seconds, 0 to 300; `None` for what is no number to wait by."""
    try:
        seconds = float(written or "") * scale
    except ValueError:
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_CAP)


def _until_date(written: str, at: float) -> float | None:
    try:
        # A date has some thirty characters; a header may have a hundred thousand.
        date = email.utils.parsedate_to_datetime(written[:100])
        # HTTP's dates are UTC, also in the form that does not say so (RFC 9110, 5.6.7).
        known = date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)
        seconds = known.timestamp() - at
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)


def is_callers_fault(code: str | None, message: str | None, kind: object = None) -> bool:
    """Whether a job failed by what it was asked for, and not by who was asked.

    `kind` is the error's `type`, where there is one.
    """
    if kind == "invalid_request_error" or (code and _CALLERS_CODES.search(code.lower())):
        return True
    return bool(_POLICY.search(f"{code or ''} {message or ''}".lower()))
