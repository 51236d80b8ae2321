"""The pure rules beneath: what a call needs, when to come back, percentiles, shared time."""

from __future__ import annotations

import math
import random

import pytest
from shared_parts import FakeClock
from state_parts import a_job, choice

from router._doors import SharedTime
from router.config import JOB_TTL, Limits
from router.leases import Grant, Lease, Need, holder_of
from router.limits import (
    LEAST_WAIT,
    LONGEST_WAIT,
    USUAL_JOB_SECONDS,
    Usual,
    job_ttl,
    needs,
    retry_after,
    share,
    usual,
)
from router.observations import bucket_of, percentile
from router.types import Operation

NONE = Limits()
ALL = Limits(rpm=1, read_rpm=2, max_parallel_requests=3, max_parallel_jobs=4, job_ttl=60.0)

# What an operation needs -------------------------------------------------------------------------


def needed(operation: Operation, own: Limits = NONE, shared: Limits = NONE) -> dict[str, int]:
    found = needs("east-1", "east", own, shared, operation)
    return {need.resource: need.limit for need in found}


def test_without_limits_nothing_is_needed() -> None:
    for operation in Operation:
        assert needed(operation) == {}


def test_a_submit_that_starts_a_job_needs_room_in_three() -> None:
    for operation in Operation:
        if operation.starts_job:
            assert needed(operation, own=ALL) == {
                "rpm:deployment:east-1": 1,
                "requests:deployment:east-1": 3,
                "jobs:deployment:east-1": 4,
            }


def test_an_asset_is_a_submit_without_a_job_and_a_read_counts_apart() -> None:
    assert needed(Operation.CREATE_CHARACTER, shared=ALL) == {
        "rpm:account:east": 1,
        "requests:account:east": 3,
    }
    for operation in Operation:
        if not operation.is_submit:
            assert needed(operation, shared=ALL) == {
                "read_rpm:account:east": 2,
                "requests:account:east": 3,
            }


def test_limits_of_the_deployment_and_of_its_account_both_apply() -> None:
    one = Limits(max_parallel_jobs=2)
    five = Limits(max_parallel_jobs=5)
    assert needed(Operation.GENERATION, one, five) == {
        "jobs:deployment:east-1": 2,
        "jobs:account:east": 5,
    }


def test_the_deployments_job_ttl_beats_its_accounts() -> None:
    assert job_ttl(Limits(job_ttl=5.0), ALL) == 5.0
    assert job_ttl(NONE, ALL) == 60.0
    assert job_ttl(NONE, NONE) == JOB_TTL


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
@pytest.mark.parametrize("workers", [0, 1, 2, 8, 50])
def test_shares_of_a_limit_total_at_most_the_limit_or_the_workers(limit: int, workers: int) -> None:
    mine = share(Need("jobs:account:a", limit), workers).limit
    assert mine >= 1
    assert mine * workers <= max(limit, workers)


def test_a_lease_knows_what_is_given_back_and_what_a_job_takes_over() -> None:
    lease = Lease("t", choice("jobs:account:a", "requests:account:a", "rpm:account:a"), 60.0)
    assert lease.given_back == ("requests:account:a",)
    assert lease.held_by_jobs == ("jobs:account:a",)


def test_a_job_holds_under_one_name_for_all_and_no_two_jobs_share_it() -> None:
    assert a_job("video_1").holder == holder_of("acme", "video_1")
    assert holder_of("acme", "video_1") != holder_of("acme2", "video_1")
    assert holder_of("a", "bc") != holder_of("ab", "c")


# When to come back --------------------------------------------------------------------------------

NOW = 1_000_000.0
JOBS = ("jobs:account:a", None)
STEADY = Usual((100.0,) * 20, 1.0)
SPREAD = Usual(tuple(60.0 + 4.0 * n for n in range(20)), 1.0)


def later(grant: Grant, times: Usual = STEADY, ahead: int = 0, seed: int = 1) -> float:
    rng = random.Random(seed)
    return retry_after(grant, NOW, times, rng, lambda resources, until: float(ahead)).seconds


