"""Downloads: whole or not at all, and what a missing video means."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from outcome_parts import (
    CLIP,
    URL,
    Passing,
    Pieces,
    by_transport,
    ejected,
    fleet,
    in_process,
    made_video,
    requests_for,
    seeded,
)

from router import Router, errors
from router.testing import StandIn

TARGETS = ["memory", "path", "text path", "writable", "file"]


class Target:
    """One of the places a download can go to, and what has arrived there."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "video.mp4"
        self.file: Any = None
        if kind == "writable":
            self.file = io.BytesIO()
        elif kind == "file":
            self.file = self.path.open("wb")

    @property
    def to(self) -> Any:
        return {
            "memory": None,
            "path": self.path,
            "text path": str(self.path),
            "writable": self.file,
            "file": self.file,
        }[self.kind]

    def arrived(self, returned: Any) -> bytes:
        if self.kind == "memory":
            return bytes(returned)
        if self.kind == "writable":
            return bytes(self.file.getvalue())
        if self.kind == "file":
            self.file.close()
        assert returned == self.path
        return self.path.read_bytes()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    target = Target(request.param, tmp_path)
    yield target
    target.close()


def test_a_download_arrives_whole(call: Any, provider: StandIn, clock: Any, target: Target) -> None:
    video = made_video(provider)

    returned = call(seeded(provider, clock), "video_content", video, to=target.to)

    assert target.arrived(returned) == CLIP


BROKEN = {
    "cut": ("truncated", {}),
    "reset half way": ("reset_mid_body", {}),
    "reset before": ("reset", {}),
    "reset instead": ("reset", {"after": True}),
    "failed": ("status", {"status": 502}),
    "redirected": ("redirect", {"location": "http://elsewhere"}),
    "a portal's page": ("garbage", {}),
    "an answer to something else": ("wrong_types", {}),
    "nothing at all": ("empty", {}),
}


@pytest.mark.parametrize(("kind", "details"), BROKEN.values(), ids=BROKEN)
def test_a_download_that_breaks_off_is_made_again_and_arrives_whole(
    call: Any,
    provider: StandIn,
    clock: Any,
    target: Target,
    kind: str,
    details: dict[str, Any],
) -> None:
    video = made_video(provider)
    provider.fault(kind, operation="content", times=2, **details)

    returned = call(seeded(provider, clock), "video_content", video, to=target.to)

    assert target.arrived(returned) == CLIP
    assert len(requests_for(provider, "content")) == 3


def test_a_download_that_breaks_off_on_a_socket_arrives_whole_too(
    call: Any, server: StandIn, clock: Any, target: Target
) -> None:
    video = made_video(server)
    server.fault("truncated", operation="content")
    server.fault("reset_mid_body", operation="content")
    router = Router.from_dict(fleet(server.base_url), environ={}, clock=clock)

    returned = call(router, "video_content", video, to=target.to)

    assert target.arrived(returned) == CLIP
    call.close(router)


def test_pieces_of_any_size_make_no_difference_to_a_second_start(
    call: Any, provider: StandIn, clock: Any, target: Target
) -> None:
    """What a writable was given cannot be taken back; a second start skips it."""
    video = made_video(provider)
    starts = [
        (CLIP[:10], CLIP[10:70_000], httpx.ReadError("reset")),
        (CLIP[:3], httpx.ReadError("reset")),
        tuple(CLIP[start : start + 7001] for start in range(0, len(CLIP), 7001)),
    ]

    class Uneven(Passing):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Pieces(*starts.pop(0)))

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Pieces(*starts.pop(0)))

    router = by_transport(Uneven(provider), clock)

    assert target.arrived(call(router, "video_content", video, to=target.to)) == CLIP


