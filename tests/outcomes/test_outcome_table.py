"""The outcome table, as a table: every status, to a submit and to a read, with and without owner.

Each row is one answer of a provider; its columns are what the router makes of it. The same rows are
asked of the pure table (`judge`) and of a whole router in front of a stand-in that counts what it
accepted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from outcome_parts import (
    ejected,
    made_video,
    openai_error,
    requests_for,
    scopes,
    seeded,
)

from router import Router, errors
from router.errors import RouterError
from router.messages import ErrorBody, InvalidBody, Reply
from router.observations import BOTH, READS, SUBMITS
from router.outcomes import Effect, Exchange, judge
from router.providers.openai import OpenAIDialect
from router.testing import StandIn
from router.types import Operation

SUBMIT_OPERATIONS = [operation for operation in Operation if operation.is_submit]
READ_OPERATIONS = [operation for operation in Operation if not operation.is_submit]
OPERATION = "the operation"  # the scope of an ejection that covers one operation


@dataclass(frozen=True)
class Expected:
    """One cell. `eject` is a scope, `seconds` how long, `whole_account` whether all are out."""

    error: type[RouterError] | None
    accepted: str = "no"
    again: bool = False
    health: Effect = Effect.NOTHING
    eject: str | None = None
    seconds: float | None = None
    whole_account: bool = False


@dataclass(frozen=True)
class Row:
    """One answer, and what it means to the three kinds of call.

    `worked`: the account has answered this operation with a 2xx before.
    """

    name: str
    status: int
    unowned: Expected
    owned: Expected
    read: Expected
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    worked: bool = False

    def __str__(self) -> str:
        return f"{self.status} {self.name}".strip()

    @property
    def raw(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


COLUMNS = ("unowned", "owned", "read")


def refused(
    status: int, error: type[RouterError], name: str = "", body: object = None, **facts: Any
) -> Row:
    """The caller's own mistake: an error at once, and never a matter of health."""
    cell = Expected(error)
    said = openai_error(f"refused with {status}") if body is None else body
    return Row(name, status, cell, cell, cell, said, **facts)


def throttled(
    status: int,
    name: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 5.0,
    error: type[RouterError] = errors.RateLimitError,
) -> Row:
    """Not accepted, come back later: submits out, or reads, and no failure."""
    submit = Expected(error, again=True, eject=SUBMITS, seconds=seconds)
    read = replace(submit, eject=READS)
    return Row(name, status, submit, submit, read, body, headers or {})


def account_out(
    status: int, name: str, error: type[RouterError], body: object = None, *, worked: bool = False
) -> Row:
    """The key or the bill of the account: all of it is out, for both sides."""
    # With one owner nobody else is left, so that its callers get the error at once.
    cell = Expected(error, again=True, eject=BOTH, seconds=300.0, whole_account=True)
    return Row(name, status, cell, cell, cell, body, worked=worked)


def failed(status: int, name: str = "", **facts: Any) -> Row:
    """The provider failed, maybe after it took the job on."""
    submit = Expected(errors.AmbiguousSubmitError, "maybe", health=Effect.FAILURE)
    read = Expected(errors.InternalServerError, again=True, health=Effect.FAILURE)
    return Row(name, status, submit, submit, read, **facts)


def redirected(status: int) -> Row:
    cell = Expected(errors.InvalidResponseError, again=True, health=Effect.FAILURE)
    return Row("redirect", status, cell, cell, cell, headers={"location": "http://elsewhere/v1"})


def no_answer(status: int, name: str, body: bytes) -> Row:
    """A success that says nothing usable: a job may be running."""
    submit = Expected(errors.AmbiguousSubmitError, "maybe", health=Effect.FAILURE)
    read = Expected(errors.InvalidResponseError, again=True, health=Effect.FAILURE)
    return Row(name, status, submit, submit, read, body)


def answered(status: int, name: str, body: object) -> Row:
    cell = Expected(None, "yes", health=Effect.SUCCESS)
    return Row(name, status, cell, cell, cell, body)


def not_offered(
    status: int, name: str, error: type[RouterError], body: object, *, by_id: bool = True
) -> Row:
    """This deployment has no such operation or model. A 404 says so to calls that name no id."""
    cell = Expected(error, again=True, eject=OPERATION, seconds=300.0)
    owned = cell if by_id else Expected(error)
    return Row(name, status, cell, owned, owned, body)


