"""A provider that can do less: RunwayML's tasks beside the others."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from routing_parts import CLIP, PNG, Doors, FakeClock, deployment, native_of, serving

from router import (
    BadRequestError,
    JobFailedError,
    NotFoundError,
    Router,
    UnsupportedOperationError,
    VideoNotReadyError,
)
from router.testing import SeenRequest, StandIn

RUNWAY = "https://api.dev.runwayml.com/v1"


def runway(name: str = "north-1", **more: Any) -> dict[str, Any]:
    told = {"provider": "runwayml", "base_url": RUNWAY, "model": "gen4_turbo"}
    return deployment(name, **{**told, **more})


@pytest.fixture
def router(provider: StandIn) -> Router:
    made: Router = serving(provider, runway())
    return made


def asked(provider: StandIn) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in provider.requests]


def generate(call: Doors, router: Router, **more: Any) -> Any:
    return call(router, "video_generation", **{"prompt": "a heron", "size": "1280x720", **more})


def test_text_becomes_a_task(call: Doors, provider: StandIn, router: Router) -> None:
    made = generate(call, router, seconds="5")
    (request,) = provider.requests
    assert (request.method, request.path) == ("POST", "/v1/text_to_video")
    assert request.fields == {
        "model": "gen4_turbo",
        "promptText": "a heron",
        "ratio": "1280:720",
        "duration": 5,
    }
    assert request.headers["authorization"] == "Bearer sk-north"
    assert request.headers["x-runway-version"]
    assert (made.status, made.prompt) == ("queued", "a heron")
    assert made.routing.deployment == "north-1"


def test_an_image_goes_along_in_base64_or_by_its_url(
    call: Doors, provider: StandIn, router: Router
) -> None:
    for size in range(1, 8):  # every remainder of base64's groups
        image = PNG + b"x" * size
        generate(call, router, input_reference=("a.png", image))
        request = provider.requests[-1]
        assert request.path == "/v1/image_to_video"
        head, _, encoded = request.fields["promptImage"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(encoded, validate=True) == image
    url = "https://pictures.example/a.png"
    generate(call, router, input_reference={"image_url": url})
    assert provider.requests[-1].fields["promptImage"] == url


def test_a_large_image_is_sent_whole(call: Doors, provider: StandIn, router: Router) -> None:
    image = random.Random(1).randbytes(700_001)  # several reads of the transport
    generate(call, router, input_reference=("a.png", image))
    _, _, encoded = provider.requests[-1].fields["promptImage"].partition(",")
    assert base64.b64decode(encoded, validate=True) == image


@pytest.mark.parametrize(
    ("model", "arguments", "advice"),
    [
        ("gen4.5", {"seconds": "12"}, "8, 9, 10 s; the nearest to 12 is 10"),
        ("veo3.1", {"seconds": 7}, "4, 6, 8 s; the nearest to 7 is 6"),
        ("gen4.5", {"size": "1920x1080"}, "the nearest to 1920x1080 is 1280x720"),
        ("gen4.5", {"size": "1024x1792"}, "the nearest to 1024x1792 is 720x1280"),
        ("veo3.1", {"size": "1024x1792"}, "the nearest to 1024x1792 is 1080x1920"),
        ("gen4_turbo", {"size": "wide"}, "the nearest to wide is 1280x720"),
    ],
)
def test_what_a_known_model_does_not_make_is_refused_with_the_nearest_that_it_does(
    call: Doors, provider: StandIn, model: str, arguments: dict[str, Any], advice: str
) -> None:
    router = serving(provider, runway(model=model))
    with pytest.raises(BadRequestError, match=advice):
        generate(call, router, **arguments)
    assert provider.requests == []


def test_what_an_unknown_model_makes_is_its_servers_affair(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(model="of-tomorrow"))
    generate(call, router, size="1x2", seconds=77)
    fields = provider.requests[0].fields
    assert (fields["ratio"], fields["duration"]) == ("1:2", 77)


def test_a_call_without_a_size_gets_the_models_first(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway())
    generate(call, router, size=None)
    assert provider.requests[0].fields["ratio"] == "1280:720"
    assert generate(call, router, size=None, input_reference=("a.png", PNG)).size is None


def test_a_model_that_must_be_told_a_length_is_told_the_usual_one(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, runway(model="gen4.5", cost_per_second=0.1))
    made = generate(call, router)
    assert provider.requests[0].fields["duration"] == 4
    assert (made.seconds, made.routing.cost) == ("4", pytest.approx(0.4))


@pytest.mark.parametrize(
    "arguments",
    [{"seconds": "2.5"}, {"input_reference": {"file_id": "file-1"}, "account": "north"}],
)
def test_what_its_wire_cannot_say_is_refused_before_sending(
    call: Doors, provider: StandIn, router: Router, arguments: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError) as caught:
        generate(call, router, **arguments)
    assert caught.value.status is None
    assert provider.requests == []


def _following(clock: FakeClock) -> tuple[StandIn, Router]:
    provider = StandIn(accounts={"sk-north": "north"}, job_seconds=100, clock=clock, seed=7)
    return provider, serving(provider, runway(), clock=clock)


def test_a_task_is_followed_in_our_words(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    seen = []
    for _ in range(4):
        answer = call(router, "video_status", made.id)
        assert answer.id == made.id
        seen.append((answer.status, answer.progress))
        clock.advance(35)
    assert seen == [("queued", 0), ("in_progress", 35), ("in_progress", 70), ("completed", 100)]
    assert provider.requests[-1].path == f"/v1/tasks/{native_of(router, made.id)}"
    assert isinstance(answer.created_at, float | int)


@pytest.mark.parametrize(
    ("word", "status", "failed"),
    [("THROTTLED", "queued", False), ("RUNNING", "in_progress", False), ("ODD", "ODD", False)],
)
def test_words_for_a_running_task(
    call: Doors, clock: FakeClock, word: str, status: str, failed: bool
) -> None:
    provider, router = _following(clock)
    provider.fault("never_ends", status=word)
    made = generate(call, router)
    clock.advance(50)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.failed, answer.done) == (status, failed, False)


@pytest.mark.parametrize(("word", "status"), [(None, "failed"), ("CANCELLED", "cancelled")])
def test_words_for_a_task_that_ended_without_a_video(
    call: Doors, clock: FakeClock, word: str | None, status: str
) -> None:
    provider, router = _following(clock)
    provider.fault("job_fails", code="INTERNAL.BAD_OUTPUT.CODE01", message="No.", status=word)
    made = generate(call, router)
    clock.advance(100)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.failed) == (status, True)
    with pytest.raises(JobFailedError):
        call(router, "video_wait", made.id)
    with pytest.raises(JobFailedError):
        call(router, "video_content", made.id)


def test_a_failure_is_told_in_the_providers_words(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    provider.fault("job_fails", code="SAFETY.INPUT.TEXT", message="Not this.")
    made = generate(call, router)
    clock.advance(100)
    answer = call(router, "video_status", made.id)
    assert (answer.error.code, answer.error.message) == ("SAFETY.INPUT.TEXT", "Not this.")


def test_content_takes_two_exchanges_and_the_key_goes_only_to_the_first(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    before = len(provider.requests)
    content = call(router, "video_content", made.id, extra_headers={"X-Trace": "t"})
    assert content == CLIP
    assert content.content_type == "video/mp4"
    task, file = provider.requests[before:]
    assert task.path == f"/v1/tasks/{native_of(router, made.id)}"
    assert task.headers["authorization"] == "Bearer sk-north"
    assert file.path.startswith("/_files/")
    assert "authorization" not in file.headers
    assert "sk-north" not in repr(file)


def test_content_too_early_is_not_ready(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as caught:
        call(router, "video_content", made.id)
    assert caught.value.retry_after > 0
    assert [request.operation for request in provider.requests] == ["generation", "status"]
    clock.advance(100)
    assert call(router, "video_content", made.id) == CLIP


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
def test_it_has_no_variants(call: Doors, provider: StandIn, router: Router, variant: str) -> None:
    made = generate(call, router)
    with pytest.raises(UnsupportedOperationError):
        call(router, "video_content", made.id, variant=variant)
    assert len(provider.requests) == 1


def test_delete_cancels(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    answer = call(router, "video_delete", made.id)
    assert (answer.id, answer.deleted) == (made.id, True)
    assert asked(provider)[-1] == ("DELETE", f"/v1/tasks/{native_of(router, made.id)}")
    with pytest.raises(NotFoundError):
        call(router, "video_status", made.id)


_CANNOT = [
    ("video_create_character", {"name": "L", "video": CLIP}),
    ("video_get_character", {"character_id": "char_1"}),
    ("video_generation", {"prompt": "x", "size": "1280x720", "characters": ["char_1"]}),
    ("video_edit", {"prompt": "x", "video_id": "v"}),
    ("video_edit", {"prompt": "x", "video": CLIP}),
    ("video_extension", {"prompt": "x", "seconds": 4, "video_id": "v"}),
    ("video_remix", {"prompt": "x", "video_id": "v"}),
    ("video_list", {}),
]


@pytest.mark.parametrize(("method", "arguments"), _CANNOT)
def test_what_it_cannot_do_is_unsupported_when_called_and_not_when_configured(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    made = generate(call, router)
    named = {k: made.id if v == "v" else v for k, v in arguments.items()}
    with pytest.raises(UnsupportedOperationError) as caught:
        call(router, method, **named)
    assert isinstance(caught.value, NotImplementedError)
    assert caught.value.accepted == "no"
    assert len(provider.requests) == 1


def _mixed(provider: StandIn, **parts: Any) -> Router:
    return serving(provider, runway(), deployment("east-1"), **parts)


def test_it_is_no_candidate_while_another_can(call: Doors, provider: StandIn) -> None:
    router = _mixed(provider)
    for _ in range(10):
        luna = call(router, "video_create_character", name="Luna", video=CLIP)
        assert luna.routing.account == "east"
        assert call(router, "video_edit", prompt="x", video=CLIP).routing.account == "east"
        with_luna = call(router, "video_generation", prompt="Luna", characters=[luna])
        assert with_luna.routing.account == "east"
    assert call(router, "video_list", limit=100).routing.account == "east"
    served = {generate(call, router).routing.account for _ in range(20)}
    assert served == {"east", "north"}
    operations = {r.operation for r in provider.requests if r.account == "north"}
    assert operations == {"generation"}


def test_it_serves_its_own_and_is_unsupported_for_them_beyond_what_it_can(
    call: Doors, provider: StandIn
) -> None:
    router = _mixed(provider)
    made = generate(call, router, account="north")
    assert call(router, "video_status", made.id).routing.account == "north"
    assert call(router, "video_content", made.id) == CLIP
    sent = len(provider.requests)
    with pytest.raises(UnsupportedOperationError):
        call(router, "video_edit", prompt="x", video_id=made.id)
    with pytest.raises(UnsupportedOperationError):
        call(router, "video_remix", prompt="x", video_id=made.id)
    assert len(provider.requests) == sent


def test_a_mixed_group_fails_over_between_dialects(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = _mixed(provider, clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    for _ in range(5):
        assert generate(call, router).routing.account == "north"


def test_the_version_header_may_be_another(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(headers={"X-Runway-Version": "2030-01-01"}))
    generate(call, router)
    request: SeenRequest = provider.requests[0]
    assert request.headers["x-runway-version"] == "2030-01-01"


@pytest.mark.parametrize("status", [400, 402, 403])
def test_an_account_without_credits_is_left_for_another(
    call: Doors, provider: StandIn, status: int
) -> None:
    router = serving(provider, runway(), runway("east-1"))
    body = {"error": "You do not have enough credits to run this task."}
    provider.fault("status", status=status, account="north", body=body, times=None)
    made = [call(router, "video_generation", prompt="a heron") for _ in range(4)]
    assert {one.routing.account for one in made} == {"east"}
    (ejection,) = router.statistics()["north-1"]["ejections"]
    assert "enough credits" in ejection["reason"]
