"""One exchange, whoever carries it: what goes out, what comes in, and what an exception means."""

from __future__ import annotations

import asyncio
import functools
import math
import zlib
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import httpcore
import httpx

from router.messages import Reply, Request
from router.outcomes import Fault

__all__ = [
    "FAULTS",
    "Arriving",
    "Heard",
    "Message",
    "Monotonic",
    "Patience",
    "Sending",
    "Sink",
    "SinkFailed",
    "Target",
    "Transport",
    "Unanswered",
    "made_of",
]


# Every exception that httpx has, and what an exchange that ended in it is called. Whether it may be
# repeated is no column here: that depends on what was sent.
FAULTS: dict[type[Exception], Fault] = {
    httpx.ConnectError: Fault.CONNECT,
    httpx.ConnectTimeout: Fault.CONNECT,
    httpx.ProxyError: Fault.CONNECT,
    httpx.PoolTimeout: Fault.POOL,
    httpx.ReadTimeout: Fault.TIMEOUT,
    httpx.WriteTimeout: Fault.TIMEOUT,
    httpx.TimeoutException: Fault.TIMEOUT,
    TimeoutError: Fault.TIMEOUT,
    httpx.ReadError: Fault.BROKEN,
    httpx.WriteError: Fault.BROKEN,
    httpx.CloseError: Fault.BROKEN,
    httpx.NetworkError: Fault.BROKEN,
    httpx.RemoteProtocolError: Fault.BROKEN,
    httpx.ProtocolError: Fault.BROKEN,
    httpx.DecodingError: Fault.BROKEN,
    httpx.TooManyRedirects: Fault.BROKEN,
    httpx.TransportError: Fault.BROKEN,
    httpx.RequestError: Fault.BROKEN,
    httpx.HTTPStatusError: Fault.BROKEN,
    httpx.HTTPError: Fault.BROKEN,
    httpx.StreamConsumed: Fault.BROKEN,
    httpx.StreamClosed: Fault.BROKEN,
    httpx.ResponseNotRead: Fault.BROKEN,
    httpx.RequestNotRead: Fault.BROKEN,
    httpx.StreamError: Fault.BROKEN,
    httpx.LocalProtocolError: Fault.LOCAL,
    httpx.UnsupportedProtocol: Fault.LOCAL,
    httpx.InvalidURL: Fault.LOCAL,
    httpx.CookieConflict: Fault.LOCAL,
}
# Those of httpcore, which our own connections raise, have the same names as httpx's.
FAULTS |= {
    getattr(httpcore, kind.__name__): fault
    for kind, fault in FAULTS.items()
    if hasattr(httpcore, kind.__name__)
} | {httpcore.ConnectionNotAvailable: Fault.BROKEN}

# JSON answers are a few kilobytes, a page of them some hundred; whoever sends more sends no answer.
# Parsed, a mean one takes thirty times its size.
LARGEST_JSON = 2 << 20
LARGEST_ERROR = 64 << 10
_CHUNK = 1 << 18


Monotonic: TypeAlias = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an exchange may take, in seconds: to connect, between bytes, and in all."""

    connect: float
    silence: float
    whole: float


class Sink(Protocol):
    """Where a download goes."""

    async def begin(self, headers: Mapping[str, str]) -> None:
        """A download starts, maybe again after one that broke off."""

    async def write(self, chunk: bytes) -> None: ...


class Unanswered(Exception):  # noqa: N818  (a fact for the outcome table, never seen by callers)
    """No reply came; what was sent by then stands in the request."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class Transport(Protocol):
    """One exchange; raises `Unanswered` where no whole reply comes, and `SinkFailed`."""

    async def exchange(
        self, request: Request, patience: Patience, sink: Sink | None, *, fresh: bool
    ) -> Reply: ...


class SinkFailed(Exception):  # noqa: N818
    """Where the download was to go would not take it; `__cause__` says why."""


