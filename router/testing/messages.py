"""What crosses the wire, as plain values: the head of a request, its decoded body, and an answer.

Nothing here knows sockets or httpx, so the listener and the in-process transport speak to one and
the same provider.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

__all__ = ["Answer", "Body", "Head", "Refusal", "Upload", "joined", "json_answer"]


@dataclass(frozen=True)
class Head:
    """A request before its body was read: all that routing, keys and faults are decided by."""

    method: str
    target: str
    """Path and query as they were sent: an id may hold an encoded slash, so nothing is decoded."""
    headers: Mapping[str, str]
    """As `joined()` makes them."""
    origin: str
    """Scheme and host the client spoke to, for answers that contain links."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, each decoded after the split."""
        return tuple(unquote(part) for part in self.path.strip("/").split("/"))

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers as one mapping: names in lower case, repeated ones joined by a comma."""
    mapping: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        mapping[name] = f"{mapping[name]}, {value}" if name in mapping else value
    return mapping


@dataclass(frozen=True)
class Upload:
    """One file part of a multipart body."""

    field: str
    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True)
class Body:
    """A decoded request body, whatever its encoding was."""

    fields: dict[str, Any] = field(default_factory=dict)
    uploads: tuple[Upload, ...] = ()
    problem: str | None = None
    """Why the body could not be decoded; whether that matters is for the operation to say."""

    def upload(self, name: str) -> Upload | None:
        return next((upload for upload in self.uploads if upload.field == name), None)


@dataclass(frozen=True)
class Answer:
    """A complete answer, before any fault lays hands on it."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(status: int, data: object, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(data, separators=(",", ":")).encode()
    return Answer(status, body, "application/json", headers or {})


class Refusal(Exception):  # noqa: N818  # it is an answer, not a failure of the stand-in
    """A request that is answered with an error; each dialect words it in its own way."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers or {}