def test_a_window_says_to_the_moment_when_it_opens() -> None:
    grant = Grant(None, (("rpm:account:a", 12.5),))
    assert later(grant) == pytest.approx(12.5 + LEAST_WAIT)


def test_a_running_job_is_expected_to_end_at_its_usual_time() -> None:
    assert later(Grant(None, (JOBS,), holding=(NOW - 80,))) == pytest.approx(20, abs=5)


def test_where_times_lie_apart_one_waits_until_most_would_have_ended() -> None:
    assert later(Grant(None, (JOBS,), holding=(NOW,)), SPREAD) == pytest.approx(124, abs=5)
    # The longer it has been running, the more is left of the times that are longer still.
    assert later(Grant(None, (JOBS,), holding=(NOW - 110,)), SPREAD) == pytest.approx(24, abs=5)


def test_a_late_job_may_end_at_any_moment() -> None:
    assert 5 < later(Grant(None, (JOBS,), holding=(NOW - 500,))) < 60


def test_who_is_behind_others_waits_for_as_many_jobs_more() -> None:
    grant = Grant(None, (JOBS,), holding=(NOW - 90, NOW - 50, NOW - 10))
    waits = [later(grant, SPREAD, ahead=n) for n in (0, 2, 5)]
    assert waits == sorted(waits)
    assert waits[0] < 80 < waits[1] < 150 < waits[2]


def test_where_many_slots_change_hands_one_comes_back_after_about_the_time_of_a_job() -> None:
    """The first end is soon, and somebody else's: nothing is kept for who was refused."""
    grant = Grant(None, (JOBS,), holding=tuple(NOW - 10.0 * n for n in range(10)))
    waits = [later(grant, seed=seed) for seed in range(50)]
    assert 60 < min(waits) < 80
    assert 100 < max(waits) < 120
    assert len({round(wait) for wait in waits}) > 20  # those refused together come apart


def test_the_soonest_of_the_choices_counts() -> None:
    grant = Grant(None, (("rpm:account:a", 50.0), ("requests:account:b", None)))
    assert later(grant) < 5
    assert later(Grant(None, (("rpm:account:a", 7.0), JOBS), holding=(NOW,))) < 8


def test_a_choice_that_a_window_closes_too_has_no_room_before_it_opens() -> None:
    grant = Grant(None, (("jobs:account:a", 40.0),), holding=(NOW - 95,))
    assert later(grant) == pytest.approx(40 + LEAST_WAIT)


def test_it_says_for_room_in_what() -> None:
    other = ("jobs:account:b", None)
    grant = Grant(None, (("rpm:account:c", 250.0), JOBS, other, JOBS), holding=(NOW, NOW))
    found = retry_after(grant, NOW, STEADY, random.Random(1))
    assert found.resources == ("jobs:account:a", "jobs:account:b")


@pytest.mark.parametrize("resource", ["rpm:a:b", "jobs:a:b", "requests:a:b"])
@pytest.mark.parametrize("opens", [None, -5.0, 0.0, 1e9])
@pytest.mark.parametrize("times", [(0.0,), (1e9,), (1e-9, 1e9)])
@pytest.mark.parametrize("accepted", [(), (NOW,), (NOW + 50,), (0.0,)])
@pytest.mark.parametrize("ahead", [0, 1000])
def test_it_is_always_a_wait_of_some_length(
    resource: str,
    opens: float | None,
    times: tuple[float, ...],
    accepted: tuple[float, ...],
    ahead: int,
) -> None:
    grant = Grant(None, ((resource, opens),), holding=accepted)
    assert LEAST_WAIT <= later(grant, Usual(times, 1.0), ahead) <= LONGEST_WAIT


