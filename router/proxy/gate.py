"""What the process lets in, and what of it is under way.

It stands in front of the application and knows two things that the application does not: whether
the process is asked to end, and whether it is this machine's alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import AmbiguousSubmitError
from router.proxy.access import Access
from router.proxy.answers import Refusal, failed, refused
from router.proxy.health import Readiness

__all__ = ["Gate"]

# Asked by whoever runs the process, from wherever that is, and until its end.
ALWAYS = frozenset({"/health/live", "/health/ready"})
RETRY_SECONDS = "1"
# What browsers say of who makes a request: the page itself, or whoever types an address.
OWN_SITES = frozenset({"same-origin", "none"})


class Gate:
    """Counts what is under way, so that the process can end when nothing is."""

    def __init__(self, access: Access, readiness: Readiness) -> None:
        self._access, self._readiness = access, readiness
        self._under_way: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._cutting = False

    def __len__(self) -> int:
        return len(self._under_way)

    async def emptied(self) -> None:
        """Until nothing is under way."""
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()

    def cut(self) -> None:
        """End what is under way now: who has heard nothing yet hears that."""
        self._cutting = True
        for task in self._under_way:
            task.cancel()

    def before(self, app: ASGIApp) -> ASGIApp:
        """The application, with this in front of it."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in ALWAYS:
                await app(scope, receive, send)
            else:
                await self._let_in(app, scope, receive, send)

        return gated

    async def _let_in(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await refused(refusal)(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            await self._watched(app, scope, receive, send)
        finally:
            self._under_way.discard(task)
            if not self._under_way:
                self._idle.set()

    def _refusal(self, scope: Scope) -> Refusal | None:
        if self._readiness.stopping:
            # Nothing was begun, so that a client may ask elsewhere, or here again, in a moment.
            return Refusal(
                503,
                "the proxy is about to end: ask again",
                code="stopping",
                headers={"retry-after": RETRY_SECONDS, "connection": "close"},
            )
        if self._access.settings.keys or _is_from_here(scope):
            return None
        return Refusal(
            403,
            "without keys this machine alone is served, by its own name: configure a key",
            code="not_from_here",
        )

    async def _watched(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sending)
        except asyncio.CancelledError:
            if begun or not self._cutting:
                raise
            await _cut_off(Request(scope))(scope, receive, send)


def _is_from_here(scope: Scope) -> bool:
    """Whether a call without a key is of a program or a page of this machine.

    A page from elsewhere can make a browser on this machine post a form here, or fetch what it may
    not read; and, by a name of its own that leads here, do anything else. Of the one tell `Origin`
    and `Sec-Fetch-Site`, of the other `Host`. A link to the operators' page may be followed.
    """
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    own = headers.get("sec-fetch-site", "none") in OWN_SITES or _is_link(scope, headers)
    return own and _names_this_machine(host) and origin in (None, f"http://{host}")


def _is_link(scope: Scope, headers: Headers) -> bool:
    followed = headers.get("sec-fetch-mode") == "navigate"
    return followed and scope["method"] == "GET" and scope["path"] == "/"


def _names_this_machine(host: str) -> bool:
    """A name that begins like an address is a name, and leads where its owner wants."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _cut_off(request: Request) -> ASGIApp:
    said = "the proxy was ended before the call was"
    if request.method == "POST":
        return failed(AmbiguousSubmitError(f"{said}: a job may be running"))
    return refused(Refusal(503, said, code="stopping", headers={"retry-after": RETRY_SECONDS}))
