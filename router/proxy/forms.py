"""Bodies as they arrive: JSON, forms with files, plain forms; bounded in size, depth and time.

A file goes to disk while it arrives, so that one of any size is taken in constant memory; all else
is small, and held to it. Names in forms are nested as the official clients nest them:

    video[id]=a                 {"video": {"id": "a"}}
    characters[][id]=a          {"characters": [{"id": "a"}, …]}, in the order of the form
    characters[0][id]=a         the same, by number
    target_model_names[]=a      {"target_model_names": ["a", …]}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeAlias, cast
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from router.proxy.answers import Refusal
from router.proxy_settings import ProxySettings

__all__ = ["Fields", "Part", "json_in", "nested", "received"]

LARGEST_TEXT = 32 << 20
"""Bytes of a JSON body, or of all fields of a form: an image as a data URL may have 20 MiB."""
LARGEST_ENCODED = 4 << 20
"""Bytes of a form without files: percent-encoding takes thirty times its size to undo."""
DEEPEST = 32
MOST_VALUES = 100_000
"""Values in a JSON body: so many are read in the blink for which all other calls may wait."""
MOST_PARTS = 1000
MOST_FILES = 4
"""Files of a form. No operation takes more than one, and each is an open file here."""
MOST_OPTIONS = 300
"""Semicolons in a part's head, of which a filename may have some: to read them takes a square."""
LEAST_RATE = 8 << 10
"""Bytes a second that a body comes at, on the whole, once `body_timeout` is over."""
_WRITTEN_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a form, whole, and at its start. The name is the client's: a name, and no path."""

    filename: str
    file: IO[bytes]


Fields: TypeAlias = Mapping[str, Any]
"""A body's fields: values as JSON has them, and files."""


