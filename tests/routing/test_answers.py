"""Answers and errors as values: what they keep, what they hide, and that they travel."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from routing_parts import CLIP, Doors, FakeClock, deployment, in_process, serving

import router as package
from router import AttemptRecord, Content, Routing, Video, VideoPage, errors
from router.errors import RouterError
from router.events import JobFinished
from router.testing import StandIn

ATTEMPT = AttemptRecord("east-1", "east", 1.5, 500, "server error", "req_1")


# Fields


def answered(call: Doors, provider: StandIn, **fields: Any) -> Any:
    """The answer to a generation, in which the provider said this."""
    router = serving(provider, deployment("east-1"))
    body = {"id": "video_1", "status": "queued", **fields}
    provider.fault("wrong_types", body=body)
    return call(router, "video_generation", prompt="x")


def test_unknown_fields_are_kept(call: Doors, provider: StandIn) -> None:
    video = answered(call, provider, quality="high", usage={"credits": 7})
    assert video.quality == "high"
    assert video.usage == {"credits": 7}
    assert video.model_dump()["usage"] == {"credits": 7}
    assert Video.model_validate_json(video.model_dump_json()).usage == {"credits": 7}


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("progress", "half", None),
        ("progress", 0.5, 0.5),
        ("created_at", "yesterday", None),
        ("created_at", 1_700_000_000.25, 1_700_000_000.25),
        ("completed_at", {"at": 1}, None),
        ("created_at", "nan", None),
        ("completed_at", math.nan, None),
        ("expires_at", math.inf, None),
        pytest.param("created_at", 10**400, None, id="longer than any float"),
        ("progress", "-inf", None),
        ("prompt", ["x"], None),
        ("seconds", 8, "8"),
        ("seconds", ["8"], None),
        ("size", 720, "720"),
        ("model", None, None),
        ("error", "it broke", {"code": None, "message": "it broke"}),
        ("error", ["it broke"], None),
        ("error", {"code": 7, "message": "no"}, {"code": "7", "message": "no"}),
        ("remixed_from_video_id", 5.5, "5.5"),
        ("object", None, "video"),
    ],
)
def test_optional_fields_of_a_wrong_type_do_not_lose_the_answer(
    call: Doors, provider: StandIn, field: str, value: Any, read: Any
) -> None:
    video = answered(call, provider, **{field: value})
    assert video.status == "queued"
    got = getattr(video, field)
    if field == "remixed_from_video_id":
        return  # an id, and so one of ours by now
    assert (got.model_dump() if hasattr(got, "model_dump") else got) == read


@pytest.mark.parametrize(
    ("status", "done", "failed"),
    [
        ("queued", False, False),
        ("in_progress", False, False),
        ("completed", True, False),
        ("failed", False, True),
        ("cancelled", False, True),
        ("canceled", False, True),
        ("expired", False, True),
        ("pondering", False, False),
    ],
)
def test_an_unknown_status_is_neither_done_nor_failed(
    call: Doors, provider: StandIn, status: str, done: bool, failed: bool
) -> None:
    video = answered(call, provider, status=status)
    assert (video.status, video.done, video.failed) == (status, done, failed)


def test_a_character_may_lack_all_but_its_id(call: Doors, provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"))
    provider.fault("wrong_types", body={"id": "char_1", "name": None, "object": "odd"})
    made = call(router, "video_create_character", name="Luna", video=CLIP)
    assert (made.name, made.created_at, made.object) == (None, None, "odd")


# Routing


def test_routing_is_private(call: Doors, provider: StandIn) -> None:
    router = in_process(provider)
    video = call(router, "video_generation", prompt="x", metadata={"tenant": "t-1"})
    character = call(router, "video_create_character", name="L", video=CLIP, account="east")
    page = call(router, "video_list")
    deleted = call(router, "video_delete", call(router, "video_generation", prompt="y"))
    for answer in (video, character, page, deleted):
        assert answer.routing.deployment
        assert answer.routing.attempts
        assert answer.routing.seconds >= 0
        for shown in (repr(answer), str(answer), answer.model_dump_json(), str(dict(answer))):
            assert "-1" not in shown.replace(answer_ids(answer), "")
            assert "tenant" not in shown
            assert "routing" not in shown
        assert "routing" not in answer.model_dump()
        assert "_routing" not in answer.model_dump()


def answer_ids(answer: Any) -> str:
    return getattr(answer, "id", None) or "\0"


def test_routing_of_a_fresh_answer_tells_when_to_look_again(call: Doors, provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"))
    # In a second, while nobody knows how long a job takes, unless the provider says so.
    assert call(router, "video_generation", prompt="x").routing.poll_after == 1.0
    told = StandIn(accounts={"sk-east": "east"}, poll_after_ms=1500, seed=7)
    router = serving(told, deployment("east-1"))
    video = call(router, "video_generation", prompt="x")
    assert video.routing.poll_after == 1.5
    assert call(router, "video_status", video.id).routing.poll_after is None  # it is done


def asked_to_look(
    call: Doors, clock: FakeClock, written: str, job_seconds: float = 100.0, **more: Any
) -> float:
    """Seconds until the next look, where the provider writes so many milliseconds."""
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=job_seconds, clock=clock, seed=7)
    router = serving(provider, deployment("east-1", **more), clock=clock)
    headers = {"openai-poll-after-ms": written}
    body = {"id": "video_1", "status": "queued"}
    provider.fault("status", operation="generation", status=200, headers=headers, body=body)
    found: float = call(router, "video_generation", prompt="x", seconds=8).routing.poll_after
    return found


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0", 0.05), ("1e-7", 0.05), ("-5", 1.0), ("-inf", 1.0), ("1e30", 300.0), ("nan", 1.0)],
)
def test_the_pause_between_two_looks_is_within_reason_whatever_the_provider_says(
    call: Doors, clock: FakeClock, written: str, seconds: float
) -> None:
    assert asked_to_look(call, clock, written) == seconds


def test_a_job_is_looked_at_often_enough_to_keep_its_slot(call: Doors, clock: FakeClock) -> None:
    assert asked_to_look(call, clock, "200000", job_ttl=90) == 30.0


def test_a_learned_pause_has_an_end(call: Doors, clock: FakeClock) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=3600, clock=clock, seed=7)
    router = serving(provider, deployment("east-1", job_ttl=7200), clock=clock)
    for _ in range(3):
        video = call(router, "video_generation", prompt="x", seconds=8)
        assert call(router, "video_wait", video.id).done
    assert 10 < max(clock.slept) <= 60


# Times


@pytest.mark.parametrize(
    ("created_at", "completed_at", "seconds"),
    [
        (1_700_000_000, 1_700_000_080, 80.0),  # its clock is another, and right between the two
        (1_800_000_000_000, 1_800_000_100_000, 100.0),
        (0, 1_800_000_100, 100.0),
        (0, 0, 100.0),
        (1_800_000_100, 1_800_000_000, 100.0),
        (math.nan, 1_800_000_100, 100.0),
        (1_800_000_000, "inf", 100.0),
        pytest.param(10**400, 10**400, 100.0, id="longer than any float"),
    ],
)
def test_how_long_a_job_took_is_the_providers_word_only_where_it_can_be_true(
    provider: StandIn, clock: FakeClock, created_at: Any, completed_at: Any, seconds: float
) -> None:
    told: list[Any] = []
    with serving(provider, deployment("east-1"), clock=clock, on_event=told.append) as router:
        video = router.video_generation(prompt="x", seconds=8)
        clock.advance(100)
        times = {"created_at": created_at, "completed_at": completed_at}
        router.observe(video.id, {"status": "completed", **times})
        known = router.statistics()["east-1"]["job_time"]["generation"]["mean"]
    (finished,) = (event for event in told if isinstance(event, JobFinished))
    assert finished.seconds == seconds
    assert known == pytest.approx(seconds / 8)


@pytest.mark.parametrize(
    ("scale", "seconds"), [(1, 90.0), (1000, None), (math.nan, None), (0, None), (1e-9, None)]
)
def test_of_an_unknown_job_times_near_our_own_are_believed(
    provider: StandIn, clock: FakeClock, scale: float, seconds: float | None
) -> None:
    told: list[Any] = []
    with serving(provider, deployment("east-1"), clock=clock, on_event=told.append) as router:
        times = {"created_at": (clock.time() - 90) * scale, "completed_at": clock.time() * scale}
        ours = router.pick("status", video_id="video_1", account="east")
        with ours as attempt:
            video_id = attempt.accepted("video_1")
        router.observe(video_id, {"status": "completed", "seconds": "8", **times})
    (finished,) = (event for event in told if isinstance(event, JobFinished))
    assert finished.seconds == seconds


@pytest.mark.parametrize("length", ["5e-324", "1e308", "nan", "-4"])
def test_a_length_that_no_video_has_is_unknown(
    provider: StandIn, clock: FakeClock, length: str
) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.1), clock=clock) as router:
        provider.fault("wrong_types", body={"id": "v", "status": "queued", "seconds": length})
        video = router.video_generation(prompt="x", seconds=8)
        assert (video.seconds, video.routing and video.routing.cost) == (length, 0.8)
        clock.advance(100)
        router.observe(video.id, "completed")
        known = router.statistics()["east-1"]["job_time"]["generation"]
    assert known["mean"] == pytest.approx(100 / 8)


def test_routing_tells_every_attempt(call: Doors, provider: StandIn) -> None:
    router = in_process(provider)
    provider.fault("status", status=429)
    video = call(router, "video_generation", prompt="x")
    first, second = video.routing.attempts
    assert (first.status, second.status) == (429, 200)
    assert second.deployment == video.routing.deployment != first.deployment
    assert first.request_id.startswith("req_")


# Pickling


def test_answers_survive_pickling(call: Doors, provider: StandIn) -> None:
    router = in_process(provider)
    video = call(router, "video_generation", prompt="x")
    answers = [
        video,
        call(router, "video_status", video.id),
        call(router, "video_create_character", name="L", video=CLIP),
        call(router, "video_list"),
        call(router, "video_delete", call(router, "video_generation", prompt="y").id),
    ]
    for answer in answers:
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(answer, protocol))
            assert again == answer
            assert type(again) is type(answer)
            assert again.model_dump() == answer.model_dump()
            assert again.routing == answer.routing


def test_content_survives_pickling(call: Doors, provider: StandIn) -> None:
    router = in_process(provider)
    video = call(router, "video_generation", prompt="x")
    content = call(router, "video_content", video.id)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(content, protocol))
        assert type(again) is Content
        assert again == CLIP
        assert again.content_type == "video/mp4"
        assert again.routing == content.routing
    assert "ftyp" not in repr(content) + str(content)
    assert str(len(CLIP)) in repr(content)


def every_error() -> list[type[RouterError]]:
    found: list[type[RouterError]] = []
    waiting = [RouterError]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.append(kind)
            waiting += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__name__)


# What a class has beyond the facts of all.
OWN: dict[str, dict[str, Any]] = {
    "ConfigError": {"problems": ("a.yaml:1: one", "a.yaml:2: two")},
    "JobFailedError": {"video_id": "video_vr1x"},
    "WaitTimeoutError": {"video_id": "video_vr1x", "last_status": "in_progress"},
    "AmbiguousSubmitError": {"sent_at": 1_700_000_000.5},
    "TryLaterError": {"retry_after": 7.5},
    "NoDeploymentAvailableError": {"retry_after": 7.5, "reasons": {"east-1": "429"}},
    "CapacityError": {"retry_after": 7.5},
    "VideoNotReadyError": {"retry_after": 7.5},
    "RateLimitError": {"retry_after": 7.5},
}


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_all_it_knows(kind: type[RouterError]) -> None:
    facts: dict[str, Any] = {
        "deployment": "east-1",
        "account": "east",
        "operation": "generation",
        "attempts": (ATTEMPT,),
        "status": 418,
        "code": "teapot",
        "request_id": "req_1",
        "accepted": "maybe",
        "metadata": {"tenant": 7},
        **OWN.get(kind.__name__, {}),
    }
    error = kind("it went wrong", **facts)
    error.add_note("seen in a queue worker")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert again.args == error.args
        assert str(again) == str(error)
        assert again.message == "it went wrong"
        assert vars(again) == vars(error)
        for name, value in facts.items():
            assert getattr(again, name) == value


def test_every_error_is_exported_and_in_the_drawn_tree() -> None:
    names = {*(kind.__name__ for kind in every_error()), "RouterWarning"}
    assert names == set(errors.__all__)
    for name in names:
        assert getattr(package, name) is getattr(errors, name)
        assert name in (errors.__doc__ or "")


def test_whoever_is_told_to_try_later_is_told_when() -> None:
    for kind in every_error():
        if issubclass(kind, errors.TryLaterError):
            assert isinstance(kind("later").retry_after, float)
            assert isinstance(kind("later", retry_after=3).retry_after, float)


def test_errors_carry_the_facts_of_the_call(call: Doors, provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"))
    provider.fault("status", status=400)
    with pytest.raises(errors.BadRequestError) as caught:
        call(router, "video_generation", prompt="x", metadata={"tenant": 7})
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.deployment, error.account, error.operation) == ("east-1", "east", "generation")
    assert error.status == 400
    assert error.request_id.startswith("req_")
    assert [attempt.status for attempt in error.attempts] == [400]
    assert error.metadata == {"tenant": 7}
    assert error.accepted == "no"


def test_an_answer_nobody_routed_has_no_routing() -> None:
    assert Video(id="v", status="queued").routing is None
    assert VideoPage().routing is None
    assert Content(b"x").routing is None
    assert Routing("d", "a").warnings == ()
