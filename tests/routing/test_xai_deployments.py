"""xAI beside the others: generations, edits and extensions that start from a link or a file."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from routing_parts import (
    CLIP,
    PNG,
    Doors,
    FakeClock,
    deployment,
    generate,
    native_of,
    operations,
    serving,
)

from router import (
    AmbiguousSubmitError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    JobFailedError,
    NotFoundError,
    RateLimitError,
    Router,
    UnsupportedOperationError,
    VideoNotReadyError,
)
from router.testing import StandIn

# The stand-in speaks it below a path of its own, since its real paths are those of OpenAI too.
BASE = "https://api.x.ai/xai/v1"
MODEL = "grok-imagine-video"


def xai(name: str = "north-1", **more: Any) -> dict[str, Any]:
    return deployment(name, **{"provider": "xai", "base_url": BASE, "model": MODEL, **more})


@pytest.fixture
def router(provider: StandIn) -> Router:
    made: Router = serving(provider, xai())
    return made


def _following(clock: FakeClock, *others: dict[str, Any]) -> tuple[StandIn, Router]:
    accounts = {"sk-north": "north", "sk-east": "east"}
    provider = StandIn(accounts=accounts, job_seconds=100, clock=clock, seed=7)
    return provider, serving(provider, xai(), *others, clock=clock)


# Generations


def test_a_prompt_becomes_a_request(call: Doors, provider: StandIn, router: Router) -> None:
    made = generate(call, router, seconds="10", size="720x1280")
    (request,) = provider.requests
    assert (request.method, request.path) == ("POST", "/xai/v1/videos/generations")
    assert request.fields == {
        "model": MODEL,
        "prompt": "a heron",
        "duration": 10,
        "aspect_ratio": "9:16",
        "resolution": "720p",
    }
    assert request.headers["authorization"] == "Bearer sk-north"
    assert (made.status, made.model, made.seconds) == ("queued", MODEL, "10")
    assert native_of(router, made.id) == provider.accepted[0].native_id


@pytest.mark.parametrize(
    ("size", "fields"),
    [
        ("854x480", {"aspect_ratio": "16:9", "resolution": "480p"}),
        ("1080x1080", {"aspect_ratio": "1:1", "resolution": "1080p"}),
        ("3:2", {"aspect_ratio": "3:2"}),
        ("720p", {"resolution": "720p"}),
    ],
)
def test_a_size_is_a_shape_and_a_number_of_lines(
    call: Doors, provider: StandIn, router: Router, size: str, fields: dict[str, str]
) -> None:
    generate(call, router, size=size)
    assert provider.requests[0].fields == {"model": MODEL, "prompt": "a heron", **fields}


def test_an_image_by_file_link_or_id(call: Doors, provider: StandIn, router: Router) -> None:
    generate(call, router, input_reference=("a.png", PNG))
    head, _, encoded = provider.requests[-1].fields["image"]["url"].partition(",")
    assert (head, base64.b64decode(encoded, validate=True)) == ("data:image/png;base64", PNG)
    url = "https://pictures.example/a.png"
    generate(call, router, input_reference={"image_url": url})
    assert provider.requests[-1].fields["image"] == {"url": url}
    generate(call, router, input_reference={"file_id": "file_1"}, account="north")
    assert provider.requests[-1].fields["image"] == {"file_id": "file_1"}
    assert len(provider.accepted) == 3


def test_the_callers_own_fields_go_along(call: Doors, provider: StandIn, router: Router) -> None:
    generate(call, router, extra_body={"generate_audio": False})
    assert provider.requests[0].fields["generate_audio"] is False


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"seconds": "16"}, "1 to 15 whole seconds; the nearest to 16 is 15"),
        ({"seconds": "2.5"}, "the nearest to 2.5 is 2"),
        ({"size": "2000x1000"}, "the nearest to 2000x1000 is 1920x1080"),
        ({"size": "1280x853"}, "the nearest to 1280x853 is 1080x720"),
        ({"size": "21:9"}, "the nearest to 21:9 is 16:9"),
        ({"size": "2160p"}, "the nearest to 2160p is 1080p"),
    ],
)
def test_what_it_does_not_take_is_refused_with_the_nearest(
    call: Doors, provider: StandIn, router: Router, arguments: dict[str, Any], advice: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        generate(call, router, **arguments)
    assert advice in str(caught.value)
    assert provider.requests == []


def test_dropped_parameters_are_told(call: Doors, provider: StandIn) -> None:
    router = serving(provider, xai(drop_params=True))
    made = generate(call, router, seconds="16", size="16:9")
    assert provider.requests[0].fields == {
        "model": MODEL,
        "prompt": "a heron",
        "aspect_ratio": "16:9",
    }
    assert any("seconds" in warning for warning in made.routing.warnings)


# Jobs


def test_a_request_is_followed_in_our_words(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router, seconds=4)
    seen = []
    for _ in range(3):
        answer = call(router, "video_status", made.id)
        assert answer.id == made.id
        seen.append((answer.status, answer.progress))
        clock.advance(50)
    assert seen == [("queued", 0), ("in_progress", 50), ("completed", 100)]
    assert provider.requests[-1].path == f"/xai/v1/videos/{native_of(router, made.id)}"
    assert (answer.seconds, answer.model) == ("4", MODEL)
    assert answer.usage["cost_in_usd_ticks"] == 4 * 500_000_000
    assert "http" not in answer.model_dump_json(), "the link opens the video to whoever has it"


def test_what_is_pending_may_be_answered_with_nothing(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    provider.fault("status", status=202, body=b"")
    assert call(router, "video_status", made.id).status == "queued"
    assert call(router, "video_status", made.id).done


def test_what_was_made_before_there_was_a_status(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    provider.fault("garbage", body={"video": {"url": "https://a.example/a.mp4", "duration": 6}})
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.seconds) == ("completed", "6")


@pytest.mark.parametrize(
    ("fault", "status", "code", "callers"),
    [
        ({"code": "invalid_argument", "message": "No."}, "failed", "invalid_argument", True),
        ({"code": "internal_error", "message": "No."}, "failed", "internal_error", False),
        ({"status": "done"}, "failed", "content_moderation", True),
        ({"status": "expired"}, "expired", None, False),
    ],
)
def test_an_end_without_a_video_and_whose_fault_it_is(
    call: Doors,
    clock: FakeClock,
    fault: dict[str, str],
    status: str,
    code: str | None,
    callers: bool,
) -> None:
    provider, router = _following(clock, xai("east-1"))
    provider.fault("job_fails", times=None, **fault)
    for _ in range(3):
        made = generate(call, router, account="north")
        clock.advance(100)
        answer = call(router, "video_status", made.id)
        assert (answer.status, answer.failed) == (status, True)
        assert (answer.error.code if answer.error else None) == code
    for method in ("video_wait", "video_content"):
        with pytest.raises(JobFailedError) as caught:
            call(router, method, made.id)
        assert caught.value.code == code
    verdicts = {c[0]: c[1] for c in router.explain(operation="generation").candidates}
    assert (verdicts["north-1"] == "ejected") is not callers


def test_content_takes_two_exchanges_and_the_key_goes_only_to_the_first(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    before = len(provider.requests)
    content = call(router, "video_content", made.id)
    assert (content, content.content_type) == (CLIP, "video/mp4")
    look, file = provider.requests[before:]
    assert look.headers["authorization"] == "Bearer sk-north"
    assert "authorization" not in file.headers
    assert "sk-north" not in repr(file)


def test_content_too_early_is_not_ready(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as caught:
        call(router, "video_content", made.id)
    assert caught.value.retry_after > 0
    assert operations(provider) == ["generation", "status"]


# Edits and extensions


def test_an_edit_of_a_video_that_exists_starts_from_its_link(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router, seconds=4)
    before = len(provider.requests)
    edit = call(router, "video_edit", prompt="at night", video_id=made.id)
    look, submit = provider.requests[before:]
    assert look.path == f"/xai/v1/videos/{native_of(router, made.id)}"
    assert submit.path == "/xai/v1/videos/edits"
    assert submit.headers["authorization"] == "Bearer sk-north"
    assert set(submit.fields) == {"model", "prompt", "video"}
    assert submit.fields["video"]["url"].startswith("https://api.x.ai/")
    assert edit.routing.account == "north"
    done = call(router, "video_wait", edit.id)
    assert done.seconds == "4"
    assert call(router, "video_content", edit.id) == CLIP


def test_an_extension_tells_of_the_whole(call: Doors, provider: StandIn, router: Router) -> None:
    made = generate(call, router, seconds=4)
    longer = call(router, "video_extension", prompt="it flies", seconds="5", video_id=made.id)
    assert provider.requests[-1].path == "/xai/v1/videos/extensions"
    assert provider.requests[-1].fields["duration"] == 5
    assert call(router, "video_wait", longer.id).seconds == "9"


@pytest.mark.parametrize(
    ("method", "more", "path"),
    [("video_edit", {}, "edits"), ("video_extension", {"seconds": 5}, "extensions")],
)
def test_an_upload_goes_along_in_base64(
    call: Doors,
    provider: StandIn,
    router: Router,
    method: str,
    more: dict[str, Any],
    path: str,
) -> None:
    made = call(router, method, prompt="x", video=("a.mp4", CLIP), **more)
    (request,) = provider.requests
    assert request.path == f"/xai/v1/videos/{path}"
    head, _, encoded = request.fields["video"]["url"].partition(",")
    assert (head, base64.b64decode(encoded, validate=True)) == ("data:video/mp4;base64", CLIP)
    assert call(router, "video_wait", made.id).done


def test_an_extension_has_its_own_bounds(call: Doors, provider: StandIn, router: Router) -> None:
    with pytest.raises(BadRequestError, match="1 to 10 whole seconds; the nearest to 12 is 10"):
        call(router, "video_extension", prompt="x", seconds=12, video=CLIP)
    assert provider.requests == []


def test_what_is_unfinished_or_failed_is_not_changed(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    provider.fault("job_fails", code="internal_error", message="No.")
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as early:
        call(router, "video_edit", prompt="x", video_id=made.id)
    clock.advance(100)
    with pytest.raises(JobFailedError, match=r"No\.") as failed:
        call(router, "video_extension", prompt="x", seconds=4, video_id=made.id)
    assert early.value.accepted == failed.value.accepted == "no"
    assert set(operations(provider)) == {"generation", "status"}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 500}, InternalServerError),
        ({"kind": "status", "status": 404, "body": {"error": "not found"}}, NotFoundError),
        ({"kind": "status", "status": 429, "headers": {"retry-after": "400"}}, RateLimitError),
    ],
)
def test_what_goes_wrong_before_an_edit_is_sent_leaves_no_doubt(
    call: Doors, provider: StandIn, router: Router, fault: dict[str, Any], error: type[Exception]
) -> None:
    made = generate(call, router)
    provider.fault(operation="status", times=None, **fault)
    with pytest.raises(error) as caught:
        call(router, "video_edit", prompt="x", video_id=made.id)
    assert caught.value.accepted == "no"  # type: ignore[attr-defined]
    assert "edit" not in operations(provider)


def test_an_answer_that_is_lost_after_an_edit_was_sent_leaves_doubt(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    provider.fault("reset", operation="edit", after=True)
    with pytest.raises(AmbiguousSubmitError):
        call(router, "video_edit", prompt="x", video_id=made.id)
    assert [submit.operation for submit in provider.accepted] == ["generation", "edit"]


def test_the_callers_headers_go_with_the_edit_and_not_only_with_the_look_before_it(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, xai(idempotency_header="Idempotency-Key"))
    made = generate(call, router)
    call(router, "video_edit", prompt="x", video_id=made.id, extra_headers={"X-Trace": "t"})
    submit = provider.requests[-1]
    assert submit.operation == "edit"
    assert submit.headers["x-trace"] == "t"
    assert submit.headers["idempotency-key"]


# Refusals


def test_refusals_are_told_in_its_words(call: Doors, provider: StandIn, router: Router) -> None:
    with pytest.raises(NotFoundError, match=r"Video request abc not found") as caught:
        call(router, "video_status", "abc", account="north")
    assert caught.value.code == "Some requested entity was not found"
    with pytest.raises(BadRequestError, match="Invalid duration"):
        generate(call, router, extra_body={"duration": "long"})


def test_a_wrong_key_puts_the_account_out_though_it_is_a_400(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, xai(api_key="wrong"), xai("east-1"))
    assert {generate(call, router).routing.account for _ in range(4)} == {"east"}
    with pytest.raises(AuthenticationError, match="Incorrect API key"):
        generate(call, serving(provider, xai(api_key="wrong")))


@pytest.mark.parametrize("status", [403, 429])
def test_a_team_without_credits_is_left_for_another(
    call: Doors, provider: StandIn, status: int
) -> None:
    router = serving(provider, xai(), xai("east-1"))
    said = "Your team has either used all available credits or reached its monthly spending limit."
    body = {"code": "Some resource has been exhausted", "error": said}
    provider.fault("status", status=status, account="north", body=body, times=None)
    assert {generate(call, router).routing.account for _ in range(4)} == {"east"}
    with pytest.raises(RateLimitError, match="spending limit") as caught:
        generate(call, serving(provider, xai()))
    assert caught.value.retry_after == 300


def test_a_throttled_team_is_left_for_another(call: Doors, provider: StandIn) -> None:
    router = serving(provider, xai(), xai("east-1"))
    body = {"code": "Some resource has been exhausted", "error": "Too many requests"}
    headers = {"retry-after": "60"}
    provider.fault("status", status=429, account="north", body=body, headers=headers, times=None)
    assert {generate(call, router).routing.account for _ in range(4)} == {"east"}
    with pytest.raises(RateLimitError) as caught:
        generate(call, serving(provider, xai()))
    assert caught.value.retry_after == 60


def test_a_model_that_a_team_lacks_is_left_to_another(call: Doors) -> None:
    provider = StandIn(accounts={"sk-north": "north", "sk-east": "east"}, models=[MODEL], seed=7)
    router = serving(provider, xai(model="grok-9"), xai("east-1"))
    assert {generate(call, router).routing.account for _ in range(4)} == {"east"}


# Beside others


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_create_character", {"name": "L", "video": CLIP}),
        ("video_get_character", {"character_id": "char_1"}),
        ("video_generation", {"prompt": "x", "characters": ["char_1"]}),
        ("video_remix", {"prompt": "x", "video_id": "abc"}),
        ("video_list", {}),
        ("video_delete", {"video_id": "abc"}),
        ("video_content", {"video_id": "abc", "variant": "thumbnail"}),
    ],
)
def test_what_it_cannot_do_is_unsupported(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedOperationError):
        call(router, method, **arguments)
    assert provider.requests == []


def test_a_mixed_group_fails_over_to_it_and_follows_up(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, xai(), deployment("east-1"), clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    made = generate(call, router, seconds="4", size="1280x720")
    assert made.routing.account == "north"
    assert call(router, "video_wait", made.id).done
    assert call(router, "video_content", made.id) == CLIP
    edit = call(router, "video_edit", prompt="at night", video_id=made.id)
    assert edit.routing.account == "north"
