"""A call's end from outside: its deadline, a cancellation, Ctrl-C; and waits, which have no end."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from outcome_parts import (
    CLIP,
    URL,
    Answering,
    FakeClock,
    Passing,
    by_transport,
    ejected,
    fleet,
    in_process,
    made_video,
    requests_for,
    seeded,
)

from router import Router, errors
from router.events import Attempted
from router.testing import StandIn


def taking(clock: FakeClock, seconds: float, status: int = 500) -> Answering:
    """Answers after so many seconds of the fake clock, or not in time, as a socket would tell."""

    def answer(request: httpx.Request) -> httpx.Response:
        patience = request.extensions["timeout"]["read"]
        if seconds > patience:
            clock.advance(patience)
            raise httpx.ReadTimeout("timed out")
        clock.advance(seconds)
        body = {"id": "video_1", "status": "completed"}
        return httpx.Response(status, json=body if status < 300 else None)

    return Answering(answer)


def patience_of(transport: Answering) -> list[float]:
    return [request.extensions["timeout"]["read"] for request in transport.seen]


# The deadline


def test_a_deadline_covers_all_attempts_and_the_waits_between(call: Any, clock: Any) -> None:
    transport = taking(clock, 4)
    router = by_transport(transport, clock, fleet(URL, "east"))

    with pytest.raises(errors.DeadlineExceededError) as caught:
        call(router, "video_status", "video_1", deadline=10)

    assert clock.passed == pytest.approx(10, abs=0.01)
    assert len(caught.value.attempts) == len(transport.seen) == 3
    assert patience_of(transport)[2] < 2
    assert caught.value.accepted == "no"


def test_the_settings_deadline_holds_where_the_call_has_none(call: Any, clock: Any) -> None:
    transport = taking(clock, 4)
    data = {**fleet(URL, "east"), "settings": {"deadline": 3}}

    with pytest.raises(errors.DeadlineExceededError):
        call(by_transport(transport, clock, data), "video_status", "video_1")

    assert clock.passed == pytest.approx(3, abs=0.01)


def test_a_submit_on_the_wire_at_its_deadline_is_ambiguous(call: Any, clock: Any) -> None:
    transport = taking(clock, 20)
    router = by_transport(transport, clock)

    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        call(router, "video_generation", prompt="a cat", deadline=10)

    assert clock.passed == pytest.approx(10)
    assert len(transport.seen) == 1
    assert caught.value.accepted == "maybe"
    assert caught.value.sent_at == pytest.approx(clock.unix)


def test_a_submit_that_was_refused_until_its_deadline_was_not_accepted(
    call: Any, clock: Any
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        clock.advance(6)
        return httpx.Response(302, headers={"location": "http://elsewhere"})

    transport = Answering(answer)
    router = by_transport(transport, clock, fleet(URL, "east", "west", "north"))

    with pytest.raises(errors.DeadlineExceededError) as caught:
        call(router, "video_generation", prompt="a cat", deadline=10)

    assert len(transport.seen) == 2
    assert len(caught.value.attempts) == 2
    assert caught.value.accepted == "no"


def test_a_deadline_that_passes_while_the_clip_is_read_sends_nothing(
    call: Any, provider: StandIn, clock: Any
) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            clock.advance(20)
            return super().read(size)

    router = seeded(provider, clock)

    with pytest.raises(errors.DeadlineExceededError) as caught:
        call(router, "video_create_character", name="Luna", video=Slow(CLIP), deadline=10)

    assert provider.requests == []
    assert caught.value.accepted == "no"


def test_being_cut_off_by_the_callers_deadline_is_no_failure_of_the_deployment(
    call: Any, clock: Any
) -> None:
    """The elapsed time is a lower bound of latency, and nothing more."""
    router = by_transport(taking(clock, 20), clock, fleet(URL, "east"))

    for _ in range(4):
        with pytest.raises(errors.AmbiguousSubmitError):
            call(router, "video_generation", prompt="a cat", deadline=1)
        with pytest.raises(errors.DeadlineExceededError):
            call(router, "video_status", "video_1", deadline=1)

    assert ejected(router) == {}


def test_being_too_slow_for_the_attempts_timeout_is_one(call: Any, clock: Any) -> None:
    router = by_transport(taking(clock, 20), clock, fleet(URL, "east"))

    for _ in range(3):
        with pytest.raises(errors.AmbiguousSubmitError):
            call(router, "video_generation", prompt="a cat", timeout=1)

    assert ejected(router)["east-1"][0]["scope"] == "submits"


@pytest.mark.parametrize("method", ["video_generation", "video_status"])
def test_an_attempts_timeout_is_the_calls_else_the_deployments_else_the_settings(
    call: Any, clock: Any, method: str
) -> None:
    arguments: dict[str, Any] = (
        {"prompt": "a cat"} if method == "video_generation" else {"video_id": "video_1"}
    )
    settings = {"settings": {"timeout": 50}}
    for data, given, expected in (
        ({**fleet(URL, "east"), **settings}, {}, 50),
        ({**fleet(URL, "east", timeout=40), **settings}, {}, 40),
        ({**fleet(URL, "east", timeout=40), **settings}, {"timeout": 30}, 30),
        ({**fleet(URL, "east", timeout=40), **settings}, {"timeout": 30, "deadline": 20}, 20),
    ):
        transport = taking(clock, 0, status=200)
        call(by_transport(transport, clock, data), method, **arguments, **given)
        assert patience_of(transport) == [expected]


def test_asking_what_a_404_means_is_inside_the_deadline(call: Any, clock: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        clock.advance(8)
        return httpx.Response(404)

    transport = Answering(answer)
    router = by_transport(transport, clock, fleet(URL, "east"))

    with pytest.raises(errors.NotFoundError):
        call(router, "video_content", "video_1", deadline=10)

    assert patience_of(transport)[1] <= 2


def test_copies_of_a_character_are_inside_one_deadline(call: Any, clock: Any) -> None:
    transport = taking(clock, 20)
    router = by_transport(transport, clock)

    # The uploads share one fake clock: the second may find its time gone before it is sent.
    with pytest.raises((errors.AmbiguousSubmitError, errors.DeadlineExceededError)):
        call(router, "video_create_character", name="Luna", video=CLIP, replicate=2, deadline=10)

    assert max(patience_of(transport)) <= 10


# Cancellation: of the async door, at several awaits


class Stuck:
    """An await that never ends by itself, and tells when it is reached."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def __call__(self, *_: object) -> Any:
        self.reached.set()
        await asyncio.Event().wait()


