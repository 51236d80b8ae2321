"""The official `google-genai` client takes the stand-in for the real thing.

Version 2 of it, the last that makes videos with a key of the Gemini API: version 3 sends them to
Google's other platform only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from stand_in_fakes import ACCOUNTS, FakeClock

from router.testing import StandIn

genai = pytest.importorskip("google.genai")
types = pytest.importorskip("google.genai.types")
errors = pytest.importorskip("google.genai.errors")

MODEL = "veo-3.1-generate-preview"
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture" * 10
DAY = 86_400.0


def _origin(provider: StandIn) -> str:
    return provider.base_url.removesuffix("/v1")


Connect = Callable[..., Any]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients that are closed in the end, whatever became of their test."""
    with contextlib.ExitStack() as stack:

        def connected(provider: StandIn, key: str = "sk-east") -> Any:
            # Loading the machine's certificates would take longer than all the rest.
            options = {"base_url": _origin(provider), "client_args": {"verify": False}}
            return stack.enter_context(genai.Client(api_key=key, http_options=options))

        yield connected


@pytest.fixture
def client(connect: Connect, provider: StandIn) -> Any:
    return connect(provider)


def _generate(client: Any, prompt: str | None = "a cat", **more: Any) -> Any:
    config = more.pop("config", None)
    source = types.GenerateVideosSource(prompt=prompt, **more)
    return client.models.generate_videos(model=MODEL, source=source, config=config)


def _video(client: Any, operation: Any) -> Any:
    (made,) = client.operations.get(operation).response.generated_videos
    return made.video


def _downloadable(video: Any) -> Any:
    """The client takes the name of a file from a secure address only, and asks its own server."""
    return types.Video(uri=video.uri.replace("http://", "https://"))


def test_text_to_video_until_the_file(client: Any, provider: StandIn) -> None:
    started = _generate(client)
    assert started.name.startswith(f"models/{MODEL}/operations/")
    assert not started.done
    operation = client.operations.get(started)
    assert operation.done
    assert operation.error is None
    video = _downloadable(_video(client, started))
    data = client.files.download(file=video)
    assert data[4:8] == b"ftyp"
    *_, asked, served = provider.requests
    assert [request.operation for request in (asked, served)] == ["content", "content"]
    assert (asked.status, served.status) == (302, 200)
    assert served.path.startswith("/download/v1beta/files/")
    assert served.headers["x-goog-api-key"] == "sk-east", "the file is not served without the key"


def test_what_is_asked_for_arrives(client: Any, provider: StandIn) -> None:
    config = types.GenerateVideosConfig(
        number_of_videos=1,
        duration_seconds=8,
        aspect_ratio="9:16",
        resolution="1080p",
        negative_prompt="dogs",
        person_generation="allow_adult",
        enhance_prompt=True,
    )
    image = types.Image(image_bytes=PNG, mime_type="image/png")
    _generate(client, image=image, config=config)
    (submit,) = provider.accepted
    assert (submit.operation, submit.account, submit.prompt) == ("generation", "east", "a cat")
    (instance,) = submit.fields["instances"]
    assert instance["image"]["mimeType"] == "image/png"
    assert submit.fields["parameters"]["resolution"] == "1080p"


def test_an_image_alone_is_enough(client: Any, provider: StandIn) -> None:
    image = types.Image(image_bytes=PNG, mime_type="image/png")
    _generate(client, prompt=None, image=image)
    assert provider.accepted[0].prompt == ""


def test_a_video_is_continued_by_its_address(client: Any, provider: StandIn) -> None:
    first = _video(client, _generate(client))
    longer = _generate(client, "and then", video=_downloadable(first))
    assert client.operations.get(longer).done
    assert [submit.operation for submit in provider.accepted] == ["generation", "extension"]
    assert provider.accepted[1].native_id == longer.name


def _refusal(asking: Callable[[], Any]) -> Any:
    with pytest.raises(errors.APIError) as caught:
        asking()
    return caught.value


def test_a_video_that_is_uploaded_is_not_continued(client: Any, clip: bytes) -> None:
    video = types.Video(video_bytes=clip, mime_type="video/mp4")
    refusal = _refusal(lambda: _generate(client, video=video))
    assert (refusal.code, refusal.status) == (400, "INVALID_ARGUMENT")
    assert "encodedVideo" in refusal.message


def test_a_video_of_another_account_is_not_continued(
    connect: Connect, client: Any, provider: StandIn
) -> None:
    mine = _downloadable(_video(client, _generate(client)))
    west = connect(provider, "sk-west")
    refusal = _refusal(lambda: _generate(west, video=mine))
    assert (refusal.code, refusal.status) == (403, "PERMISSION_DENIED")
    assert _refusal(lambda: west.files.download(file=mine)).code == 403


def test_a_high_resolution_is_not_continued(client: Any) -> None:
    config = types.GenerateVideosConfig(resolution="4k")
    video = _downloadable(_video(client, _generate(client, config=config)))
    assert "720p" in _refusal(lambda: _generate(client, video=video)).message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"duration_seconds": 5}, "durationSeconds"),
        ({"duration_seconds": 4, "resolution": "1080p"}, "durationSeconds"),
        ({"aspect_ratio": "1:1"}, "aspectRatio"),
        ({"resolution": "480p"}, "resolution"),
    ],
)
def test_what_veo_does_not_make_is_refused(
    client: Any, provider: StandIn, config: dict[str, Any], named: str
) -> None:
    refusal = _refusal(lambda: _generate(client, config=types.GenerateVideosConfig(**config)))
    assert (refusal.code, refusal.status) == (400, "INVALID_ARGUMENT")
    assert named in refusal.message
    assert provider.accepted == []


