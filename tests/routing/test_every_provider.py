"""What holds whoever the provider is: paid for once, no key to strangers, no odd answer harms."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from routing_parts import CLIP, PNG, Doors, FakeClock, serving
from test_mixed_groups import EVERY, HERO, at
from test_provider_conformance import BARE, deployment

from router import (
    AmbiguousSubmitError,
    BadRequestError,
    CapacityError,
    JobFailedError,
    NotFoundError,
    Router,
    RouterError,
    UnsupportedOperationError,
    VideoExpiredError,
)
from router.messages import InvalidBody, Reply, Request
from router.providers import PROVIDERS, Bound
from router.testing import StandIn
from router.types import Answer, Operation

# Submits that name a video which exists, and look it up before they are sent.
LOOKING = [
    ("fal", "video_remix", {}),
    ("gemini", "video_extension", {"seconds": 7}),
    ("xai", "video_edit", {}),
    ("xai", "video_extension", {"seconds": 7}),
]
# Whose videos lie on another host.
BY_LINK = ["fal", "gemini", "runwayml", "xai"]
LINK = "https://cdn.example/films/1.mp4?signed=yes"
KEEPING: Mapping[str, Any] = {"fal": {"extra_body": {"delete_video": False}}}


@pytest.fixture
def vendors(clock: FakeClock) -> StandIn:
    accounts = {f"sk-{name}": name for name in EVERY}
    return StandIn(accounts=accounts, clock=clock, seed=7)


def served_by(vendors: StandIn, name: str, clock: FakeClock, **more: Any) -> Router:
    router: Router = serving(vendors, {**at(name), **more}, clock=clock)
    return router


def generate(call: Doors, router: Router, **more: Any) -> Any:
    return call(router, "video_generation", **{**HERO, **more})


# Paid for once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fault", ["reset", "empty", "truncated", "garbage", "wrong_types"])
def test_a_submit_whose_answer_is_lost_is_sent_to_nobody_again(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, fault: str
) -> None:
    others = [at(other, order=2) for other in EVERY if other != name]
    router = serving(vendors, at(name), *others, clock=clock)
    vendors.fault(fault, operation="generation", times=None, after=True)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generate(call, router)
    assert (caught.value.accepted, caught.value.account) == ("maybe", name)
    assert [submit.account for submit in vendors.accepted] == [name]


@pytest.mark.parametrize(("name", "method", "more"), LOOKING)
def test_under_a_key_a_submit_that_looked_first_and_was_lost_is_one_job(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, method: str, more: dict[str, Any]
) -> None:
    router = served_by(vendors, name, clock)
    made = generate(call, router, **KEEPING.get(name, {}))
    asked = {"video_id": made.id, "prompt": "on", "idempotency_key": "k", **more}
    submit = "generation" if name == "gemini" else method.removeprefix("video_")
    vendors.fault("reset", operation=submit, after=True)
    for _ in range(2):
        with pytest.raises(AmbiguousSubmitError):
            call(router, method, **asked)
    assert len(vendors.accepted) == 2, "the first video, and what was made of it"


@pytest.mark.parametrize(("name", "method", "more"), LOOKING)
def test_what_looks_first_and_is_cancelled_anywhere_keeps_its_slot_where_it_was_accepted(
    vendors: StandIn, clock: FakeClock, name: str, method: str, more: dict[str, Any]
) -> None:
    limits = {"max_parallel_jobs": 1}

    async def cancelled_after(steps: int) -> bool:
        """Whether there was anything left to cancel."""
        router = served_by(vendors, name, clock, **limits)
        made = await router.avideo_generation(**HERO, **KEEPING.get(name, {}))
        assert (await router.avideo_status(made.id)).done
        before = len(vendors.accepted)
        call = getattr(router, f"a{method}")(video_id=made.id, prompt="on", **more)
        task = asyncio.create_task(call)
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            return False
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if len(vendors.accepted) > before:
            with pytest.raises(CapacityError):
                await router.avideo_generation(**HERO)
        else:
            assert (await router.avideo_generation(**HERO)).status == "queued"
        await router.aclose()
        return True

    async def story() -> int:
        steps = 0
        while await cancelled_after(steps):
            steps += 1
        return steps

    assert asyncio.run(story()) > 2, "it was cancelled at more than its beginning and its end"


@pytest.mark.parametrize(("name", "method", "more"), LOOKING)
def test_what_cannot_be_written_is_refused_before_anything_is_looked_up(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, method: str, more: dict[str, Any]
) -> None:
    router = served_by(vendors, name, clock)
    body = {"seed": {1, 2}}
    with pytest.raises(BadRequestError, match="cannot be written"):
        call(router, method, video_id="v", prompt="on", account=name, extra_body=body, **more)
    assert vendors.requests == []


@pytest.mark.parametrize(("name", "method", "more"), LOOKING)
def test_the_callers_query_and_headers_go_with_the_submit_and_not_only_with_the_look(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, method: str, more: dict[str, Any]
) -> None:
    router = served_by(vendors, name, clock)
    made = generate(call, router, **KEEPING.get(name, {}))
    more = {**more, "extra_query": {"trace": "7"}, "extra_headers": {"X-Trace": "7"}}
    call(router, method, video_id=made.id, prompt="on", **more)
    submit = vendors.requests[-1]
    assert submit.method == "POST"
    assert submit.query["trace"] == "7"
    assert submit.headers["x-trace"] == "7"


# Strangers ---------------------------------------------------------------------------------------


class Strangers(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The stand-in, and other hosts that all give the same answer."""

    def __init__(self, vendors: StandIn, status: int) -> None:
        self._vendors, self._status = vendors.transport, status
        self.asked: list[httpx.Request] = []

    def _answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "stand-in":
            return None
        self.asked.append(request)
        known = self._status == 200
        headers = {"content-type": "video/mp4" if known else "application/xml"}
        body = CLIP if known else b"<Error><Code>AccessDenied</Code></Error>"
        return httpx.Response(self._status, content=body, headers=headers)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request) or self._vendors.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request) or await self._vendors.handle_async_request(request)


def elsewhere(vendors: StandIn, name: str) -> None:
    """The next video that is asked for lies on another host."""
    sample = {"generatedSamples": [{"video": {"uri": LINK}}]}
    body: dict[str, Any] = {
        "fal": {"video": {"url": LINK}},
        "gemini": {"name": "x", "done": True, "response": {"generateVideoResponse": sample}},
        "runwayml": {"id": "x", "status": "SUCCEEDED", "output": [LINK]},
        "xai": {"status": "done", "video": {"url": LINK}},
    }[name]
    vendors.fault("garbage", body=body, operation="result" if name == "fal" else "status")


def across(
    vendors: StandIn, name: str, clock: FakeClock, status: int = 200
) -> tuple[Router, Strangers]:
    hosts = Strangers(vendors, status)
    data = {"deployments": [{**at(name), "headers": {"X-Team": "films"}}]}
    parts: dict[str, Any] = {"http_client": hosts, "async_http_client": hosts, "clock": clock}
    return Router.from_dict(data, environ={}, **parts), hosts


@pytest.mark.parametrize("name", BY_LINK)
def test_a_stranger_is_told_neither_key_nor_header(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str
) -> None:
    router, hosts = across(vendors, name, clock)
    made = generate(call, router)
    elsewhere(vendors, name)
    content = call(router, "video_content", made.id, extra_headers={"X-Trace": "mine"})
    assert content == CLIP
    (asked,) = hosts.asked
    assert str(asked.url) == LINK
    told = " ".join(f"{key}: {value}" for key, value in asked.headers.items()).lower()
    for secret in (f"sk-{name}", "films", "mine", "authorization", "x-goog-api-key"):
        assert secret not in told


@pytest.mark.parametrize("name", BY_LINK)
@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_a_stranger_denies_is_the_file_and_puts_no_account_out(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, status: int
) -> None:
    router, hosts = across(vendors, name, clock, status)
    made = generate(call, router)
    assert call(router, "video_content", made.id) == CLIP, "this account has worked before"
    elsewhere(vendors, name)
    with pytest.raises(VideoExpiredError):
        call(router, "video_content", made.id)
    assert len(hosts.asked) == 1
    assert router.statistics()[f"at-{name}"]["ejections"] == []
    assert generate(call, router).status == "queued"


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("native", ["a/../b", "..", "a\\..\\b", "../../v1/keys"])
def test_no_id_leads_out_of_the_videos(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, native: str
) -> None:
    router = served_by(vendors, name, clock)
    with pytest.raises(RouterError, match="path"):
        call(router, "video_status", native, account=name)
    assert vendors.requests == []


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("native", ["a%2Fb", "a?b=c", "a#b", "a;b", "a:cancel", "models/a:b"])
def test_an_id_is_one_and_no_address(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, native: str
) -> None:
    router = served_by(vendors, name, clock)
    with pytest.raises((NotFoundError, BadRequestError)):
        call(router, "video_status", native, account=name)
    assert len(vendors.requests) == 1
    (asked,) = vendors.requests
    assert asked.method == "GET"
    assert asked.query == {}


