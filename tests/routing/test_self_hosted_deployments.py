"""Servers of one's own that speak a part of OpenAI's dialect: vLLM-Omni and SGLang."""

from __future__ import annotations

import json
from typing import Any

import pytest
from routing_parts import CLIP, PNG, Doors, FakeClock, deployment, generate, serving

from router import (
    BadRequestError,
    JobFailedError,
    NotFoundError,
    Router,
    UnsupportedOperationError,
    VideoNotReadyError,
)
from router.events import Ejected
from router.testing import SeenRequest, StandIn

SERVERS = ["vllm-omni", "sglang"]


def own(server: str, name: str = "north-1", **more: Any) -> dict[str, Any]:
    told = {"provider": server, "base_url": f"http://stand-in/{server}/v1", "model": "wan"}
    return deployment(name, **{**told, **more})


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def router(provider: StandIn, server: str) -> Router:
    made: Router = serving(provider, own(server))
    return made


def _is_form(request: SeenRequest) -> bool:
    return request.headers["content-type"].startswith("multipart/form-data")


def test_a_video_from_the_prompt_to_the_file(
    call: Doors, provider: StandIn, router: Router, server: str
) -> None:
    made = generate(call, router, seconds="4", size="832x480")
    assert (made.status, made.seconds, made.size) == ("queued", "4", "832x480")
    assert call(router, "video_status", made.id).done
    assert call(router, "video_content", made.id) == CLIP
    assert [video.id for video in call(router, "video_list").data] == [made.id]
    deleted = call(router, "video_delete", made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "video.deleted")
    with pytest.raises(NotFoundError):
        call(router, "video_status", made.id)
    submit = provider.requests[0]
    assert submit.path == f"/{server}/v1/videos"
    assert submit.fields == {
        "model": "wan",
        "prompt": "a heron",
        "seconds": "4",
        "size": "832x480",
    }
    # One takes nothing but forms; the other takes them only with a file.
    assert _is_form(submit) == (server == "vllm-omni")


def test_an_image_is_a_file_or_stands_in_the_servers_own_field(
    call: Doors, provider: StandIn, router: Router, server: str
) -> None:
    generate(call, router, input_reference=("a.png", PNG))
    with_file = provider.requests[-1]
    assert [file.field for file in with_file.files] == ["input_reference"]
    assert _is_form(with_file)
    url = "https://pictures.example/a.png"
    generate(call, router, input_reference={"image_url": url})
    with_url = provider.requests[-1]
    assert "input_reference" not in with_url.fields
    if server == "vllm-omni":
        assert json.loads(with_url.fields["image_reference"]) == {"image_url": url}
    else:
        assert with_url.fields["reference_url"] == url
    assert _is_form(with_url) == (server == "vllm-omni")


def test_the_user_is_sent_where_the_server_knows_of_one(
    call: Doors, provider: StandIn, router: Router, server: str
) -> None:
    generate(call, router, user="user-7", extra_body={"num_inference_steps": 40})
    fields = provider.requests[0].fields
    assert fields.get("user") == ("user-7" if server == "vllm-omni" else None)
    assert str(fields["num_inference_steps"]) == "40"


_CANNOT = [
    ("video_create_character", {"name": "L", "video": CLIP}),
    ("video_get_character", {"character_id": "char_1"}),
    ("video_generation", {"prompt": "x", "characters": ["char_1"]}),
    ("video_edit", {"prompt": "x", "video_id": "v"}),
    ("video_edit", {"prompt": "x", "video": CLIP}),
    ("video_extension", {"prompt": "x", "seconds": 4, "video_id": "v"}),
    ("video_remix", {"prompt": "x", "video_id": "v"}),
    ("video_content", {"video_id": "v", "variant": "thumbnail"}),
]


@pytest.mark.parametrize(("method", "arguments"), _CANNOT)
def test_what_it_cannot_do_is_unsupported_before_anything_is_sent(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    made = generate(call, router)
    named = {k: made.id if v == "v" else v for k, v in arguments.items()}
    with pytest.raises(UnsupportedOperationError) as caught:
        call(router, method, **named)
    assert caught.value.accepted == "no"
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"seconds": "2.5"}, "whole seconds; the nearest to 2.5 is 2"),
        ({"input_reference": {"file_id": "file-1"}, "account": "north"}, "as a file"),
    ],
)
def test_a_value_it_cannot_take_is_refused_with_the_nearest_that_works(
    call: Doors, provider: StandIn, router: Router, arguments: dict[str, Any], advice: str
) -> None:
    with pytest.raises(BadRequestError, match=advice) as caught:
        generate(call, router, **arguments)
    assert (caught.value.status, caught.value.accepted) == (None, "no")
    assert provider.requests == []


def test_content_too_early_is_not_ready(call: Doors, clock: FakeClock, server: str) -> None:
    provider = StandIn(accounts={"sk-north": "north"}, job_seconds=100, clock=clock, seed=7)
    router = serving(provider, own(server), clock=clock)
    made = generate(call, router)
    with pytest.raises(VideoNotReadyError):
        call(router, "video_content", made.id)
    clock.advance(100)
    assert call(router, "video_content", made.id) == CLIP


@pytest.mark.parametrize(
    ("code", "is_its_own"), [("500", True), ("400", False), ("EngineDeadError", True)]
)
def test_a_job_that_failed_is_an_answer_whatever_its_status(
    call: Doors, clock: FakeClock, server: str, code: str, is_its_own: bool
) -> None:
    provider = StandIn(accounts={"sk-north": "north"}, job_seconds=100, clock=clock, seed=7)
    events: list[object] = []
    router = serving(provider, own(server), clock=clock, on_event=events.append)
    provider.fault("job_fails", code=code, message="It did not work.", times=None)
    *others, made = [generate(call, router) for _ in range(3)]
    clock.advance(100)
    for other in others:
        call(router, "video_status", other.id)
    answer = call(router, "video_status", made.id)
    assert (answer.status, answer.failed, answer.error.message) == (
        "failed",
        True,
        "It did not work.",
    )
    assert answer.routing.attempts[0].result == "success", "the server is well: it told of a job"
    with pytest.raises(JobFailedError):
        call(router, "video_wait", made.id)
    # Three jobs that it failed by itself are enough; what callers asked for says nothing of it.
    ejected = [event.cause for event in events if isinstance(event, Ejected)]
    assert ejected == (["failures"] if is_its_own else [])


def test_a_server_in_trouble_is_no_failed_job(call: Doors, router: Router, server: str) -> None:
    provider = StandIn(accounts={"sk-north": "north"}, seed=7)
    router = serving(provider, own(server), settings={"retries": 0})
    made = generate(call, router)
    provider.fault("status", status=500, body={"detail": "out of memory"}, operation="status")
    with pytest.raises(Exception, match="out of memory") as caught:
        call(router, "video_status", made.id)
    assert caught.value.status == 500  # type: ignore[attr-defined]  # an error of ours has one


def test_it_is_of_the_dialect_that_it_speaks(call: Doors, provider: StandIn, server: str) -> None:
    router = serving(provider, own(server))
    assert generate(call, router, custom_llm_provider="openai").routing.account == "north"
    assert generate(call, router, custom_llm_provider=server).routing.account == "north"
