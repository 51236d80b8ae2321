"""Downloads: where the bytes go, and what a missing video means.

A path appears only when the file is complete: the bytes go to a neighbour of it first. A download
that breaks off is a read like any other and may be made again; each sink knows how to start over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, cast

from router._doors import Door
from router.engine import Engine
from router.errors import (
    BadRequestError,
    InvalidResponseError,
    NotFoundError,
    RouterError,
    VideoExpiredError,
    VideoNotReadyError,
)
from router.operations import Call
from router.reporting import job_failed
from router.transport import Sink, SinkFailed
from router.trip import Side
from router.types import AsyncWritable, Content, Operation, Routing, Video

__all__ = ["download"]

# What fits into memory without doubt; larger files want `to=`.
LARGEST_IN_MEMORY = 1 << 30


async def download(engine: Engine, call: Call[Content], side: Side) -> Content | Path:
    """The bytes of a video, or where they were written.

    Raises `VideoNotReadyError`, `VideoExpiredError` or `JobFailedError` where a 404 means that.
    """
    until = engine.clock.monotonic() + engine.patience(call)
    async with _target(call.to, side.door) as target:
        try:
            answer: Any = await engine.run(call, side, sink=target)
        except NotFoundError as error:
            left = max(until - engine.clock.monotonic(), 0.001)
            raise await _meaning(engine, call, side, error, left) from error
        except SinkFailed as failure:
            raise failure.__cause__ or failure from None
        return await target.result(answer.routing)


async def _meaning(
    engine: Engine, call: Call[Content], side: Side, missing: NotFoundError, left: float
) -> RouterError:
    """What a 404 or 410 says of a video: the same words serve for too early, too late and never."""
    facts = {name: getattr(missing, name) for name in _FACTS}
    if missing.status == 410:
        return VideoExpiredError("the video is no longer kept", **facts)
    ask = dataclasses.replace(
        call, operation=Operation.STATUS, to=None, extra_query=None, deadline=left
    )
    try:
        video: Any = await engine.run(ask, side)
    except RouterError:
        return missing
    assert isinstance(video, Video)
    if video.done or video.status == "expired":
        return VideoExpiredError("the video was made, and is no longer kept", **facts)
    if video.failed:
        return job_failed(video, **facts)
    wait = video.routing.poll_after if video.routing else None
    return VideoNotReadyError(f"the job is {video.status}", retry_after=wait or 5.0, **facts)


_FACTS = (
    "deployment",
    "account",
    "operation",
    "attempts",
    "status",
    "code",
    "request_id",
    "metadata",
)


class Target(Sink, Protocol):
    """A sink that knows what to return in the end."""

    async def result(self, routing: Routing | None) -> Content | Path: ...


@contextlib.asynccontextmanager
async def _target(
    to: str | os.PathLike[str] | IO[bytes] | AsyncWritable | None, door: Door
) -> AsyncIterator[Target]:
    if to is None:
        yield _Memory()
    elif isinstance(to, (str, os.PathLike)):
        target = _File(Path(to), door)
        await door.offload(target.check)
        try:
            yield target
        finally:
            await door.offload(target.discard)
    elif isinstance(to, io.TextIOBase):
        raise BadRequestError("`to` is opened as text; open it in binary mode ('wb')")
    elif inspect.iscoroutinefunction(getattr(to, "write", None)):
        yield _Awaited(to, door)
    elif callable(getattr(to, "write", None)):
        yield _Writable(cast("IO[bytes]", to), door)  # or a duck of one
    else:
        raise BadRequestError("`to` is a path or a writable binary file")


class _Memory:
    def __init__(self) -> None:
        self._data = bytearray()
        self._type: str | None = None

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._data.clear()
        self._type = headers.get("content-type")

    async def write(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > LARGEST_IN_MEMORY:
            raise InvalidResponseError("more than 1 GiB of video; download it with `to=`")

    async def result(self, routing: Routing | None) -> Content:
        content = Content(self._data)
        content.content_type, content.routing = self._type, routing
        return content


class _File:
    """A path, written beside itself until it is whole."""

    def __init__(self, path: Path, door: Door) -> None:
        self._path, self._door = path, door
        # Behind a link it is the link's target that is made anew.
        self._target = self._part = Path(os.path.realpath(path)) if "\0" not in str(path) else path
        self._file: Any = None

    def check(self) -> None:
        target = self._target
        if "\0" in str(target) or target.is_dir() or not target.parent.is_dir():
            raise BadRequestError(f"cannot write to {self._path.name!r}: not a file in a folder")
        if target.exists() and not target.is_file():
            # The finished file would take its place.
            what = "a device or a pipe; open it, and give the file"
            raise BadRequestError(f"cannot write to {self._path.name!r}: {what}")

    async def begin(self, headers: Mapping[str, str]) -> None:
        await self._door.offload(self._open)

    def _open(self) -> None:
        self.discard()
        self._part = self._target.with_name(f".{secrets.token_hex(8)}.part")
        # Made by its mode, so that the process's umask holds; a temporary file is its owner's only.
        fd = os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        self._file = os.fdopen(fd, "wb")

    async def write(self, chunk: bytes) -> None:
        await self._door.offload(self._file.write, chunk)

    async def result(self, routing: Routing | None) -> Path:
        await self._door.offload(self._appear)
        return self._path

    def _appear(self) -> None:
        self._file.close()
        os.replace(self._part, self._target)
        self._file = None

    def discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # A full disk may refuse the last bytes at closing, and has said so before.
            with contextlib.suppress(OSError):
                file.close()
            os.unlink(self._part)


class _Writable:
    """A file of the caller's, which cannot be taken back: a second start skips what it has."""

    def __init__(self, file: IO[bytes], door: Door) -> None:
        self._file, self._door = file, door
        self._written = 0
        self._skip = 0

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._skip = self._written

    async def write(self, chunk: bytes) -> None:
        fresh = chunk[self._skip :]
        self._skip -= min(self._skip, len(chunk))
        await self._door.offload(self._write_all, fresh)

    def _write_all(self, data: bytes) -> None:
        # An unbuffered file may take a part only, and says so; a duck of a file may say nothing.
        raw = isinstance(self._file, io.RawIOBase)
        while data:
            taken: object = self._file.write(data)
            taken = len(data) if taken is None and not raw else taken
            if not isinstance(taken, int) or taken <= 0:
                raise OSError(f"the file took nothing of the video: its write returned {taken!r}")
            self._written += taken
            data = data[taken:]

    async def result(self, routing: Routing | None) -> Path:
        return Path(str(getattr(self._file, "name", "")))


class _Awaited:
    """An object whose `write` is awaited: the download goes on when it has taken a chunk.

    Where it has a `begin`, that is awaited before, with the headers of the provider's answer. What
    it has it keeps, so a second start skips that.
    """

    def __init__(self, taker: Any, door: Door) -> None:
        self._taker, self._door = taker, door
        self._written = 0
        self._skip = 0

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._skip = self._written
        if inspect.iscoroutinefunction(getattr(self._taker, "begin", None)):
            await self._door.foreign(self._taker.begin(headers))

    async def write(self, chunk: bytes) -> None:
        fresh = chunk[self._skip :]
        self._skip -= min(self._skip, len(chunk))
        if fresh:
            await self._door.foreign(self._taker.write(fresh))
            self._written += len(fresh)

    async def result(self, routing: Routing | None) -> Path:
        return Path(str(getattr(self._taker, "name", "")))
