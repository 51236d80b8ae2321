"""What odd servers, odd callers and odd moments must not lead to."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import io
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from outcome_parts import CLIP, ejected, made_video
from shared_parts import FakeClock, fleet, in_process

from router import Operation, Router, errors
from router.health import Health
from router.ids import IdCodec, Kind
from router.observations import Cause, Ejection
from router.testing import StandIn

URL = "http://stand-in/v1"


def made_up(*texts: str) -> str:
    """An id as anybody can make it where ids are not signed: the digest is right."""
    payload = b"\0" + b"".join(bytes([len(t.encode())]) + t.encode() for t in texts)
    digest = hashlib.sha256(b"video_vr1" + payload).digest()[:16]
    return "video_vr1" + base64.urlsafe_b64encode(payload + digest).rstrip(b"=").decode()


# Ids


@pytest.mark.parametrize("native", ["..", "../../x", ".", "", "a/../b"])
def test_an_id_that_somebody_made_up_puts_no_path_into_a_url(
    call: Any, provider: StandIn, native: str
) -> None:
    router = in_process(provider)
    with pytest.raises(errors.InvalidIdError):
        call(router, "video_delete", made_up("east", native))
    assert provider.requests == []


def test_a_payload_that_is_none_is_an_altered_id() -> None:
    for payload in (b"\0\x05ab", b"\0", b"\0\x01\xff\x01a", b"\0\x01a"):
        digest = hashlib.sha256(b"video_vr1" + payload).digest()[:16]
        text = "video_vr1" + base64.urlsafe_b64encode(payload + digest).rstrip(b"=").decode()
        with pytest.raises(errors.InvalidIdError):
            IdCodec().decode(text, Kind.VIDEO)


@pytest.mark.parametrize("native", ["..", "x" * 3_200])
def test_an_answer_whose_id_nobody_could_ask_for_is_ambiguous(
    call: Any, provider: StandIn, native: str
) -> None:
    router = in_process(provider)
    body = {"id": native, "status": "queued"}
    provider.fault("garbage", body=str(body).replace("'", '"'), content_type="application/json")
    with pytest.raises(errors.AmbiguousSubmitError):
        call(router, "video_generation", prompt="a heron")
    assert len(provider.accepted) == 1


# Health


THROTTLED = (
    "Rate limit reached for sora-2 in organization org-1 on requests per min (RPM): Limit 3, Used "
    "3, Requested 1. Please try again in 20s. You can increase your rate limit by adding a payment "
    "method to your account at https://platform.example/account/billing."
)


def test_a_throttling_that_advises_on_billing_is_a_throttling(call: Any, provider: StandIn) -> None:
    router = in_process(provider)
    error = {"message": THROTTLED, "type": "requests", "code": "rate_limit_exceeded"}
    provider.fault("status", status=429, body={"error": error}, account="east")
    for _ in range(2):
        call(router, "video_generation", prompt="a heron")
    assert {e["scope"] for each in ejected(router).values() for e in each} <= {"submits"}


def test_listing_failures_of_the_past_ejects_nobody(call: Any, provider: StandIn) -> None:
    provider.fault("job_fails", code="server_error", times=None)
    first = in_process(provider, fleet(URL, "east"))
    for _ in range(4):
        call(first, "video_generation", prompt="a heron")
    events: list[Any] = []
    router = in_process(provider, fleet(URL, "east"), on_event=events.append)
    assert [video.status for video in call(router, "video_list").data] == ["failed"] * 4
    assert ejected(router) == {}
    assert [event for event in events if type(event).__name__ == "JobFinished"] == []


class Taking(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """To the stand-in in process, where each exchange takes 50 ms of the fake clock."""

    def __init__(self, provider: StandIn, clock: FakeClock) -> None:
        self._to, self._clock = provider.transport, clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._clock.advance(0.05)
        return self._to.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._clock.advance(0.05)
        return await self._to.handle_async_request(request)


def test_one_failure_keeps_nobody_away_for_ever(call: Any, provider: StandIn) -> None:
    clock = FakeClock()
    taking = Taking(provider, clock)
    router = Router.from_dict(
        fleet(URL), environ={}, http_client=taking, async_http_client=taking, clock=clock
    )
    provider.fault("reset", account="east", operation="generation")
    for _ in range(3):
        for _ in range(20):
            call(router, "video_generation", prompt="a heron")
        clock.advance(600)
    served = [call(router, "video_generation", prompt="a heron").routing.account for _ in range(40)]
    assert served.count("east") >= 8


def test_health_may_be_read_while_it_is_written() -> None:
    health = Health()

    def write() -> None:
        for number in range(5_000):
            health.eject(Ejection(f"scope {number % 500}", number, Cause.THROTTLED, "x"))

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        health.ejection(Operation.STATUS, 0.0)
        health.standing(0.0)
    writer.join()
    assert len(health.standing(0.0)) == 500


# Waits


@pytest.mark.parametrize("written", ["inf", "nan", "1e300", "-5"])
def test_a_wait_that_a_server_asks_for_is_bounded(
    call: Any, provider: StandIn, written: str
) -> None:
    clock = FakeClock()
    router = in_process(provider, fleet(URL, "east"), clock=clock)
    video = made_video(provider)
    running = b'{"id": "%b", "status": "in_progress"}' % video.encode()
    headers = {"openai-poll-after-ms": written, "content-type": "application/json"}
    fault = provider.fault("status", status=200, body=running.decode(), headers=headers, times=3)
    assert call(router, "video_wait", video).done
    assert fault.hits == 3
    assert all(0 <= seconds <= 300 for seconds in clock.slept)


def test_a_callers_own_error_in_on_progress_ends_the_wait(call: Any, provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, "east"), clock=FakeClock())

    def mine(video: Any) -> None:
        raise errors.RateLimitError("mine", retry_after=0.5)

    with pytest.raises(errors.RateLimitError, match="mine"):
        call(router, "video_wait", made_video(provider), on_progress=mine)


def test_a_silent_server_does_not_outlast_the_wait(call: Any) -> None:
    with StandIn(accounts={"sk-east": "east"}, seed=7) as server:
        router = Router.from_dict(fleet(server.base_url, "east"), environ={})
        video = call(router, "video_generation", prompt="a heron")
        server.fault("delay", operation="status", seconds=30, times=None)
        started = time.monotonic()
        with pytest.raises(errors.WaitTimeoutError) as caught:
            call(router, "video_wait", video.id, wait_timeout=0.5)
        assert caught.value.video_id == video.id
        assert time.monotonic() - started < 20  # not the 120 s of an attempt
        call.close(router)


# Connections


def closing_then_dripping() -> Iterator[tuple[str, threading.Event]]:
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        for number in itertools.count():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                if number == 0:
                    body = b'{"id": "video_x", "status": "queued"}'
                    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                    connection.sendall(head + body)
                    continue
                for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nx: ", itertools.repeat(120)):
                    if ended.wait(0.1):
                        return
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", ended
    ended.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


dripping = pytest.fixture(closing_then_dripping)


def test_a_connection_opened_anew_is_bounded_too(call: Any, dripping: Any) -> None:
    url, _ = dripping
    router = Router.from_dict(fleet(url, "east"), environ={})
    assert call(router, "video_status", "video_x").status == "queued"
    time.sleep(0.3)  # until word of the closing has come
    started = time.monotonic()
    with pytest.raises(errors.AttemptTimeoutError):
        call(router, "video_status", "video_x", timeout=1, retries=0)
    assert time.monotonic() - started < 10  # it drips for ever
    call.close(router)


class Twice(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport of the caller's that sends a body, and begins to send it again."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        list(request.stream)
        next(iter(request.stream))
        raise httpx.ReadError("reset")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


def test_what_was_sent_once_stays_sent(call: Any) -> None:
    twice = Twice()
    router = Router.from_dict(fleet(URL), environ={}, http_client=twice, async_http_client=twice)
    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        call(router, "video_create_character", name="Luna", video=CLIP)
    assert len(caught.value.attempts) == 1


def test_event_loops_are_not_kept(provider: StandIn) -> None:
    with StandIn(accounts={"sk-east": "east"}, seed=7) as server:
        router = Router.from_dict(fleet(server.base_url, "east"), environ={})
        for _ in range(5):
            asyncio.run(router.avideo_generation(prompt="a heron"))
        gc.collect()
        assert len(router._asending._loops) == 0


@pytest.mark.parametrize("name", ["Authorization", "host", "Content-Length", "api-key"])
def test_whose_call_it_is_no_header_of_the_callers_changes(
    call: Any, provider: StandIn, name: str
) -> None:
    with pytest.raises(errors.BadRequestError, match="not the caller's"):
        call(in_process(provider), "video_generation", prompt="x", extra_headers={name: "Bearer x"})
    assert provider.requests == []


def test_a_client_of_the_other_door_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="http_client"):
        Router.from_dict(fleet(URL), environ={}, http_client=httpx.AsyncClient())  # type: ignore[arg-type]


# Files


def test_a_file_that_the_caller_closes_meanwhile_is_still_the_one_that_is_sent(
    call: Any, provider: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "luna.mp4").write_bytes(CLIP)
    (tmp_path / "private").write_bytes(b"a stranger's file")
    clip = (tmp_path / "luna.mp4").open("rb")
    strangers: list[Any] = []

    def close_early(event: Any) -> None:
        clip.close()
        strangers.append((tmp_path / "private").open("rb"))

    router = in_process(provider, fleet(URL, "east"), on_event=close_early)
    call(router, "video_create_character", name="Luna", video=clip)
    assert provider.requests[-1].files[0].size == len(CLIP)
    for stranger in strangers:
        stranger.close()


def test_a_download_has_the_usual_mode_and_leaves_the_umask(
    call: Any, provider: StandIn, tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        router = in_process(provider, fleet(URL, "east"))
        path = call(router, "video_content", made_video(provider), to=tmp_path / ("v" * 250))
        assert path.stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


class TakesNothing(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> Any:
        return None


@pytest.mark.parametrize("to", [TakesNothing(), io.StringIO()])
def test_a_writer_that_takes_nothing_is_no_success(call: Any, provider: StandIn, to: Any) -> None:
    router = in_process(provider, fleet(URL, "east"))
    with pytest.raises((OSError, errors.BadRequestError)):
        call(router, "video_content", made_video(provider), to=to)
    assert ejected(router) == {}


def test_a_202_is_not_the_video(call: Any, provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, "east"))
    provider.fault("status", status=202, body={"status": "in_progress"}, operation="content")
    with pytest.raises(errors.VideoNotReadyError):
        call(router, "video_content", made_video(provider))


# pick and the rest


def test_a_callers_own_bug_within_a_pick_ejects_nobody(provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, "east"))
    for _ in range(4):
        with pytest.raises(ZeroDivisionError), router.pick("generation"):
            raise ZeroDivisionError
    assert ejected(router) == {}
    assert router.statistics()["east-1"]["in_flight"] == 0


def test_an_attempt_is_reported_once(provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, "east"))
    with router.pick("generation") as attempt:
        attempt.accepted("video_1")
        with pytest.raises(RuntimeError, match="reported"):
            attempt.failed(500)


@pytest.mark.parametrize("status", [5, None, {}, {"type": "video.completed"}])
def test_an_observation_that_is_none_is_an_error_of_the_tree(
    provider: StandIn, status: Any
) -> None:
    router = in_process(provider, fleet(URL, "east"))
    with pytest.raises(errors.BadRequestError, match="status"):
        router.observe(router.video_generation(prompt="x").id, status)


def test_a_page_without_videos_ends_its_account(call: Any, provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, "east"))
    empty = '{"object": "list", "data": [], "has_more": true}'
    provider.fault("garbage", body=empty, content_type="application/json", operation="list")
    assert call(router, "video_list").has_more is False


def test_a_refused_router_has_a_repr() -> None:
    assert "without" in repr(Router.__new__(Router))
