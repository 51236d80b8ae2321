"""Veo by the Gemini API: operations that end with a file, and a key that stays with its host."""

from __future__ import annotations

import base64
import random
from typing import Any

import httpx
import pytest
from routing_parts import CLIP, PNG, Doors, FakeClock, deployment, generate, native_of, serving

from router import (
    AmbiguousSubmitError,
    AuthenticationError,
    BadRequestError,
    DeploymentError,
    InternalServerError,
    InvalidResponseError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    Router,
    UnsupportedOperationError,
    VideoExpiredError,
    VideoNotReadyError,
)
from router.testing import SeenRequest, StandIn

GOOGLE = "https://generativelanguage.googleapis.com/v1beta"
MODEL = "veo-3.1-generate-preview"
DAY = 86_400


def veo(name: str = "north-1", **more: Any) -> dict[str, Any]:
    told = {"provider": "gemini", "base_url": GOOGLE, "model": MODEL, **more}
    return deployment(name, **told)


@pytest.fixture
def router(provider: StandIn) -> Router:
    made: Router = serving(provider, veo())
    return made


def paths(provider: StandIn) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in provider.requests]


def verdict(router: Router, operation: str, **arguments: Any) -> str:
    """Of a router with one deployment."""
    (only,) = router.explain(operation, **arguments).candidates
    return str(only.verdict)


# Generation ------------------------------------------------------------------------------------


def test_text_becomes_an_operation(call: Doors, provider: StandIn, router: Router) -> None:
    made = generate(call, router, seconds="6", size="720x1280")
    (request,) = provider.requests
    assert (request.method, request.path) == ("POST", f"/v1beta/models/{MODEL}:predictLongRunning")
    assert request.fields == {
        "instances": [{"prompt": "a heron"}],
        "parameters": {"aspectRatio": "9:16", "resolution": "720p", "durationSeconds": 6},
    }
    assert request.headers["x-goog-api-key"] == "sk-north"
    assert "authorization" not in request.headers
    assert (made.status, made.prompt, made.seconds, made.size) == (
        "queued",
        "a heron",
        "6",
        "720x1280",
    )


def test_a_native_id_with_slashes_stays_within_the_length_of_ours(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, veo(model="veo-3.1-fast-generate-preview"))
    made = generate(call, router)
    native = native_of(router, made.id)
    assert native.startswith("models/veo-3.1-fast-generate-preview/operations/")
    assert len(made.id) <= 160
    assert call(router, "video_status", made.id).id == made.id
    assert provider.requests[-1].path == f"/v1beta/{native}"
    assert call(router, "video_status", native, account="north").id == made.id


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("1280x720", {"aspectRatio": "16:9", "resolution": "720p"}),
        ("1080x1920", {"aspectRatio": "9:16", "resolution": "1080p"}),
        ("3840x2160", {"aspectRatio": "16:9", "resolution": "4k"}),
        ("9:16", {"aspectRatio": "9:16"}),
        ("1080p", {"resolution": "1080p"}),
    ],
)
def test_sizes_are_told_as_shape_and_resolution(
    call: Doors, provider: StandIn, router: Router, size: str, parameters: dict[str, str]
) -> None:
    generate(call, router, size=size)
    assert provider.requests[0].fields["parameters"] == parameters
    assert len(provider.accepted) == 1


def test_an_image_goes_along_in_base64(call: Doors, provider: StandIn, router: Router) -> None:
    image = PNG + random.Random(1).randbytes(300_000)
    generate(call, router, input_reference=("a.png", image))
    (instance,) = provider.requests[-1].fields["instances"]
    assert instance["image"]["mimeType"] == "image/png"
    assert base64.b64decode(instance["image"]["bytesBase64Encoded"], validate=True) == image
    assert instance["prompt"] == "a heron"


