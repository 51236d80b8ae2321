"""What events are: frozen, without secrets, and complete enough for an operator."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, get_args

import pytest
from shared_parts import Doors, FakeClock
from telemetry_parts import EVERY_EVENT, Taking, fails, served

from router.errors import CapacityError
from router.events import Attempted, Ejected, Event, JobFinished, Picked, Waiting
from router.testing import StandIn


def of(kind: type[Any], told: list[Event]) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]


def test_every_event_is_frozen() -> None:
    assert {type(event) for event in EVERY_EVENT} == set(get_args(Event))
    for event in EVERY_EVENT:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.at = 0.0  # type: ignore[misc]
        assert not hasattr(event, "__dict__")


def test_an_attempt_tells_where_it_went_and_that_it_was_the_second(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    told: list[Event] = []
    router = served(provider, told.append, clock=clock)
    provider.fault("status", operation="generation", status=429)
    call(router, "video_generation", prompt="a heron")
    picks, attempts = of(Picked, told), of(Attempted, told)
    assert [event.attempt for event in picks] == [1, 2]
    assert [event.attempt for event in attempts] == [1, 2]
    assert [event.succeeded for event in attempts] == [False, True]
    for event in attempts:
        assert (event.provider, event.model) == ("openai", "sora-2")
        assert (event.host, event.port) == ("videos.example", 8443)
        assert event.seconds == pytest.approx(2.0)
    assert attempts[1].at - attempts[0].at == pytest.approx(2.0)


def test_a_submit_whose_fate_is_unknown_has_not_succeeded(call: Doors, provider: StandIn) -> None:
    told: list[Event] = []
    router = served(provider, told.append, "east")
    provider.fault("reset", operation="generation", after=True)
    fails(call, router, "video_generation", prompt="a heron")
    (event,) = of(Attempted, told)
    assert (event.accepted, event.succeeded) == ("maybe", False)


def test_the_end_of_a_job_is_told_once(call: Doors, provider: StandIn) -> None:
    told: list[Event] = []
    router = served(provider, told.append, "east")
    video = call(router, "video_generation", prompt="a heron")
    for _ in range(3):
        call(router, "video_status", video_id=video.id)
    (event,) = of(JobFinished, told)
    assert (event.video_id, event.account, event.status) == (video.id, "east", "completed")


def test_a_call_that_waits_for_room_says_so_once(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    told: list[Event] = []
    quick = Taking(provider, clock, seconds=0.1)
    router = served(
        provider, told.append, "east", clock=clock, transport=quick, max_parallel_jobs=1
    )
    provider.fault("never_ends")
    call(router, "video_generation", prompt="a heron")
    error = fails(
        call, router, "video_generation", prompt="a heron", max_wait=20, metadata={"n": 2}
    )
    assert isinstance(error, CapacityError)
    (event,) = of(Waiting, told)
    assert (event.operation, event.cause, event.metadata) == ("generation", "room", {"n": 2})
    assert 0 < event.seconds <= 20
    assert event.reason


def test_a_read_that_waits_out_a_throttling_says_so(call: Doors, provider: StandIn) -> None:
    told: list[Event] = []
    router = served(provider, told.append, "east")
    video = call(router, "video_generation", prompt="a heron")
    provider.fault("status", operation="status", status=429, headers={"Retry-After": "7"})
    call(router, "video_status", video_id=video.id)
    (event,) = of(Waiting, told)
    assert (event.operation, event.cause) == ("status", "throttled")
    assert event.seconds == pytest.approx(7.0)


# Hooks that do more than listen ------------------------------------------------------------------


class Ends(BaseException):
    """As KeyboardInterrupt and SystemExit are, which no call may swallow."""


class Ending:
    """A hook that ends the process, as it would, at the first event of a kind."""

    def __init__(self, kind: type[Event]) -> None:
        self.kind: type[Event] | None = kind

    def __call__(self, event: Event) -> None:
        if self.kind is not None and isinstance(event, self.kind):
            self.kind = None
            raise Ends


def test_a_hook_that_ends_a_call_before_it_is_sent_keeps_no_slot(
    call: Doors, provider: StandIn
) -> None:
    router = served(provider, Ending(Picked), "east", max_parallel_jobs=1)
    with pytest.raises(Ends):
        call(router, "video_generation", prompt="a heron")
    assert provider.accepted == []
    assert call(router, "video_generation", prompt="a heron").id


def test_a_hook_that_ends_a_call_after_it_was_accepted_loses_no_job(
    call: Doors, provider: StandIn
) -> None:
    provider.fault("never_ends", times=None)
    router = served(provider, Ending(Attempted), "east", max_parallel_jobs=1, cost_per_second=0.1)
    with pytest.raises(Ends):
        call(router, "video_generation", prompt="a heron", seconds=8)
    assert len(router.jobs()) == len(provider.accepted) == 1
    known = router.statistics()["east-1"]
    assert (known["running"], known["in_flight"], known["spent_today"]) == (1, 0, 0.8)
    assert isinstance(fails(call, router, "video_generation", prompt="a heron"), CapacityError)


@pytest.mark.parametrize("kind", [Attempted, Ejected])
def test_a_hook_that_ends_a_call_that_was_refused_gives_its_slot_back(
    call: Doors, provider: StandIn, clock: FakeClock, kind: type[Event]
) -> None:
    router = served(provider, Ending(kind), "east", clock=clock, max_parallel_jobs=1)
    provider.fault("status", operation="generation", status=429, headers={"retry-after": "1"})
    with pytest.raises(Ends):
        call(router, "video_generation", prompt="a heron")
    clock.advance(2)
    assert call(router, "video_generation", prompt="a heron").id


def test_a_hook_that_ends_a_read_gives_its_place_back(call: Doors, provider: StandIn) -> None:
    hook = Ending(Attempted)
    hook.kind = None
    router = served(provider, hook, "east", max_parallel_requests=1)
    video = call(router, "video_generation", prompt="a heron")
    hook.kind = Attempted
    with pytest.raises(Ends):
        call(router, "video_status", video.id)
    assert call(router, "video_status", video.id).done


def test_a_hook_that_ends_an_own_calls_report_loses_no_job(provider: StandIn) -> None:
    with served(provider, Ending(Attempted), "east", max_parallel_jobs=1) as router:
        with pytest.raises(Ends), router.pick("generation") as attempt:
            attempt.accepted("video_1")
        (job,) = router.jobs()
        (hold,) = router.overview().holds
        assert job.native_id == "video_1"
        assert hold.job is not None


def test_who_drains_what_is_ejected_is_told_of_each_once(
    call: Doors, provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Ejected] = []

    def drain(event: Event) -> None:
        if isinstance(event, Ejected):
            told.append(event)
            clock.advance(0.001)
            router.drain(event.deployment)

    router = served(provider, drain, clock=clock)
    provider.fault("status", operation="generation", status=429)
    with caplog.at_level(logging.WARNING, "router"):
        call(router, "video_generation", prompt="a heron")
    assert [event.cause for event in told] == ["throttled", "drained"]
    lines = [record.getMessage() for record in caplog.records if record.name == "router"]
    assert ["throttled" in line for line in lines] == [True, False], "what came first stands first"


def test_a_longer_drain_is_one_anew(provider: StandIn) -> None:
    told: list[Event] = []
    with served(provider, told.append) as router:
        for seconds in (60, 30, 60.5, 90):
            router.drain("east-1", seconds)
    assert [round(event.seconds) for event in of(Ejected, told)] == [60, 90]
