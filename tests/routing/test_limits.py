"""Limits on deployments and accounts, through both doors: over one worker, and over a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import httpx
import pytest
from routing_parts import CLIP, Doors, FakeClock, deployment
from shared_parts import KEYS, in_process
from sharing_parts import MEETINGS, Dated, Fleet

from router import (
    AmbiguousSubmitError,
    CapacityError,
    DeadlineExceededError,
    NotFoundError,
    Router,
    RouterError,
)
from router.state import News, Picture, Store, Turn
from router.testing import StandIn

JOB_SECONDS = 10.0


@pytest.fixture
def provider(clock: FakeClock) -> StandIn:
    """One whose jobs take ten seconds of the fake clock."""
    return StandIn(accounts=KEYS, seed=7, clock=clock, job_seconds=JOB_SECONDS)


@pytest.fixture(params=["alone", *MEETINGS])
def fleet(request: pytest.FixtureRequest, provider: StandIn, clock: FakeClock) -> Iterator[Fleet]:
    made = Fleet(request.param, provider, clock)
    yield made
    for router in made.routers:
        router.close()
    if isinstance(made.store, Dated):
        made.store.close()


def generates(call: Doors, router: Router, **more: Any) -> Any:
    return call(router, "video_generation", prompt="x", **more)


def refused(call: Doors, fleet: Fleet, router: Router, **more: Any) -> CapacityError:
    """A generation for which nobody has room: nothing is sent but reads."""
    submits = len(fleet.provider.accepted)
    with pytest.raises(CapacityError) as caught:
        generates(call, router, **more)
    assert len(fleet.provider.accepted) == submits
    assert caught.value.accepted == "no"
    assert caught.value.retry_after > 0
    return caught.value


EAST, ACCOUNT = "jobs:deployment:east-1", "jobs:account:east"


# Running jobs -----------------------------------------------------------------------------------


def test_a_deployments_cap_on_jobs_holds_over_all_workers(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=2))
    for router in (one, other):
        generates(call, router)
    error = refused(call, fleet, one)
    refused(call, fleet, other)
    assert "east-1" in str(error)
    assert "deployment" in str(error)
    assert fleet.held(EAST) == [2]


def test_an_accounts_cap_on_jobs_holds_over_its_deployments(call: Doors, fleet: Fleet) -> None:
    accounts = {"east": {"max_parallel_jobs": 2}}
    one, other = fleet(deployment("east-1"), deployment("east-2"), accounts=accounts)
    for router in (one, other):
        generates(call, router)
    assert "account" in str(refused(call, fleet, one))
    assert fleet.held(ACCOUNT, EAST) == [2, 0]


def test_the_narrower_of_both_caps_counts(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(
        deployment("east-1", max_parallel_jobs=1),
        deployment("east-2", max_parallel_jobs=5),
        accounts={"east": {"max_parallel_jobs": 3}},
    )
    for router in (one, other, one):
        generates(call, router)
    refused(call, fleet, other)
    assert fleet.held(ACCOUNT)[0] == 3
    assert fleet.held(EAST)[0] <= 1


def test_what_has_no_room_is_passed_by(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1), deployment("west-1"))
    served = [generates(call, router).routing.account for router in (one, other) * 5]
    assert served.count("east") == 1


def test_a_lower_tier_serves_while_the_upper_one_is_full(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=2), deployment("west-1", order=2))
    made = [generates(call, router) for router in (one, other, one, other)]
    assert [video.routing.account for video in made] == ["east", "east", "west", "west"]
    fleet.clock.advance(JOB_SECONDS)
    call(other, "video_status", made[0].id)
    fleet.meet()
    served = [generates(call, router).routing.account for router in (one, other)]
    assert served == ["east", "west"]


@pytest.mark.parametrize("operation", ["video_edit", "video_extension", "video_remix"])
def test_follow_ups_that_start_a_job_hold_a_slot_too(
    call: Doors, fleet: Fleet, operation: str
) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    made = call(one, "video_wait", generates(call, one).id)
    fleet.meet()
    more = {"seconds": 4} if operation == "video_extension" else {}
    call(other, operation, video_id=made.id, prompt="x", **more)
    assert fleet.held(EAST) == [1]
    with pytest.raises(CapacityError):
        call(one, operation, video_id=made.id, prompt="x", **more)


def test_a_stored_character_is_no_job(call: Doors, fleet: Fleet) -> None:
    one, _ = fleet(deployment("east-1", max_parallel_jobs=1))
    for _ in range(3):
        call(one, "video_create_character", name="c", video=CLIP)
    assert fleet.held(EAST) == [0]


# Giving back ------------------------------------------------------------------------------------


def ends_by_status(call: Doors, fleet: Fleet, router: Router, made: Any) -> None:
    fleet.clock.advance(JOB_SECONDS)
    assert call(router, "video_status", made.id).done


def ends_by_webhook(call: Doors, fleet: Fleet, router: Router, made: Any) -> None:
    router.observe(made.id, "completed")


def fails(call: Doors, fleet: Fleet, router: Router, made: Any) -> None:
    fleet.clock.advance(JOB_SECONDS)
    assert call(router, "video_status", made.id).failed


def is_waited_for(call: Doors, fleet: Fleet, router: Router, made: Any) -> None:
    assert call(router, "video_wait", made.id).done


@pytest.mark.parametrize("ends", [ends_by_status, ends_by_webhook, fails, is_waited_for])
def test_a_job_that_any_worker_sees_end_gives_its_slot_back(
    call: Doors, fleet: Fleet, ends: Any
) -> None:
    accounts = {"east": {"max_parallel_jobs": 1}}
    one, other = fleet(deployment("east-1", max_parallel_jobs=1), accounts=accounts)
    if ends is fails:
        fleet.provider.fault("job_fails", code="moderation_blocked", message="no")
    made = generates(call, one)
    refused(call, fleet, other)
    ends(call, fleet, other, made)
    assert fleet.held(EAST, ACCOUNT) == [0, 0]
    generates(call, one)


def test_a_job_seen_running_holds_on_and_one_that_nobody_sees_lapses(
    call: Doors, fleet: Fleet
) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1, job_ttl=100.0))
    fleet.provider.fault("never_ends")
    made = generates(call, one)
    for _ in range(3):
        fleet.clock.advance(90)
        call(other, "video_status", made.id)
        assert fleet.held(EAST) == [1]
    fleet.clock.advance(101)
    assert fleet.held(EAST) == [0]


def test_where_there_is_no_room_the_jobs_are_asked_after_first(call: Doors, fleet: Fleet) -> None:
    """Nobody polled: the job has long ended, and its slot is found free."""
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    generates(call, one)
    fleet.clock.advance(JOB_SECONDS)
    fleet.meet()
    generates(call, other)
    asked = [request.operation for request in fleet.provider.requests]
    assert asked == ["generation", "status", "generation"]


def test_a_job_that_the_provider_no_longer_knows_holds_nothing(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    generates(call, one)
    fleet.meet()
    fleet.provider.reset()
    generates(call, other)
    assert fleet.held(EAST) == [1]


def test_a_deleted_job_holds_nothing_once_it_is_asked_after(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    made = generates(call, one)
    fleet.clock.advance(JOB_SECONDS)
    call(one, "video_delete", made.id)
    fleet.meet()
    generates(call, other)


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("status", {"status": 400}),
        ("status", {"status": 401}),
        ("status", {"status": 422}),
        ("status", {"status": 429}),
        ("status", {"status": 501}),
        ("redirect", {"location": "http://elsewhere/"}),
    ],
)
def test_a_clean_refusal_gives_everything_back(
    call: Doors, fleet: Fleet, kind: str, details: dict[str, Any]
) -> None:
    one, _ = fleet(
        deployment("east-1", max_parallel_jobs=1, max_parallel_requests=1),
        accounts={"east": {"max_parallel_jobs": 1}},
    )
    fleet.provider.fault(kind, **details)
    with pytest.raises(RouterError) as caught:
        generates(call, one)
    assert caught.value.accepted == "no"  # type: ignore[attr-defined]
    assert fleet.held(EAST, ACCOUNT, "requests:deployment:east-1") == [0, 0, 0]


def test_a_call_that_goes_on_elsewhere_holds_only_where_it_was_accepted(
    call: Doors, fleet: Fleet
) -> None:
    one, _ = fleet(*[deployment(f"{a}-1", max_parallel_jobs=1) for a in ("east", "west")])
    fleet.provider.fault("status", status=429)
    made = generates(call, one)
    assert len(made.routing.attempts) == 2
    held = fleet.held("jobs:deployment:east-1", "jobs:deployment:west-1")
    assert held == ([1, 0] if made.routing.account == "east" else [0, 1])


@pytest.mark.parametrize("kind", ["reset_mid_body", "garbage", "empty", "truncated"])
def test_an_ambiguous_submit_keeps_its_slot_for_its_job_ttl(
    call: Doors, fleet: Fleet, kind: str
) -> None:
    one, other = fleet(
        deployment("east-1", max_parallel_jobs=1, max_parallel_requests=5, job_ttl=1000.0)
    )
    fleet.provider.fault(kind)
    with pytest.raises(AmbiguousSubmitError):
        generates(call, one)
    assert fleet.held(EAST, "requests:deployment:east-1") == [1, 0]
    fleet.clock.advance(990)
    assert refused(call, fleet, other).retry_after > 0
    fleet.clock.advance(11)
    generates(call, other)


def test_what_cannot_be_written_as_a_request_holds_nothing(call: Doors, fleet: Fleet) -> None:
    one, _ = fleet(deployment("east-1", max_parallel_jobs=1, max_parallel_requests=1))
    with pytest.raises(RouterError):
        generates(call, one, extra_body={"x": {1, 2}})
    assert fleet.held(EAST, "requests:deployment:east-1") == [0, 0]


# Requests ---------------------------------------------------------------------------------------


def test_submits_a_minute_are_exact_and_the_refusal_says_when(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", rpm=3))
    for router in (one, other, one):
        generates(call, router)
        fleet.clock.advance(5)
    error = refused(call, fleet, other)
    assert error.retry_after == pytest.approx(45, abs=0.5)
    call(one, "video_list")  # a read is none
    fleet.clock.advance(error.retry_after)
    generates(call, other)
    assert refused(call, fleet, one).retry_after == pytest.approx(5, abs=0.5)


def test_reads_a_minute_count_apart(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1"), accounts={"east": {"read_rpm": 2}})
    made = generates(call, one)
    for router in (one, other):
        call(router, "video_status", made.id)
    with pytest.raises(CapacityError) as caught:
        call(one, "video_status", made.id)
    assert caught.value.retry_after == pytest.approx(60, abs=0.5)
    generates(call, other)
    fleet.clock.advance(caught.value.retry_after)
    assert call(one, "video_status", made.id).done


def test_further_attempts_count(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(*[deployment(f"{a}-1", rpm=1) for a in ("east", "west")])
    fleet.provider.fault("redirect", location="http://elsewhere/")
    made = generates(call, one)
    assert len(made.routing.attempts) == 2
    for account in ("east", "west"):
        refused(call, fleet, other, account=account)


def test_exchanges_in_flight_are_limited_over_all_workers(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_requests=2))
    made = generates(call, one)
    with one.pick("status", video_id=made.id), other.pick("status", video_id=made.id):
        assert fleet.held("requests:deployment:east-1") == [2]
        with pytest.raises(CapacityError) as caught:
            call(other, "video_status", made.id)
        assert 0 < caught.value.retry_after <= 5
        refused(call, fleet, one)
    fleet.meet()
    call(other, "video_status", made.id)
    assert fleet.held("requests:deployment:east-1") == [0]


def test_reads_of_all_kinds_give_back_what_they_held(call: Doors, fleet: Fleet) -> None:
    one, _ = fleet(deployment("east-1", max_parallel_requests=1))
    made = generates(call, one)
    character = call(one, "video_create_character", name="c", video=CLIP)
    fleet.clock.advance(JOB_SECONDS)
    call(one, "video_status", made.id)
    call(one, "video_content", made.id)
    call(one, "video_get_character", character.id)
    call(one, "video_list")
    with pytest.raises(NotFoundError):
        call(one, "video_status", "video_nobody_knows", account="east")
    call(one, "video_delete", made.id)
    assert fleet.held("requests:deployment:east-1") == [0]


# Waiting ----------------------------------------------------------------------------------------


def test_who_may_wait_gets_the_slot_when_it_is_free(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1), max_wait=60)
    generates(call, one)
    fleet.meet()
    made = generates(call, other)
    # The job takes ten seconds; somebody asks after it every two.
    assert JOB_SECONDS <= fleet.clock.passed <= JOB_SECONDS + 3
    assert made.routing.seconds == pytest.approx(fleet.clock.passed)
    assert max(fleet.clock.slept) <= 0.25


def test_the_calls_own_wait_beats_the_setting(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1), max_wait=60)
    generates(call, one)
    refused(call, fleet, other, max_wait=0)
    assert fleet.clock.passed == 0
    refused(call, fleet, other, max_wait=3)
    assert fleet.clock.passed == pytest.approx(3)


@pytest.mark.parametrize("ending", ["no room", "the deadline"])
def test_who_gives_up_waiting_stands_in_nobodys_way(call: Doors, fleet: Fleet, ending: str) -> None:
    """Not even for the moment after which a dead one is missed."""
    one, other = fleet(deployment("east-1", max_parallel_jobs=1), max_wait=60)
    fleet.provider.fault("never_ends")
    made = generates(call, one)
    limit = {"max_wait": 3} if ending == "no room" else {"deadline": 3}
    with pytest.raises((CapacityError, DeadlineExceededError)):
        generates(call, other, **limit)
    fleet.meet()
    one.observe(made.id, "completed")
    fleet.meet()
    generates(call, one, max_wait=0)


def test_a_wait_for_a_window_ends_when_it_opens(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", rpm=1), max_wait=100)
    generates(call, one)
    fleet.clock.advance(52)
    generates(call, other)
    # A Redis has a time of its own, in which this test takes a moment.
    assert 58 < fleet.clock.passed <= 60.5


def test_the_deadline_bounds_the_wait(call: Doors, fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1), max_wait=60)
    fleet.provider.fault("never_ends")
    generates(call, one)
    with pytest.raises((CapacityError, DeadlineExceededError)) as caught:
        generates(call, other, deadline=4)
    assert caught.value.accepted == "no"
    assert fleet.clock.passed == pytest.approx(4, abs=0.3)


def test_trying_again_when_the_error_says_so_succeeds(call: Doors, fleet: Fleet) -> None:
    """The usual time of a job is known from the first one."""
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    call(one, "video_wait", generates(call, one).id)
    for _ in range(5):
        generates(call, one)
        fleet.meet()
        fleet.clock.advance(2)
        error = refused(call, fleet, other)
        assert error.retry_after <= 2 * JOB_SECONDS
        fleet.clock.advance(error.retry_after)
        generates(call, other)
        fleet.meet()
        fleet.clock.advance(JOB_SECONDS + 2)


# Calls that the caller sends --------------------------------------------------------------------


def test_a_picked_submit_ties_its_slot_to_the_job(fleet: Fleet) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    with one.pick("generation") as attempt:
        assert fleet.held(EAST) == [1]
        with pytest.raises(CapacityError), other.pick("generation"):
            pass
        ours = attempt.accepted("video_native")
    assert fleet.held(EAST) == [1]
    other.observe(ours, "failed")
    assert fleet.held(EAST) == [0]


def test_a_picked_submit_that_failed_cleanly_gives_back(fleet: Fleet) -> None:
    one, _ = fleet(deployment("east-1", max_parallel_jobs=1))
    with one.pick("generation") as attempt:
        attempt.failed(400)
    assert fleet.held(EAST) == [0]


@pytest.mark.parametrize("how", ["says nothing", "raises", "no answer", "a 500"])
def test_a_picked_submit_of_which_nobody_knows_keeps_its_slot(fleet: Fleet, how: str) -> None:
    one, _ = fleet(deployment("east-1", max_parallel_jobs=1, max_parallel_requests=4))
    raises = how == "raises"
    with (
        pytest.raises(ZeroDivisionError) if raises else nullcontext(),
        one.pick("generation") as it,
    ):
        if raises:
            raise ZeroDivisionError
        if how == "no answer":
            it.failed(None)
        if how == "a 500":
            it.failed(500)
    assert fleet.held(EAST, "requests:deployment:east-1") == [1, 0]


# Cancellation -----------------------------------------------------------------------------------


class Hangs(httpx.AsyncBaseTransport):
    """Takes the request in and never answers."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async for _ in request.stream:  # type: ignore[union-attr]
            pass
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(("method", "kept"), [("avideo_generation", 1), ("avideo_status", 0)])
def test_who_is_cancelled_gives_back_unless_a_job_may_run(
    clock: FakeClock, method: str, kept: int
) -> None:
    async def main() -> None:
        hangs = Hangs()
        data = {"deployments": [deployment("east-1", max_parallel_jobs=5, max_parallel_requests=5)]}
        router = Router.from_dict(data, environ={}, async_http_client=hangs)
        arguments = {"prompt": "x"} if kept else {"video_id": "video_1", "account": "east"}
        task = asyncio.create_task(getattr(router, method)(**arguments))
        await hangs.reached.wait()
        resources = (EAST, "requests:deployment:east-1")
        held = router._engine.leasing.picture(resources).held
        assert list(held.values()) == [kept, 1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held = router._engine.leasing.picture(resources).held
        assert list(held.values()) == [kept, 0]
        await router.aclose()

    asyncio.run(main())


def test_who_is_cancelled_while_waiting_holds_no_slot_and_no_place(
    provider: StandIn, clock: FakeClock
) -> None:
    class Yields(FakeClock):
        waits = asyncio.Event()

        async def asleep(self, seconds: float) -> None:
            self.sleep(seconds)
            self.waits.set()
            await asyncio.sleep(0)

    async def main() -> None:
        time = Yields()
        data = {"deployments": [deployment("east-1", max_parallel_jobs=1)]}
        router = in_process(provider, data, clock=time)
        made = await router.avideo_generation(prompt="x")
        waits = asyncio.create_task(router.avideo_generation(prompt="x", max_wait=1000))
        await time.waits.wait()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        router.observe(made.id, "completed")
        await router.avideo_generation(prompt="x")
        assert len(provider.accepted) == 2
        await router.aclose()

    asyncio.run(main())


# Without the store ------------------------------------------------------------------------------


class Goes:
    """A store that is away as long as it is told to be."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False

    def turn(self, turn: Turn) -> News:
        self._check()
        return self._store.turn(turn)

    def picture(self, resources: tuple[str, ...]) -> Picture:
        self._check()
        return self._store.picture(resources)

    def close(self) -> None:
        self._store.close()

    def _check(self) -> None:
        if self.away:
            raise ConnectionError("gone")


@pytest.mark.parametrize("kind", MEETINGS)
def test_without_its_store_a_worker_takes_its_share_and_registers_it_afterwards(
    call: Doors, provider: StandIn, clock: FakeClock, kind: str
) -> None:
    fleet = Fleet(kind, provider, clock)
    assert fleet.store is not None
    goes = fleet.store = Goes(fleet.store)
    one, other = fleet(deployment("east-1", max_parallel_jobs=4))
    goes.away = True
    for router in (one, other):
        for _ in range(2):
            generates(call, router)
        refused(call, fleet, router)
    assert len(provider.accepted) == 4
    goes.away = False
    refused(call, fleet, one)  # the other has not come back, but what one holds stands
    assert fleet.held(EAST) == [4]
    refused(call, fleet, other)
    assert len(one.jobs()) == 4
    for router in fleet.routers:
        router.close()


@pytest.mark.parametrize("kind", MEETINGS)
def test_without_its_store_a_worker_alone_has_the_whole_limit(
    call: Doors, provider: StandIn, clock: FakeClock, kind: str
) -> None:
    store = Goes(MEETINGS[kind](clock))
    store.away = True
    data = {"deployments": [deployment("east-1", rpm=3)]}
    router = in_process(provider, data, clock=clock, store=store)
    for _ in range(3):
        generates(call, router)
    with pytest.raises(CapacityError) as caught:
        generates(call, router)
    clock.advance(caught.value.retry_after)
    generates(call, router)
    router.close()


@pytest.mark.parametrize("kind", MEETINGS)
def test_a_window_that_was_granted_by_the_store_is_known_while_it_is_away(
    call: Doors, provider: StandIn, clock: FakeClock, kind: str
) -> None:
    store = Goes(MEETINGS[kind](clock))
    data = {"deployments": [deployment("east-1", rpm=2)]}
    router = in_process(provider, data, clock=clock, store=store)
    generates(call, router)
    clock.advance(30)
    generates(call, router)
    store.away = True
    with pytest.raises(CapacityError) as caught:
        generates(call, router)
    assert caught.value.retry_after == pytest.approx(30, abs=0.5)
    clock.advance(caught.value.retry_after)
    generates(call, router)
    router.close()
