"""Every exception that httpx can raise, at every moment of an exchange.

What decides is how far the bytes had gone, never the type of the exception: before the body's last
byte a call goes elsewhere, after it a submit is never sent again. The stand-in counts what it took.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpcore
import httpx
import pytest
from outcome_parts import (
    CLIP,
    Answering,
    Passing,
    Pieces,
    by_transport,
    ejected,
    made_video,
    requests_for,
)

from router import errors
from router.outcomes import Fault
from router.testing import StandIn
from router.transport import FAULTS

REQUEST = httpx.Request("POST", "http://stand-in/v1/videos")
RESPONSE = httpx.Response(500, request=REQUEST)
Make = Callable[[], Exception]


def exceptions_of(library: ModuleType) -> list[type[Exception]]:
    """All public exception classes of a library that is installed."""
    return [
        found
        for _, found in inspect.getmembers(library, inspect.isclass)
        if issubclass(found, Exception) and not issubclass(found, Warning)
    ]


def httpx_exceptions() -> list[type[Exception]]:
    return exceptions_of(httpx)


def made(kind: type[Exception]) -> Exception:
    if kind is httpx.HTTPStatusError:
        return httpx.HTTPStatusError("it happened", request=REQUEST, response=RESPONSE)
    wants = [p for p in inspect.signature(kind.__init__).parameters if p != "self"]
    return kind("it happened") if "message" in wants else kind()


KNOWN: dict[str, Make] = {
    kind.__name__: lambda kind=kind: made(kind)  # type: ignore[misc]  # mypy wants it annotated
    for kind in httpx_exceptions()
}
UNKNOWN: dict[str, Make] = {
    "RuntimeError": lambda: RuntimeError("it happened"),
    "OSError": lambda: ConnectionResetError(104, "it happened"),
    "TimeoutError": lambda: TimeoutError("it happened"),
    "SSLError": lambda: ssl.SSLError(1, "it happened"),
    "KeyError": lambda: KeyError("it happened"),
    "AttributeError": lambda: AttributeError("it happened"),
    "a class of one's own": lambda: type("Odd", (Exception,), {})("it happened"),
}
ALL = {**KNOWN, **UNKNOWN}
# Before the body has gone, these speak of us: our own pool is busy, or the request is none.
OURS = {name: FAULTS[kind] for name, kind in ((k.__name__, k) for k in FAULTS) if name in KNOWN}
OURS = {name: fault for name, fault in OURS.items() if fault in (Fault.POOL, Fault.LOCAL)}
OUR_ERRORS = {Fault.POOL: errors.CapacityError, Fault.LOCAL: errors.BadRequestError}

MOMENTS = ("before", "part", "last byte", "body", "work", "answer")
LARGE = CLIP + bytes(300_000)  # more than one chunk


class Breaking(Passing):
    """Passes everything on but the first exchange of one operation, which breaks at `moment`.

    before: nothing of the body was read. part: a first chunk was. last byte: its last byte was, and
    the end was not yet asked for. body: all of it was, and no work done. work: the work was done,
    and the answer lost. answer: half of the answer came.
    """

    def __init__(self, provider: StandIn, moment: str, make: Make, times: int = 1) -> None:
        super().__init__(provider)
        self.moment, self.make, self.left = moment, make, times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self._due():
            return super().handle_request(request)
        assert isinstance(request.stream, httpx.SyncByteStream)
        if self.moment == "before":
            raise self.make()
        if self.moment == "part":
            next(iter(request.stream))
            raise self.make()
        if self.moment in ("last byte", "body"):
            left = int(request.headers.get("content-length", 1))
            for chunk in request.stream:
                left -= len(chunk)
                if not left and self.moment == "last byte":
                    break
            raise self.make()
        return self._spoiled(self.inner.handle_request(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._due():
            return await super().handle_async_request(request)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        if self.moment == "before":
            raise self.make()
        if self.moment == "part":
            await anext(aiter(request.stream))
            raise self.make()
        if self.moment in ("last byte", "body"):
            left = int(request.headers.get("content-length", 1))
            async for chunk in request.stream:
                left -= len(chunk)
                if not left and self.moment == "last byte":
                    break
            raise self.make()
        return self._spoiled(await self.inner.handle_async_request(request))

    def _due(self) -> bool:
        self.left -= 1
        if self.left >= 0:
            self.sent += 1
        return self.left >= 0

    def _spoiled(self, response: httpx.Response) -> httpx.Response:
        if self.moment == "work":
            raise self.make()
        stream = Pieces(b'{"id": "video_1", ', self.make())
        return httpx.Response(response.status_code, headers={"x-request-id": "1"}, stream=stream)


def test_the_faults_name_every_exception_of_httpx() -> None:
    assert set(httpx_exceptions()) <= set(FAULTS)


def test_the_faults_name_every_exception_of_httpcore_as_that_of_httpx_of_the_same_name() -> None:
    assert set(exceptions_of(httpcore)) <= set(FAULTS)
    names = {kind.__name__: FAULTS[kind] for kind in httpx_exceptions()}
    for kind in exceptions_of(httpcore):
        assert names.get(kind.__name__, FAULTS[kind]) is FAULTS[kind]


def test_of_others_the_faults_name_only_a_timeout() -> None:
    ours = {kind for kind in FAULTS if kind.__module__.startswith("router.")}

    others = set(FAULTS) - set(httpx_exceptions()) - set(exceptions_of(httpcore)) - ours
    assert others == {TimeoutError}


def test_a_fault_of_a_subclass_that_is_not_known_yet_is_its_parents(
    call: Any, provider: StandIn, clock: Any
) -> None:
    class Newer(httpx.ConnectError):
        pass

    transport = Breaking(provider, "before", lambda: Newer("it happened"), times=6)
    router = by_transport(transport, clock)
    for _ in range(3):
        with pytest.raises(errors.ConnectError):
            call(router, "video_generation", prompt="a cat")
    # Out for both sides, as after a refused connection.
    assert {e["scope"] for found in ejected(router).values() for e in found} == {"both"}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("moment", ["before", "part"])
def test_a_submit_whose_body_did_not_go_whole_goes_elsewhere(
    call: Any, provider: StandIn, clock: Any, name: str, moment: str
) -> None:
    transport = Breaking(provider, moment, ALL[name])
    router = by_transport(transport, clock)
    clip = LARGE if moment == "part" else CLIP

    if name in OURS:
        with pytest.raises(OUR_ERRORS[OURS[name]]) as caught:
            call(router, "video_create_character", name="Luna", video=clip)
        assert caught.value.accepted == "no"
        assert provider.accepted == []
    else:
        luna = call(router, "video_create_character", name="Luna", video=clip)
        assert len({attempt.deployment for attempt in luna.routing.attempts}) == 2
        assert len(provider.accepted) == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("moment", ["last byte", "body", "work", "answer"])
def test_a_submit_whose_body_went_whole_is_never_sent_again(
    call: Any, provider: StandIn, clock: Any, name: str, moment: str
) -> None:
    video = made_video(provider)
    before = len(provider.accepted)
    transport = Breaking(provider, moment, ALL[name])
    router = by_transport(transport, clock)

    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        call(router, "video_edit", video_id=video, prompt="a cat")

    assert transport.sent == 1
    assert len(provider.accepted) - before == (moment in ("work", "answer"))
    error = caught.value
    assert error.accepted == "maybe"
    assert (error.deployment, error.account, error.operation) == ("east-1", "east", "edit")
    assert error.sent_at == pytest.approx(clock.time())
    assert len(error.attempts) == 1
    assert error.__cause__ is not None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("method", "moment"),
    [
        *(("video_status", m) for m in MOMENTS if m not in ("part", "last byte")),
        ("video_content", "answer"),
    ],
)
def test_a_read_goes_again(
    call: Any, provider: StandIn, clock: Any, name: str, moment: str, method: str
) -> None:
    video = made_video(provider)
    call(by_transport(Passing(provider)), "video_status", video)
    transport = Breaking(provider, moment, ALL[name])
    router = by_transport(transport, clock)

    if name in OURS and moment == "before":
        with pytest.raises(OUR_ERRORS[OURS[name]]):
            call(router, method, video)
        assert transport.sent == 1
        assert ejected(router) == {}
    else:
        answer = call(router, method, video)
        assert transport.sent == 2
        assert len(answer.routing.attempts) == 2


@pytest.mark.parametrize("name", OURS)
def test_what_is_our_own_fault_is_never_the_deployments(
    call: Any, provider: StandIn, clock: Any, name: str
) -> None:
    transport = Breaking(provider, "before", ALL[name], times=100)
    router = by_transport(transport, clock)

    for _ in range(4):
        with pytest.raises(OUR_ERRORS[OURS[name]]) as caught:
            call(router, "video_generation", prompt="a cat")

    assert transport.sent == 4
    assert ejected(router) == {}
    if OURS[name] is Fault.POOL:
        assert isinstance(caught.value, errors.TryLaterError)
        assert caught.value.retry_after > 0
    else:
        assert caught.value.status is None


@pytest.mark.parametrize("name", ["ConnectError", "ConnectTimeout", "ReadError", "RuntimeError"])
def test_a_submit_that_reaches_nobody_says_so_with_all_its_attempts(
    call: Any, provider: StandIn, clock: Any, name: str
) -> None:
    transport = Breaking(provider, "before", ALL[name], times=100)
    router = by_transport(transport, clock)

    with pytest.raises(errors.ConnectError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert {a.deployment for a in caught.value.attempts} == {"east-1", "west-1"}
    assert caught.value.status is None
    assert caught.value.accepted == "no"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ReadTimeout", errors.AttemptTimeoutError),
        ("TimeoutError", errors.AttemptTimeoutError),
        ("ReadError", errors.InvalidResponseError),
        ("RemoteProtocolError", errors.InvalidResponseError),
        ("RuntimeError", errors.InvalidResponseError),
    ],
)
def test_a_read_that_never_gets_a_whole_answer_says_what_it_was(
    call: Any, provider: StandIn, clock: Any, name: str, error: type[Exception]
) -> None:
    video = made_video(provider)
    transport = Breaking(provider, "answer", ALL[name], times=100)

    with pytest.raises(error) as caught:
        call(by_transport(transport, clock), "video_status", video)

    assert transport.sent == 3
    assert len(caught.value.attempts) == 3  # type: ignore[attr-defined]  # all are RouterErrors


BREAKING = (
    httpx.ReadError("reset"),
    httpx.RemoteProtocolError("cut"),
    httpx.ReadTimeout("silence"),
    RuntimeError("a transport's own"),
    TimeoutError("a transport's own"),
)


@pytest.mark.parametrize("broken", BREAKING, ids=lambda e: type(e).__name__)
def test_a_status_that_was_said_stands_though_its_body_breaks_off(
    call: Any, clock: Any, broken: Exception
) -> None:
    transport = Answering(lambda _: httpx.Response(400, stream=Pieces(b'{"error": {"mess', broken)))
    router = by_transport(transport, clock)

    with pytest.raises(errors.BadRequestError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert len(transport.seen) == 1
    assert caught.value.accepted == "no"
    assert ejected(router) == {}


def test_an_error_body_without_end_is_cut(call: Any, clock: Any) -> None:
    class Endless(Pieces):
        def __iter__(self) -> Any:
            while True:
                yield b"x" * 65_536

    router = by_transport(Answering(lambda _: httpx.Response(422, stream=Endless())), clock)

    with pytest.raises(errors.BadRequestError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert len(str(caught.value)) < 2_000


def test_an_answer_without_end_is_not_waited_for(call: Any, clock: Any) -> None:
    class Endless(Pieces):
        def __iter__(self) -> Any:
            while True:
                yield b" " * 1_000_000

    transport = Answering(lambda _: httpx.Response(200, stream=Endless()))
    router = by_transport(transport, clock)

    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert len(transport.seen) == 1
    assert caught.value.accepted == "maybe"


def test_a_file_that_shrinks_while_it_is_sent_is_the_callers_fault(
    call: Any, provider: StandIn, clock: Any, tmp_path: Any
) -> None:
    path = tmp_path / "luna.mp4"
    path.write_bytes(LARGE)

    class Cutting(Passing):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            path.write_bytes(CLIP)
            return super().handle_request(request)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            path.write_bytes(CLIP)
            return await super().handle_async_request(request)

    transport = Cutting(provider)
    router = by_transport(transport, clock)

    with pytest.raises(errors.BadRequestError) as caught:
        call(router, "video_create_character", name="Luna", video=path)

    assert transport.sent == 1
    assert caught.value.status is None
    assert provider.accepted == []
    assert requests_for(provider, "create_character") == []
    assert ejected(router) == {}


@pytest.mark.parametrize("client", ["client", "transport"])
def test_a_clients_own_hook_that_raises_for_a_status_changes_nothing(
    call: Any, provider: StandIn, clock: Any, client: str
) -> None:
    """Many apps hand in a client whose hook calls `raise_for_status`."""

    def hook(response: httpx.Response) -> None:
        response.raise_for_status()

    async def ahook(response: httpx.Response) -> None:
        response.raise_for_status()

    from outcome_parts import URL, fleet

    from router import Router

    hooked = client == "client"
    blocking = httpx.Client(
        transport=provider.transport, event_hooks={"response": [hook] if hooked else []}
    )
    asynchronous = httpx.AsyncClient(
        transport=provider.transport, event_hooks={"response": [ahook] if hooked else []}
    )
    router = Router.from_dict(
        fleet(URL),
        environ={},
        http_client=blocking,
        async_http_client=asynchronous,
        clock=clock,
    )
    provider.fault("status", operation="generation", status=400)

    with pytest.raises(errors.BadRequestError):
        call(router, "video_generation", prompt="a cat")
    assert call(router, "video_generation", prompt="a cat").status == "queued"
    assert ejected(router) == {}
    blocking.close()


def test_a_clients_redirects_cookies_and_auth_are_not_used(
    call: Any, provider: StandIn, clock: Any
) -> None:
    """A client of the caller's may follow redirects; the router's calls never do."""
    from outcome_parts import URL, fleet

    from router import Router

    provider.fault(
        "redirect", operation="generation", times=2, location="http://stand-in/v1/videos"
    )
    asynchronous = httpx.AsyncClient(
        transport=provider.transport, follow_redirects=True, auth=("user", "password")
    )
    with httpx.Client(
        transport=provider.transport, follow_redirects=True, auth=("user", "password")
    ) as blocking:
        router = Router.from_dict(
            fleet(URL),
            environ={},
            http_client=blocking,
            async_http_client=asynchronous,
            clock=clock,
        )
        with pytest.raises(errors.InvalidResponseError):
            call(router, "video_generation", prompt="a cat")

    assert len(provider.requests) == 2
    assert {r.headers["authorization"] for r in provider.requests} <= {
        "Bearer sk-east",
        "Bearer sk-west",
    }
