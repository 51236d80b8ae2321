"""The operators' page: `GET /`, the few files it is made of, and the data it asks for.

The page itself holds no fact and needs no key; it asks for one, keeps it in the tab, and sends it
as any client does. Nothing in it comes from elsewhere, and by its policy nothing can: no script but
its own, no style but its own, no other host, no frame around it, and no text is ever taken for
HTML.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.proxy.access import Access
from router.proxy.answers import json_response
from router.proxy.console import Console
from router.router import Router

__all__ = ["operator_routes"]

PAGE = Path(__file__).parent / "page"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
FRESH = {"cache-control": "no-store"}
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # A new version is shown when it is there; the files are small.
    "cache-control": "no-cache",
}


class _File(NamedTuple):
    name: str
    media_type: str


FILES = {
    "/": _File("index.html", "text/html"),
    "/operator/page.css": _File("page.css", "text/css"),
    "/operator/page.js": _File("page.js", "text/javascript"),
    "/operator/icon.svg": _File("icon.svg", "image/svg+xml"),
}


def operator_routes(router: Router, access: Access, console: Console) -> list[Route]:
    """The page's routes. Who may ask for the data, `access` says; the files are for anybody."""

    async def state(request: Request) -> Response:
        access.operator(request)
        told = await console.state(router, request.query_params.get("after", ""))
        return json_response(told, headers=FRESH)

    return [
        *(Route(path, _served(file), name=file.name) for path, file in FILES.items()),
        Route("/operator/state", state, name="operator state"),
    ]


def _served(file: _File) -> Callable[[Request], Awaitable[Response]]:
    body = (PAGE / file.name).read_bytes()

    async def serve(_: Request) -> Response:
        return Response(body, headers=HEADERS, media_type=file.media_type)

    return serve
