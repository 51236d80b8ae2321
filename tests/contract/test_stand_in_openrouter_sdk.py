"""The official `openrouter` client takes the stand-in for the real thing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from stand_in_fakes import FakeClock

from router.testing import StandIn

openrouter = pytest.importorskip("openrouter")

SUBMIT = {"model": "google/veo-3.1", "prompt": "a cat", "duration": 8, "size": "1280x720"}
FRAME = {
    "type": "image_url",
    "frame_type": "first_frame",
    "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
}


def _url(provider: StandIn) -> str:
    return provider.base_url.removesuffix("/v1") + "/api/v1"


@pytest.fixture
def client(provider: StandIn) -> Iterator[Any]:
    with openrouter.OpenRouter(api_key="sk-east", server_url=_url(provider)) as client:
        yield client.video_generation


def test_from_a_prompt_to_the_file(client: Any, provider: StandIn) -> None:
    made = client.generate(**SUBMIT)
    assert (made.status, made.polling_url) == ("pending", f"/api/v1/videos/{made.id}")
    found = client.get_generation(job_id=made.id)
    assert (found.id, found.status) == (made.id, "completed")
    assert found.usage.cost == pytest.approx(0.8)
    assert found.unsigned_urls == [f"{_url(provider)}/videos/{made.id}/content?index=0"]
    video = client.get_video_content(job_id=made.id)
    assert video.headers["content-type"] == "video/mp4"
    assert video.read()[4:8] == b"ftyp"
    (submit,) = provider.accepted
    assert (submit.operation, submit.account, submit.prompt) == ("generation", "east", "a cat")
    assert submit.fields == SUBMIT


def test_a_first_frame(client: Any, provider: StandIn) -> None:
    client.generate(**SUBMIT, frame_images=[FRAME])
    assert provider.accepted[0].fields["frame_images"] == [FRAME]


def test_a_job_on_its_way_and_one_that_failed(clock: FakeClock) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=100, clock=clock, seed=7)
    with provider, openrouter.OpenRouter(api_key="sk-east", server_url=_url(provider)) as sdk:
        client = sdk.video_generation
        provider.fault("job_fails", code="x", message="Refused by content policy.")
        made = client.generate(**SUBMIT)
        clock.advance(50)
        assert client.get_generation(job_id=made.id).status == "in_progress"
        with pytest.raises(openrouter.errors.BadRequestResponseError, match="not completed"):
            client.get_video_content(job_id=made.id)
        clock.advance(50)
        failed = client.get_generation(job_id=made.id)
        assert (failed.status, failed.error) == ("failed", "Refused by content policy.")


def test_errors_arrive_as_the_clients_own(client: Any, provider: StandIn) -> None:
    with pytest.raises(openrouter.errors.NotFoundResponseError, match="not found"):
        client.get_generation(job_id="gen-vid-1-none")
    with pytest.raises(openrouter.errors.BadRequestResponseError, match="duration"):
        client.generate(**{**SUBMIT, "duration": 0})
    error = {"error": {"code": 402, "message": "Insufficient credits."}}
    provider.fault("status", status=402, body=error)
    with pytest.raises(openrouter.errors.PaymentRequiredResponseError, match="Insufficient"):
        client.generate(**SUBMIT)
    with (
        openrouter.OpenRouter(api_key="wrong", server_url=_url(provider)) as other,
        pytest.raises(openrouter.errors.UnauthorizedResponseError),
    ):
        other.video_generation.generate(**SUBMIT)
    assert provider.accepted == []


def test_the_async_client(provider: StandIn) -> None:
    async def scenario() -> str:
        async with openrouter.OpenRouter(api_key="sk-east", server_url=_url(provider)) as sdk:
            made = await sdk.video_generation.generate_async(**SUBMIT)
            found = await sdk.video_generation.get_generation_async(job_id=made.id)
            return str(found.status)

    assert asyncio.run(scenario()) == "completed"