class Sending(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body on its way out; it notes in the request when its last chunk has been handed over."""

    def __init__(self, request: Request, monotonic: Monotonic, until: float) -> None:
        self._request = request
        self._body = request.body
        self._monotonic = monotonic
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        left = self._body.length
        for read in self._reads():
            chunk = read()
            left -= len(chunk)
            self._request.sent_whole = self._request.sent_whole or left == 0
            self._check()
            yield chunk
        self._request.sent_whole = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.through(asyncio.to_thread)

    async def through(
        self, offload: Callable[[Callable[[], bytes]], Awaitable[bytes]]
    ) -> AsyncIterator[bytes]:
        """The chunks; what stands in a file is read by `offload`."""
        left = self._body.length
        for read in self._reads():
            chunk = read() if isinstance(read, _Ready) else await offload(read)
            left -= len(chunk)
            self._request.sent_whole = self._request.sent_whole or left == 0
            self._check()
            yield chunk
        self._request.sent_whole = True

    def _reads(self) -> Iterator[Callable[[], bytes]]:
        for segment in self._body.segments:
            if isinstance(segment, bytes):
                yield _Ready(segment)
                continue
            for offset in range(0, segment.size, _CHUNK):
                size = min(_CHUNK, segment.size - offset)
                yield functools.partial(_read_exactly, segment, offset, size)

    def _check(self) -> None:
        if not self._request.sent_whole and self._monotonic() > self._until:
            raise httpx.WriteTimeout("the time for sending ran out")


@dataclass(frozen=True, slots=True)
class _Ready:
    """Bytes that are at hand, in the shape of a read."""

    data: bytes

    def __call__(self) -> bytes:
        return self.data


def _read_exactly(segment: Any, offset: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = segment.read_at(offset + len(data), size - len(data))
        except OSError as exc:
            raise Unanswered(Fault.LOCAL, f"the file cannot be read: {exc.strerror}") from exc
        if not more:
            raise Unanswered(Fault.LOCAL, "the file became shorter while it was being sent")
        data += more
    return data


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: its URL, taken apart. `place` is its origin in words."""

    text: str
    url: httpcore.URL
    origin: httpcore.Origin
    place: str
    host: str


@functools.lru_cache(1024)  # parsing takes longer than building the rest of a request
def _target_of(url: str) -> Target:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise httpx.UnsupportedProtocol("an address begins with http:// or https://, and a host")
    core = httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
    )
    host = parsed.netloc.decode("ascii")
    return Target(url, core, core.origin, f"{parsed.scheme}://{host}", host)


@dataclass(frozen=True, slots=True)
class Message:
    """A request as any HTTP library is given it.

    `timeouts` are in seconds, by their names in httpx; `until` is when all is to be over.
    """

    method: str
    target: Target
    headers: dict[str, str]
    body: Sending
    timeouts: dict[str, float]
    until: float

    @classmethod
    def of(cls, request: Request, patience: Patience, monotonic: Monotonic) -> Self:
        target = _target_of(request.url)
        headers = {"accept-encoding": "identity", **request.headers}
        headers.setdefault("host", target.host)
        body = request.body
        if body.content_type is not None:
            headers.setdefault("content-type", body.content_type)
        if body.length or request.method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(body.length)
        silence = min(patience.silence, patience.whole)
        timeouts = {
            "connect": min(patience.connect, patience.whole),
            "read": silence,
            "write": silence,
            # Less than the whole, so that a full pool is told from a silent provider.
            "pool": min(patience.connect, 0.9 * patience.whole),
        }
        until = monotonic() + patience.whole
        sending = Sending(request, monotonic, until)
        return cls(request.method, target, headers, sending, timeouts, until)

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        return [(k.encode("ascii"), v.encode("ascii")) for k, v in self.headers.items()]

    def for_httpcore(self) -> httpcore.Request:
        return httpcore.Request(
            self.method,
            self.target.url,
            headers=self.raw_headers(),
            content=self.body,
            extensions={"timeout": self.timeouts},
        )

    def for_httpx(self) -> httpx.Request:
        return httpx.Request(
            self.method,
            self.target.text,
            headers=self.headers,
            stream=self.body,
            extensions={"timeout": self.timeouts},
        )