def test_what_we_have_no_word_for_goes_into_its_place(
    call: Doors, provider: StandIn, router: Router
) -> None:
    last = {"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}
    extra = {
        "parameters": {"negativePrompt": "rain", "personGeneration": "allow_adult"},
        "instances": [{"lastFrame": last}],
        "webhookConfig": {"uris": ["https://app.example/hook"]},
    }
    generate(call, router, seconds=8, extra_body=extra)
    assert provider.requests[0].fields == {
        "instances": [{"prompt": "a heron", "lastFrame": last}],
        "parameters": {
            "durationSeconds": 8,
            "negativePrompt": "rain",
            "personGeneration": "allow_adult",
        },
        "webhookConfig": {"uris": ["https://app.example/hook"]},
    }


@pytest.mark.parametrize("extra", [{"instances": "x y"}, {"parameters": 3}, {"labels": {1, 2}}])
def test_what_cannot_be_written_is_refused_before_sending(
    call: Doors, provider: StandIn, router: Router, extra: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError):
        generate(call, router, extra_body=extra)
    made = generate(call, router)
    sent = len(provider.requests)
    with pytest.raises(BadRequestError):
        extend(call, router, made, extra_body=extra)
    assert len(provider.requests) == sent == 1


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"seconds": "7"}, "veo makes 4 or 6 or 8 seconds; the nearest to 7 is 8"),
        ({"seconds": "5"}, "the nearest to 5 is 6"),
        ({"seconds": "20"}, "the nearest to 20 is 8"),
        ({"seconds": "4", "size": "1080p"}, "veo makes 8 seconds of 1080p"),
        ({"size": "1792x1024"}, "the nearest to 1792x1024 is 1920x1080"),
        ({"size": "480x854"}, "the nearest to 480x854 is 720x1280"),
        ({"size": "large"}, "veo makes 1280x720"),
        ({"input_reference": {"image_url": "https://pictures.example/a.png"}}, "as a file"),
        ({"input_reference": {"file_id": "file-1"}, "account": "north"}, "as a file"),
    ],
)
def test_what_veo_does_not_make_is_refused_with_the_nearest_that_works(
    call: Doors, provider: StandIn, router: Router, arguments: dict[str, Any], advice: str
) -> None:
    with pytest.raises(BadRequestError, match=advice) as caught:
        generate(call, router, **arguments)
    assert caught.value.status is None
    assert provider.requests == []


def test_of_models_nobody_knows_any_whole_length_is_asked_for(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, veo(model="models/another-1"))
    with pytest.raises(BadRequestError, match="whole seconds"):
        generate(call, router, seconds="4.5")
    with pytest.raises(BadRequestError, match="out of bound"):
        generate(call, router, seconds="5")
    assert provider.requests[0].path == "/v1beta/models/another-1:predictLongRunning"


def test_with_drop_params_it_is_made_as_it_can_be(call: Doors, provider: StandIn) -> None:
    router = serving(provider, veo(drop_params=True))
    made = generate(call, router, seconds="7", size="1792x1024")
    assert provider.requests[0].fields["parameters"] == {}
    assert any("the nearest to 7 is 8" in warning for warning in made.routing.warnings)


@pytest.mark.parametrize(
    ("base_url", "query"),
    [("https://veo.example", {}), ("https://veo.example/v1beta?team=a", {"team": "a"})],
)
def test_an_address_without_a_path_and_one_with_a_query(
    call: Doors, provider: StandIn, base_url: str, query: dict[str, str]
) -> None:
    router = serving(provider, veo(base_url=base_url))
    made = generate(call, router)
    assert extend(call, router, made).status == "queued"
    assert call(router, "video_content", made.id) == CLIP
    submitted, *_, asked, served = provider.requests
    assert submitted.path == f"/v1beta/models/{MODEL}:predictLongRunning"
    assert submitted.query == query
    assert asked.query == served.query == {**query, "alt": "media"}
    assert served.headers["x-goog-api-key"] == "sk-north"


@pytest.mark.parametrize("body", [{"id": 5}, {"name": 5}, {"name": ""}, {"name": "a/../b"}])
def test_a_submit_that_names_no_operation_is_ambiguous(
    call: Doors, provider: StandIn, router: Router, body: dict[str, Any]
) -> None:
    provider.fault("wrong_types", body=body)
    with pytest.raises(AmbiguousSubmitError):
        generate(call, router)
    assert len(provider.accepted) == 1


# Following -------------------------------------------------------------------------------------


def following(clock: FakeClock, **more: Any) -> tuple[StandIn, Router]:
    provider = StandIn(accounts={"sk-north": "north"}, job_seconds=100, clock=clock, seed=7)
    return provider, serving(provider, veo(**more), clock=clock)


