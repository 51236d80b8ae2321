"""The application: which route is which of the Router's methods.

    bytes ──► RequestIds ──► RawPaths ──► routes ──► who calls ──► arguments ──► the Router
                                                                                  │
    bytes ◄── x-request-id ◄──────────────────────── answers ◄─── an answer or an error

Paths are routed as they were sent, since an id may hold a slash that is written `%2F`, and is
decoded only once the route is known. Whatever goes wrong is answered as JSON of one shape.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router import _logs
from router.errors import RouterError
from router.proxy import arguments
from router.proxy.access import Access, Caller
from router.proxy.answers import Refusal, answered, failed, json_response, mistaken, refused
from router.proxy.console import Console
from router.proxy.downloads import Download
from router.proxy.forms import Fields, received
from router.proxy.health import Readiness, health_routes
from router.proxy.openapi import openapi_routes
from router.proxy.operator import operator_routes
from router.proxy.picks import Picks
from router.proxy_settings import ProxySettings
from router.router import Router
from router.types import Operation, VideoPage

__all__ = ["ROUTES", "application"]

log = logging.getLogger("router")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LONGEST_KEY = 256


def application(
    router: Router, settings: ProxySettings, console: Console | None = None
) -> Starlette:
    """An ASGI app over `router`, which it does not close.

    `app.state.access.renew(settings)` takes other keys into force; `app.state.readiness.stopping`
    is set when the process is asked to end. Picks are on the operators' page where `console` hears
    the router's events.
    """
    access, readiness = Access(router, settings), Readiness()
    watched = console or Console()
    app = Starlette(
        routes=[
            *(
                route
                for prefix in ("", "/v1")
                for route in _routes(router, access, watched.picks, prefix)
            ),
            *operator_routes(router, access, watched),
            *health_routes(router, access, readiness),
            *openapi_routes(),
        ],
        middleware=[Middleware(RequestIds), Middleware(RawPaths)],
        exception_handlers={404: _nothing_here, 405: _not_so, Refusal: _refused},
        lifespan=lambda _: watched.watching(router),
    )
    app.router.redirect_slashes = False  # a POST that is sent elsewhere is sent twice
    app.state.router, app.state.access, app.state.readiness = router, access, readiness
    return app


def _routes(router: Router, access: Access, picks: Picks, prefix: str) -> list[BaseRoute]:
    return [
        Route(prefix + path, Endpoint(router, access, picks, methods), name=f"{prefix}{path}")
        for path, methods in ROUTES.items()
    ]


async def _nothing_here(request: Request, error: Exception) -> Response:
    return refused(Refusal(404, "there is nothing at this path", code="unknown_url"))


async def _not_so(request: Request, error: Exception) -> Response:
    allow = getattr(error, "headers", None) or {}
    refusal = Refusal(405, "not with this method", code="method_not_allowed", headers=allow)
    return refused(refusal)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error)


class Endpoint:
    """One path: what its methods do, for whom. An ASGI app that answers whatever happens."""

    def __init__(
        self, router: Router, access: Access, picks: Picks, methods: Mapping[str, Handler]
    ) -> None:
        self._router, self._access, self._picks = router, access, picks
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with self._picks.reading():
            await self._serve(request, scope, receive, send)

    async def _serve(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(request)
        except Refusal as refusal:
            response = refused(refusal)
        except RouterError as error:
            response = failed(error)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("%s failed", scope["path"], extra=_logs.fields("proxy-failed"))
            response = mistaken()
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        handler = self._methods.get(request.method)
        if handler is None:
            allow = {"allow": ", ".join(self._methods)}
            raise Refusal(405, "not with this method", code="method_not_allowed", headers=allow)
        caller = await self._access.admit(request)
        return await handler(
            Exchange(self._router, self._access.settings, request, caller, self._picks)
        )


class Exchange:
    """One request, by whom it came, and the Router that serves it."""

    def __init__(
        self,
        router: Router,
        settings: ProxySettings,
        request: Request,
        caller: Caller,
        picks: Picks,
    ) -> None:
        self.router, self.settings = router, settings
        self.request, self.caller = request, caller
        self._picks = picks

    @property
    def named(self) -> str:
        """The id in the path, decoded; raises `Refusal` where it is no text."""
        try:
            return unquote(self.request.path_params["id"], errors="strict")
        except UnicodeDecodeError:
            raise Refusal(404, "an id is UTF-8, percent-encoded", code="invalid_id") from None

    def groups(self) -> list[str]:
        """The model groups that the caller may use."""
        return [name for name in self.router.config.groups if self.caller.may_use(name)]

    def options(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What goes with every call: for whom it is, and whom of the providers it asks for."""
        query, headers = self.request.query_params, self.request.headers
        named = (headers.get("custom-llm-provider"), query.get("custom_llm_provider"))
        provider = next(filter(None, (*named, fields.get("custom_llm_provider"))), None)
        metadata = dict(fields.get("metadata") or {})
        if self.caller.name is not None:
            metadata["key"] = self.caller.name
        return {
            "custom_llm_provider": provider,
            "tenant": self.caller.tenant,
            "metadata": metadata or None,
        }

    async def submit(
        self,
        operation: Operation,
        method: Callable[..., Awaitable[Any]],
        read: Callable[[Fields], dict[str, Any]],
    ) -> Response:
        """Read the body, and make a call that starts a job or stores an asset."""
        key = self.request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
            raise Refusal(
                400, f"an Idempotency-Key has 1 to {_LONGEST_KEY} characters", code="invalid_value"
            )
        async with received(self.request, self.settings) as fields:
            found = read(fields)
            self._check_extra(found.get("extra_body", {}))
            found.update(self.options(found))
            with self._picks.asking(self.router, operation, found):
                return answered(await method(**found, idempotency_key=key))

    def _check_extra(self, names: Iterable[str]) -> None:
        """Refuse what a tenant may not send on; raises `Refusal`.

        Of a field that no method knows, nobody here can tell whether it names something of another
        tenant's, whose native ids are good in the account that both share.
        """
        if self.caller.tenant is None or not self.router.config.settings.id_secrets:
            return
        allowed = arguments.PLAIN.union(self.settings.extra_fields)
        for name in names:
            if name not in allowed:
                raise Refusal(
                    400,
                    f"Unknown parameter: {name!r}. `proxy.extra_fields` lists what is sent on.",
                    code="unknown_parameter",
                    param=name,
                )


