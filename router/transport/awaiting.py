"""The async door's transport: connections belong to the event loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

import httpx

from router.messages import Reply, Request
from router.outcomes import Fault
from router.transport.connections import Connection, Connections, Openings
from router.transport.exchange import (
    Heard,
    Message,
    Monotonic,
    Patience,
    Sink,
    SinkFailed,
    Target,
    Unanswered,
    made_of,
)

__all__ = ["AsyncTransport"]


class AsyncTransport:
    """Sends by connections of its own, or by the caller's `given`."""

    def __init__(
        self,
        monotonic: Monotonic,
        given: httpx.AsyncClient | httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._given = given
        self.openings = Openings()
        # By event loop: its connections, and the guard that closes them with it.
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Connections, AsyncIterator[None]]] = {}
        self._abandoned: list[object] = []

    async def _opened(self, target: Target) -> Connection:
        return await self.openings.awaiting(target)

    async def exchange(
        self, request: Request, patience: Patience, sink: Sink | None, *, fresh: bool
    ) -> Reply:
        heard = Heard(request, sink)
        try:
            message = Message.of(request, patience, self._monotonic)
            async with asyncio.timeout(patience.whole):
                if self._given is not None:
                    await _by_given(self._given, message, heard)
                else:
                    connections = await self._connections()
                    await connections.exchange(message, heard, fresh=fresh)
        except SinkFailed:
            raise
        except Exception as exc:  # noqa: BLE001  (mapped, whatever it is)
            return made_of(heard, exc)
        return heard.reply()

    async def _connections(self) -> Connections:
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is not None:
            return known[0]
        # A loop tells nobody that it ends, but it closes the async generators it has seen. One that
        # was closed without that is found here, by the next.
        for ended in [other for other in list(self._loops) if other.is_closed()]:
            self._loops.pop(ended, None)
        connections = Connections(self._monotonic, self._opened)
        guard = self._until_it_ends(loop, connections)
        self._loops[loop] = connections, guard
        await anext(guard)
        return connections

    async def _until_it_ends(
        self, loop: asyncio.AbstractEventLoop, connections: Connections
    ) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await connections.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop; other loops close theirs when they end."""
        known = self._loops.get(asyncio.get_running_loop())
        if known is not None:
            await known[0].close()

    def after_fork(self) -> None:
        # The parent's loop is not ours to run, so these are kept from collection, and never used.
        self._abandoned += self._loops.values()
        self._loops = {}


async def _by_given(
    given: httpx.AsyncClient | httpx.AsyncBaseTransport, message: Message, heard: Heard
) -> None:
    response = await _answered(given, message.for_httpx())
    # A hook of the caller's may have read it.
    read = response.is_stream_consumed
    stream = response.aiter_bytes() if read else response.stream
    assert isinstance(stream, AsyncIterable)
    try:
        headers = response.headers.raw
        await heard.take_in(response.status_code, headers, stream, unpacked=read)
    finally:
        await response.aclose()


async def _answered(
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
