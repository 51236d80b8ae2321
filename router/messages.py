"""HTTP messages as values: what a provider wants sent, and what came back.

A request is built without touching the network or a file; its body is a list of segments, some of
them bytes, some of them an opened upload that is read when the transport asks for it. So a body of
any size is sent in constant memory, and can be sent again from its start.
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from router.types import Answer

__all__ = [
    "NOTHING_SAID",
    "Body",
    "ErrorBody",
    "FilePart",
    "InvalidBody",
    "Reply",
    "Request",
    "Source",
    "flatten",
    "join_url",
    "json_body",
    "json_object",
    "multipart_body",
]


class Source(Protocol):
    """Bytes that can be read from any place, any number of times, by several readers at once."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes: ...


Segment: TypeAlias = "bytes | Source"


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries. `length` is in bytes and always known before sending."""

    content_type: str | None = None
    segments: tuple[Segment, ...] = ()
    length: int = 0

    @property
    def uploads(self) -> bool:
        return any(not isinstance(segment, bytes) for segment in self.segments)


@dataclass(slots=True, repr=False)
class Request:
    """One exchange to make. `download` streams the answer's bytes to the caller's sink.

    A call may take several, each made of what the one before it answered; all but a download go to
    the same server, with the headers of the first. A `prelude` only looks something up: the call
    proper comes after it. `pause` is how many seconds to wait before. `reader` reads what comes
    where the operation alone does not say which of the exchanges it is. With `verdict` a refusal
    may tell how a job ended, and the reader is shown it; it raises `InvalidBody` where it does not.
    A download `by_link` goes without a key to whoever has the file.

    `sent_whole` is the transport's to set: it has been given the last byte of the body. There is
    no repr of the headers: they hold the key.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = Body()
    download: bool = False
    prelude: bool = False
    pause: float = 0.0
    reader: Callable[[Reply], Answer | Request] | None = None
    verdict: bool = False
    by_link: bool = False
    sent_whole: bool = False

    def add_query(self, query: Mapping[str, Any]) -> None:
        self.url = _with_query(self.url, _written(query))

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url.partition('?')[0]}>"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Header names are lower-case; `body` is empty for a download."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_text(self) -> bool:
        """Whether it says of itself that it is for reading, as no video does."""
        kind = self.headers.get("content-type", "").lower()
        return kind.startswith(("text/", "application/json"))


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error's body says, whatever the dialect.

    `means` is the status that would have said it, where the provider's own says something else.
    `retry_after` is in seconds, for those who tell it in the body.
    """

    message: str = ""
    code: str | None = None
    type: str | None = None
    means: int | None = None
    retry_after: float | None = None

    def without(self, redact: Callable[[str], str]) -> ErrorBody:
        """The same with no secret in it, and short. Cut after: half a key is one too."""
        return replace(
            self,
            message=redact(self.message)[:1000],
            code=None if self.code is None else redact(self.code)[:200],
            type=None if self.type is None else redact(self.type)[:200],
        )

    @property
    def words(self) -> str:
        return " ".join(filter(None, (self.code, self.type, self.message))).lower()


NOTHING_SAID = ErrorBody()


class InvalidBody(ValueError):  # noqa: N818  (a signal to the outcome table, never seen by callers)
    """A successful status came with a body that is no answer."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form: the name and type to announce, and where its bytes are."""

    filename: str
    content_type: str
    source: Source


_NOT_JSON = object()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NOT_JSON


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises `InvalidBody` for anything else."""
    data = _parsed(body)
    if data is _NOT_JSON:
        # Without its cause, which would hold the whole body for as long as the error is kept.
        raise InvalidBody("the body is not JSON")
    if not isinstance(data, dict):
        raise InvalidBody("the body is JSON, but not an object")
    return data


# Made once: `json.dumps` with arguments of its own makes an encoder for each call.
_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def json_body(data: Mapping[str, Any]) -> Body:
    raw = _encoded(data).encode()
    return Body("application/json", (raw,), len(raw))


def multipart_body(fields: Mapping[str, Any], files: Mapping[str, FilePart]) -> Body:
    """A form (RFC 7578). Nested fields use brackets, as the official clients write them."""
    boundary = secrets.token_hex(16)
    segments: list[Segment] = []
    for name, value in flatten(fields):
        segments.append(f"{_part(boundary, name)}\r\n\r\n{value}\r\n".encode())
    for name, part in files.items():
        head = (
            f'{_part(boundary, name)}; filename="{_escape(part.filename)}"'
            f"\r\nContent-Type: {part.content_type}\r\n\r\n"
        )
        segments += [head.encode(), part.source, b"\r\n"]
    segments.append(f"--{boundary}--\r\n".encode())
    length = sum(len(s) if isinstance(s, bytes) else s.size for s in segments)
    return Body(f"multipart/form-data; boundary={boundary}", tuple(segments), length)


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Form fields of nested values: `a[b]=…` for mappings, `a[]=…` for sequences."""
    for key, value in fields.items():
        yield from _flatten(f"{prefix}[{key}]" if prefix else str(key), value)


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        yield from flatten(value, name)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _flatten(f"{name}[]", item)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif value is not None:
        yield name, str(value)


def _part(boundary: str, name: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{_escape(name)}"'


def _escape(text: str) -> str:
    # The HTML standard's rule for names in forms; nothing else may end the quoted string.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def join_url(
    base: str, *path: str, query: Mapping[str, Any] | None = None, bare_root: str = ""
) -> str:
    """`base` with percent-encoded path segments; a query of the base stays a query.

    `bare_root` is the path of a base that has none.
    """
    start, kept = _start_of(base, bare_root)
    url = start + "".join([f"/{quote(segment, safe='')}" for segment in path])
    return _with_query(_with_query(url, kept), _written(query) if query else "")


def _written(query: Mapping[str, Any]) -> str:
    return urlencode([(k, v) for k, v in query.items() if v is not None], doseq=True)


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


@functools.lru_cache(1024)  # bases are configured, so they are few
def _start_of(base: str, bare_root: str) -> tuple[str, str]:
    scheme, host, root, kept, _ = urlsplit(base)
    return urlunsplit((scheme, host, root.rstrip("/") or bare_root, "", "")), kept
