"""The sockets below our connections, one kind for each door.

Each is a `Stream` for our own HTTP, and what httpcore calls a network backend, which carries what
goes through a proxy. The async one stands on asyncio's own protocols. The blocking one bounds a
whole exchange: a socket's timeout bounds the silence between bytes only, however slowly they drip.
"""

from __future__ import annotations

import asyncio
import ipaddress
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

__all__ = ["AsyncSocket", "AsyncSockets", "Bound", "Socket", "Sockets"]

# Read ahead of whoever reads, at most.
_AHEAD = 1 << 16
# RFC 8305: how long the next address waits for the one before it.
_NEXT_ADDRESS_SECONDS = 0.25


# Blocking ----------------------------------------------------------------------------------------


class Bound:
    """Until when the exchange under way may go on, by the clock `monotonic`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.until = 0.0

    def left(self, silence: float | None) -> float:
        """Seconds that a read may take; raises `ReadTimeout` when there are none."""
        left = self.until - self._monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the whole answer did not come in time")
        return left if silence is None else min(silence, left)


class Sockets(httpcore.NetworkBackend):
    """Opens sockets for one connection, whose reads end at `bound`."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> BoundedStream:
        opened = self._plain.connect_tcp(host, port, timeout, local_address, socket_options)
        return BoundedStream(opened, self._bound)


class BoundedStream(httpcore.NetworkStream):
    """A socket whose reads end at a bound."""

    def __init__(self, stream: httpcore.NetworkStream, bound: Bound) -> None:
        self._stream = stream
        self._bound = bound

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._bound.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> BoundedStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return BoundedStream(inner, self._bound)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Socket:
    """A blocking socket as a `Stream`: what is awaited has happened."""

    def __init__(self, stream: httpcore.NetworkStream, bound: Bound) -> None:
        # Opened by httpcore, and read without it: its stream takes as long as the socket.
        self._socket: socket.socket = stream.get_extra_info("socket")
        self._bound = bound

    async def read(self, most: int, seconds: float) -> bytes:
        try:
            self._socket.settimeout(self._bound.left(seconds))
            return self._socket.recv(most)
        except TimeoutError as exc:
            raise httpcore.ReadTimeout("silence") from exc
        except OSError as exc:
            raise httpcore.ReadError(str(exc)) from exc

    async def write(self, data: bytes, seconds: float) -> None:
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(data)
        except TimeoutError as exc:
            raise httpcore.WriteTimeout("nobody reads") from exc
        except OSError as exc:
            raise httpcore.WriteError(str(exc)) from exc

    async def offload(self, read: Callable[[], bytes]) -> bytes:
        return read()

    def is_readable(self) -> bool:
        return _is_readable(self._socket)

    async def close(self) -> None:
        self._socket.close()


# Async -------------------------------------------------------------------------------------------


class AsyncSockets(httpcore.AsyncNetworkBackend):
    """Opens sockets on the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncSocket:
        loop = asyncio.get_running_loop()
        # A name may have several addresses; a foreign loop has no word for that.
        races = isinstance(loop, asyncio.BaseEventLoop) and not _is_address(host)
        how: dict[str, Any] = {"happy_eyeballs_delay": _NEXT_ADDRESS_SECONDS} if races else {}
        try:
            async with asyncio.timeout(timeout):
                _, wire = await loop.create_connection(_Wire, host, port, **how)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout("no connection in time") from exc
        except (OSError, UnicodeError) as exc:  # the latter: a host that is no name
            raise httpcore.ConnectError(str(exc)) from exc
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # in its next turn the loop closes what was half open
            raise
        return AsyncSocket(wire)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_readable(sock: Any) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class _Wire(asyncio.Protocol):
    """What asyncio tells of one socket, and who waits for it."""

    def __init__(self) -> None:
        self.transport: Any = None  # asyncio.Transport, whatever the loop calls it
        self.came = bytearray()
        self.ended = False
        self.error: Exception | None = None
        self.full = False
        self._waiter: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.came += data
        if len(self.came) > _AHEAD:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self.full, self.error = True, False, exc
        self._wake()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._wake()

    def _wake(self, happened: bool = True) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(happened)

    async def news(self, seconds: float | None) -> bool:
        """Wait until something happens; whether it did within so many seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        alarm = None if seconds is None else loop.call_later(seconds, self._wake, False)
        try:
            return await waiter
        finally:
            self._waiter = None
            if alarm is not None:
                alarm.cancel()

    def take(self, most: int) -> bytes:
        """At most so many of the bytes that came."""
        data = bytes(self.came[:most])
        del self.came[:most]
        if len(self.came) <= _AHEAD and not self.ended:
            self.transport.resume_reading()
        return data


class AsyncSocket(httpcore.AsyncNetworkStream):
    """A socket of an event loop: a `Stream`, and what httpcore takes for one."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        wire = self._wire
        if wire.came:
            await asyncio.sleep(0)  # whoever floods us does not keep the loop from others
        while not wire.came and not wire.ended:
            if not await wire.news(timeout):
                raise httpcore.ReadTimeout("silence")
        if wire.came:
            return wire.take(max_bytes)
        if wire.error is not None:
            raise httpcore.ReadError(str(wire.error)) from wire.error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        wire = self._wire
        if wire.transport.is_closing():
            raise httpcore.WriteError(str(wire.error or "the connection is closed"))
        wire.transport.write(buffer)
        while wire.full:
            if not await wire.news(timeout):
                raise httpcore.WriteTimeout("nobody reads")
        if wire.error is not None:
            raise httpcore.WriteError(str(wire.error)) from wire.error

    async def offload(self, read: Callable[[], bytes]) -> bytes:
        return await asyncio.to_thread(read)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> AsyncSocket:
        loop, wire = asyncio.get_running_loop(), self._wire
        try:
            async with asyncio.timeout(timeout):
                wire.transport = await loop.start_tls(
                    wire.transport, wire, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as exc:
            wire.transport.abort()
            raise httpcore.ConnectTimeout("no TLS in time") from exc
        except OSError as exc:  # ssl.SSLError is one
            wire.transport.abort()
            raise httpcore.ConnectError(str(exc)) from exc
        except BaseException:
            wire.transport.abort()
            raise
        return self

    def is_readable(self) -> bool:
        wire = self._wire
        if wire.ended or wire.came or wire.transport.is_closing():
            return True
        # A loop that did not run meanwhile has heard nothing yet.
        return _is_readable(wire.transport.get_extra_info("socket"))

    async def close(self) -> None:
        # What nobody reads is not waited for; the loop gets a turn, so that the socket goes now.
        if self._wire.full:
            self._wire.transport.abort()
        self._wire.transport.close()
        await asyncio.sleep(0)

    aclose = close

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self.is_readable()
        return self._wire.transport.get_extra_info(info)
