"""What networks do, over real sockets: nothing here pretends to be one.

A submit is accepted at most once, whatever the socket does; the stand-in counts.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from outcome_parts import CLIP, ejected, fleet, made_video, requests_for
from outcome_servers import Server

from router import Router, errors
from router.testing import StandIn

HUGE = CLIP + bytes(24_000_000)  # more than the buffers of two sockets hold


def over_sockets(base_url: str, *accounts: str, **parts: Any) -> Router:
    return Router.from_dict(fleet(base_url, *accounts), environ={}, rng=random.Random(5), **parts)


@pytest.fixture
def router(call: Any, server: StandIn, clock: Any) -> Iterator[Router]:
    """Over real sockets, on a fake clock: back-offs take no time."""
    router = over_sockets(server.base_url, clock=clock)
    yield router
    call.close(router)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_whole_life_of_a_video(call: Any, server: StandIn, router: Router) -> None:
    luna = call(router, "video_create_character", name="Luna", video=CLIP)
    video = call(router, "video_generation", prompt="Luna sits", characters=[luna])
    call(router, "video_status", video.id)
    longer = call(router, "video_extension", video_id=video.id, prompt="on", seconds=4)

    assert call(router, "video_content", video.id) == CLIP
    assert longer.routing.account == video.routing.account == luna.routing.account
    assert len(server.accepted) == 3


# Nobody there


def broken_urls(port: int) -> dict[str, str]:
    return {
        "refused": f"http://127.0.0.1:{port}/v1",
        "no such name": "http://nothing.invalid/v1",
    }


@pytest.mark.parametrize("why", ["refused", "no such name"])
def test_a_submit_goes_elsewhere_when_nobody_is_there(
    call: Any, server: StandIn, clock: Any, closed_port: int, why: str
) -> None:
    data = fleet(server.base_url)
    data["accounts"]["east"]["base_url"] = broken_urls(closed_port)[why]
    data["deployments"][1]["order"] = 2
    router = Router.from_dict(data, environ={}, clock=clock)

    video = call(router, "video_generation", prompt="a cat")

    assert [a.deployment for a in video.routing.attempts] == ["east-1", "west-1"]
    assert len(server.accepted) == 1
    call.close(router)


@pytest.mark.parametrize("why", ["refused", "no such name"])
def test_three_such_calls_take_a_deployment_out_for_both_sides(
    call: Any, clock: Any, closed_port: int, why: str
) -> None:
    router = over_sockets(broken_urls(closed_port)[why], "east", clock=clock)

    for _ in range(3):
        with pytest.raises(errors.ConnectError) as caught:
            call(router, "video_generation", prompt="a cat")
        assert caught.value.accepted == "no"
        assert caught.value.status is None
    (ejection,) = ejected(router)["east-1"]
    assert ejection["scope"] == "both"
    # Nobody else is there, so it is asked still, but no call asks it twice.
    with pytest.raises(errors.ConnectError) as caught:
        call(router, "video_generation", prompt="a cat")
    assert len(caught.value.attempts) == 1
    call.close(router)


def test_tls_against_a_plain_port_is_no_connection(call: Any, server: StandIn, clock: Any) -> None:
    router = over_sockets(server.base_url.replace("http:", "https:"), "east", clock=clock)

    with pytest.raises(errors.ConnectError) as caught:
        call(router, "video_generation", prompt="a cat")

    assert caught.value.accepted == "no"
    assert server.requests == []
    call.close(router)


def test_a_port_that_takes_connections_and_says_nothing_is_ambiguous(call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        router = over_sockets(f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        with pytest.raises(errors.AmbiguousSubmitError) as caught:
            call(router, "video_generation", prompt="a cat", timeout=1)
        assert len(caught.value.attempts) == 1
        call.close(router)


# Broken off

SPOILED = {
    "reset": {"after": True},
    "reset_mid_body": {},
    "truncated": {},
    "garbage": {},
    "empty": {},
    "wrong_types": {},
    "endless": {"size": 1 << 20, "seconds": 0.0},
    "many_headers": {"count": 5_000},
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_generation", {"prompt": "a cat"}),
        ("video_create_character", {"name": "Luna", "video": CLIP}),
    ],
    ids=["generation", "create_character"],
)
def test_a_submit_whose_answer_is_spoiled_is_accepted_once(
    call: Any, server: StandIn, router: Router, kind: str, method: str, arguments: Any
) -> None:
    server.fault(kind, operation=method.removeprefix("video_"), times=None, **SPOILED[kind])

    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        call(router, method, **arguments)

    assert len(server.accepted) == 1
    assert len(server.requests) == 1
    assert caught.value.account == server.accepted[0].account


@pytest.mark.parametrize("kind", SPOILED)
def test_a_read_whose_answer_is_spoiled_once_goes_again(
    call: Any, server: StandIn, router: Router, kind: str
) -> None:
    video = made_video(server)
    server.fault(kind, operation="status", **SPOILED[kind])

    assert call(router, "video_status", video).done
    assert len(requests_for(server, "status")) == 2


@pytest.mark.parametrize("kind", SPOILED)
def test_a_read_whose_answers_are_all_spoiled_is_no_answer(
    call: Any, server: StandIn, router: Router, kind: str
) -> None:
    video = made_video(server)
    server.fault(kind, operation="status", times=None, **SPOILED[kind])

    with pytest.raises(errors.InvalidResponseError) as caught:
        call(router, "video_status", video)

    assert len(requests_for(server, "status")) == len(caught.value.attempts) == 3
    assert ejected(router)["east-1"][0]["scope"] == "reads"


def test_a_small_submit_that_is_reset_unread_is_judged_by_what_the_socket_took(
    call: Any, server: StandIn, router: Router
) -> None:
    """The reset races with the body's last bytes; whoever wins, nothing was accepted."""
    server.fault("reset", times=None)

    with pytest.raises((errors.AmbiguousSubmitError, errors.ConnectError)) as caught:
        call(router, "video_generation", prompt="a cat")

    ambiguous = isinstance(caught.value, errors.AmbiguousSubmitError)
    assert caught.value.accepted == ("maybe" if ambiguous else "no")
    assert len(server.requests) == len(caught.value.attempts) <= 2
    assert server.accepted == []


