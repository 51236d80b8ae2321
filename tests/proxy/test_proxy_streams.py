"""Bytes on their way through: bounded in memory and in time, whoever is slow or goes away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from proxy_parts import facing, routed, served, tenants, told
from shared_parts import fleet

from router import Router
from router.proxy import application
from router.testing import StandIn

MIB = 1 << 20


class Source:
    """A provider's server of one large video, which notes how much of it was taken."""

    def __init__(
        self, size: int, *, stop_at: int | None = None, kind: bytes = b"video/mp4"
    ) -> None:
        self.size, self.stop_at, self.kind = size, stop_at, kind
        self.sent = 0
        self.left_by_peer = threading.Event()
        self.received = 0
        self.digest = hashlib.sha256()

    def __enter__(self) -> str:
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        host, port = self._listening.getsockname()[:2]
        return f"http://{host}:{port}/v1"

    def __exit__(self, *exc: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += peer.recv(65536)
            head, _, body = head.partition(b"\r\n\r\n")
            if head.startswith(b"POST"):
                self._take(peer, head, body)
            else:
                self._give(peer)

    def _take(self, peer: socket.socket, head: bytes, body: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        while True:
            self.received += len(body)
            self.digest.update(body)
            if self.received >= length:
                break
            body = peer.recv(MIB)
        answer = b'{"id": "char_1", "name": "Luna", "created_at": 1}'
        peer.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(answer), answer)
        )

    def _give(self, peer: socket.socket) -> None:
        peer.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % (self.kind, self.size)
        )
        chunk = bytes(1 << 16)
        try:
            while self.sent < (self.size if self.stop_at is None else self.stop_at):
                peer.sendall(chunk)
                self.sent += len(chunk)
        except OSError:
            self.left_by_peer.set()


def at(base_url: str, **proxy: Any) -> Router:
    data = {
        "deployments": [
            {"id": "one", "model_name": "sora-2", "account": "one", "base_url": base_url}
        ],
        "proxy": proxy,
    }
    return Router.from_dict(data, environ={})


@contextlib.contextmanager
def proxied(source: Source, **proxy: Any) -> Iterator[str]:
    with (
        source as base_url,
        at(base_url, **proxy) as router,
        served(application(router, router.config.proxy)) as address,
    ):
        yield f"{address}/v1"


