"""The real door: a threaded HTTP/1.1 server with keep-alive, on the standard library.

One thread per connection. An answer leaves in one `send`; a reset is a real RST, a truncated answer
a real early FIN. `close()` ends every connection and joins every thread.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from http.client import responses as phrases
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import Any

from router.testing import control
from router.testing.delivery import Delivery
from router.testing.messages import Head, joined
from router.testing.provider import Provider

__all__ = ["Listener"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: close() sends RST."""


class Listener:
    """The server and its accepting thread; listens as soon as it is made."""

    def __init__(self, provider: Provider, *, host: str, port: int) -> None:
        self._server = _Server(provider, host, port)
        # The loop looks for its end every 10 ms: closing is quick, and idling still cheap.
        self._thread = Thread(
            target=self._server.serve_forever, args=(0.01,), name="stand-in", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()


class _Server(ThreadingTCPServer):
    # Not http.server's own class, which asks DNS for the host's name and never uses it.
    daemon_threads = False  # so that server_close() joins them
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, provider: Provider, host: str, port: int) -> None:
        self.provider = provider
        self.closing = Event()
        self._open: set[socket.socket] = set()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections, most of which wait for a next request that will not come."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away, that is what tests are about; anything else is a bug worth seeing."""
        if not isinstance(sys.exception(), OSError | EOFError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _exchange(self) -> None:
        provider, head = self.server.provider, self._head()
        if control.is_control(head):
            self._send(Delivery(control.answer(provider, head, self._body())))
            return
        arrival = provider.arrive(head)
        if arrival.hangs_up:
            self._reset()
            return
        delivery = provider.answer(arrival, self._body())
        if self._interrupted(delivery.pause):
            return
        if delivery.lost:
            self._reset()
        else:
            self._send(delivery)

    # The base class looks for these names.
    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = _exchange  # noqa: N815

    def _head(self) -> Head:
        headers = joined(self.headers.items())
        return Head(self.command, self.path, headers, f"http://{headers.get('host', '')}")

    def handle_expect_100(self) -> bool:
        """Wait with the "100 Continue" until the body is wanted: a reset may come before it."""
        return True

    def _body(self) -> bytes:
        if self.headers.get("expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._chunked_body()
        return self._exactly(int(self.headers.get("content-length", 0)))

    def _chunked_body(self) -> bytes:
        chunks: list[bytes] = []
        while size := self._chunk_size():
            chunks.append(self._exactly(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    def _chunk_size(self) -> int:
        line = self.rfile.readline()
        if not line:
            raise EOFError("the client went away between two chunks of its body")
        return int(line.partition(b";")[0], 16)

    def _exactly(self, size: int) -> bytes:
        content = self.rfile.read(size)
        if len(content) < size:
            raise EOFError("the client went away in the middle of its body")
        return content

    def _send(self, delivery: Delivery) -> None:
        unsent = self._head_bytes(delivery)
        for piece in delivery.pieces():
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if delivery.ending == "never" else piece
            self.connection.sendall(unsent + framed)
            unsent = b""
            if self._interrupted(delivery.gap):
                return
        if unsent:
            self.connection.sendall(unsent)
        if delivery.ending == "reset":
            self._reset()
        elif delivery.ending == "cut":
            self.close_connection = True

    def _head_bytes(self, delivery: Delivery) -> bytes:
        status = delivery.answer.status
        lines = [f"HTTP/1.1 {status} {phrases.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in delivery.headers()]
        if self.close_connection:
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _interrupted(self, seconds: float) -> bool:
        """Wait; True when the stand-in closed meanwhile, and with it this connection."""
        if not seconds or not self.server.closing.wait(seconds):
            return False
        self.close_connection = True
        return True

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # The reader holds the socket open, and the base class would say FIN first.
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the records tell it all."""
