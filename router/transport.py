"""Sends a request and brings back the reply, or says why there is none and what went out.

Two transports, one per door, share everything but the calls into httpx. Each owns its connections:
httpx transports of one connection each, on a stack per origin. That leaves two decisions to us that
a shared pool makes by itself. A submit uses only a connection that was in use within the last two
seconds, or a fresh one, so that a server closing an idle connection never meets a paid call half
way. And a connection on which anything went wrong is closed, not kept.

What went out is judged by the bytes that were handed over: `_Sending` notes when the last of them
was asked for. Exceptions only tell what to call it (`FAULTS`).

A caller's own `httpx` client or transport is used as it is; then its pool and its limits rule.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
import zlib
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from router.messages import Reply, Request
from router.outcomes import Fault

__all__ = [
    "FAULTS",
    "AsyncTransport",
    "BlockingTransport",
    "Patience",
    "Sink",
    "SinkFailed",
    "Transport",
    "Unanswered",
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

# A keep-alive race needs a server that closes just then; none closes after two idle seconds.
FRESH_SECONDS = 2.0
KEEP_SECONDS = 60.0
KEEP_IDLE = 64
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


class _Sending(httpx.SyncByteStream, httpx.AsyncByteStream):
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

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._body.length
        for read in self._reads():
            chunk = read() if isinstance(read, _Ready) else await asyncio.to_thread(read)
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


@functools.lru_cache(1024)
def _parsed(url: str) -> tuple[httpx.URL, str]:
    """A URL and its host; parsing takes longer than building the rest of the request."""
    parsed = httpx.URL(url)
    return parsed, parsed.netloc.decode("ascii")


def _outgoing(request: Request, patience: Patience, monotonic: Monotonic) -> httpx.Request:
    sending = _Sending(request, monotonic, monotonic() + patience.whole)
    headers = {"accept-encoding": "identity", **request.headers}
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
    url, host = _parsed(request.url)
    headers.setdefault("host", host)
    return httpx.Request(
        request.method,
        url,
        headers=headers,
        stream=sending,
        extensions={"timeout": timeouts},
    )


@dataclass(slots=True)
class _Heard:
    """How much of an answer to `request` has come so far; a download goes to `sink`."""

    request: Request
    sink: Sink | None
    status: int | None = None
    whole: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def take_in(self, response: httpx.Response, chunks: AsyncIterable[bytes]) -> None:
        """Take the answer in, its body into memory or into the sink; bounded whatever is sent."""
        self.headers = _headers(response)
        self.status = response.status_code
        # A portal's page is kept for the error, not handed out as a video.
        download = self.status == 200 and self.request.download and not self.reply().is_text
        plain = _plain(response)
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


def _made_of(heard: _Heard, exc: Exception) -> Reply:
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


def _headers(response: httpx.Response) -> dict[str, str]:
    return {
        key.decode("latin-1").lower(): value.decode("latin-1")
        for key, value in response.headers.raw
    }


_Plain: TypeAlias = Callable[[bytes], Iterable[bytes]]


def _plain(response: httpx.Response) -> _Plain:
    """What makes a body's chunks plain. We ask for that, so most are; a hook has read the rest."""
    packed = response.headers.get("content-encoding", "").strip().lower()
    if response.is_stream_consumed or packed not in ("gzip", "x-gzip", "deflate"):
        return lambda chunk: (chunk,)
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


# Connections of our own ------------------------------------------------------------------------

ConnectionT = TypeVar("ConnectionT")


class _Stack(Generic[ConnectionT]):
    """Idle connections by origin, the latest used on top."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, ConnectionT]]] = {}

    def take(self, origin: str, within: float) -> ConnectionT | None:
        """The connection used last, if that was at most `within` seconds ago."""
        with self._lock:
            idle = self._idle.get(origin)
            if not idle or self._monotonic() - idle[-1][0] > within:
                return None
            return idle.pop()[1]

    def give(self, origin: str, connection: ConnectionT) -> list[ConnectionT]:
        """Put one back; returns those that are too many or too old to keep."""
        now = self._monotonic()
        surplus = []
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            idle.append((now, connection))
            while len(idle) > KEEP_IDLE or now - idle[0][0] > KEEP_SECONDS:
                surplus.append(idle.pop(0)[1])
        return surplus

    def drain(self) -> list[ConnectionT]:
        with self._lock:
            idle, self._idle = self.idle(), {}
        return idle

    def idle(self) -> list[ConnectionT]:
        return [connection for stack in self._idle.values() for _, connection in stack]


class _Openings:
    """What new connections need: TLS settings, made once, and the environment's proxies."""

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()

    @functools.cached_property
    def _plain(self) -> ssl.SSLContext:
        # httpx makes a context for plain connections too; loading certificates takes 10 ms.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def arguments(self, origin: str) -> dict[str, Any]:
        scheme, host = urlsplit(origin)[:2]
        proxies = getproxies()
        proxy = proxies.get(scheme) or proxies.get("all")
        if proxy and proxy_bypass(host):
            proxy = None
        return {
            "verify": self._tls if scheme == "https" or proxy else self._plain,
            "limits": httpx.Limits(max_connections=1, keepalive_expiry=KEEP_SECONDS),
            "proxy": httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}") if proxy else None,
        }