# Odd answers -------------------------------------------------------------------------------------

ODD: list[Any] = [
    None, True, 0, -1, 250, 10**400, 1.5, float("nan"), float("inf"), 1e308, "", "x", "50",
    LINK, "http://[", "ftp://h", "https://h/v1beta/files/a:download", [], ["a"], [{}], [[]], {},
    {"url": "http://["}, {"url": LINK}, {"code": [], "message": {}}, [{"type": [], "loc": [1]}],
    "0001-01-01T00:00:00", "9999-12-31T23:59:59+00:00",
]  # fmt: skip
WORDS = ["COMPLETED", "SUCCEEDED", "done", "FAILED", "failed", "completed", "IN_QUEUE", "pending"]
FIELDS = [
    "id", "name", "status", "error", "response", "done", "progress", "createdAt", "created_at",
    "failure", "failureCode", "output", "video", "request_id", "error_type", "detail", "data",
    "has_more", "message", "code", "url", "details", "generateVideoResponse", "generatedSamples",
    "uri", "raiMediaFilteredReasons", "raiMediaFilteredCount", "duration", "respect_moderation",
    "queue_position", "seconds", "size", "violations", "retryDelay", "reason", "video_id", "model",
]  # fmt: skip


def odd(rng: random.Random, depth: int = 0) -> Any:
    if depth < 4 and rng.random() < (0.35 if depth else 0.95):
        fields = {name: odd(rng, depth + 1) for name in rng.sample(FIELDS, rng.randint(1, 12))}
        if not depth and rng.random() < 0.7:
            fields |= {"id": "a", "request_id": "a", "name": "operations/a", "done": True}
            fields["status"] = rng.choice(WORDS)
        return fields
    return rng.choice(ODD)


def told(rng: random.Random) -> Reply:
    status = rng.choice([200, 200, 200, 201, 202, 302, 400, 403, 404, 422, 429, 500, 503])
    headers = {"location": rng.choice(["http://[", "/x", ""])} if rng.random() < 0.5 else {}
    whole = json.dumps(odd(rng)).encode()
    return Reply(status, headers, rng.choice([whole, whole, whole, b"<html>", b"\xff"]))


def read(name: str, bound: Bound, rng: random.Random) -> None:
    """One call from its request to its end, as the engine leads it."""
    provider = PROVIDERS[name]
    asked: Answer | Request = provider.request(bound)
    for _ in range(6):
        assert isinstance(asked, Request)
        reply = told(rng)
        if reply.status >= 300 and not (asked.verdict and asked.reader):
            provider.error(reply)
            return
        if reply.status < 300 and asked.download:
            return
        asked = asked.reader(reply) if asked.reader else provider.answer(bound, reply)
        if isinstance(asked, Answer):
            asked.model_dump_json()
            return


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("operation", Operation)
def test_whatever_is_answered_is_an_answer_or_none_of_them(name: str, operation: Operation) -> None:
    if operation not in PROVIDERS[name].operations or operation is Operation.CREATE_CHARACTER:
        return
    rng = random.Random(f"{name} {operation}")
    natives = () if operation in (Operation.GENERATION, Operation.LIST) else ("a",)
    bound = Bound(BARE[operation], deployment(name), natives)
    for _ in range(300):
        try:
            read(name, bound, rng)
        except (RouterError, InvalidBody):
            continue


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("fal", "gemini")])
def test_why_a_job_failed_may_be_a_plain_sentence(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str
) -> None:
    router = served_by(vendors, name, clock)
    made = generate(call, router)
    word = "FAILED" if name == "runwayml" else "failed"
    said = {"failure": "No."} if name == "runwayml" else {"error": "No."}
    vendors.fault("garbage", body={"id": "x", "status": word, **said}, operation="status")
    with pytest.raises(JobFailedError, match=r"^No\."):
        call(router, "video_wait", made.id)


