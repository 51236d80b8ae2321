"""Every fault looks the same through a real socket and through the in-process transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from stand_in_fakes import ACCOUNTS

from router.testing import StandIn


class Door:
    """One way to the stand-in: by socket or in-process, blocking or async."""

    def __init__(self, provider: StandIn, name: str) -> None:
        by_socket, self.is_async = name.startswith("socket"), name.endswith("async")
        self._options: dict[str, Any] = {
            "transport": None if by_socket else provider.transport,
            "base_url": provider.base_url,
            "headers": {"authorization": "Bearer sk-east"},
            "verify": False,  # loads no certificates, which is slow
        }

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        if self.is_async:
            return asyncio.run(self.arequest(method, path, **options))
        with httpx.Client(**self._options) as client:
            return client.request(method, path, **options)

    async def arequest(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(**self._options) as client:
            return await client.request(method, path, **options)

    def submit(self, **options: Any) -> httpx.Response:
        return self.request("POST", "/videos", json={"prompt": "x"}, **options)

    def read_some(self, size: int) -> bytes:
        """Read that many bytes of the answer to a submit, then go away."""
        if self.is_async:
            return asyncio.run(self._aread_some(size))
        received = b""
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client(**self._options))
            answer = client.stream("POST", "/videos", json={"prompt": "x"})
            for piece in stack.enter_context(answer).iter_bytes():
                received += piece
                if len(received) >= size:
                    break
        return received

    async def _aread_some(self, size: int) -> bytes:
        received = b""
        async with (
            httpx.AsyncClient(**self._options) as client,
            client.stream("POST", "/videos", json={"prompt": "x"}) as answer,
        ):
            async for piece in answer.aiter_bytes():
                received += piece
                if len(received) >= size:
                    break
        return received


@pytest.fixture(params=["socket", "socket, async", "in-process", "in-process, async"])
def door(provider: StandIn, request: pytest.FixtureRequest) -> Door:
    return Door(provider, request.param)


def test_an_error_status_accepts_nothing(door: Door, provider: StandIn) -> None:
    provider.fault("status", status=503, headers={"Retry-After": "3"})
    answer = door.submit()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert provider.accepted == []
    assert provider.requests[-1].status == 503


def test_an_error_status_may_come_after_the_work(door: Door, provider: StandIn) -> None:
    provider.fault("status", status=500, body="oops", after=True)
    answer = door.submit()
    assert (answer.status_code, answer.text) == (500, "oops")
    assert answer.headers["content-type"] == "text/plain"
    assert len(provider.accepted) == 1


def test_a_long_delay_is_a_read_timeout_and_a_paid_job(door: Door, provider: StandIn) -> None:
    provider.fault("delay", seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        door.submit(timeout=httpx.Timeout(5, read=0.02))
    assert len(provider.accepted) == 1


def test_a_short_delay_is_only_slow(door: Door, provider: StandIn) -> None:
    provider.fault("delay", seconds=0.02)
    answer = door.submit()
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.02


def test_a_reset_before_the_work(door: Door, provider: StandIn) -> None:
    fault = provider.fault("reset")
    # Where the reset meets the client still writing, httpx swallows it and then finds an early end.
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        door.submit()
    assert provider.accepted == []
    assert (provider.requests[-1].status, provider.requests[-1].fields) == (None, {})
    assert fault.hits == 1
    assert door.submit().status_code == 200


def test_a_reset_after_the_work(door: Door, provider: StandIn) -> None:
    provider.fault("reset", after=True)
    with pytest.raises(httpx.ReadError):
        door.submit()
    assert len(provider.accepted) == 1
    assert (provider.requests[-1].status, provider.requests[-1].fields) == (None, {"prompt": "x"})


def test_a_reset_in_the_middle_of_the_answer(door: Door, provider: StandIn) -> None:
    provider.fault("reset_mid_body")
    with pytest.raises(httpx.ReadError):
        door.submit()
    assert len(provider.accepted) == 1


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_truncated_answer(door: Door, provider: StandIn, method: str) -> None:
    provider.fault("truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        door.request(method, "/videos", **({"json": {"prompt": "x"}} if method == "POST" else {}))


def test_garbage(door: Door, provider: StandIn) -> None:
    provider.fault("garbage")
    answer = door.submit()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
    assert answer.text.startswith("<html>")
    assert len(provider.accepted) == 1
    provider.fault("garbage", body="{not json", content_type="application/json", after=False)
    assert door.submit().text == "{not json"
    assert len(provider.accepted) == 1


def test_an_empty_answer(door: Door, provider: StandIn) -> None:
    provider.fault("empty")
    answer = door.submit()
    assert (answer.status_code, answer.content) == (200, b"")
    assert len(provider.accepted) == 1


def test_wrong_types(door: Door, provider: StandIn) -> None:
    provider.fault("wrong_types")
    assert door.submit().json() == {"id": 5, "object": "video", "status": None}
    provider.fault("wrong_types", body=["a", "list"])
    assert door.submit().json() == ["a", "list"]


def test_an_endless_answer_lasts_until_the_client_goes_away(door: Door, provider: StandIn) -> None:
    provider.fault("endless", seconds=0)
    assert door.read_some(50_000).startswith(b'"padding","padding",')


def test_an_endless_answer_can_be_cancelled(provider: StandIn) -> None:
    async def cancelled(door: Door) -> None:
        provider.fault("endless", size=1, seconds=0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(door.arequest("POST", "/videos", json={"prompt": "x"}), 0.05)

    for name in ("in-process, async", "socket, async"):
        asyncio.run(cancelled(Door(provider, name)))


def test_a_drip_is_whole_in_the_end(door: Door, provider: StandIn) -> None:
    provider.fault("drip", seconds=0)
    assert door.submit().json()["status"] == "queued"


def test_a_slow_drip_is_a_read_timeout(door: Door, provider: StandIn) -> None:
    provider.fault("drip", seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        door.submit(timeout=httpx.Timeout(5, read=0.02))


def test_a_redirect_is_answered_without_work(door: Door, provider: StandIn) -> None:
    provider.fault("redirect", location="https://elsewhere.invalid/v1/videos", status=307)
    answer = door.submit()
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["location"] == "https://elsewhere.invalid/v1/videos"
    assert provider.accepted == []


def test_many_headers(door: Door, provider: StandIn) -> None:
    provider.fault("many_headers", count=150)
    answer = door.submit()
    assert answer.json()["status"] == "queued"
    assert len(answer.headers) > 150


def test_a_delay_can_be_cancelled(provider: StandIn) -> None:
    async def cancelled(door: Door) -> None:
        provider.fault("delay", seconds=60)
        submit = asyncio.create_task(door.arequest("POST", "/videos", json={"prompt": "x"}))
        while not provider.accepted:  # noqa: ASYNC110  # a server in a thread has no asyncio.Event
            await asyncio.sleep(0.001)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit

    for name in ("in-process, async", "socket, async"):
        provider.reset()
        asyncio.run(cancelled(Door(provider, name)))
        assert len(provider.accepted) == 1


def test_in_process_a_reset_before_the_work_leaves_the_body_unread() -> None:
    stand_in, given = StandIn(ACCOUNTS), []

    def body() -> Iterator[bytes]:
        given.append("a piece")
        yield b'{"prompt": "x"}'

    async def abody() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece

    async def async_submit() -> None:
        async with httpx.AsyncClient(transport=stand_in.transport) as client:
            await client.post("https://any/v1/videos", content=abody())

    stand_in.fault("reset", times=2)
    with httpx.Client(transport=stand_in.transport) as client:
        with pytest.raises(httpx.ReadError):
            client.post("https://any/v1/videos", content=body())
        with pytest.raises(httpx.ReadError):
            asyncio.run(async_submit())
        assert given == []
        stand_in.fault("reset", after=True)
        with pytest.raises(httpx.ReadError):
            client.post("https://any/v1/videos", content=body())
        assert given == ["a piece"]


def test_a_fault_waits_for_its_request(provider: StandIn) -> None:
    east, west = Door(provider, "in-process"), StandIn(ACCOUNTS)
    fault = provider.fault("status", operation="generation", account="east", times=2)
    other = provider.fault("status", account="west", times=None)
    assert east.request("GET", "/videos").status_code == 200
    assert [east.submit().status_code for _ in range(3)] == [500, 500, 200]
    as_west = {"headers": {"authorization": "Bearer sk-west"}}
    assert [east.submit(**as_west).status_code for _ in range(3)] == [500, 500, 500]
    other.cancel()
    assert east.submit(**as_west).status_code == 200
    assert (fault.hits, other.hits) == (2, 3)
    assert west.requests == []


def test_each_request_suffers_one_fault_the_oldest_first(provider: StandIn) -> None:
    for status in (500, 502, 503):
        provider.fault("status", status=status)
    door = Door(provider, "in-process")
    assert [door.submit().status_code for _ in range(4)] == [500, 502, 503, 200]


def test_reset_forgets_the_faults(provider: StandIn) -> None:
    fault = provider.fault("status", times=None)
    provider.reset()
    assert Door(provider, "in-process").submit().status_code == 200
    assert fault.hits == 0


@pytest.mark.parametrize(
    ("kind", "details", "message"),
    [
        ("statsu", {}, "unknown kind 'statsu'; known: 'status', 'delay'"),
        ("delay", {"second": 1}, "unknown detail of 'delay' 'second'; known: 'seconds'"),
        ("delay", {"operation": "create"}, "unknown operation 'create'"),
        ("delay", {"account": "north"}, "unknown account 'north'"),
    ],
)
def test_a_misspelt_fault_is_refused(kind: str, details: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StandIn(ACCOUNTS).fault(kind, **details)