def unfinished(status: int, message: str, error: type[RouterError]) -> Row:
    """What the call names is not ready; a call that names nothing was simply refused."""
    cell = Expected(errors.VideoNotReadyError)
    return Row("not ready", status, Expected(error), cell, cell, openai_error(message))


QUEUED = {"id": "video_1", "object": "video", "status": "queued"}
RATE = openai_error(
    "Rate limit reached for sora-2 in organization org-1 on requests per min (RPM): Limit 3, "
    "Used 3, Requested 1. Please try again in 20s.",
    type="requests",
    code="rate_limit_exceeded",
)
FULL = openai_error("Too many running tasks", type="video_generation_user_error")
QUOTA = openai_error(
    "You exceeded your current quota, please check your plan and billing details.",
    type="insufficient_quota",
    code="insufficient_quota",
)
MODERATED = openai_error(
    "Your request was blocked by our moderation system.", code="moderation_blocked"
)
AZURE_MISSING = openai_error(
    "The API deployment 'sora-2' for this resource does not exist. If you created the deployment "
    "within the last 5 minutes, please wait a moment and try again.",
    type="video_generation_user_error",
)
NOT_THERE = openai_error("Video with id 'video_1' not found.")
FORBIDDEN = openai_error("You have insufficient permissions for this operation.")

ROWS = [
    # 2xx with a valid body: an object with an id, for a video also a status; all else may be odd.
    answered(200, "least", {"id": "video_1", "status": "queued"}),
    answered(200, "whole", QUEUED),
    answered(200, "unknown fields", {**QUEUED, "quality": "high", "nested": {"a": [1]}}),
    answered(200, "unknown status", {**QUEUED, "status": "on_the_moon"}),
    answered(200, "odd optional fields", {**QUEUED, "progress": "ten", "created_at": []}),
    answered(200, "null optional fields", {**QUEUED, "error": None, "seconds": None}),
    answered(201, "created", QUEUED),
    answered(202, "accepted", QUEUED),
    # 2xx that is no answer.
    no_answer(200, "empty", b""),
    no_answer(204, "no content", b""),
    no_answer(200, "page of a portal", b"<html><body>Welcome!</body></html>"),
    no_answer(200, "cut JSON", b'{"id": "video_1", "sta'),
    no_answer(200, "null", b"null"),
    no_answer(200, "list", b"[]"),
    no_answer(200, "text", b'"video_1"'),
    no_answer(200, "number", b"5"),
    no_answer(200, "empty object", b"{}"),
    no_answer(200, "no id", b'{"status": "queued"}'),
    no_answer(200, "empty id", b'{"id": "", "status": "queued"}'),
    no_answer(200, "null id", b'{"id": null, "status": "queued"}'),
    no_answer(200, "number for an id", b'{"id": 5, "status": "queued"}'),
    no_answer(200, "object for an id", b'{"id": {"id": "video_1"}, "status": "queued"}'),
    no_answer(200, "half a character in the id", b'{"id": "video_\\ud800", "status": "queued"}'),
    no_answer(200, "no status", b'{"id": "video_1"}'),
    no_answer(200, "null status", b'{"id": "video_1", "status": null}'),
    no_answer(200, "number for a status", b'{"id": "video_1", "status": 1}'),
    no_answer(200, "error in a 200", json.dumps(openai_error("no")).encode()),
    no_answer(200, "not UTF-8", b'{"id": "video_\xff", "status": "queued"}'),
    no_answer(200, "nested too deep", b"[" * 200_000),
    no_answer(200, "endless number", b'{"id": "video_1", "status": ' + b"9" * 5000 + b"}"),
    # 3xx: never followed, with the key in the header.
    *(redirected(status) for status in (300, 301, 302, 303, 304, 305, 307, 308)),
    # The caller's mistakes.
    refused(400, errors.BadRequestError),
    refused(400, errors.BadRequestError, "moderation", MODERATED),
    refused(400, errors.BadRequestError, "billing words", openai_error("no payment field")),
    refused(402, errors.StatusError),
    refused(403, errors.PermissionDeniedError, "never worked", FORBIDDEN),
    refused(403, errors.PermissionDeniedError, "content policy", MODERATED, worked=True),
    refused(405, errors.StatusError),
    refused(406, errors.StatusError),
    refused(407, errors.StatusError),
    refused(408, errors.StatusError),
    refused(409, errors.ConflictError),
    refused(410, errors.NotFoundError),
    refused(411, errors.StatusError),
    refused(412, errors.StatusError),
    refused(413, errors.BadRequestError),
    refused(414, errors.StatusError),
    refused(415, errors.BadRequestError),
    refused(416, errors.StatusError),
    refused(417, errors.StatusError),
    refused(418, errors.StatusError),
    refused(421, errors.StatusError),
    refused(422, errors.BadRequestError),
    refused(422, errors.BadRequestError, "no JSON", b"<html>Unprocessable</html>"),
    refused(423, errors.StatusError),
    refused(424, errors.StatusError),
    refused(425, errors.StatusError),
    refused(426, errors.StatusError),
    refused(428, errors.StatusError),
    refused(431, errors.StatusError),
    refused(451, errors.StatusError),
    refused(499, errors.StatusError),
    unfinished(
        404,
        "Video is not ready yet, use GET /v1/videos/{video_id} to check status",
        errors.NotFoundError,
    ),
    unfinished(400, "Video with id 'video_1' is not completed.", errors.BadRequestError),
    unfinished(
        409,
        "Video with id 'video_1' is in_progress; it cannot be deleted yet.",
        errors.ConflictError,
    ),
    # The key, and the bill.
    account_out(401, "wrong key", errors.AuthenticationError, openai_error("Incorrect API key")),
    account_out(401, "no body", errors.AuthenticationError),
    account_out(403, "worked", errors.PermissionDeniedError, FORBIDDEN, worked=True),
    account_out(429, "quota", errors.RateLimitError, QUOTA),
    account_out(429, "billing", errors.RateLimitError, openai_error("Billing hard limit reached")),
    account_out(402, "billing", errors.StatusError, openai_error("Insufficient credits.")),
    # What this deployment does not have.
    not_offered(404, "id", errors.NotFoundError, NOT_THERE, by_id=False),
    not_offered(404, "no body", errors.NotFoundError, None, by_id=False),
    not_offered(404, "deployment", errors.NotFoundError, AZURE_MISSING),
    not_offered(
        404,
        "model",
        errors.NotFoundError,
        openai_error("The model `sora-2` does not exist.", code="model_not_found"),
    ),
    not_offered(501, "", errors.InternalServerError, openai_error("not implemented")),
    # Later.
    throttled(429, "rate", RATE),
    throttled(429, "rate with Retry-After", RATE, {"retry-after": "20"}, 20.0),
    throttled(429, "full", FULL),
    throttled(429, "no body"),
    throttled(
        503,
        "with Retry-After",
        None,
        {"retry-after": "7"},
        7.0,
        errors.InternalServerError,
    ),
    throttled(
        503,
        "with retry-after-ms",
        None,
        {"retry-after-ms": "2500"},
        2.5,
        errors.InternalServerError,
    ),
    # The provider's failures.
    *(failed(status) for status in (500, 502, 503, 504, 505, 507, 508, 511, 520, 524, 529, 599)),
    failed(503, "unreadable Retry-After", headers={"retry-after": "soon"}),
    failed(500, "with Retry-After", headers={"retry-after": "7"}),
    failed(500, "no JSON", body=b"<html>Internal Server Error</html>"),
]
# A 404 "not ready" to a call that names no id is a deployment without this operation.
ROWS = [
    replace(row, unowned=Expected(errors.NotFoundError, again=True, eject=OPERATION, seconds=300.0))
    if row.name == "not ready" and row.status == 404
    else row
    for row in ROWS
]

