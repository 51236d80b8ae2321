"""Whatever goes wrong is told in OpenAI's shape, with a status that clients understand."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from proxy_parts import Face, facing, tenants, told
from shared_parts import fleet
from starlette.responses import Response

from router import errors
from router.proxy.answers import ERRORS, failed
from router.testing import StandIn
from router.types import AttemptRecord

ATTEMPT = AttemptRecord("east-1", "east", 0.1, 500, "failed")


def test_every_error_has_its_row() -> None:
    every = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RouterError)
    }

    assert set(ERRORS) == every


def answer(error: errors.RouterError) -> tuple[Response, dict[str, Any]]:
    response = failed(error)
    said: dict[str, Any] = json.loads(bytes(response.body))["error"]
    return response, said


@pytest.mark.parametrize(
    ("error", "status", "code", "again"),
    [
        (errors.BadRequestError("no"), 400, "invalid_request", True),
        (errors.BadRequestError("413 big", status=413, code="big"), 413, "big", True),
        (errors.BadRequestError("415 what", status=415), 415, "invalid_request", True),
        (errors.BadRequestError("422 odd", status=422), 422, "invalid_request", True),
        (errors.InvalidIdError("no"), 404, "invalid_id", True),
        (errors.OwnershipError("no"), 404, "not_found", True),
        (errors.UnknownModelError("no"), 404, "model_not_found", True),
        (errors.AuthenticationError("401 no", status=401), 502, "provider_authentication", False),
        (errors.PermissionDeniedError("403 no", status=403), 403, "permission_denied", True),
        (errors.NotFoundError("404 no", status=404), 404, "not_found", True),
        (errors.NotFoundError("410 no", status=410), 410, "not_found", True),
        (errors.VideoExpiredError("no"), 410, "video_expired", True),
        (errors.ConflictError("no"), 409, "idempotency_conflict", False),
        (errors.ConflictError("409 no", status=409, code="busy"), 409, "busy", False),
        (errors.JobFailedError("no", code="moderation_blocked"), 409, "moderation_blocked", False),
        (errors.RateLimitError("429 no", status=429), 429, "rate_limit_exceeded", True),
        (errors.CapacityError("no"), 429, "capacity", True),
        (errors.UnsupportedOperationError("no"), 501, "unsupported_operation", False),
        (errors.AmbiguousSubmitError("no"), 502, "ambiguous_submit", False),
        (errors.ConnectError("no"), 502, "provider_unreachable", True),
        (errors.InternalServerError("500 no", status=500), 502, "provider_error", True),
        (errors.InvalidResponseError("no"), 502, "invalid_response", False),
        (errors.StatusError("408 late", status=408), 502, "provider_error", False),
        (errors.NoDeploymentAvailableError("no"), 503, "no_deployment_available", True),
        (errors.StateUnavailableError("no"), 503, "state_unavailable", True),
        (errors.DeadlineExceededError("no"), 504, "deadline_exceeded", True),
        (errors.AttemptTimeoutError("no"), 504, "provider_timeout", True),
        (errors.VideoNotReadyError("no"), 404, "video_not_ready", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, errors.RouterError) else None,
)
def test_an_error_is_answered_with_its_status(
    error: errors.RouterError, status: int, code: str, again: bool
) -> None:
    response, said = answer(error)

    assert (response.status_code, said["code"]) == (status, code)
    assert ("x-should-retry" not in response.headers) is again
    assert ("retry-after" in response.headers) is isinstance(error, errors.TryLaterError)


@pytest.mark.parametrize("accepted", ["maybe", "yes"])
@pytest.mark.parametrize("kind", [errors.DeadlineExceededError, errors.ConnectError])
def test_what_may_have_been_accepted_is_never_repeated_by_a_client(
    kind: type[errors.RouterError], accepted: Any
) -> None:
    response, said = answer(kind("no", accepted=accepted, video_id="video_1"))

    assert response.headers["x-should-retry"] == "false"
    assert (said["accepted"], said["video_id"]) == (accepted, "video_1")


def test_an_error_tells_who_was_asked_and_when_to_come_again() -> None:
    error = errors.CapacityError(
        "full", retry_after=1.2, deployment="öst, 1", attempts=(ATTEMPT, ATTEMPT)
    )
    response, said = answer(error)

    assert response.headers["retry-after"] == "2"
    assert response.headers["retry-after-ms"] == "1200"
    assert response.headers["x-router-attempts"] == "2"
    assert response.headers["x-router-deployment"] == "%C3%B6st, 1"
    assert (said["type"], said["param"]) == ("requests", None)


# End to end --------------------------------------------------------------------------------------


async def made(face: Face, **given: Any) -> Any:
    return await face.post("/v1/videos", **{"json": {"prompt": "x"}, **given})


async def test_a_providers_refusal_is_passed_on_in_its_own_words(provider: StandIn) -> None:
    body = {
        "error": {
            "message": "Your request was blocked by our moderation system.",
            "type": "invalid_request_error",
            "param": None,
            "code": "moderation_blocked",
        }
    }
    provider.fault("status", operation="generation", status=400, body=body)

    async with facing(provider) as face:
        answer = await made(face)

    assert answer.status_code == 400
    assert told(answer)["message"] == "Your request was blocked by our moderation system."
    assert told(answer)["code"] == "moderation_blocked"
    assert answer.headers["x-router-deployment"] in ("east-1", "west-1")


@pytest.mark.parametrize("fault", ["reset_mid_body", "garbage", "truncated", "empty"])
async def test_a_lost_answer_says_that_a_job_may_run(provider: StandIn, fault: str) -> None:
    provider.fault(fault, operation="generation")

    async with facing(provider) as face:
        answer = await made(face)

    assert answer.status_code == 502
    assert answer.headers["x-should-retry"] == "false"
    assert (told(answer)["code"], told(answer)["accepted"]) == ("ambiguous_submit", "maybe")
    assert len(provider.accepted) == 1


async def test_a_key_that_is_refused_upstream_is_no_fault_of_the_callers(provider: StandIn) -> None:
    data = fleet("http://stand-in/v1", "east")
    data["accounts"]["east"]["api_key"] = "sk-nobodys"

    async with facing(provider, data) as face:
        first = await made(face)
        then = await made(face)

    assert first.status_code == 502
    assert "sk-nobodys" not in first.text + then.text
    assert then.status_code == 503
    assert int(then.headers["retry-after"]) >= 1


async def test_a_full_account_is_told_with_a_time(provider: StandIn, clock: Any) -> None:
    data = fleet("http://stand-in/v1", "east", rpm=1)

    async with facing(provider, data, clock=clock) as face:
        await made(face)
        answer = await made(face)

    assert answer.status_code == 429
    assert told(answer)["code"] == "capacity"
    assert 1 <= int(answer.headers["retry-after"]) <= 61


async def test_an_operation_that_nobody_can_do_is_501_and_not_repeated(provider: StandIn) -> None:
    data = fleet("http://stand-in/v1", "east", operations=["generation", "status"])

    async with facing(provider, data) as face:
        video = await face.make()
        answer = await face.post(f"/v1/videos/{video}/remix", json={"prompt": "x"})

    assert answer.status_code == 501
    assert answer.headers["x-should-retry"] == "false"


async def test_an_unknown_model_is_404_and_lists_the_known(provider: StandIn) -> None:
    async with facing(provider) as face:
        answer = await made(face, json={"prompt": "x", "model": "sora-9"})

    assert answer.status_code == 404
    assert (told(answer)["code"], told(answer)["param"]) == ("model_not_found", "model")
    assert "sora-2" in told(answer)["message"]


async def test_a_deadline_is_504(provider: StandIn, clock: Any) -> None:
    data = fleet("http://stand-in/v1", "east", max_parallel_jobs=1)
    data["settings"] = {"deadline": 5, "max_wait": 60}
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=1000, clock=clock)

    async with facing(provider, data, clock=clock) as face:
        await made(face)
        answer = await made(face)

    assert answer.status_code in (429, 504)


async def test_content_before_its_time_and_after_it(provider: StandIn, clock: Any) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=100, clock=clock)
    async with facing(provider, fleet("http://stand-in/v1", "east"), clock=clock) as face:
        video = await face.make()
        early = await face.get(f"/v1/videos/{video}/content")
        clock.advance(101)
        provider.fault("status", operation="content", status=410)
        late = await face.get(f"/v1/videos/{video}/content")
        missing = await face.get("/v1/videos/video_missing/content")

    assert (early.status_code, told(early)["code"]) == (404, "video_not_ready")
    assert "retry-after" in early.headers
    assert (late.status_code, told(late)["code"]) == (410, "video_expired")
    assert missing.status_code == 404


async def test_a_job_that_failed_has_its_reason_on_its_content(provider: StandIn) -> None:
    provider.fault(
        "job_fails", operation="generation", code="moderation_blocked", message="No likeness."
    )
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        video = await face.make()
        status = await face.get(f"/v1/videos/{video}")
        gone = {"error": {"message": "No such file.", "type": "x", "param": None, "code": None}}
        provider.fault("status", operation="content", status=404, body=gone)
        content = await face.get(f"/v1/videos/{video}/content")

    assert status.json()["error"]["code"] == "moderation_blocked"
    assert content.status_code == 409
    assert told(content)["code"] == "moderation_blocked"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/videos/", 404),
        ("POST", "/v1/videos/x/y/z", 404),
        ("PUT", "/v1/videos", 405),
        ("OPTIONS", "/v1/videos", 405),
        ("GET", "/v1/videos/characters", 405),
        ("DELETE", "/v1/videos/edits", 405),
        ("GET", "/v1/videos/extensions", 405),
        ("DELETE", "/v1/videos/characters/x", 405),
        ("POST", "/v1/models", 405),
    ],
)
async def test_other_paths_and_methods(
    provider: StandIn, method: str, path: str, status: int
) -> None:
    async with facing(provider) as face:
        answer = await face.ask(method, path, json={})

    assert answer.status_code == status
    assert told(answer)["message"]
    assert provider.requests == []
    assert "access-control-allow-origin" not in answer.headers


async def test_a_mistake_of_ours_is_500_without_its_words(
    provider: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with facing(provider, tenants(fleet("http://stand-in/v1"))) as face:

        async def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError("the secret sk-east")

        monkeypatch.setattr(face.router, "avideo_generation", broken)
        monkeypatch.setattr(face.router, "avideo_content", broken)
        answers = [
            await face.post("/v1/videos", key="pk-web", json={"prompt": "x"}),
            await face.get("/v1/videos/video_1/content", key="pk-web"),
        ]

    for answer in answers:
        assert answer.status_code == 500
        assert answer.headers["x-should-retry"] == "false"
        assert "sk-east" not in answer.text
        assert told(answer)["type"] == "server_error"
    assert "/v1/videos failed" in caplog.text
    assert "/content failed" in caplog.text
