"""RunwayML's task API: text or an image becomes a video; no characters, edits or listings.

Facts: the official SDK `runwayml` 5.24 (resources `text_to_video`, `image_to_video`, `tasks`), API
version 2024-11-06. A task's output is a URL of another host, good for a day and without a key; so
`content` takes two exchanges, and the key goes only to the first.

A size is a `ratio`, "1280:720". What ratios and lengths a model takes, the SDK fixes; here stand
those of RunwayML's own models and of Veo, which have few. The two dozen others come and go, and are
sent what the caller wrote.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from router.config import Deployment
from router.messages import (
    ErrorBody,
    Reply,
    Request,
    join_url,
    json_body,
    json_object,
)
from router.operations import Call
from router.providers.base import (
    Bound,
    Lack,
    identity,
    read_answer,
    read_error,
    text_or_none,
    usual_lacks,
)
from router.providers.inline import inline_body
from router.providers.links import download, must_be_done, web_address
from router.types import Answer, Operation, Video, VideoDeleted

__all__ = ["RunwayML"]

_API_VERSION = "2024-11-06"
# An empty purse is told as a bad request (runwayml/sdk-node, issue 28), and no caller can help it.
_NO_CREDIT = re.compile(r"not have enough credits", re.IGNORECASE)
_OF_ACCOUNT = (400, 402, 403)
# The SDK asks to look at a task no more often than this.
_POLL_SECONDS = 5.0
_GEN4 = ("1280:720", "720:1280", "1104:832", "960:960", "832:1104", "1584:672")
_VEO = ("1280:720", "720:1280", "1080:1920", "1920:1080")
# By model: the ratios of text, those of an image, and the lengths in seconds; of no lengths any is
# sent. Nobody can go without a ratio here, so the first is sent where a call names none.
_KNOWN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], Sequence[int]]] = {
    "gen4.5": (_GEN4[:2], _GEN4, range(2, 11)),
    "gen4_turbo": (_GEN4, _GEN4, ()),
    "veo3.1": (_VEO, _VEO, (4, 6, 8)),
    "veo3.1_fast": (_VEO, _VEO, (4, 6, 8)),
}
# Nor can this one go without a length.
_USUAL_SECONDS = {"gen4.5": "4"}
_STATUSES = {
    "PENDING": "queued",
    "THROTTLED": "queued",
    "RUNNING": "in_progress",
    "SUCCEEDED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}


class RunwayML:
    """One account at RunwayML; `base_url` ends in `/v1`. Deleting a running task cancels it."""

    dialect = "runwayml"
    operations = frozenset(
        {Operation.GENERATION, Operation.STATUS, Operation.CONTENT, Operation.DELETE}
    )
    parameters = MappingProxyType(
        {
            **{operation: frozenset[str]() for operation in operations},
            Operation.GENERATION: frozenset({"seconds", "size", "input_reference"}),
        }
    )

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        usual = tuple(usual_lacks("runwayml", call))
        if call.operation is not Operation.GENERATION or deployment.model not in _KNOWN:
            return usual
        known = {lack.parameter for lack in usual}
        more = _lacks_of_model(call, deployment.model)
        return (*usual, *(lack for lack in more if lack.parameter not in known))

    def headers(self, deployment: Deployment) -> dict[str, str]:
        return {**identity(deployment), "x-runway-version": _API_VERSION}

    def request(self, bound: Bound) -> Request:
        operation = bound.call.operation
        if operation is Operation.GENERATION:
            return _generation(bound)
        method = "DELETE" if operation is Operation.DELETE else "GET"
        return Request(method, join_url(bound.deployment.base_url, "tasks", bound.native))

    def answer(self, bound: Bound, reply: Reply) -> Answer | Request:
        match bound.call.operation:
            case Operation.DELETE:
                return VideoDeleted(id=bound.native)
            case Operation.GENERATION:
                return _started(bound, json_object(reply.body))
            case Operation.CONTENT:
                return _download(json_object(reply.body))
            case _:
                return _video(json_object(reply.body))

    def error(self, reply: Reply) -> ErrorBody:
        data = read_error(reply)
        said = data.get("error") if isinstance(data, dict) else data
        code = data.get("code") if isinstance(data, dict) else None
        body = ErrorBody(str(said or ""), text_or_none(code))
        if reply.status in _OF_ACCOUNT and _NO_CREDIT.search(body.message):
            return replace(body, type="insufficient_quota", means=429)
        return body


def _lacks_of_model(call: Call[Any], model: str) -> Iterator[Lack]:
    ratios, lengths = _ratios(call, model), _KNOWN[model][2]
    if call.size is not None and (ratio := _ratio(call.size)) not in ratios:
        nearest = min(ratios, key=lambda known: _apart(ratio, known)).replace(":", "x")
        known = ", ".join(one.replace(":", "x") for one in ratios)
        yield Lack("size", f"{model} makes {known}; the nearest to {call.size} is {nearest}")
    if lengths and call.seconds is not None and float(call.seconds) not in lengths:
        near = min(lengths, key=lambda known: abs(known - float(call.seconds or 0)))
        known = ", ".join(map(str, lengths))
        yield Lack("seconds", f"{model} makes {known} s; the nearest to {call.seconds} is {near}")


def _ratios(call: Call[Any], model: str) -> tuple[str, ...]:
    with_image = call.upload is not None or call.reference is not None
    of_text, of_image, _ = _KNOWN[model]
    return of_image if with_image else of_text


def _ratio(size: str) -> str:
    return size.lower().replace("x", ":")


def _apart(wanted: str, known: str) -> tuple[float, float]:
    """How far a size is from another: in shape first, then in pixels."""
    numbers = [re.findall(r"[1-9]\d{0,4}", one)[:2] for one in (wanted, known)]
    if len(numbers[0]) < 2:
        return 0.0, 0.0
    (a, b), (c, d) = ([int(number) for number in pair] for pair in numbers)
    return abs(math.log(a * d / (b * c))), abs(math.log(a * b / (c * d)))


def _generation(bound: Bound) -> Request:
    call, model = bound.call, bound.deployment.model
    fields: dict[str, Any] = {"model": model, "promptText": call.prompt}
    if call.size is not None:
        fields["ratio"] = _ratio(call.size)
    elif model in _KNOWN:
        fields["ratio"] = _ratios(call, model)[0]
    if (seconds := _seconds(bound)) is not None:
        fields["duration"] = int(float(seconds))
    fields |= call.extra_body or {}
    with_image = bound.upload is not None or call.reference is not None
    path = "image_to_video" if with_image else "text_to_video"
    url = join_url(bound.deployment.base_url, path)
    if bound.upload is not None:
        body = inline_body(bound.upload, lambda image: {**fields, "promptImage": image})
        return Request("POST", url, body=body)
    if call.reference is not None:
        fields["promptImage"] = call.reference["image_url"]
    return Request("POST", url, body=json_body(fields))


def _seconds(bound: Bound) -> str | None:
    return bound.call.seconds or _USUAL_SECONDS.get(bound.deployment.model)


def _started(bound: Bound, data: Mapping[str, Any]) -> Video:
    call = bound.call
    return read_answer(
        Video,
        {
            "id": data.get("id"),
            "status": "queued",
            "model": bound.deployment.model,
            "prompt": call.prompt,
            "seconds": _seconds(bound),
            "size": call.size,
        },
    )


def _video(task: Mapping[str, Any]) -> Video:
    status = task.get("status")
    known: dict[str, Any] = {
        "id": task.get("id"),
        "status": _STATUSES.get(status, status) if isinstance(status, str) else status,
        "created_at": _unix(task.get("createdAt")),
        "progress": _percent(task.get("progress"), 100 if status == "SUCCEEDED" else 0),
    }
    if status == "FAILED":
        known["error"] = {"code": task.get("failureCode"), "message": task.get("failure")}
    rest = {k: v for k, v in task.items() if k not in ("createdAt", "failure", "failureCode")}
    return read_answer(Video, {**rest, **known})


def _download(task: Mapping[str, Any]) -> Request:
    must_be_done(_video(task), _POLL_SECONDS)
    output = task.get("output")
    url = output[0] if isinstance(output, list) and output else None
    return download(web_address(url, "output"))


def _percent(fraction: object, otherwise: int) -> int:
    """How much of a task is done, of which the provider tells a part of one."""
    known = isinstance(fraction, int | float) and 0 <= fraction <= 1
    return round(fraction * 100) if known else otherwise  # type: ignore[operator]  # a number by now


def _unix(written: object) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(written)).timestamp()
    except (ValueError, OverflowError):
        return None
