"""The network between the workers and the provider, and all that can go wrong on it.

Behind it is the stand-in provider itself, in process. The network decides what befalls a request by
the storms of the plan; what the provider is to do wrong it is told just before the request gets
there. It keeps the truth that the checker compares the router's words with.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from sim_history import History
from sim_plan import Plan
from virtual_time import Turns

from router.testing import StandIn

__all__ = ["Exchange", "Network", "World"]

SUBMITS = {"generation", "edit", "extension", "remix", "create_character"}


@dataclass
class Exchange:
    """One request on the network, as it truly went."""

    worker: int
    call: int | None
    deployment: str
    account: str
    operation: str
    fault: str | None
    sent_whole: bool = False
    status: int | None = None
    """The status that went back, if one did."""
    headers: dict[str, str] = field(default_factory=dict)
    names: bool = False
    """The call names something that exists, or that should."""
    closed: bool = True


@dataclass
class World:
    """What all workers have in common: the provider, the network's weather, and the truth."""

    plan: Plan
    provider: StandIn
    history: History
    turns: Turns
    now: Callable[[], float]
    rng: random.Random
    exchanges: list[Exchange] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    revoked: set[str] = field(default_factory=set)
    naming: set[int] = field(default_factory=set)
    """The calls that name something which exists, or should."""
    calm: bool = False
    """The storms are over."""

    def fault_for(self, deployment: str, *, submit: bool) -> str | None:
        for storm in self.plan.storms:
            covers = not self.calm and storm.covers(self.now(), deployment, submit=submit)
            if covers and self.rng.random() < storm.share:
                return storm.kind
        return None


