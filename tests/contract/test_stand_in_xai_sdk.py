"""The official `xai_sdk` takes the stand-in for the real thing, through a door of gRPC.

The SDK speaks gRPC and the stand-in's dialect is the JSON that xAI documents beside it. So the door
between them has no work of its own: it says a message of the SDK's protos as JSON, asks the
stand-in over its real socket, and reads the answer back into the proto. What this proves: the names
of all fields, the words of the status, the proportions and resolutions, what is told of a failure,
and that refusals arrive as the errors the SDK knows; a field that the protos lack fails the test.
What it cannot prove are the paths, HTTP's status codes, and the two fields whose JSON has another
name than the proto (`image.url`, and the status as a word): those stand on the documentation alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from stand_in_fakes import ACCOUNTS, FakeClock

from router.testing import StandIn

# gRPC keeps threads that a fork of the process would not survive.
pytestmark = pytest.mark.real

MODEL = "grok-imagine-video"
SOON = timedelta(milliseconds=5)


@pytest.fixture
def sdk() -> Any:
    """The SDK and the door, which nobody else has to wait for."""
    pytest.importorskip("xai_sdk")
    import xai_door

    return xai_door


@pytest.fixture
def at(sdk: Any) -> Iterator[Callable[..., Any]]:
    ends: list[Callable[[], object]] = []

    def at(provider: StandIn, key: str = "sk-east", kind: str = "Client") -> Any:
        door, pool = sdk.Door(provider), ThreadPoolExecutor(2)
        server = sdk.grpc.server(pool)
        sdk.video_pb2_grpc.add_VideoServicer_to_server(door, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        host = f"127.0.0.1:{port}"
        make = getattr(sdk.xai_sdk, kind)
        client = make(api_key=key, api_host=host, use_insecure_channel=True, timeout=20)
        ends.extend([lambda: server.stop(0).wait(), pool.shutdown, door.close])
        return client

    yield at
    for end in ends:
        end()


@pytest.fixture
def client(at: Callable[..., Any], provider: StandIn) -> Iterator[Any]:
    client = at(provider)
    yield client
    client.close()


def test_a_prompt_becomes_a_video(client: Any, provider: StandIn) -> None:
    made = client.video.generate(
        "a cat", MODEL, duration=10, aspect_ratio="16:9", resolution="720p", interval=SOON
    )
    assert (made.duration, made.model, made.respect_moderation) == (10, MODEL, True)
    assert made.cost_usd == pytest.approx(0.5)
    file = httpx.get(made.url, trust_env=False)
    assert file.headers["content-type"] == "video/mp4"
    assert file.content[4:8] == b"ftyp"
    assert "authorization" not in provider.requests[-1].headers
    (submit,) = provider.accepted
    assert (submit.operation, submit.account, submit.prompt) == ("generation", "east", "a cat")
    assert submit.fields["aspect_ratio"] == "16:9"
    assert submit.fields["resolution"] == "720p"


def test_every_shape_that_the_sdk_knows_and_no_other(
    sdk: Any, client: Any, provider: StandIn
) -> None:
    for name, known in (
        ("aspect_ratio", sdk.VideoAspectRatioMap),
        ("resolution", sdk.VideoResolutionMap),
    ):
        for word in known:
            client.video.start("x", MODEL, **{name: word})
        assert [submit.fields[name] for submit in provider.accepted] == list(known)
        listed = ", ".join(known)
        headers = {"authorization": "Bearer sk-east"}
        asked = {"model": MODEL, "prompt": "x", name: "odd"}
        url = f"{provider.base_url.removesuffix('/v1')}/xai/v1/videos/generations"
        refused = httpx.post(url, json=asked, headers=headers, trust_env=False)
        assert refused.json()["error"].endswith(f"expected one of {listed}.")
        provider.reset()


def test_an_image_by_link_data_or_file(client: Any, provider: StandIn) -> None:
    client.video.start("x", MODEL, image_url="https://pictures.example/a.png")
    client.video.start("x", MODEL, image_url="data:image/png;base64,aaaa")
    client.video.start("x", MODEL, image_file_id="file_1")
    assert [submit.fields["image"] for submit in provider.accepted] == [
        {"url": "https://pictures.example/a.png"},
        {"url": "data:image/png;base64,aaaa"},
        {"file_id": "file_1"},
    ]


def test_edits_and_extensions_start_from_a_link(client: Any, provider: StandIn) -> None:
    made = client.video.generate("a cat", MODEL, duration=4, interval=SOON)
    edited = client.video.generate("at night", MODEL, video_url=made.url, interval=SOON)
    assert edited.duration == 4
    longer = client.video.extend("it jumps", MODEL, video_url=made.url, duration=5, interval=SOON)
    assert longer.duration == 9
    assert [submit.operation for submit in provider.accepted] == ["generation", "edit", "extension"]


def test_the_words_of_a_request_on_its_way(
    sdk: Any, at: Callable[..., Any], clock: FakeClock
) -> None:
    with StandIn(accounts=ACCOUNTS, job_seconds=100, clock=clock, seed=7) as provider:
        client = at(provider)
        id = client.video.start("a cat", MODEL).request_id
        seen = []
        for _ in range(3):
            answer = client.video.get(id)
            seen.append((answer.status, answer.response.progress))
            clock.advance(50)
        client.close()
    words = sdk.deferred_pb2.DeferredStatus
    pending, done = words.PENDING, words.DONE
    assert seen == [(pending, 0), (pending, 50), (done, 100)]


def test_a_failure_says_why(sdk: Any, client: Any, provider: StandIn) -> None:
    provider.fault("job_fails", code="invalid_argument", message="No.")
    with pytest.raises(sdk.VideoGenerationError, match=r"\[invalid_argument\]: No\."):
        client.video.generate("a cat", MODEL, interval=SOON)


def test_a_request_may_expire(client: Any, provider: StandIn) -> None:
    provider.fault("job_fails", status="expired")
    with pytest.raises(RuntimeError, match="expired"):
        client.video.generate("a cat", MODEL, interval=SOON)


def test_a_video_that_may_not_be_shown_has_no_link(client: Any, provider: StandIn) -> None:
    provider.fault("job_fails", status="done")
    made = client.video.generate("a cat", MODEL, interval=SOON)
    assert not made.respect_moderation
    with pytest.raises(ValueError, match="moderation"):
        _ = made.url


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration": 16}, "from 1 to 15"),
        ({"prompt": ""}, "`prompt` is required"),
        ({"image_url": "a.png"}, "Invalid image url"),
    ],
)
def test_refusals_name_what_is_wrong(
    sdk: Any, client: Any, provider: StandIn, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(sdk.grpc.RpcError, match=message) as caught:
        client.video.start(**{"prompt": "x", "model": MODEL, **arguments})
    assert caught.value.code() is sdk.grpc.StatusCode.INVALID_ARGUMENT
    assert provider.accepted == []


def test_an_extension_has_its_own_bounds(sdk: Any, client: Any) -> None:
    with pytest.raises(sdk.grpc.RpcError, match="from 1 to 10"):
        client.video.extend_start("x", MODEL, video_url="https://a.example/a.mp4", duration=11)


def test_errors_arrive_as_the_clients_own(
    sdk: Any, at: Callable[..., Any], provider: StandIn
) -> None:
    client, other = at(provider), at(provider, key="wrong")
    with pytest.raises(sdk.grpc.RpcError, match="Incorrect API key") as caught:
        other.video.start("x", MODEL)
    assert caught.value.code() is sdk.grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(sdk.grpc.RpcError, match="not found") as caught:
        client.video.get("0")
    assert caught.value.code() is sdk.grpc.StatusCode.NOT_FOUND
    slow = {"code": "Some resource has been exhausted", "error": "Too many requests"}
    provider.fault("status", status=429, body=slow)
    with pytest.raises(sdk.grpc.RpcError, match="Too many requests") as caught:
        client.video.start("x", MODEL)
    assert caught.value.code() is sdk.grpc.StatusCode.RESOURCE_EXHAUSTED
    assert provider.accepted == []
    client.close()
    other.close()


def test_the_async_client(at: Callable[..., Any], provider: StandIn) -> None:
    async def scenario() -> Any:
        client = at(provider, kind="AsyncClient")
        made = await client.video.generate("a cat", MODEL, duration=4, interval=SOON)
        await client.close()
        return made

    assert asyncio.run(scenario()).duration == 4