class Hanging(Passing):
    """Hangs before the body is read, after it was, after the work, or in the answer's body."""

    def __init__(self, provider: StandIn, moment: str, stuck: Stuck) -> None:
        super().__init__(provider)
        self.moment, self.stuck = moment, stuck

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.moment == "before":
            await self.stuck()
        if self.moment == "body":
            await request.aread()
            await self.stuck()
        response = await super().handle_async_request(request)
        if self.moment == "work":
            await self.stuck()
        return httpx.Response(response.status_code, stream=HangingBody(self.stuck))


class HangingBody(httpx.AsyncByteStream):
    def __init__(self, stuck: Stuck) -> None:
        self.stuck = stuck

    async def __aiter__(self) -> Any:
        yield b'{"id": '
        await self.stuck()


def cancelled(make: Callable[[Stuck], Any], start: Callable[[Any], Any]) -> tuple[Router, Any]:
    """Start a call, cancel it where it is stuck; the router, and what `make` also gave."""

    async def scenario() -> tuple[Router, Any]:
        stuck = Stuck()
        router, extra = make(stuck)
        task = asyncio.create_task(start(router))
        await stuck.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return router, extra

    return asyncio.run(scenario())


MOMENTS = {"before": "no", "body": "maybe", "work": "maybe", "answer": "maybe"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cancelled_submit_propagates_and_leaves_nothing_in_flight(
    provider: StandIn, moment: str
) -> None:
    told: list[Any] = []

    def make(stuck: Stuck) -> tuple[Router, Any]:
        transport = Hanging(provider, moment, stuck)
        return by_transport(transport, None, fleet(URL, "east"), on_event=told.append), None

    router, _ = cancelled(make, lambda r: r.avideo_generation(prompt="a cat"))

    assert router.statistics()["east-1"]["in_flight"] == 0
    assert ejected(router) == {}
    (attempt,) = [event for event in told if isinstance(event, Attempted)]
    assert (attempt.result, attempt.accepted) == ("cancelled", MOMENTS[moment])
    assert len(provider.accepted) == (moment in ("work", "answer"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cancelled_read_propagates_and_leaves_nothing_in_flight(
    provider: StandIn, moment: str
) -> None:
    video = made_video(provider)

    def make(stuck: Stuck) -> tuple[Router, Any]:
        return by_transport(Hanging(provider, moment, stuck), None), None

    router, _ = cancelled(make, lambda r: r.avideo_status(video))

    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}
    assert ejected(router) == {}


def test_a_call_cancelled_in_its_back_off_leaves_nothing_in_flight(provider: StandIn) -> None:
    video = made_video(provider)

    class Sleepless(FakeClock):  # type: ignore[misc, valid-type]  # loaded by its path
        stuck: Stuck

        async def asleep(self, seconds: float) -> None:
            await self.stuck()

    def make(stuck: Stuck) -> tuple[Router, Any]:
        clock = Sleepless()
        clock.stuck = stuck
        provider.fault("status", operation="status", times=None, status=429)
        return in_process(provider, clock=clock), None

    router, _ = cancelled(make, lambda r: r.avideo_status(video))

    assert len(requests_for(provider, "status")) == 1
    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}


def test_a_call_cancelled_while_its_clip_is_read_sends_nothing(provider: StandIn) -> None:
    class Uploading:
        def __init__(self, stuck: Stuck) -> None:
            self.filename, self.stuck = "luna.mp4", stuck

        async def read(self, size: int = -1, /) -> bytes:
            await self.stuck()
            return b""

    def make(stuck: Stuck) -> tuple[Router, Any]:
        router = in_process(provider)
        router.clip = Uploading(stuck)
        return router, None

    router, _ = cancelled(make, lambda r: r.avideo_create_character(name="Luna", video=r.clip))

    assert provider.requests == []
    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}


