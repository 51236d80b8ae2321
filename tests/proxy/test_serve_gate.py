"""What the process lets in: by whom a call without a key comes, and how slowly a head."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import pytest
import uvicorn
from proxy_parts import Face, facing, routed, tenants
from serving_parts import until
from shared_parts import fleet
from starlette.middleware import Middleware

from router.proxy import application, connections
from router.proxy.connections import LARGEST_HEAD, Connection
from router.proxy.gate import Gate
from router.testing import StandIn

HEAD_SECONDS = 0.5


def gated(face: Face) -> Face:
    state = face.app.state
    gate = Gate(state.access, state.readiness)
    face.app.user_middleware.append(Middleware(gate.before))
    return face


FROM_ELSEWHERE: Mapping[str, dict[str, str]] = {
    "a page from elsewhere": {"host": "127.0.0.1:4000", "origin": "https://evil.example"},
    "its form": {"host": "127.0.0.1:4000", "origin": "null"},
    "a name that leads here": {"host": "evil.example"},
    "one with a page of its own": {"host": "evil.example", "origin": "http://evil.example"},
    "another port's page": {"host": "localhost:4000", "origin": "http://localhost:3000"},
    "no name": {"host": ""},
    "an odd name": {"host": "[::1"},
    "a longer name": {"host": "localhost.evil.example"},
    "a name like an address": {"host": "127.0.0.1.evil.example:4000"},
    "a fetch that reads nothing": {"host": "localhost:4000", "sec-fetch-site": "cross-site"},
    "one of another port's page": {"host": "localhost:4000", "sec-fetch-site": "same-site"},
    "a link": {
        "host": "localhost:4000",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
    },
}
FROM_HERE: Mapping[str, dict[str, str]] = {
    "a program": {"host": "127.0.0.1:4000"},
    "by name": {"host": "LocalHost:4000"},
    "by the longer address": {"host": "[::1]:4000"},
    "by another of its addresses": {"host": "127.1.2.3:4000"},
    "our own page": {
        "host": "localhost:4000",
        "origin": "http://localhost:4000",
        "sec-fetch-site": "same-origin",
    },
    "an address that is typed": {"host": "localhost:4000", "sec-fetch-site": "none"},
}


@pytest.mark.parametrize("headers", FROM_ELSEWHERE.values(), ids=FROM_ELSEWHERE.keys())
async def test_without_keys_no_page_from_elsewhere_calls_through_a_browser_here(
    provider: StandIn, headers: dict[str, str]
) -> None:
    """A form is posted without asking, and a job costs dollars."""
    async with facing(provider) as face:
        answer = await gated(face).post("/v1/videos", data={"prompt": "x"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_from_here")
        assert answer.headers["x-request-id"]
    assert provider.requests == []


async def test_a_link_to_the_operators_page_may_be_followed_and_to_nothing_else(
    provider: StandIn,
) -> None:
    headers = {"host": "localhost", **FROM_ELSEWHERE["a link"]}
    async with facing(provider) as face:
        gated(face)
        paths = ("/", "/v1/videos", "/operator/state")
        statuses = [(await face.get(path, headers=headers)).status_code for path in paths]
    assert statuses == [200, 403, 403]
    assert provider.requests == []


@pytest.mark.parametrize("headers", FROM_HERE.values(), ids=FROM_HERE.keys())
async def test_without_keys_this_machine_is_served(
    provider: StandIn, headers: dict[str, str]
) -> None:
    async with facing(provider) as face:
        answer = await gated(face).post("/v1/videos", data={"prompt": "x"}, headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize("headers", FROM_ELSEWHERE.values(), ids=FROM_ELSEWHERE.keys())
async def test_with_keys_the_key_is_what_counts(provider: StandIn, headers: dict[str, str]) -> None:
    """No page from elsewhere has one, and a reverse proxy has a name of its own."""
    async with facing(provider, tenants(fleet("http://stand-in/v1"))) as face:
        answer = await gated(face).get("/v1/models", key="pk-web", headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_is_told_to_whoever_asks(provider: StandIn, path: str) -> None:
    async with facing(provider) as face:
        assert (await gated(face).get(path, headers={"host": "10.0.0.7:4000"})).status_code == 200


# Heads ------------------------------------------------------------------------------------------


@pytest.fixture
def address(provider: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """An application behind connections that wait half a second for a head."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", HEAD_SECONDS)
    with listening(provider) as found:
        yield found


