"""What the outcome tests share: the calls they make, and transports that fail when told to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import httpx
from shared_parts import Doors, FakeClock, fleet, in_process

from router import Router
from router.testing import SeenRequest, StandIn
from router.testing.media import CLIP

__all__ = [
    "CLIP",
    "URL",
    "Answering",
    "Doors",
    "FakeClock",
    "Passing",
    "by_transport",
    "ejected",
    "fleet",
    "in_process",
    "made_video",
    "openai_error",
    "requests_for",
    "scopes",
    "seeded",
]

URL = "http://stand-in/v1"


def seeded(
    provider: StandIn, clock: Any, data: Mapping[str, Any] | None = None, **parts: Any
) -> Any:
    """A router on a fake clock and a fixed seed, in process."""
    return in_process(provider, data, clock=clock, rng=random.Random(5), **parts)


def by_transport(
    transport: Any, clock: Any = None, data: Mapping[str, Any] | None = None, **parts: Any
) -> Router:
    """A router whose both doors lead into one transport of the test's."""
    return Router.from_dict(
        fleet(URL) if data is None else data,
        environ={},
        http_client=transport,
        async_http_client=transport,
        clock=clock,
        rng=random.Random(5),
        **parts,
    )


def made_video(provider: StandIn, account: str = "east") -> str:
    """The id of a finished video of this account, made by another router than the one tested."""
    router = in_process(provider)
    return str(router.video_generation(prompt="a cat", account=account).id)


def requests_for(provider: StandIn, operation: str) -> list[SeenRequest]:
    return [request for request in provider.requests if request.operation == operation]


def ejected(router: Router) -> dict[str, list[dict[str, Any]]]:
    """The ejections in force, by deployment; without those that have none."""
    known = router.statistics()
    return {name: facts["ejections"] for name, facts in known.items() if facts["ejections"]}


def scopes(router: Router) -> dict[str, set[str]]:
    """What each ejected deployment is out of rotation for."""
    return {name: {one["scope"] for one in found} for name, found in ejected(router).items()}


def openai_error(
    message: str, *, code: str | None = None, type: str = "invalid_request_error"
) -> dict[str, Any]:
    """An error body with the four keys that are always there."""
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


class Passing(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Both kinds of transport over a stand-in's; a base for those that fail on the way.

    `sent` counts the exchanges that were begun, which is more than the stand-in ever sees of them.
    """

    def __init__(self, provider: StandIn) -> None:
        self.inner = provider.transport
        self.sent = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        return self.inner.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        return await self.inner.handle_async_request(request)


Answer = Callable[[httpx.Request], httpx.Response]


class Answering(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A provider that is one function: the body is read, the function answers or raises.

    `seen` keeps the requests. What the function does to a fake clock is how long it took.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        request.read()
        return self.answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        await request.aread()
        return self.answer(request)


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces; a piece that is an exception is raised."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