def test_cancelling_all_copies_of_a_character_leaves_nothing_in_flight(provider: StandIn) -> None:
    def make(stuck: Stuck) -> tuple[Router, Any]:
        return by_transport(Hanging(provider, "body", stuck), None), None

    router, _ = cancelled(
        make, lambda r: r.avideo_create_character(name="Luna", video=CLIP, replicate=2)
    )

    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}
    assert provider.accepted == []


def test_a_cancelled_download_leaves_no_file(provider: StandIn, tmp_path: Any) -> None:
    video = made_video(provider)

    def make(stuck: Stuck) -> tuple[Router, Any]:
        return by_transport(Hanging(provider, "answer", stuck), None), None

    router, _ = cancelled(make, lambda r: r.avideo_content(video, to=tmp_path / "video.mp4"))

    assert list(tmp_path.iterdir()) == []
    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}


def test_a_timeout_of_the_callers_own_is_the_callers(provider: StandIn) -> None:
    async def scenario() -> None:
        stuck = Stuck()
        router = by_transport(Hanging(provider, "work", stuck), None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await router.avideo_generation(prompt="a cat")
        assert {facts["in_flight"] for facts in router.statistics().values()} == {0}
        assert ejected(router) == {}

    asyncio.run(scenario())
    assert len(provider.accepted) == 1


# Ctrl-C, in the blocking door


@pytest.mark.parametrize("moment", ["send", "sleep", "body"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_propagates_and_leaves_nothing_in_flight(
    provider: StandIn, clock: Any, moment: str, interrupt: type[BaseException]
) -> None:
    video = made_video(provider)

    class Interrupted(Passing):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if moment == "send":
                raise interrupt
            response = super().handle_request(request)
            if moment == "body":
                return httpx.Response(response.status_code, stream=InterruptedBody())
            return response

    class InterruptedBody(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            yield b'{"id": '
            raise interrupt

    if moment == "sleep":
        provider.fault("status", operation="status", status=429)

        def interrupted(seconds: float) -> None:
            raise interrupt

        clock.sleep = interrupted
    router = by_transport(Interrupted(provider), clock)

    with pytest.raises(interrupt):
        router.video_status(video)

    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}
    assert {s for found in ejected(router).values() for s in (e["scope"] for e in found)} <= (
        {"reads"} if moment == "sleep" else set()
    )


# Waits


@pytest.fixture
def slow(clock: Any) -> StandIn:
    """Its jobs take 200 s of the fake clock."""
    return StandIn(
        accounts={"sk-east": "east", "sk-west": "west"}, job_seconds=200, clock=clock, seed=7
    )


def test_a_wait_outlasts_the_deadline_of_its_calls(call: Any, slow: StandIn, clock: Any) -> None:
    router = seeded(slow, clock, {**fleet(URL), "settings": {"deadline": 10}})
    video = call(router, "video_generation", prompt="a cat")

    done = call(router, "video_wait", video.id)

    assert done.done
    assert 200 <= clock.passed < 230
    assert done.id == video.id


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 503}),
        ("status", {"status": 429, "headers": {"retry-after": "8"}}),
        ("reset", {"after": True}),
        ("reset", {}),
        ("truncated", {}),
        ("garbage", {}),
        ("wrong_types", {}),
        ("empty", {}),
    ],
)
def test_a_wait_outlasts_errors_that_pass(
    call: Any, slow: StandIn, clock: Any, kind: str, details: dict[str, Any]
) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")
    slow.fault(kind, operation="status", times=7, **details)

    assert call(router, "video_wait", video.id).done
    assert len(slow.accepted) == 1


