"""A connection that does not wait for ever for a request's head.

Bodies are watched where they are read (`forms`), answers where they are written (`downloads`), and
idle connections by the server. What is left is who connects and says nothing, or sends a head by
the byte; and a head without an end, which would be kept whole.
"""

from __future__ import annotations

import asyncio
import re
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

HEAD_SECONDS = 15.0
LARGEST_HEAD = 64 << 10
_UPGRADE = re.compile(rb"\nupgrade[ \t]*:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """The server's own, with a deadline and a bound for each head.

    What still arrives of a body that was answered early (413) counts as a head: it is passed over
    for that long, so that a client that only then reads can do so, and then the connection ends.
    """

    _deadline: asyncio.TimerHandle | None = None
    # Bytes of heads, trailers and chunks' frames since the last head, body or message was whole.
    _came = 0
    _got_on = False
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # An answer is written in two pieces, and the second would wait 40 ms for word of the first.
        # asyncio sees to that only where it made the socket, which here it did not.
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect()

    def data_received(self, data: bytes) -> None:
        self._got_on = False
        super().data_received(_without_upgrade(data) if self._in_head else data)
        self._came = 0 if self._got_on else self._came + len(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:
            self._expect()
        # Also while an answer is under way: the next head may come by then, or a body's trailers.
        if self._came > LARGEST_HEAD:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._got_on, self._in_head = True, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._got_on = self._in_head = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _without_upgrade(data: bytes) -> bytes:
    """The start of a request, with no offer to speak another protocol after it.

    Some clients make one with each first request (Java's, curl with --http2), which may be ignored;
    the parser takes it for accepted, and what is the body for that protocol's.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\nx-upgrade:", head) + end + rest