# Handlers ---------------------------------------------------------------------------------------

Handler: TypeAlias = Callable[[Exchange], Awaitable[Response]]


async def _create(exchange: Exchange) -> Response:
    return await exchange.submit(
        Operation.GENERATION, exchange.router.avideo_generation, arguments.generation
    )


async def _edit(exchange: Exchange) -> Response:
    return await exchange.submit(Operation.EDIT, exchange.router.avideo_edit, arguments.edit)


async def _extend(exchange: Exchange) -> Response:
    return await exchange.submit(
        Operation.EXTENSION, exchange.router.avideo_extension, arguments.extension
    )


async def _remix(exchange: Exchange) -> Response:
    video_id = exchange.named
    return await exchange.submit(
        Operation.REMIX,
        exchange.router.avideo_remix,
        lambda fields: arguments.remix(video_id, fields),
    )


async def _create_character(exchange: Exchange) -> Response:
    return await exchange.submit(
        Operation.CREATE_CHARACTER, exchange.router.avideo_create_character, arguments.character
    )


async def _get_character(exchange: Exchange) -> Response:
    return answered(
        await exchange.router.avideo_get_character(exchange.named, **exchange.options({}))
    )


async def _status(exchange: Exchange) -> Response:
    return answered(await exchange.router.avideo_status(exchange.named, **exchange.options({})))


async def _delete(exchange: Exchange) -> Response:
    return answered(await exchange.router.avideo_delete(exchange.named, **exchange.options({})))


async def _list(exchange: Exchange) -> Response:
    found = arguments.listing(exchange.request.query_params.multi_items())
    if not {"model", "target_model_names"} & found.keys():
        found["target_model_names"] = exchange.groups()
    found.update(exchange.options({}))
    if found.get("limit") != 0:
        return answered(await exchange.router.avideo_list(**found))
    # No video was asked for; whether there is one takes a look.
    page = await exchange.router.avideo_list(**{**found, "limit": 1})
    none = VideoPage(has_more=bool(page.data) or page.has_more)
    return answered(none.with_routing(page.routing) if page.routing is not None else none)


async def _content(exchange: Exchange) -> Response:
    video_id, options = exchange.named, exchange.options({})
    variant = exchange.request.query_params.get("variant") or "video"
    return Download(
        lambda to: exchange.router.avideo_content(video_id, variant=variant, to=to, **options),
        exchange.settings.body_timeout,
    )


async def _models(exchange: Exchange) -> Response:
    groups = [
        {"id": name, "object": "model", "created": 0, "owned_by": "video-router"}
        for name in exchange.groups()
    ]
    return json_response({"object": "list", "data": groups})


ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/videos": {"POST": _create, "GET": _list},
    # Before the ids: nothing is called so.
    "/videos/characters": {"POST": _create_character},
    "/videos/edits": {"POST": _edit},
    "/videos/extensions": {"POST": _extend},
    "/videos/characters/{id}": {"GET": _get_character},
    "/videos/{id}": {"GET": _status, "DELETE": _delete},
    "/videos/{id}/content": {"GET": _content},
    "/videos/{id}/remix": {"POST": _remix},
    "/models": {"GET": _models},
}


# Around all of it -------------------------------------------------------------------------------


class RawPaths:
    """Routes see a path as it was sent: what is encoded in it divides nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw = scope.get("raw_path") or quote(scope["path"]).encode()
            scope = {**scope, "path": raw.decode("latin-1")}
        await self._app(scope, receive, send)


class RequestIds:
    """Each answer bears the id of its request: the caller's, where it is a sane one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        named = given if _SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        header = (b"x-request-id", named.encode())

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await self._app(scope, receive, sending)
