"""The blocking door's transport: safe under threads, and in a child after a fork."""

from __future__ import annotations

from collections.abc import Iterable

import httpx

from router._doors import step
from router.messages import Reply, Request
from router.outcomes import Fault
from router.transport.connections import Connection, Connections, Openings
from router.transport.exchange import (
    Arriving,
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

__all__ = ["BlockingTransport"]


class BlockingTransport:
    """Sends by connections of its own, or by the caller's `given`."""

    def __init__(
        self, monotonic: Monotonic, given: httpx.Client | httpx.BaseTransport | None = None
    ) -> None:
        self._monotonic = monotonic
        self._given = given
        self.openings = Openings()
        self._connections = Connections(monotonic, self._opened)

    async def _opened(self, target: Target) -> Connection:
        return await self.openings.blocking(target, self._monotonic)

    async def exchange(
        self, request: Request, patience: Patience, sink: Sink | None, *, fresh: bool
    ) -> Reply:
        heard = Heard(request, sink)
        try:
            message = Message.of(request, patience, self._monotonic)
            if self._given is not None:
                await self._by_given(self._given, message, heard)
            else:
                await self._connections.exchange(message, heard, fresh=fresh)
        except SinkFailed:
            raise
        except Exception as exc:  # noqa: BLE001  (mapped, whatever it is)
            return made_of(heard, exc)
        return heard.reply()

    async def _by_given(
        self, given: httpx.Client | httpx.BaseTransport, message: Message, heard: Heard
    ) -> None:
        response = _answered(given, message.for_httpx())
        # A hook of the caller's may have read it.
        read = response.is_stream_consumed
        stream = response.iter_bytes() if read else response.stream
        assert isinstance(stream, Iterable)
        try:
            chunks = Arriving(stream, self._monotonic, message.until)
            headers = response.headers.raw
            await heard.take_in(response.status_code, headers, chunks, unpacked=read)
        finally:
            response.close()

    def close(self) -> None:
        step(self._connections.close())

    def after_fork(self) -> None:
        # These sockets are the parent's too: closing our copies ends nothing there.
        self._connections.unlock()
        step(self._connections.close())


def _answered(given: httpx.Client | httpx.BaseTransport, message: httpx.Request) -> httpx.Response:
    if not isinstance(given, httpx.Client):
        return given.handle_request(message)
    try:
        return given.send(message, stream=True, auth=None, follow_redirects=False)
    except httpx.HTTPStatusError as exc:  # a hook of the caller's; the status is an answer
        return exc.response
    except RuntimeError as exc:  # it is closed, or another loop's
        raise Unanswered(Fault.LOCAL, str(exc)) from exc