def test_a_path_appears_only_when_it_is_complete(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    video = made_video(provider)
    path = tmp_path / "video.mp4"
    seen: list[bool] = []

    class Watching(Passing):
        def _watched(self, response: httpx.Response) -> httpx.Response:
            class Body(Pieces):
                def __iter__(self) -> Any:
                    for start in range(0, len(CLIP), 20_000):
                        seen.append(path.exists())
                        yield CLIP[start : start + 20_000]

            return httpx.Response(response.status_code, stream=Body())

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return self._watched(super().handle_request(request))

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return self._watched(await super().handle_async_request(request))

    returned = call(by_transport(Watching(provider), clock), "video_content", video, to=path)

    assert seen == [False] * -(-len(CLIP) // 20_000)
    assert returned == path
    assert path.read_bytes() == CLIP
    assert list(tmp_path.iterdir()) == [path]


def test_a_download_that_never_arrives_leaves_nothing_behind(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    video = made_video(provider)
    provider.fault("truncated", operation="content", times=None)

    with pytest.raises(errors.InvalidResponseError):
        call(seeded(provider, clock), "video_content", video, to=tmp_path / "video.mp4")

    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_until_the_new_one_is_complete(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    video = made_video(provider)
    path = tmp_path / "video.mp4"
    path.write_bytes(b"the old one")
    router = seeded(provider, clock)
    fault = provider.fault("truncated", operation="content", times=None)
    with pytest.raises(errors.InvalidResponseError):
        call(router, "video_content", video, to=path)
    assert path.read_bytes() == b"the old one"

    fault.cancel()
    call(router, "video_content", video, to=path)
    assert path.read_bytes() == CLIP
    assert list(tmp_path.iterdir()) == [path]


def test_a_downloaded_file_has_the_usual_mode(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    ordinary, path = tmp_path / "ordinary", tmp_path / "video.mp4"
    ordinary.touch()

    call(seeded(provider, clock), "video_content", made_video(provider), to=path)

    assert path.stat().st_mode == ordinary.stat().st_mode


# Places that will not take it


class Full:
    """A disk with room for a little."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return len(data)


def test_a_full_disk_is_its_own_error_and_nobody_elses_fault(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    router = seeded(provider, clock, fleet(URL, "east"))

    for _ in range(4):
        with pytest.raises(OSError, match="No space left"):
            call(router, "video_content", video, to=Full())

    assert len(requests_for(provider, "content")) == 4  # and no attempt is made again
    assert ejected(router) == {}
    assert router.statistics()["east-1"]["in_flight"] == 0
    assert call(router, "video_content", video) == CLIP


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_truly_full_device_is_one_too(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    router = seeded(provider, clock)

    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left"),
    ):
        call(router, "video_content", video, to=full)

    assert ejected(router) == {}


@pytest.mark.parametrize(
    "error", [httpx.ReadError("not ours"), TimeoutError("theirs"), ValueError("closed file")]
)
def test_a_writers_error_of_any_kind_is_the_writers(
    call: Any, provider: StandIn, clock: Any, error: Exception
) -> None:
    class Failing:
        def write(self, data: bytes) -> int:
            raise error

    router = seeded(provider, clock)

    with pytest.raises(type(error)) as caught:
        call(router, "video_content", made_video(provider), to=Failing())

    assert caught.value.args == error.args
    assert len(requests_for(provider, "content")) == 1
    assert ejected(router) == {}


def test_a_writer_that_takes_a_little_at_a_time_gets_all(
    call: Any, provider: StandIn, clock: Any
) -> None:
    """Raw files may take less than they are given, and say so."""

    class Sipping(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> int:
            self.data += bytes(data[:9999])
            return min(len(data), 9999)

    sipping = Sipping()

    call(seeded(provider, clock), "video_content", made_video(provider), to=sipping)

    assert sipping.data == CLIP


@pytest.mark.skipif(not Path("/proc").exists(), reason="a folder of Linux that takes no files")
def test_a_folder_that_may_not_be_written_is_said_so(
    call: Any, provider: StandIn, clock: Any
) -> None:
    router = seeded(provider, clock)

    with pytest.raises(OSError, match=r"No such file|ermission"):
        call(router, "video_content", made_video(provider), to="/proc/video.mp4")

    assert ejected(router) == {}


# What a missing video means


def status_says(provider: StandIn, clock: Any, **fate: Any) -> tuple[Router, str]:
    router = seeded(provider, clock)
    if fate:
        provider.fault(fate.pop("kind"), **fate)
    return router, router.video_generation(prompt="a cat", account="east").id


NOT_FOUND = {"status": 404, "body": {"error": {"message": "Not found.", "code": None}}}


def test_a_video_that_is_running_is_not_ready(call: Any, clock: Any) -> None:
    provider = StandIn(
        accounts={"sk-east": "east"}, job_seconds=100, poll_after_ms=7000, clock=clock
    )
    router = seeded(provider, clock, fleet(URL, "east"))
    video = call(router, "video_generation", prompt="a cat")

    with pytest.raises(errors.VideoNotReadyError) as caught:
        call(router, "video_content", video.id)
    assert caught.value.retry_after > 0

    provider.fault("status", operation="content", times=4, **NOT_FOUND)
    for _ in range(4):
        with pytest.raises(errors.VideoNotReadyError) as plain:
            call(router, "video_content", video.id)
    assert plain.value.retry_after == 7.0
    assert plain.value.status == 404
    assert ejected(router) == {}

    clock.advance(100)
    assert call(router, "video_content", video.id) == CLIP


def test_a_video_that_was_made_and_is_gone_has_expired(call: Any, clock: Any) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, clock=clock)
    router = seeded(provider, clock, fleet(URL, "east"))
    video = call(router, "video_generation", prompt="a cat")
    clock.advance(4_000)

    for _ in range(4):
        with pytest.raises(errors.VideoExpiredError) as caught:
            call(router, "video_content", video.id)

    assert caught.value.status == 404
    assert caught.value.account == "east"
    assert ejected(router) == {}


def test_a_410_has_expired_and_nobody_is_asked(call: Any, provider: StandIn, clock: Any) -> None:
    video = made_video(provider)
    provider.fault("status", operation="content", times=4, status=410)
    router = seeded(provider, clock)

    for _ in range(4):
        with pytest.raises(errors.VideoExpiredError) as caught:
            call(router, "video_content", video)

    assert caught.value.status == 410
    assert requests_for(provider, "status") == []
    assert ejected(router) == {}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_video_whose_job_failed_says_why(
    call: Any, provider: StandIn, clock: Any, status: str
) -> None:
    router, video = status_says(
        provider,
        clock,
        kind="job_fails",
        code="moderation_blocked",
        message="It was blocked.",
        status=status,
    )
    provider.fault("status", operation="content", **NOT_FOUND)

    with pytest.raises(errors.JobFailedError) as caught:
        call(router, "video_content", video)

    assert caught.value.code == "moderation_blocked"
    assert "It was blocked." in str(caught.value)
    assert caught.value.video_id == video


def test_a_video_that_nobody_knows_is_not_found(
    call: Any, provider: StandIn, clock: Any, tmp_path: Path
) -> None:
    router = seeded(provider, clock)

    with pytest.raises(errors.NotFoundError) as caught:
        call(router, "video_content", "video_0", account="east", to=tmp_path / "video.mp4")

    assert caught.value.status == 404
    assert list(tmp_path.iterdir()) == []
    assert ejected(router) == {}


def test_when_nobody_can_say_what_a_404_means_it_stays_one(
    call: Any, provider: StandIn, clock: Any
) -> None:
    video = made_video(provider)
    provider.fault("status", operation="content", **NOT_FOUND)
    provider.fault("status", operation="status", times=None, status=500)

    with pytest.raises(errors.NotFoundError):
        call(seeded(provider, clock), "video_content", video)


@pytest.mark.parametrize(
    ("variant", "content_type"),
    [("video", "video/mp4"), ("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")],
)
def test_content_says_what_it_is(
    call: Any, provider: StandIn, variant: str, content_type: str
) -> None:
    content = call(in_process(provider), "video_content", made_video(provider), variant=variant)

    assert content.content_type == content_type
    assert content.routing.deployment == "east-1"
    assert len(content) > 0
    assert len(repr(content)) < 60


def test_behind_a_link_the_file_is_made_and_the_link_stays(
    call: Any, provider: StandIn, tmp_path: Path
) -> None:
    router = in_process(provider)
    video = made_video(provider)
    (tmp_path / "behind.mp4").write_bytes(b"old")
    link = tmp_path / "link.mp4"
    link.symlink_to("behind.mp4")
    assert call(router, "video_content", video, to=link) == link
    assert link.is_symlink()
    assert (tmp_path / "behind.mp4").read_bytes() == CLIP
    assert {path.name for path in tmp_path.iterdir()} == {"behind.mp4", "link.mp4"}


def test_a_pipe_or_a_device_is_not_replaced(call: Any, provider: StandIn, tmp_path: Path) -> None:
    router = in_process(provider)
    video = made_video(provider)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = len(provider.requests)
    with pytest.raises(errors.BadRequestError, match="a device or a pipe"):
        call(router, "video_content", video, to=pipe)
    assert pipe.is_fifo()
    assert len(provider.requests) == before
