"""What a provider is to the rest: pure functions between our words and its wire."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from router.config import Deployment
from router.ids import is_usable
from router.messages import ErrorBody, InvalidBody, Reply, Request
from router.operations import Call, Upload
from router.types import Answer, Operation, Video

__all__ = [
    "OPTIONAL",
    "Bound",
    "Lack",
    "Provider",
    "identity",
    "no_variants",
    "read_answer",
    "read_error",
    "text_or_none",
    "usual_lacks",
    "without",
]

AnswerT = TypeVar("AnswerT", bound=Answer)
CallT = TypeVar("CallT", bound=Call[Any])

OPTIONAL: Mapping[Operation, frozenset[str]] = MappingProxyType(
    {
        Operation.CREATE_CHARACTER: frozenset(),
        Operation.GENERATION: frozenset({"seconds", "size", "input_reference", "characters"}),
        Operation.EDIT: frozenset({"video"}),
        Operation.EXTENSION: frozenset({"seconds", "video"}),
        Operation.REMIX: frozenset(),
        Operation.GET_CHARACTER: frozenset(),
        Operation.STATUS: frozenset(),
        Operation.CONTENT: frozenset({"variant"}),
        Operation.LIST: frozenset({"limit", "after", "order"}),
        Operation.DELETE: frozenset(),
    }
)
"""The arguments of each operation that a provider may not take; `video` is one to upload."""

# The others say of whom or of what a video is to be made, or which picture of it is wanted: without
# them the answer would be to another question.
_DROPPABLE = frozenset({"seconds", "size", "input_reference"})


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


@dataclass(frozen=True, slots=True)
class Lack:
    """What a deployment cannot take of a call, and the nearest that works.

    `parameter` is the argument's name, as in `OPTIONAL`; `advice` a clause for people: "veo takes
    4, 6 or 8 seconds; the nearest to 7 is 8". `whole`: the argument as such is unknown there, and
    not only this value of it.
    """

    parameter: str
    advice: str
    whole: bool = False

    @property
    def can_be_dropped(self) -> bool:
        """Whether `drop_params` may take it out of a call: never characters or a source."""
        return self.parameter in _DROPPABLE


def usual_lacks(name: str, call: Call[Any]) -> Iterator[Lack]:
    """What most others than OpenAI lack: characters, file ids, parts of seconds, and variants."""
    yield from no_variants(name, call)
    if call.operation is not Operation.GENERATION:
        return
    if call.ids:
        advice = f"{name} has no characters; describe them in the prompt"
        yield Lack("characters", advice, whole=True)
    if call.reference is not None and "image_url" not in call.reference:
        advice = f"{name} takes an image as a file or as {{'image_url': …}}"
        yield Lack("input_reference", advice)
    if call.seconds is not None and not (length := float(call.seconds)).is_integer():
        nearest = max(round(length), 1)
        advice = f"{name} takes whole seconds; the nearest to {call.seconds} is {nearest}"
        yield Lack("seconds", advice)


def no_variants(name: str, call: Call[Any]) -> Iterator[Lack]:
    """The lack of who keeps of a video nothing but the video."""
    if call.operation is Operation.CONTENT and call.variant != "video":
        yield Lack("variant", f"{name} has no variants of a video but the video", whole=True)


def identity(
    deployment: Deployment, *, header: str = "authorization", scheme: str = "Bearer "
) -> dict[str, str]:
    """The headers of whom we ask as, for answers in JSON; without a key, of nobody."""
    headers = {"accept": "application/json", "user-agent": "video-router"}
    if deployment.api_key is not None:
        headers[header] = scheme + deployment.api_key.get_secret_value()
    return headers


def without(call: CallT, parameters: Collection[str]) -> CallT:
    """The call as it is where these of its arguments are dropped."""
    if not parameters:
        return call
    pictured = "input_reference" not in parameters
    return dataclasses.replace(
        call,
        seconds=call.seconds if "seconds" not in parameters else None,
        size=call.size if "size" not in parameters else None,
        upload=call.upload if pictured else None,
        reference=call.reference if pictured else None,
    )


class Provider(Protocol):
    """One wire. All methods are pure; they raise only errors of the tree, or `InvalidBody`."""

    @property
    def dialect(self) -> str: ...

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be asked of it; the rest is an `UnsupportedOperationError` when called."""

    @property
    def parameters(self) -> Mapping[Operation, frozenset[str]]:
        """Of `OPTIONAL`, what each of its operations takes, for people: the table of providers."""

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        """What of this very call the deployment cannot take; asked before anything is picked.

        Asked once for all deployments of a model, and only of calls that are `is_particular`; of
        any operation, also of one that the provider has not. Values that the vendor merely does
        not name are sent: it is the server's to refuse them.
        """

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


def text_or_none(value: object) -> str | None:
    """A code, which some write as a number."""
    return None if value is None else str(value)


def read_answer(model: type[AnswerT], data: Mapping[str, Any]) -> AnswerT:
    """`data` as an answer; raises `InvalidBody` where it lacks what makes it one."""
    said = data.get("error")
    if model is Video and isinstance(said, str) and said:
        data = {**data, "error": {"message": said}}  # else tolerance would drop it
    try:
        answer = model.tolerant(data)
    except ValidationError as exc:
        fields = ", ".join(sorted({str(e["loc"][0]) for e in exc.errors() if e["loc"]}))
        raise InvalidBody(f"the answer lacks a usable {fields or 'body'}") from exc
    if not is_usable(str(getattr(answer, "id", "-"))):
        raise InvalidBody("the answer's id is none that could be asked for again")
    return answer
