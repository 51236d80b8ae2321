"""One connection of HTTP/1.1 to a provider, for both doors: h11 speaks, a stream carries.

Written once: through the blocking door nothing that is awaited here suspends. A head and a short
body leave in one write, and wake the server once.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import h11
import httpcore

from router.transport.exchange import Heard, Message

__all__ = ["Http11", "Stream"]

# What is shorter waits for more of the body, or for its end.
_SHORT = 1 << 16
_READ = 1 << 16


class Stream(Protocol):
    """Bytes to and from one peer. Bounds are in seconds; it raises httpcore's exceptions."""

    async def read(self, most: int, seconds: float) -> bytes:
        """What comes next; nothing at the end."""

    async def write(self, data: bytes, seconds: float) -> None: ...

    async def offload(self, read: Callable[[], bytes]) -> bytes:
        """Read from a file, as this door may."""

    def is_readable(self) -> bool:
        """Whether something came, or the end; to an idle connection that is the end."""

    async def close(self) -> None: ...


class Http11:
    """One connection, with one exchange at a time; `connect` opens it in so many seconds."""

    def __init__(self, connect: Callable[[float], Awaitable[Stream]]) -> None:
        self._connect = connect
        self._stream: Stream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def exchange(self, message: Message, heard: Heard) -> None:
        """Send, and let `heard` take the answer in."""
        if self._stream is None:
            self._stream = await self._connect(message.timeouts["connect"])
        stream = self._stream
        try:
            # Who has answered already, and listens no more, is heard all the same.
            with contextlib.suppress(httpcore.WriteError):
                await self._send(stream, message)
            head = await self._head(stream, message)
            body = self._body(stream, message)
            await heard.take_in(head.status_code, head.headers.raw_items(), body)
        except h11.LocalProtocolError as exc:
            raise httpcore.LocalProtocolError(str(exc)) from exc
        except h11.RemoteProtocolError as exc:
            raise httpcore.RemoteProtocolError(str(exc)) from exc

    def is_reusable(self) -> bool:
        """Whether both sides are done with an exchange, and keep the connection for another."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def has_expired(self) -> bool:
        return self._stream is None or self._stream.is_readable()

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()

    async def _send(self, stream: Stream, message: Message) -> None:
        seconds = message.timeouts["write"]
        target, headers = message.target.url.target, message.raw_headers()
        held = self._said(h11.Request(method=message.method, target=target, headers=headers))
        async for chunk in message.body.through(stream.offload):
            held += self._said(h11.Data(data=chunk))
            if len(held) >= _SHORT:
                await stream.write(held, seconds)
                held = b""
        held += self._said(h11.EndOfMessage())
        if held:
            await stream.write(held, seconds)

    def _said(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    async def _head(self, stream: Stream, message: Message) -> h11.Response:
        while not isinstance(event := await self._event(stream, message), h11.Response):
            if isinstance(event, h11.ConnectionClosed):
                raise httpcore.RemoteProtocolError("the server hung up without an answer")
        return event

    async def _body(self, stream: Stream, message: Message) -> AsyncIterator[bytes]:
        while isinstance(event := await self._event(stream, message), h11.Data):
            yield bytes(event.data)

    async def _event(self, stream: Stream, message: Message) -> object:
        http = self._http
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await stream.read(_READ, message.timeouts["read"]))
        return event
