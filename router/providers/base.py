"""What a provider is to the rest: pure functions between our words and its wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from router.config import Deployment
from router.ids import is_usable
from router.messages import ErrorBody, InvalidBody, Reply, Request
from router.operations import Call, Upload
from router.types import Answer, Operation

__all__ = ["Bound", "Provider", "read_answer", "read_error"]

AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True, slots=True, repr=False)
class Bound:
    """A call bound to the deployment that serves it.

    `natives` are the native ids of what the call names, in the caller's order; for a listing, the
    id after which it goes on. `upload` is the call's file, opened.
    """

    call: Call[Any]
    deployment: Deployment
    natives: tuple[str, ...] = ()
    upload: Upload | None = None

    @property
    def native(self) -> str:
        return self.natives[0]


class Provider(Protocol):
    """One wire. All methods are pure; they raise only errors of the tree, or `InvalidBody`."""

    @property
    def dialect(self) -> str: ...

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be asked of it; the rest is an `UnsupportedOperationError` when called."""

    def headers(self, deployment: Deployment) -> dict[str, str]:
        """What identifies the caller, and what every request carries."""

    def request(self, bound: Bound) -> Request:
        """The exchange that a call needs, without `headers`."""

    def answer(self, bound: Bound, reply: Reply) -> Answer | Request:
        """What a 2xx says, with native ids; or the next exchange that the call needs."""

    def error(self, reply: Reply) -> ErrorBody:
        """What any other status says."""


def read_error(reply: Reply) -> Any:
    """The JSON of an error's body, or its text where it is none."""
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return reply.body.decode("utf-8", "replace").strip()


def read_answer(model: type[AnswerT], data: Mapping[str, Any]) -> AnswerT:
    """`data` as an answer; raises `InvalidBody` where it lacks what makes it one."""
    try:
        answer = model.tolerant(data)
    except ValidationError as exc:
        fields = ", ".join(sorted({str(e["loc"][0]) for e in exc.errors() if e["loc"]}))
        raise InvalidBody(f"the answer lacks a usable {fields or 'body'}") from exc
    if not is_usable(str(getattr(answer, "id", "-"))):
        raise InvalidBody("the answer's id is none that could be asked for again")
    return answer