def test_a_wait_does_not_outlast_errors_for_ever(call: Any, slow: StandIn, clock: Any) -> None:
    router = seeded(slow, clock, {**fleet(URL), "settings": {"deadline": 60}})
    video = call(router, "video_generation", prompt="a cat")
    slow.fault("status", operation="status", times=None, status=500)

    with pytest.raises(errors.InternalServerError):
        call(router, "video_wait", video.id)

    assert 60 <= clock.passed < 90


def test_a_wait_that_hears_nothing_says_so_once_and_when_it_hears_again(
    call: Any, slow: StandIn, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")
    caplog.set_level(logging.INFO, "router")
    slow.fault("status", operation="status", times=7, status=500)

    assert call(router, "video_wait", video.id).done

    told = [record for record in caplog.records if record.change in ("job-unheard", "job-heard")]
    assert [record.change for record in told] == ["job-unheard", "job-heard"]
    assert all(video.id in record.getMessage() for record in told)
    assert "500" in told[0].getMessage()
    assert {record.account for record in told} == {video.routing.account}


def test_a_wait_that_ends_unheard_says_how_the_last_look_failed(
    call: Any, slow: StandIn, clock: Any
) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")
    slow.fault("status", operation="status", times=None, status=500)

    with pytest.raises(errors.WaitTimeoutError, match="the last look failed: 500 ") as caught:
        call(router, "video_wait", video.id, wait_timeout=30)

    assert isinstance(caught.value.__cause__, errors.InternalServerError)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.BadRequestError),
        (401, errors.AuthenticationError),
        (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError),
    ],
)
def test_a_wait_ends_on_errors_that_stay(
    call: Any, slow: StandIn, clock: Any, status: int, error: type[Exception]
) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")
    slow.fault("status", operation="status", times=None, status=status)

    with pytest.raises(error):
        call(router, "video_wait", video.id)

    assert clock.passed == 0


def test_a_wait_that_ends_first_carries_the_id_to_wait_for_again(
    call: Any, slow: StandIn, clock: Any
) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")

    with pytest.raises(errors.WaitTimeoutError) as caught:
        call(router, "video_wait", video.id, wait_timeout=30)

    assert caught.value.video_id == video.id
    assert caught.value.last_status == "in_progress"
    assert caught.value.accepted == "yes"
    assert clock.passed == pytest.approx(30)
    assert call(router, "video_wait", caught.value.video_id).done
    assert len(slow.accepted) == 1


def test_a_wait_of_no_time_looks_once(call: Any, slow: StandIn, clock: Any) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")

    with pytest.raises(errors.WaitTimeoutError):
        call(router, "video_wait", video.id, wait_timeout=0)

    assert len(requests_for(slow, "status")) == 1
    assert clock.passed == 0


def test_a_wait_looks_when_the_provider_says(call: Any, clock: Any) -> None:
    provider = StandIn(
        accounts={"sk-east": "east"}, job_seconds=20, clock=clock, poll_after_ms=4000, seed=7
    )
    router = seeded(provider, clock, fleet(URL, "east"))
    video = call(router, "video_generation", prompt="a cat")

    call(router, "video_wait", video.id)

    assert [wait for wait in clock.slept if wait] == [4.0] * 5


def test_on_progress_sees_every_answer(call: Any, slow: StandIn, clock: Any) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")
    seen: list[Any] = []

    call(router, "video_wait", video.id, on_progress=seen.append)

    assert seen[0].status == "queued"
    assert seen[-1].status == "completed"
    assert len(seen) == len(requests_for(slow, "status"))
    assert {one.id for one in seen} == {video.id}


def test_on_progress_may_be_a_coroutine_function(call: Any, slow: StandIn, clock: Any) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")
    seen: list[str] = []

    async def progress(video: Any) -> None:
        seen.append(video.status)

    call(router, "video_wait", video.id, on_progress=progress)

    assert seen[-1] == "completed"