def test_an_upload_that_is_reset_half_way_goes_elsewhere(
    call: Any, server: StandIn, router: Router
) -> None:
    server.fault("reset", operation="create_character")

    luna = call(router, "video_create_character", name="Luna", video=HUGE)

    assert len({a.deployment for a in luna.routing.attempts}) == 2
    assert [submit.account for submit in server.accepted] == [luna.routing.account]


def test_two_hundred_headers_are_no_reason_to_fail(
    call: Any, server: StandIn, router: Router
) -> None:
    server.fault("many_headers", count=200)

    assert call(router, "video_generation", prompt="a cat").status == "queued"


# Slow


# Each byte in time, the whole never; or nothing for longer than anybody waits.
SLOW = pytest.mark.parametrize(("kind", "seconds"), [("drip", 0.1), ("delay", 10)])
# A connection is made first, with all the time that it takes on a busy machine.
PATIENCE = 0.5


@SLOW
def test_a_slow_submit_is_given_up_and_not_sent_again(
    call: Any, server: StandIn, kind: str, seconds: float
) -> None:
    router = over_sockets(server.base_url)
    call(router, "video_generation", prompt="a cat")
    server.fault(kind, operation="generation", times=None, seconds=seconds)

    with pytest.raises(errors.AmbiguousSubmitError) as caught:
        call(router, "video_generation", prompt="a cat", timeout=PATIENCE)

    assert len(server.accepted) == 2
    assert len(server.requests) == 2
    assert len(caught.value.attempts) == 1
    call.close(router)


@SLOW
def test_a_slow_read_is_given_up_and_asked_again(
    call: Any, server: StandIn, kind: str, seconds: float
) -> None:
    video = made_video(server)
    router = over_sockets(server.base_url)
    call(router, "video_status", video)
    fault = server.fault(kind, operation="status", times=None, seconds=seconds)

    with pytest.raises(errors.AttemptTimeoutError):
        call(router, "video_status", video, timeout=PATIENCE, retries=0)
    fault.cancel()

    assert call(router, "video_status", video, timeout=5).done
    call.close(router)


