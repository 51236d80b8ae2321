"""What routers tell of times, limits and the fleet: statistics, explain, overview, probe."""

from __future__ import annotations

import dataclasses

import pytest
from routing_parts import Doors, FakeClock, deployment, serving

from router import CapacityError, InvalidIdError, Router, StateUnavailableError
from router.state import MemoryStore, News, Picture, Turn
from router.testing import StandIn


def verdicts(router: Router) -> dict[str, str]:
    return {one.deployment: one.verdict for one in router.explain().candidates}


def test_statistics_tell_percentiles_and_job_time(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, deployment("east-1"), clock=clock)
    for _ in range(3):
        call(router, "video_wait", call(router, "video_generation", prompt="x", seconds=4).id)
    known = router.statistics()["east-1"]
    times = known["latency"]["generation"]
    assert times["count"] == 3
    assert 0 < times["p50"] <= times["p95"]
    assert known["job_time"]["generation"]["count"] == 3


@pytest.mark.parametrize(
    ("limit", "verdict", "reason"),
    [
        ({"max_parallel_jobs": 1}, "full", "all 1 of its running jobs are taken"),
        ({"rpm": 1}, "rpm", "all 1 of its submits of any 60 seconds are used"),
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with a store"])
def test_who_has_no_room_is_explained_and_the_next_is_picked(
    call: Doors,
    provider: StandIn,
    clock: FakeClock,
    limit: dict[str, int],
    verdict: str,
    reason: str,
    shared: bool,
) -> None:
    provider.fault("never_ends", times=None)
    store = MemoryStore(clock.time) if shared else None
    router = serving(
        provider,
        deployment("east-1", **limit),
        deployment("west-1", order=2, **limit),
        deployment("north-1", order=3),
        clock=clock,
        store=store,
    )
    assert verdicts(router) == {"east-1": "picked", "west-1": "tier", "north-1": "tier"}
    call(router, "video_generation", prompt="x")
    assert verdicts(router) == {"east-1": verdict, "west-1": "picked", "north-1": "tier"}
    assert router.explain().candidates[0].reason == reason
    call(router, "video_generation", prompt="x")
    assert verdicts(router) == {"east-1": verdict, "west-1": verdict, "north-1": "picked"}
    clock.advance(61)
    if verdict == "rpm":
        assert router.explain().picked == "east-1"


def test_where_nobody_has_room_nobody_is_picked(call: Doors, provider: StandIn) -> None:
    provider.fault("never_ends", times=None)
    router = serving(provider, deployment("east-1", max_parallel_jobs=1))
    call(router, "video_generation", prompt="x")
    assert router.explain().picked is None
    with pytest.raises(CapacityError):
        call(router, "video_generation", prompt="x")
    assert router.explain("status").picked == "east-1"


def test_an_overview_is_the_fleets(call: Doors, provider: StandIn, clock: FakeClock) -> None:
    provider.fault("never_ends", times=None)
    store = MemoryStore(clock.time)
    limited = deployment("east-1", max_parallel_jobs=2)
    parts = {"clock": clock, "store": store}
    one, other = (serving(provider, limited, deployment("west-1"), **parts) for _ in range(2))
    onlooker = serving(provider, limited, deployment("west-1"), onlooker=True, **parts)
    video = call(one, "video_generation", prompt="x", account="east")
    call(other, "video_generation", prompt="x", account="west")
    other.drain("west-1", 60)
    one.share()
    other.share()
    seen = onlooker.overview()
    assert seen.shared
    assert len(seen.workers) == 2
    east, west = seen.deployments
    assert (east.running, [(r.kind, r.taken, r.limit) for r in east.rooms]) == (1, [("jobs", 1, 2)])
    assert (west.running, west.rooms) == (1, ())
    assert [(out.scope, out.cause, out.seconds) for out in west.out] == [("submits", "drained", 60)]
    assert {job.deployment: job.running for job in seen.jobs} == {"east-1": True, "west-1": True}
    assert [hold.job for hold in seen.holds] == [video.id]
    assert seen.changes[0].deployment == "west-1"


def test_a_job_that_nobody_sees_any_more_is_not_counted_as_running(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    provider.fault("never_ends", times=None)
    router = serving(provider, deployment("east-1"), clock=clock)
    call(router, "video_generation", prompt="x")
    assert router.overview().deployments[0].running == 1
    clock.advance(901)
    assert router.overview().deployments[0].running == 0


def test_what_a_job_holds_can_be_given_back(call: Doors, provider: StandIn) -> None:
    provider.fault("never_ends", times=None)
    router = serving(provider, deployment("east-1", max_parallel_jobs=1))
    video = call(router, "video_generation", prompt="x")
    native = router.describe_id(video.id).copies[0].native_id
    (hold,) = router.holds(video.id)
    assert router.holds(native) == router.holds(hold.holder)
    assert router.holds("another") == ()
    with pytest.raises(InvalidIdError):
        router.holds(video.id[:-1])
    (given_back,) = router.release(video.id)
    assert dataclasses.replace(given_back, seconds=hold.seconds) == hold
    assert router.holds(video.id) == router.release(video.id) == ()
    call(router, "video_generation", prompt="x")


class Away:
    def turn(self, turn: Turn) -> News:
        raise ConnectionError("it is away")

    def picture(self, resources: tuple[str, ...]) -> Picture:
        raise ConnectionError("it is away")

    def close(self) -> None: ...


def test_a_store_that_is_away_is_an_error_of_the_tree(provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"), store=Away())
    for look in (router.overview, lambda: router.holds("x"), lambda: router.release("x")):
        with pytest.raises(StateUnavailableError, match="it is away"):
            look()


def test_a_probe_asks_each_and_learns_nothing(call: Doors, provider: StandIn) -> None:
    router = serving(
        provider,
        deployment("east-1"),
        deployment("west-1", api_key="sk-of-old-times"),
        deployment("north-1", operations=["generation"]),
    )
    east, west, north = call(router, "probe")
    assert (east.operation, east.status, east.trouble) == ("list", 200, None)
    assert (west.status, "sk-of-old-times" in west.trouble) == (401, False)
    assert (north.operation, north.trouble) == (None, None)
    assert not any(known["latency"] for known in router.statistics().values())
    assert provider.accepted == []
