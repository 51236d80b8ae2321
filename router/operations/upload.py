"""Files to send: opened once, read from where they stand, readable again from the start.

A clip may be bytes, a path, an open file, or an object whose `read` is awaited. Whatever it is, it
becomes a source of known size that any number of attempts, and of copies sent at once, read on
their own: what cannot be read twice is spooled to a temporary file first. The caller's file is
neither closed nor moved, and only the base name of a path ever leaves this machine.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import mimetypes
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

from router._doors import Door
from router.errors import BadRequestError, RouterError
from router.messages import FilePart, Source
from router.types import FileInput

__all__ = ["Upload", "opened"]

Upload = FilePart

_SPOOL_CHUNK = 1 << 18


class _Bytes:
    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        # A copy of what the caller might change while it is being sent; bytes are shared.
        self._data = data if isinstance(data, bytes) else bytes(data)
        self.size = len(self._data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class _File:
    """A regular file, read by position, so that readers do not move each other or the caller."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd, self._start = fd, start
        self.size = max(os.fstat(fd).st_size - start, 0)

    def read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, min(size, self.size - offset), self._start + offset)


@contextlib.asynccontextmanager
async def opened(
    given: FileInput | None, door: Door, left: Callable[[], float]
) -> AsyncIterator[Upload | None]:
    """`given` as an upload for the length of a call; `None` for a call that sends no file.

    `left` gives the seconds left for reading what must be spooled, and raises when there are none.
    Raises `BadRequestError`, status `None`, for a missing file, a directory, an empty clip and
    whatever is no file at all.
    """
    if given is None:
        yield None
        return
    name, content_type, file = _named(given)
    with contextlib.ExitStack() as stack:
        try:
            # A busy pool of threads keeps a file from being opened, too.
            source = await door.foreign(_source(file, door, stack, left), left())
        except TimeoutError:
            left()
            raise
        if source.size == 0:
            raise BadRequestError(f"the file {_base(name)!r} is empty")
        head = await door.offload(source.read_at, 0, 32)
        yield _described(name, content_type, head, source)


def _named(given: Any) -> tuple[str | None, str | None, Any]:
    """The name and type announced with a file, and the file. Tuples are as httpx takes them."""
    if isinstance(given, tuple):
        if not 2 <= len(given) <= 3:
            raise BadRequestError("a file as a tuple is (filename, file) or (…, content_type)")
        name, file, content_type = (*given, None)[:3]
        if not isinstance(name, str | None):
            raise BadRequestError("the filename is a string, or None")
        return name or _name_of(file), content_type, file
    return _name_of(given), getattr(given, "content_type", None), given


def _name_of(file: Any) -> str | None:
    if isinstance(file, (str, os.PathLike)):
        return os.fsdecode(file)
    named = (getattr(file, attribute, None) for attribute in ("name", "filename"))
    return next((name for name in named if isinstance(name, str)), None)


def _described(name: str | None, content_type: Any, head: bytes, source: Source) -> Upload:
    kind, suffix = _sniffed(head)
    base = _base(name) or f"upload{suffix}"
    if not isinstance(content_type, str) or content_type == "application/octet-stream":
        content_type = mimetypes.guess_type(base)[0] or kind
    if not content_type.isascii() or not content_type.isprintable():
        raise BadRequestError("the file's content type has characters that no header has")
    return FilePart(base, content_type, source)


def _base(name: str | None) -> str:
    # Both separators: a path from another system must not go out either.
    return (name or "").replace("\\", "/").rpartition("/")[2]


def _sniffed(head: bytes) -> tuple[str, str]:
    if head[4:8] == b"ftyp":
        return "video/mp4", ".mp4"
    if head.startswith(b"\x89PNG"):
        return "image/png", ".png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg", ".jpg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp", ".webp"
    return "application/octet-stream", ""


async def _source(
    file: Any, door: Door, stack: contextlib.ExitStack, left: Callable[[], float]
) -> Source:
    if isinstance(file, (bytes, bytearray, memoryview)):
        return _Bytes(file)
    if isinstance(file, (str, os.PathLike)):
        return await door.offload(_from_path, os.fspath(file), stack)
    if getattr(file, "closed", False):
        raise BadRequestError("the file is closed")
    if _is_plain_file(file):
        return await door.offload(_from_plain_file, file, stack)
    if callable(getattr(file, "read", None)):
        return await _spooled(file, door, stack, left)
    raise BadRequestError(
        f"a file is bytes, a path, an open binary file or (filename, file), not "
        f"{type(file).__name__}"
    )


def _from_path(path: str | bytes, stack: contextlib.ExitStack) -> Source:
    shown = os.path.basename(os.fsdecode(path))
    try:
        # Without O_NONBLOCK, opening a named pipe waits for its writer, maybe for ever.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "not a path"
        raise BadRequestError(f"cannot read the file {shown!r}: {reason}") from None
    stack.callback(os.close, fd)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "device or pipe (open it yourself)"
        raise BadRequestError(f"{shown!r} is a {kind}, not a file")
    return _File(fd, 0)


def _is_plain_file(file: Any) -> bool:
    # Only a file whose bytes are those behind its descriptor: an open gzip file has one too.
    raw = getattr(file, "raw", file)
    return isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO)) and (
        type(raw) is io.FileIO and file.seekable() and file.readable()
    )


def _from_plain_file(file: Any, stack: contextlib.ExitStack) -> Source:
    if isinstance(file, io.BufferedRandom):
        file.flush()
    # A descriptor of our own: where the caller closes its file, its number is soon another file's.
    fd = os.dup(file.fileno())
    stack.callback(os.close, fd)
    return _File(fd, file.tell())


async def _spooled(
    file: Any, door: Door, stack: contextlib.ExitStack, left: Callable[[], float]
) -> Source:
    """A copy of what can be read only once, or only through its own `read`."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115  (the stack closes it)
    stack.callback(spool.close)
    if inspect.iscoroutinefunction(file.read):
        while chunk := await _awaited(file, door, left):
            await door.offload(spool.write, chunk)
    else:
        await door.offload(_copy, file, spool, left)
    await door.offload(spool.flush)
    return _File(spool.fileno(), 0)


async def _awaited(file: Any, door: Door, left: Callable[[], float]) -> bytes:
    try:
        return _checked(await door.foreign(file.read(_SPOOL_CHUNK), left()))
    except (TimeoutError, RouterError):
        left()
        raise
    except Exception as exc:
        raise BadRequestError(f"cannot read the file: {exc}") from exc


def _copy(file: IO[bytes], spool: Any, left: Callable[[], float]) -> None:
    try:
        while chunk := _checked(file.read(_SPOOL_CHUNK)):
            spool.write(chunk)
            left()
    except RouterError:
        raise
    except Exception as exc:
        raise BadRequestError(f"cannot read the file: {exc}") from exc


def _checked(chunk: object) -> bytes:
    if not isinstance(chunk, bytes):
        raise BadRequestError("the file is opened as text; open it in binary mode ('rb')")
    return chunk
