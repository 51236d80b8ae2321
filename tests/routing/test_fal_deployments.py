"""A queue of apps: fal's requests beside the others, its characters, and how it says no."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from routing_parts import (
    CLIP,
    PNG,
    Doors,
    FakeClock,
    account_of,
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
    CapacityError,
    InternalServerError,
    JobFailedError,
    NotFoundError,
    RateLimitError,
    Router,
    UnsupportedOperationError,
    VideoNotReadyError,
)
from router.testing import StandIn
from router.testing.media import SPRITESHEET, THUMBNAIL

QUEUE = "https://queue.fal.run"
TEXT = "fal-ai/sora-2/text-to-video"
FINISHED = ["status", "result"]


def fal(name: str = "north-1", **more: Any) -> dict[str, Any]:
    return deployment(name, **{"provider": "fal", "base_url": QUEUE, "model": TEXT, **more})


@pytest.fixture
def router(provider: StandIn) -> Router:
    made: Router = serving(provider, fal())
    return made


def _following(clock: FakeClock, *others: dict[str, Any]) -> tuple[StandIn, Router]:
    accounts = {"sk-north": "north", "sk-east": "east"}
    provider = StandIn(accounts=accounts, job_seconds=100, clock=clock, seed=7)
    return provider, serving(provider, fal(), *others, clock=clock)


# Generations


def test_a_prompt_is_queued_at_its_app(call: Doors, provider: StandIn, router: Router) -> None:
    made = generate(call, router, seconds="8", size="720x1280")
    (request,) = provider.requests
    assert (request.method, request.path) == ("POST", f"/{TEXT}")
    assert request.fields == {
        "prompt": "a heron",
        "duration": 8,
        "aspect_ratio": "9:16",
        "resolution": "720p",
    }
    assert request.headers["authorization"] == "Key sk-north"
    assert (made.status, made.prompt, made.seconds, made.size) == (
        "queued",
        "a heron",
        "8",
        "720x1280",
    )
    assert made.routing.deployment == "north-1"


@pytest.mark.parametrize(
    ("size", "fields"),
    [
        ("1920x1080", {"aspect_ratio": "16:9", "resolution": "1080p"}),
        ("16:9", {"aspect_ratio": "16:9"}),
        ("true_1080p", {"resolution": "true_1080p"}),
    ],
)
def test_a_size_is_a_shape_and_a_number_of_lines(
    call: Doors, provider: StandIn, router: Router, size: str, fields: dict[str, str]
) -> None:
    generate(call, router, size=size)
    assert provider.requests[0].fields == {"prompt": "a heron", **fields}


def test_an_id_tells_account_app_and_request(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    (accepted,) = provider.accepted
    assert native_of(router, made.id) == f"fal-ai/sora-2/{accepted.native_id}"
    assert account_of(router, made.id) == "north"
    assert len(made.id) <= 160
    known = call(router, "video_status", native_of(router, made.id), account="north")
    short = call(router, "video_status", accepted.native_id, account="north")
    assert known.id == short.id == made.id


def test_an_image_goes_to_the_sibling_app(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(model=f"{TEXT}/pro"))
    generate(call, router, input_reference=("a.png", PNG))
    request = provider.requests[-1]
    assert request.path == "/fal-ai/sora-2/image-to-video/pro"
    head, _, encoded = request.fields["image_url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(encoded, validate=True) == PNG
    url = "https://pictures.example/a.png"
    made = generate(call, router, input_reference={"image_url": url})
    assert provider.requests[-1].fields["image_url"] == url
    assert call(router, "video_wait", made.id).done


def test_a_deployment_for_images_serves_prompts_as_well(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(model="fal-ai/sora-2/image-to-video"))
    generate(call, router)
    assert provider.requests[-1].path == f"/{TEXT}"


def test_the_callers_own_fields_go_along(call: Doors, provider: StandIn, router: Router) -> None:
    generate(call, router, extra_body={"delete_video": False})
    assert provider.requests[0].fields == {"prompt": "a heron", "delete_video": False}
    generate(call, router, input_reference=("a.png", PNG), extra_body={"image_url": "x"})
    assert provider.requests[1].fields["image_url"].startswith("data:")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"seconds": "5"}, "the nearest to 5 is 4"),
        ({"seconds": "19"}, "the nearest to 19 is 20"),
        ({"size": "1000x1000"}, "the nearest to 1000x1000 is 1000x"),
        ({"size": "21:9"}, "the nearest to 21:9 is 16:9"),
        ({"input_reference": {"file_id": "f"}, "account": "north"}, "as a file or as"),
    ],
)
def test_what_sora_does_not_take_is_refused_before_sending(
    call: Doors, provider: StandIn, router: Router, arguments: dict[str, Any], advice: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        generate(call, router, **arguments)
    assert advice in str(caught.value)
    assert caught.value.status is None
    assert provider.requests == []


def test_dropped_parameters_are_told(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(drop_params=True))
    made = generate(call, router, seconds="5", size="16:9")
    assert provider.requests[0].fields == {"prompt": "a heron", "aspect_ratio": "16:9"}
    assert any("seconds" in warning for warning in made.routing.warnings)


# Other apps


def test_an_app_that_is_not_known_gets_the_prompt(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(model="fal-ai/veo3.1/fast"))
    made = generate(call, router, extra_body={"duration": "6s"})
    (request,) = provider.requests
    assert request.path == "/fal-ai/veo3.1/fast"
    assert request.fields == {"prompt": "a heron", "duration": "6s"}
    assert native_of(router, made.id).startswith("fal-ai/veo3.1/")
    assert call(router, "video_content", made.id) == CLIP


@pytest.mark.parametrize(
    "arguments",
    [{"seconds": 4}, {"size": "16:9"}, {"input_reference": PNG}, {"characters": ["char_1"]}],
)
def test_what_an_unknown_app_calls_its_parameters_is_not_guessed(
    call: Doors, provider: StandIn, arguments: dict[str, Any]
) -> None:
    router = serving(provider, fal(model="fal-ai/veo3.1"))
    with pytest.raises(UnsupportedOperationError, match=r"fal-ai/veo3\.1"):
        generate(call, router, **arguments)
    assert provider.requests == []


def test_an_app_without_characters_makes_none(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(model="fal-ai/veo3.1"))
    with pytest.raises(UnsupportedOperationError, match="has no characters"):
        call(router, "video_create_character", name="Luna", video=CLIP)
    with pytest.raises(UnsupportedOperationError, match="cannot remix"):
        call(router, "video_remix", video_id="abc", prompt="x")
    assert provider.requests == []


# Jobs


def test_a_request_is_followed_in_our_words(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    seen = []
    for _ in range(3):
        answer = call(router, "video_status", made.id)
        assert answer.id == made.id
        seen.append((answer.status, answer.progress))
        clock.advance(50)
    assert seen == [("queued", 0), ("in_progress", None), ("completed", 100)]
    path = f"/fal-ai/sora-2/requests/{native_of(router, made.id).rpartition('/')[2]}"
    assert [request.path for request in provider.requests[-2:]] == [f"{path}/status", path]
    assert all(r.headers["authorization"] == "Key sk-north" for r in provider.requests)
    assert "http" not in answer.model_dump_json(), "links open the video to whoever has them"


def test_a_word_nobody_has_heard_of_is_neither_done_nor_failed(
    call: Doors, clock: FakeClock
) -> None:
    provider, router = _following(clock)
    provider.fault("never_ends", status="PONDERING")
    made = generate(call, router)
    clock.advance(50)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.done, answer.failed) == ("PONDERING", False, False)


def test_waiting_ends_with_the_video(call: Doors, clock: FakeClock) -> None:
    _, router = _following(clock)
    made = generate(call, router)
    assert call(router, "video_wait", made.id).done
    assert call(router, "video_content", made.id) == CLIP


@pytest.mark.parametrize(
    ("code", "callers"),
    [
        ("content_policy_violation", True),
        ("image_too_small", True),
        ("bad_request", True),
        ("generation_timeout", False),
        ("downstream_service_error", False),
        ("runner_disconnected", False),
        ("internal_error", False),
    ],
)
def test_a_failure_has_its_code_and_whose_fault_it_is(
    call: Doors, clock: FakeClock, code: str, callers: bool
) -> None:
    provider, router = _following(clock, fal("east-1"))
    provider.fault("job_fails", code=code, message="No.", times=None)
    for _ in range(3):
        made = generate(call, router, account="north")
        clock.advance(100)
        answer = call(router, "video_status", made.id)
        assert (answer.status, answer.failed) == ("failed", True)
        assert (answer.error.code, answer.error.message) == (code, "No.")
    for method in ("video_wait", "video_content"):
        with pytest.raises(JobFailedError, match=r"No\.") as caught:
            call(router, method, made.id)
        assert caught.value.code == code
    verdicts = {c[0]: c[1] for c in router.explain(operation="generation").candidates}
    assert (verdicts["north-1"] == "ejected") is not callers


def test_what_is_wrong_with_an_input_is_told_with_its_place(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router, extra_body={"duration": 5})
    failed = call(router, "video_status", made.id)
    assert (failed.status, failed.error.code) == ("failed", "literal_error")
    assert failed.error.message.startswith("duration: Input should be")


def test_a_failure_that_only_the_status_knows(
    call: Doors, provider: StandIn, router: Router
) -> None:
    provider.fault("job_fails", code="runner_server_error", message="Gone.")
    provider.fault("status", status=500, operation="result", body="Internal Server Error")
    made = generate(call, router)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.error.code) == ("failed", "runner_server_error")


def test_a_refused_look_at_the_result_is_no_failure_of_the_job(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    provider.fault("status", status=500, operation="result", body="<html>nginx</html>")
    assert call(router, "video_status", made.id).done, "asked again, as a read may be"
    provider.fault("status", status=500, operation="result", body="<html>nginx</html>", times=None)
    with pytest.raises(InternalServerError):
        call(router, "video_status", made.id)


# Content


def test_content_comes_by_links_that_get_no_key(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(headers={"X-Gateway": "ours"}))
    made = generate(call, router)
    before = len(provider.requests)
    content = call(router, "video_content", made.id)
    assert (content, content.content_type) == (CLIP, "video/mp4")
    *looks, file = provider.requests[before:]
    assert [look.operation for look in looks] == FINISHED
    for look in looks:
        assert look.headers["authorization"] == "Key sk-north"
        assert look.headers["x-gateway"] == "ours"
    assert file.operation == "content"
    assert not {"authorization", "x-gateway"} & file.headers.keys()
    assert "sk-north" not in repr(file)


@pytest.mark.parametrize(
    ("variant", "content"), [("thumbnail", THUMBNAIL), ("spritesheet", SPRITESHEET)]
)
def test_the_pictures_of_a_video(call: Doors, router: Router, variant: str, content: bytes) -> None:
    made = generate(call, router)
    assert call(router, "video_content", made.id, variant=variant) == content
    with pytest.raises(UnsupportedOperationError, match="made no script"):
        call(router, "video_content", made.id, variant="script")


def test_content_too_early_is_not_ready(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as caught:
        call(router, "video_content", made.id)
    assert caught.value.retry_after > 0
    assert operations(provider) == ["generation", "status"]


# Deleting


def test_delete_cancels(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    made = generate(call, router)
    clock.advance(50)
    answer = call(router, "video_delete", made.id)
    assert (answer.id, answer.deleted) == (made.id, True)
    request = provider.requests[-1]
    assert (request.method, request.path.endswith("/cancel")) == ("PUT", True)
    gone = call(router, "video_status", made.id)
    assert (gone.status, gone.error.code) == ("cancelled", "client_cancelled")
    (candidate,) = router.explain(operation="generation", prompt="x").candidates
    assert candidate.verdict == "picked"


def test_what_is_made_cannot_be_deleted(call: Doors, router: Router) -> None:
    made = generate(call, router)
    with pytest.raises(BadRequestError, match="ALREADY_COMPLETED"):
        call(router, "video_delete", made.id)


# Characters


def test_a_character_is_there_when_the_call_returns(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    luna = call(router, "video_create_character", name="Luna", video=CLIP)
    first, *looks = provider.requests
    assert (first.path, first.fields["name"]) == ("/fal-ai/sora-2/characters", "Luna")
    head, _, encoded = first.fields["video_url"].partition(",")
    assert (head, base64.b64decode(encoded)) == ("data:video/mp4;base64", CLIP)
    assert {r.operation for r in looks} == {"status", "result"}
    assert 10 < len(looks) < 40, "looked at, and not stared at"
    assert luna.name == "Luna"
    assert native_of(router, luna.id).startswith("char_")
    made = generate(call, router, prompt="Luna", characters=[luna])
    assert provider.requests[-1].fields["character_ids"] == [native_of(router, luna.id)]
    assert call(router, "video_wait", made.id).done
    assert [submit.operation for submit in provider.accepted] == ["create_character", "generation"]


def test_a_clip_that_makes_no_character_is_told(
    call: Doors, provider: StandIn, router: Router
) -> None:
    provider.fault("job_fails", code="content_policy_violation", message="A face.")
    with pytest.raises(JobFailedError, match="A face") as caught:
        call(router, "video_create_character", name="Luna", video=CLIP)
    assert (caught.value.code, caught.value.accepted) == ("content_policy_violation", "no")


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_character_that_was_taken_on_is_not_made_twice(
    call: Doors, provider: StandIn, status: int
) -> None:
    router = serving(provider, fal(), fal("east-1"))
    provider.fault("status", status=status, operation="status", times=None)
    with pytest.raises(AmbiguousSubmitError):
        call(router, "video_create_character", name="Luna", video=CLIP)
    assert [submit.operation for submit in provider.accepted] == ["create_character"]


def test_a_connection_that_breaks_while_waiting_for_a_character_leaves_doubt(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, fal(), fal("east-1"))
    provider.fault("reset", operation="status", times=None)
    with pytest.raises(AmbiguousSubmitError):
        call(router, "video_create_character", name="Luna", video=CLIP)
    assert len(provider.accepted) == 1


def test_the_deadline_of_a_call_holds_while_it_waits_for_a_character(
    call: Doors, clock: FakeClock
) -> None:
    provider, router = _following(clock)
    with pytest.raises(AmbiguousSubmitError):
        call(router, "video_create_character", name="Luna", video=CLIP, deadline=30)
    assert clock.passed <= 31
    assert len(provider.accepted) == 1


def test_copies_of_a_character_in_two_vendors(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(), deployment("east-1"))
    luna = call(router, "video_create_character", name="Luna", video=CLIP, replicate="all")
    assert {copy.account for copy in router.describe_id(luna.id).copies} == {"east", "north"}
    for account in ("east", "north"):
        made = generate(call, router, prompt="Luna", characters=[luna], account=account)
        assert made.routing.account == account


# Remixes


def test_a_remix_of_what_was_kept(call: Doors, provider: StandIn, router: Router) -> None:
    made = generate(call, router, extra_body={"delete_video": False})
    before = len(provider.requests)
    remix = call(router, "video_remix", video_id=made.id, prompt="at night")
    assert operations(provider, before) == [*FINISHED, "remix"]
    submit = provider.requests[-1]
    assert submit.path == "/fal-ai/sora-2/video-to-video/remix"
    assert submit.fields["prompt"] == "at night"
    assert submit.fields["video_id"].startswith("video_")
    assert submit.headers["authorization"] == "Key sk-north"
    assert (remix.remixed_from_video_id, remix.status) == (made.id, "queued")
    assert call(router, "video_wait", remix.id).done


def test_a_remix_of_what_fal_has_deleted_fails_and_says_so(call: Doors, router: Router) -> None:
    made = generate(call, router)
    remix = call(router, "video_remix", video_id=made.id, prompt="at night")
    with pytest.raises(JobFailedError, match="was deleted"):
        call(router, "video_wait", remix.id)


def test_a_remix_of_what_is_unfinished_or_failed_is_not_sent(call: Doors, clock: FakeClock) -> None:
    provider, router = _following(clock)
    provider.fault("job_fails", code="content_policy_violation", message="No.")
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as early:
        call(router, "video_remix", video_id=made.id, prompt="x")
    clock.advance(100)
    with pytest.raises(JobFailedError) as failed:
        call(router, "video_remix", video_id=made.id, prompt="x")
    assert early.value.accepted == failed.value.accepted == "no"
    assert "remix" not in operations(provider)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 500, "body": "<html>"}, InternalServerError),
        ({"kind": "status", "status": 404, "body": {"detail": "Request not found"}}, NotFoundError),
    ],
)
def test_what_goes_wrong_before_a_remix_is_sent_leaves_no_doubt(
    call: Doors, provider: StandIn, router: Router, fault: dict[str, Any], error: type[Exception]
) -> None:
    made = generate(call, router, extra_body={"delete_video": False})
    planned = provider.fault(operation="status", times=None, **fault)
    with pytest.raises(error) as caught:
        call(router, "video_remix", video_id=made.id, prompt="x")
    assert caught.value.accepted == "no"  # type: ignore[attr-defined]
    planned.cancel()
    assert call(router, "video_remix", video_id=made.id, prompt="x").status == "queued"


def test_an_answer_that_is_lost_after_a_remix_was_sent_leaves_doubt(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router, extra_body={"delete_video": False})
    provider.fault("reset", operation="remix", after=True)
    with pytest.raises(AmbiguousSubmitError):
        call(router, "video_remix", video_id=made.id, prompt="x")
    assert [submit.operation for submit in provider.accepted] == ["generation", "remix"]


def test_under_one_key_a_remix_is_one_job_even_if_it_was_asked_for_too_early(
    call: Doors, clock: FakeClock
) -> None:
    provider, router = _following(clock)
    made = generate(call, router, extra_body={"delete_video": False})
    asked = {"video_id": made.id, "prompt": "x", "idempotency_key": "k"}
    with pytest.raises(VideoNotReadyError):
        call(router, "video_remix", **asked)
    clock.advance(100)
    remix = call(router, "video_remix", **asked)
    assert call(router, "video_remix", **asked).id == remix.id
    assert [submit.operation for submit in provider.accepted] == ["generation", "remix"]


@pytest.mark.parametrize(("during", "free"), [("status", True), ("result", True), ("remix", False)])
def test_a_remix_that_is_cancelled_holds_a_slot_only_where_it_was_sent(
    provider: StandIn, during: str, free: bool
) -> None:
    router = serving(provider, fal(max_parallel_jobs=1))

    async def scenario() -> Any:
        made = await router.avideo_generation(prompt="x", extra_body={"delete_video": False})
        assert (await router.avideo_status(made.id)).done
        provider.fault("delay", seconds=60, operation=during)
        remix = asyncio.create_task(router.avideo_remix(video_id=made.id, prompt="x"))
        while operations(provider, since=3)[-1:] != [during]:  # noqa: ASYNC110  (it only records)
            await asyncio.sleep(0)
        remix.cancel()
        with pytest.raises(asyncio.CancelledError):
            await remix
        return await router.avideo_generation(prompt="x")

    if free:
        assert asyncio.run(scenario()).status == "queued"
    else:
        with pytest.raises(CapacityError):
            asyncio.run(scenario())


# Refusals


def test_refusals_are_told_in_fals_words(call: Doors, provider: StandIn, router: Router) -> None:
    with pytest.raises(NotFoundError, match="Request not found"):
        call(router, "video_status", "fal-ai/sora-2/0", account="north")
    detail = [{"loc": ["body", "prompt"], "msg": "Too long", "type": "string_too_long", "input": 1}]
    provider.fault("status", status=422, body={"detail": detail})
    with pytest.raises(BadRequestError, match="prompt: Too long") as caught:
        generate(call, router)
    assert (caught.value.status, caught.value.code) == (422, "string_too_long")


def test_a_wrong_key_puts_the_account_out(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(api_key="wrong"), fal("east-1"))
    for _ in range(4):
        assert generate(call, router).routing.account == "east"
    alone = serving(provider, fal(api_key="wrong"))
    with pytest.raises(AuthenticationError, match="No user found"):
        generate(call, alone)


def test_a_locked_account_is_left_for_another(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(), fal("east-1"))
    locked = {"detail": "User is locked. Reason: Exhausted balance. Top up at fal.ai/billing."}
    provider.fault("status", status=403, account="north", body=locked, times=None)
    served = [generate(call, router).routing.account for _ in range(4)]
    assert served == ["east"] * 4
    assert operations(provider).count("generation") <= 5, "asked once, then left alone"


def test_a_throttled_account_is_left_for_another(call: Doors, provider: StandIn) -> None:
    router = serving(provider, fal(), fal("east-1"))
    body = {"detail": "Too many requests", "error_type": "concurrent_requests_limit"}
    headers = {"retry-after": "60"}
    provider.fault("status", status=429, account="north", body=body, headers=headers, times=None)
    assert {generate(call, router).routing.account for _ in range(4)} == {"east"}
    with pytest.raises(RateLimitError) as caught:
        generate(call, serving(provider, fal()))
    assert (caught.value.code, caught.value.retry_after) == ("concurrent_requests_limit", 60.0)


def test_an_app_that_is_not_there_is_left_for_another(call: Doors) -> None:
    provider = StandIn(accounts={"sk-north": "north", "sk-east": "east"}, models=[TEXT], seed=7)
    router = serving(provider, fal(model="fal-ai/gone"), fal("east-1"))
    assert {generate(call, router).routing.account for _ in range(4)} == {"east"}


# Beside others


_CANNOT: list[tuple[str, dict[str, Any]]] = [
    ("video_get_character", {"character_id": "char_1"}),
    ("video_edit", {"prompt": "x", "video": CLIP}),
    ("video_extension", {"prompt": "x", "seconds": 4, "video": CLIP}),
    ("video_list", {}),
]


@pytest.mark.parametrize(("method", "arguments"), _CANNOT)
def test_what_it_cannot_do_is_unsupported(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedOperationError):
        call(router, method, **arguments)
    assert provider.requests == []


def test_a_mixed_group_fails_over_to_it_and_follows_up(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, fal(), deployment("east-1"), clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    made = generate(call, router, seconds="4", size="1280x720")
    assert made.routing.account == "north"
    assert call(router, "video_wait", made.id).done
    assert call(router, "video_content", made.id) == CLIP


def test_an_app_in_a_namespace_is_known_by_three_parts(call: Doors, provider: StandIn) -> None:
    model = "workflows/acme/film/draft"
    router = serving(provider, fal(model=model))
    provider.fault("garbage", body={"request_id": "abc", "status": "IN_QUEUE"})
    made = generate(call, router)
    assert native_of(router, made.id) == "workflows/acme/film/abc"
    provider.fault("garbage", body={"status": "IN_QUEUE", "queue_position": 3})
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.queue_position) == ("queued", 3)
    submit, look = provider.requests
    assert submit.path == f"/{model}"
    assert look.path == "/workflows/acme/film/requests/abc/status"


# Under a key, and without words


def test_under_one_key_a_character_is_made_once_though_fal_tells_of_none(
    call: Doors, provider: StandIn, router: Router
) -> None:
    asked = {"name": "Luna", "video": CLIP, "idempotency_key": "k"}
    luna = call(router, "video_create_character", **asked)
    again = call(router, "video_create_character", **asked)
    assert (again.id, again.name) == (luna.id, "Luna")
    assert (again.routing.deployment, again.routing.account) == ("north-1", "north")
    assert len(provider.accepted) == 1


@pytest.mark.parametrize(
    ("status", "body"), [(422, {"detail": "No such style."}), (400, "No such style.")]
)
def test_an_app_may_refuse_an_input_in_words_of_its_own(
    call: Doors, provider: StandIn, router: Router, status: int, body: Any
) -> None:
    made = generate(call, router)
    provider.fault("status", status=status, operation="result", body=body, times=None)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.error.code) == ("failed", str(status))
    assert answer.error.message == "No such style."
    with pytest.raises(JobFailedError, match="No such style"):
        call(router, "video_wait", made.id)
    assert answer.error.type == "invalid_request_error", "the caller's fault, and no deployment's"


def test_what_fell_over_is_told_by_the_header_or_by_the_status(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    headers = {"x-fal-error-type": "runner_disconnected"}
    provider.fault("status", status=503, operation="result", body="Gone", headers=headers)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.error.code) == ("failed", "runner_disconnected")
    provider.fault("status", status=500, operation="result", body="Gone")
    body = {"status": "COMPLETED", "error": "The runner fell over."}
    provider.fault("garbage", body=body, operation="status")
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.error.code) == ("failed", "500")


def test_a_picture_that_was_not_made_is_asked_for_in_vain_and_the_others_are_named(
    call: Doors, provider: StandIn, router: Router
) -> None:
    generate(call, router)
    (accepted,) = provider.accepted
    with pytest.raises(UnsupportedOperationError) as caught:
        call(router, "video_content", accepted.native_id, variant="script", account="north")
    assert caught.value.message == (
        "fal-ai/sora-2 made no script; it made spritesheet, thumbnail, video"
    )
