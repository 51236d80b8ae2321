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
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from sim_history import History
from sim_plan import Plan
from virtual_time import Turns

from router.testing import StandIn
from router.testing.studio import AcceptedSubmit
from router.transport.connections import Openings
from router.transport.exchange import Arriving, Heard, Message, Monotonic, Target

__all__ = ["SUBMITS", "Exchange", "Network", "Taken", "Wire", "Wires", "World"]

SUBMITS = {"generation", "edit", "extension", "remix", "create_character"}
NAMING = {"get_character", "status", "content", "delete"}
"""What is always about something that exists, or should."""

# More of one answer than anybody should read; a reader without a bound would end the process.
FLOOD = 64 << 20
PIECE = 64 << 10


@dataclass
class Exchange:
    """One request on the network, as it truly went."""

    worker: int
    call: int | None
    deployment: str
    account: str
    operation: str
    path: str
    fault: str | None
    at: float
    sent_whole: bool = False
    status: int | None = None
    """The status that went back, if one did."""
    headers: dict[str, str] = field(default_factory=dict)
    length: float | None = None
    """Seconds of video that are asked for, where the call says how many."""
    names: bool = False
    """The call names something that exists, or that should."""
    closed: bool = True
    struck: bool = False
    """Whether the fault came about; a caller may have gone before."""
    read: int = 0
    """Bytes of the answer's body that were read."""


@dataclass(frozen=True)
class Taken:
    """A submit that the provider took on, and the request that asked for it."""

    submit: AcceptedSubmit
    exchange: Exchange
    length: float = 0.0
    """Seconds of the video that is made of it; of an extension, of the stitched whole."""
    size: str = ""


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
    taken: list[Taken] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    revoked: set[str] = field(default_factory=set)
    lengths: dict[int, float] = field(default_factory=dict)
    """Seconds of video, by call."""
    naming: set[int] = field(default_factory=set)
    """The calls that name something which exists, or should."""
    calm: bool = False
    """The storms are over."""
    coming: Exchange | None = None
    """The exchange that the provider is about to work on."""
    wrong: list[str] = field(default_factory=list)
    """What the network itself saw that must not be."""

    def attribute(self, submits: Sequence[AcceptedSubmit], call: str | None, host: str) -> None:
        """Submits were just taken on, at the request of this call to this host."""
        for submit in submits:
            exchange = self._asked(call, host)
            assert exchange is not None
            account = self.provider._provider.studio.accounts[submit.account]
            job = account.jobs.get(submit.native_id)
            made = () if job is None else (job.seconds, job.size)
            self.taken.append(Taken(submit, exchange, *made))

    def arrived(self, call: str | None, host: str) -> None:
        """The whole of a request is with the provider."""
        exchange = self._asked(call, host)
        if exchange is not None:
            exchange.sent_whole = True

    def _asked(self, call: str | None, host: str) -> Exchange | None:
        """The last request of a call to a host."""
        deployment = host.removesuffix(".sim")
        asked = (
            exchange
            for exchange in reversed(self.exchanges)
            if exchange.deployment == deployment and str(exchange.call) == call
        )
        return next(asked, None)

    def fault_for(self, deployment: str, operation: str) -> str | None:
        submit, now = operation in SUBMITS, self.now()
        for storm in self.plan.storms:
            covers = not self.calm and storm.covers(now, deployment, operation, submit=submit)
            if covers and self.rng.random() < storm.share:
                return storm.kind
        return None