# Files in JSON -----------------------------------------------------------------------------------

IN_JSON = ["fal", "gemini", "openrouter", "runwayml", "xai"]


@pytest.mark.parametrize("name", IN_JSON)
def test_a_files_type_is_no_way_into_the_request(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str
) -> None:
    router = served_by(vendors, name, clock)
    kind = 'image/png;base64,AA=="},"model":"dearer","x":{"y":"'
    try:
        generate(call, router, input_reference=("a.png", PNG, kind))
    except RouterError:
        assert vendors.accepted == []
    (request,) = vendors.requests
    assert "dearer" not in (request.fields.get("model"), request.path)
    assert kind in json.dumps(request.fields).replace("\\", "")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("openrouter", {"frame_images": []}),
        ("gemini", {"instances": [{"image": {"bytesBase64Encoded": "AA==", "mimeType": "a/b"}}]}),
    ],
)
def test_where_the_callers_own_fields_take_a_files_place_the_request_is_whole(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str, body: dict[str, Any]
) -> None:
    router = served_by(vendors, name, clock)
    generate(call, router, input_reference=("a.png", PNG), extra_body=body)
    (request,) = vendors.requests
    assert json.dumps(request.fields).count("base64,") == 0
    (field, value) = next(iter(body.items()))
    assert request.fields[field] == value or value[0].items() <= request.fields[field][0].items()


@pytest.mark.parametrize("name", ["vllm-omni", "sglang"])
def test_a_whole_length_is_written_as_a_whole_number(
    call: Doors, vendors: StandIn, clock: FakeClock, name: str
) -> None:
    router = served_by(vendors, name, clock)
    assert generate(call, router, seconds="8.0").seconds == "8"


# What there is -----------------------------------------------------------------------------------


def test_who_cannot_do_it_says_what_there_is(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    router = serving(vendors, at("runwayml"), at("xai"), at("gemini"), clock=clock)
    with pytest.raises(UnsupportedOperationError) as caught:
        call(router, "video_create_character", name="Luna", video=CLIP, model="hero-video")
    assert str(caught.value) == (
        "create_character is not supported by any deployment that this call may go to: "
        "runwayml can do content, delete, generation, status; "
        "xai can do content, edit, extension, generation, status; "
        "gemini can do content, extension, generation, status"
    )
    assert vendors.requests == []


def test_only_those_that_a_call_may_go_to_are_said_to_do_anything(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    few = {**at("xai"), "operations": ["generation", "status"]}
    router = serving(vendors, few, {**at("openai"), "model_name": "others"}, clock=clock)
    with pytest.raises(UnsupportedOperationError, match=r"xai can do generation, status$"):
        call(router, "video_edit", prompt="x", video=CLIP, model="hero-video")


# Prices ------------------------------------------------------------------------------------------


def test_what_is_dropped_has_no_part_in_what_a_call_may_cost(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    dropping = {**at("vllm-omni"), "drop_params": True, "cost_per_second": 0.1}
    router = serving(vendors, dropping, clock=clock)
    # A length that is dropped is the provider's to choose: as good as one of the usual 4 s.
    with pytest.raises(BadRequestError, match=r"asks \$0\.4"):
        generate(call, router, seconds="0.5", max_cost=0.2)
    assert router.explain(seconds="0.5", max_cost=0.2).candidates[0].verdict == "full"
    assert vendors.requests == []
    assert generate(call, router, seconds="19.5", max_cost=0.5).status == "queued"


def test_a_dropped_length_takes_no_more_of_a_days_money_than_it_may_cost(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    dropping = {**at("vllm-omni"), "drop_params": True, "cost_per_second": 0.1}
    data = {"accounts": {"vllm-omni": {"max_cost_per_day": 1.0}}, "deployments": [dropping]}
    parts: dict[str, Any] = {"http_client": vendors.transport, "clock": clock}
    router = Router.from_dict(data, environ={}, async_http_client=vendors.transport, **parts)
    assert generate(call, router, seconds="19.5").status == "queued"