@functools.lru_cache(1024)
def _origin(url: str) -> str:
    scheme, host = urlsplit(url)[:2]
    return f"{scheme}://{host}"


class _BlockingConnection:
    """One connection for threads; its reads end at `until`, however slowly bytes drip in.

    A socket's timeout bounds the silence between bytes, never the whole. The stream of a new
    connection is handed out by httpx's `trace` extension, and its `read` gets the bound here.
    """

    def __init__(self, arguments: dict[str, Any], monotonic: Monotonic) -> None:
        self._transport = httpx.HTTPTransport(**arguments)
        self._monotonic = monotonic
        self._until = 0.0
        self._stream: Any = None
        self.close = self._transport.close

    def handle_request(self, message: httpx.Request, until: float) -> httpx.Response:
        # httpx opens a connection anew that the server has closed, which is one that can be read.
        if self._stream is None or self._stream.get_extra_info("is_readable"):
            message.extensions = {**message.extensions, "trace": self._on_trace}
        self._until = until
        return self._transport.handle_request(message)

    def _on_trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._bound(info["return_value"])

    def _bound(self, stream: Any) -> None:
        read = stream.read

        def read_until(max_bytes: int, timeout: float | None = None) -> bytes:
            left = self._until - self._monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("the whole answer did not come in time")
            data: bytes = read(max_bytes, left if timeout is None else min(timeout, left))
            return data

        stream.read = read_until
        self._stream = stream


class _Arriving:
    """A blocking stream of chunks in the shape of an async one, ending at `until` at the latest."""

    def __init__(self, chunks: Iterable[bytes], monotonic: Monotonic, until: float) -> None:
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


class BlockingTransport:
    """The blocking door's transport; safe under threads."""

    def __init__(
        self, monotonic: Monotonic, given: httpx.Client | httpx.BaseTransport | None = None
    ) -> None:
        self._monotonic = monotonic
        self._given = given
        self._openings = _Openings()
        self._stack: _Stack[_BlockingConnection] = _Stack(monotonic)

    async def exchange(
        self, request: Request, patience: Patience, sink: Sink | None, *, fresh: bool
    ) -> Reply:
        heard, until = _Heard(request, sink), self._monotonic() + patience.whole
        try:
            message = _outgoing(request, patience, self._monotonic)
            if self._given is not None:
                response = self._by_given(self._given, message)
                await self._take_in(heard, response, until)
            else:
                await self._by_own(heard, message, until, fresh=fresh)
        except SinkFailed:
            raise
        except Exception as exc:  # noqa: BLE001  (mapped, whatever it is)
            return _made_of(heard, exc)
        return heard.reply()

    async def _by_own(
        self,
        heard: _Heard,
        message: httpx.Request,
        until: float,
        *,
        fresh: bool,
    ) -> None:
        origin = _origin(heard.request.url)
        connection = self._stack.take(origin, FRESH_SECONDS if fresh else KEEP_SECONDS)
        if connection is None:
            connection = _BlockingConnection(self._openings.arguments(origin), self._monotonic)
        try:
            response = connection.handle_request(message, until)
            await self._take_in(heard, response, until)
        except BaseException:
            connection.close()
            raise
        for surplus in self._stack.give(origin, connection):
            surplus.close()

    async def _take_in(
        self,
        heard: _Heard,
        response: httpx.Response,
        until: float,
    ) -> None:
        stream = response.iter_bytes() if response.is_stream_consumed else response.stream
        assert isinstance(stream, Iterable)
        try:
            chunks = _Arriving(stream, self._monotonic, until)
            await heard.take_in(response, chunks)
        finally:
            response.close()

    @staticmethod
    def _by_given(
        given: httpx.Client | httpx.BaseTransport, message: httpx.Request
    ) -> httpx.Response:
        if not isinstance(given, httpx.Client):
            return given.handle_request(message)
        try:
            return given.send(message, stream=True, auth=None, follow_redirects=False)
        except httpx.HTTPStatusError as exc:  # a hook of the caller's; the status is an answer
            return exc.response
        except RuntimeError as exc:  # it is closed, or another loop's
            raise Unanswered(Fault.LOCAL, str(exc)) from exc

    def close(self) -> None:
        for connection in self._stack.drain():
            connection.close()

    def after_fork(self) -> None:
        # These sockets are the parent's too: closing our copies ends nothing there. The stack is
        # left with its lock, which a thread of the parent's may have held.
        stack, self._stack = self._stack, _Stack(self._monotonic)
        for idle in stack.idle():
            idle.close()


