"""Connections of our own: opened, kept on a stack for each origin, and given up.

Proxies are those of the environment, as everywhere in Python; what goes through one is carried by
httpcore, which knows them all. TLS settings are httpx's (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from router.transport.exchange import Arriving, Heard, Message, Monotonic, Target
from router.transport.http11 import Http11, Stream
from router.transport.network import AsyncSockets, Bound, Socket, Sockets

__all__ = ["FRESH_SECONDS", "KEEP_SECONDS", "Connection", "Connections", "Openings"]

# A keep-alive race needs a server that closes just then; none closes after two idle seconds.
FRESH_SECONDS = 2.0
KEEP_SECONDS = 60.0
KEEP_IDLE = 64


class Connection(Protocol):
    """One connection to a provider. Those of the blocking door never suspend."""

    async def exchange(self, message: Message, heard: Heard) -> None:
        """Send, and let `heard` take the answer in; raises httpcore's exceptions."""

    def is_reusable(self) -> bool:
        """Whether the exchange that has ended leaves it fit for another."""

    def has_expired(self) -> bool:
        """Whether its server has hung up while it was idle."""

    async def close(self) -> None: ...


class Connections:
    """Those of one door, or of one event loop: idle ones by origin, the latest used on top."""

    def __init__(
        self, monotonic: Monotonic, opened: Callable[[Target], Awaitable[Connection]]
    ) -> None:
        self._monotonic = monotonic
        self._opened = opened
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Connection]]] = {}

    async def exchange(self, message: Message, heard: Heard, *, fresh: bool) -> None:
        """One exchange, on a connection that was in use just now or, if need be, a new one."""
        connection = await self._connection(
            message.target, FRESH_SECONDS if fresh else KEEP_SECONDS
        )
        try:
            await connection.exchange(message, heard)
            surplus = self._give(message.target.place, connection)
        except BaseException:
            await connection.close()
            raise
        for other in surplus:
            await other.close()

    async def _connection(self, target: Target, within: float) -> Connection:
        while (connection := self._take(target.place, within)) is not None:
            if not connection.has_expired():
                return connection
            await connection.close()
        return await self._opened(target)

    def _take(self, place: str, within: float) -> Connection | None:
        """The connection used last, if that was at most `within` seconds ago."""
        with self._lock:
            idle = self._idle.get(place)
            if not idle or self._monotonic() - idle[-1][0] > within:
                return None
            return idle.pop()[1]

    def _give(self, place: str, connection: Connection) -> list[Connection]:
        """Put one back; returns those that are too many, too old, or of no more use."""
        if not connection.is_reusable():
            return [connection]
        now = self._monotonic()
        surplus = []
        with self._lock:
            idle = self._idle.setdefault(place, [])
            idle.append((now, connection))
            while len(idle) > KEEP_IDLE or now - idle[0][0] > KEEP_SECONDS:
                surplus.append(idle.pop(0)[1])
        return surplus

    async def close(self) -> None:
        """Close those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for stack in idle.values():
            for _, connection in stack:
                await connection.close()

    def unlock(self) -> None:
        """In a child after a fork: nobody holds the lock, whatever a thread of the parent's did."""
        self._lock = threading.Lock()


class Openings:
    """Opens connections: through the environment's proxies, under TLS settings made once."""

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        context = httpx.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _around(self, target: Target) -> tuple[ssl.SSLContext | None, httpx.Proxy | None]:
        tls = self._tls if target.url.scheme == b"https" else None
        return tls, _proxy_for(target)

    async def blocking(self, target: Target, monotonic: Monotonic) -> Connection:
        bound = Bound(monotonic)
        tls, proxy = self._around(target)
        if proxy is not None:
            kind = httpcore.SOCKSProxy if _is_socks(proxy) else httpcore.HTTPProxy
            return _Bounded(_Proxied(kind(**self._by(proxy, tls, Sockets(bound)))), bound)

        async def connect(seconds: float) -> Stream:
            host, port = _address(target)
            stream = httpcore.SyncBackend().connect_tcp(host, port, seconds)
            return Socket(stream.start_tls(tls, host, seconds) if tls else stream, bound)

        return _Bounded(Http11(connect), bound)

    async def awaiting(self, target: Target) -> Connection:
        # In a thread: reading the certificates takes a while.
        tls, proxy = await asyncio.to_thread(self._around, target)
        sockets = AsyncSockets()
        if proxy is not None:
            kind = httpcore.AsyncSOCKSProxy if _is_socks(proxy) else httpcore.AsyncHTTPProxy
            return _AsyncProxied(kind(**self._by(proxy, tls, sockets)))

        async def connect(seconds: float) -> Stream:
            host, port = _address(target)
            stream = await sockets.connect_tcp(host, port, seconds)
            return await stream.start_tls(tls, host, seconds) if tls else stream

        return Http11(connect)

    def _by(
        self, proxy: httpx.Proxy, tls: ssl.SSLContext | None, sockets: object
    ) -> dict[str, Any]:
        url = proxy.url
        how = {
            "proxy_url": httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port),
            "proxy_auth": proxy.raw_auth,
            "ssl_context": tls,
            "max_connections": 1,
            "keepalive_expiry": KEEP_SECONDS,
            "network_backend": sockets,
        }
        if not _is_socks(proxy):
            how["proxy_headers"] = proxy.headers.raw
            how["proxy_ssl_context"] = self._tls if url.scheme == "https" else None
        return how


def _address(target: Target) -> tuple[str, int]:
    return target.origin.host.decode("ascii"), target.origin.port


def _proxy_for(target: Target) -> httpx.Proxy | None:
    proxies = getproxies()
    proxy = proxies.get(target.url.scheme.decode("ascii")) or proxies.get("all")
    if not proxy or proxy_bypass(target.host):
        return None
    return httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")


def _is_socks(proxy: httpx.Proxy) -> bool:
    return proxy.url.scheme.startswith("socks")


class _Bounded:
    """A blocking connection, whose answers are whole within a bound."""

    def __init__(self, connection: Connection, bound: Bound) -> None:
        self._connection = connection
        self._bound = bound
        self.is_reusable = connection.is_reusable
        self.has_expired = connection.has_expired
        self.close = connection.close

    async def exchange(self, message: Message, heard: Heard) -> None:
        self._bound.until = message.until
        await self._connection.exchange(message, heard)


class _Proxied:
    """Through a proxy, for threads: a pool of one, which looks after its connection by itself."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    async def exchange(self, message: Message, heard: Heard) -> None:
        response = self._pool.handle_request(message.for_httpcore())
        assert isinstance(response.stream, Iterable)
        try:
            await heard.take_in(response.status, response.headers, Arriving(response.stream))
        finally:
            response.close()

    def is_reusable(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return False

    async def close(self) -> None:
        self._pool.close()


class _AsyncProxied:
    """Through a proxy, for an event loop."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool
        self.close = pool.aclose

    async def exchange(self, message: Message, heard: Heard) -> None:
        response = await self._pool.handle_async_request(message.for_httpcore())
        assert isinstance(response.stream, AsyncIterable)
        try:
            await heard.take_in(response.status, response.headers, response.stream)
        finally:
            await response.aclose()

    def is_reusable(self) -> bool:
        return True

    def has_expired(self) -> bool:
        return False