def test_times_that_nobody_knows_are_guessed_and_few_samples_widened() -> None:
    nothing = usual({}, 4.0, None)
    assert min(nothing.jobs) < USUAL_JOB_SECONDS < max(nothing.jobs)
    assert nothing.flight == 1.0
    one = usual({bucket_of(10.0): 1}, 4.0, 2.5)
    assert min(one.jobs) < 30 < 40 < 60 < max(one.jobs)
    assert one.flight == 2.5
    many = usual({bucket_of(10.0): 10, bucket_of(20.0): 10}, 4.0, None)
    assert {round(seconds, -1) for seconds in many.jobs} == {40, 80}


# Percentiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_right_within_a_tenth(seed: int) -> None:
    rng = random.Random(seed)
    samples = sorted(rng.lognormvariate(rng.uniform(-3, 5), 1.2) for _ in range(2001))
    buckets: dict[int, int] = {}
    for seconds in samples:
        buckets[bucket_of(seconds)] = buckets.get(bucket_of(seconds), 0) + 1
    for part in (0.01, 0.25, 0.5, 0.9, 0.95, 0.99):
        exact = samples[math.ceil(part * len(samples)) - 1]
        assert percentile(buckets, part) == pytest.approx(exact, rel=0.1)


def test_a_bucket_holds_what_its_middle_tells_within_a_tenth() -> None:
    for step in range(-200, 200):
        seconds = 1.07**step
        assert percentile({bucket_of(seconds): 1}, 0.5) == pytest.approx(seconds, rel=0.1)


def test_odd_times_have_a_bucket_too() -> None:
    assert bucket_of(0.0) == bucket_of(-1.0) == bucket_of(1e-9)
    assert percentile({}, 0.5) is None


# Shared time --------------------------------------------------------------------------------------


def test_until_a_store_tells_its_time_it_is_the_machines() -> None:
    clock = FakeClock()
    now = SharedTime(clock)
    clock.advance(5)
    assert now() == clock.time()


def test_it_follows_the_stores_time_and_never_goes_back() -> None:
    clock = FakeClock()
    now = SharedTime(clock)
    now.set(clock.time() + 100)
    assert now() == pytest.approx(clock.time() + 100)
    now.set(clock.time() - 50)  # another master, whose clock is behind
    stood = now()
    assert stood == pytest.approx(clock.time() + 100)
    clock.advance(60)
    assert now() == stood  # it stands until the store's time has come up with it
    clock.advance(100)
    assert now() == pytest.approx(clock.time() - 50)


def test_it_never_goes_back_under_any_news() -> None:
    clock, rng = FakeClock(), random.Random(3)
    now = SharedTime(clock)
    before = now()
    for _ in range(500):
        clock.advance(rng.choice([0.0, 0.01, 1.0]))
        if rng.random() < 0.5:
            now.set(clock.time() + rng.uniform(-30, 30))
        assert now() >= before
        before = now()


# Money ------------------------------------------------------------------------------------------

COST = "cost:account:acme"


def test_a_workers_part_of_the_money_may_be_nothing() -> None:
    assert share(Need(COST, 1_000_001, 250), 4) == Need(COST, 250_000, 250)
    assert share(Need(COST, 3, 250), 4) == Need(COST, 0, 250)


def test_who_lacks_money_comes_back_at_midnight_and_not_before() -> None:
    grant = Grant(None, ((COST, 40_000.0),))
    later = retry_after(grant, 0.0, Usual((60.0,), 1.0), random.Random(0))
    assert (later.seconds, later.resources) == (40_000.0 + LEAST_WAIT, (COST,))


def test_another_account_may_have_room_before_midnight() -> None:
    grant = Grant(None, ((COST, 40_000.0), ("rpm:account:west", 20.0)))
    later = retry_after(grant, 0.0, Usual((60.0,), 1.0), random.Random(0))
    assert later.resources == ("rpm:account:west",)


def test_of_a_lease_money_is_neither_given_back_nor_held() -> None:
    needs = (*choice("jobs:x:y", "requests:x:y", "rpm:x:y"), Need(COST, 10, 1))
    lease = Lease("t", needs, 60.0)
    assert (lease.given_back, lease.held_by_jobs) == (("requests:x:y",), ("jobs:x:y",))
    assert lease.costs == (COST,)
