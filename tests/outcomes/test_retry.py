"""Whether, where and when a call goes on: Retry-After, back-off, the budget, the last error."""

from __future__ import annotations

import email.utils
import random
from typing import Any

import httpx
import pytest
from outcome_parts import (
    URL,
    Answering,
    FakeClock,
    by_transport,
    ejected,
    fleet,
    made_video,
    requests_for,
    seeded,
)

from router import errors
from router.outcomes import Exchange, judge
from router.retry import RetryBudget, back_off
from router.testing import StandIn
from router.types import Operation


def at(seconds: float) -> str:
    """An HTTP date so many seconds after the fake clock's start."""
    return email.utils.formatdate(FakeClock().time() + seconds, usegmt=True)


# What Retry-After says, and for how long a deployment is out.
RETRY_AFTER = {
    "seconds": ({"Retry-After": "20"}, 20.0),
    "a fraction": ({"Retry-After": "2.5"}, 2.5),
    "blanks": ({"Retry-After": " 7 "}, 7.0),
    "a date": ({"Retry-After": at(42)}, 42.0),
    "a date of long ago": ({"Retry-After": at(-86_400)}, 1.0),
    "milliseconds": ({"retry-after-ms": "1500"}, 1.5),
    "milliseconds beat seconds": ({"retry-after-ms": "1500", "Retry-After": "20"}, 1.5),
    "unreadable milliseconds do not": ({"retry-after-ms": "soon", "Retry-After": "20"}, 20.0),
    "a year": ({"Retry-After": "31536000"}, 300.0),
    "a date in a year": ({"Retry-After": at(31_536_000)}, 300.0),
    "infinity": ({"Retry-After": "inf"}, 300.0),
    "zero": ({"Retry-After": "0"}, 1.0),
    "less than nothing": ({"Retry-After": "-5"}, 1.0),
    "no number": ({"Retry-After": "nan"}, 5.0),
    "no sense": ({"Retry-After": "soon"}, 5.0),
    "nothing": ({}, 5.0),
    "an empty value": ({"Retry-After": ""}, 5.0),
}


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_a_throttled_deployment_is_out_for_as_long_as_it_says(
    call: Any, provider: StandIn, clock: Any, headers: dict[str, str], seconds: float
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    provider.fault("status", operation="generation", status=429, headers=headers)

    with pytest.raises(errors.RateLimitError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert caught.value.retry_after == pytest.approx(seconds)
    assert isinstance(caught.value, errors.TryLaterError)
    (ejection,) = ejected(router)["east-1"]
    assert ejection["seconds"] == pytest.approx(seconds)
    assert ejection["scope"] == "submits"


def test_without_retry_after_the_wait_doubles_from_5_s_to_300_s(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    fault = provider.fault("status", operation="generation", times=None, status=429)
    waits = []
    for _ in range(9):
        with pytest.raises(errors.RateLimitError) as caught:
            call(router, "video_generation", prompt="a cat")
        waits.append(caught.value.retry_after)
        clock.advance(caught.value.retry_after)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]

    fault.cancel()
    call(router, "video_generation", prompt="a cat")
    provider.fault("status", operation="generation", status=429)
    with pytest.raises(errors.RateLimitError) as caught:
        call(router, "video_generation", prompt="a cat")
    assert caught.value.retry_after == 5


def test_throttled_submits_leave_reads_alone_and_the_other_way_round(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    provider.fault("status", operation="generation", status=429)
    with pytest.raises(errors.RateLimitError):
        call(router, "video_generation", prompt="a cat")
    assert call(router, "video_status", video).done
    assert not any(clock.slept)

    clock.advance(6)
    provider.fault("status", operation="status", status=429, headers={"retry-after": "30"})
    with pytest.raises(errors.RateLimitError):
        call(router, "video_status", video, retries=0)
    assert call(router, "video_generation", prompt="a cat").status == "queued"


def test_a_throttled_deployment_is_never_taken_for_a_failing_one(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    provider.fault(
        "status", operation="generation", times=6, status=503, headers={"retry-after": "2"}
    )
    for _ in range(6):
        with pytest.raises(errors.InternalServerError):
            call(router, "video_generation", prompt="a cat")
        clock.advance(2)
    assert ejected(router) == {}
    assert call(router, "video_generation", prompt="a cat").status == "queued"


def test_an_owners_read_waits_a_throttle_out(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="status", status=429, headers={"retry-after": "20"})

    answer = call(router, "video_status", video)

    assert answer.done
    assert [a.status for a in answer.routing.attempts] == [429, 200]
    assert sum(clock.slept) == pytest.approx(20)


def test_an_owners_read_waits_out_what_another_call_has_met(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="status", status=429, headers={"retry-after": "20"})
    with pytest.raises(errors.RateLimitError):
        call(router, "video_status", video, retries=0)

    assert call(router, "video_status", video, retries=0).done
    assert sum(clock.slept) == pytest.approx(20)


def test_no_read_waits_beyond_its_deadline(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="status", status=429, headers={"retry-after": "20"})

    with pytest.raises(errors.RateLimitError) as caught:
        call(router, "video_status", video, deadline=10)

    assert caught.value.retry_after == 20
    assert clock.passed == 0


@pytest.mark.parametrize(
    ("status", "error"), [(429, errors.RateLimitError), (503, errors.InternalServerError)]
)
def test_an_owners_submit_raises_at_once_and_says_when_to_come_back(
    call: Any, provider: StandIn, clock: Any, status: int, error: type[Exception]
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="edit", status=status, headers={"retry-after": "20"})

    with pytest.raises(error) as caught:
        call(router, "video_edit", video_id=video, prompt="a dog")
    assert caught.value.retry_after == 20  # type: ignore[attr-defined]  # the point of this test
    assert not any(clock.slept)

    with pytest.raises(errors.NoDeploymentAvailableError) as later:
        call(router, "video_edit", video_id=video, prompt="a dog")
    assert later.value.retry_after == pytest.approx(20)
    assert later.value.reasons.keys() == {"east-1"}
    assert len(requests_for(provider, "edit")) == 1


def test_unowned_submits_go_round_a_throttled_deployment(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    provider.fault("status", account="east", times=None, status=429)

    served = {call(router, "video_generation", prompt="a cat").routing.account for _ in range(8)}

    assert served == {"west"}
    assert len([r for r in provider.requests if r.account == "east"]) <= 1


def test_when_all_are_out_the_error_gives_a_reason_for_each(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    provider.fault("status", account="east", times=None, status=429, headers={"retry-after": "40"})
    provider.fault("status", account="west", times=None, status=429, headers={"retry-after": "20"})
    with pytest.raises(errors.RateLimitError):
        call(router, "video_generation", prompt="a cat")
    seen = len(provider.requests)

    with pytest.raises(errors.NoDeploymentAvailableError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert caught.value.reasons.keys() == {"east-1", "west-1"}
    assert caught.value.retry_after == pytest.approx(20)
    assert caught.value.accepted == "no"
    assert len(provider.requests) == seen


# x-should-retry


@pytest.mark.parametrize("status", [302, 429, 503])
def test_a_provider_that_asks_not_to_retry_is_obeyed_by_submits(
    call: Any, provider: StandIn, clock: Any, status: int
) -> None:
    headers = {"x-should-retry": "false", "retry-after": "5", "location": "http://elsewhere"}
    router = seeded(provider, clock)
    provider.fault("status", operation="generation", status=status, headers=headers)

    with pytest.raises(errors.DeploymentError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert len(provider.requests) == len(caught.value.attempts) == 1


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_a_provider_that_asks_not_to_retry_is_obeyed_by_reads(
    call: Any, provider: StandIn, clock: Any, status: int
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    headers = {"x-should-retry": "false", "location": "http://elsewhere"}
    provider.fault("status", operation="status", status=status, headers=headers)

    with pytest.raises(errors.DeploymentError):
        call(router, "video_status", video)

    assert len(requests_for(provider, "status")) == 1
    assert not any(clock.slept)


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_a_provider_that_asks_to_retry_makes_no_submit_go_twice(
    call: Any, provider: StandIn, clock: Any, status: int
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    headers = {"x-should-retry": "true"}
    provider.fault("status", operation="edit", times=None, status=status, headers=headers)

    with pytest.raises(errors.RouterError):
        call(router, "video_edit", video_id=video, prompt="a dog")

    assert len(requests_for(provider, "edit")) == 1


# How often


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_retries_count_further_attempts(
    call: Any, provider: StandIn, clock: Any, retries: int
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="status", times=None, status=500)

    with pytest.raises(errors.InternalServerError) as caught:
        call(router, "video_status", video, retries=retries)

    assert len(requests_for(provider, "status")) == retries + 1
    assert len(caught.value.attempts) == retries + 1


def test_the_settings_say_how_often_where_the_call_does_not(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, {**fleet(URL), "settings": {"retries": 1}})
    provider.fault("status", operation="status", times=None, status=500)

    with pytest.raises(errors.InternalServerError):
        call(router, "video_status", video)

    assert len(requests_for(provider, "status")) == 2


def test_a_submit_never_goes_to_the_same_deployment_twice(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east", "west", "north"))
    provider.fault("status", times=None, status=503, headers={"retry-after": "1"})

    with pytest.raises(errors.InternalServerError) as caught:
        call(router, "video_generation", prompt="a cat", retries=9)

    tried = [a.deployment for a in caught.value.attempts]
    assert sorted(tried) == ["east-1", "north-1", "west-1"]
    assert not any(clock.slept)


def test_only_the_same_deployment_is_given_time(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("redirect", operation="generation", location="http://elsewhere")
    call(router, "video_generation", prompt="a cat")
    assert not any(clock.slept)

    provider.fault("status", operation="status", times=2, status=500)
    call(router, "video_status", video)
    first, second = filter(None, clock.slept)
    assert 0.125 <= first <= 0.25
    assert 0.25 <= second <= 0.5


def test_two_deployments_of_one_account_serve_its_reads_without_a_back_off(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    data = fleet(URL, "east")
    data["deployments"].append({"id": "east-2", "model_name": "sora-2", "account": "east"})
    router = seeded(provider, clock, data)
    provider.fault("status", operation="status", status=500)

    answer = call(router, "video_status", video)

    assert len({a.deployment for a in answer.routing.attempts}) == 2
    assert not any(clock.slept)


def test_a_back_off_doubles_to_8_s_with_half_of_it_left_to_chance() -> None:
    rng = random.Random(3)
    for attempt in range(1, 12):
        longest = min(0.25 * 2.0 ** (attempt - 1), 8.0)
        drawn = [back_off(attempt, rng) for _ in range(200)]
        assert longest / 2 <= min(drawn) < max(drawn) <= longest


def test_the_last_error_carries_all_attempts_and_its_cause(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("status", operation="status", status=500)
    provider.fault("garbage", operation="status")
    provider.fault("reset", operation="status", after=True)

    with pytest.raises(errors.InvalidResponseError) as caught:
        call(router, "video_status", video)

    attempts = caught.value.attempts
    assert [a.status for a in attempts] == [500, 200, None]
    assert [a.result for a in attempts] == [
        "server error",
        "invalid answer",
        "the connection broke",
    ]
    assert attempts[0].request_id
    assert all(a.deployment == "east-1" for a in attempts)
    assert isinstance(caught.value.__cause__.__cause__, httpx.ReadError)  # type: ignore[union-attr]


# The budget


def test_a_budget_lets_a_fifth_of_the_calls_go_on_and_at_least_a_few() -> None:
    budget = RetryBudget()
    assert sum(budget.take() for _ in range(100)) == 5

    for _ in range(50):
        budget.called()
    assert sum(budget.take() for _ in range(100)) in (9, 10)

    for _ in range(100_000):
        budget.called()
    assert sum(budget.take() for _ in range(1_000)) == 100


def test_a_storm_of_failing_reads_is_not_multiplied(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("delay", operation="status", times=None, seconds=60)

    for _ in range(60):
        with pytest.raises(errors.AttemptTimeoutError):
            call(router, "video_status", video, timeout=0.0001)

    # 60 first attempts, the floor of five, and a fifth of 60; never three times 60.
    assert len(requests_for(provider, "status")) <= 60 + 5 + 12 + 1


def test_the_first_failover_from_a_sure_refusal_is_always_free(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    served = []
    for _ in range(40):
        provider.fault("redirect", operation="generation", location="http://elsewhere")
        served.append(call(router, "video_generation", prompt="a cat").status)
        clock.advance(400)  # past any ejection

    assert served == ["queued"] * 40


def test_a_call_that_may_not_retry_takes_nothing_from_the_budget(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    provider.fault("garbage", operation="status", times=30)
    for _ in range(30):
        with pytest.raises(errors.InvalidResponseError):
            call(router, "video_status", video, retries=0)

    provider.fault("reset", operation="status", after=True)
    provider.fault("reset", operation="status", after=True)
    assert call(router, "video_status", video).done


def test_routers_do_not_share_their_budgets(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    for _ in range(10):
        router = seeded(provider, clock)
        provider.fault("reset", operation="status", after=True)
        provider.fault("reset", operation="status", after=True)
        assert call(router, "video_status", video).done


# The table, at its edges


def test_a_retry_after_on_other_answers_ejects_nobody() -> None:
    for status in (200, 302, 400, 404, 500, 502):
        outcome = judge(
            Exchange(Operation.STATUS, status=status, names_id=True, headers={"retry-after": "20"})
        )
        assert outcome.eject is None


def test_a_wait_that_would_outlast_the_deadline_is_not_begun(call: Any, clock: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        clock.advance(0.99)
        return httpx.Response(500)

    transport = Answering(answer)
    data = {**fleet(URL, "east"), "settings": {"deadline": 1.0}}
    router = by_transport(transport, clock, data)

    with pytest.raises(errors.InternalServerError):
        call(router, "video_status", "video_1")

    assert len(transport.seen) == 1
    assert not any(clock.slept)
