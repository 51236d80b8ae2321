"""Strategies: one conformance suite over all of them, and what each promises beyond it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from routing_parts import FakeClock, deployment, serving, share_bound

from router.balancing import STRATEGIES, Load, Strategy, draw
from router.config import Deployment
from router.health import Health
from router.observations import BOTH, Cause, Ejection, epoch_of, sample
from router.selection import Candidate, Route, Tier, choose
from router.testing import StandIn
from router.types import Operation

GENERATION = Operation.GENERATION
NOW = 1_800_000_000.0
ALL = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
ROUTE = Route(GENERATION)


def candidate(
    name: str, weight: float = 1.0, *, mean: float | None = None, in_flight: int = 0
) -> Candidate:
    """A deployment in rotation; `mean` is its latency in seconds, if it is known."""
    load = Load()
    load.in_flight = in_flight
    if mean is not None:
        load.add(GENERATION, epoch_of(NOW), sample(mean, NOW))
    told = Deployment(
        id=name,
        model_names=("sora-2",),
        account=name,
        provider="openai",
        model="sora-2",
        base_url="http://host/v1",
        weight=weight,
        operations=frozenset(Operation),
    )
    return Candidate(told, "openai", Health(), load)


def eject(one: Candidate, cause: Cause = Cause.FAILURES, seconds: float = 60.0) -> None:
    assert isinstance(one.health, Health)
    one.health.eject(Ejection(BOTH, NOW + seconds, cause, "for a test"))


def pick(
    tiers: Sequence[Tier[Candidate]],
    strategy: Strategy,
    rng: random.Random,
    route: Route = ROUTE,
    **more: Any,
) -> Candidate | None:
    return choose(tiers, route, strategy, draw, now=NOW, rng=rng, **more)


def picks(
    members: Sequence[Candidate], strategy: Strategy, times: int, seed: int = 1
) -> Counter[str]:
    rng = random.Random(seed)
    tiers = [Tier.of(members)]
    chosen = (pick(tiers, strategy, rng) for _ in range(times))
    return Counter(one.deployment.id for one in chosen if one is not None)


# Every strategy


@ALL
@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("size", [2, 8, 100])
def test_an_ejected_candidate_is_never_picked(strategy: Strategy, cause: Cause, size: int) -> None:
    members = [candidate(f"d{n}", mean=None if n % 2 else 1.0 + n) for n in range(size)]
    out = random.Random(size).sample(members, size // 2)
    for one in out:
        eject(one, cause)
    found = picks(members, strategy, 500)
    assert sum(found.values()) == 500
    assert not {one.deployment.id for one in out} & set(found)


@ALL
def test_nobody_is_picked_where_all_are_ejected_or_were_tried(strategy: Strategy) -> None:
    members = [candidate("a"), candidate("b", mean=1.0)]
    tiers = [Tier.of(members)]
    assert pick(tiers, strategy, random.Random(1), tried=members) is None
    for one in members:
        eject(one)
    assert pick(tiers, strategy, random.Random(1)) is None


@ALL
def test_an_ejection_ends_at_its_deadline(strategy: Strategy) -> None:
    members = [candidate("a"), candidate("b")]
    eject(members[0], seconds=10.0)
    tiers = [Tier.of(members)]
    rng = random.Random(1)

    def served(now: float) -> set[str]:
        found = [choose(tiers, ROUTE, strategy, draw, now=now, rng=rng) for _ in range(40)]
        return {one.deployment.id for one in found if one is not None}

    assert served(NOW + 9.9) == {"b"}
    assert served(NOW + 10.0) == {"a", "b"}


@ALL
@pytest.mark.parametrize("size", [3, 32, 33, 200])
def test_a_seed_decides_everything(strategy: Strategy, size: int) -> None:
    members = [
        candidate(f"d{n}", 1 + n % 3, mean=None if n % 5 == 0 else 1 + (n * 7) % 11)
        for n in range(size)
    ]

    def run(seed: int) -> list[str]:
        rng = random.Random(seed)
        tiers = [Tier.of(members)]
        found = (pick(tiers, strategy, rng) for _ in range(200))
        return [one.deployment.id for one in found if one is not None]

    assert run(5) == run(5)


@ALL
@pytest.mark.parametrize("mean", [None, 2.0], ids=["unknown", "known"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 5), (0.5, 0.25, 0.25), (3, 0, 1)])
def test_equals_are_served_by_weight(
    strategy: Strategy, weights: tuple[float, ...], mean: float | None
) -> None:
    times = 20_000
    members = [candidate(f"d{n}", weight, mean=mean) for n, weight in enumerate(weights)]
    found = picks(members, strategy, times)
    for n, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(found[f"d{n}"] / times - share) <= share_bound(share, times)


@ALL
def test_where_all_weigh_nothing_all_are_equal(strategy: Strategy) -> None:
    times = 10_000
    found = picks([candidate(f"d{n}", 0) for n in range(4)], strategy, times)
    for n in range(4):
        assert abs(found[f"d{n}"] / times - 0.25) <= share_bound(0.25, times)


@ALL
@pytest.mark.parametrize("size", [4, 32, 64])
def test_workers_with_the_same_stale_view_do_not_herd(strategy: Strategy, size: int) -> None:
    """A thousand workers pick at once, none seeing the others: no deployment is overrun.

    The spread is within the tenth that counts as equal.
    """
    rng = random.Random(3)
    members = [candidate(f"d{n}", mean=1.0 + 0.09 * rng.random()) for n in range(size)]
    tiers = [Tier.of(members)]
    workers = 4000
    chosen = Counter(
        one.deployment.id
        for seed in range(workers)
        if (one := pick(tiers, strategy, random.Random(seed))) is not None
    )
    assert len(chosen) == size
    assert max(chosen.values()) / workers <= 1 / size + share_bound(1 / size, workers)


@ALL
def test_a_lower_tier_serves_while_one_of_it_is_left(strategy: Strategy) -> None:
    low, high = [candidate("a"), candidate("b")], [candidate("fast", 100, mean=0.001)]
    tiers = [Tier.of(low), Tier.of(high)]
    rng = random.Random(1)

    def served() -> set[str]:
        return {one.deployment.id for _ in range(60) if (one := pick(tiers, strategy, rng))}

    assert served() == {"a", "b"}
    eject(low[0])
    assert served() == {"b"}
    eject(low[1])
    assert served() == {"fast"}


@ALL
def test_beyond_32_a_sample_stays_within_its_tier(strategy: Strategy) -> None:
    low = [candidate(f"low{n}", mean=5.0) for n in range(100)]
    tiers = [Tier.of(low), Tier.of([candidate(f"high{n}", mean=0.1) for n in range(100)])]
    rng = random.Random(1)
    found = Counter(one.deployment.id for _ in range(3000) if (one := pick(tiers, strategy, rng)))
    assert all(name.startswith("low") for name in found)
    # Of 3,000 draws of 1 in 100, each is met: missing one has a chance below 100 × 0.99^3000.
    assert len(found) == 100


@ALL
@pytest.mark.parametrize("at", [0, 500, 999])
def test_the_one_healthy_deployment_of_a_thousand_is_found(strategy: Strategy, at: int) -> None:
    members = [candidate(f"d{n}") for n in range(1000)]
    for n, one in enumerate(members):
        if n != at:
            eject(one)
    assert picks(members, strategy, 20) == {f"d{at}": 20}


@ALL
def test_a_deployment_that_was_tried_is_passed_by(strategy: Strategy) -> None:
    members = [candidate(f"d{n}") for n in range(40)]
    tried = members[:39]
    rng = random.Random(1)
    for _ in range(50):
        assert pick([Tier.of(members)], strategy, rng, tried=tried) is members[39]


@ALL
def test_an_owners_read_ignores_ejections_by_failures_only(strategy: Strategy) -> None:
    one = candidate("a")
    tiers = [Tier.of([one])]
    rng = random.Random(1)
    read = Route(Operation.STATUS, follow_up=True)
    submit = Route(Operation.EDIT, follow_up=True)
    eject(one, Cause.FAILURES)
    assert pick(tiers, strategy, rng, read) is one
    assert pick(tiers, strategy, rng, submit) is None
    eject(one, Cause.DENIED)
    assert pick(tiers, strategy, rng, read) is None


@ALL
def test_a_strategy_gives_one_finite_score_each(strategy: Strategy) -> None:
    loads = [
        candidate("a").load,
        candidate("b", mean=0.0).load,
        candidate("c", mean=900.0, in_flight=500).load,
        candidate("d", in_flight=7).load,
    ]
    for size in range(1, 5):
        scores = strategy(loads[:size], GENERATION, 0.0)
        assert len(scores) == size
        assert all(0 <= score < float("inf") for score in scores)


# lowest-latency

LOWEST_LATENCY = STRATEGIES["lowest-latency"]


def test_the_faster_is_preferred() -> None:
    found = picks([candidate("fast", mean=1.0), candidate("slow", mean=2.0)], LOWEST_LATENCY, 100)
    assert found == {"fast": 100}


def test_among_equals_the_idler_is_preferred() -> None:
    members = [candidate("busy", mean=1.0, in_flight=2), candidate("idle", mean=1.0, in_flight=1)]
    assert picks(members, LOWEST_LATENCY, 100) == {"idle": 100}


def test_load_may_outweigh_speed() -> None:
    members = [candidate("fast", mean=1.0, in_flight=9), candidate("slow", mean=3.0)]
    assert picks(members, LOWEST_LATENCY, 100) == {"slow": 100}


def test_the_score_is_mean_and_deviation_times_those_who_wait() -> None:
    load = Load()
    for seconds in (1.0, 3.0):
        load.add(GENERATION, epoch_of(NOW), sample(seconds, NOW))
    load.in_flight = 4
    # Of 1 and 3, weighed alike: mean 2, deviation 1; four in flight, and the one to come.
    assert LOWEST_LATENCY([load], GENERATION, 0.0) == pytest.approx([(2.0 + 1.0) * 5])


def test_old_samples_fade() -> None:
    load = Load()
    for at, seconds in ((NOW, 100.0), (NOW + 600, 1.0)):
        load.add(GENERATION, epoch_of(at), sample(seconds, at))
    # Ten minutes are ten time constants: the old one weighs e^-10.
    assert load.latency[GENERATION].mean == pytest.approx(1.0, abs=0.01)
    # And across the border between two epochs as within one.
    later = Load()
    border = (epoch_of(NOW) + 1) * 3600.0
    for at, seconds in ((border - 60, 10.0), (border, 20.0)):
        later.add(GENERATION, epoch_of(at), sample(seconds, at))
    weight = 2.718281828459045**-1
    expected = (10 * weight + 20) / (weight + 1)
    assert later.latency[GENERATION].mean == pytest.approx(expected)


def test_operations_have_latencies_of_their_own() -> None:
    one, other = candidate("one", mean=1.0), candidate("other", mean=2.0)
    one.load.add(Operation.STATUS, epoch_of(NOW), sample(9.0, NOW))
    other.load.add(Operation.STATUS, epoch_of(NOW), sample(1.0, NOW))
    loads = [one.load, other.load]
    assert LOWEST_LATENCY(loads, GENERATION, 0.0)[0] < LOWEST_LATENCY(loads, GENERATION, 0.0)[1]
    assert (
        LOWEST_LATENCY(loads, Operation.STATUS, 0.0)[0]
        > LOWEST_LATENCY(loads, Operation.STATUS, 0.0)[1]
    )


def test_an_unknown_one_takes_the_median_of_the_known() -> None:
    members = [candidate(f"d{n}", mean=float(n)) for n in (1, 3, 9)] + [candidate("new")]
    scores = LOWEST_LATENCY([one.load for one in members], GENERATION, 0.0)
    assert scores[-1] == scores[1]


def test_unknown_ones_are_tried(clock: FakeClock) -> None:
    """Five callers at once, four known and equal: the fifth goes to the one nobody knows."""
    provider = StandIn(accounts={f"sk-a{n}": f"a{n}" for n in range(5)}, seed=1)
    router = serving(provider, *[deployment(f"a{n}-1") for n in range(5)], clock=clock)
    for n in range(4):
        with router.pick("generation", account=f"a{n}") as attempt:
            clock.advance(1.0)
            attempt.accepted("video_1")
    held = [router.pick("generation") for _ in range(5)]
    served = [one.__enter__().account for one in held]
    for one in held:
        one.__exit__(None, None, None)
    assert sorted(served) == [f"a{n}" for n in range(5)]


def test_an_unknown_one_is_not_flooded(clock: FakeClock) -> None:
    """Twenty callers at once and no answer yet: the guess is not trusted with half of them."""
    provider = StandIn(accounts={"sk-new": "new", "sk-old": "old"}, seed=1)
    router = serving(provider, deployment("new-1"), deployment("old-1"), clock=clock)
    with router.pick("generation", account="old") as attempt:
        clock.advance(1.0)
        attempt.accepted("video_1")
    held = [router.pick("generation") for _ in range(20)]
    served = Counter(one.__enter__().account for one in held)
    for one in held:
        one.__exit__(None, None, None)
    # What is in flight at an unknown one counts double: it holds half of what the known one does.
    assert 1 <= served["new"] <= 20 / 3 + 1
    assert served["old"] >= 20 * 2 / 3 - 1


# weighted-random


def test_weighted_random_looks_at_nothing_but_weight() -> None:
    times = 20_000
    members = [
        candidate("slow", 3, mean=60.0, in_flight=100),
        candidate("fast", 1, mean=0.1),
    ]
    found = picks(members, STRATEGIES["weighted-random"], times)
    assert abs(found["slow"] / times - 0.75) <= share_bound(0.75, times)


@pytest.mark.parametrize("size", [3, 50])
def test_shares_by_weight_hold_beyond_the_sample(size: int) -> None:
    """Members enter a sample by weight and without repeats, so a heavy one gets a little less.

    Its share stays between an equal one and its weight's.
    """
    times = 20_000
    members = [candidate("heavy", 10)] + [candidate(f"d{n}") for n in range(size - 1)]
    share = picks(members, STRATEGIES["weighted-random"], times)["heavy"] / times
    by_weight = 10 / (10 + size - 1)
    bound = share_bound(by_weight, times)
    assert 1 / size < share <= by_weight + (bound if size <= 32 else 0.5)
    if size <= 32:
        assert share >= by_weight - bound
