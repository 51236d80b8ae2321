"""The official `runwayml` client takes the stand-in for the real thing."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.providers.runwayml import _KNOWN
from router.testing import StandIn

runwayml = pytest.importorskip("runwayml")

SUBMIT = {"model": "gen4.5", "prompt_text": "a cat", "ratio": "1280:720", "duration": 5}


def _origin(provider: StandIn) -> str:
    return provider.base_url.removesuffix("/v1")


@pytest.fixture(scope="module")
def connections() -> Iterator[Any]:
    """One client for all tests: making a new one is slow."""
    with runwayml.RunwayML(api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def client(connections: Any, provider: StandIn) -> Any:
    return connections.with_options(api_key="sk-east", base_url=_origin(provider))


def test_text_to_video_until_the_file(client: Any, provider: StandIn) -> None:
    task = client.tasks.retrieve(client.text_to_video.create(**SUBMIT).id)
    assert task.status == "SUCCEEDED"
    (url,) = task.output
    video = httpx.get(url, verify=False)
    assert video.headers["content-type"] == "video/mp4"
    assert video.content[4:8] == b"ftyp"
    assert [request.operation for request in provider.requests] == [
        "generation",
        "status",
        "content",
    ]
    download = provider.requests[-1]
    assert "authorization" not in download.headers
    assert download.account == "east", "whose file it is, though no key was shown"


def test_a_key_leaked_to_a_file_link_shows(client: Any, provider: StandIn) -> None:
    task = client.tasks.retrieve(client.text_to_video.create(**SUBMIT).id)
    httpx.get(task.output[0], headers={"authorization": "Bearer sk-east"}, verify=False)
    assert provider.requests[-1].headers["authorization"] == "Bearer sk-east"


def test_a_file_link_needs_its_token(client: Any) -> None:
    task = client.tasks.retrieve(client.text_to_video.create(**SUBMIT).id)
    assert httpx.get(task.output[0].partition("?")[0], verify=False).status_code == 401


def test_image_to_video(client: Any, provider: StandIn) -> None:
    client.image_to_video.create(**SUBMIT, prompt_image="https://example.com/cat.png")
    (submit,) = provider.accepted
    assert (submit.operation, submit.account, submit.prompt) == ("generation", "east", "a cat")
    assert submit.fields["promptImage"] == "https://example.com/cat.png"


def test_a_deleted_task_is_gone(client: Any) -> None:
    id = client.text_to_video.create(**SUBMIT).id
    client.tasks.delete(id)
    with pytest.raises(runwayml.NotFoundError, match="Task not found"):
        client.tasks.retrieve(id)


def test_a_failed_task_says_why(client: Any, provider: StandIn) -> None:
    provider.fault("job_fails", code="SAFETY.INPUT.TEXT", message="No.")
    task = client.tasks.retrieve(client.text_to_video.create(**SUBMIT).id)
    assert (task.status, task.failure, task.failure_code) == ("FAILED", "No.", "SAFETY.INPUT.TEXT")


@pytest.mark.parametrize("status", ["THROTTLED", "RUNNING"])
def test_a_task_may_wait_for_ever(client: Any, provider: StandIn, status: str) -> None:
    provider.fault("never_ends", status=status)
    assert client.tasks.retrieve(client.text_to_video.create(**SUBMIT).id).status == status


def test_errors_arrive_as_the_clients_own(client: Any, provider: StandIn) -> None:
    with pytest.raises(runwayml.BadRequestError, match="model is required"):
        client.text_to_video.create(**{**SUBMIT, "model": ""})
    with pytest.raises(runwayml.AuthenticationError):
        client.with_options(api_key="wrong").tasks.retrieve("0")
    provider.fault("status", status=429, body={"error": "Slow down."})
    with pytest.raises(runwayml.RateLimitError, match="Slow down"):
        client.text_to_video.create(**SUBMIT)
    assert provider.accepted == []


def test_the_version_header_is_required(provider: StandIn) -> None:
    headers = {"authorization": "Bearer sk-east"}
    answer = httpx.get(f"{provider.base_url}/tasks/0", headers=headers, verify=False)
    assert answer.status_code == 400
    assert answer.json() == {"error": "X-Runway-Version header is required."}


def test_the_async_client(provider: StandIn) -> None:
    async def scenario() -> str:
        async with runwayml.AsyncRunwayML(
            api_key="sk-east", base_url=_origin(provider), max_retries=0
        ) as client:
            created = await client.text_to_video.create(**SUBMIT)
            return (await client.tasks.retrieve(created.id)).status

    assert asyncio.run(scenario()) == "SUCCEEDED"


def test_what_our_provider_knows_of_models_is_what_the_client_knows() -> None:
    from runwayml.types import image_to_video_create_params as image
    from runwayml.types import text_to_video_create_params as text

    for place, params in enumerate((text.TextToVideoCreateParams, image.ImageToVideoCreateParams)):
        models = {model: hints for hints in _hints(params) for model in _literals(hints["model"])}
        for name, ours in _KNOWN.items():
            if name == "gen4_turbo" and not place:
                assert name not in models, "it makes videos of images only"
                continue
            assert set(ours[place]) == set(_literals(models[name]["ratio"]))
            lengths = _literals(models[name]["duration"])
            assert not lengths or set(ours[2]) == set(lengths)


def _hints(params: Any) -> list[dict[str, Any]]:
    return [typing.get_type_hints(one, include_extras=True) for one in typing.get_args(params)]


def _literals(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return next((found for arg in typing.get_args(hint) if (found := _literals(arg))), ())
