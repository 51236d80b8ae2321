"""What the telemetry tests share: fleets whose exchanges take time, and events told by hand."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from shared_parts import Doors, FakeClock, fleet

from router import Router, RouterError
from router.events import Attempted, Ejected, Event, JobFinished, Picked, Restored, Waiting
from router.testing import StandIn

__all__ = [
    "AT",
    "EVERY_EVENT",
    "URL",
    "Taking",
    "attempted",
    "ejected",
    "fails",
    "served",
    "within",
]

URL = "https://videos.example:8443/v1"
AT = 1_800_000_000.0


class Taking(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Every exchange with the provider takes so many seconds of a fake clock."""

    def __init__(self, provider: StandIn, clock: FakeClock, seconds: float = 2.0) -> None:
        self.inner, self.clock, self.seconds = provider.transport, clock, seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.clock.advance(self.seconds)
        return self.inner.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.clock.advance(self.seconds)
        return await self.inner.handle_async_request(request)


def served(
    provider: StandIn,
    on_event: Callable[[Event], object],
    *accounts: str,
    clock: FakeClock | None = None,
    transport: Any = None,
    **deployment: Any,
) -> Router:
    """A router in process, with one deployment for each account, that tells `on_event`."""
    clock = clock or FakeClock()
    transport = transport or Taking(provider, clock)
    return Router.from_dict(
        fleet(URL, *accounts, **deployment),
        environ={},
        http_client=transport,
        async_http_client=transport,
        clock=clock,
        rng=random.Random(5),
        on_event=on_event,
    )


def fails(call: Doors, router: Router, method: str, **arguments: Any) -> RouterError:
    """The error that a call ends with."""
    try:
        call(router, method, **arguments)
    except RouterError as error:
        return error
    raise AssertionError(f"{method} succeeded")


def within(
    call: Doors,
    span: contextlib.AbstractContextManager[object],
    router: Router,
    method: str,
    **arguments: Any,
) -> Any:
    """The call, made where this span is the current one: in this thread, or in a task."""

    async def task() -> Any:
        with span:
            return await getattr(router, f"a{method}")(**arguments)

    if call.name == "async":
        return asyncio.run(task())
    with span:
        return getattr(router, method)(**arguments)


def attempted(**facts: Any) -> Attempted:
    told = {
        "at": AT,
        "operation": "generation",
        "deployment": "east-1",
        "account": "east",
        "seconds": 1.5,
        "status": 200,
        "result": "success",
        "accepted": "yes",
    }
    return Attempted(**{**told, **facts})


def ejected(seconds: float, **facts: Any) -> Ejected:
    told = {
        "at": AT,
        "deployment": "east-1",
        "account": "east",
        "scope": "submits",
        "cause": "throttled",
        "reason": "429 throttled: slow down",
    }
    return Ejected(**{**told, "seconds": seconds, **facts})


def _every_event() -> Iterator[Event]:
    yield Waiting(AT, "generation", 30.0, "all slots of east are taken", {"user": "u-1"})
    yield Waiting(AT, "status", 2.0, "east asked for a pause", cause="throttled")
    yield Picked(AT, "generation", "east-1", "east", {"user": "u-1"}, waited=4.0)
    yield Picked(AT, "generation", "east-1", "east")
    yield attempted(metadata={"user": "u-1"}, cost=0.8, request_id="req_1")
    yield attempted(status=None, result="broken", accepted="maybe", cost=0.4)
    yield attempted(status=429, result="throttled", accepted="no")
    yield attempted(operation="status", seconds=0.2)
    yield ejected(60.0)
    yield ejected(300.0, deployment="west-1", account="west", scope="both", cause="denied")
    yield ejected(300.0, deployment="north-1", account="north", shared=True)
    yield Restored(AT + 1, "west-1", "west", "by an operator")
    yield JobFinished(AT, "video_1", "east", "completed", None, "east-1", "generation", 95.0)
    yield JobFinished(AT, "video_2", "east", "failed", "moderation_blocked")


EVERY_EVENT = tuple(_every_event())