def test_a_filtered_video_is_an_end_without_a_video(client: Any, provider: StandIn) -> None:
    provider.fault("job_fails", code="raiMediaFiltered", message="The prompt was not followed.")
    operation = client.operations.get(_generate(client))
    assert operation.done
    assert operation.error is None
    assert operation.response.generated_videos is None
    assert operation.response.rai_media_filtered_count == 1
    assert operation.response.rai_media_filtered_reasons == ["The prompt was not followed."]


@pytest.mark.parametrize(
    ("code", "number"), [("INVALID_ARGUMENT", 3), ("UNAVAILABLE", 14), ("server_error", 13)]
)
def test_a_failed_operation_says_why(
    client: Any, provider: StandIn, code: str, number: int
) -> None:
    provider.fault("job_fails", code=code, message="No.")
    operation = client.operations.get(_generate(client))
    assert operation.done
    assert operation.error == {"code": number, "message": "No."}
    assert operation.response is None


def test_an_operation_may_run_for_ever(client: Any, provider: StandIn) -> None:
    provider.fault("never_ends")
    assert not client.operations.get(_generate(client)).done


def test_a_model_and_an_operation_may_be_missing(connect: Connect, client: Any) -> None:
    with StandIn(accounts=ACCOUNTS, models=["veo-3.1-fast-generate-preview"]) as other:
        refusal = _refusal(lambda: _generate(connect(other)))
    assert (refusal.code, refusal.status) == (404, "NOT_FOUND")
    assert f"models/{MODEL} is not found" in refusal.message
    nobody = types.GenerateVideosOperation(name=f"models/{MODEL}/operations/nobody")
    refusal = _refusal(lambda: client.operations.get(nobody))
    assert (refusal.code, refusal.status) == (404, "NOT_FOUND")
    assert MODEL not in refusal.message


def test_a_wrong_key_is_a_wrong_argument(connect: Connect, provider: StandIn) -> None:
    refusal = _refusal(lambda: _generate(connect(provider, "sk-nobody")))
    assert (refusal.code, refusal.status) == (400, "INVALID_ARGUMENT")
    (detail,) = refusal.details["error"]["details"]
    assert detail["reason"] == "API_KEY_INVALID"
    without = httpx.get(f"{_origin(provider)}/v1beta/operations/x", verify=False)
    assert without.status_code == 403


def test_a_full_minute_says_when_to_come_back(connect: Connect, clock: FakeClock) -> None:
    with StandIn(accounts=ACCOUNTS, rpm=1, clock=clock) as provider:
        client = connect(provider)
        _generate(client)
        clock.advance(22)
        refusal = _refusal(lambda: _generate(client))
    assert (refusal.code, refusal.status) == (429, "RESOURCE_EXHAUSTED")
    assert "billing" in refusal.message
    delays = [detail.get("retryDelay") for detail in refusal.details["error"]["details"]]
    assert "38s" in delays
    assert "retry-after" not in refusal.response.headers


def test_a_video_is_kept_for_two_days(connect: Connect, clock: FakeClock) -> None:
    with StandIn(accounts=ACCOUNTS, clock=clock) as provider:
        client = connect(provider)
        video = _downloadable(_video(client, _generate(client)))
        clock.advance(2 * DAY - 1)
        assert client.files.download(file=video)
        clock.advance(2)
        refusal = _refusal(lambda: client.files.download(file=video))
    assert (refusal.code, refusal.status) == (403, "PERMISSION_DENIED")


def test_faults_arrive_as_the_clients_own(client: Any, provider: StandIn) -> None:
    provider.fault("status", status=503, body={"error": {"code": 503, "message": "Overloaded."}})
    with pytest.raises(errors.ServerError, match="Overloaded"):
        _generate(client)
    provider.fault("reset", after=True, operation="generation")
    with pytest.raises(httpx.HTTPError):
        _generate(client)
    assert len(provider.accepted) == 1, "the answer was lost, the job was not"
    provider.fault("job_fails", operation="extension", code="INTERNAL", message="No.")
    first = _generate(client)
    longer = _generate(client, video=_downloadable(_video(client, first)))
    assert client.operations.get(first).error is None
    assert client.operations.get(longer).error is not None


def test_the_async_client(provider: StandIn) -> None:
    async def scenario() -> tuple[bytes, int]:
        # Given one of httpx, it does not take aiohttp where that happens to be installed.
        async with httpx.AsyncClient(verify=False, follow_redirects=True) as connections:
            options = {"base_url": _origin(provider), "httpx_async_client": connections}
            client = genai.Client(api_key="sk-east", http_options=options).aio
            source = types.GenerateVideosSource(prompt="a cat")
            started = await client.models.generate_videos(model=MODEL, source=source)
            (made,) = (await client.operations.get(started)).response.generated_videos
            data = await client.files.download(file=_downloadable(made.video))
            nobody = types.GenerateVideosOperation(name=f"models/{MODEL}/operations/nobody")
            with pytest.raises(errors.ClientError) as caught:
                await client.operations.get(nobody)
            return data, caught.value.code

    data, code = asyncio.run(scenario())
    assert data[4:8] == b"ftyp"
    assert code == 404