class Network(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """One worker's way out. `alive` says whether the worker still is."""

    def __init__(self, world: World, worker: int, alive: Callable[[], bool]) -> None:
        self._world = world
        self._worker = worker
        self._alive = alive

    # Both doors take the same way; they differ in how they wait and how they read a body.

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = self._begins(request)
        chunks = iter(request.stream)  # type: ignore[arg-type]  # the blocking door's
        for wanted in self._on_the_way(exchange, request):
            if wanted is None:
                next(chunks, b"")
            elif wanted < 0:
                b"".join(chunks)
                exchange.sent_whole = True
            else:
                self._world.turns.sleep(wanted)
                if not self._alive():
                    self._world.turns.park()
        self._instruct(exchange)
        response = self._world.provider.transport.handle_request(request)
        return self._comes_back(exchange, response)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = self._begins(request)
        chunks = aiter(request.stream)  # type: ignore[arg-type]  # the async door's
        for wanted in self._on_the_way(exchange, request):
            if wanted is None:
                await anext(chunks, b"")
            elif wanted < 0:
                async for _ in chunks:
                    pass
                exchange.sent_whole = True
            else:
                await asyncio.sleep(wanted)
                if not self._alive():
                    await asyncio.Event().wait()
        self._instruct(exchange)
        response = await self._world.provider.transport.handle_async_request(request)
        return self._comes_back(exchange, response)

    def _begins(self, request: httpx.Request) -> Exchange:
        world = self._world
        deployment = request.url.host.removesuffix(".sim")
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        operation = _operation(request)
        fault = world.fault_for(deployment, submit=operation in SUBMITS)
        call = request.headers.get("x-call")
        exchange = Exchange(
            worker=self._worker,
            call=int(call) if call else None,
            deployment=deployment,
            account=world.plan.keys.get(key, "?"),
            operation=operation,
            fault=self._possible(fault, deployment, request),
            names=call is not None and int(call) in world.naming,
        )
        if key in world.revoked:
            request.headers["authorization"] = "Bearer revoked"
        world.exchanges.append(exchange)
        world.history.note(
            "request",
            worker=self._worker,
            call=exchange.call,
            to=deployment,
            operation=operation,
            fault=exchange.fault,
            exchange=len(world.exchanges) - 1,
        )
        if exchange.fault is not None:
            world.struck[exchange.fault] += 1
        return exchange

    def _possible(self, fault: str | None, deployment: str, request: httpx.Request) -> str | None:
        told = {d["id"]: d for d in self._world.plan.data["deployments"]}
        if fault == "server_error_done" and told.get(deployment, {}).get("retry_on_5xx"):
            return "server_error"  # its owner vouches that it never bills what it answers so
        if fault in ("job_fails", "job_refused", "never_ends") and request.method != "POST":
            return None
        return fault

    def _on_the_way(
        self, exchange: Exchange, request: httpx.Request
    ) -> Generator[float | None, None, None]:
        """What happens before the request is there: seconds to wait, `None` to read a piece of the
        body, a negative number to read it whole."""
        rng, fault = self._world.rng, exchange.fault
        patience = request.extensions["timeout"]
        yield rng.uniform(0.01, 0.5)
        if fault == "refused":
            raise httpx.ConnectError("connection refused", request=request)
        if fault == "unreachable":
            yield patience["connect"]
            raise httpx.ConnectTimeout("timed out", request=request)
        if fault == "pool":
            yield patience["pool"]
            raise httpx.PoolTimeout("the pool is full", request=request)
        in_pieces = request.headers.get("content-type", "").startswith("multipart")
        if fault == "broken_sending" and in_pieces:
            yield None
            yield 0.1
            # As in nature, where a failed write surfaces as a failed read.
            kind = rng.choice((httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError))
            raise kind("broken pipe", request=request)
        if fault in ("lost_request", "broken_sending"):
            yield -1.0
            yield rng.uniform(0.0, 0.5)
            raise httpx.ReadError("connection reset by peer", request=request)

    def _instruct(self, exchange: Exchange) -> None:
        """Tell the provider what to do wrong with the request that comes now."""
        plan = self._world.provider.fault
        rng, fault = self._world.rng, exchange.fault
        if fault in ("reset_unread", "reset_done"):
            plan("reset", after=fault == "reset_done")
        elif fault == "late":
            plan("delay", seconds=10_000.0)
        elif fault == "slow":
            plan("delay", seconds=rng.uniform(1.0, 8.0))
        elif fault == "drip":
            plan("drip", seconds=rng.choice((0.001, 0.5)))
        elif fault == "endless":
            plan("endless", size=1 << 20, seconds=0.01)
        elif fault == "redirect":
            plan("redirect", location="http://elsewhere.sim/")
        elif fault == "job_fails":
            plan("job_fails", code="server_error")
        elif fault == "job_refused":
            plan("job_fails", code="moderation_blocked", message="against the content policy")
        elif fault in _STATUSES:
            plan("status", after=fault.endswith("_done"), **_STATUSES[fault](rng))
        elif fault is not None and fault not in ("broken_sending", "lost_request"):
            plan(fault)
        exchange.sent_whole = fault != "reset_unread"

    def _comes_back(self, exchange: Exchange, response: httpx.Response) -> httpx.Response:
        exchange.status = response.status_code
        exchange.headers = dict(response.headers)
        exchange.closed = False
        self._world.history.note(
            "response",
            worker=self._worker,
            call=exchange.call,
            of=exchange.deployment,
            status=response.status_code,
        )
        response.stream = _Watched(response.stream, exchange)
        return response


class _Watched(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that notes whether it was closed, as a connection must be."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    def close(self) -> None:
        self._exchange.closed = True

    async def aclose(self) -> None:
        self._exchange.closed = True


def _operation(request: httpx.Request) -> str:
    parts = request.url.path.removeprefix("/v1/").split("/")
    posted = request.method == "POST"
    if parts[1:2] == ["characters"]:
        return "create_character" if posted else "get_character"
    if parts[1:] in (["edits"], ["extensions"]):
        return parts[1].removesuffix("s")
    if len(parts) == 1:
        return "generation" if posted else "list"
    if len(parts) == 2:
        return "delete" if request.method == "DELETE" else "status"
    return parts[2]


Details = dict[str, Any]


def _throttled(rng: random.Random) -> Details:
    headers = rng.choice(
        (
            {},
            {"retry-after": "0"},
            {"retry-after": "7"},
            {"retry-after": "31536000"},
            {"retry-after": email.utils.formatdate(1_800_000_300, usegmt=True)},
            {"retry-after-ms": "2500", "retry-after": "60"},
            {"retry-after": "soon"},
        )
    )
    return {"status": 429, "headers": headers, "body": {"error": {"message": "slow down"}}}


def _busy(rng: random.Random) -> Details:
    return {"status": 503, "headers": {"retry-after": rng.choice(("1", "20"))}, "body": "busy"}


def _server_error(rng: random.Random) -> Details:
    body = rng.choice((None, "<html><body>Bad gateway</body></html>", ""))
    return {"status": rng.choice((500, 502, 503, 504)), "body": body}


def _bad_request(rng: random.Random) -> Details:
    status = rng.choice((400, 409, 413, 415, 422))
    message = rng.choice(("prompt is too long", "rejected by our content policy"))
    return {"status": status, "body": {"error": {"message": message, "code": "invalid_value"}}}


def _not_found(rng: random.Random) -> Details:
    return {"status": 404, "body": {"error": {"message": "No such video", "code": "not_found"}}}


def _model_missing(rng: random.Random) -> Details:
    status = rng.choice((404, 501))
    error = {"message": "The model sora-2 does not exist", "code": "model_not_found"}
    return {"status": status, "body": {"error": error}}


def _denied(rng: random.Random) -> Details:
    return {"status": rng.choice((401, 403)), "body": {"error": {"message": "no access"}}}


def _broke(rng: random.Random) -> Details:
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    return {"status": 429, "body": {"error": error}}


_STATUSES: dict[str, Callable[[random.Random], Details]] = {
    "throttled": _throttled,
    "busy": _busy,
    "server_error": _server_error,
    "server_error_done": _server_error,
    "bad_request": _bad_request,
    "not_found": _not_found,
    "model_missing": _model_missing,
    "denied": _denied,
    "broke": _broke,
}