def test_an_operation_is_followed_in_our_words(call: Doors, clock: FakeClock) -> None:
    _, router = following(clock)
    made = generate(call, router)
    seen = []
    for _ in range(3):
        answer = call(router, "video_status", made.id)
        assert answer.id == made.id
        assert answer.model == MODEL
        seen.append((answer.status, answer.progress, answer.done))
        clock.advance(50)
    assert seen == [
        ("in_progress", None, False),
        ("in_progress", None, False),
        ("completed", 100, True),
    ]


def test_waiting_ends_with_the_operation(call: Doors, clock: FakeClock) -> None:
    provider, router = following(clock)
    made = generate(call, router)
    assert call(router, "video_wait", made.id).done
    assert 100 <= clock.passed <= 120
    assert len(provider.requests) < 25


def test_a_filtered_video_is_the_callers_fault(call: Doors, clock: FakeClock) -> None:
    provider, router = following(clock)
    provider.fault("job_fails", code="raiMediaFiltered", message="Try rephrasing it.", times=None)
    for _ in range(4):
        made = generate(call, router)
        clock.advance(100)
        answer = call(router, "video_status", made.id)
        assert (answer.status, answer.failed) == ("failed", True)
        assert (answer.error.code, answer.error.message) == ("content_policy", "Try rephrasing it.")
        with pytest.raises(JobFailedError, match="rephrasing"):
            call(router, "video_wait", made.id)
        with pytest.raises(JobFailedError, match="rephrasing"):
            call(router, "video_content", made.id)
    assert verdict(router, "generation") == "picked", "it has done nothing wrong"


@pytest.mark.parametrize(
    ("code", "told", "ejected"),
    [("INVALID_ARGUMENT", "INVALID_ARGUMENT", False), ("server_error", "INTERNAL", True)],
)
def test_a_failed_operation_is_told_in_googles_words(
    call: Doors, clock: FakeClock, code: str, told: str, ejected: bool
) -> None:
    provider, router = following(clock)
    provider.fault("job_fails", code=code, message="No.", times=None)
    made = [generate(call, router) for _ in range(3)]
    clock.advance(100)
    for one in made:
        answer = call(router, "video_status", one.id)
        assert (answer.status, answer.error.code, answer.error.message) == ("failed", told, "No.")
    assert bool(router.statistics()["north-1"]["ejections"]) is ejected