@dataclass(slots=True)
class Heard:
    """How much of an answer to `request` has come so far; a download goes to `sink`."""

    request: Request
    sink: Sink | None
    status: int | None = None
    whole: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def take_in(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        chunks: AsyncIterable[bytes],
        *,
        unpacked: bool = False,
    ) -> None:
        """Take the answer in, its body into memory or into the sink; bounded whatever is sent.

        `unpacked`: somebody has read the body before, and made it plain.
        """
        self.headers = {
            key.decode("latin-1").lower(): value.decode("latin-1") for key, value in headers
        }
        self.status = status
        # A portal's page is kept for the error, not handed out as a video.
        download = status == 200 and self.request.download and not self.reply().is_text
        plain = _as_it_is if unpacked else _plain(self.headers)
        if download and self.sink is not None:
            await self._hand_on(chunks, plain, self.sink)
        else:
            await self._keep(chunks, plain)
        self.whole = True

    async def _hand_on(self, chunks: AsyncIterable[bytes], plain: _Plain, sink: Sink) -> None:
        await _into(sink.begin(self.headers))
        empty = True
        async for chunk in chunks:
            for piece in plain(chunk):
                empty = empty and not piece
                await _into(sink.write(piece))
        if empty:
            raise Unanswered(Fault.BROKEN, "not a byte of the video came")

    async def _keep(self, chunks: AsyncIterable[bytes], plain: _Plain) -> None:
        successful = 200 <= (self.status or 0) < 300
        largest = LARGEST_JSON if successful else LARGEST_ERROR
        came = 0
        async for chunk in chunks:
            came += len(chunk)  # what is packed may unfold to nothing, for ever
            for piece in plain(chunk):
                self.body += piece
                _check_size(len(self.body), largest)
            _check_size(came, largest)

    def reply(self) -> Reply:
        return Reply(self.status or 0, self.headers, bytes(self.body))


def _check_size(size: int, largest: int) -> None:
    if size > largest:
        raise Unanswered(Fault.ENDLESS, f"the body has no end after {largest >> 10} KiB")


def made_of(heard: Heard, exc: Exception) -> Reply:
    """The reply, where what was heard is one in spite of `exc`; else raises `Unanswered`.

    A status that says no has said it: a body that breaks off, drips or has no end takes nothing
    from it. Nor does what fails once the whole answer is here. Every exception is mapped; the last
    resort keeps even unknown ones honest.
    """
    if heard.whole or (heard.status is not None and not 200 <= heard.status < 300):
        return heard.reply()
    # The exception's frames hold what was heard, and it may outlive the call by a while.
    heard.body.clear()
    if isinstance(exc, Unanswered):
        raise exc
    known = (FAULTS[kind] for kind in type(exc).__mro__ if kind in FAULTS)
    raise Unanswered(next(known, Fault.BROKEN), str(exc) or type(exc).__name__) from exc


_Plain: TypeAlias = Callable[[bytes], Iterable[bytes]]


def _as_it_is(chunk: bytes) -> Iterable[bytes]:
    return (chunk,)


def _plain(headers: Mapping[str, str]) -> _Plain:
    """What makes a body's chunks plain. We ask for that, so most are."""
    packed = headers.get("content-encoding", "").strip().lower()
    if packed not in ("gzip", "x-gzip", "deflate"):
        return _as_it_is
    return functools.partial(_unpacked, zlib.decompressobj(zlib.MAX_WBITS | 32))


def _unpacked(packed: Any, chunk: bytes) -> Iterator[bytes]:
    """What a chunk unfolds to, a piece at a time: httpx unfolds it whole, and it may be a bomb."""
    piece = b""
    while not packed.eof and (chunk or len(piece) == _CHUNK):
        piece = packed.decompress(chunk, _CHUNK)
        chunk = packed.unconsumed_tail
        yield piece


async def _into(doing: Awaitable[None]) -> None:
    # A full disk is no fault of the deployment's, whatever exception it comes as.
    try:
        await doing
    except Exception as exc:
        raise SinkFailed(str(exc)) from exc


class Arriving:
    """A blocking stream of chunks in the shape of an async one, ending at `until` at the latest."""

    def __init__(
        self, chunks: Iterable[bytes], monotonic: Monotonic = float, until: float = math.inf
    ) -> None:
        self._chunks = iter(chunks)
        self._monotonic = monotonic
        self._until = until

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._monotonic() > self._until:
            raise httpx.ReadTimeout("the whole answer did not come in time")
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration
