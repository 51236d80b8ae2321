"""What a call, and what an account in a day, may cost: through both doors, over a fleet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from routing_parts import CLIP, Doors, FakeClock, deployment
from shared_parts import KEYS, in_process
from sharing_parts import Fleet

from router import AmbiguousSubmitError, BadRequestError, CapacityError, ConfigError, Router
from router.testing import StandIn

DAY = 86_400
# Eight in the morning, UTC.
MORNING = 1_799_971_200.0 + 8 * 3600
BY_SIZE = {"1280x720": 0.1, "1792x1024": 0.5}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(MORNING)


@pytest.fixture
def provider(clock: FakeClock) -> StandIn:
    return StandIn(accounts=KEYS, seed=7, clock=clock, job_seconds=10.0)


@pytest.fixture(params=["alone", "memory"])
def fleet(request: pytest.FixtureRequest, provider: StandIn, clock: FakeClock) -> Iterator[Fleet]:
    made = Fleet(request.param, provider, clock)
    yield made
    for router in made.routers:
        router.close()


def generates(call: Doors, router: Router, **more: Any) -> Any:
    return call(router, "video_generation", **{"prompt": "x", "seconds": 8, **more})


# Of one call ------------------------------------------------------------------------------------


def test_who_asks_more_does_not_serve_the_call(call: Doors, provider: StandIn) -> None:
    dear = deployment("east-1", cost_per_second=0.5)
    cheap = deployment("west-1", cost_per_second=0.1, order=2)
    router = in_process(provider, {"deployments": [dear, cheap]})
    assert generates(call, router).routing.deployment == "east-1"
    bounded = [generates(call, router, max_cost=limit).routing for limit in (0.8, 3.9, 4.0)]
    assert [routing.deployment for routing in bounded] == ["west-1", "west-1", "east-1"]


def test_where_nobody_is_cheap_enough_nothing_is_sent(call: Doors, provider: StandIn) -> None:
    free = deployment("north-1")
    deployments = [deployment("east-1", cost_per_second=0.5), free]
    router = in_process(provider, {"deployments": deployments})
    with pytest.raises(BadRequestError, match=r"east-1 asks \$4; north-1 names no price") as caught:
        generates(call, router, max_cost=3)
    assert (caught.value.status, caught.value.accepted) == (None, "no")
    assert provider.requests == []


def test_what_names_no_length_is_reckoned_as_four_seconds(call: Doors, provider: StandIn) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1", cost_per_second=0.5)]})
    made = generates(call, router, seconds=None, max_cost=2)
    assert made.routing.cost == 2.0
    with pytest.raises(BadRequestError):
        generates(call, router, seconds=None, max_cost=1.9)


def test_a_character_starts_no_job_and_costs_nothing(call: Doors, provider: StandIn) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]})
    made = call(router, "video_create_character", name="Mossy", video=CLIP, max_cost=0.01)
    assert made.name == "Mossy"


def test_a_pick_and_an_explanation_keep_to_the_cost(provider: StandIn) -> None:
    dear = deployment("east-1", cost_per_second=0.5)
    cheap = deployment("west-1", cost_per_second=0.1, order=2)
    router = in_process(provider, {"deployments": [dear, cheap]})
    with router.pick("generation", seconds=8, max_cost=1) as attempt:
        assert attempt.deployment == "west-1"
        attempt.accepted("video_1")
    told = router.explain(seconds=8, max_cost=1)
    assert told.picked == "west-1"
    assert "max_cost is $1" in told.candidates[0].reason


@pytest.mark.parametrize(("rate", "seconds", "most"), [(0.1, 12, 1.2), (0.7, 12, 8.4)])
def test_what_costs_exactly_as_much_is_not_too_dear(
    call: Doors, provider: StandIn, rate: float, seconds: int, most: float
) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1", cost_per_second=rate)]})
    assert generates(call, router, seconds=seconds, max_cost=most).routing.cost == most


def test_an_explanation_goes_on_to_a_cheaper_fallback(provider: StandIn) -> None:
    dear = deployment("east-1", model_name="pro", cost_per_second=0.5)
    cheap = deployment("west-1", cost_per_second=0.1)
    settings = {"fallbacks": {"pro": ["sora-2"]}}
    router = in_process(provider, {"deployments": [dear, cheap], "settings": settings})
    asked: dict[str, Any] = {"model": "pro", "seconds": 8, "max_cost": 1}
    assert router.explain(**asked).picked == "west-1"
    assert router.video_generation(prompt="x", **asked).routing.deployment == "west-1"


@pytest.mark.parametrize("cost", [0, -1, "1", True, float("nan"), float("inf")])
def test_a_bad_cost_is_refused(call: Doors, provider: StandIn, cost: Any) -> None:
    router = in_process(provider)
    with pytest.raises(BadRequestError, match="max_cost"):
        generates(call, router, max_cost=cost)


# Of a day ---------------------------------------------------------------------------------------


def test_an_account_spends_no_more_in_a_day_over_all_workers(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    east = {"east": {"max_cost_per_day": 2.0}}
    both = [deployment(name, "east", cost_per_second=0.1) for name in ("east-1", "east-2")]
    one, other = fleet(*both, accounts=east)
    generates(call, one)
    generates(call, other)
    with pytest.raises(CapacityError, match=r"east.*may spend") as caught:
        generates(call, one)
    assert caught.value.retry_after == pytest.approx(16 * 3600, abs=60)
    assert len(provider.accepted) == 2
    # What is left is enough for a shorter one.
    generates(call, other, seconds=4)
    with pytest.raises(CapacityError):
        generates(call, one, seconds=1)
    assert len(provider.accepted) == 3
    clock.advance(16 * 3600 + 1)
    generates(call, other)
    assert len(provider.accepted) == 4


def test_who_has_no_money_left_gives_way_to_the_next(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, other = fleet(
        deployment("east-1", cost_per_second=0.1),
        deployment("west-1", cost_per_second=0.1, order=2),
        accounts={"east": {"max_cost_per_day": 1.0}},
    )
    served = [generates(call, router).routing.deployment for router in (one, other, one)]
    assert served == ["east-1", "west-1", "west-1"]
    told = one.explain(seconds=8)
    assert told.picked == "west-1"


def test_a_sure_refusal_gives_the_money_back_and_an_ambiguous_end_does_not(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, other = fleet(
        deployment("east-1", cost_per_second=0.1), accounts={"east": {"max_cost_per_day": 1.6}}
    )
    for _ in range(5):
        provider.fault("status", status=400)
        with pytest.raises(BadRequestError):
            generates(call, one)
    fleet.meet()
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError):
        generates(call, other)
    generates(call, one)
    with pytest.raises(CapacityError):
        generates(call, other)
    assert len(provider.accepted) == 2


def test_reads_and_characters_go_on_without_money(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, other = fleet(
        deployment("east-1", cost_per_second=0.1), accounts={"east": {"max_cost_per_day": 0.8}}
    )
    made = generates(call, one)
    assert call(other, "video_status", made.id).id == made.id
    assert call(other, "video_create_character", name="Mossy", video=CLIP).name == "Mossy"


def test_a_size_without_a_price_is_reckoned_as_the_dearest(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, _ = fleet(
        deployment("east-1", cost_per_second=BY_SIZE), accounts={"east": {"max_cost_per_day": 3.0}}
    )
    with pytest.raises(CapacityError):
        generates(call, one, size="1920x1080")
    generates(call, one, size="1280x720")


def test_what_was_spent_is_told_by_deployment_account_and_day(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(
        deployment("east-1", cost_per_second=0.1), deployment("west-1", cost_per_second=0.5)
    )
    for router in (one, other):
        generates(call, router, max_cost=1)
    generates(call, one, target_model_names="sora-2", account="west")
    fleet.meet()
    told = other.statistics()
    assert told["east-1"]["spent_today"] == pytest.approx(1.6)
    assert told["west-1"]["spent_today"] == pytest.approx(4.0)
    clock.advance(DAY)
    fleet.meet()
    later = other.statistics()["east-1"]
    assert later["spent_today"] == 0
    assert sum(later["spent_by_day"].values()) == pytest.approx(1.6)


# What it costs in truth -------------------------------------------------------------------------


def taken(fleet: Fleet) -> int:
    return fleet.held("cost:account:east")[0]


@pytest.mark.parametrize("operation", ["video_edit", "video_remix"])
@pytest.mark.parametrize(("seconds", "left"), [(8, 1), (4, 2)])
def test_what_is_made_of_a_video_costs_what_its_answer_says(
    call: Doors, fleet: Fleet, clock: FakeClock, operation: str, seconds: int, left: int
) -> None:
    one, other = fleet(
        deployment("east-1", cost_per_second=0.1), accounts={"east": {"max_cost_per_day": 2.4}}
    )
    made = generates(call, one, seconds=seconds)
    clock.advance(11)
    again = call(other, operation, video_id=made.id, prompt="y")
    assert again.routing.cost == pytest.approx(seconds / 10)
    assert taken(fleet) == 2 * seconds * 100_000
    for _ in range(2 * left):
        generates(call, one, seconds=4)
    with pytest.raises(CapacityError):
        generates(call, other, seconds=4)


def test_a_size_that_the_answer_names_costs_no_more_than_it_does(call: Doors, fleet: Fleet) -> None:
    one, _ = fleet(
        deployment("east-1", cost_per_second={"720x1280": 0.1, "1792x1024": 0.5}),
        accounts={"east": {"max_cost_per_day": 5}},
    )
    made = generates(call, one)
    assert (made.size, made.routing.cost) == ("720x1280", pytest.approx(0.8))
    assert taken(fleet) == 800_000


def test_an_extension_costs_what_is_new_and_a_pick_what_is_reckoned(
    call: Doors, fleet: Fleet, clock: FakeClock
) -> None:
    one, other = fleet(
        deployment("east-1", cost_per_second=0.1), accounts={"east": {"max_cost_per_day": 5}}
    )
    made = generates(call, one)
    clock.advance(11)
    call(other, "video_extension", video_id=made.id, prompt="y", seconds=4)
    assert taken(fleet) == 1_200_000
    with other.pick("generation") as attempt:
        attempt.accepted("video_1")
    assert taken(fleet) == 1_600_000


# Configuration ----------------------------------------------------------------------------------


def test_what_is_capped_has_a_price(provider: StandIn) -> None:
    data = {
        "accounts": {"east": {"max_cost_per_day": 5}},
        "deployments": [deployment("east-1"), deployment("west-1")],
    }
    with pytest.raises(ConfigError, match=r"cost_per_second.*`east` has max_cost_per_day"):
        in_process(provider, data)


@pytest.mark.parametrize("written", [0, -1, "much", True])
def test_a_bad_cap_is_refused(provider: StandIn, written: Any) -> None:
    data = {
        "accounts": {"east": {"max_cost_per_day": written}},
        "deployments": [deployment("east-1", cost_per_second=1)],
    }
    with pytest.raises(ConfigError, match=r"max_cost_per_day: must be a number"):
        in_process(provider, data)


def test_a_cap_on_a_deployment_is_no_key() -> None:
    with pytest.raises(ConfigError, match="max_cost_per_day"):
        Router.from_dict({"deployments": [deployment("east-1", max_cost_per_day=5)]}, environ={})