@contextlib.asynccontextmanager
async def received(request: Request, settings: ProxySettings) -> AsyncIterator[Fields]:
    """The fields of a request's body. Its files are there until the end of the context.

    Raises `Refusal`: 400 for what cannot be read, 408, 413 or 415.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "a body is sent as it is", code="unsupported_content_encoding")
    kind, options = parse_options_header(request.headers.get("content-type"))
    body = _arriving(request, settings)
    if kind == b"multipart/form-data":
        with contextlib.ExitStack() as files:
            yield await _form(body, options.get(b"boundary", b""), files)
    elif kind == b"application/json":
        text = _text(await _whole(body))
        yield _fields_in(text) if text.strip() else {}
    elif kind == b"application/x-www-form-urlencoded":
        yield nested(_pairs(_text(await _whole(body, LARGEST_ENCODED))))
    else:
        if not kind and not await _whole(body):
            yield {}
            return
        raise Refusal(
            415,
            "a body is application/json or multipart/form-data",
            code="unsupported_media_type",
        )


# Bytes ------------------------------------------------------------------------------------------


async def _arriving(request: Request, settings: ProxySettings) -> AsyncIterator[bytes]:
    """The body's chunks, as long as it is neither too large nor too slow."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > settings.max_body:
        raise _too_large(settings.max_body)
    loop = asyncio.get_running_loop()
    started, came = loop.time(), 0
    while True:
        due = started + settings.body_timeout + came / LEAST_RATE
        due = min(due, loop.time() + settings.body_timeout)
        try:
            async with asyncio.timeout_at(due):
                message = await request.receive()
        except TimeoutError:
            raise Refusal(
                408, "the body comes too slowly", code="timeout", headers={"connection": "close"}
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        came += len(chunk)
        if came > settings.max_body:
            raise _too_large(settings.max_body)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


async def _whole(body: AsyncIterator[bytes], most: int = LARGEST_TEXT) -> bytes:
    found = bytearray()
    async for chunk in body:
        found += chunk
        if len(found) > most:
            raise _too_large(most)
    return bytes(found)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body has more than {most} bytes", code="too_large")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _unreadable("the body is not UTF-8") from None


def _unreadable(why: str, param: str | None = None) -> Refusal:
    return Refusal(400, why, code="invalid_body", param=param)


# JSON -------------------------------------------------------------------------------------------


def _fields_in(text: str) -> Fields:
    fields = json_in(text)
    if not isinstance(fields, dict):
        raise _unreadable("the body is JSON, but not an object")
    return cast("Fields", fields)


def json_in(text: str, param: str | None = None) -> Any:
    """The value in a text from outside; raises `Refusal`, 400, where it is none, or an odd one.

    A key that stands twice is two different calls to two readers; what is no number, or half a
    character, could not be sent on.
    """
    # Not exact, since texts may hold these too; but texts of a hundred thousand commas are none.
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise _unreadable(f"this is JSON of more than {MOST_VALUES} values", param)
    try:
        value = json.loads(
            text, object_pairs_hook=_distinct, parse_constant=_no_number, parse_float=_finite
        )
        text.encode()
        _check_depth(value)
    except (ValueError, RecursionError) as exc:
        why = str(exc) if isinstance(exc, _OddError) else "it cannot be read"
        raise _unreadable(f"this is no JSON that can be taken: {why}", param) from None
    return value


class _OddError(ValueError):
    """JSON that has more than one meaning, or none."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _OddError("a key stands twice")
    return found


def _no_number(name: str) -> float:
    raise _OddError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _OddError("a number is too large")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        for text in _texts(level):
            if not text.isascii():
                text.encode()  # raises for half a character
        level = [inner for one in level for inner in _within(one)]
        if not level:
            return
    raise _OddError(f"it is more than {DEEPEST} deep")


def _texts(level: Iterable[Any]) -> Iterable[str]:
    for one in level:
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# Forms ------------------------------------------------------------------------------------------


def _pairs(text: str) -> list[tuple[str, Any]]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARTS, errors="strict")
    except ValueError:
        raise _unreadable("the form cannot be read") from None
    return [(name, value) for name, value in pairs]


async def _form(body: AsyncIterator[bytes], boundary: bytes, files: contextlib.ExitStack) -> Fields:
    if not boundary:
        raise _unreadable("the form has no boundary")
    form = _Form(files)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in body:
            parser.write(chunk)
            await form.settle()
    except FormParserError:
        raise _unreadable("the form cannot be read") from None
    if not form.ended:
        raise _unreadable("the form has no end")
    await form.settle(whole=True)
    return nested(form.pairs)


class _Form:
    """A form that is being read. The parser calls from within `write`; files are written after."""

    def __init__(self, files: contextlib.ExitStack) -> None:
        self.pairs: list[tuple[str, Any]] = []
        self.ended = False
        self._files = files
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None
        self._texts = 0
        self._due: list[tuple[IO[bytes], bytes]] = []
        self._waiting = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headed,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    async def settle(self, *, whole: bool = False) -> None:
        """Write what has come of files; at last all of it, and back to their starts."""
        if self._waiting < _WRITTEN_AT_ONCE and not whole:
            return
        due, self._due, self._waiting = self._due, [], 0
        files = [value.file for _, value in self.pairs if isinstance(value, Part)] if whole else []
        if not due and not files:
            return
        try:
            await asyncio.to_thread(_write, due, files)
        except OSError:
            raise _no_room() from None

    def _begin(self) -> None:
        if len(self.pairs) >= MOST_PARTS:
            raise _unreadable(f"a form has {MOST_PARTS} parts at most")
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = map(bytes, self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (bytearray(), bytearray())

    def _headed(self) -> None:
        if self._disposition.count(b";") > MOST_OPTIONS:
            raise _unreadable("a part of the form has an odd head")
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise _unreadable("a part of the form has no name")
        self._name = _text(options[b"name"])
        if b"filename" not in options:
            self._text = bytearray()
            return
        self._text = None
        name = options[b"filename"].decode("utf-8", "replace")
        self.pairs.append((self._name, Part(name, self._file())))

    def _file(self) -> IO[bytes]:
        if sum(isinstance(value, Part) for _, value in self.pairs) == MOST_FILES:
            raise _unreadable(f"a form has {MOST_FILES} files at most")
        try:
            return self._files.enter_context(tempfile.TemporaryFile())
        except OSError:
            raise _no_room() from None

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._text is None:
            self._due.append((self.pairs[-1][1].file, piece))
            self._waiting += len(piece)
            return
        self._text += piece
        self._texts += len(piece)
        if self._texts > LARGEST_TEXT:
            raise _too_large(LARGEST_TEXT)

    def _end(self) -> None:
        if self._text is not None:
            self.pairs.append((self._name, _text(bytes(self._text))))

    def _finish(self) -> None:
        self.ended = True


def _no_room() -> Refusal:
    return Refusal(503, "the file cannot be kept here", code="no_room")


def _write(due: Iterable[tuple[IO[bytes], bytes]], whole: Iterable[IO[bytes]]) -> None:
    for file, piece in due:
        file.write(piece)
    for file in whole:
        file.flush()
        file.seek(0)


# Names ------------------------------------------------------------------------------------------

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


class _Branch(dict[str, Any]):
    """A nested field while it grows: by name, or by number, which makes it a list in the end."""

    def value(self) -> Any:
        plain = {k: v.value() if isinstance(v, _Branch) else v for k, v in self.items()}
        if not all(key.isdecimal() for key in plain):
            return plain
        return [plain[key] for key in sorted(plain, key=int)]


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a form, as its names nest them; raises `Refusal` where two are in the way."""
    root = _Branch()
    for name, value in pairs:
        matched = _NAME.fullmatch(name)
        steps = re.findall(r"\[([^\[\]]*)\]", matched[2]) if matched else []
        if matched is None or len(steps) > DEEPEST // 4 or any(len(s) > 200 for s in steps):
            raise _unreadable("a field of the form has an odd name")
        if steps and isinstance(value, Part):
            raise _unreadable("a file stands by itself in a form", matched[1][:80])
        _put(root, [matched[1], *steps], value)
    return {key: v.value() if isinstance(v, _Branch) else v for key, v in root.items()}


def _put(root: _Branch, steps: list[str], value: Any) -> None:
    at: Any = root
    for place, step in enumerate(steps):
        rest = steps[place + 1 :]
        key = step or _next(at, rest)
        if not rest:
            _set(at, key, value, steps[0])
            return
        at = at.setdefault(key, _Branch())
        if not isinstance(at, _Branch):
            raise _twice(steps[0])


def _set(at: _Branch, key: str, value: Any, name: str) -> None:
    if key not in at:
        at[key] = value
        return
    # Plain names that are repeated are a list to many clients, where there may be one.
    if name != "target_model_names" or isinstance(at[key], Part) or not isinstance(value, str):
        raise _twice(name)
    if isinstance(at[key], _Branch):
        raise _twice(name)
    at[key] = f"{at[key]},{value}"


def _next(at: _Branch, rest: list[str]) -> str:
    """Where `[]` puts a value: into the entry before, as long as that lacks it, or a new one."""
    last = at.get(str(len(at) - 1))
    open_ = rest and rest[0] and isinstance(last, _Branch) and rest[0] not in last
    return str(len(at) - 1) if open_ else str(len(at))


def _twice(name: str) -> Refusal:
    return _unreadable(f"the field {name[:80]!r} stands twice", name[:80])
