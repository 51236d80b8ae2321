"""Answers and errors as values: what they keep, what they hide, and that they travel."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from routing_parts import CLIP, Doors, deployment, in_process, serving

import router as package
from router import AttemptRecord, Content, Routing, Video, VideoPage, errors
from router.errors import RouterError
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
        ("prompt", ["x"], None),
        ("seconds", 8, "8"),
        ("seconds", ["8"], None),
        ("size", 720, "720"),
        ("model", None, None),
        ("error", "it broke", None),
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
    names = {kind.__name__ for kind in every_error()}
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
