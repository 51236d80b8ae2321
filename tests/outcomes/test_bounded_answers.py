"""A provider's answer cannot exhaust a worker: neither its memory, nor its time, nor its sockets.

All of it goes over real sockets, to a provider that offers far more than it is asked for. Where an
answer has a size, the size is the limit: 2 MiB of JSON, 64 KiB of an error, 100 KiB of headers.
Where it has none, the call's `timeout` is, and where many bytes move, its `deadline`.

Memory is what `tracemalloc` sees: every byte of a body that is read, kept, copied or unpacked is
an object of Python's. The provider's own bytes are made before, and sent from where they are.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import random
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from bounded_servers import (
    DRIPPING,
    ENDLESS_ERRORS,
    LIMITED,
    MOST,
    NESTED,
    PACKED,
    SILENT,
    SMALL,
    Offer,
    Offering,
    endless_video,
    honest,
    packed,
)
from outcome_parts import CLIP, Doors, ejected, fleet
from outcome_servers import Server

from router import Router, downloads, errors

# For what ends by time: on a connection that stands, where it matters that the request went out.
PATIENCE = 0.4
# For what must end before its time: a hundred times what it takes.
PLENTY = 20.0
# No stopwatch: what has no bound takes as long as the provider pleases.
SOON = 15.0

GOOD = honest(b'{"id": "video_1", "object": "video", "status": "completed"}')
TIMES = {**DRIPPING, **SILENT}
CALLS = pytest.mark.parametrize("method", ["video_generation", "video_status"])
ARGUMENTS: dict[str, dict[str, Any]] = {
    "video_generation": {"prompt": "a cat"},
    "video_status": {"video_id": "video_1", "retries": 0},
    "video_content": {"video_id": "video_1", "retries": 0},
    "video_create_character": {"name": "Luna", "video": CLIP},
}


class Memory:
    """What has been taken since the beginning, at most, in bytes."""

    peak = 0


@contextmanager
def watched() -> Iterator[Memory]:
    memory = Memory()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class Worker:
    """A router in front of one offering provider, and what came of its last call."""

    def __init__(self, call: Doors, offering: Offering, router: Router) -> None:
        self.call = call
        self.offering = offering
        self.router = router
        self.peak = 0

    def fails(self, method: str, **options: Any) -> errors.RouterError:
        """The error in which a call ends, soon and with nothing left open behind it."""
        started = time.monotonic()
        with watched() as memory, pytest.raises(errors.RouterError) as caught:
            self.call(self.router, method, **ARGUMENTS[method], **options)
        self.peak = memory.peak
        assert time.monotonic() - started < max(SOON, options.get("timeout", 0))
        assert self.offering.sent < MOST
        assert self.offering.all_ended()
        assert self.in_flight == 0
        return caught.value

    def serves(self) -> bool:
        """Whether an honest answer gets through; its connection is kept."""
        offer, self.offering.offer = self.offering.offer, GOOD
        video = self.call(self.router, "video_status", "video_1")
        self.offering.offer = offer
        return bool(video.done)

    @property
    def in_flight(self) -> int:
        return int(self.router.statistics()["east-1"]["in_flight"])


@contextmanager
def working(call: Doors, offer: Offer, **parts: Any) -> Iterator[Worker]:
    offering = Offering(offer)
    with Server(offering) as server:
        data = fleet(server.url, "east")
        router = Router.from_dict(data, environ={}, rng=random.Random(5), **parts)
        try:
            yield Worker(call, offering, router)
        finally:
            call.close(router)


def assert_ended(error: errors.RouterError, method: str, *, results: set[str]) -> None:
    """A submit may have been accepted, a read says what it got; `results` is why it ended."""
    (attempt,) = error.attempts
    assert attempt.result in results
    if method in ("video_generation", "video_create_character"):
        assert type(error) is errors.AmbiguousSubmitError
        assert error.accepted == "maybe"
        return
    late = attempt.result == "no answer in time"
    assert type(error) is (errors.AttemptTimeoutError if late else errors.InvalidResponseError)
    assert error.accepted == "no"


LIMIT = {"an answer without end", "the connection broke"}
TIME = {"no answer in time"}


# What has a size


@CALLS
@pytest.mark.parametrize("what", LIMITED)
def test_an_answer_without_end_ends_at_a_limit_long_before_its_time(
    call: Doors, what: str, method: str
) -> None:
    with working(call, LIMITED[what]) as worker:
        error = worker.fails(method, timeout=PLENTY)

        assert_ended(error, method, results=LIMIT)
        assert worker.peak < LIMITED[what].peak
        assert worker.serves()


SAYS: dict[int, type[errors.RouterError]] = {
    307: errors.InvalidResponseError,
    400: errors.BadRequestError,
    404: errors.NotFoundError,
    422: errors.BadRequestError,
    500: errors.InternalServerError,
    503: errors.InternalServerError,
}


@CALLS
@pytest.mark.parametrize("status", ENDLESS_ERRORS)
def test_an_error_without_end_is_the_error_that_its_status_says(
    call: Doors, status: int, method: str
) -> None:
    ambiguous = status >= 500 and method == "video_generation"
    with working(call, ENDLESS_ERRORS[status]) as worker:
        error = worker.fails(method, timeout=PLENTY)

        assert type(error) is (errors.AmbiguousSubmitError if ambiguous else SAYS[status])
        assert error.accepted == ("maybe" if ambiguous else "no")
        assert error.status == status
        assert len(str(error)) < 2_000
        assert worker.peak < SMALL
        assert worker.offering.sent < 16 << 20  # what the buffers of two sockets hold
        assert worker.serves()


# What has none


@pytest.mark.parametrize(
    ("what", "method"),
    [
        *((what, "video_generation") for what in TIMES),
        *((what, "video_status") for what in ("a dripping header", "a dripping body")),
    ],
)
def test_an_answer_that_takes_for_ever_ends_at_the_calls_timeout(
    call: Doors, what: str, method: str
) -> None:
    with working(call, TIMES[what]) as worker:
        assert worker.serves()
        error = worker.fails(method, timeout=PATIENCE)

        assert_ended(error, method, results=TIME)
        assert worker.peak < SMALL
        assert worker.serves()


def test_an_upload_whose_answer_takes_for_ever_ends_at_the_calls_deadline(call: Doors) -> None:
    """Its `timeout` bounds the silence between bytes only, and there is no silence."""
    with working(call, DRIPPING["a dripping header"]) as worker:
        assert worker.serves()
        error = worker.fails("video_create_character", deadline=PATIENCE)

        assert_ended(error, "video_create_character", results=TIME)
        assert worker.peak < SMALL


def test_an_event_loop_serves_others_while_one_answer_floods_it() -> None:
    flood, good = Offering(DRIPPING["interim answers without end"]), Offering(GOOD)
    ended: list[str] = []

    async def status(router: Router, name: str) -> None:
        try:
            await router.avideo_status("video_1", timeout=1.5, retries=0)
        except errors.AttemptTimeoutError:
            name += ", in vain"
        ended.append(name)

    async def both() -> None:
        with Server(flood) as flooding, Server(good) as serving:
            one, other = (
                Router.from_dict(fleet(server.url, "east"), environ={})
                for server in (flooding, serving)
            )
            flooded = asyncio.create_task(status(one, "flooded"))
            while not flood.sent:  # noqa: ASYNC110  (the server is a thread, without events)
                await asyncio.sleep(0.001)
            await status(other, "other")
            await flooded
            await one.aclose()
            await other.aclose()

    asyncio.run(both())

    assert ended == ["other", "flooded, in vain"]


# What is packed, though nobody asked for that


@CALLS
@pytest.mark.parametrize("what", PACKED)
def test_a_packed_answer_is_bounded_by_what_it_unfolds_to(
    call: Doors, what: str, method: str
) -> None:
    """And by what comes, where that unfolds to nothing; a slow machine may be out of time first."""
    with working(call, PACKED[what]) as worker:
        error = worker.fails(method, timeout=PATIENCE)

        assert_ended(error, method, results=LIMIT | TIME)
        assert worker.peak < PACKED[what].peak
        assert worker.serves()


@CALLS
def test_an_answer_that_is_packed_twice_unfolds_no_further(call: Doors, method: str) -> None:
    with working(call, NESTED) as worker:
        with watched() as memory, pytest.raises(errors.RouterError):
            call(worker.router, method, **ARGUMENTS[method], timeout=PLENTY)

        assert memory.peak < PACKED["zeros without end"].peak
        assert worker.in_flight == 0


@pytest.mark.parametrize("status", [b"400 No", b"500 No"])
def test_an_error_that_is_packed_is_cut_like_any_other(call: Doors, status: bytes) -> None:
    bomb = PACKED["zeros without end"]
    offer = Offer(bomb.head.replace(b"200 OK", status), bomb.piece)
    with working(call, offer) as worker:
        error = worker.fails("video_status", timeout=PLENTY)

        assert error.status == int(status[:3])
        assert worker.peak < SMALL


def test_an_honest_answer_that_is_packed_is_still_one(call: Doors) -> None:
    texts = [str(random.Random(number).random()) for number in range(20_000)]
    body = b'{"id": "video_1", "status": "completed", "x": ["%b"]}' % '", "'.join(texts).encode()
    with working(call, honest(gzip.compress(body), coding="gzip")) as worker:
        video = call(worker.router, "video_status", "video_1")

    assert video.done
    assert video.model_dump()["x"] == texts


def test_a_packed_download_arrives_unpacked(call: Doors, tmp_path: Path) -> None:
    film = random.Random(5).randbytes(1_000_000) + bytes(1_000_000)
    offer = honest(gzip.compress(film), coding="gzip", kind="video/mp4")
    with working(call, offer) as worker:
        assert call(worker.router, "video_content", "video_1") == film
        path = call(worker.router, "video_content", "video_1", to=tmp_path / "film.mp4")

    assert path.read_bytes() == film


# Downloads


class Nowhere(io.RawIOBase):
    """A file that counts what it is given, and the largest piece of it."""

    written = largest = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.written += len(data)
        self.largest = max(self.largest, len(data))
        return len(data)


def test_a_download_without_end_ends_at_the_deadline(call: Doors) -> None:
    """All of it may move for so long, since a video has any size; memory holds what has come."""
    with working(call, endless_video(pause=0.005)) as worker:
        error = worker.fails("video_content", deadline=PATIENCE)

        assert type(error) is errors.DeadlineExceededError
        assert error.accepted == "no"
        assert worker.peak < 1.5 * worker.offering.sent + SMALL
        assert ejected(worker.router) == {}


def test_a_download_into_memory_ends_at_what_fits_into_memory(
    call: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gibibyte, really."""
    monkeypatch.setattr(downloads, "LARGEST_IN_MEMORY", 8 << 20)
    with working(call, endless_video()) as worker:
        error = worker.fails("video_content", timeout=PLENTY)

        assert type(error) is errors.InvalidResponseError
        assert "to=" in error.message
        assert worker.peak < 24 << 20
        assert ejected(worker.router) == {}


