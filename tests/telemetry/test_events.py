"""What events are: frozen, without secrets, and complete enough for an operator."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from shared_parts import Doors, FakeClock
from telemetry_parts import EVERY_EVENT, Taking, fails, served

from router.errors import CapacityError
from router.events import Attempted, Event, JobFinished, Picked, Waiting
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
