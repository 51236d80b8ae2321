"""The official `openai` client works at what the stand-in has of vLLM-Omni and SGLang.

Both servers say that they are made for it; what of its methods they have not, is a 404.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from stand_in_fakes import FakeClock

from router.testing import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:.*Sora API.*:DeprecationWarning")

SERVERS = ["vllm-omni", "sglang"]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def _url(provider: StandIn, server: str) -> str:
    return provider.base_url.removesuffix("/v1") + f"/{server}/v1"


@pytest.fixture(scope="module")
def connections() -> Iterator[Any]:
    """One client for all tests: making a new one is slow."""
    with openai.OpenAI(base_url="http://unused.invalid", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def videos(connections: Any, provider: StandIn, server: str) -> Any:
    url = _url(provider, server)
    return connections.with_options(base_url=url, api_key="sk-east").videos


def test_from_a_prompt_to_the_file(videos: Any, provider: StandIn) -> None:
    made = videos.create(prompt="a cat", model="wan", seconds="4", size="832x480")
    assert (made.status, made.seconds, made.size) == ("queued", "4", "832x480")
    found = videos.retrieve(made.id)
    assert (found.id, found.status, found.progress) == (made.id, "completed", 100)
    assert videos.download_content(made.id).read()[4:8] == b"ftyp"
    assert [request.operation for request in provider.requests] == [
        "generation",
        "status",
        "content",
    ]


def test_a_picture_goes_along(videos: Any, provider: StandIn) -> None:
    videos.create(prompt="a cat", input_reference=("cat.png", PNG, "image/png"))
    (file,) = provider.requests[0].files
    assert (file.field, file.name, file.size) == ("input_reference", "cat.png", len(PNG))


def test_pages_go_from_new_to_old(videos: Any) -> None:
    made = [videos.create(prompt=f"{i}").id for i in range(3)]
    first = videos.list(limit=2)
    assert [video.id for video in first.data] == [made[2], made[1]]
    assert first.has_more
    assert [video.id for video in videos.list(after=made[1]).data] == [made[0]]
    assert [video.id for video in videos.list(order="asc").data] == made


def test_what_is_deleted_is_gone(videos: Any) -> None:
    made = videos.create(prompt="a cat")
    assert videos.delete(made.id).id == made.id
    with pytest.raises(openai.NotFoundError) as caught:
        videos.retrieve(made.id)
    # Both word their errors as FastAPI does, which the client's message leaves out.
    assert caught.value.response.json() == {"detail": "Video not found"}


def test_what_openai_has_besides_is_not_there(videos: Any) -> None:
    made = videos.create(prompt="a cat")
    with pytest.raises(openai.NotFoundError):
        videos.remix(made.id, prompt="two cats")
    with pytest.raises(openai.NotFoundError):
        videos.create_character(name="Luna", video=PNG)


def test_half_a_second_is_refused(videos: Any, provider: StandIn) -> None:
    with pytest.raises(openai.BadRequestError):
        videos.create(prompt="a cat", seconds="2.5")
    assert provider.accepted == []


def test_the_wrong_key_is_refused(connections: Any, provider: StandIn, server: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        connections.with_options(base_url=_url(provider, server), api_key="x").videos.list()
    assert provider.requests[0].status == 401


def test_a_failed_job_is_an_error_at_one_and_an_answer_at_the_other(
    connections: Any, clock: FakeClock
) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=10, clock=clock, seed=7)
    with provider:
        for server in SERVERS:
            url = _url(provider, server)
            videos = connections.with_options(base_url=url, api_key="sk-east").videos
            provider.fault("job_fails", code="boom", message="CUDA out of memory")
            made = videos.create(prompt="a cat")
            with pytest.raises(openai.NotFoundError) as early:
                videos.download_content(made.id)
            assert early.value.response.json() == {"detail": "Generation is still in-progress"}
            clock.advance(10)
            if server == "vllm-omni":
                with pytest.raises(openai.InternalServerError) as caught:
                    videos.retrieve(made.id)
                assert caught.value.status_code == 500
                assert "CUDA" in caught.value.response.text
            else:
                assert videos.retrieve(made.id).error.message == "CUDA out of memory"


def test_the_async_client(provider: StandIn, server: str) -> None:
    async def scenario() -> str:
        async with openai.AsyncOpenAI(
            base_url=_url(provider, server), api_key="sk-east", max_retries=0
        ) as client:
            made = await client.videos.create(prompt="a cat")
            return (await client.videos.retrieve(made.id)).status

    assert asyncio.run(scenario()) == "completed"