CELLS = [pytest.param(row, column, id=f"{row}, {column}") for row in ROWS for column in COLUMNS]
DIALECT = OpenAIDialect()


# The pure table


def exchange_of(row: Row, column: str, operation: Operation) -> Exchange:
    reply = Reply(row.status, {k.lower(): v for k, v in row.headers.items()}, row.raw)
    success = 200 <= row.status < 300
    return Exchange(
        operation,
        status=row.status,
        headers=reply.headers,
        body=ErrorBody() if success else DIALECT.error(reply),
        invalid="no answer" if success and row.read.error is not None else None,
        names_id=column != "unowned",
        worked_before=row.worked,
    )


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_the_table_says_what_the_design_says(row: Row, column: str) -> None:
    expected: Expected = getattr(row, column)
    for operation in READ_OPERATIONS if column == "read" else SUBMIT_OPERATIONS:
        outcome = judge(exchange_of(row, column, operation))

        assert outcome.error is expected.error
        assert outcome.accepted == expected.accepted or column == "read"
        assert outcome.again is expected.again
        assert outcome.effect is expected.health
        if expected.eject is None:
            assert outcome.eject is None
        else:
            scope = str(operation) if expected.eject == OPERATION else expected.eject
            assert outcome.eject is not None
            assert (outcome.eject.scope, outcome.eject.seconds) == (scope, expected.seconds)
            assert outcome.eject.whole_account is expected.whole_account