class AsyncTransport:
    """The async door's transport: connections belong to the event loop that opened them."""

    def __init__(
        self,
        monotonic: Monotonic,
        given: httpx.AsyncClient | httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._given = given
        self._openings = _Openings()
        # By event loop: its connections, and the guard that closes them with it.
        self._loops: dict[asyncio.AbstractEventLoop, tuple[_AsyncStack, AsyncIterator[None]]] = {}
        self._abandoned: list[object] = []

    async def exchange(
        self, request: Request, patience: Patience, sink: Sink | None, *, fresh: bool
    ) -> Reply:
        heard = _Heard(request, sink)
        try:
            message = _outgoing(request, patience, self._monotonic)
            async with asyncio.timeout(patience.whole):
                if self._given is not None:
                    response = await self._by_given(self._given, message)
                    await self._take_in(heard, response)
                else:
                    await self._by_own(heard, message, fresh=fresh)
        except SinkFailed:
            raise
        except Exception as exc:  # noqa: BLE001  (mapped, whatever it is)
            return _made_of(heard, exc)
        return heard.reply()

    async def _by_own(
        self,
        heard: _Heard,
        message: httpx.Request,
        *,
        fresh: bool,
    ) -> None:
        origin = _origin(heard.request.url)
        stack = await self._stack()
        connection = stack.take(origin, FRESH_SECONDS if fresh else KEEP_SECONDS)
        if connection is None:
            arguments = await asyncio.to_thread(self._openings.arguments, origin)
            connection = httpx.AsyncHTTPTransport(**arguments)
        try:
            response = await connection.handle_async_request(message)
            await self._take_in(heard, response)
        except BaseException:
            await connection.aclose()
            raise
        for surplus in stack.give(origin, connection):
            await surplus.aclose()

    @staticmethod
    async def _take_in(heard: _Heard, response: httpx.Response) -> None:
        stream = response.aiter_bytes() if response.is_stream_consumed else response.stream
        assert isinstance(stream, AsyncIterable)
        try:
            await heard.take_in(response, stream)
        finally:
            await response.aclose()

    @staticmethod
    async def _by_given(
        given: httpx.AsyncClient | httpx.AsyncBaseTransport, message: httpx.Request
    ) -> httpx.Response:
        if not isinstance(given, httpx.AsyncClient):
            return await given.handle_async_request(message)
        try:
            return await given.send(message, stream=True, auth=None, follow_redirects=False)
        except httpx.HTTPStatusError as exc:  # a hook of the caller's; the status is an answer
            return exc.response
        except RuntimeError as exc:  # it is closed, or another loop's
            raise Unanswered(Fault.LOCAL, str(exc)) from exc

    async def _stack(self) -> _AsyncStack:
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is not None:
            return known[0]
        # A loop tells nobody that it ends, but it closes the async generators it has seen. One that
        # was closed without that is found here, by the next.
        for ended in [other for other in list(self._loops) if other.is_closed()]:
            self._loops.pop(ended, None)
        stack: _AsyncStack = _Stack(self._monotonic)
        guard = self._until_it_ends(loop, stack)
        self._loops[loop] = stack, guard
        await anext(guard)
        return stack

    async def _until_it_ends(
        self, loop: asyncio.AbstractEventLoop, stack: _AsyncStack
    ) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await _close_all(stack)

    async def aclose(self) -> None:
        """Close the connections of the running loop; other loops close theirs when they end."""
        known = self._loops.get(asyncio.get_running_loop())
        if known is not None:
            await _close_all(known[0])

    def after_fork(self) -> None:
        # The parent's loop is not ours to run, so these are kept from collection, and never used.
        self._abandoned += self._loops.values()
        self._loops = {}


_AsyncStack: TypeAlias = _Stack[httpx.AsyncHTTPTransport]


async def _close_all(stack: _AsyncStack) -> None:
    for connection in stack.drain():
        await connection.aclose()
