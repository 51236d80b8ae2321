"""Who is out of rotation, for what, and how long."""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from outcome_parts import (
    CLIP,
    URL,
    Answering,
    Passing,
    by_transport,
    ejected,
    fleet,
    in_process,
    made_video,
    openai_error,
    requests_for,
    scopes,
    seeded,
)

from router import Router, errors
from router.events import Ejected, Restored
from router.health import Health
from router.observations import BOTH, HEALTH_BUCKET, READS, SUBMITS, Cause, Ejection, side_of
from router.state import MemoryStore
from router.testing import StandIn
from router.types import Operation

GENERATION, STATUS = Operation.GENERATION, Operation.STATUS


# The machine by itself


def failing(health: Health, now: float, rng: random.Random, operation: Operation) -> float | None:
    """Seconds of the ejection that one more failure leads to."""
    ejection = health.failed(side_of(operation), now, rng)
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
    health.succeeded(SUBMITS)
    assert [failing(health, 0.0, rng, GENERATION) for _ in range(2)] == [None, None]
    assert failing(health, 0.0, rng, GENERATION) is not None

    assert health.succeeded(SUBMITS) == SUBMITS
    assert health.returned(SUBMITS, 100.0)
    spans = [failing(health, 100.0, rng, GENERATION) for _ in range(3)]
    assert spans[:2] == [None, None]
    assert 5 <= (spans[2] or 0) <= 5.5