def test_the_table_has_every_status_that_has_a_name() -> None:
    from http import HTTPStatus

    named = {int(status) for status in HTTPStatus if status >= 300}

    assert named - {row.status for row in ROWS} <= {306, 506, 510}


@pytest.mark.parametrize("operation", SUBMIT_OPERATIONS)
def test_no_submit_goes_on_unless_its_refusal_is_certain(operation: Operation) -> None:
    for status in (*range(200, 600), 600, 700, 999):
        outcome = judge(Exchange(operation, status=status, invalid="no answer"))

        sure = 300 <= status < 500 or status == 501
        assert outcome.again <= sure, status
        assert outcome.accepted == ("no" if sure else "maybe"), status


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_a_provider_that_never_bills_a_5xx_is_asked_again(status: int) -> None:
    outcome = judge(Exchange(Operation.GENERATION, status=status, retry_on_5xx=True))

    assert outcome.again
    assert outcome.error is errors.InternalServerError
    assert outcome.accepted == "no"
    assert outcome.effect is Effect.FAILURE


def test_a_404_to_a_delete_that_was_sent_before_is_success() -> None:
    outcome = judge(Exchange(Operation.DELETE, status=404, names_id=True, sent_before=True))

    assert outcome.error is None
    assert outcome.effect is Effect.NOTHING


@pytest.mark.parametrize("operation", [o for o in Operation if o is not Operation.DELETE])
def test_a_404_to_anything_else_is_none(operation: Operation) -> None:
    outcome = judge(Exchange(operation, status=404, names_id=True, sent_before=True))

    assert outcome.error is errors.NotFoundError


def test_the_stand_ins_bodies_are_what_this_table_calls_them() -> None:
    for row in ROWS:
        if not 200 <= row.status < 300:
            continue
        try:
            data = json.loads(row.raw)
            valid = isinstance(data, dict) and isinstance(data.get("status"), str)
            valid = valid and isinstance(data.get("id"), str) and data["id"].isascii()
        except (ValueError, RecursionError, InvalidBody):
            valid = False
        assert (row.read.error is None) is bool(valid and data["id"]), str(row)


# The whole path

METHODS = {
    "unowned": ("video_generation", "generation"),
    "owned": ("video_edit", "edit"),
    "read": ("video_status", "status"),
}


def make(call: Any, router: Router, column: str, video: str) -> Any:
    method, _ = METHODS[column]
    if column == "read":
        return call(router, method, video)
    named = {"video_id": video} if column == "owned" else {}
    return call(router, method, prompt="a cat", **named)


def plan(provider: StandIn, row: Row, operation: str, *, times: int | None, after: bool) -> None:
    provider.fault(
        "status",
        operation=operation,
        times=times,
        status=row.status,
        body=row.raw,
        headers=row.headers,
        after=after,
    )


def prepared(
    call: Any, provider: StandIn, clock: Any, row: Row, column: str
) -> tuple[Router, str, int]:
    """A router that knows what the row asks for, a video of east, and what was accepted so far."""
    video = made_video(provider)
    router = seeded(provider, clock)
    if row.worked and column == "unowned":
        for account in ("east", "west"):
            call(router, "video_generation", prompt="a cat", account=account)
    elif row.worked:
        make(call, router, column, video)
    return router, video, len(provider.accepted)


def expected_requests(row: Row, column: str) -> int:
    """Anybody's submit has two deployments to go to; an owner's read has one, asked thrice."""
    expected: Expected = getattr(row, column)
    if not expected.again or column == "owned":
        return 1
    if column == "unowned":
        return 2
    # The read waits a throttle out; out for 300 s for another reason, there is nobody else.
    return 1 if expected.eject in (OPERATION, BOTH) else 3


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_a_provider_that_always_answers_so(
    call: Any, provider: StandIn, clock: Any, row: Row, column: str
) -> None:
    expected: Expected = getattr(row, column)
    router, video, accepted = prepared(call, provider, clock, row, column)
    operation = METHODS[column][1]
    before = len(requests_for(provider, operation))
    plan(provider, row, operation, times=None, after=False)

    if expected.error is None:
        assert make(call, router, column, video).status == json.loads(row.raw)["status"]
    else:
        with pytest.raises(RouterError) as caught:
            make(call, router, column, video)
        error = caught.value
        assert type(error) is expected.error
        assert error.accepted == expected.accepted or column == "read"
        assert len(error.attempts) == expected_requests(row, column)
        assert error.status == row.status
        assert error.operation == operation
        assert error.request_id is not None

    assert len(requests_for(provider, operation)) - before == expected_requests(row, column)
    assert len(provider.accepted) == accepted
    assert scopes(router) == expected_scopes(expected, column, operation)

    # Three times more: the caller's errors leave all in rotation, the deployment's do not.
    for _ in range(3):
        with suppress(RouterError):
            make(call, router, column, video)
    counts = expected.eject is not None or expected.health is Effect.FAILURE
    assert bool(ejected(router)) is counts


