"""Who serves a call: tiers, fallbacks, owners, trials, retirement; and how `explain` tells it."""

from __future__ import annotations

import datetime
import random
from typing import Any

import pytest
from choosing_parts import GENERATION, NOW, Jobs, Worker, candidate, health_of
from routing_parts import CLIP, Doors, FakeClock, account_of, deployment, serving, share_bound

from router import Router, RouterError, events
from router.balancing import STRATEGIES
from router.errors import (
    CapacityError,
    ConfigError,
    NoDeploymentAvailableError,
)
from router.observations import SUBMITS
from router.testing import StandIn

DAY = 86_400.0
# Strategies that learn from what they send look at the idle ones now and then, whatever is known.
EXPLORED = 1 / 32
PRO = {"settings": {"fallbacks": {"pro": ["sora-2", "last"]}}}


def tiered(provider: StandIn, **parts: Any) -> Router:
    return serving(
        provider,
        deployment("east-1"),
        deployment("west-1", order=2),
        deployment("north-1", order=3),
        **parts,
    )


def fallen(provider: StandIn, **parts: Any) -> Router:
    """Three groups of which two stand in for the first."""
    return serving(
        provider,
        deployment("east-1", model_name="pro"),
        deployment("west-1"),
        deployment("north-1", model_name="last"),
        **{**PRO, **parts},
    )


def throttle(router: Router, account: str, operation: str = "generation") -> None:
    """Out for a hundred seconds, by the provider's word."""
    with router.pick(operation, account=account, target_model_names=groups(router)) as attempt:
        attempt.failed(429, {"retry-after": "100"})


def fail(router: Router, account: str) -> None:
    """Out for five seconds, by our own judgement."""
    for _ in range(3):
        with router.pick(
            "generation", account=account, target_model_names=groups(router)
        ) as attempt:
            attempt.failed(500)


def groups(router: Router) -> list[str]:
    return sorted({name for known in router.statistics().values() for name in known["model_names"]})


def verdicts(router: Router, *args: Any, **named: Any) -> dict[str, str]:
    return {c.deployment: c.verdict for c in router.explain(*args, **named).candidates}


def served(call: Doors, router: Router, times: int = 10, **named: Any) -> set[str]:
    made = [call(router, "video_generation", prompt="x", **named) for _ in range(times)]
    return {one.routing.deployment for one in made}


# Tiers


