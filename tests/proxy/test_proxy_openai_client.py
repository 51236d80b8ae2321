"""The official client for Python, unchanged, at a real port: every operation on videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from proxy_parts import routed, served, tenants
from shared_parts import KEYS, fleet

from router.proxy import application
from router.testing import StandIn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MP4 = b"\0\0\0\x18ftypmp42" + bytes(64)


@pytest.fixture
def provider() -> StandIn:
    return StandIn(accounts=KEYS, seed=7, poll_after_ms=10)


@pytest.fixture
def address(provider: StandIn) -> Iterator[str]:
    router = routed(provider, tenants(fleet("http://stand-in/v1", "east", "west")))
    with router, served(application(router, router.config.proxy)) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{address}/v1",
        api_key="pk-web",
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as found:
        yield found


def test_a_video_from_its_prompt_to_its_bytes(client: openai.OpenAI, tmp_path: Path) -> None:
    video = client.videos.create(prompt="A heron lands", model="sora-2", seconds="4")
    done = client.videos.poll(video.id)
    client.videos.download_content(video.id).write_to_file(tmp_path / "heron.mp4")
    thumbnail = client.videos.download_content(video.id, variant="thumbnail")

    assert (done.id, done.status, done.object) == (video.id, "completed", "video")
    assert (tmp_path / "heron.mp4").read_bytes()[4:8] == b"ftyp"
    assert thumbnail.response.headers["content-type"].startswith("image/")


def test_create_and_poll(client: openai.OpenAI) -> None:
    assert client.videos.create_and_poll(prompt="A heron lands").status == "completed"


def test_an_image_goes_along(client: openai.OpenAI, provider: StandIn) -> None:
    client.videos.create(prompt="x", input_reference=b"\x89PNG" + bytes(8))

    (sent,) = provider.requests[-1].files
    assert (sent.field, sent.content_type) == ("input_reference", "image/png")


def test_videos_are_listed_over_all_pages(client: openai.OpenAI) -> None:
    made = {client.videos.create(prompt="x").id for _ in range(5)}

    assert {video.id for video in client.videos.list(limit=2)} == made


def test_a_video_is_deleted(client: openai.OpenAI) -> None:
    video = client.videos.create_and_poll(prompt="x")

    assert client.videos.delete(video.id).deleted is True
    with pytest.raises(openai.NotFoundError) as gone:
        client.videos.retrieve(video.id)
    assert gone.value.request_id


def test_a_remix(client: openai.OpenAI) -> None:
    video = client.videos.create_and_poll(prompt="x")

    assert client.videos.remix(video.id, prompt="y").remixed_from_video_id == video.id


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
@pytest.mark.parametrize("operation", ["edit", "extend"])
def test_an_edit_and_an_extension_by_id(
    client: openai.OpenAI, operation: str, headers: dict[str, str]
) -> None:
    video = client.videos.create_and_poll(prompt="x")
    given: dict[str, Any] = {"prompt": "Softer light", "video": openai.omit}
    if operation == "extend":
        given["seconds"] = "8"

    made = getattr(client.videos, operation)(
        **given, extra_body={"video": {"id": video.id}}, extra_headers=headers
    )

    assert made.id != video.id


@pytest.mark.parametrize("operation", ["edit", "extend"])
def test_an_edit_and_an_extension_of_a_file(
    client: openai.OpenAI, provider: StandIn, operation: str
) -> None:
    given: dict[str, Any] = {"prompt": "Softer light", "video": MP4}
    if operation == "extend":
        given["seconds"] = "8"

    getattr(client.videos, operation)(**given, extra_body={"model": "sora-2"})

    (sent,) = provider.requests[-1].files
    assert (sent.field, sent.content_type, sent.size) == ("video", "video/mp4", len(MP4))


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
def test_a_character_and_a_video_with_it(client: openai.OpenAI, headers: dict[str, str]) -> None:
    luna = client.videos.create_character(name="Luna", video=MP4)

    assert client.videos.get_character(luna.id).name == "Luna"
    video = client.videos.create(
        prompt="Luna waves", extra_body={"characters": [{"id": luna.id}]}, extra_headers=headers
    )
    assert video.status == "queued"


def test_models_are_the_groups(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["sora-2"]


def test_what_another_tenant_made_is_not_found(client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="x")

    with pytest.raises(openai.NotFoundError):
        client.with_options(api_key="pk-batch").videos.retrieve(video.id)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="pk-nobody").videos.retrieve(video.id)


@pytest.mark.parametrize("fault", ["reset_mid_body", "garbage", "truncated"])
def test_a_client_that_repeats_by_itself_pays_once(
    client: openai.OpenAI, provider: StandIn, fault: str
) -> None:
    provider.fault(fault, operation="generation")

    with pytest.raises(openai.InternalServerError) as lost:
        client.videos.create(prompt="x")

    assert len(provider.accepted) == 1
    assert lost.value.body["accepted"] == "maybe"  # type: ignore[index]


@pytest.mark.parametrize(
    ("fault", "given"),
    [
        ("status", {"status": 408}),
        ("status", {"status": 409}),
        ("status", {"status": 425}),
        ("status", {"status": 500}),
        ("status", {"status": 504}),
        ("redirect", {"location": "/elsewhere"}),
    ],
)
def test_nor_does_it_repeat_what_the_router_would_not(
    client: openai.OpenAI, provider: StandIn, fault: str, given: dict[str, Any]
) -> None:
    """By itself it repeats 408, 409 and all from 500 on; the job was accepted here."""
    provider.fault(fault, operation="generation", times=None, after=True, **given)
    asked = 2 if fault == "redirect" else 1  # elsewhere, by the Router: nothing was taken there

    with pytest.raises(openai.APIStatusError) as failed:
        client.videos.create(prompt="x")

    assert failed.value.response.headers["x-should-retry"] == "false"
    assert len(provider.requests) == asked


async def test_the_async_client_does_the_same(address: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{address}/v1",
        api_key="pk-web",
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as client:
        video = await client.videos.create_and_poll(prompt="A heron lands")
        content = await client.videos.download_content(video.id)

        assert (await content.aread())[4:8] == b"ftyp"
        assert [one.id async for one in client.videos.list()] == [video.id]
