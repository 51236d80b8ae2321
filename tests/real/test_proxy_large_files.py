"""Half a gigabyte each way through a `serve` process, in constant memory; and who does not go on.

The provider is a server of a few lines: it counts what it is sent, and makes up what it sends.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from serving_parts import Later, Serve, resident, serving, until

pytestmark = pytest.mark.real

SIZE = 500_000_000
GROWTH = 30_000_000
CHUNK = bytes(range(256)) * 1024
VIDEO = {
    "id": "video_68d7512d07848190b3e45da0ecbebcde",
    "object": "video",
    "model": "sora-2",
    "status": "completed",
    "progress": 100,
    "seconds": "4",
    "size": "720x1280",
    "created_at": 1758941485,
}


class Provider(ThreadingHTTPServer):
    """What it was sent, and how much of a download it got rid of."""

    daemon_threads = True
    received = 0
    sent = 0
    ended = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def books(self) -> Provider:
        return cast("Provider", self.server)

    def do_POST(self) -> None:
        self._take()
        self._answer(json.dumps(VIDEO).encode())

    def do_GET(self) -> None:
        if not self.path.endswith("/content"):
            self._answer(json.dumps(VIDEO).encode())
            return
        self.send_response(200)
        self.send_header("content-type", "video/mp4")
        self.send_header("content-length", str(SIZE))
        self.end_headers()
        try:
            while self.books.sent < SIZE:
                piece = CHUNK[: SIZE - self.books.sent]
                self.wfile.write(piece)
                self.books.sent += len(piece)
        except OSError:
            self.close_connection = True
        finally:
            self.books.ended += 1

    def _take(self) -> None:
        length = self.headers.get("content-length")
        left = int(length) if length is not None else None
        while left is None or left > 0:
            if left is None:
                size = int(self.rfile.readline(), 16)
                piece = self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return
            else:
                piece = self.rfile.read(min(left, 1 << 20))
                left -= len(piece)
            if not piece:
                return
            self.books.received += len(piece)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def configured(provider: Provider, **proxy: Any) -> dict[str, Any]:
    one = {
        "id": "e",
        "model_name": "sora-2",
        "base_url": f"http://127.0.0.1:{provider.server_port}/v1",
        "api_key": "sk-east",
    }
    return {"deployments": [one], "proxy": proxy}


class Memory:
    """The most that a process held while the block lasted, beyond what it held before."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, threading.Event()
        self.before = self.most = resident(pid)
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def growth(self) -> int:
        return self.most - self.before

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, resident(self._pid))

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def clip(size: int, *, boundary: bytes = b"boundary") -> Iterator[bytes]:
    """A form with a file of so many bytes, made up as it is sent."""
    yield b'--%s\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n' % boundary
    yield (
        b'--%s\r\ncontent-disposition: form-data; name="video"; filename="a.mp4"\r\n'
        b"content-type: video/mp4\r\n\r\n" % boundary
    )
    left = size
    while left:
        yield CHUNK[:left]
        left -= min(left, len(CHUNK))
    yield b"\r\n--%s--\r\n" % boundary


FORM = {"content-type": "multipart/form-data; boundary=boundary"}


def warm(served: Serve) -> None:
    """All that is imported at the first calls is there."""
    for _ in range(3):
        answer = served.ask("POST", "/v1/videos/edits", headers=FORM, content=clip(2_000_000))
        assert answer.status_code == 200, answer.text
    assert served.ask("GET", f"/v1/videos/{answer.json()['id']}").is_success


def test_an_upload_takes_no_memory(provider: Provider, tmp_path: Path) -> None:
    with serving(tmp_path, configured(provider)) as served:
        warm(served)
        provider.received = 0
        with Memory(served.process.pid) as memory:
            answer = served.ask("POST", "/v1/videos/edits", headers=FORM, content=clip(SIZE))
        assert answer.status_code == 200, answer.text
        assert provider.received > SIZE
        assert memory.growth < GROWTH


def test_a_download_takes_no_memory(provider: Provider, tmp_path: Path) -> None:
    with serving(tmp_path, configured(provider)) as served:
        warm(served)
        video = served.ask("POST", "/v1/videos", json={"prompt": "x"}).json()["id"]
        came = 0
        with (
            Memory(served.process.pid) as memory,
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("GET", f"{served.url}/videos/{video}/content") as answer,
        ):
            assert answer.headers["content-length"] == str(SIZE)
            for piece in answer.iter_bytes():
                came += len(piece)
        assert came == SIZE
        assert memory.growth < GROWTH


def test_who_goes_away_ends_the_download_at_the_provider(
    provider: Provider, tmp_path: Path
) -> None:
    with serving(tmp_path, configured(provider)) as served:
        video = served.ask("POST", "/v1/videos", json={"prompt": "x"}).json()["id"]
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("GET", f"{served.url}/videos/{video}/content") as answer,
        ):
            next(answer.iter_bytes())
        until(lambda: provider.ended == 1)
        assert provider.sent < SIZE / 2


def test_who_takes_nothing_is_left_and_holds_no_memory(provider: Provider, tmp_path: Path) -> None:
    with serving(tmp_path, configured(provider, body_timeout=1)) as served:
        warm(served)
        video = served.ask("POST", "/v1/videos", json={"prompt": "x"}).json()["id"]
        with (
            Memory(served.process.pid) as memory,
            connected(served, b"GET /v1/videos/%s/content HTTP/1.1" % video.encode()),
        ):
            until(lambda: provider.ended == 1)
        assert provider.sent < SIZE / 2
        assert memory.growth < GROWTH
        assert served.logged("download-broke-off")


def test_a_body_beyond_the_limit_is_413_and_goes_nowhere(
    provider: Provider, tmp_path: Path
) -> None:
    with serving(tmp_path, configured(provider, max_body=5_000_000)) as served:
        warm(served)
        provider.received = 0
        announced = {**FORM, "content-length": str(SIZE)}
        told = b"POST /v1/videos/edits HTTP/1.1\r\n" + b"\r\n".join(
            f"{name}: {value}".encode() for name, value in announced.items()
        )
        with connected(served, told) as connection:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        # In chunks nobody knows before how much comes; what comes is not kept.
        with connected(
            served, b"POST /v1/videos/edits HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + form()
        ) as connection:
            with contextlib.suppress(ConnectionError):
                for piece in clip(20_000_000):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        assert provider.received == 0


def form() -> bytes:
    return b"content-type: " + FORM["content-type"].encode()


@contextlib.contextmanager
def connected(served: Serve, head: bytes) -> Iterator[socket.socket]:
    """A connection on which a request has been begun: its head is there, and nothing more."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head + b"\r\nhost: localhost\r\n\r\n")
        yield connection


def test_a_client_that_is_too_slow_is_not_waited_for(provider: Provider, tmp_path: Path) -> None:
    """With its body it hears so; with its head it is left."""
    with serving(tmp_path, configured(provider, body_timeout=0.5)) as served:
        began = time.monotonic()
        told = b"POST /v1/videos HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 99"
        with connected(served, told) as connection:
            connection.sendall(b'{"prompt": ')
            assert re.match(rb"HTTP/1.1 408 ", connection.recv(1 << 16))
        slow = Later(lambda: httpx.Response(200, content=until_left(served)))
        assert served.ask("GET", "/v1/models").is_success
        assert slow.answer().content == b""
        assert time.monotonic() - began < 50


def until_left(served: Serve) -> bytes:
    with socket.create_connection(("127.0.0.1", served.port), timeout=50) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: loc")
        with contextlib.suppress(ConnectionError):
            return connection.recv(1 << 16)
    return b""
