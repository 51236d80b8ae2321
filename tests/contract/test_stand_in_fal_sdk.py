"""The official `fal_client` takes the stand-in for the real queue.

It knows one scheme, so its address is set where its environment variable `FAL_QUEUE_RUN_HOST` ends
up; all else of it is as it comes, and the connections are real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from stand_in_fakes import ACCOUNTS, FakeClock

from router.testing import StandIn

fal_client = pytest.importorskip("fal_client")
fal = pytest.importorskip("fal_client.client")

TEXT = "fal-ai/sora-2/text-to-video"
IMAGE = "fal-ai/sora-2/image-to-video"
REMIX = "fal-ai/sora-2/video-to-video/remix"
CHARACTERS = "fal-ai/sora-2/characters"


@pytest.fixture
def slow(clock: FakeClock) -> Iterator[StandIn]:
    with StandIn(accounts=ACCOUNTS, job_seconds=100, clock=clock, seed=7) as provider:
        yield provider


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def at(provider: StandIn, key: str = "sk-east") -> Any:
        _lead(monkeypatch, provider)
        made.append(fal_client.SyncClient(key=key))
        return made[-1]

    yield at
    for client in made:
        client._client.close()  # it has no end of its own


def _lead(monkeypatch: pytest.MonkeyPatch, provider: StandIn) -> None:
    origin = provider.base_url.removesuffix("/v1")
    monkeypatch.setattr(fal, "QUEUE_URL_FORMAT", f"{origin}/")
    monkeypatch.setattr(fal, "MAX_ATTEMPTS", 1)  # it would repeat a 429 for a minute


@pytest.fixture
def client(at: Callable[..., Any], provider: StandIn) -> Any:
    return at(provider)


def test_a_prompt_becomes_a_video(client: Any, provider: StandIn) -> None:
    result = client.subscribe(TEXT, {"prompt": "a cat", "duration": 4, "aspect_ratio": "16:9"})
    video = httpx.get(result["video"]["url"], verify=False)
    assert video.headers["content-type"] == result["video"]["content_type"] == "video/mp4"
    assert video.content[4:8] == b"ftyp"
    assert httpx.get(result["thumbnail"]["url"], verify=False).content[:4] == b"RIFF"
    assert result["video_id"].startswith("video_")
    (submit,) = provider.accepted
    assert (submit.operation, submit.account, submit.prompt) == ("generation", "east", "a cat")


def test_the_words_of_a_request_on_its_way(
    at: Callable[..., Any], slow: StandIn, clock: FakeClock
) -> None:
    handle = at(slow).submit(TEXT, {"prompt": "a cat"})
    assert handle.status() == fal_client.Queued(position=0)
    clock.advance(50)
    assert handle.status() == fal_client.InProgress(logs=None)
    clock.advance(50)
    done = handle.status()
    assert isinstance(done, fal_client.Completed)
    assert (done.error, done.error_type) == (None, None)
    assert handle.get()["video"]["url"]


def test_a_result_that_is_asked_for_too_early(at: Callable[..., Any], slow: StandIn) -> None:
    client = at(slow)
    handle = client.submit(TEXT, {"prompt": "a cat"})
    headers = {"authorization": "Key sk-east"}
    answer = httpx.get(handle.response_url, headers=headers, verify=False)
    assert (answer.status_code, answer.json()) == (400, {"detail": "Request is still in progress"})


def test_an_app_and_a_request_id_lead_back_to_a_request(client: Any) -> None:
    handle = client.submit(f"{TEXT}/pro", {"prompt": "a cat"})
    found = client.get_handle(TEXT, handle.request_id)
    assert (found.status_url, found.response_url, found.cancel_url) == (
        handle.status_url,
        handle.response_url,
        handle.cancel_url,
    )
    assert client.result(IMAGE, handle.request_id)["video_id"]


def test_an_image_goes_along_in_its_url(client: Any, provider: StandIn) -> None:
    image = fal_client.encode(b"\x89PNG", "image/png")
    client.subscribe(IMAGE, {"prompt": "a cat", "image_url": image})
    assert provider.accepted[-1].fields["image_url"].startswith("data:image/png;base64,")


def test_characters_are_made_and_used(client: Any, clip: bytes) -> None:
    url = fal_client.encode(clip, "video/mp4")
    luna = client.subscribe(CHARACTERS, {"video_url": url, "name": "Luna"})
    assert luna["id"].startswith("char_")
    assert luna["name"] == "Luna"
    made = client.subscribe(TEXT, {"prompt": "Luna", "character_ids": [luna["id"]]})
    assert made["video"]["url"]


def test_a_video_that_is_not_deleted_can_be_remixed(client: Any) -> None:
    kept = client.subscribe(TEXT, {"prompt": "a cat", "delete_video": False})
    remix = client.subscribe(REMIX, {"prompt": "a dog", "video_id": kept["video_id"]})
    assert remix["video_id"] != kept["video_id"]
    gone = client.subscribe(TEXT, {"prompt": "a cat"})
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.subscribe(REMIX, {"prompt": "a dog", "video_id": gone["video_id"]})
    assert caught.value.message[0]["type"] == "feature_not_supported"


@pytest.mark.parametrize(
    ("arguments", "field", "kind"),
    [
        ({}, "prompt", "missing"),
        ({"prompt": "x", "duration": 5}, "duration", "literal_error"),
        ({"prompt": "x", "aspect_ratio": "1:1"}, "aspect_ratio", "literal_error"),
        ({"prompt": "x", "character_ids": ["char_0"]}, "character_ids", "value_error"),
        ({"prompt": "x", "character_ids": ["a", "b", "c"]}, "character_ids", "sequence_too_long"),
    ],
)
def test_what_is_wrong_with_an_input_comes_out_in_the_result(
    client: Any, arguments: dict[str, Any], field: str, kind: str
) -> None:
    handle = client.submit(TEXT, arguments)
    assert isinstance(handle.status(), fal_client.Completed)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.get()
    assert caught.value.status_code == 422
    (error,) = caught.value.message
    assert (error["loc"], error["type"]) == (["body", field], kind)


def test_a_failure_of_the_platform_stands_in_the_status_too(client: Any, provider: StandIn) -> None:
    provider.fault("job_fails", code="runner_disconnected", message="Gone.")
    handle = client.submit(TEXT, {"prompt": "a cat"})
    status = handle.status()
    assert (status.error, status.error_type) == ("Gone.", "runner_disconnected")
    with pytest.raises(fal_client.FalClientHTTPError, match=r"Gone\.") as caught:
        handle.get()
    assert (caught.value.status_code, caught.value.error_type) == (503, "runner_disconnected")


def test_a_request_on_its_way_can_be_cancelled(
    at: Callable[..., Any], slow: StandIn, clock: FakeClock
) -> None:
    client = at(slow)
    handle = client.submit(TEXT, {"prompt": "a cat"})
    clock.advance(50)
    handle.cancel()
    assert handle.status().error_type == "client_cancelled"
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.cancel()
    assert caught.value.response.json() == {"status": "ALREADY_COMPLETED"}


def test_refusals_arrive_as_the_clients_own(
    at: Callable[..., Any], client: Any, provider: StandIn
) -> None:
    with pytest.raises(fal_client.FalClientHTTPError, match="No user found") as caught:
        at(provider, key="wrong").submit(TEXT, {"prompt": "x"})
    assert caught.value.status_code == 401
    with pytest.raises(fal_client.FalClientHTTPError, match="Request not found") as caught:
        client.status(TEXT, "0")
    assert caught.value.status_code == 404
    handle = client.submit(TEXT, {"prompt": "x"})
    with pytest.raises(fal_client.FalClientHTTPError, match="Request not found"):
        at(provider, key="sk-west").status(TEXT, handle.request_id)
    provider.fault("status", status=429, body={"detail": "Slow down."})
    with pytest.raises(fal_client.FalClientHTTPError, match="Slow down") as caught:
        client.submit(TEXT, {"prompt": "x"})
    assert caught.value.status_code == 429


def test_a_file_link_needs_no_key_and_cannot_be_guessed(client: Any, provider: StandIn) -> None:
    url = client.subscribe(TEXT, {"prompt": "a cat"})["video"]["url"]
    assert httpx.get(url, verify=False).status_code == 200
    download = provider.requests[-1]
    assert (download.account, "authorization" in download.headers) == ("east", False)
    id, _, suffix = url.rpartition("/")[2].split(".")
    guessed = f"{url.rpartition('/')[0]}/{id}.{'0' * 32}.{suffix}"
    assert httpx.get(guessed, verify=False).status_code == 404


def test_other_apps_are_there_as_well(client: Any) -> None:
    assert client.subscribe("fal-ai/veo3.1", {"prompt": "a cat"})["video"]["url"]


def test_models_that_it_lacks(at: Callable[..., Any]) -> None:
    with StandIn(accounts=ACCOUNTS, models=[TEXT]) as provider:
        client = at(provider)
        client.submit(TEXT, {"prompt": "x"})
        with pytest.raises(fal_client.FalClientHTTPError, match="not found") as caught:
            client.submit("fal-ai/other", {"prompt": "x"})
        assert caught.value.status_code == 404


def test_the_async_client(monkeypatch: pytest.MonkeyPatch, provider: StandIn) -> None:
    async def scenario() -> str:
        client = fal_client.AsyncClient(key="sk-east")
        handle = await client.submit(TEXT, {"prompt": "a cat"})
        assert isinstance(await handle.status(), fal_client.Completed)
        result = await handle.get()
        await (await client._client).aclose()
        return str(result["video"]["url"])

    _lead(monkeypatch, provider)
    assert asyncio.run(scenario()).endswith(".mp4")