def test_a_download_to_a_path_without_end_takes_no_memory_and_leaves_no_file(
    call: Doors, tmp_path: Path
) -> None:
    with working(call, endless_video(pause=0.005)) as worker:
        error = worker.fails("video_content", deadline=PATIENCE, to=tmp_path / "film.mp4")

        assert type(error) is errors.DeadlineExceededError
        assert worker.peak < SMALL
        assert list(tmp_path.iterdir()) == []


def test_a_download_to_a_file_without_end_takes_no_memory(call: Doors) -> None:
    nowhere = Nowhere()
    with working(call, endless_video(pause=0.005)) as worker:
        error = worker.fails("video_content", deadline=PATIENCE, to=nowhere)

        assert type(error) is errors.DeadlineExceededError
        assert nowhere.written > SMALL
        assert worker.peak < SMALL


def test_a_download_that_falls_silent_ends_at_the_timeout(call: Doors) -> None:
    offer = Offer(endless_video().head)
    with working(call, offer) as worker:
        assert worker.serves()
        error = worker.fails("video_content", timeout=PATIENCE)

        assert_ended(error, "video_content", results=TIME)
        assert worker.peak < SMALL


def test_a_packed_download_unfolds_a_piece_at_a_time(call: Doors) -> None:
    nowhere, film = Nowhere(), packed(mebibytes=32)
    with working(call, honest(film, coding="gzip", kind="video/mp4")) as worker:
        with watched() as memory:
            call(worker.router, "video_content", "video_1", to=nowhere, timeout=PLENTY)

        assert nowhere.written == 32 << 20
        assert nowhere.largest <= 1 << 20
        assert memory.peak < SMALL


