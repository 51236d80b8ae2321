"""A video on its way through: from the provider to the caller, and never more of it than a chunk.

The caller's connection is what the Router writes to, so a slow reader slows the download down, and
one that goes away ends it. The head is sent when the first bytes are there; until then an error is
an answer like any other. After that nothing can be said any more: the connection is closed before
the end, which clients notice by the length.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router import _logs
from router.errors import RouterError
from router.proxy.answers import failed, mistaken

__all__ = ["Download"]

log = logging.getLogger("router")

# What a provider calls a video may be a page with a script. Here it is no page of the proxy's own.
_APART = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"))


class Download(Response):
    """An answer that is written while it is fetched. `fetch` takes where the bytes go."""

    def __init__(self, fetch: Callable[[Any], Awaitable[object]], silence: float) -> None:
        self._fetch, self._silence = fetch, silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        flow = _Flow(send, self._silence)
        fetching = asyncio.ensure_future(self._fetch(flow))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait([fetching, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                return  # the caller is gone
            await fetching
            await flow.end()
        except Exception as exc:
            if flow.begun:
                log.warning(
                    "a download broke off: %s", exc, extra=_logs.fields("download-broke-off")
                )
                return
            if not isinstance(exc, RouterError):
                log.exception("%s failed", scope["path"], extra=_logs.fields("proxy-failed"))
            answer = failed(exc) if isinstance(exc, RouterError) else mistaken()
            await answer(scope, receive, send)
        finally:
            for task in (fetching, leaving):
                task.cancel()
            await asyncio.gather(fetching, leaving, return_exceptions=True)


class _Flow:
    """Where the bytes go: the head with the first of them."""

    def __init__(self, send: Send, silence: float) -> None:
        self._send, self._silence = send, silence
        self._headers: Mapping[str, str] = {}
        self.begun = False

    async def begin(self, headers: Mapping[str, str]) -> None:
        if not self.begun:
            self._headers = headers

    async def write(self, chunk: bytes) -> None:
        if not chunk:
            return
        # A caller that takes nothing for so long holds a connection to the provider for nothing.
        async with asyncio.timeout(self._silence):
            if not self.begun:
                self.begun = True
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": self._head(chunk)}
                )
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _head(self, chunk: bytes) -> list[tuple[bytes, bytes]]:
        said = self._headers
        kind = said.get("content-type") or "application/octet-stream"
        head = [(b"content-type", kind.encode("latin-1", "replace")), *_APART]
        length = said.get("content-length", "")
        if "content-encoding" not in said and length.isdecimal():
            head.append((b"content-length", length.encode()))
        return head


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