@contextlib.contextmanager
def listening(provider: StandIn) -> Iterator[tuple[str, int]]:
    with routed(provider) as router, socket.create_server(("127.0.0.1", 0)) as listener:
        app = application(router, router.config.proxy)
        config = uvicorn.Config(app, http=Connection, ws="none", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        try:
            until(lambda: server.started)
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def until_closed(connection: socket.socket) -> bytes:
    """What came until the other side ended it."""
    came = b""
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(1 << 16):
            came += more
    return came


def connected(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=20)


GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize("said", [b"", b"GET /v1/models HTTP/1.1\r\nx-"])
def test_who_sends_no_head_is_left(address: tuple[str, int], said: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(said)
        began = time.monotonic()
        assert until_closed(connection) == b""
        assert time.monotonic() - began < 15


def test_a_head_by_the_byte_is_not_waited_for(address: tuple[str, int]) -> None:
    """Each byte is in time by itself; the head is not. The first one was."""
    with connected(address) as connection:
        connection.sendall(GET)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 15:
                connection.sendall(b"G")
                time.sleep(HEAD_SECONDS / 5)
        assert time.monotonic() - began < 15


def test_a_connection_that_is_used_again_is_kept(address: tuple[str, int]) -> None:
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=20)) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/v1/models")
            with connection.getresponse() as answer:
                assert answer.status == 200
                answer.read()
            assert connection.sock is first
            time.sleep(HEAD_SECONDS * 1.5)


def test_a_body_may_take_longer_than_a_head(address: tuple[str, int]) -> None:
    body = b'{"prompt": "A heron lands"}'
    head = b"POST /v1/videos HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with connected(address) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body[:5])
        time.sleep(HEAD_SECONDS * 2)
        connection.sendall(body[5:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_head_without_an_end_is_not_kept(provider: StandIn) -> None:
    """Long before its time is up."""
    with listening(provider) as address, connected(address) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * LARGEST_HEAD:
                connection.sendall(b"x-more: " + b"y" * 4000 + b"\r\n")
                sent += 4010
        assert sent < 100 * LARGEST_HEAD


@pytest.mark.parametrize("together", [True, False], ids=["at once", "the body later"])
def test_an_offer_of_another_protocol_is_passed_over(provider: StandIn, together: bool) -> None:
    """Java's client makes it with a POST, and so does curl with --http2."""
    body = b'{"prompt": "Upgrade: a heron"}'
    head = (
        b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with listening(provider) as address, connected(address) as connection:
        for _ in range(2):
            connection.sendall(head + body if together else head)
            if not together:
                time.sleep(0.1)
                connection.sendall(body)
            came = b""
            while not came.endswith(b"}"):
                came += connection.recv(1 << 16)
            assert came.startswith(b"HTTP/1.1 200")
    assert [seen.fields["prompt"] for seen in provider.requests] == ["Upgrade: a heron"] * 2


ENDLESS = b"x-more: " + b"y" * 4000 + b"\r\n"
CHUNKED = (
    b"POST /v1/videos HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
)
LIST = b"GET /v1/videos HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("before", "endless"),
    [
        (LIST + b"GET /v1/models HTTP/1.1\r\n", ENDLESS),
        (LIST + b"GET /v1/models", b"x" * 4000),
        (CHUNKED + b"0\r\n", ENDLESS),
        (CHUNKED + b"2;a=", b"x" * 4000),
    ],
    ids=["the next head", "the next path", "trailers", "a chunk's extension"],
)
def test_nothing_endless_is_kept_while_an_answer_is_under_way(
    provider: StandIn, before: bytes, endless: bytes
) -> None:
    provider.fault("delay", operation="list", seconds=2.0)
    with listening(provider) as address, connected(address) as connection:
        connection.sendall(before)
        until(lambda: provider.requests or before.startswith(CHUNKED))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * LARGEST_HEAD:
                connection.sendall(endless)
                sent += len(endless)
        assert sent < 100 * LARGEST_HEAD


def test_a_long_body_in_small_chunks_is_none(provider: StandIn) -> None:
    """Its frames are more than a head may have, and it gets on."""
    body = b'{"prompt": "' + b"x" * 20_000 + b'"}'
    with listening(provider) as address, connected(address) as connection:
        connection.sendall(CHUNKED.removesuffix(b"2\r\n{}\r\n"))
        connection.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_who_is_answered_early_can_read_it_and_is_left_then(address: tuple[str, int]) -> None:
    """What still comes of the body is passed over, for so long."""
    with connected(address) as connection:
        connection.sendall(
            b"POST /v1/videos HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 99999999999\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(10):
                connection.sendall(b"x" * 100_000)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        assert until_closed(connection) is not None


def test_an_answer_is_sent_on_at_once(provider: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second piece does not wait until the client has told of the first."""
    found = []
    headed = Connection.on_headers_complete

    def looking(self: Connection) -> None:
        tcp = self.transport.get_extra_info("socket")
        found.append(bool(tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        headed(self)

    monkeypatch.setattr(Connection, "on_headers_complete", looking)
    with listening(provider) as address, connected(address) as connection:
        connection.sendall(GET)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert found == [True]
