"""Keys and header values show nowhere, also when the provider says them back."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from outcome_parts import URL, Answering, by_transport, made_video, seeded

from router import Router, errors
from router.messages import Request
from router.testing import StandIn

KEY = "sk-east-0123456789abcdefghijklmnopqrstuvwxyz"
HEADER = "hunter2-the-value-of-a-header"
PASSWORD = "correct-horse-battery"
SECRETS = (KEY, HEADER, PASSWORD)


def config(**more: Any) -> dict[str, Any]:
    east = {
        "id": "east-1",
        "model_name": "sora-2",
        "account": "east",
        # Its key goes into a header of its own, so that the URL's user and password go out too.
        "provider": "azure",
        "headers": {"x-org-token": HEADER},
        **more,
    }
    return {
        "accounts": {
            "east": {"api_key": KEY, "base_url": URL.replace("//", f"//user:{PASSWORD}@")}
        },
        "deployments": [east],
    }


@pytest.fixture
def provider() -> StandIn:
    return StandIn(accounts={KEY: "east"}, seed=7)


class Watch:
    """Everything that a router lets out, as one text."""

    def __init__(self, caplog: Any) -> None:
        self.caplog = caplog
        self.events: list[Any] = []
        self.texts: list[str] = []

    def see(self, *values: object) -> None:
        for value in values:
            self.texts += [str(value), repr(value)]
            if isinstance(value, BaseException):
                self.texts += traceback.format_exception(value)
                self.texts.append(pickle.dumps(value).decode("latin-1"))
                self.texts.append(repr(vars(pickle.loads(pickle.dumps(value)))))

    def router(self, router: Router) -> None:
        self.see(router, router.statistics(), router.explain("generation", prompt="a cat"))
        self.texts.append(json.dumps(router.statistics()))

    def check(self) -> None:
        self.see(*self.events)
        for record in self.caplog.records:
            self.texts += [record.getMessage(), repr(vars(record))]
        assert self.texts
        # All parts, since a text that was cut may end within a secret.
        parts = {secret[at : at + 12] for secret in SECRETS for at in range(len(secret) - 11)}
        leaks = [text for text in self.texts if any(part in text for part in parts)]
        assert not leaks, repr(leaks[0][:500])


@pytest.fixture
def watch(caplog: Any) -> Iterator[Watch]:
    with caplog.at_level(logging.DEBUG):
        watch = Watch(caplog)
        yield watch
        watch.check()


def echoing(**where: str) -> dict[str, Any]:
    said = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
    return {"error": {**said, **where}}


ECHO = f"Incorrect API key provided: {KEY}; your header was {HEADER}, your password {PASSWORD}."
BODIES: dict[str, object] = {
    "message": echoing(message=ECHO),
    "code": echoing(code=KEY),
    "type": echoing(type=KEY),
    "detail": {"error": {"detail": ECHO}},
    "plain error": {"error": ECHO},
    "list": [ECHO],
    "text": ECHO,
    "HTML": f"<html><body>Bearer {KEY}</body></html>",
    "cut in a message": echoing(message="x" * 970 + KEY),
    "cut in a reason": echoing(message="x" * 258 + KEY),
    "cut in a text": "x" * 170 + KEY,
}
STATUSES = [302, 400, 401, 404, 429, 500, 501]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_provider_that_says_the_key_back_is_not_repeated(
    call: Any, provider: StandIn, clock: Any, watch: Watch, body: object
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    for status in STATUSES:
        provider.reset()
        provider.fault("status", times=None, status=status, body=text)
        router = seeded(provider, clock, config(), on_event=watch.events.append)
        for method, arguments in (
            ("video_generation", {"prompt": "a cat"}),
            ("video_status", {"video_id": "video_1"}),
            ("video_generation", {"prompt": "now it may be out of rotation"}),
        ):
            with pytest.raises(errors.RouterError) as caught:
                call(router, method, **arguments)
            watch.see(caught.value)
        watch.router(router)


ANSWERS = {
    "HTML": f"<html>{KEY}</html>",
    "a status": json.dumps({"id": None, "status": KEY}),
    "a field": json.dumps({"id": 5, "status": "queued", "key": KEY}),
    "a list": json.dumps([KEY]),
    "text": KEY,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_is_not_repeated(
    call: Any, clock: Any, watch: Watch, answer: str
) -> None:
    transport = Answering(lambda _: httpx.Response(200, content=answer))
    router = by_transport(transport, clock, config(), on_event=watch.events.append)

    for method, arguments in (
        ("video_generation", {"prompt": "a cat"}),
        ("video_status", {"video_id": "video_1"}),
    ):
        with pytest.raises(errors.RouterError) as caught:
            call(router, method, **arguments)
        watch.see(caught.value)
    watch.router(router)


@pytest.mark.parametrize("kind", [httpx.ReadError, httpx.ConnectError, httpx.LocalProtocolError])
def test_an_exception_that_quotes_a_header_is_not_repeated(
    call: Any, clock: Any, caplog: Any, kind: type[httpx.TransportError]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise kind(f"Illegal header value b'Bearer {KEY}'", request=request)

    router = by_transport(Answering(answer), clock, config())

    for _ in range(3):
        with pytest.raises(errors.RouterError) as caught:
            call(router, "video_generation", prompt="a cat")
        assert KEY not in str(caught.value)
        assert KEY not in repr(caught.value)
        assert KEY.encode() not in pickle.dumps(caught.value)
    assert KEY not in caplog.text
    assert KEY not in str(router.statistics())


def test_a_failed_job_that_names_the_key_is_not_repeated(
    call: Any, provider: StandIn, clock: Any, watch: Watch
) -> None:
    router = seeded(provider, clock, config(), on_event=watch.events.append)
    provider.fault("job_fails", times=None, code=f"code_{KEY}", message=ECHO)

    for _ in range(4):
        video = call(router, "video_generation", prompt="a cat")
        with pytest.raises(errors.JobFailedError) as caught:
            call(router, "video_wait", video.id)
        watch.see(caught.value)
    watch.router(router)


def test_an_answers_routing_and_the_router_hold_no_key(
    call: Any, provider: StandIn, clock: Any, watch: Watch
) -> None:
    router = seeded(provider, clock, config(), on_event=watch.events.append)

    video = call(router, "video_generation", prompt="a cat", extra_headers={"x-mine": HEADER})
    watch.see(video, video.routing, video.model_dump(), video.model_dump_json(), video.id)
    watch.see(router.describe_id(video.id))
    content = call(router, "video_content", video.id)
    watch.see(content, content.routing)
    watch.texts.append(pickle.dumps(video).decode("latin-1"))
    page = call(router, "video_list")
    watch.see(page, page.routing)
    watch.router(router)
    assert provider.requests[0].headers["x-org-token"] == HEADER  # it did go out


def test_a_request_and_an_attempt_hold_their_tongues(
    provider: StandIn, clock: Any, watch: Watch
) -> None:
    router = seeded(provider, clock, config())
    watch.see(Request("GET", f"{URL}/videos?key={KEY}", {"authorization": f"Bearer {KEY}"}))

    with router.pick("generation") as attempt:
        assert attempt.api_key == KEY
        watch.see(attempt)
        watch.see(attempt.failed(401, {}, echoing(message=ECHO)))
    watch.router(router)


def test_a_configuration_error_names_no_secret(watch: Watch) -> None:
    data = config(headers={"x-org-token": f"{HEADER}\n"}, colour=KEY)

    with pytest.raises(errors.ConfigError) as caught:
        Router.from_dict(data, environ={})

    watch.see(caught.value)
    watch.see(caught.value.problems)


def test_events_hold_no_prompt(call: Any, provider: StandIn, clock: Any, caplog: Any) -> None:
    told: list[Any] = []
    router = seeded(provider, clock, config(), on_event=told.append)
    prompt = "a very private cat"
    with caplog.at_level(logging.DEBUG, "router"):
        call(router, "video_generation", prompt=prompt)
        provider.fault("status", times=None, status=401)
        with pytest.raises(errors.AuthenticationError) as caught:
            call(router, "video_generation", prompt=prompt)

    assert told
    for text in (repr(told), caplog.text, repr(caught.value), str(router.statistics())):
        assert prompt not in text


def test_errors_survive_pickling_with_their_facts(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(StandIn(accounts={"sk-east": "east"}))
    router = seeded(provider, clock, config())
    caught: list[errors.RouterError] = []
    for fault, method, arguments in (
        ({"status": 400}, "video_status", {"video_id": video}),
        ({"status": 500}, "video_edit", {"prompt": "a", "video_id": video}),
        ({"status": 429, "headers": {"retry-after": "9"}}, "video_generation", {"prompt": "a"}),
    ):
        provider.fault("status", **fault)
        with pytest.raises(errors.RouterError) as error:
            call(router, method, **arguments, metadata={"user": 7})
        caught.append(error.value)

    for error in caught:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == str(error)
        assert again.metadata == {"user": 7}
        assert len(again.attempts) == 1