def peak_kib() -> int:
    """The most memory that this process has had, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@contextlib.contextmanager
def growing_less_than(mib: int) -> Iterator[None]:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")  # begin to measure the peak anew
    before = peak_kib()
    yield
    assert (peak_kib() - before) / 1024 < mib


CHUNK = hashlib.sha256(b"noise").digest() * 8192


def clip(size: int) -> Iterator[bytes]:
    """A form with a file of so many bytes, as a client streams it."""
    yield (
        b'--B\r\nContent-Disposition: form-data; name="name"\r\n\r\nLuna\r\n'
        b'--B\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
    )
    for _ in range(size // len(CHUNK)):
        yield CHUNK
    yield b"\r\n--B--\r\n"


@pytest.mark.parametrize("size", [64 * MIB, pytest.param(500 * MIB, marks=pytest.mark.real)])
def test_an_upload_takes_no_memory(size: int) -> None:
    source = Source(0)
    with proxied(source) as address, httpx.Client(trust_env=False, timeout=120) as client:
        headers = {"content-type": "multipart/form-data; boundary=B"}
        client.get(f"{address}/models")
        with growing_less_than(30):
            answer = client.post(
                f"{address}/videos/characters", content=clip(size), headers=headers
            )

    assert answer.status_code == 200, answer.text
    assert source.received > size


@pytest.mark.parametrize("size", [64 * MIB, pytest.param(500 * MIB, marks=pytest.mark.real)])
def test_a_download_takes_no_memory(size: int) -> None:
    source, came = Source(size), 0
    with proxied(source) as address, httpx.Client(trust_env=False, timeout=120) as client:
        client.get(f"{address}/models")
        with (
            growing_less_than(30),
            client.stream("GET", f"{address}/videos/video_1/content") as answer,
        ):
            for chunk in answer.iter_raw():
                came += len(chunk)

    assert came == size
    assert answer.headers["content-type"] == "video/mp4"
    assert int(answer.headers["content-length"]) == size


def test_a_slow_reader_slows_the_download_down() -> None:
    source = Source(256 * MIB)
    with (
        proxied(source) as address,
        httpx.Client(trust_env=False) as client,
        client.stream("GET", f"{address}/videos/video_1/content") as answer,
    ):
        next(answer.iter_raw())
        before, now = -1, 0
        while now != before:  # until nothing more is taken from the provider
            time.sleep(0.2)
            before, now = now, source.sent
        assert now < 64 * MIB


def test_who_goes_away_ends_the_download() -> None:
    source = Source(512 * MIB)
    with proxied(source) as address, httpx.Client(trust_env=False) as client:
        with client.stream("GET", f"{address}/videos/video_1/content") as answer:
            next(answer.iter_raw())
        assert source.left_by_peer.wait(10)
    assert source.sent < 512 * MIB


def test_who_takes_nothing_for_too_long_is_left() -> None:
    source = Source(512 * MIB)
    with (
        proxied(source, body_timeout=0.3) as address,
        httpx.Client(trust_env=False) as client,
        client.stream("GET", f"{address}/videos/video_1/content") as answer,
    ):
        chunks = answer.iter_raw()
        next(chunks)
        assert source.left_by_peer.wait(10)
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in chunks:
                pass


def test_a_download_that_breaks_off_ends_before_its_length() -> None:
    source = Source(8 * MIB, stop_at=MIB)
    with (
        proxied(source) as address,
        httpx.Client(trust_env=False) as client,
        client.stream("GET", f"{address}/videos/video_1/content") as answer,
    ):
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in answer.iter_raw():
                pass


@pytest.mark.parametrize(
    "kind",
    [
        b"application/xhtml+xml",
        b"image/svg+xml",
        'video/mp4; name="чайка"'.encode(),
        b"video/mp4\xff",
    ],
)
def test_what_a_provider_calls_a_video_is_no_page_of_ours(kind: bytes) -> None:
    with proxied(Source(1000, kind=kind)) as address, httpx.Client(trust_env=False) as client:
        answer = client.get(f"{address}/videos/video_1/content")

    assert (answer.status_code, len(answer.content)) == (200, 1000)
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_error_before_the_first_byte_is_an_answer(provider: StandIn) -> None:
    provider.fault("empty", operation="content", times=None)
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        video = await face.make()
        await face.get(f"/v1/videos/{video}")
        answer = await face.get(f"/v1/videos/{video}/content")

    assert answer.status_code == 502
    assert told(answer)["code"] == "invalid_response"


async def test_a_download_that_is_begun_anew_repeats_nothing(provider: StandIn) -> None:
    provider.fault("reset_mid_body", operation="content")
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        video = await face.make()
        await face.get(f"/v1/videos/{video}")
        broken = await face.get(f"/v1/videos/{video}/content")
        whole = await face.get(f"/v1/videos/{video}/content")

    assert broken.status_code == 200
    assert broken.content == whole.content


# Slow clients ------------------------------------------------------------------------------------


def dripping(address: str, body: Iterator[bytes], pause: float) -> bytes:
    """What a client hears that announces a large body and sends it slowly."""
    host, _, port = address.removeprefix("http://").removesuffix("/v1").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as peer:
        peer.sendall(
            b"POST /v1/videos HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100000\r\n\r\n"
        )
        heard = b""
        peer.settimeout(pause)
        for piece in body:
            try:
                peer.sendall(piece)
                heard += peer.recv(65536)
                break
            except TimeoutError:
                continue
            except OSError:
                break
        peer.settimeout(10)
        with contextlib.suppress(OSError):
            while more := peer.recv(65536):
                heard += more
        return heard


@pytest.mark.parametrize(
    ("body", "pause"),
    [([b"{"], 5.0), ([b"{", *([b" "] * 400)], 0.05)],
    ids=["silent", "a byte at a time"],
)
def test_a_client_that_is_too_slow_hears_so(body: list[bytes], pause: float) -> None:
    started = time.monotonic()
    with proxied(Source(0), body_timeout=0.5) as address:
        heard = dripping(address, iter(body), pause)

    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"timeout"' in heard
    assert time.monotonic() - started < 10


def test_who_goes_away_while_sending_leaves_nothing_behind(provider: StandIn) -> None:
    router = routed(provider, tenants(fleet("http://stand-in/v1")))
    with router, served(application(router, router.config.proxy)) as address:
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(
                b"POST /v1/videos HTTP/1.1\r\nhost: x\r\nauthorization: Bearer pk-web\r\n"
                b"content-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
            )
        with httpx.Client(trust_env=False) as client:
            answer = client.get(f"{address}/v1/models", headers={"api-key": "pk-web"})

    assert answer.status_code == 200
    assert provider.requests == []


async def test_who_goes_away_after_sending_has_its_job_under_the_key(provider: StandIn) -> None:
    """A submit that is on its way goes on: it is paid for, and the key leads to it."""
    async with facing(provider) as face:
        header = {"Idempotency-Key": "k"}
        body = {"prompt": "x"}
        sent: list[Any] = [
            {"type": "http.request", "body": b'{"prompt": "x"}', "more_body": False},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return sent.pop(0) if len(sent) > 1 else sent[0]

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/videos", "raw_path": b"/v1/videos",
            "query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http",
            "headers": [(b"content-type", b"application/json"), (b"idempotency-key", b"k")],
        }  # fmt: skip
        await face.app(scope, receive, send)
        again = await face.post("/v1/videos", json=body, headers=header)

    assert again.status_code == 200
    assert len(provider.accepted) == 1
