"""Who is out of rotation, for what, and how long."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest
from outcome_parts import (
    CLIP,
    URL,
    Answering,
    by_transport,
    ejected,
    fleet,
    made_video,
    openai_error,
    requests_for,
    scopes,
    seeded,
)

from router import Router, errors
from router.events import Ejected
from router.health import Health
from router.observations import BOTH, READS, SUBMITS, Cause, Ejection
from router.testing import StandIn
from router.types import Operation

GENERATION, STATUS = Operation.GENERATION, Operation.STATUS


# The machine by itself


def failing(health: Health, now: float, rng: random.Random, operation: Operation) -> float | None:
    """Seconds of the ejection that one more failure leads to."""
    ejection = health.failed(operation, now, rng, unreachable=False)
    if ejection is None:
        return None
    health.eject(ejection)
    return ejection.until - now


def test_three_failures_in_a_row_eject_for_5_s_doubling_to_300() -> None:
    health, rng, now = Health(), random.Random(1), 1000.0
    spans = []
    assert failing(health, now, rng, GENERATION) is None
    assert failing(health, now, rng, GENERATION) is None
    for _ in range(9):
        span = failing(health, now, rng, GENERATION)
        assert span is not None
        spans.append(span)
        now += span

    for span, base in zip(spans, [5, 10, 20, 40, 80, 160, 300, 300, 300], strict=True):
        assert base <= span <= base * 1.1


def test_the_jitter_differs_between_workers_and_repeats_with_a_seed() -> None:
    def first(seed: int) -> float | None:
        health, rng = Health(), random.Random(seed)
        return [failing(health, 0.0, rng, GENERATION) for _ in range(3)][2]

    assert first(1) == first(1)
    assert len({first(seed) for seed in range(20)}) == 20


def test_a_success_starts_the_count_and_the_back_off_again() -> None:
    health, rng = Health(), random.Random(1)
    for _ in range(2):
        failing(health, 0.0, rng, GENERATION)
    health.succeeded(GENERATION)
    assert [failing(health, 0.0, rng, GENERATION) for _ in range(2)] == [None, None]
    assert failing(health, 0.0, rng, GENERATION) is not None

    health.succeeded(GENERATION)
    spans = [failing(health, 100.0, rng, GENERATION) for _ in range(3)]
    assert spans[:2] == [None, None]
    assert 5 <= (spans[2] or 0) <= 5.5


def test_submits_and_reads_fail_apart() -> None:
    health, rng = Health(), random.Random(1)
    for _ in range(2):
        assert failing(health, 0.0, rng, GENERATION) is None
        assert failing(health, 0.0, rng, STATUS) is None
    health.succeeded(STATUS)
    assert failing(health, 0.0, rng, STATUS) is None
    assert failing(health, 0.0, rng, GENERATION) is not None
    assert health.ejection(GENERATION, 1.0) is not None
    assert health.ejection(STATUS, 1.0) is None


def test_an_unreachable_host_counts_for_both_sides() -> None:
    health, rng = Health(), random.Random(1)
    health.failed(GENERATION, 0.0, rng, unreachable=True)
    health.failed(STATUS, 0.0, rng, unreachable=True)
    ejection = health.failed(GENERATION, 0.0, rng, unreachable=True)

    assert ejection is not None
    assert ejection.scope == BOTH
    assert ejection.covers(GENERATION)
    assert ejection.covers(STATUS)


@pytest.mark.parametrize("scope", [SUBMITS, READS, BOTH, GENERATION])
@pytest.mark.parametrize("cause", Cause)
def test_an_ejection_only_ever_extends(scope: str, cause: Cause) -> None:
    health = Health()
    assert health.eject(Ejection(scope, 50.0, cause, "first"))
    assert not health.eject(Ejection(scope, 40.0, cause, "shorter"))
    assert health.eject(Ejection(scope, 60.0, cause, "longer"))

    (standing,) = health.standing(0.0)
    assert (standing.until, standing.reason) == (60.0, "longer")
    assert health.standing(60.0) == []


def test_what_a_scope_covers() -> None:
    for operation in Operation:
        assert Ejection(BOTH, 1, Cause.DENIED, "").covers(operation)
        assert Ejection(SUBMITS, 1, Cause.DENIED, "").covers(operation) is operation.is_submit
        assert Ejection(READS, 1, Cause.DENIED, "").covers(operation) is not operation.is_submit
        assert Ejection(GENERATION, 1, Cause.MISSING, "").covers(operation) is (
            operation is GENERATION
        )


# In a router


def fails(provider: StandIn, operation: str, times: int | None = None, **details: Any) -> Any:
    return provider.fault("status", operation=operation, times=times, status=502, **details)


def submit(call: Any, router: Router) -> str:
    """One submit, by its result: served, or the name of its error."""
    try:
        return str(call(router, "video_generation", prompt="a cat").status)
    except errors.RouterError as error:
        return type(error).__name__


def test_after_three_failures_a_deployment_is_left_alone_and_comes_back(
    call: Any, provider: StandIn, clock: Any
) -> None:
    told: list[Any] = []
    router = seeded(provider, clock, fleet(URL, "east"), on_event=told.append)
    fault = fails(provider, "generation")

    results = [submit(call, router) for _ in range(5)]
    assert results == ["AmbiguousSubmitError"] * 3 + ["NoDeploymentAvailableError"] * 2
    assert len(provider.requests) == 3
    (ejection,) = ejected(router)["east-1"]
    assert ejection["scope"] == "submits"
    assert 5 <= ejection["seconds"] <= 5.5

    fault.cancel()
    clock.advance(5.6)
    assert ejected(router) == {}
    assert submit(call, router) == "queued"
    (event,) = [e for e in told if isinstance(e, Ejected)]
    assert (event.deployment, event.account, event.scope) == ("east-1", "east", "submits")
    assert 5 <= event.seconds <= 5.5


def test_the_first_failure_after_an_ejection_is_the_next_and_twice_as_long(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    fails(provider, "generation")
    for _ in range(3):
        submit(call, router)

    for base in (10, 20, 40, 80, 160, 300, 300):
        clock.advance(ejected(router)["east-1"][0]["seconds"] + 0.001)
        assert submit(call, router) == "AmbiguousSubmitError"
        assert base <= ejected(router)["east-1"][0]["seconds"] <= base * 1.1


def test_a_success_between_failures_keeps_a_deployment_in(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    for _ in range(4):
        fails(provider, "generation", times=2)
        assert [submit(call, router) for _ in range(3)] == ["AmbiguousSubmitError"] * 2 + ["queued"]

    assert ejected(router) == {}


def test_a_deployment_that_is_out_gets_no_call_while_another_is_in(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    fails(provider, "generation", account="east")
    for _ in range(3):
        with pytest.raises(errors.AmbiguousSubmitError):
            call(router, "video_generation", prompt="a cat", account="east")
    seen = len(provider.requests)

    served = {call(router, "video_generation", prompt="a cat").routing.account for _ in range(10)}

    assert served == {"west"}
    assert {r.account for r in provider.requests[seen:]} == {"west"}


def test_failing_submits_leave_reads_and_failing_reads_leave_submits(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    fault = fails(provider, "generation")
    for _ in range(3):
        submit(call, router)
    assert scopes(router) == {"east-1": {"submits"}}
    assert call(router, "video_status", video).done
    assert call(router, "video_content", video) == CLIP

    fault.cancel()
    clock.advance(6)
    fails(provider, "status")
    with pytest.raises(errors.InternalServerError):
        call(router, "video_status", video)
    assert scopes(router) == {"east-1": {"reads"}}
    assert submit(call, router) == "queued"


def test_an_owners_reads_ignore_ejections_by_failure(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    fault = fails(provider, "status")
    for _ in range(3):
        with pytest.raises(errors.InternalServerError):
            call(router, "video_status", video, retries=0)
    assert scopes(router) == {"east-1": {"reads"}}

    fault.cancel()
    assert call(router, "video_status", video, retries=0).done


def test_an_owners_submits_do_not(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    fails(provider, "edit")
    for _ in range(3):
        with pytest.raises(errors.AmbiguousSubmitError):
            call(router, "video_edit", video_id=video, prompt="a dog")

    with pytest.raises(errors.NoDeploymentAvailableError) as caught:
        call(router, "video_edit", video_id=video, prompt="a dog")
    assert 5 <= caught.value.retry_after <= 5.5
    assert len(requests_for(provider, "edit")) == 3


def test_four_look_ups_of_an_unknown_id_leave_everything_in_rotation(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    for _ in range(4):
        for account in ("east", "west"):
            with pytest.raises(errors.NotFoundError):
                call(router, "video_status", "video_0", account=account)
            with pytest.raises(errors.NotFoundError):
                call(router, "video_edit", video_id="video_0", prompt="a", account=account)
            with pytest.raises(errors.NotFoundError):
                call(router, "video_get_character", "char_0", account=account)
            with pytest.raises(errors.NotFoundError):
                call(router, "video_content", "video_0", account=account)
        with pytest.raises(errors.NotFoundError):
            call(router, "locate", "video_0")

    assert ejected(router) == {}
    assert submit(call, router) == "queued"


def test_what_the_stand_in_itself_refuses_leaves_everything_in_rotation(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    for arguments in (
        {"prompt": "a cat", "seconds": 5},
        {"prompt": "a cat", "size": "1x1"},
        {"prompt": "a cat", "characters": ["char_0"], "account": "east"},
    ) * 4:
        with pytest.raises(errors.BadRequestError) as caught:
            call(router, "video_generation", **arguments)
        assert len(caught.value.attempts) == 1
    for _ in range(4):
        with pytest.raises(errors.BadRequestError):
            call(router, "video_create_character", name="Luna", video=b"no clip at all")

    assert ejected(router) == {}


def test_an_operation_that_is_missing_is_out_for_that_operation_alone(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    provider.fault("status", operation="create_character", times=None, status=404)
    with pytest.raises(errors.NotFoundError):
        call(router, "video_create_character", name="Luna", video=CLIP)

    assert scopes(router) == {"east-1": {"create_character"}}
    assert ejected(router)["east-1"][0]["seconds"] == 300
    assert submit(call, router) == "queued"
    with pytest.raises(errors.NoDeploymentAvailableError):
        call(router, "video_create_character", name="Luna", video=CLIP)


# Accounts


def two_of_east() -> dict[str, Any]:
    data = fleet(URL)
    data["deployments"] += [
        {"id": "east-2", "model_name": "sora-2", "account": "east"},
        {"id": "east-3", "model_name": "sora-2-pro", "account": "east"},
    ]
    return data


DENIED = {
    "key": {"status": 401},
    "bill": {
        "status": 429,
        "body": openai_error("You exceeded your current quota", code="insufficient_quota"),
    },
}


@pytest.mark.parametrize("answer", DENIED.values(), ids=DENIED)
def test_a_rejected_key_takes_out_all_of_its_account(
    call: Any, provider: StandIn, clock: Any, caplog: Any, answer: dict[str, Any]
) -> None:
    video = made_video(provider)
    told: list[Any] = []
    router = seeded(provider, clock, two_of_east(), on_event=told.append)
    provider.fault("status", operation="generation", account="east", **answer)

    with caplog.at_level(logging.INFO, "router"), pytest.raises(errors.StatusError) as caught:
        call(router, "video_generation", prompt="a cat", account="east", model="sora-2")

    assert len(caught.value.attempts) == 1
    assert scopes(router) == {f"east-{n}": {"both"} for n in (1, 2, 3)}
    assert {e["seconds"] for found in ejected(router).values() for e in found} == {300.0}
    assert len(caplog.records) == 1  # one line for the account, not one for each deployment
    assert len([e for e in told if isinstance(e, Ejected)]) == 3

    # Its reads and its owner's submits end at once, nothing is sent, and others are served.
    seen = len(provider.requests)
    for method, arguments in (
        ("video_status", {"video_id": video}),
        ("video_edit", {"video_id": video, "prompt": "a dog"}),
    ):
        with pytest.raises(errors.NoDeploymentAvailableError) as out:
            call(router, method, **arguments)
        assert out.value.retry_after == pytest.approx(300)
    assert len(provider.requests) == seen
    made = call(router, "video_generation", prompt="a cat", model="sora-2")
    assert made.routing.account == "west"


def write(path: Path, key: str) -> None:
    path.write_text(
        "accounts:\n"
        f"  east: {{api_key: {key}, base_url: {URL}}}\n"
        f"  west: {{api_key: sk-west, base_url: {URL}}}\n"
        "deployments:\n"
        "  - {id: east-1, model_name: sora-2, account: east}\n"
        "  - {id: east-2, model_name: sora-2, account: east}\n"
        "  - {id: west-1, model_name: sora-2, account: west}\n"
    )


def from_file(path: Path, provider: StandIn, clock: Any) -> Router:
    return Router.from_yaml(
        path,
        environ={},
        http_client=provider.transport,
        async_http_client=provider.transport,
        clock=clock,
        rng=random.Random(5),
    )


def test_a_reload_with_a_new_key_lifts_it_and_one_with_the_old_does_not(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    video = made_video(provider)
    path = tmp_path / "deployments.yaml"
    write(path, "sk-expired")
    router = from_file(path, provider, clock)
    with pytest.raises(errors.AuthenticationError):
        call(router, "video_status", video)

    router.reload()
    assert set(scopes(router)) == {"east-1", "east-2"}
    write(path, "sk-east")
    router.reload()

    assert ejected(router) == {}
    assert call(router, "video_status", video).done


def test_a_reload_with_a_new_key_keeps_what_was_found_otherwise(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    path = tmp_path / "deployments.yaml"
    write(path, "sk-expired")
    router = from_file(path, provider, clock)
    provider.fault("status", operation="generation", times=1, status=429)
    with pytest.raises(errors.RateLimitError):
        call(router, "video_generation", prompt="a cat", account="west")
    write(path, "sk-east")
    router.reload()

    assert scopes(router) == {"west-1": {"submits"}}


def test_a_new_key_loses_nothing_of_what_calls_under_way_find_out(
    provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    path = tmp_path / "deployments.yaml"
    write(path, "sk-old")
    router = from_file(path, provider, clock)
    with router.pick("generation", account="east") as attempt:
        write(path, "sk-east")
        router.reload()
        attempt.failed(429, {"retry-after": "200"})

    assert scopes(router) == {attempt.deployment: {"submits"}}


def test_a_call_under_way_with_the_old_key_says_nothing_of_the_new_one(
    provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    path = tmp_path / "deployments.yaml"
    write(path, "sk-old")
    router = from_file(path, provider, clock)
    with router.pick("generation", account="east") as attempt:
        write(path, "sk-east")
        router.reload()
        attempt.failed(401)

    assert scopes(router) == {}


def test_a_key_that_was_rejected_is_tried_again_after_300_s(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="status", status=401)
    with pytest.raises(errors.AuthenticationError):
        call(router, "video_status", video)

    clock.advance(300.001)

    assert call(router, "video_status", video).done


def test_a_403_counts_for_what_this_account_could_do_before(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    provider.fault("status", operation="generation", times=4, status=403)
    for _ in range(4):
        assert submit(call, router) == "PermissionDeniedError"
    assert ejected(router) == {}

    assert submit(call, router) == "queued"
    provider.fault("status", operation="create_character", status=403)
    with pytest.raises(errors.PermissionDeniedError):
        call(router, "video_create_character", name="Luna", video=CLIP)
    assert ejected(router) == {}

    provider.fault("status", operation="generation", status=403)
    assert submit(call, router) == "PermissionDeniedError"
    assert scopes(router) == {"east-1": {"both"}}


def test_a_deployment_that_fails_fast_does_not_look_fast(
    call: Any, clock: Any, provider: StandIn
) -> None:
    """A failure is recorded as a penalised latency, so that errors attract no traffic."""
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == "Bearer sk-east":
            clock.advance(0.001)
            return httpx.Response(302, headers={"location": "http://elsewhere"})
        clock.advance(0.5)
        return httpx.Response(200, json={"id": "video_1", "status": "queued"})

    router = by_transport(Answering(answer), clock)
    for _ in range(2):
        with pytest.raises(errors.InvalidResponseError):
            call(router, "video_generation", prompt="a cat", account="east")
        call(router, "video_generation", prompt="a cat", account="west")

    latency = {
        name: facts["latency"]["generation"]["mean"] for name, facts in router.statistics().items()
    }
    assert latency["east-1"] > latency["west-1"]
    for _ in range(6):
        made = call(router, "video_generation", prompt="a cat")
        assert made.routing.deployment == "west-1"


def test_a_hook_that_fails_changes_nothing(call: Any, provider: StandIn, clock: Any) -> None:
    def hook(event: object) -> None:
        raise RuntimeError("the hook's own")

    router = seeded(provider, clock, fleet(URL, "east"), on_event=hook)

    assert submit(call, router) == "queued"
    fails(provider, "generation")
    for _ in range(3):
        assert submit(call, router) == "AmbiguousSubmitError"
    assert scopes(router) == {"east-1": {"submits"}}