def test_an_error_in_on_progress_is_the_callers(call: Any, slow: StandIn, clock: Any) -> None:
    router = seeded(slow, clock)
    video = call(router, "video_generation", prompt="a cat")

    def progress(video: Any) -> None:
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        call(router, "video_wait", video.id, on_progress=progress)
    assert ejected(router) == {}


# Jobs that fail

CALLERS = {
    "moderation": {"code": "moderation_blocked", "message": "blocked by our moderation system"},
    "policy in the message": {"code": "failed", "message": "This violates our content policy."},
    "bad input": {"code": "invalid_image", "message": "The reference cannot be read."},
    "likeness": {"code": "likeness", "message": "A human likeness is not allowed."},
}
PROVIDERS = {
    "server error": {"code": "server_error", "message": "It could not be generated."},
    "nothing said": {"code": "", "message": ""},
    "expired": {"code": "expired", "message": "It took too long.", "status": "expired"},
}


@pytest.mark.parametrize("said", {**CALLERS, **PROVIDERS}.values(), ids={**CALLERS, **PROVIDERS})
def test_a_failed_job_is_an_error_with_the_providers_words(
    call: Any, slow: StandIn, clock: Any, said: dict[str, str]
) -> None:
    router = seeded(slow, clock)
    slow.fault("job_fails", **said)
    video = call(router, "video_generation", prompt="a cat")

    with pytest.raises(errors.JobFailedError) as caught:
        call(router, "video_wait", video.id)

    assert caught.value.video_id == video.id
    assert caught.value.accepted == "yes"
    assert (caught.value.code or "") == said["code"]
    assert said["message"] in caught.value.message
    assert caught.value.account == video.routing.account


def test_a_failed_job_is_an_answer_to_whoever_asks_for_one(
    call: Any, slow: StandIn, clock: Any
) -> None:
    router = seeded(slow, clock)
    slow.fault("job_fails", code="server_error")
    video = call(router, "video_generation", prompt="a cat")

    failed = call(router, "video_wait", video.id, raise_on_failure=False)

    assert failed.failed
    assert not failed.done
    assert failed.error.code == "server_error"


@pytest.mark.parametrize("said", CALLERS.values(), ids=CALLERS)
def test_a_job_that_failed_by_what_it_was_asked_for_says_nothing_of_the_deployment(
    call: Any, slow: StandIn, clock: Any, said: dict[str, str]
) -> None:
    router = seeded(slow, clock, fleet(URL, "east"))
    slow.fault("job_fails", times=None, **said)

    for _ in range(5):
        video = call(router, "video_generation", prompt="a cat")
        clock.advance(200)
        with pytest.raises(errors.JobFailedError):
            call(router, "video_wait", video.id)

    assert ejected(router) == {}


@pytest.mark.parametrize("said", PROVIDERS.values(), ids=PROVIDERS)
def test_three_jobs_that_the_provider_failed_take_it_out_for_submits(
    call: Any, slow: StandIn, clock: Any, said: dict[str, str]
) -> None:
    router = seeded(slow, clock, fleet(URL, "east"))
    slow.fault("job_fails", times=None, **said)
    videos = [call(router, "video_generation", prompt="a cat") for _ in range(3)]
    clock.advance(300)

    for number, video in enumerate(videos):
        assert len(ejected(router)) == 0, number
        call(router, "video_wait", video.id, raise_on_failure=False)

    assert ejected(router)["east-1"][0]["scope"] == "submits"


def test_a_failed_job_counts_once_however_often_it_is_seen(
    call: Any, slow: StandIn, clock: Any
) -> None:
    told: list[Any] = []
    router = seeded(slow, clock, fleet(URL, "east"), on_event=told.append)
    slow.fault("job_fails", code="server_error")
    video = call(router, "video_generation", prompt="a cat")
    clock.advance(300)

    for _ in range(6):
        assert call(router, "video_status", video.id).failed
        router.observe(video.id, "failed")
        assert call(router, "video_list").data[0].failed

    assert ejected(router) == {}
    assert [type(event).__name__ for event in told].count("JobFinished") == 1


def test_a_cancelled_job_says_nothing_of_the_deployment(
    call: Any, slow: StandIn, clock: Any
) -> None:
    router = seeded(slow, clock, fleet(URL, "east"))
    slow.fault("job_fails", times=None, code="", message="", status="cancelled")

    for _ in range(4):
        video = call(router, "video_generation", prompt="a cat")
        clock.advance(200)
        assert call(router, "video_wait", video.id, raise_on_failure=False).failed

    assert ejected(router) == {}