def dripping(connection: socket.socket, ended: threading.Event) -> None:
    """A 400 at once, and then one byte of its body after the other."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 1000\r\n\r\n")
    while not ended.wait(0.02):
        connection.sendall(b" ")


def test_a_slow_error_body_takes_nothing_from_the_status(call: Any) -> None:
    """The status came at once; only its explanation trickles."""
    with Server(dripping) as server:
        router = over_sockets(server.url, "east")
        with pytest.raises(errors.BadRequestError) as caught:
            call(router, "video_generation", prompt="a cat", timeout=1)
        call.close(router)

    assert caught.value.accepted == "no"
    assert ejected(router) == {}


# Connections that are kept


def test_a_connection_that_the_server_closed_meanwhile_makes_no_ambiguity(
    call: Any, clock: Any, closed_port: int
) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, port=closed_port, seed=7)
    with provider:
        router = over_sockets(provider.base_url, "east", clock=clock)
        first = call(router, "video_generation", prompt="a cat")
    with provider:
        second = call(router, "video_generation", prompt="a cat")
        status = call(router, "video_status", first.id)

    assert len(provider.accepted) == 2
    assert len(second.routing.attempts) == len(status.routing.attempts) == 1
    call.close(router)


def answering(connection: socket.socket, ended: threading.Event) -> None:
    """Takes every submit, and keeps the connection."""
    body = b'{"id": "video_1", "status": "queued"}'
    request = b""
    while chunk := connection.recv(65_536):
        request += chunk
        if request.endswith(b"--\r\n"):  # the end of a form
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            request = b""


def test_a_submit_takes_a_fresh_connection_where_the_kept_one_has_been_idle(
    call: Any, clock: Any
) -> None:
    with Server(answering) as server:
        router = over_sockets(server.url, "east", clock=clock)
        call(router, "video_generation", prompt="a cat")
        clock.advance(1.5)
        call(router, "video_generation", prompt="a cat")
        assert len(server.connections) == 1  # idle for less than two seconds: used again
        clock.advance(2.5)
        call(router, "video_generation", prompt="a cat")
        assert len(server.connections) == 2
        call.close(router)


def test_what_went_wrong_on_a_connection_leaves_it_unused(
    call: Any, server: StandIn, router: Router
) -> None:
    server.fault("truncated", operation="generation", account="east")
    server.fault("truncated", operation="generation", account="west")
    for account in ("east", "west"):
        with pytest.raises(errors.AmbiguousSubmitError):
            call(router, "video_generation", prompt="a cat", account=account)

    for account in ("east", "west"):
        assert call(router, "video_generation", prompt="a cat", account=account).status == "queued"


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_key_in_its_header(
    call: Any, server: StandIn, clock: Any, status: int
) -> None:
    with StandIn(accounts={"sk-east": "east", "sk-west": "west"}) as elsewhere:
        location = f"{elsewhere.base_url}/videos"
        server.fault("redirect", times=None, location=location, status=status)
        router = over_sockets(server.base_url, clock=clock)
        with pytest.raises(errors.InvalidResponseError) as caught:
            call(router, "video_generation", prompt="a cat")
        assert elsewhere.requests == []

    assert caught.value.status == status
    assert caught.value.accepted == "no"
    assert len(server.requests) == 2
    call.close(router)


# Two event loops, and a cancelled call on a real socket


def test_connections_belong_to_their_event_loop(server: StandIn) -> None:
    router = over_sockets(server.base_url)

    async def once() -> str:
        return str((await router.avideo_generation(prompt="a cat")).status)

    assert [asyncio.run(once()) for _ in range(3)] == ["queued"] * 3
    router.close()


def test_a_cancelled_call_leaves_its_connection_unused(server: StandIn) -> None:
    router = over_sockets(server.base_url, "east")

    async def scenario() -> None:
        fault = server.fault("delay", operation="generation", seconds=5)
        task = asyncio.create_task(router.avideo_generation(prompt="a cat"))
        while not fault.hits:  # noqa: ASYNC110  (the stand-in runs in a thread, without events)
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert router.statistics()["east-1"]["in_flight"] == 0
        assert (await router.avideo_generation(prompt="a dog")).prompt == "a dog"
        await router.aclose()

    asyncio.run(scenario())
