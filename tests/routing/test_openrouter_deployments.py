"""OpenRouter beside the others: paths like OpenAI's, and all else its own."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from routing_parts import CLIP, PNG, Doors, FakeClock, deployment, generate, native_of, serving

from router import (
    BadRequestError,
    JobFailedError,
    Router,
    StatusError,
    UnsupportedOperationError,
    VideoNotReadyError,
)
from router.testing import StandIn

URL = "https://openrouter.ai/api/v1"


def openrouter(name: str = "north-1", **more: Any) -> dict[str, Any]:
    told = {"provider": "openrouter", "base_url": URL, "model": "google/veo-3.1"}
    return deployment(name, **{**told, **more})


@pytest.fixture
def router(provider: StandIn) -> Router:
    made: Router = serving(provider, openrouter())
    return made


def test_a_video_from_the_prompt_to_the_file(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router, seconds="8", size="1280x720", user="user-7")
    assert (made.status, made.seconds, made.size) == ("queued", "8", "1280x720")
    assert made.model == "google/veo-3.1"
    native = native_of(router, made.id)
    assert native.startswith("gen-vid-")
    seen = call(router, "video_status", made.id)
    assert seen.done
    assert seen.usage["cost"] == pytest.approx(0.8)
    assert call(router, "video_content", made.id) == CLIP
    assert [(request.method, request.path) for request in provider.requests] == [
        ("POST", "/api/v1/videos"),
        ("GET", f"/api/v1/videos/{native}"),
        ("GET", f"/api/v1/videos/{native}/content"),
    ]
    assert provider.requests[0].fields == {
        "model": "google/veo-3.1",
        "prompt": "a heron",
        "duration": 8,
        "size": "1280x720",
        "user": "user-7",
    }
    assert {r.headers["authorization"] for r in provider.requests} == {"Bearer sk-north"}


@pytest.mark.parametrize(
    ("size", "field"),
    [
        ("1920x1080", "size"),
        ("16:9", "aspect_ratio"),
        ("1080p", "resolution"),
        ("4K", "resolution"),
    ],
)
def test_a_size_is_pixels_a_proportion_or_lines(
    call: Doors, provider: StandIn, router: Router, size: str, field: str
) -> None:
    generate(call, router, size=size)
    assert provider.requests[0].fields == {
        "model": "google/veo-3.1",
        "prompt": "a heron",
        field: size,
    }


def test_an_image_is_the_first_frame(call: Doors, provider: StandIn, router: Router) -> None:
    generate(call, router, input_reference=("a.png", PNG), extra_body={"seed": 3})
    fields = provider.requests[-1].fields
    (frame,) = fields["frame_images"]
    assert (frame["type"], frame["frame_type"], fields["seed"]) == ("image_url", "first_frame", 3)
    head, _, encoded = frame["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(encoded, validate=True) == PNG
    url = "https://pictures.example/a.png"
    generate(call, router, input_reference={"image_url": url})
    (frame,) = provider.requests[-1].fields["frame_images"]
    assert frame["image_url"] == {"url": url}


def test_no_link_that_opens_a_video_to_anybody_stands_in_an_answer(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    answer = call(router, "video_status", made.id)
    assert not {"urls", "unsigned_urls", "polling_url"} & answer.model_dump().keys()


def _following(clock: FakeClock) -> tuple[StandIn, Router]:
    provider = StandIn(accounts={"sk-north": "north"}, job_seconds=100, clock=clock, seed=7)
    return provider, serving(provider, openrouter(), clock=clock)


def test_a_job_is_followed_in_our_words(call: Doors, clock: FakeClock) -> None:
    _, router = _following(clock)
    made = generate(call, router)
    seen = []
    for _ in range(3):
        seen.append(call(router, "video_status", made.id).status)
        clock.advance(50)
    assert seen == ["queued", "in_progress", "completed"]


@pytest.mark.parametrize(
    ("word", "status"), [(None, "failed"), ("cancelled", "cancelled"), ("expired", "expired")]
)
def test_words_for_a_job_that_ended_without_a_video(
    call: Doors, clock: FakeClock, word: str | None, status: str
) -> None:
    provider, router = _following(clock)
    provider.fault("job_fails", code="x", message="Blocked by safety filters.", status=word)
    made = generate(call, router)
    clock.advance(100)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.failed) == (status, True)
    assert answer.error.message == "Blocked by safety filters."
    with pytest.raises(JobFailedError, match="safety"):
        call(router, "video_wait", made.id)


def test_content_too_early_is_not_ready(call: Doors, clock: FakeClock) -> None:
    _, router = _following(clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError):
        call(router, "video_content", made.id)


_CANNOT = [
    ("video_create_character", {"name": "L", "video": CLIP}),
    ("video_generation", {"prompt": "x", "characters": ["char_1"]}),
    ("video_edit", {"prompt": "x", "video_id": "v"}),
    ("video_extension", {"prompt": "x", "seconds": 4, "video_id": "v"}),
    ("video_remix", {"prompt": "x", "video_id": "v"}),
    ("video_list", {}),
    ("video_delete", {"video_id": "v"}),
    ("video_content", {"video_id": "v", "variant": "thumbnail"}),
]


@pytest.mark.parametrize(("method", "arguments"), _CANNOT)
def test_what_it_cannot_do_is_unsupported_before_anything_is_sent(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    made = generate(call, router)
    named = {k: made.id if v == "v" else v for k, v in arguments.items()}
    with pytest.raises(UnsupportedOperationError):
        call(router, method, **named)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "arguments",
    [{"seconds": "2.5"}, {"input_reference": {"file_id": "file-1"}, "account": "north"}],
)
def test_what_its_wire_cannot_say_is_refused_before_sending(
    call: Doors, provider: StandIn, router: Router, arguments: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError):
        generate(call, router, **arguments)
    assert provider.requests == []


def test_an_account_without_credit_is_left_alone_and_another_serves(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, openrouter(), openrouter("east-1"), clock=clock)
    body = {"error": {"code": 402, "message": "Insufficient credits. Add more to go on."}}
    provider.fault("status", status=402, body=body, account="north", times=None)
    assert {generate(call, router).routing.account for _ in range(6)} == {"east"}
    refused = [r for r in provider.requests if r.account == "north"]
    assert len(refused) == 1
    with pytest.raises(StatusError, match="Insufficient credits") as caught:
        generate(call, serving(provider, openrouter()))
    assert (caught.value.status, caught.value.code) == (402, "402")


def test_what_a_vendor_says_of_a_prompt_is_the_callers_affair(
    call: Doors, provider: StandIn, router: Router
) -> None:
    body = {"error": {"code": 403, "message": "Input flagged by moderation."}}
    provider.fault("status", status=403, body=body)
    with pytest.raises(StatusError, match="moderation"):
        generate(call, router)
    assert generate(call, router).status == "queued"
