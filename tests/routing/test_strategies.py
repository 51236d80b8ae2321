"""Strategies: one conformance suite over all of them, and what each promises beyond it.

The suite reads `STRATEGIES`, once over candidates as values and once through a router. Bounds on
shares are `share_bound`'s: five standard deviations of a binomial share.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from choosing_parts import (
    GENERATION,
    NOW,
    Jobs,
    Worker,
    candidate,
    eject,
    four,
    health_of,
    held,
    took,
)
from routing_parts import Doors, FakeClock, deployment, serving, share_bound

from router import Router, RouterError
from router.balancing import STRATEGIES
from router.observations import Cause, epoch_of, sample
from router.operations import Demand
from router.selection import Candidate, Tier
from router.testing import StandIn
from router.types import Operation

EVERY = pytest.mark.parametrize("strategy", STRATEGIES)
LEARNS = pytest.mark.parametrize("strategy", ["lowest-latency", "lowest-completion"])
AVOIDS_LOAD = pytest.mark.parametrize("strategy", ["least-busy", "lowest-completion"])
SIZES = pytest.mark.parametrize("size", [2, 32, 33, 1000])
# Strategies that learn from what they send look at the idle ones now and then, whatever is known.
EXPLORED = 1 / 32


def several(size: int) -> list[Candidate]:
    """Candidates of which much, little or nothing is known."""
    return [
        candidate(f"d{n}", 1 + n % 3, latency=None if n % 2 else 1.0 + n % 7, in_flight=n % 4)
        for n in range(size)
    ]


# Every strategy, over values


@EVERY
@SIZES
@pytest.mark.parametrize("cause", list(Cause))
def test_nobody_who_is_ejected_is_picked(strategy: str, size: int, cause: Cause) -> None:
    members = several(size)
    out = {one.deployment.id for one in members[::2]}
    for one in members[::2]:
        eject(one, cause)
    found = Worker(members, strategy).names(200)
    assert len(found) == 200
    assert not out & set(found)


@EVERY
@SIZES
def test_nobody_who_was_tried_is_picked(strategy: str, size: int) -> None:
    members = several(size)
    found = Worker(members, strategy).names(100, tried=members[1:])
    assert found == ["d0"] * 100
    assert Worker(members, strategy).pick(tried=members) is None


@EVERY
@SIZES
def test_who_retires_or_weighs_nothing_gets_no_new_work(strategy: str, size: int) -> None:
    members = several(size)
    for one in members[::2]:
        health_of(one).retires = NOW
    members.append(candidate("weightless", 0))
    found = Worker(members, strategy).names(100)
    assert len(found) == 100
    assert all(int(name[1:]) % 2 for name in found)


@EVERY
def test_who_retires_or_weighs_nothing_serves_what_it_owns(strategy: str) -> None:
    retiring = candidate("retiring")
    health_of(retiring).retires = NOW
    for one in (retiring, candidate("weightless", 0)):
        worker = Worker([one], strategy)
        assert worker.pick(GENERATION) is None
        for operation in (Operation.EDIT, Operation.STATUS, Operation.CONTENT):
            assert worker.pick(operation, follow_up=True) is one


@EVERY
@SIZES
def test_nobody_is_picked_where_all_are_out(strategy: str, size: int) -> None:
    members = several(size)
    for one in members:
        eject(one)
    assert Worker(members, strategy).pick() is None


@EVERY
def test_an_ejection_ends_at_its_deadline(strategy: str) -> None:
    members = [candidate("a"), candidate("b")]
    eject(members[0], seconds=10.0)
    worker = Worker(members, strategy)
    assert set(worker.names(40, now=NOW + 9.9)) == {"b"}
    assert set(worker.names(40, now=NOW + 10.0)) == {"a", "b"}


@EVERY
@SIZES
def test_a_seed_decides_everything(strategy: str, size: int) -> None:
    runs = [Worker(several(size), strategy, seed, keeps=True).names(200) for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 200
    # With many equals another seed is another run; of few there may be only one good choice.
    assert size < 32 or runs[0] != runs[2]


IN_ANOTHER_PROCESS = """
import json
from choosing_parts import Worker
from test_strategies import STRATEGIES, several
picks = {name: Worker(several(40), name, 5, keeps=True).names(100) for name in STRATEGIES}
print(json.dumps(picks))
"""


def test_a_seed_decides_the_same_in_every_process() -> None:
    """Names hash differently in each process, and objects lie elsewhere."""
    folder = Path(__file__).parent
    places = [str(folder), str(folder.parent), str(folder.parents[1])]
    runs = [
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    here = {name: Worker(several(40), name, 5, keeps=True).names(100) for name in STRATEGIES}
    assert json.loads(runs[0]) == here


@EVERY
@pytest.mark.parametrize("latency", [None, 2.0], ids=["unknown", "known"])
@pytest.mark.parametrize("size", [2, 5, 32, 33, 1000])
def test_equals_get_equal_shares(strategy: str, size: int, latency: float | None) -> None:
    """All that is picked stays under way; chance alone would be within the bound, too."""
    times = max(4000, 6 * size)
    members = [candidate(f"d{n}", latency=latency) for n in range(size)]
    found = Worker(members, strategy, keeps=True).shares(times)
    for one in members:
        share = found[one.deployment.id] / times
        assert abs(share - 1 / size) <= share_bound(1 / size, times)


BY_WEIGHT_ALONE = ["lowest-completion", "lowest-latency", "lowest-cost", "weighted-random"]


@pytest.mark.parametrize("strategy", BY_WEIGHT_ALONE)
@pytest.mark.parametrize("latency", [None, 2.0], ids=["unknown", "known"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 5), (0.5, 0.25, 0.25), (3, 0, 1)])
def test_equals_are_drawn_by_weight(
    strategy: str, weights: tuple[float, ...], latency: float | None
) -> None:
    """Where nothing is under way, weight is all that tells them apart."""
    times = 20_000
    members = [candidate(f"d{n}", weight, latency=latency) for n, weight in enumerate(weights)]
    found = Worker(members, strategy).shares(times)
    explored = 0.0 if strategy in ("lowest-cost", "weighted-random") else EXPLORED
    for n, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(found[f"d{n}"] / times - share) <= share_bound(share, times) + explored
        assert weight or f"d{n}" not in found


@pytest.mark.parametrize("strategy", ["least-busy", "lowest-completion", "weighted-random"])
def test_work_that_stays_lies_by_weight(strategy: str) -> None:
    times = 2000
    members = [candidate(f"d{n}", weight) for n, weight in enumerate((1, 2, 5))]
    found = Worker(members, strategy, keeps=True).shares(times)
    for one in members:
        share = one.deployment.weight / 8
        assert abs(found[one.deployment.id] / times - share) <= share_bound(share, times)


@EVERY
def test_where_all_weigh_nothing_all_are_equal(strategy: str) -> None:
    """An owner of whom each deployment serves follow-ups only."""
    times = 4000
    members = [candidate(f"d{n}", 0) for n in range(4)]
    found = Worker(members, strategy).shares(times, operation=Operation.EDIT, follow_up=True)
    for one in members:
        share = found[one.deployment.id] / times
        assert abs(share - 0.25) <= share_bound(0.25, times) + EXPLORED


@EVERY
@pytest.mark.parametrize(("size", "pickers"), [(4, 64), (4, 4000), (32, 4000), (1000, 6000)])
def test_workers_with_the_same_stale_view_do_not_herd(
    strategy: str, size: int, pickers: int
) -> None:
    """Many workers pick at once, none seeing the others: no deployment is overrun.

    Their latencies differ by less than the tenth that counts as equal.
    """
    members = [candidate(f"d{n}", latency=1.0 + 0.09 * (n % 10) / 10) for n in range(size)]
    among = [Tier.of(members)]
    chosen: Counter[str] = Counter()
    for seed in range(pickers):
        found = Worker(members, strategy, seed).pick(among=among)
        assert found is not None
        found.load.picked.clear()
        chosen[found.deployment.id] += 1
    assert max(chosen.values()) / pickers <= 1 / size + share_bound(1 / size, pickers)
    if size < 1000:
        assert len(chosen) == size


@EVERY
def test_a_lower_tier_serves_while_one_of_it_is_left(strategy: str) -> None:
    low = [candidate("a", order=1), candidate("b", order=1)]
    worker = Worker([*low, candidate("fast", 100, latency=0.001, order=2)], strategy)
    assert set(worker.names(100)) == {"a", "b"}
    eject(low[0])
    assert set(worker.names(100)) == {"b"}
    eject(low[1])
    assert set(worker.names(100)) == {"fast"}


@EVERY
def test_beyond_32_a_sample_stays_within_its_tier_and_meets_all_of_it(strategy: str) -> None:
    low = [candidate(f"low{n}", latency=5.0) for n in range(100)]
    among = [Tier.of(low), Tier.of([candidate(f"high{n}", latency=0.1) for n in range(100)])]
    found = Worker(low, strategy, keeps=True).shares(3000, among=among)
    # Of 3,000 draws of 1 in 100, each is met: missing one has a chance below 100 × 0.99^3000.
    assert set(found) == {one.deployment.id for one in low}


@EVERY
@pytest.mark.parametrize("at", [0, 500, 999])
def test_the_one_healthy_deployment_of_a_thousand_is_found(strategy: str, at: int) -> None:
    members = [candidate(f"d{n}") for n in range(1000)]
    for n, one in enumerate(members):
        if n != at:
            eject(one)
    assert Worker(members, strategy).shares(20) == {f"d{at}": 20}


@EVERY
@pytest.mark.parametrize("operation", [GENERATION, Operation.STATUS])
def test_a_strategy_gives_one_finite_score_each(strategy: str, operation: Operation) -> None:
    members = [
        candidate("a"),
        candidate("b", latency=0.0),
        candidate("c", latency=900.0, in_flight=500, job_cap=1),
        candidate("d", 0, in_flight=7),
    ]
    for size in range(1, 5):
        weights = [one.deployment.weight for one in members[:size]]
        choice = STRATEGIES[strategy](
            members[:size], weights, Demand(operation), NOW, Worker(members, strategy).rng
        )
        assert 0 <= choice.chosen < size
        assert len(choice.scores) == size
        assert all(0 <= score < float("inf") for score in choice.scores)


# A burst


def burst(strategy: str, latency: float | None, workers: int, seed: int) -> int:
    """How far from ten of forty the worst of four equals ends."""
    found: Counter[str] = Counter()
    for number in range(workers):
        members = [candidate(f"d{n}", latency=latency) for n in range(4)]
        worker = Worker(members, strategy, 100 * seed + number, keeps=True)
        found.update(worker.names(40 // workers))
    return off(found)


def off(found: Counter[str]) -> int:
    counts = [*found.values(), *[0] * (4 - len(found))]
    return max(abs(count - 10) for count in counts)


@AVOIDS_LOAD
@pytest.mark.parametrize("latency", [None, 1.0], ids=["unknown", "known"])
def test_a_burst_of_forty_is_spread_over_four_equals(strategy: str, latency: float | None) -> None:
    assert max(burst(strategy, latency, 1, seed) for seed in range(100)) <= 3


@AVOIDS_LOAD
@pytest.mark.parametrize("latency", [None, 1.0], ids=["unknown", "known"])
def test_a_burst_by_eight_who_know_only_their_own_is_spread_too(
    strategy: str, latency: float | None
) -> None:
    """Five each, so what is left to chance is where each one's fifth goes, and some of the others.

    Were all forty left to it, more than half of the bursts would end further off than three.
    """
    worst = [burst(strategy, latency, 8, seed) for seed in range(100)]
    assert sum(one > 3 for one in worst) <= 10
    assert max(worst) <= 6


@AVOIDS_LOAD
@pytest.mark.parametrize(("workers", "most"), [(1, 3), (8, 5)])
def test_a_burst_through_routers_is_spread_too(
    call: Doors, strategy: str, workers: int, most: int, clock: FakeClock
) -> None:
    provider = StandIn(accounts={f"sk-{n}": n for n in "abcd"}, job_seconds=60, clock=clock, seed=1)
    settings = {"strategy": strategy}
    fleet = [
        four(provider, clock=clock, settings=settings, rng=random.Random(n)) for n in range(workers)
    ]
    found: Counter[str] = Counter()
    for n in range(40):
        made = call(fleet[n % workers], "video_generation", prompt="x")
        found[made.routing.deployment] += 1
    assert off(found) <= most


# Every strategy, through a router


def answered(call: Doors, router: Router, times: int) -> Counter[str]:
    """Where so many generations were served."""
    made = [call(router, "video_generation", prompt="x") for _ in range(times)]
    return Counter(one.routing.deployment for one in made)


@EVERY
def test_a_router_sends_new_work_to_nobody_who_is_out(
    call: Doors, strategy: str, provider: StandIn, clock: FakeClock
) -> None:
    today = datetime.datetime.fromtimestamp(clock.time(), datetime.UTC).date()
    router = serving(
        provider,
        deployment("east-throttled"),
        deployment("east-drained"),
        deployment("east-retired", retires_on=str(today)),
        deployment("east-retiring", retires_on=str(today + datetime.timedelta(days=1))),
        deployment("east-weightless", weight=0),
        deployment("east-well"),
        deployment("west-well"),
        clock=clock,
        settings={"strategy": strategy},
    )
    router.drain("east-drained")
    with router.pick("generation", account="east") as attempt:
        attempt.failed(429, {"retry-after": "200"})
    throttled = attempt.deployment
    assert throttled in ("east-throttled", "east-well")
    left = {"east-throttled", "east-well", "west-well"} - {throttled}
    assert set(answered(call, router, 40)) == left


@EVERY
def test_a_call_that_goes_on_goes_to_nobody_twice(
    call: Doors, strategy: str, clock: FakeClock
) -> None:
    provider = StandIn(accounts={f"sk-{n}": n for n in "abcd"}, seed=1)
    router = four(provider, clock=clock, settings={"strategy": strategy})
    provider.fault("status", operation="generation", status=429, times=4)
    with pytest.raises(RouterError) as caught:
        call(router, "video_generation", prompt="x", retries=9)
    assert sorted(a.deployment for a in caught.value.attempts) == [f"{n}-1" for n in "abcd"]


@EVERY
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_a_routers_shares_are_by_weight(
    call: Doors, strategy: str, weights: tuple[float, ...], clock: FakeClock
) -> None:
    provider = StandIn(accounts={f"sk-{n}": n for n in "abc"}, seed=1)
    told = [deployment(f"{n}-1", weight=w) for n, w in zip("abc", weights, strict=True)]
    router = serving(provider, *told, clock=clock, settings={"strategy": strategy})
    times = 400
    found = answered(call, router, times)
    for one in told:
        share = one["weight"] / sum(weights)
        assert abs(found[one["id"]] / times - share) <= share_bound(share, times) + EXPLORED


@EVERY
def test_two_routers_with_one_seed_pick_alike(call: Doors, strategy: str, clock: FakeClock) -> None:
    runs = []
    for _ in range(2):
        provider = StandIn(accounts={f"sk-{n}": n for n in "abcd"}, seed=1)
        router = four(provider, clock=FakeClock(), settings={"strategy": strategy})
        runs.append(
            [call(router, "video_generation", prompt="x").routing.deployment for _ in range(40)]
        )
    assert runs[0] == runs[1]


# One bad sample, and nobody's samples


@LEARNS
def test_one_slow_answer_starves_nobody(call: Doors, strategy: str, clock: FakeClock) -> None:
    provider = StandIn(accounts={f"sk-{n}": n for n in "abcd"}, clock=clock, seed=1)
    router = four(provider, clock=clock, settings={"strategy": strategy})
    for account, seconds in (("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 100.0)):
        took(router, clock, account, seconds)
    found: Counter[str] = Counter()
    for _ in range(200):
        made = call(router, "video_generation", prompt="x")
        call(router, "video_status", made.id)
        found[made.routing.deployment] += 1
    assert 0 < found["d-1"] < 50, found


@pytest.mark.parametrize("seconds", [400.0, 4000.0])
def test_one_slow_job_starves_nobody(seconds: float) -> None:
    jobs = Jobs("a", "b", "c", "d")
    jobs.known(a=40, b=40, c=40)
    jobs.known(times=1, d=seconds)
    jobs.seconds["d"] = 40.0
    found: Counter[str] = Counter()
    for _ in range(200):
        made = jobs.router.video_generation(prompt="x")
        jobs.clock.advance(40)
        jobs.see([str(made.id)])
        found[made.routing.account] += 1
    assert found["d"] > 0, found


@LEARNS
def test_an_unknown_one_is_tried_and_not_flooded(strategy: str) -> None:
    """Twenty at once and no answer yet: a guess is not trusted with half of them."""
    jobs = Jobs("a", "b", "c", "d", strategy=strategy)
    jobs.known(a=40, b=40, c=40)
    with held(jobs.router, 20) as found:
        assert 1 <= Counter(found)["d-1"] <= 20 / 4 + 1


@LEARNS
@pytest.mark.parametrize("size", [33, 1000])
def test_an_unknown_one_among_many_is_tried_and_not_flooded(strategy: str, size: int) -> None:
    members = [candidate(f"d{n}", latency=1.0) for n in range(size)]
    members.append(candidate("new"))
    times = 6 * size
    found = Worker(members, strategy, holds=True).shares(times)
    assert 1 <= found["new"] <= 2 * times / size


def test_whoever_is_new_gets_one_job_until_it_has_shown_itself() -> None:
    jobs = Jobs("a", "b")
    jobs.known(a=40)
    first = jobs.start("b")
    assert set(jobs.next()) == {"a"}
    jobs.seconds["b"] = 40.0
    jobs.clock.advance(40)
    jobs.see(first)
    assert set(jobs.next()) == {"a", "b"}


# lowest-completion


def test_job_time_counts_and_not_only_the_exchange() -> None:
    jobs = Jobs("a", "b")
    jobs.known(a=40, b=80)
    took(jobs.router, jobs.clock, "a", 9)
    assert jobs.next()["a"] > 30


def test_job_time_counts_by_the_length_of_the_video() -> None:
    """One answers late and works fast: it is for the long videos."""
    jobs = Jobs("a", "b")
    jobs.known(a=40)
    for _ in range(3):
        took(jobs.router, jobs.clock, "a", 60)
    jobs.known(b=80)
    assert jobs.next(seconds=4)["b"] > 30
    assert jobs.next(seconds=20)["a"] > 30


def test_jobs_that_run_overdue_are_noticed_before_the_first_of_them_ends() -> None:
    jobs = Jobs("a", "b")
    jobs.known(a=40, b=40)
    jobs.seconds["b"] = 400.0
    running = {account: jobs.start(account, 3) for account in "ab"}
    jobs.clock.advance(40)
    jobs.see(running["a"])
    assert min(jobs.next()["a"], jobs.next()["b"]) > 0  # nothing is late yet
    jobs.clock.advance(60)
    jobs.see(running["b"])
    assert jobs.router.statistics()["b-1"]["running"] == 3
    assert jobs.next()["a"] > 35


def test_one_odd_job_that_runs_overdue_among_many_that_end_does_not_count() -> None:
    jobs = Jobs("a", "b")
    jobs.known(a=40, b=40)
    jobs.seconds["b"] = 400.0
    odd = jobs.start("b")
    jobs.known(8, a=40, b=40)
    jobs.clock.advance(20)
    jobs.see(odd)
    assert jobs.router.statistics()["b-1"]["running"] == 1
    score = {c.deployment: c.facts["score"] for c in jobs.router.explain().candidates}
    assert score["b-1"] <= 1.3 * score["a-1"]


def test_jobs_that_the_provider_queues_count() -> None:
    jobs = Jobs("a", "b")
    jobs.known(a=40, b=40)
    running = {account: jobs.start(account, 4) for account in "ab"}
    jobs.clock.advance(20)
    jobs.see(running["a"], "in_progress")
    jobs.see(running["b"][:2], "in_progress")
    jobs.see(running["b"][2:], "queued")
    assert jobs.next()["a"] > 35


def test_of_two_queues_the_one_that_moves_on_sooner_is_joined() -> None:
    """Both run two at a time and have a third one waiting; the jobs of one are almost done."""
    jobs = Jobs("a", "b")
    jobs.known(a=40, b=40)
    running = {"a": jobs.start("a", 3)}
    jobs.clock.advance(30)
    running["b"] = jobs.start("b", 3)
    jobs.clock.advance(3)
    for account in "ab":
        jobs.see(running[account][:2], "in_progress")
        jobs.see(running[account][2:], "queued")
    score = {c.deployment: c.facts["score"] for c in jobs.router.explain().candidates}
    assert score["b-1"] - score["a-1"] == pytest.approx(30, abs=2)
    assert jobs.next()["a"] > 35


def test_a_few_lucky_jobs_make_nobody_the_better_one() -> None:
    """Two jobs each say little of who is faster, and many say it."""
    jobs = Jobs("a", "b")
    jobs.known(times=2, a=40, b=56)
    assert min(jobs.next().values()) > 5
    jobs.known(times=20, a=40, b=56)
    assert jobs.next()["a"] > 35


def test_a_deployment_that_turns_slow_is_known_by_its_newest_jobs() -> None:
    jobs = Jobs("a", "b")
    jobs.known(times=40, a=40, b=48)
    jobs.known(times=2, a=200)
    assert jobs.next()["b"] > 35


def test_whoever_is_hot_loses_to_who_is_cold_whatever_its_times() -> None:
    jobs = Jobs("a", "b", a={"max_parallel_jobs": 10})
    jobs.known(a=20, b=200)
    assert jobs.next()["a"] > 35
    jobs.start("a", 9)
    assert set(jobs.next()) == {"b"}


def test_where_all_are_hot_the_soonest_is_still_first() -> None:
    members = [
        candidate(name, latency=latency, job_cap=2)
        for name, latency in (("slow", 90.0), ("fast", 1.0))
    ]
    for one in members:
        one.load.enter(GENERATION)
    assert Worker(members, "lowest-completion").shares(100)["fast"] == 100


def test_reads_are_chosen_by_latency() -> None:
    members = [candidate("fast", latency=9.0), candidate("slow", latency=1.0)]
    for one, seconds in zip(members, (1.0, 9.0), strict=True):
        one.load.add(Operation.STATUS, epoch_of(NOW), sample(seconds, NOW))
    for strategy in ("lowest-completion", "lowest-latency", "lowest-cost"):
        read = {"operation": Operation.STATUS, "follow_up": True}
        assert Worker(members, strategy).shares(100, **read)["fast"] > 90


# lowest-cost

BY_SIZE = {"720x1280": 0.3, "1024x1792": 0.1}


def costs(**prices: Any) -> Worker:
    members = [candidate(name, cost_per_second=price) for name, price in prices.items()]
    return Worker(members, "lowest-cost")


def test_the_cheapest_is_first_and_who_names_no_price_last() -> None:
    worker = costs(unknown=None, dear=0.5, cheap=0.1, middle=0.2)
    for name in ("cheap", "middle", "dear", "unknown"):
        assert worker.shares(50) == {name: 50}
        eject(next(one for one in worker.members if one.deployment.id == name))


def test_prices_go_by_the_size_that_is_asked_for() -> None:
    worker = costs(flat=0.2, sized=BY_SIZE)
    for size, cheapest in (("720x1280", "flat"), ("1024x1792", "sized"), ("1x1", "flat")):
        demand = Demand(GENERATION, size=size)
        assert worker.shares(50, demand=demand) == {cheapest: 50}


def test_among_the_cheapest_the_soonest_is_first() -> None:
    jobs = Jobs(
        "a", "b", "c", strategy="lowest-cost", **{n: {"cost_per_second": 0.1} for n in "ab"}
    )
    jobs.known(a=40, b=80, c=10)
    assert set(jobs.next()) == {"a"}


def test_money_comes_before_time_and_where_the_cheapest_has_no_room_the_next_serves(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    provider = StandIn(accounts={f"sk-{n}": n for n in "ab"}, job_seconds=60, clock=clock, seed=1)
    router = serving(
        provider,
        deployment("a-1", cost_per_second=0.1, max_parallel_jobs=2),
        deployment("b-1", cost_per_second=0.4),
        clock=clock,
        settings={"strategy": "lowest-cost"},
    )
    made = [call(router, "video_generation", prompt="x").routing.deployment for _ in range(4)]
    assert made == ["a-1", "a-1", "b-1", "b-1"]


# round-robin


@pytest.mark.parametrize("size", [2, 3, 7])
def test_equals_are_served_in_turn(size: int) -> None:
    members = [candidate(f"d{n}") for n in range(size)]
    found = Worker(members, "round-robin").names(10 * size)
    assert len(set(found[:size])) == size
    assert found == found[:size] * 10


@pytest.mark.parametrize("times", [2, 5])
def test_who_weighs_more_has_so_many_turns_more(times: int) -> None:
    members = [candidate("light", 1), candidate("heavy", times)]
    found = Worker(members, "round-robin").names(20 * (times + 1))
    assert found.count("light") == 20
    assert "lightlight" not in "".join(found)


@pytest.mark.parametrize("weights", [(1, 2, 5), (2, 3), (3, 1, 1)])
def test_with_any_weights_turns_follow_them(weights: tuple[float, ...]) -> None:
    """Within a third: who is light is never kept waiting for more than its share of turns."""
    members = [candidate(f"d{n}", weight) for n, weight in enumerate(weights)]
    found = Worker(members, "round-robin").shares(8000)
    for one in members:
        share = found[one.deployment.id] / 8000 * sum(weights)
        assert share == pytest.approx(one.deployment.weight, rel=1 / 3)


def test_whoever_is_new_or_was_away_gets_one_turn_and_not_all_it_missed() -> None:
    members = [candidate(name) for name in "abc"]
    worker = Worker(members, "round-robin")
    eject(members[2], seconds=10.0)
    away = worker.names(100)
    assert (away.count("a"), away.count("b"), away.count("c")) == (50, 50, 0)
    back = worker.names(9, now=NOW + 10.0)
    assert back[0] == "c"
    assert sorted(back[:3]) == ["a", "b", "c"]
    assert back == back[:3] * 3
    members.append(candidate("new"))
    late = worker.names(8, now=NOW + 10.0)
    assert late[0] == "new"
    assert late == late[:4] * 2


def test_looking_after_jobs_takes_nobodys_turn(call: Doors, provider: StandIn) -> None:
    router = serving(
        provider,
        deployment("east-1"),
        deployment("west-1"),
        settings={"strategy": "round-robin"},
    )
    found, videos = [], []
    for _ in range(12):
        made = call(router, "video_generation", prompt="x")
        found.append(made.routing.account)
        videos.append(made.id)
        for video in reversed(videos[-2:]):
            call(router, "video_status", video)
    assert found == found[:2] * 6
    assert len(set(found)) == 2


# weighted-random


def test_weighted_random_looks_at_nothing_but_weight() -> None:
    times = 20_000
    members = [
        candidate("slow", 3, latency=60.0, in_flight=100),
        candidate("fast", 1, latency=0.1),
    ]
    found = Worker(members, "weighted-random").shares(times)
    assert abs(found["slow"] / times - 0.75) <= share_bound(0.75, times)


@pytest.mark.parametrize("size", [3, 32, 50])
def test_shares_by_weight_hold_beyond_the_sample(size: int) -> None:
    """Members enter a sample by weight and without repeats, so a heavy one gets a little less.

    Its share stays between an equal one and its weight's.
    """
    times = 20_000
    members = [candidate("heavy", 10)] + [candidate(f"d{n}") for n in range(size - 1)]
    share = Worker(members, "weighted-random").shares(times)["heavy"] / times
    by_weight = 10 / (10 + size - 1)
    assert 1 / size < share <= by_weight + share_bound(by_weight, times)
    if size <= 32:
        assert share >= by_weight - share_bound(by_weight, times)
