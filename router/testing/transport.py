"""The in-process door: an httpx transport that answers without a socket.

Faults come out as the exceptions a real connection gives through httpx, with read timeouts kept as
the client asked for them. Sync and async differ only in how they wait and how they read a body, so
the rest is one generator that yields the seconds to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import cast

import httpx

from router.testing.delivery import Delivery
from router.testing.messages import Head, joined
from router.testing.provider import Arrival, Provider

__all__ = ["Transport"]


Sleep = Callable[[float], None]


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """One object for `httpx.Client` and `httpx.AsyncClient`; any host name leads here."""

    def __init__(self, provider: Provider, sleep: Sleep = time.sleep) -> None:
        self._provider = provider
        self._sleep = sleep

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        arrival = self._arrive(request)
        # httpx leaves open which of its two kinds of stream a request has; a client's is its own.
        body = b"".join(cast(Iterable[bytes], request.stream))
        steps = self._deliver(arrival, body, request)
        while True:
            try:
                self._sleep(next(steps))
            except StopIteration as end:
                return cast(httpx.Response, end.value)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        arrival = self._arrive(request)
        stream = cast(AsyncIterable[bytes], request.stream)
        body = b"".join([chunk async for chunk in stream])
        steps = self._deliver(arrival, body, request)
        while True:
            try:
                await asyncio.sleep(next(steps))
            except StopIteration as end:
                return cast(httpx.Response, end.value)

    def _arrive(self, request: httpx.Request) -> Arrival:
        arrival = self._provider.arrive(_head(request))
        if arrival.hangs_up:
            raise _reset(request)
        return arrival

    def _deliver(
        self, arrival: Arrival, body: bytes, request: httpx.Request
    ) -> Generator[float, None, httpx.Response]:
        delivery = self._provider.answer(arrival, body)
        # A real socket always lets other tasks run, and so does a pause of zero.
        yield from _silence(delivery.pause, request)
        if delivery.lost:
            raise _reset(request)
        return httpx.Response(
            delivery.answer.status,
            headers=delivery.headers(),
            stream=_Body(delivery, request, self._sleep),
            extensions={"http_version": b"HTTP/1.1"},
        )


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body as it arrives: pieces, silences, and perhaps a bad end."""

    def __init__(self, delivery: Delivery, request: httpx.Request, sleep: Sleep) -> None:
        self._delivery = delivery
        self._request = request
        self._sleep = sleep

    def __iter__(self) -> Iterator[bytes]:
        for step in self._steps():
            if isinstance(step, bytes):
                yield step
            else:
                self._sleep(step)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self._steps():
            if isinstance(step, bytes):
                yield step
            else:
                await asyncio.sleep(step)

    def _steps(self) -> Iterator[bytes | float]:
        delivery, received = self._delivery, 0
        for piece in delivery.pieces():
            yield piece
            received += len(piece)
            # Even of zero seconds: whoever reads an endless body must remain cancellable.
            yield from _silence(delivery.gap, self._request)
        if delivery.ending == "reset":
            raise _reset(self._request)
        if delivery.ending == "cut":
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"(received {received} bytes, expected {max(1, len(delivery.answer.body))})",
                request=self._request,
            )


def _silence(seconds: float, request: httpx.Request) -> Iterator[float]:
    """Wait, but no longer than the client's read timeout."""
    patience = request.extensions.get("timeout", {}).get("read")
    if patience is not None and seconds > patience:
        yield patience
        raise httpx.ReadTimeout("timed out", request=request)
    yield seconds


def _reset(request: httpx.Request) -> httpx.ReadError:
    return httpx.ReadError("[Errno 104] Connection reset by peer", request=request)


def _head(request: httpx.Request) -> Head:
    url, headers = request.url, joined(request.headers.multi_items())
    origin = f"{url.scheme}://{url.netloc.decode()}"
    return Head(request.method, url.raw_path.decode(), headers, origin)