# One call after the other


@contextmanager
def uncollected() -> Iterator[None]:
    """Cycles stay, as they do between the rare moments when the oldest garbage is looked at."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


UNREAD = {
    "JSON without end": LIMITED["JSON without end"],
    "what is no JSON": honest(b"[" * (7 << 20)),
}


@pytest.mark.parametrize("what", UNREAD)
def test_an_answer_that_was_none_is_not_kept_by_its_error(call: Doors, what: str) -> None:
    """An error may be kept for long, and its traceback keeps the frames that it came through."""
    with working(call, UNREAD[what]) as worker:
        kept: list[errors.RouterError] = []
        with uncollected(), watched() as memory:
            for _ in range(6):
                with pytest.raises(errors.InvalidResponseError) as caught:
                    call(worker.router, "video_status", "video_1", timeout=PLENTY, retries=0)
                kept.append(caught.value)

        assert len(kept) == 6
        assert memory.peak < 1.5 * LIMITED["JSON without end"].peak


# A client of the caller's


def of_the_callers(door: str, kind: str) -> Any:
    if kind == "transport":
        return httpx.HTTPTransport() if door == "blocking" else httpx.AsyncHTTPTransport()
    return (httpx.Client if door == "blocking" else httpx.AsyncClient)(trust_env=False)


@contextmanager
def working_by_own(call: Doors, kind: str, offer: Offer) -> Iterator[Worker]:
    client = of_the_callers(call.name, kind)
    blocking = call.name == "blocking"
    with working(call, offer, **{f"{'' if blocking else 'async_'}http_client": client}) as worker:
        try:
            yield worker
        finally:
            if blocking:
                client.close()
            else:
                assert call._runner is not None
                call._runner.run(client.aclose())


@pytest.mark.parametrize("what", LIMITED)
def test_through_a_client_of_the_callers_the_limits_are_the_same(call: Doors, what: str) -> None:
    with working_by_own(call, "client", LIMITED[what]) as worker:
        error = worker.fails("video_generation", timeout=PLENTY)

        assert_ended(error, "video_generation", results=LIMIT)
        assert worker.peak < LIMITED[what].peak


@pytest.mark.parametrize("what", ["JSON without end", "headers without end"])
def test_through_a_transport_of_the_callers_too(call: Doors, what: str) -> None:
    with working_by_own(call, "transport", LIMITED[what]) as worker:
        error = worker.fails("video_generation", timeout=PLENTY)

        assert_ended(error, "video_generation", results=LIMIT)
        assert worker.peak < LIMITED[what].peak


@pytest.mark.parametrize("kind", ["client", "transport"])
@pytest.mark.parametrize("what", PACKED)
def test_through_a_client_of_the_callers_what_is_packed_is_bounded_too(
    call: Doors, kind: str, what: str
) -> None:
    with working_by_own(call, kind, PACKED[what]) as worker:
        error = worker.fails("video_generation", timeout=PATIENCE)

        assert_ended(error, "video_generation", results=LIMIT | TIME)
        assert worker.peak < PACKED[what].peak


@pytest.mark.parametrize("what", ["a dripping body", "terabytes announced and none sent"])
def test_through_a_client_of_the_callers_a_body_has_the_same_time(call: Doors, what: str) -> None:
    with working_by_own(call, "client", TIMES[what]) as worker:
        assert worker.serves()
        error = worker.fails("video_generation", timeout=PATIENCE)

        assert_ended(error, "video_generation", results=TIME)
        assert worker.peak < SMALL


# A blocking one's connections are not ours: there, all that is no byte of the body (heads, and the
# sizes of chunks) is bounded between bytes only, as the README says.
NO_BODY = ("a dripping status line", "interim answers without end", "a dripping chunk size")


@pytest.mark.parametrize("call", ["async"], indirect=True)
@pytest.mark.parametrize("what", NO_BODY)
def test_through_an_async_client_of_the_callers_all_has_the_same_time(
    call: Doors, what: str
) -> None:
    with working_by_own(call, "client", DRIPPING[what]) as worker:
        assert worker.serves()
        error = worker.fails("video_generation", timeout=PATIENCE)

        assert_ended(error, "video_generation", results=TIME)
        assert worker.peak < SMALL