def test_an_operation_that_ends_with_nothing_has_failed(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    name = native_of(router, made.id)
    for response in ({}, {"generateVideoResponse": {}}, {"generateVideoResponse": []}):
        nothing = {"name": name, "done": True, "response": response}
        provider.fault("garbage", body=nothing, operation="status")
        answer = call(router, "video_status", made.id)
        assert (answer.status, answer.error.code) == ("failed", "no_video")


# Content ---------------------------------------------------------------------------------------


def test_content_is_fetched_through_its_redirect_with_the_key(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    before = len(provider.requests)
    content = call(router, "video_content", made.id)
    assert content == CLIP
    assert content.content_type == "video/mp4"
    operation, asked, served = provider.requests[before:]
    assert operation.path == f"/v1beta/{native_of(router, made.id)}"
    assert asked.path.startswith("/v1beta/files/")
    assert asked.path.endswith(":download")
    assert served.path == f"/download{asked.path}"
    assert asked.query == served.query == {"alt": "media"}
    keys = {request.headers["x-goog-api-key"] for request in (operation, asked, served)}
    assert keys == {"sk-north"}


class Hosts(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Several hosts: Google's is the stand-in, the others answer as told; who came is noted."""

    def __init__(self, provider: StandIn, answers: dict[str, httpx.Response]) -> None:
        self._transport, self._answers = provider.transport, answers
        self.seen: list[httpx.Request] = []

    def _other(self, request: httpx.Request) -> httpx.Response | None:
        self.seen.append(request)
        return self._answers.get(f"{request.url.host}{request.url.path}")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._other(request) or self._transport.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._other(request) or await self._transport.handle_async_request(request)


def _made_at(provider: StandIn, uri: str) -> dict[str, Any]:
    samples = [{"video": {"uri": uri}}]
    name = provider.accepted[0].native_id
    response = {"generateVideoResponse": {"generatedSamples": samples}}
    return {"name": name, "done": True, "response": response}


def _across(provider: StandIn, answers: dict[str, httpx.Response]) -> tuple[Router, Hosts]:
    hosts = Hosts(provider, answers)
    data = {"deployments": [veo(headers={"X-Team": "films"})]}
    router = Router.from_dict(
        data, environ={}, http_client=hosts, async_http_client=hosts, clock=FakeClock()
    )
    return router, hosts


def _clip() -> httpx.Response:
    return httpx.Response(200, content=CLIP, headers={"content-type": "video/mp4"})


def test_another_hosts_file_is_fetched_without_the_key(call: Doors, provider: StandIn) -> None:
    router, hosts = _across(provider, {"cdn.example/films/1.mp4": _clip()})
    made = generate(call, router)
    body = _made_at(provider, "https://cdn.example/films/1.mp4?signed=yes")
    provider.fault("garbage", body=body, operation="status")
    assert call(router, "video_content", made.id) == CLIP
    elsewhere = hosts.seen[-1]
    assert str(elsewhere.url) == "https://cdn.example/films/1.mp4?signed=yes"
    assert "x-goog-api-key" not in elsewhere.headers
    assert "x-team" not in elsewhere.headers


def test_a_redirect_to_another_host_goes_without_the_key(call: Doors, provider: StandIn) -> None:
    router, hosts = _across(provider, {"cdn.example/1.mp4": _clip()})
    made = generate(call, router)
    provider.fault("redirect", location="https://cdn.example/1.mp4", operation="content")
    assert call(router, "video_content", made.id) == CLIP
    *_, asked, elsewhere = hosts.seen
    assert (asked.headers["x-goog-api-key"], asked.headers["x-team"]) == ("sk-north", "films")
    assert elsewhere.url.host == "cdn.example"
    assert "x-goog-api-key" not in elsewhere.headers
    assert "x-team" not in elsewhere.headers


def test_a_file_is_asked_for_by_name_at_the_address_of_the_deployment(
    call: Doors, provider: StandIn
) -> None:
    router, hosts = _across(provider, {})
    made = generate(call, router)
    file = call(router, "video_content", made.id)
    body = _made_at(
        provider, str(hosts.seen[-1].url).replace("googleapis.com", "elsewhere.example")
    )
    provider.fault("garbage", body=body, operation="status")
    assert call(router, "video_content", made.id) == file
    assert {request.url.host for request in hosts.seen} == {"generativelanguage.googleapis.com"}


def test_redirects_without_end_are_a_failure(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    provider.fault("redirect", location="/v1beta/files/x:download", operation="content", times=None)
    with pytest.raises(InvalidResponseError, match="302"):
        call(router, "video_content", made.id, retries=0)
    assert len([r for r in provider.requests if r.operation == "content"]) == 4


def test_an_address_that_is_none_is_an_invalid_answer(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    for uri in ("https://[", "https://[::1", "http://a\nb/"):
        provider.fault("garbage", body=_made_at(provider, uri), operation="status")
        with pytest.raises(DeploymentError):
            call(router, "video_content", made.id, retries=0)
    provider.fault("redirect", location="https://[", operation="content")
    with pytest.raises(InvalidResponseError):
        call(router, "video_content", made.id, retries=0)
    assert call(router, "video_content", made.id) == CLIP


def test_content_too_early_is_not_ready(call: Doors, clock: FakeClock) -> None:
    _, router = following(clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as caught:
        call(router, "video_content", made.id)
    assert caught.value.retry_after == 10
    clock.advance(100)
    assert call(router, "video_content", made.id) == CLIP


def test_after_two_days_the_video_has_expired_and_the_key_is_as_good_as_before(
    call: Doors, clock: FakeClock
) -> None:
    provider, router = following(clock)
    made = generate(call, router)
    clock.advance(100 + 2 * DAY)
    for _ in range(2):
        with pytest.raises(VideoExpiredError):
            call(router, "video_content", made.id)
    assert provider.requests[-2].status == 403
    assert call(router, "video_status", made.id).done
    generate(call, router)


# Extension -------------------------------------------------------------------------------------


def extend(call: Doors, router: Router, made: Any, **more: Any) -> Any:
    told = {"prompt": "and then", "seconds": 7, "video_id": made.id, **more}
    return call(router, "video_extension", **told)


def test_an_extension_names_the_file_of_the_earlier_video(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = generate(call, router)
    before = len(provider.requests)
    extra = {"parameters": {"negativePrompt": "rain"}}
    longer = extend(call, router, made, extra_body=extra, extra_headers={"X-Trace": "t"})
    looked, submitted = provider.requests[before:]
    assert (looked.method, looked.path) == ("GET", f"/v1beta/{native_of(router, made.id)}")
    assert submitted.path == f"/v1beta/models/{MODEL}:predictLongRunning"
    (instance,) = submitted.fields["instances"]
    assert instance["prompt"] == "and then"
    assert instance["video"]["uri"].endswith(":download?alt=media")
    assert submitted.fields["parameters"] == {"resolution": "720p", "negativePrompt": "rain"}
    assert submitted.headers["x-goog-api-key"] == "sk-north"
    assert submitted.headers["x-trace"] == "t"
    assert [one.operation for one in provider.accepted] == ["generation", "extension"]
    assert longer.id != made.id
    assert call(router, "video_content", longer.id) == CLIP


@pytest.mark.parametrize("seconds", ["4", "8"])
def test_veo_extends_by_seven_seconds_only(
    call: Doors, provider: StandIn, router: Router, seconds: str
) -> None:
    made = generate(call, router)
    with pytest.raises(BadRequestError, match="by 7 seconds"):
        extend(call, router, made, seconds=seconds)
    assert len(provider.requests) == 1


def test_an_upload_is_not_extended(call: Doors, provider: StandIn, router: Router) -> None:
    with pytest.raises(UnsupportedOperationError, match="give its video_id"):
        call(router, "video_extension", prompt="on", seconds=7, video=CLIP)
    assert provider.requests == []


def test_an_unfinished_video_is_extended_later(call: Doors, clock: FakeClock) -> None:
    provider, router = following(clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError) as caught:
        extend(call, router, made)
    assert (caught.value.accepted, caught.value.retry_after) == ("no", 10)
    clock.advance(100)
    extend(call, router, made)
    assert len(provider.accepted) == 2


def test_what_failed_has_nothing_to_extend(call: Doors, provider: StandIn, router: Router) -> None:
    provider.fault("job_fails", code="raiMediaFiltered", message="Filtered.")
    made = generate(call, router)
    with pytest.raises(BadRequestError, match="no video to extend: Filtered"):
        extend(call, router, made)
    assert len(provider.accepted) == 1


@pytest.mark.parametrize("kind", ["reset", "empty", "garbage", "truncated", "status"])
def test_a_look_at_the_source_that_fails_starts_nothing_and_another_looks(
    call: Doors, provider: StandIn, kind: str
) -> None:
    router = serving(provider, veo(), veo("north-2", account="north"))
    made = generate(call, router)
    provider.fault(kind, operation="status")
    longer = extend(call, router, made)
    assert len(longer.routing.attempts) == 2
    provider.fault(kind, operation="status", times=None)
    with pytest.raises(DeploymentError) as caught:
        extend(call, router, made)
    assert caught.value.accepted == "no"
    assert len(provider.accepted) == 2


@pytest.mark.parametrize("kind", ["reset", "empty", "garbage", "truncated"])
def test_an_extension_whose_answer_is_lost_is_not_sent_again(
    call: Doors, provider: StandIn, router: Router, kind: str
) -> None:
    made = generate(call, router)
    details = {"after": True} if kind == "reset" else {}
    provider.fault(kind, operation="generation", **details)
    with pytest.raises(AmbiguousSubmitError):
        extend(call, router, made)
    assert len(provider.accepted) == 2


def test_an_extension_follows_its_owner(call: Doors, provider: StandIn) -> None:
    router = serving(provider, veo(), veo("west-1"))
    for _ in range(4):
        made = generate(call, router)
        assert extend(call, router, made).routing.account == made.routing.account


# Errors ----------------------------------------------------------------------------------------


def google(status: int, message: str, word: str, *details: dict[str, Any]) -> dict[str, Any]:
    error = {"code": status, "message": message, "status": word, "details": list(details)}
    return {"status": status, "body": {"error": error}}


def test_a_full_minute_is_waited_for_as_long_as_its_details_say(
    call: Doors, clock: FakeClock
) -> None:
    provider = StandIn(accounts={"sk-north": "north"}, rpm=1, clock=clock)
    router = serving(provider, veo(), clock=clock)
    made = generate(call, router)
    clock.advance(22)
    with pytest.raises(RateLimitError) as caught:
        generate(call, router, retries=0)
    error = caught.value
    assert (error.status, error.code, error.retry_after) == (429, "RESOURCE_EXHAUSTED", 38)
    assert call(router, "video_status", made.id).done, "its words of billing eject nobody's reads"
    clock.advance(38)
    generate(call, router)


def test_a_day_that_is_used_up_is_no_minute(call: Doors, provider: StandIn) -> None:
    router = serving(provider, veo(), veo("west-1"))
    day = {"quotaId": "GenerateVideoRequestsPerDayPerProjectPerModel"}
    failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [day]}
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}
    said = google(429, "You exceeded your current quota", "RESOURCE_EXHAUSTED", failure, delay)
    provider.fault("status", account="north", times=None, **said)
    served = {generate(call, router).routing.account for _ in range(12)}
    assert served == {"west"}
    assert len([r for r in provider.requests if r.account == "north"]) == 1
    alone = router.explain("generation", prompt="x", account="north")
    assert [candidate.verdict for candidate in alone.candidates] == ["ejected", "not-owner"]


def test_a_wrong_key_puts_its_account_out_though_it_comes_as_a_wrong_argument(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, veo(api_key="sk-nobody"), veo("west-1"))
    assert {generate(call, router).routing.account for _ in range(12)} == {"west"}
    assert len([r for r in provider.requests if r.status == 400]) == 1
    alone = serving(provider, veo(api_key="sk-nobody"))
    with pytest.raises(AuthenticationError, match="API key not valid") as caught:
        generate(call, alone)
    assert caught.value.status == 400


def test_a_probe_tells_a_wrong_key_from_an_unknown_operation(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, veo(), veo("west-1", api_key="sk-nobody"))
    well, badly = call(router, "probe")
    assert (well.operation, well.status, well.trouble) == ("status", 404, None)
    assert (badly.status, badly.trouble) == (
        400,
        "it answered 400: API key not valid. Please pass a valid API key.",
    )
    assert provider.accepted == []


def test_a_wrong_argument_is_the_callers(call: Doors, provider: StandIn, router: Router) -> None:
    for _ in range(4):
        with pytest.raises(BadRequestError, match="`seed` isn't supported") as caught:
            generate(call, router, extra_body={"parameters": {"seed": 1}})
        assert (caught.value.status, caught.value.code) == (400, "INVALID_ARGUMENT")
    assert len(provider.requests) == 4, "nobody is ejected for it"


def test_what_is_denied_is_not_asked_for_again(call: Doors, provider: StandIn) -> None:
    router = serving(provider, veo())
    said = google(403, "Veo is not enabled for this project.", "PERMISSION_DENIED")
    provider.fault("status", **said)
    with pytest.raises(PermissionDeniedError) as caught:
        generate(call, router)
    assert (caught.value.status, caught.value.code) == (403, "PERMISSION_DENIED")


def test_a_missing_model_is_asked_for_elsewhere_and_a_missing_operation_is_not(
    call: Doors, clock: FakeClock
) -> None:
    provider = StandIn(accounts={"sk-north": "north"}, models=[MODEL], clock=clock)
    gone = veo("north-gone", model="veo-2.0-generate-001")
    router = serving(provider, gone, veo(), clock=clock)
    made = [generate(call, router) for _ in range(8)]
    assert {one.routing.deployment for one in made} == {"north-1"}
    assert len([r for r in provider.requests if r.status == 404]) == 1
    nobody = f"models/{MODEL}/operations/nobody"
    with pytest.raises(NotFoundError) as caught:
        call(router, "video_status", nobody, account="north")
    assert (caught.value.status, caught.value.code) == (404, "NOT_FOUND")
    assert call(router, "video_status", made[0].id).done
    alone = serving(provider, gone, clock=clock)
    with pytest.raises(NotFoundError):
        extend(call, alone, made[0])
    assert verdict(alone, "extension", video_id=made[0].id) == "ejected"


def test_overload_is_ambiguous_and_says_so_in_googles_words(
    call: Doors, provider: StandIn, router: Router
) -> None:
    said = google(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")
    provider.fault("status", **said)
    with pytest.raises(AmbiguousSubmitError, match="overloaded"):
        generate(call, router)
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}
    provider.fault("status", **google(503, "Later.", "UNAVAILABLE", delay))
    with pytest.raises(InternalServerError) as caught:
        generate(call, router)
    assert (caught.value.accepted, caught.value.retry_after) == ("no", 12.5)


@pytest.mark.parametrize(
    "body",
    [
        "<html>Bad Gateway</html>",
        [],
        {},
        {"error": 3},
        {"error": {"message": 5, "status": 5, "details": 5}},
        {"error": {"details": [1, {"violations": 5, "retryDelay": 5, "reason": 5}]}},
    ],
)
def test_errors_in_other_shapes_are_errors_all_the_same(
    call: Doors, provider: StandIn, router: Router, body: object
) -> None:
    provider.fault("status", status=400, body=body)
    with pytest.raises(BadRequestError):
        generate(call, router)
    provider.fault("status", status=429, body=body)
    with pytest.raises(RateLimitError):
        generate(call, router)


def test_an_error_in_a_list_of_one_is_read(call: Doors, provider: StandIn, router: Router) -> None:
    said = google(400, "Not this.", "INVALID_ARGUMENT")
    provider.fault("status", status=400, body=[said["body"]])
    with pytest.raises(BadRequestError, match=r"Not this\.") as caught:
        generate(call, router)
    assert caught.value.code == "INVALID_ARGUMENT"


# What there is not -----------------------------------------------------------------------------


_CANNOT = [
    ("video_create_character", {"name": "L", "video": CLIP}),
    ("video_get_character", {"character_id": "char_1"}),
    ("video_generation", {"prompt": "x", "characters": ["char_1"]}),
    ("video_edit", {"prompt": "x", "video_id": "v"}),
    ("video_edit", {"prompt": "x", "video": CLIP}),
    ("video_remix", {"prompt": "x", "video_id": "v"}),
    ("video_content", {"video_id": "v", "variant": "thumbnail"}),
    ("video_delete", {"video_id": "v"}),
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
    assert caught.value.accepted == "no"
    assert len(provider.requests) == 1


@pytest.mark.parametrize("native", ["files/abc", "models", "operations/abc:cancel", "x"])
def test_whatever_is_taken_for_an_id_leads_to_operations_only(
    call: Doors, provider: StandIn, router: Router, native: str
) -> None:
    with pytest.raises(NotFoundError):
        call(router, "video_status", native, account="north")
    request: SeenRequest = provider.requests[-1]
    assert request.path.startswith("/v1beta/operations/")
    assert request.path.count("/") == 3
    assert ":" not in request.path


# Beside others ---------------------------------------------------------------------------------


def test_a_mixed_group_fails_over_between_dialects(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, veo(), deployment("east-1"), clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    made = [generate(call, router, seconds=8, size="1280x720") for _ in range(5)]
    assert {one.routing.account for one in made} == {"north"}
    assert call(router, "video_content", made[0].id) == CLIP


def test_in_a_mixed_group_a_call_goes_to_whoever_can_do_it(call: Doors, provider: StandIn) -> None:
    router = serving(provider, veo(), deployment("east-1"))
    longer = {generate(call, router, seconds="12").routing.account for _ in range(10)}
    assert longer == {"east"}
    both = {generate(call, router, seconds="8").routing.account for _ in range(20)}
    assert both == {"east", "north"}


def test_from_an_image_to_the_longer_video_over_real_connections(
    call: Doors, provider: StandIn
) -> None:
    with provider:
        origin = provider.base_url.removesuffix("/v1")
        data = {"deployments": [veo(base_url=f"{origin}/v1beta")]}
        router = Router.from_dict(data, environ={})
        try:
            made = generate(call, router, input_reference=("a.png", PNG), seconds=8)
            assert call(router, "video_wait", made.id).done
            longer = extend(call, router, made)
            assert call(router, "video_wait", longer.id).done
            assert call(router, "video_content", longer.id) == CLIP
        finally:
            call.close(router)
    assert [one.operation for one in provider.accepted] == ["generation", "extension"]
    assert provider.requests[-1].path.startswith("/download/v1beta/files/")
