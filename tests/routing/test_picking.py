"""Calls that others send: `pick` and `apick`, and what webhooks saw, by `observe`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from routing_parts import (
    CLIP,
    THREE,
    Doors,
    FakeClock,
    deployment,
    native_of,
    serving,
)

from router import (
    AmbiguousSubmitError,
    Attempt,
    AuthenticationError,
    BadRequestError,
    ConfigError,
    InvalidIdError,
    NoDeploymentAvailableError,
    OwnershipError,
    RateLimitError,
    Router,
    RouterError,
    UnknownModelError,
    Video,
    events,
)
from router.testing import StandIn

Use = Callable[..., Any]


@pytest.fixture(params=["blocking", "async"])
def picking(request: pytest.FixtureRequest) -> Use:
    """`picking(router, use, "edit", …)`: `use(attempt)` inside the block; what it returns."""

    def blocking(router: Router, use: Callable[[Attempt], Any], *args: Any, **named: Any) -> Any:
        with router.pick(*args, **named) as attempt:
            return use(attempt)

    async def waiting(router: Router, use: Callable[[Attempt], Any], *a: Any, **named: Any) -> Any:
        async with router.apick(*a, **named) as attempt:
            return use(attempt)

    def asynchronous(*args: Any, **named: Any) -> Any:
        return asyncio.run(waiting(*args, **named))

    return blocking if request.param == "blocking" else asynchronous


def itself(attempt: Attempt) -> Attempt:
    return attempt


def observed(provider: StandIn, *names: str, **parts: Any) -> tuple[Router, list[events.Event]]:
    told: list[events.Event] = []
    deployments = [deployment(f"{name}-1") for name in names or THREE]
    return serving(provider, *deployments, on_event=told.append, **parts), told


def attempted(told: list[events.Event]) -> events.Attempted:
    return next(event for event in reversed(told) if isinstance(event, events.Attempted))


# What an attempt offers


def test_an_attempt_is_all_that_a_client_needs(picking: Use, provider: StandIn) -> None:
    router, _ = observed(provider, "east")

    def create(attempt: Attempt) -> str:
        with httpx.Client(transport=provider.transport) as client:
            answer = client.post(
                f"{attempt.base_url}/videos",
                headers=attempt.headers,
                json={"prompt": "a heron", "model": attempt.model},
            )
        return attempt.accepted(answer.raise_for_status().json()["id"])

    ours = picking(router, create, "generation", model="sora-2")
    assert router.video_status(ours).done
    assert provider.accepted[0].account == "east"


def test_an_attempt_names_its_deployment(picking: Use, provider: StandIn) -> None:
    told = deployment("east-1", model="upstream", headers={"X-Team": "video"})
    router = serving(provider, told)
    attempt = picking(router, itself, "generation")
    assert (attempt.deployment, attempt.account, attempt.provider) == ("east-1", "east", "openai")
    assert (attempt.base_url, attempt.api_key) == ("http://stand-in/v1", "sk-east")
    assert attempt.model == "upstream"
    assert attempt.headers["authorization"] == "Bearer sk-east"
    assert attempt.headers["x-team"] == "video"
    assert "sk-east" not in repr(attempt)
    azure = serving(provider, deployment("east-1", provider="azure"))
    assert picking(azure, itself, "generation").headers["api-key"] == "sk-east"


def test_native_ids_come_in_the_callers_order(picking: Use, provider: StandIn) -> None:
    router, _ = observed(provider)
    video = router.video_generation(prompt="x", account="west").id
    attempt = picking(router, itself, "edit", video_id=video)
    assert (attempt.account, attempt.native_id) == ("west", native_of(router, video))
    luna, milo = (
        router.video_create_character(name=name, video=CLIP, replicate="all").id
        for name in ("Luna", "Milo")
    )
    for characters in ([luna, milo], [{"id": milo}, luna]):
        attempt = picking(router, itself, "generation", characters=characters)
        wanted = [one["id"] if isinstance(one, dict) else one for one in characters]
        assert list(attempt.native_ids) == [
            dict(router.describe_id(one).copies)[attempt.account] for one in wanted
        ]
    attempt = picking(router, itself, "get_character", character_id=luna)
    assert attempt.native_id == dict(router.describe_id(luna).copies)[attempt.account]
    assert picking(router, itself, "generation").native_ids == ()


@pytest.mark.parametrize(
    ("operation", "named", "error"),
    [
        ("generation", {"model": "sora-9"}, UnknownModelError),
        ("generation", {"target_model_names": "sora-2,sora-9"}, UnknownModelError),
        ("edit", {"video_id": "video_1"}, InvalidIdError),
        ("edit", {"video_id": "video_1", "account": "mars"}, OwnershipError),
        ("dance", {}, ConfigError),
    ],
)
def test_what_cannot_be_routed_is_not_picked(
    picking: Use, provider: StandIn, operation: str, named: dict[str, Any], error: type[Exception]
) -> None:
    router, told = observed(provider)
    with pytest.raises(error):
        picking(router, itself, operation, **named)
    assert told == []


# What was said of it


def test_accepted_returns_the_id_that_every_call_gives(picking: Use, provider: StandIn) -> None:
    router, told = observed(provider, "east")
    video = router.video_generation(prompt="x").id
    native = native_of(router, video)
    for operation in ("generation", "edit", "extension", "remix", "status"):
        assert (
            picking(router, lambda a: a.accepted(native), operation) == video
            if (operation == "generation")
            else picking(router, lambda a: a.accepted(native), operation, video_id=video) == video
        )
        assert attempted(told).accepted == "yes"
    luna = router.video_create_character(name="L", video=CLIP).id
    native = native_of(router, luna)
    assert picking(router, lambda a: a.accepted(native), "create_character") == luna


@pytest.mark.parametrize("native", ["", "../x", "a b"])
def test_a_native_id_that_is_none_is_refused(picking: Use, provider: StandIn, native: str) -> None:
    router, _ = observed(provider, "east")
    with pytest.raises(InvalidIdError):
        picking(router, lambda attempt: attempt.accepted(native), "generation")


@pytest.mark.parametrize(
    ("status", "kind", "ejected"),
    [
        (400, BadRequestError, False),
        (401, AuthenticationError, True),
        (429, RateLimitError, True),
        (500, AmbiguousSubmitError, False),
        (None, AmbiguousSubmitError, False),
    ],
)
def test_failed_records_the_outcome_and_returns_the_error(
    picking: Use,
    provider: StandIn,
    clock: FakeClock,
    status: int | None,
    kind: type[RouterError],
    ejected: bool,
) -> None:
    router, told = observed(provider, "east", clock=clock)
    error = picking(router, lambda attempt: attempt.failed(status), "generation")
    assert type(error) is kind
    assert (error.deployment, error.status) == ("east-1", status)
    assert attempted(told).status == status
    assert any(isinstance(event, events.Ejected) for event in told) is ejected
    if ejected:
        with pytest.raises(NoDeploymentAvailableError):
            picking(router, itself, "generation")


def test_failed_understands_headers_and_bodies(
    picking: Use, provider: StandIn, clock: FakeClock
) -> None:
    router, _ = observed(provider, "east", clock=clock)
    said = {"error": {"message": "Slow down.", "code": "rate_limit_exceeded", "type": "requests"}}

    def fail(attempt: Attempt) -> RouterError:
        return attempt.failed(429, {"Retry-After": "17", "X-Request-Id": "req_9"}, said)

    error = picking(router, fail, "generation")
    assert isinstance(error, RateLimitError)
    assert (error.retry_after, error.code, error.request_id) == (17, "rate_limit_exceeded", "req_9")
    assert "Slow down." in str(error)
    clock.advance(16.9)
    with pytest.raises(NoDeploymentAvailableError):
        picking(router, itself, "generation")
    clock.advance(0.2)
    assert picking(router, lambda a: a.accepted("video_1"), "generation")


def test_three_failures_in_a_row_eject(picking: Use, provider: StandIn, clock: FakeClock) -> None:
    router, _ = observed(provider, "east", "west", clock=clock)
    for _ in range(3):
        error = picking(router, lambda a: a.failed(None), "generation", account="east")
        assert error.accepted == "maybe"
    for _ in range(10):
        assert picking(router, itself, "status", video_id="video_1", account="east")
        accepted = picking(router, lambda a: (a.accepted("video_1"), a.account), "generation")
        assert accepted[1] == "west"


# What was not said of it


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_leaving_a_submit_without_a_word_is_ambiguous_and_recorded(
    picking: Use, provider: StandIn, how: str
) -> None:
    router, told = observed(provider, "east")

    def leave(attempt: Attempt) -> None:
        if how == "raises":
            raise LookupError("the caller's own")

    if how == "raises":
        with pytest.raises(LookupError, match="the caller's own"):
            picking(router, leave, "generation")
    else:
        picking(router, leave, "generation")
    assert attempted(told).accepted == "maybe"
    assert router.statistics()["east-1"]["in_flight"] == 0


@pytest.mark.parametrize("operation", ["status", "content", "delete"])
def test_leaving_a_read_without_a_word_is_no_harm(
    picking: Use, provider: StandIn, operation: str
) -> None:
    router, told = observed(provider, "east")
    for _ in range(4):
        picking(router, itself, operation, video_id="video_1")
    assert not any(isinstance(event, events.Ejected) for event in told)


def test_a_pick_is_in_flight_until_it_ends(picking: Use, provider: StandIn) -> None:
    router, _ = observed(provider, "east")

    def look(attempt: Attempt) -> int:
        attempt.accepted("video_1")
        return int(router.statistics()["east-1"]["in_flight"])

    assert picking(router, look, "generation") == 1
    assert router.statistics()["east-1"]["in_flight"] == 0


def test_picks_and_calls_learn_from_each_other(
    picking: Use, call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router, _ = observed(provider, "east", "west", clock=clock)

    def slowly(attempt: Attempt) -> None:
        clock.advance(9.0)
        attempt.accepted("video_1")

    picking(router, slowly, "generation", account="east")
    latency = router.statistics()["east-1"]["latency"]["generation"]
    assert latency["mean"] == pytest.approx(9.0)
    served = [call(router, "video_generation", prompt="x").routing.account for _ in range(10)]
    assert served.count("west") >= 9  # west may be tried first, and is faster ever after


# Observations


def test_observe_takes_in_the_end_of_a_job_once(call: Doors, provider: StandIn) -> None:
    router, told = observed(provider)
    video = call(router, "video_generation", prompt="x")
    for seen in ("in_progress", "completed", Video(id="x", status="completed"), "completed"):
        router.observe(video.id, seen)
    router.observe(video.id, {"status": "completed", "id": "a native id", "progress": 100})
    ended = [event for event in told if isinstance(event, events.JobFinished)]
    assert [(e.video_id, e.account, e.status) for e in ended] == [
        (video.id, video.routing.account, "completed")
    ]


def test_observed_failures_count_against_the_deployment_that_took_the_job(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router, _ = observed(provider, "east", "west", clock=clock)
    jobs = [call(router, "video_generation", prompt="x", account="east").id for _ in range(3)]
    error = {"code": "server_error", "message": "The GPU caught fire."}
    for job in jobs:
        for _ in range(2):  # told twice, counted once
            router.observe(job, {"status": "failed", "error": error})
    for _ in range(10):
        assert call(router, "video_generation", prompt="x").routing.account == "west"


def test_observed_failures_of_the_caller_count_against_nobody(
    call: Doors, provider: StandIn
) -> None:
    router, told = observed(provider, "east")
    for _ in range(6):
        job = call(router, "video_generation", prompt="x").id
        error = {"code": "moderation_blocked", "message": "Blocked by our moderation system."}
        router.observe(job, {"status": "failed", "error": error})
    assert not any(isinstance(event, events.Ejected) for event in told)
    assert call(router, "video_generation", prompt="x").id


def test_observe_refuses_what_has_no_clear_owner(provider: StandIn) -> None:
    router, _ = observed(provider)
    ours = router.video_generation(prompt="x").id
    for wrong in ("video_1", ours[:-1], "../x"):
        with pytest.raises(InvalidIdError):
            router.observe(wrong, "completed")


def test_events_hold_no_prompt_and_no_key(call: Doors, provider: StandIn) -> None:
    router, told = observed(provider)
    provider.fault("status", status=401, body={"error": {"message": "Bad key sk-east, sk-west"}})
    call(router, "video_generation", prompt="a secret prompt")
    kinds = {type(event) for event in told}
    assert {events.Picked, events.Attempted, events.Ejected} <= kinds
    for word in ("a secret prompt", "sk-"):
        shown = repr([e for e in told if not isinstance(e, events.Ejected)])
        assert word not in shown
    ejected = [event for event in told if isinstance(event, events.Ejected)]
    assert f"sk-{ejected[0].account}" not in repr(ejected)


def test_a_hook_that_fails_fails_alone(
    call: Doors, provider: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(event: events.Event) -> None:
        raise ValueError("the hook's own")

    router = serving(provider, deployment("east-1"), on_event=hook)
    assert call(router, "video_generation", prompt="x").id
    assert "on_event" in caplog.text
