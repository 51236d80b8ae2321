"""The official `openai` client takes the stand-in for the real thing, through both of its doors.

The client is 2.x (over httpx) or 3.x (over httpx2); nothing here knows which.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from router.testing import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:.*Sora API.*:DeprecationWarning")

VIDEO_KEYS = {  # all that the published schema requires
    *("id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at"),
    *("prompt", "size", "seconds", "remixed_from_video_id", "error"),
}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


class Sdk:
    """`client.videos` of either client: what the async one returns is awaited on one loop."""

    def __init__(self, client: Any, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def at(self, provider: StandIn, api_key: str = "sk-east", **options: Any) -> Sdk:
        """The same connections under another address: making new ones is slow."""
        base_url = provider.base_url
        client = self._client.with_options(base_url=base_url, api_key=api_key, **options)
        return Sdk(client, self._runner)

    def wait(self, result: Any) -> Any:
        if not hasattr(result, "__await__"):
            return result

        async def awaited() -> Any:
            return await result

        return self._runner.run(awaited())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client.videos, name)
        return lambda *args, **kwargs: self.wait(method(*args, **kwargs))


@pytest.fixture(scope="module", params=["sync", "async"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    kind = openai.OpenAI if request.param == "sync" else openai.AsyncOpenAI
    client: Any = kind(base_url="http://unused.invalid", api_key="unused", max_retries=0)
    with asyncio.Runner() as runner:
        sdk = Sdk(client, runner)
        yield sdk
        sdk.wait(client.close())


@pytest.fixture
def videos(sdk: Sdk, provider: StandIn) -> Sdk:
    return sdk.at(provider)


def test_create_then_retrieve(videos: Sdk, provider: StandIn) -> None:
    created = videos.create(prompt="a cat", model="sora-2", seconds="8", size="1280x720")
    assert created.status == "queued"
    assert created.id.startswith("video_")
    assert len(created.id) == len("video_") + 32
    assert (created.seconds, created.size, created.prompt) == ("8", "1280x720", "a cat")

    video = videos.retrieve(created.id)
    assert set(video.to_dict()) == VIDEO_KEYS
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert video.expires_at == video.completed_at + 3600
    (submit,) = provider.accepted
    assert (submit.operation, submit.account, submit.native_id) == ("generation", "east", video.id)


def test_create_and_poll_returns_the_finished_video(videos: Sdk) -> None:
    assert videos.create_and_poll(prompt="a cat").status == "completed"


def test_poll_sees_a_failed_job(videos: Sdk, provider: StandIn) -> None:
    provider.fault("job_fails", code="moderation_blocked", message="No.")
    video = videos.poll(videos.create(prompt="a cat").id)
    assert video.status == "failed"
    assert (video.error.code, video.error.message) == ("moderation_blocked", "No.")


@pytest.mark.parametrize(
    ("reference", "name"),
    [(PNG, "upload"), (io.BytesIO(PNG), "upload"), (("cat.png", PNG, "image/png"), "cat.png")],
    ids=["bytes", "open file", "tuple"],
)
def test_create_with_an_input_reference(
    videos: Sdk, provider: StandIn, reference: Any, name: str
) -> None:
    videos.create(prompt="a cat", input_reference=reference)
    (request,) = provider.requests
    (file,) = request.files
    assert (file.field, file.name, file.size) == ("input_reference", name, len(PNG))
    assert request.fields == {"prompt": "a cat"}


@pytest.mark.parametrize("as_json", [False, True])
def test_create_with_characters(videos: Sdk, provider: StandIn, clip: bytes, as_json: bool) -> None:
    ids = [videos.create_character(name=name, video=clip).id for name in ("Tom", "Jerry")]
    headers = {"Content-Type": "application/json"} if as_json else {}
    characters = [{"id": id} for id in ids]
    body = {"characters": characters}
    videos.create(prompt="Tom and Jerry", extra_body=body, extra_headers=headers)
    assert provider.requests[-1].fields == {"prompt": "Tom and Jerry", "characters": characters}


def test_an_unknown_character_is_a_bad_request(videos: Sdk) -> None:
    with pytest.raises(openai.BadRequestError, match="Character with id 'char_0' not found"):
        videos.create(prompt="x", extra_body={"characters": [{"id": "char_0"}]})


def test_list_pages_through_everything(videos: Sdk) -> None:
    ids = [videos.create(prompt=f"video {number}").id for number in range(5)]
    page = videos.list(limit=2)
    assert [video.id for video in page.data] == [ids[4], ids[3]]
    assert page.has_more
    seen: list[str] = []
    while True:
        seen += [video.id for video in page.data]
        if not page.has_next_page():
            break
        page = videos.wait(page.get_next_page())
    assert seen == ids[::-1]
    ascending = videos.list(order="asc", after=ids[2])
    assert [video.id for video in ascending.data] == ids[3:]


def test_delete(videos: Sdk) -> None:
    id = videos.create(prompt="x").id
    deleted = videos.delete(id)
    assert deleted.to_dict() == {"id": id, "object": "video.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError, match=f"Video with id '{id}' not found"):
        videos.retrieve(id)


@pytest.mark.parametrize(
    ("variant", "content_type", "magic"),
    [
        ("video", "video/mp4", b"ftyp"),
        ("thumbnail", "image/webp", b"WEBPVP8"),
        ("spritesheet", "image/jpeg", b"\xff\xd8\xff"),
    ],
)
def test_download_content(videos: Sdk, variant: str, content_type: str, magic: bytes) -> None:
    id = videos.create(prompt="x").id
    content = videos.download_content(id, variant=variant)
    assert content.response.headers["content-type"] == content_type
    assert magic in content.content[:16]


def test_remix(videos: Sdk, provider: StandIn) -> None:
    source = videos.create(prompt="x", model="sora-2-pro", seconds="12")
    remix = videos.remix(source.id, prompt="bluer")
    assert remix.remixed_from_video_id == source.id
    assert (remix.model, remix.seconds, remix.prompt) == ("sora-2-pro", "12", "bluer")
    assert provider.accepted[-1].operation == "remix"


@pytest.mark.parametrize("as_json", [False, True])
def test_edit_by_id(videos: Sdk, provider: StandIn, as_json: bool) -> None:
    source = videos.create(prompt="x", seconds="8")
    edit = videos.edit(
        prompt="bluer",
        video=openai.omit,
        extra_body={"video": {"id": source.id}},
        extra_headers={"Content-Type": "application/json"} if as_json else {},
    )
    assert (edit.remixed_from_video_id, edit.seconds) == (source.id, "8")
    assert provider.requests[-1].fields["video"] == {"id": source.id}


def test_edit_by_upload_needs_a_model(videos: Sdk, clip: bytes) -> None:
    edit = videos.edit(prompt="bluer", video=clip, extra_body={"model": "sora-2"})
    assert edit.remixed_from_video_id is None
    assert edit.seconds == "3", "the clip's own length"
    with pytest.raises(openai.BadRequestError) as caught:
        videos.edit(prompt="bluer", video=clip)
    assert caught.value.param == "model"


def test_extend_answers_with_the_stitched_length(videos: Sdk, clip: bytes) -> None:
    source = videos.create(prompt="x", seconds="8")
    body = {"video": {"id": source.id}}
    extension = videos.extend(prompt="on", seconds="12", video=openai.omit, extra_body=body)
    assert (extension.seconds, extension.remixed_from_video_id) == ("20", source.id)
    upload = videos.extend(prompt="on", seconds="4", video=clip, extra_body={"model": "sora-2"})
    assert (upload.seconds, upload.remixed_from_video_id) == ("7", None)


def test_characters(videos: Sdk, provider: StandIn, clip: bytes) -> None:
    created = videos.create_character(name="Tom", video=("tom.mp4", clip, "video/mp4"))
    assert set(created.to_dict()) == {"id", "name", "created_at"}
    assert created.id.startswith("char_")
    assert videos.get_character(created.id).to_dict() == created.to_dict()
    (submit,) = provider.accepted
    assert (submit.operation, submit.prompt) == ("create_character", None)
    assert submit.fields == {"name": "Tom"}


def test_a_clip_that_is_none_is_a_bad_request(videos: Sdk) -> None:
    with pytest.raises(openai.BadRequestError):
        videos.create_character(name="Tom", video=b"GIF89a, not a clip")


def test_errors_arrive_as_the_clients_own(videos: Sdk, provider: StandIn) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown_key:
        videos.at(provider, api_key="sk-of-somebody-else-entirely").create(prompt="x")
    assert unknown_key.value.code == "invalid_api_key"
    assert "sk-of-somebody-else-entirely" not in str(unknown_key.value)
    with pytest.raises(openai.NotFoundError) as unknown_id:
        videos.retrieve("video_0")
    assert unknown_id.value.request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError):
        videos.get_character("char_0")
    with pytest.raises(openai.BadRequestError) as bad_size:
        videos.create(prompt="x", size="1x1")
    assert (bad_size.value.param, bad_size.value.code) == ("size", "invalid_value")
    provider.fault("status", status=429, headers={"retry-after": "7"})
    with pytest.raises(openai.RateLimitError) as limited:
        videos.create(prompt="x")
    assert limited.value.response.headers["retry-after"] == "7"
    assert provider.accepted == []


def test_a_lost_answer_is_a_paid_job_twice_when_the_client_retries(
    videos: Sdk, provider: StandIn
) -> None:
    """What this whole project is about, shown on the client that ships with the API."""
    provider.fault("status", status=500, headers={"retry-after-ms": "1"}, after=True)
    videos.at(provider, max_retries=1).create(prompt="x")
    assert len(provider.accepted) == 2


def test_ids_are_routed_before_they_are_decoded(videos: Sdk, provider: StandIn) -> None:
    with pytest.raises(openai.NotFoundError, match="Video with id 'a/b c' not found"):
        videos.retrieve("a/b c")
    assert provider.requests[-1].path == "/v1/videos/a%2Fb%20c"
