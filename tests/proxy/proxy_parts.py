"""What the proxy's tests share: an application over a stand-in, in process or behind a port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import uvicorn
from shared_parts import fleet
from starlette.applications import Starlette

from router import Router
from router.proxy import application
from router.proxy.console import Console
from router.testing import StandIn

SECRET = "a-secret-for-signing-ids"
KEYS = [
    {"name": "web", "key": "pk-web"},
    {"name": "batch", "key": "pk-batch"},
    {"name": "ops", "key": "pk-ops", "operator": True},
]


def tenants(data: Mapping[str, Any], **proxy: Any) -> dict[str, Any]:
    """The configuration with three keys, each of them a tenant."""
    return {**data, "settings": {"id_secrets": [SECRET]}, "proxy": {"keys": KEYS, **proxy}}


def routed(provider: StandIn, data: Mapping[str, Any] | None = None, **parts: Any) -> Router:
    """A router to the stand-in, in process."""
    return Router.from_dict(
        data if data is not None else fleet("http://stand-in/v1"),
        environ={},
        http_client=provider.transport,
        async_http_client=provider.transport,
        **parts,
    )


class Face:
    """An application, asked without a socket: `await face.get("/v1/videos/…", key="pk-web")`."""

    def __init__(self, router: Router, console: Console | None = None) -> None:
        self.router = router
        self.app = application(router, router.config.proxy, console)
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://proxy"
        )

    async def ask(
        self, method: str, path: str, *, key: str | None = None, **given: Any
    ) -> httpx.Response:
        headers = dict(given.pop("headers", {}))
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return await self._client.request(method, path, headers=headers, **given)

    async def get(self, path: str, **given: Any) -> httpx.Response:
        return await self.ask("GET", path, **given)

    async def post(self, path: str, **given: Any) -> httpx.Response:
        return await self.ask("POST", path, **given)

    async def make(self, key: str | None = None, **body: Any) -> str:
        """The id of a new video."""
        answer = await self.post("/v1/videos", key=key, json={"prompt": "A heron lands", **body})
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["id"]
        return found

    async def close(self) -> None:
        await self._client.aclose()
        await self.router.aclose()


@contextlib.asynccontextmanager
async def facing(
    provider: StandIn,
    data: Mapping[str, Any] | None = None,
    console: Console | None = None,
    **parts: Any,
) -> AsyncIterator[Face]:
    if console is not None:
        parts = {"on_event": console, **parts}
    face = Face(routed(provider, data, **parts), console)
    try:
        yield face
    finally:
        await face.close()


def told(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which has OpenAI's four keys."""
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert isinstance(error["message"], str)
    return error


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The application behind a real port of this machine, in a thread; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_keep_alive=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True
        )
        thread.start()
        host, port = listening.getsockname()
        try:
            with httpx.Client(trust_env=False) as client:
                _until_it_answers(client, f"http://{host}:{port}", thread)
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def _until_it_answers(client: httpx.Client, address: str, thread: threading.Thread) -> None:
    while thread.is_alive():
        with contextlib.suppress(httpx.TransportError):
            client.get(address + "/nothing")
            return
    raise AssertionError("the server did not start")