def test_what_is_decided_of_who_is_out_already_drives_no_back_off() -> None:
    health, rng = Health(), random.Random(1)
    spans = [failing(health, 10.0, rng, GENERATION) for _ in range(6)]
    assert [span is not None for span in spans] == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("well", "badly", "out"),
    [
        (0, 2, False),
        (2, 2, False),
        (1, 3, False),
        (2, 3, True),
        (3, 3, False),
        (3, 4, True),
        (9, 10, True),
    ],
)
def test_under_half_of_at_least_five_is_too_little(well: int, badly: int, out: bool) -> None:
    """Counted by the fleet; the next failure of this worker's is judged with them."""
    health, now = Health(), 1_000_000.0
    bucket = int(now // HEALTH_BUCKET)
    health.count(SUBMITS, bucket, "s", well)
    health.count(SUBMITS, bucket, "f", badly)
    assert (health.failed(SUBMITS, now, random.Random(1)) is not None) is out


def test_only_the_last_half_minute_is_judged() -> None:
    health, now = Health(), 1_000_000.0
    health.count(SUBMITS, int((now - 40) // HEALTH_BUCKET), "f", 9)
    health.count(SUBMITS, int((now - 40) // HEALTH_BUCKET), "s", 1)
    health.count(SUBMITS, int(now // HEALTH_BUCKET), "s", 1)
    health.count(SUBMITS, int(now // HEALTH_BUCKET), "f", 1)
    assert health.failed(SUBMITS, now, random.Random(1)) is None


def test_submits_and_reads_fail_apart() -> None:
    health, rng = Health(), random.Random(1)
    for _ in range(2):
        assert failing(health, 0.0, rng, GENERATION) is None
        assert failing(health, 0.0, rng, STATUS) is None
    health.succeeded(READS)
    assert failing(health, 0.0, rng, STATUS) is None
    assert failing(health, 0.0, rng, GENERATION) is not None
    assert health.ejection(GENERATION, 1.0) is not None
    assert health.ejection(STATUS, 1.0) is None


def test_an_unreachable_host_counts_for_both_sides() -> None:
    health, rng = Health(), random.Random(1)
    health.failed(SUBMITS, 0.0, rng, unreachable=True)
    health.failed(READS, 0.0, rng, unreachable=True)
    ejection = health.failed(SUBMITS, 0.0, rng, unreachable=True)

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


def submit(call: Any, router: Router, **named: Any) -> str:
    """One submit, by its result: served, or the name of its error."""
    try:
        return str(call(router, "video_generation", prompt="a cat", **named).status)
    except errors.RouterError as error:
        return type(error).__name__


def fail(router: Router, account: str, times: int = 3) -> None:
    """So many submits at this account end in a failure, each of which its caller saw."""
    for _ in range(times):
        with router.pick("generation", account=account) as attempt:
            attempt.failed(500)


def served(call: Any, router: Router, times: int) -> Counter[str]:
    """Who served so many generations."""
    made = [call(router, "video_generation", prompt="a cat") for _ in range(times)]
    return Counter(one.routing.account for one in made)


def test_after_three_failures_a_deployment_is_left_alone_and_comes_back(
    call: Any, provider: StandIn, clock: Any
) -> None:
    told: list[Any] = []
    router = seeded(provider, clock, on_event=told.append)
    fault = fails(provider, "generation", account="east")
    results = [submit(call, router, account="east") for _ in range(3)]
    assert results == ["AmbiguousSubmitError"] * 3
    (ejection,) = ejected(router)["east-1"]
    assert (ejection["scope"], ejection["cause"]) == ("submits", "failures")
    assert 5 <= ejection["seconds"] <= 5.5

    assert served(call, router, 10) == {"west": 10}
    fault.cancel()
    clock.advance(5.6)
    assert ejected(router) == {}
    assert served(call, router, 1) == {"east": 1}  # its trial
    (out,) = [e for e in told if isinstance(e, Ejected)]
    assert (out.deployment, out.account, out.scope) == ("east-1", "east", "submits")
    assert 5 <= out.seconds <= 5.5
    (back,) = [e for e in told if isinstance(e, Restored)]
    assert (back.deployment, back.account, back.scope) == ("east-1", "east", "submits")


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


def test_where_half_goes_well_a_deployment_stays_in(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    for _ in range(8):
        assert submit(call, router) == "queued"
        fails(provider, "generation", times=1)
        assert submit(call, router) == "AmbiguousSubmitError"

    assert ejected(router) == {}


def test_under_half_of_five_puts_it_out_though_some_go_well_in_between(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    for out in (False, True):
        assert ejected(router) == {}
        fails(provider, "generation", times=2)
        assert [submit(call, router) for _ in range(2)] == ["AmbiguousSubmitError"] * 2
        assert (ejected(router) != {}) is out
        assert submit(call, router) == "queued"


def test_the_same_failures_over_minutes_leave_it_in(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))
    for _ in range(4):
        fails(provider, "generation", times=2)
        assert [submit(call, router) for _ in range(3)] == ["AmbiguousSubmitError"] * 2 + ["queued"]
        clock.advance(40)

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


# One trial, and a slow start


def pair(provider: StandIn, clock: Any, *, count: int = 2) -> list[Router]:
    """Workers that meet in one store. They choose by weight, so that nothing else tells."""
    store = MemoryStore(clock.time)
    data = {**fleet(URL), "settings": {"strategy": "weighted-random"}}
    return [
        in_process(provider, data, clock=clock, rng=random.Random(n), store=store)
        for n in range(count)
    ]


def exchanged(*routers: Router) -> None:
    for _ in range(2):
        for router in routers:
            router.share()


def share(router: Router, name: str = "east-1") -> float:
    """How much of its share of new work a deployment takes."""
    found: float = router.statistics()[name]["share"]
    return found


def test_three_failures_that_three_workers_met_are_three_in_a_row(
    provider: StandIn, clock: Any
) -> None:
    workers = pair(provider, clock, count=4)
    for worker in workers[:3]:
        assert ejected(worker) == {}
        fail(worker, "east", times=1)
        exchanged(*workers)
    assert [scopes(worker) for worker in workers] == [{"east-1": {"submits"}}] * 4


def test_under_half_of_five_counts_over_the_fleet(provider: StandIn, clock: Any) -> None:
    workers = pair(provider, clock)
    for router, well in zip(workers * 3, (True, True, False, False, False), strict=False):
        assert ejected(router) == {}
        with router.pick("generation", account="east") as attempt:
            attempt.accepted("video_1") if well else attempt.failed(500)
        exchanged(*workers)
    assert [scopes(worker) for worker in workers] == [{"east-1": {"submits"}}] * 2


def test_the_whole_fleet_sends_one_trial(call: Any, provider: StandIn, clock: Any) -> None:
    workers = pair(provider, clock, count=4)
    fail(workers[0], "east")
    exchanged(*workers)
    clock.advance(5.6)
    assert [w.statistics()["east-1"]["on_trial"] for w in workers] == [True] * 4
    with workers[1].pick("generation") as trial:
        assert trial.account == "east"
        for worker in workers:
            assert served(call, worker, 5) == {"west": 5}
        clock.advance(30)  # it takes its time, and is asked for again meanwhile
        for worker in workers:
            assert served(call, worker, 5) == {"west": 5}
        trial.accepted("video_1")
    exchanged(*workers)
    for worker in workers:
        assert not worker.statistics()["east-1"]["on_trial"]
        assert served(call, worker, 60).keys() == {"east", "west"}


def test_a_trial_that_fails_keeps_it_out_twice_as_long_for_all(
    call: Any, provider: StandIn, clock: Any
) -> None:
    workers = pair(provider, clock)
    fail(workers[0], "east")
    exchanged(*workers)
    for at, base in enumerate((10, 20, 40, 80, 160, 300, 300)):
        clock.advance(max(e["seconds"] for e in ejected(workers[0])["east-1"]) + 0.01)
        with workers[at % 2].pick("generation") as trial:
            assert trial.account == "east"
            trial.failed(500)
        exchanged(*workers)
        for worker in workers:
            (ejection,) = ejected(worker)["east-1"]
            assert base <= ejection["seconds"] <= base * 1.1
            assert served(call, worker, 3) == {"west": 3}


def test_a_dead_deployment_gets_one_call_for_each_back_off_from_the_whole_fleet(
    call: Any, provider: StandIn, clock: Any
) -> None:
    workers = pair(provider, clock, count=4)
    fails(provider, "generation", account="east")
    lost = 0
    for _ in range(300):  # of two seconds each
        for worker in workers:
            lost += submit(call, worker) == "AmbiguousSubmitError"
            exchanged(*workers)
        clock.advance(2)
    # Back-offs of 5, 10, 20, 40, 80, 160 and 300 s make ten minutes and some: six end in them.
    assert lost == 3 + 6


def test_a_trial_that_nobody_answers_lapses(provider: StandIn, clock: Any) -> None:
    """The worker that had it is gone; another one asks for it in its time."""
    one, other = pair(provider, clock)
    fail(one, "east")
    exchanged(one, other)
    clock.advance(5.6)
    lost = one.pick("generation", deadline=20)
    assert lost.__enter__().account == "east"
    with other.pick("generation") as attempt:
        assert attempt.account == "west"
        attempt.failed(400)
    clock.advance(20 + 30 + 1)
    with other.pick("generation") as attempt:
        assert attempt.account == "east"
        attempt.failed(400)


def returned(provider: StandIn, clock: Any) -> Router:
    """A router to whose account east has just come back by its trial."""
    router: Router = seeded(provider, clock)
    fail(router, "east")
    clock.advance(20)
    with router.pick("generation") as trial:
        assert trial.account == "east"
        trial.accepted("video_1")
    return router


def test_whoever_comes_back_starts_slowly(provider: StandIn, clock: Any) -> None:
    router = returned(provider, clock)
    picks: Counter[str] = Counter()
    for _ in range(400):
        with router.pick("generation") as attempt:
            picks[attempt.account] += 1
            attempt.failed(400)  # a caller's error: nothing is learned
    # A fifth of the half that is its share; five standard deviations are a tenth of the whole.
    assert 0 < picks["east"] < 0.2 * 400
    assert 0 < share(router) <= 0.3


def test_the_slow_start_ends_by_ten_jobs(provider: StandIn, clock: Any) -> None:
    router = returned(provider, clock)
    shares = []
    for n in range(9):
        shares.append(share(router))
        with router.pick("generation", account="east") as attempt:
            attempt.accepted(f"video_{n + 2}")
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < share(router) == 1.0


def test_the_slow_start_ends_within_a_minute(provider: StandIn, clock: Any) -> None:
    router = returned(provider, clock)
    assert share(router) < 0.5
    clock.advance(30)
    assert 0.4 < share(router) < 1
    clock.advance(30)
    assert share(router) == 1.0


def test_reads_need_no_trial_and_start_at_once(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    fault = fails(provider, "status")
    for _ in range(3):
        with pytest.raises(errors.InternalServerError):
            call(router, "video_status", video, retries=0)
    assert scopes(router) == {"east-1": {"reads"}}
    fault.cancel()
    clock.advance(1)
    assert call(router, "video_status", video).done
    assert ejected(router) == {}
    assert share(router) == 1.0


def test_a_read_that_gets_through_ends_what_an_unreachable_host_began(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    told: list[Any] = []
    gone = Unreachable(provider)
    router = by_transport(gone, clock, fleet(URL, "east"), on_event=told.append)
    for _ in range(3):
        with pytest.raises(errors.ConnectError):
            call(router, "video_generation", prompt="a cat")
    assert scopes(router) == {"east-1": {"both"}}
    clock.advance(1)
    gone.away = False
    assert call(router, "video_status", video).done
    assert ejected(router) == {}
    (back,) = [e for e in told if isinstance(e, Restored)]
    assert back.scope == "both"
    assert not router.statistics()["east-1"]["on_trial"]
    assert share(router) < 1
    assert submit(call, router) == "queued"


def test_a_read_that_gets_through_says_nothing_of_failing_submits(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    fail(router, "east")
    clock.advance(1)
    assert call(router, "video_status", video).done
    assert scopes(router) == {"east-1": {"submits"}}


class Unreachable(Passing):
    """A host that is away, or is not."""

    away = True

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._connect()
        return super().handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._connect()
        return await super().handle_async_request(request)

    def _connect(self) -> None:
        if self.away:
            raise httpx.ConnectError("refused")


# Jobs that fail


def job(
    call: Any, router: Router, account: str = "east", seen: dict[str, Any] | None = None
) -> None:
    """A job is accepted, and somebody sees its end."""
    video = call(router, "video_generation", prompt="a cat", account=account)
    router.observe(video.id, {"status": "failed", **(seen or {})})


def test_jobs_that_fail_keep_submits_away_and_reads_go_on(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)
    for _ in range(3):
        assert ejected(router) == {}
        job(call, router)
    assert scopes(router) == {"east-1": {"submits"}}
    assert served(call, router, 10) == {"west": 10}
    assert call(router, "video_status", video).done


def test_jobs_that_fail_count_over_the_fleet(call: Any, provider: StandIn, clock: Any) -> None:
    workers = pair(provider, clock, count=3)
    for worker in workers:
        assert ejected(worker) == {}
        job(call, worker)
        exchanged(*workers)
    assert [scopes(worker) for worker in workers] == [{"east-1": {"submits"}}] * 3


def test_after_the_trial_the_next_job_that_fails_puts_it_out_for_longer(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    for _ in range(3):
        job(call, router)
    for base in (10, 20, 40):
        clock.advance(ejected(router)["east-1"][0]["seconds"] + 0.01)
        job(call, router)
        assert base <= ejected(router)["east-1"][0]["seconds"] <= base * 1.1


def test_a_job_that_ends_well_starts_that_count_again(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    for _ in range(5):
        job(call, router)
        job(call, router)
        job(call, router, seen={"status": "completed"})
        clock.advance(40)
    assert ejected(router) == {}


@pytest.mark.parametrize(
    "seen",
    [
        {"error": {"code": "moderation_blocked", "message": "no"}},
        {"error": {"code": "content_policy_violation", "message": "no"}},
        {"error": {"code": "invalid_prompt", "message": "no"}},
        {"error": {"code": "failed", "message": "blocked by our safety system"}},
        {"status": "cancelled"},
    ],
)
def test_a_job_that_failed_by_its_caller_says_nothing_of_the_provider(
    call: Any, provider: StandIn, clock: Any, seen: dict[str, Any]
) -> None:
    router = seeded(provider, clock)
    for _ in range(10):
        job(call, router, seen=seen)
    assert ejected(router) == {}
    assert "generation" not in router.statistics()["east-1"]["job_time"]


def test_a_deployment_whose_jobs_fail_fast_does_not_look_fast(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    for account in ("east", "west"):
        video = call(router, "video_generation", prompt="a cat", account=account)
        clock.advance(40)
        router.observe(video.id, "completed")
    for _ in range(2):
        video = call(router, "video_generation", prompt="a cat", account="east")
        clock.advance(2)
        router.observe(video.id, "failed")
    known = router.statistics()
    assert known["east-1"]["pace"] > 1.1 * known["west-1"]["pace"]


# Nobody is left


def test_where_failures_put_out_everybody_all_are_served_still(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    fail(router, "east")
    fail(router, "west")
    assert scopes(router) == {"east-1": {"submits"}, "west-1": {"submits"}}
    clock.advance(1)
    assert submit(call, router) == "queued"
    # Whoever served is back, and so nobody else is asked.
    (back,) = {"east-1", "west-1"} - scopes(router).keys()
    assert served(call, router, 5) == {back.removesuffix("-1"): 5}


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 302}, {"kind": "unreachable"}])
def test_in_a_panic_a_call_is_sent_once(
    call: Any, provider: StandIn, clock: Any, fault: dict[str, Any]
) -> None:
    gone = Unreachable(provider)
    gone.away = False
    router = by_transport(gone, clock)
    fail(router, "east")
    fail(router, "west")
    if fault["kind"] == "unreachable":
        gone.away = True
    else:
        provider.fault(**fault, operation="generation", times=None)
    for _ in range(5):
        with pytest.raises((errors.ConnectError, errors.InvalidResponseError)) as caught:
            call(router, "video_generation", prompt="a cat", retries=5)
        assert len(caught.value.attempts) == 1
    # And such failures of who is out drive no back-off.
    assert all(e["seconds"] <= 5.5 for found in ejected(router).values() for e in found)


def test_in_a_panic_a_call_is_sent_once_though_another_is_due_for_its_trial_meanwhile(
    call: Any, clock: Any
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        clock.advance(6)
        return httpx.Response(302, headers={"location": "http://elsewhere"})

    router = by_transport(Answering(answer), clock)
    fail(router, "east")
    fail(router, "west")
    with pytest.raises(errors.InvalidResponseError) as caught:
        call(router, "video_generation", prompt="a cat", retries=5)
    assert len(caught.value.attempts) == 1


def test_a_panic_passes_by_who_has_no_room(call: Any, provider: StandIn, clock: Any) -> None:
    provider = StandIn(accounts={"sk-east": "east", "sk-west": "west"}, job_seconds=99, clock=clock)
    router = seeded(provider, clock, fleet(URL, max_parallel_jobs=1))
    made = call(router, "video_generation", prompt="a cat", account="east")
    for account in ("east", "west"):
        for _ in range(3):
            with router.pick("create_character", account=account) as attempt:
                attempt.failed(500)
    clock.advance(1)
    assert made.routing.account == "east"
    assert call(router, "video_generation", prompt="a cat").routing.account == "west"


def test_a_panic_asks_nobody_whom_more_than_failures_keep_out(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock, fleet(URL, "east", "west", "north"))
    fail(router, "east")
    with router.pick("generation", account="west") as attempt:
        attempt.failed(429, {"retry-after": "100"})
    router.drain("north-1")
    clock.advance(1)
    assert served(call, router, 3) == {"east": 3}


def test_where_the_provider_or_an_operator_put_out_everybody_nobody_is_asked(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)
    router.drain("east-1", 500)
    with router.pick("generation", account="west") as attempt:
        attempt.failed(429, {"retry-after": "100"})
    with pytest.raises(errors.NoDeploymentAvailableError) as caught:
        call(router, "video_generation", prompt="a cat")
    assert caught.value.retry_after == pytest.approx(100)
    assert caught.value.reasons.keys() == {"east-1", "west-1"}
    assert "operator" in caught.value.reasons["east-1"]
    assert provider.requests == []


def test_an_owners_submit_is_not_sent_into_a_failing_owner(
    call: Any, provider: StandIn, clock: Any
) -> None:
    """It cannot go elsewhere, so it waits: up to `max_wait`, and no longer."""
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    fail(router, "east")
    edit = {"video_id": video, "prompt": "a dog"}
    for patience in (None, 0, 3):
        more = {} if patience is None else {"max_wait": patience}
        with pytest.raises(errors.NoDeploymentAvailableError) as caught:
            call(router, "video_edit", **edit, **more)
        assert 5 <= caught.value.retry_after <= 5.5
    assert clock.passed == 0  # what is over too late is not waited for
    assert call(router, "video_edit", **edit, max_wait=10).status == "queued"
    assert 5 <= clock.passed <= 5.5
    assert ejected(router) == {}


def test_an_owners_submit_that_was_refused_waits_for_nobody(
    call: Any, provider: StandIn, clock: Any
) -> None:
    """It is sent to nobody twice, so there is nothing to wait for."""
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    provider.fault("status", operation="edit", status=429, headers={"retry-after": "5"})
    with pytest.raises(errors.RateLimitError) as caught:
        call(router, "video_edit", video_id=video, prompt="a dog", max_wait=60)
    assert len(caught.value.attempts) == 1
    assert clock.passed == 0


def test_where_all_are_denied_one_read_in_ten_is_sent_all_the_same(
    call: Any, provider: StandIn, clock: Any
) -> None:
    """Of those bound to no owner. Five standard deviations of 300 draws of a tenth are 26."""
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))
    denied = provider.fault("status", status=401, times=None)
    with pytest.raises(errors.AuthenticationError):
        call(router, "video_status", video)
    seen = len(provider.requests)

    results = Counter(read(call, router, "video_list") for _ in range(300))
    sent = len(provider.requests) - seen
    assert results == {"NoDeploymentAvailableError": 300 - sent, "AuthenticationError": sent}
    assert 30 - 26 <= sent <= 30 + 26

    refused = {read(call, router, "video_status", video) for _ in range(50)}
    assert refused == {submit(call, router)} == {"NoDeploymentAvailableError"}
    assert len(provider.requests) == seen + sent
    denied.cancel()
    assert "heard" in {read(call, router, "video_list") for _ in range(100)}


def read(call: Any, router: Router, method: str, *named: str) -> str:
    """One read, by its result: heard, or the name of its error."""
    try:
        call(router, method, *named)
    except errors.RouterError as error:
        return type(error).__name__
    return "heard"


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
