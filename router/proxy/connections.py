"""A connection that does not wait for ever for a request's head.

Bodies are watched where they are read (`forms`), answers where they are written (`downloads`), and
idle connections by the server. What is left is who connects and says nothing, or sends a head by
the byte; and a head without an end, which would be kept whole.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

HEAD_SECONDS = 15.0
LARGEST_HEAD = 64 << 10


class Connection(HttpToolsProtocol):
    """The server's own, with a deadline and a bound for each head.

    What still arrives of a body that was answered early (413) counts as a head: it is passed over
    for that long, so that a client that only then reads can do so, and then the connection ends.
    """

    _deadline: asyncio.TimerHandle | None = None
    _came = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
            return
        headless = self.cycle is None or self.cycle is before
        self._came = self._came + len(data) if headless else 0
        if self._is_endless():
            self.transport.close()
        elif self._deadline is None:
            self._expect()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is not None:  # whether it was answered early or not
            self.cycle.more_body = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _is_endless(self) -> bool:
        passed_over = self.cycle is not None and self.cycle.more_body
        return self._came > LARGEST_HEAD and not passed_over

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget(self) -> None:
        self._came = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