def expected_scopes(expected: Expected, column: str, operation: str) -> dict[str, set[str]]:
    if expected.eject is None:
        # Three failures in a row end an owner's read, and they count.
        worn_out = column == "read" and expected.health is Effect.FAILURE
        return {"east-1": {READS}} if worn_out else {}
    scope = operation if expected.eject == OPERATION else expected.eject
    names = ("east-1", "west-1") if column == "unowned" and expected.again else ("east-1",)
    return {name: {scope} for name in names}


@pytest.mark.parametrize("row", [r for r in ROWS if r.unowned.error], ids=str)
def test_a_submit_that_meets_this_once_is_served_elsewhere_or_not_at_all(
    call: Any, provider: StandIn, clock: Any, row: Row
) -> None:
    router, video, accepted = prepared(call, provider, clock, row, "unowned")
    plan(provider, row, "generation", times=1, after=False)

    if row.unowned.again:
        answer = make(call, router, "unowned", video)
        first, second = answer.routing.attempts
        assert first.deployment != second.deployment == answer.routing.deployment
        assert len(provider.accepted) == accepted + 1
    else:
        with pytest.raises(row.unowned.error):  # type: ignore[arg-type]  # there is one, see above
            make(call, router, "unowned", video)
        assert len(provider.accepted) == accepted


@pytest.mark.parametrize("column", ["unowned", "owned"])
@pytest.mark.parametrize("row", [r for r in ROWS if r.unowned.accepted == "maybe"], ids=str)
def test_a_job_that_was_taken_on_is_never_asked_for_twice(
    call: Any, provider: StandIn, clock: Any, row: Row, column: str
) -> None:
    router, video, accepted = prepared(call, provider, clock, row, column)
    plan(provider, row, METHODS[column][1], times=None, after=True)

    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        make(call, router, column, video)

    assert len(provider.accepted) == accepted + 1
    assert caught.value.accepted == "maybe"
    assert caught.value.deployment in ("east-1", "west-1")
    assert caught.value.account == provider.accepted[-1].account
    assert caught.value.sent_at == pytest.approx(clock.time())


def test_a_5xx_to_a_submit_goes_on_where_the_provider_never_bills_it(
    call: Any, provider: StandIn, clock: Any
) -> None:
    from outcome_parts import URL, fleet

    router = seeded(provider, clock, fleet(URL, retry_on_5xx=True))
    provider.fault("status", operation="generation", status=500)

    answer = call(router, "video_generation", prompt="a cat")

    assert [a.status for a in answer.routing.attempts] == [500, 200]
    assert len(provider.accepted) == 1


def test_a_delete_whose_answer_was_lost_succeeds_on_finding_nothing(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    call(router, "video_status", video)
    provider.fault("reset", operation="delete", after=True)

    gone = call(router, "video_delete", video)

    assert gone.deleted
    assert gone.id == video
    assert [request.status for request in requests_for(provider, "delete")] == [None, 404]
    assert ejected(router) == {}


def test_a_delete_of_what_was_never_there_is_an_error(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    call(router, "video_delete", video)

    with pytest.raises(errors.NotFoundError):
        call(router, "video_delete", video)


@pytest.mark.parametrize("status", [401, 429])
def test_a_character_with_copies_is_served_while_one_of_its_accounts_is_out(
    call: Any, provider: StandIn, clock: Any, clip: bytes, status: int
) -> None:
    router = seeded(provider, clock)
    luna = call(router, "video_create_character", name="Luna", video=clip, replicate=2)
    body = QUOTA if status == 429 else None
    provider.fault("status", operation="generation", status=status, body=body)

    answer = call(router, "video_generation", prompt="Luna sits", characters=[luna])

    assert [a.status for a in answer.routing.attempts] == [status, 200]
    assert len(requests_for(provider, "generation")) == 2