def test_a_tier_serves_when_those_before_it_are_out(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = tiered(provider, clock=clock)
    assert served(call, router) == {"east-1"}
    throttle(router, "east")
    assert served(call, router) == {"west-1"}
    fail(router, "west")
    assert served(call, router) == {"north-1"}
    clock.advance(101)
    assert served(call, router) == {"east-1"}


def test_a_tier_serves_when_those_before_it_are_full(call: Doors, clock: FakeClock) -> None:
    provider = StandIn(
        accounts={f"sk-{n}": n for n in ("east", "west", "north")}, job_seconds=60, clock=clock
    )
    router = serving(
        provider,
        deployment("east-1", max_parallel_jobs=2),
        deployment("west-1", order=2, max_parallel_jobs=1),
        deployment("north-1", order=3),
        clock=clock,
    )
    made = [call(router, "video_generation", prompt="x").routing.deployment for _ in range(5)]
    assert made == ["east-1", "east-1", "west-1", "north-1", "north-1"]


def test_a_trial_belongs_to_its_tier(call: Doors, provider: StandIn, clock: FakeClock) -> None:
    """Whoever is due for one does not take the place of a lower tier that is well."""
    router = tiered(provider, clock=clock)
    fail(router, "west")
    clock.advance(6)
    assert served(call, router) == {"east-1"}
    throttle(router, "east")
    assert served(call, router, 1) == {"west-1"}


# Fallbacks


def test_a_fallback_serves_where_nobody_of_the_group_is_left(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    assert served(call, router, model="pro") == {"east-1"}
    throttle(router, "east")
    assert served(call, router, model="pro") == {"west-1"}
    throttle(router, "west")
    assert served(call, router, model="pro") == {"north-1"}
    clock.advance(101)
    assert served(call, router, model="pro") == {"east-1"}


@pytest.mark.parametrize("how", ["failures", "throttled", "denied", "drained", "missing"])
def test_whatever_puts_the_group_out(
    call: Doors, provider: StandIn, clock: FakeClock, how: str
) -> None:
    router = fallen(provider, clock=clock)
    status = {"throttled": 429, "denied": 401, "missing": 501}
    if how == "drained":
        router.drain("east-1")
    elif how == "failures":
        fail(router, "east")
    else:
        with router.pick("generation", model="pro") as attempt:
            attempt.failed(status[how])
    assert served(call, router, model="pro") == {"west-1"}


def test_a_fallback_serves_in_the_same_call(call: Doors, provider: StandIn) -> None:
    router = fallen(provider)
    provider.fault("status", status=429, account="east")
    made = call(router, "video_generation", prompt="x", model="pro")
    assert [a.deployment for a in made.routing.attempts] == ["east-1", "west-1"]


def test_a_fallback_serves_where_the_group_is_full(call: Doors, clock: FakeClock) -> None:
    provider = StandIn(accounts={"sk-east": "east", "sk-west": "west"}, job_seconds=60, clock=clock)
    router = serving(
        provider,
        deployment("east-1", model_name="pro", max_parallel_jobs=1),
        deployment("west-1", max_parallel_jobs=1),
        clock=clock,
        settings={"fallbacks": {"pro": ["sora-2"]}},
    )
    made = [call(router, "video_generation", prompt="x", model="pro") for _ in range(2)]
    assert [one.routing.deployment for one in made] == ["east-1", "west-1"]
    with pytest.raises(CapacityError):
        call(router, "video_generation", prompt="x", model="pro")
    with pytest.raises(CapacityError):
        call(router, "video_generation", prompt="x", model="pro", fallbacks=False)


def test_the_caller_is_told_that_a_fallback_served(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    usual = call(router, "video_generation", prompt="x", model="pro")
    assert usual.routing.warnings == ()
    throttle(router, "east")
    made = call(router, "video_generation", prompt="x", model="pro")
    (warning,) = made.routing.warnings
    assert "pro" in warning
    assert "sora-2" in warning
    named = call(router, "video_generation", prompt="x", model="sora-2")
    assert named.routing.warnings == ()


def test_a_callers_error_is_no_reason_to_fall_back(call: Doors, provider: StandIn) -> None:
    router = fallen(provider)
    for status in (400, 403, 409, 413, 422):
        provider.fault("status", operation="generation", account="east", status=status)
        with pytest.raises(RouterError) as caught:
            call(router, "video_generation", prompt="x", model="pro")
        assert [a.deployment for a in caught.value.attempts] == ["east-1"]
    assert {request.account for request in provider.requests} == {"east"}


def test_without_fallbacks_a_call_stays_in_its_group(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    throttle(router, "east")
    with pytest.raises(NoDeploymentAvailableError) as caught:
        call(router, "video_generation", prompt="x", model="pro", fallbacks=False)
    assert caught.value.reasons.keys() == {"east-1"}
    assert provider.requests == []
    with (
        pytest.raises(NoDeploymentAvailableError),
        router.pick("generation", model="pro", fallbacks=False),
    ):
        pass


def test_fallbacks_are_for_generations_alone(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    throttle(router, "east", "create_character")
    with pytest.raises(NoDeploymentAvailableError):
        call(router, "video_create_character", name="Luna", video=CLIP, model="pro")
    with pytest.raises(NoDeploymentAvailableError):
        call(router, "video_edit", prompt="x", video=CLIP, model="pro")


def test_a_generation_with_a_character_stays_with_its_owner(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(
        provider,
        deployment("east-1", model_name="pro"),
        deployment("west-1"),
        deployment("east-2", "east"),
        clock=clock,
        settings={"fallbacks": {"pro": ["sora-2"]}},
    )
    luna = call(router, "video_create_character", name="Luna", video=CLIP, model="pro")
    assert account_of(router, luna.id) == "east"
    with router.pick("generation", model="pro", characters=[luna.id]) as attempt:
        attempt.failed(429, {"retry-after": "100"})
    told = {"prompt": "x", "model": "pro", "characters": [luna]}
    made = call(router, "video_generation", **told)
    assert made.routing.deployment == "east-2"  # a fallback of the owner's
    router.drain("east-2")
    with router.pick("generation", model="sora-2", characters=[luna.id]) as attempt:
        assert attempt.deployment == "east-2"
        attempt.failed(429, {"retry-after": "100"})
    with pytest.raises(NoDeploymentAvailableError):
        call(router, "video_generation", **told)


def test_among_several_groups_only_others_than_those_are_fallbacks(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    groups = {"target_model_names": ["pro", "sora-2"]}
    assert served(call, router, 40, **groups) == {"east-1", "west-1"}
    throttle(router, "east")
    throttle(router, "west")
    assert served(call, router, **groups) == {"north-1"}


def test_a_panic_is_for_when_no_fallback_is_left(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    fail(router, "east")
    assert served(call, router, model="pro") == {"west-1"}
    throttle(router, "west")
    throttle(router, "north")
    clock.advance(1)
    assert served(call, router, model="pro") == {"east-1"}


def test_a_group_does_not_fall_back_on_itself(provider: StandIn) -> None:
    with pytest.raises(ConfigError, match="fallbacks"):
        serving(provider, deployment("east-1"), settings={"fallbacks": {"sora-2": ["sora-2"]}})


# Waiting for an owner


def test_an_owners_submit_tells_that_it_waits(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    told: list[Any] = []
    router = serving(provider, deployment("east-1"), clock=clock, on_event=told.append)
    video = call(router, "video_generation", prompt="x").id
    throttle(router, "east")
    with pytest.raises(NoDeploymentAvailableError) as caught:
        call(router, "video_remix", video_id=video, prompt="y", max_wait=99)
    assert caught.value.retry_after == pytest.approx(100)
    assert clock.passed == 0
    assert call(router, "video_remix", video_id=video, prompt="y", max_wait=101).status == "queued"
    assert clock.passed == pytest.approx(100)
    (waiting,) = [event for event in told if isinstance(event, events.Waiting)]
    assert waiting.seconds == pytest.approx(100)


def test_a_submit_that_is_bound_to_nobody_waits_for_nobody(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, deployment("east-1"), clock=clock)
    throttle(router, "east")
    with pytest.raises(NoDeploymentAvailableError):
        call(router, "video_generation", prompt="x", max_wait=200)
    assert clock.passed == 0


def test_of_two_owners_the_one_that_is_well_serves(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, deployment("east-1"), deployment("east-2"), clock=clock)
    video = call(router, "video_generation", prompt="x").id
    router.drain("east-2")  # a follow-up goes there all the same
    seen = {call(router, "video_edit", video_id=video, prompt="y").routing.deployment}
    while len(seen) < 2:
        seen.add(call(router, "video_edit", video_id=video, prompt="y").routing.deployment)
    fail(router, "east")  # new work, which is for east-1 alone
    for _ in range(10):
        made = call(router, "video_edit", video_id=video, prompt="y")
        assert made.routing.deployment == "east-2"


# Jobs that begin to fail, and whoever comes back


def test_where_a_job_failed_the_next_go_one_at_a_time() -> None:
    jobs = Jobs("a", "b", "c")
    jobs.known(a=40, b=40, c=40)
    before = {account: jobs.start(account, 2) for account in "abc"}
    jobs.clock.advance(20)
    jobs.see(jobs.start("a"), "failed")
    assert 0 < jobs.next(400)["a"] <= (0.25 + share_bound(0.25, 400)) * 400
    tested = jobs.start("a")
    assert jobs.next(100)["a"] == 0
    jobs.see(before["a"], "completed")  # it was accepted when all was well
    assert jobs.next(100)["a"] == 0
    jobs.see(tested, "completed")
    assert jobs.next(100)["a"] > 50


def test_jobs_that_were_accepted_before_it_went_wrong_speak_for_nobody() -> None:
    jobs = Jobs("a", "b")
    jobs.known(a=40, b=40)
    before = jobs.start("a", 3)
    jobs.clock.advance(20)
    for one in before:
        assert verdicts(jobs.router)["a-1"] != "ejected"
        jobs.see(jobs.start("a"), "failed")
        jobs.see([one], "completed")
    assert verdicts(jobs.router)["a-1"] == "ejected"


def test_who_fails_is_asked_where_nobody_else_is_left() -> None:
    jobs = Jobs("a")
    jobs.known(a=40)
    jobs.see(jobs.start("a"), "failed")
    jobs.start("a")
    assert jobs.next() == {"a": 40}


@pytest.mark.parametrize("size", [2, 4, 8])
def test_whoever_comes_back_gets_little_more_than_its_part_though_it_is_idle(size: int) -> None:
    members = [candidate(f"d{n}", latency=1.0) for n in range(size)]
    for one in members[1:]:
        one.load.submitting = 5
        one.load.enter(GENERATION)
    health_of(members[0]).returned(SUBMITS, NOW - 59)
    share = Worker(members, "lowest-completion").shares(4000)["d0"] / 4000
    assert share <= 1.25 / size + share_bound(1.25 / size, 4000) + EXPLORED
    assert share >= 0.5 / size


# Retirement


def retiring(
    provider: StandIn, clock: FakeClock, *others: dict[str, Any], days: int = 3, **parts: Any
) -> Router:
    """A deployment that retires as a day begins, so many days from the clock's own."""
    today = datetime.datetime.fromtimestamp(clock.time(), datetime.UTC).date()
    ends = today + datetime.timedelta(days=days)
    old = deployment("east-old", retires_on=str(ends))
    return serving(provider, old, *others, clock=clock, **parts)


def until_midnight(clock: FakeClock) -> float:
    return DAY - clock.time() % DAY


def test_in_its_last_day_a_deployment_gets_no_new_work(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = retiring(provider, clock, deployment("west-1"))
    clock.advance(until_midnight(clock) + DAY - 1)
    assert served(call, router, 40) == {"east-old", "west-1"}
    clock.advance(1)
    assert served(call, router, 40) == {"west-1"}
    clock.advance(30 * DAY)
    assert served(call, router, 40) == {"west-1"}


@pytest.mark.parametrize("days_later", [2.5, 4, 40])
def test_what_it_owns_it_goes_on_serving(
    call: Doors, provider: StandIn, clock: FakeClock, days_later: float
) -> None:
    router = retiring(provider, clock, deployment("west-1"))
    video = call(router, "video_generation", prompt="x", account="east").id
    luna = call(router, "video_create_character", name="L", video=CLIP, account="east")
    clock.advance(until_midnight(clock) + (days_later - 1) * DAY)
    assert call(router, "video_status", video).done
    assert call(router, "video_content", video)
    assert call(router, "video_get_character", luna.id).id == luna.id
    for follow_up in (
        call(router, "video_edit", video_id=video, prompt="y"),
        call(router, "video_remix", video_id=video, prompt="y"),
        call(router, "video_extension", video_id=video, prompt="y", seconds=4),
        call(router, "video_generation", prompt="y", characters=[luna]),
    ):
        assert follow_up.routing.deployment == "east-old"


def test_where_all_are_retired_nobody_is_asked(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = retiring(provider, clock, days=1)
    with pytest.raises(NoDeploymentAvailableError) as caught:
        call(router, "video_generation", prompt="x")
    assert "retires" in caught.value.reasons["east-old"]
    assert provider.requests == []


def test_a_fallback_takes_over_from_who_retires(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    new = deployment("west-new", model_name="next")
    settings = {"fallbacks": {"sora-2": ["next"]}}
    router = retiring(provider, clock, new, days=2, settings=settings)
    assert served(call, router, model="sora-2") == {"east-old"}
    clock.advance(until_midnight(clock))
    assert served(call, router, model="sora-2") == {"west-new"}


def test_whoever_retires_is_drained_in_what_explain_tells(
    provider: StandIn, clock: FakeClock
) -> None:
    router = retiring(provider, clock, deployment("west-1"), days=1)
    assert verdicts(router) == {"east-old": "drained", "west-1": "picked"}


# explain


def test_each_candidate_is_told_with_what_was_known_of_it(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(
        provider,
        deployment("east-1", cost_per_second=0.25),
        deployment("west-1"),
        clock=clock,
    )
    for account, lasts in (("east", 40), ("west", 80)):
        video = call(router, "video_generation", prompt="x", account=account)
        clock.advance(lasts)
        router.observe(video.id, "completed")
    running = call(router, "video_generation", prompt="x", account="west")
    explanation = router.explain(seconds=8)
    assert explanation.picked == "east-1"
    facts = {c.deployment: c.facts for c in explanation.candidates}
    east, west = facts["east-1"], facts["west-1"]
    assert (east["pace"], west["pace"]) == (pytest.approx(10), pytest.approx(20))
    assert (east["running"], west["running"]) == (0, 1)
    assert east["score"] < west["score"]
    assert (east["cost"], west["cost"]) == (2.0, None)
    assert running.routing.deployment == "west-1"


def test_every_loser_is_told_why(call: Doors, clock: FakeClock) -> None:
    accounts = ("well", "slow", "out", "drained", "full", "often", "weightless", "later", "other")
    provider = StandIn(accounts={f"sk-{n}": n for n in accounts}, job_seconds=600, clock=clock)
    special: dict[str, dict[str, Any]] = {
        "full": {"max_parallel_jobs": 1},
        "often": {"rpm": 1},
        "weightless": {"weight": 0},
        "later": {"order": 2},
        "other": {"model_name": "other"},
    }
    told = [deployment(name, **special.get(name, {})) for name in accounts]
    reader = deployment("reader", "well", operations=["status"])
    router = serving(provider, *told, reader, clock=clock)
    for name, lasts in (("well", 40), ("slow", 400)):
        video = call(router, "video_generation", prompt="x", account=name, model="sora-2")
        clock.advance(lasts)
        router.observe(video.id, "completed")
    for name in ("full", "often"):
        call(router, "video_generation", prompt="x", account=name, model="sora-2")
    throttle(router, "out")
    router.drain("drained")

    explained = router.explain(model="sora-2").candidates
    expected = {
        "well": ("picked", "best"),
        "slow": ("lost", "score"),
        "out": ("ejected", "429"),
        "drained": ("drained", "operator"),
        "full": ("full", "jobs"),
        "often": ("rpm", "60 seconds"),
        "weightless": ("drained", "weight"),
        "later": ("tier", "order"),
        "other": ("not-named", "other"),
        "reader": ("unsupported", "generation"),
    }
    assert {c.deployment: c.verdict for c in explained} == {n: v for n, (v, _) in expected.items()}
    for one in explained:
        assert expected[one.deployment][1] in one.reason


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asking_changes_no_pick(provider: StandIn, strategy: str) -> None:
    def picks(*, asked: bool) -> list[str]:
        told = [deployment(f"{n}-{i}") for n in ("east", "west") for i in range(3)]
        router = serving(
            provider,
            *told,
            clock=FakeClock(),
            settings={"strategy": strategy},
            rng=random.Random(3),
        )
        found = []
        for _ in range(30):
            for _ in range(3 if asked else 0):
                assert router.explain(seconds=8).picked
                router.statistics()
            with router.pick("generation") as attempt:
                found.append(attempt.deployment)
                attempt.failed(400)
        return found

    assert picks(asked=True) == picks(asked=False)
    assert provider.requests == []


def test_a_trial_is_told_and_not_begun_by_asking(provider: StandIn, clock: FakeClock) -> None:
    router = serving(provider, deployment("east-1"), deployment("west-1"), clock=clock)
    fail(router, "east")
    clock.advance(6)
    for _ in range(3):
        (east, west) = router.explain().candidates
        assert (east.verdict, west.verdict) == ("picked", "lost")
        assert "trial" in east.reason
        assert east.facts["on_trial"]
    with router.pick("generation") as attempt:
        assert attempt.deployment == "east-1"
        (east, west) = router.explain().candidates
        attempt.failed(400)


def test_a_panic_is_told(provider: StandIn, clock: FakeClock) -> None:
    router = serving(provider, deployment("east-1"), deployment("west-1"), clock=clock)
    fail(router, "east")
    throttle(router, "west")
    told = {c.deployment: c for c in router.explain().candidates}
    assert (told["east-1"].verdict, told["west-1"].verdict) == ("picked", "ejected")
    assert "everybody is out" in told["east-1"].reason


def test_a_fallback_is_a_later_tier_to_explain(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = fallen(provider, clock=clock)
    before = {"east-1": "picked", "west-1": "tier", "north-1": "tier"}
    assert verdicts(router, model="pro") == before
    throttle(router, "east")
    after = {"east-1": "ejected", "west-1": "picked", "north-1": "tier"}
    assert verdicts(router, model="pro") == after
    alone = {"east-1": "ejected", "west-1": "not-named", "north-1": "not-named"}
    assert verdicts(router, model="pro", fallbacks=False) == alone