class Network(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """One worker's way out. `alive` says whether the worker still is."""

    def __init__(self, world: World, worker: int, alive: Callable[[], bool]) -> None:
        self._world = world
        self._worker = worker
        self._alive = alive
        self.wires: list[Wire] = []
        """The connections of a router that opens its own."""

    def note_wire(self, what: str, wire: Wire) -> None:
        """That a connection was opened, or closed."""
        if self._alive():
            about = {"connection": wire.number, "to": wire.deployment}
            self._world.history.note(what, worker=self._worker, **about)

    def now(self) -> float:
        return self._world.now()

    # Both doors take the same way; they differ in how they wait and how they read a body.

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self._alive():
            self._world.turns.park()
        exchange = self._begins(request)
        chunks = iter(request.stream)  # type: ignore[arg-type]  # the blocking door's
        for wanted in self._on_the_way(exchange, request):
            if isinstance(wanted, _Read):
                wanted.take_all(chunks)
            else:
                self._world.turns.sleep(wanted)
                if not self._alive():
                    self._world.turns.park()
        self._instruct(exchange, request)
        response = self._world.provider.transport.handle_request(request)
        return self._comes_back(exchange, request, response)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._alive():
            await asyncio.Event().wait()
        exchange = self._begins(request)
        chunks = aiter(request.stream)  # type: ignore[arg-type]  # the async door's
        for wanted in self._on_the_way(exchange, request):
            if isinstance(wanted, _Read):
                await wanted.atake_all(chunks)
            else:
                await asyncio.sleep(wanted)
                if not self._alive():
                    await asyncio.Event().wait()
        self._instruct(exchange, request)
        response = await self._world.provider.transport.handle_async_request(request)
        return self._comes_back(exchange, request, response)

    def _begins(self, request: httpx.Request) -> Exchange:
        world = self._world
        deployment = request.url.host.removesuffix(".sim")
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        operation = _operation(request)
        fault = world.fault_for(deployment, operation)
        call = request.headers.get("x-call")
        exchange = Exchange(
            worker=self._worker,
            call=int(call) if call else None,
            deployment=deployment,
            account=world.plan.keys.get(key, "?"),
            operation=operation,
            path=request.url.path,
            fault=self._possible(fault, deployment),
            at=world.now(),
            length=world.lengths.get(int(call)) if call else None,
            names=operation in NAMING or (call is not None and int(call) in world.naming),
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
            **request.extensions.get("wire", {}),
        )
        return exchange

    def _possible(self, fault: str | None, deployment: str) -> str | None:
        told = {d["id"]: d for d in self._world.plan.data["deployments"]}
        if fault == "server_error_done" and told.get(deployment, {}).get("retry_on_5xx"):
            return "server_error"  # its owner vouches that it never bills what it answers so
        return fault

    def _on_the_way(
        self, exchange: Exchange, request: httpx.Request
    ) -> Generator[float | _Read, None, None]:
        """What happens before the request is there: seconds to wait, and what to read of it."""
        rng, fault = self._world.rng, exchange.fault
        patience = request.extensions["timeout"]
        if fault != "pool":  # which is before anything is on its way
            yield rng.uniform(0.01, 0.5)
        if fault is not None:
            exchange.struck = True
            self._world.struck[fault] += 1
        if fault == "pool":
            yield patience["pool"]
            raise httpx.PoolTimeout("the pool is full", request=request)
        if fault == "refused":
            raise httpx.ConnectError("connection refused", request=request)
        if fault == "unreachable":
            yield patience["connect"]
            raise httpx.ConnectTimeout("timed out", request=request)
        in_pieces = request.headers.get("content-type", "").startswith("multipart")
        if fault == "broken_sending" and in_pieces:
            yield _Read(pieces=1)
            yield 0.1
            # As in nature, where a failed write surfaces as a failed read.
            kind = rng.choice((httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError))
            raise kind("broken pipe", request=request)
        if fault in ("lost_request", "broken_sending"):
            yield _Read()
            exchange.sent_whole = True
            yield rng.uniform(0.0, 0.5)
            raise httpx.ReadError("connection reset by peer", request=request)
        if fault in ("broken_at_the_end", "died_at_the_end"):
            # All that was promised is out, and nobody asks the sender whether there is more.
            reading = _Read(size=int(request.headers.get("content-length", "0")))
            yield reading
            exchange.sent_whole = True
            yield rng.uniform(0.0, 0.5)
            if fault == "broken_at_the_end":
                raise httpx.ReadError("connection reset by peer", request=request)
            request.stream = httpx.ByteStream(bytes(reading.body))

    def _instruct(self, exchange: Exchange, request: httpx.Request) -> None:
        """Tell the provider what to do wrong with the request that comes now."""
        self._world.coming = exchange
        plan = self._world.provider.fault
        rng, fault = self._world.rng, exchange.fault
        if fault in ("reset_unread", "reset_done"):
            plan("reset", after=fault == "reset_done")
        elif fault == "late":
            plan("delay", seconds=10_000.0)
        elif fault == "slow":
            plan("delay", seconds=rng.uniform(1.0, 8.0))
        elif fault == "drip":
            # A clip byte by byte is never whole; a short answer may be, in time.
            long = exchange.operation == "content"
            plan("drip", seconds=0.5 if long else rng.choice((0.001, 0.5)))
        elif fault == "endless":
            # A video has no bound but the time that it may take.
            plan("endless", size=PIECE, seconds=0.5 if exchange.operation == "content" else 0.01)
        elif fault == "redirect":
            plan("redirect", location="http://elsewhere.sim/")
        elif fault in _STATUSES:
            now = self._world.plan.starts + self._world.now()
            plan("status", after=fault.endswith("_done"), **_STATUSES[fault](rng, now))
        elif fault == "died_at_the_end":
            plan("reset", after=True)
        elif fault is not None:
            plan(fault)

    def _comes_back(
        self, exchange: Exchange, request: httpx.Request, response: httpx.Response
    ) -> httpx.Response:
        if exchange.fault == "endless" and exchange.operation == "content":
            response.headers["content-type"] = "video/mp4"
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
        response.stream = _Watched(response.stream, exchange, self._world)
        return response


class _Read:
    """How much of a request's body is to be read: some pieces, or bytes, or all to its very end."""

    def __init__(self, *, pieces: int | None = None, size: int | None = None) -> None:
        self._pieces = pieces
        self._size = size
        self.body = bytearray()

    def take_all(self, chunks: Iterator[bytes]) -> None:
        while self._more():
            chunk = next(chunks, None)
            if chunk is None:
                return
            self._take(chunk)

    async def atake_all(self, chunks: AsyncIterator[bytes]) -> None:
        while self._more():
            chunk = await anext(chunks, None)
            if chunk is None:
                return
            self._take(chunk)

    def _more(self) -> bool:
        return self._pieces != 0 and (self._size is None or len(self.body) < self._size)

    def _take(self, chunk: bytes) -> None:
        self.body += chunk
        if self._pieces is not None:
            self._pieces -= 1


class _Watched(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that notes whether it was closed, as a connection must be, and how much was read."""

    def __init__(self, stream: Any, exchange: Exchange, world: World) -> None:
        self._stream = stream
        self._exchange = exchange
        self._world = world
        self.closed_at: float | None = None

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._count(chunk)
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._count(chunk)
            yield chunk

    def _count(self, chunk: bytes) -> None:
        exchange = self._exchange
        exchange.read += len(chunk)
        if exchange.read > FLOOD:
            self._world.wrong.append(
                f"call {exchange.call} read {FLOOD >> 20} MiB of an answer of "
                f"{exchange.deployment} to {exchange.operation}, and went on"
            )
            raise httpx.ReadError("more of an answer than anybody should read")

    def close(self) -> None:
        self._exchange.closed = True
        if self.closed_at is None:
            self.closed_at = self._world.now()

    async def aclose(self) -> None:
        self.close()


class Wire:
    """One connection of a router's own, in place of a socket."""

    def __init__(self, network: Network, target: Target) -> None:
        self._network = network
        self._answer: _Watched | None = None
        self.deployment = target.origin.host.decode().removesuffix(".sim")
        self.open = True
        self.number = len(network.wires)
        network.wires.append(self)
        network.note_wire("opened", self)

    def __repr__(self) -> str:
        return f"connection {self.number} to {self.deployment}"

    def is_reusable(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return False

    async def close(self) -> None:
        if self.open:
            self.open = False
            self._network.note_wire("closed", self)

    def _request(self, message: Message) -> httpx.Request:
        about: dict[str, Any] = {"connection": self.number}
        if not self.open:
            about["idle"] = float("inf")  # which no bound allows
        elif self._answer is not None:
            closed_at = self._answer.closed_at
            about["idle"] = float("inf") if closed_at is None else self._network.now() - closed_at
        request = message.for_httpx()
        request.extensions["wire"] = about
        return request

    def _noted(self, response: httpx.Response) -> Any:
        assert isinstance(response.stream, _Watched)
        self._answer = response.stream
        return response.stream


class BlockingWire(Wire):
    def __init__(self, network: Network, target: Target, monotonic: Monotonic) -> None:
        super().__init__(network, target)
        self._monotonic = monotonic

    async def exchange(self, message: Message, heard: Heard) -> None:
        response = self._network.handle_request(self._request(message))
        chunks = Arriving(self._noted(response), self._monotonic, message.until)
        try:
            await heard.take_in(response.status_code, response.headers.raw, chunks)
        finally:
            response.close()


class AsyncWire(Wire):
    async def exchange(self, message: Message, heard: Heard) -> None:
        response = await self._network.handle_async_request(self._request(message))
        try:
            await heard.take_in(response.status_code, response.headers.raw, self._noted(response))
        finally:
            await response.aclose()


class Wires(Openings):
    """Opens wires into a network, in place of sockets."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def blocking(self, target: Target, monotonic: Monotonic) -> BlockingWire:
        return BlockingWire(self._network, target, monotonic)

    async def awaiting(self, target: Target) -> AsyncWire:
        return AsyncWire(self._network, target)


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


def _throttled(rng: random.Random, now: float) -> Details:
    headers = rng.choice(
        (
            {},
            {"retry-after": "0"},
            {"retry-after": "7"},
            {"retry-after": "31536000"},
            {"retry-after": email.utils.formatdate(now + 300, usegmt=True)},
            {"retry-after-ms": "2500", "retry-after": "60"},
            {"retry-after": "soon"},
        )
    )
    return {"status": 429, "headers": headers, "body": {"error": {"message": "slow down"}}}


def _busy(rng: random.Random, now: float) -> Details:
    return {"status": 503, "headers": {"retry-after": rng.choice(("1", "20"))}, "body": "busy"}


def _server_error(rng: random.Random, now: float) -> Details:
    body = rng.choice((None, "<html><body>Bad gateway</body></html>", ""))
    return {"status": rng.choice((500, 502, 503, 504)), "body": body}


def _bad_request(rng: random.Random, now: float) -> Details:
    status = rng.choice((400, 409, 413, 415, 422))
    message = rng.choice(("prompt is too long", "rejected by our content policy"))
    return {"status": status, "body": {"error": {"message": message, "code": "invalid_value"}}}


def _not_found(rng: random.Random, now: float) -> Details:
    return {"status": 404, "body": {"error": {"message": "No such video", "code": "not_found"}}}


def _model_missing(rng: random.Random, now: float) -> Details:
    status = rng.choice((404, 501))
    error = {"message": "The model sora-2 does not exist", "code": "model_not_found"}
    return {"status": status, "body": {"error": error}}


def _denied(rng: random.Random, now: float) -> Details:
    return {"status": rng.choice((401, 403)), "body": {"error": {"message": "no access"}}}


def _broke(rng: random.Random, now: float) -> Details:
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    return {"status": 429, "body": {"error": error}}


_STATUSES: dict[str, Callable[[random.Random, float], Details]] = {
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
