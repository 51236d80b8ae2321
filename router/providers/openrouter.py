"""OpenRouter's video API: one account, and the video models of many vendors behind it.

Facts: its Python SDK `openrouter` 1.3.84 (`video_generation`, `VideoGenerationRequest`,
`VideoGenerationResponse`) and its pages "Video generation" and "Submit a video generation request",
read on 2026-11-23. The paths look like OpenAI's and the rest does not: bodies are JSON, a length is
`duration`, in whole seconds, a submit is answered with 202 and little more than an id, and an error
is a number and a sentence.

`size` goes as `size` where it is pixels, else as `resolution` ("1080p") or `aspect_ratio` ("16:9").
An input image is the first frame. What a model takes of all this is its own affair: the list of
models says so, and changes weekly, so nothing is enumerated here.

There are no lists and no deletion. A job is continued by `previous_job_id`, and whether that edits
or extends is the model's to decide; so it is neither of ours, and goes as
`extra_body={"previous_job_id": …}` with `account=`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from router.types import Answer, Operation, Video

__all__ = ["OpenRouter"]

# The others are our words already.
_STATUSES = {"pending": "queued"}


class OpenRouter:
    """One account at OpenRouter; `base_url` ends in `/api/v1`."""

    dialect = "openrouter"
    operations = frozenset({Operation.GENERATION, Operation.STATUS, Operation.CONTENT})
    parameters: Mapping[Operation, frozenset[str]] = MappingProxyType(
        {
            Operation.GENERATION: frozenset({"seconds", "size", "input_reference"}),
            Operation.STATUS: frozenset(),
            Operation.CONTENT: frozenset(),
        }
    )

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        return tuple(usual_lacks("openrouter", call))

    def headers(self, deployment: Deployment) -> dict[str, str]:
        return identity(deployment)

    def request(self, bound: Bound) -> Request:
        match bound.call.operation:
            case Operation.GENERATION:
                return _generation(bound)
            case Operation.CONTENT:
                url = _url(bound, bound.native, "content")
                return Request("GET", url, {"accept": "*/*"}, download=True)
        return Request("GET", _url(bound, bound.native))

    def answer(self, bound: Bound, reply: Reply) -> Answer:
        video = _video(json_object(reply.body))
        if bound.call.operation is Operation.GENERATION:
            call = bound.call
            video.model, video.prompt = bound.deployment.model, call.prompt
            video.seconds, video.size = call.seconds, call.size
        return video

    def error(self, reply: Reply) -> ErrorBody:
        data = read_error(reply)
        error = data.get("error", data) if isinstance(data, dict) else data
        if not isinstance(error, dict):
            return ErrorBody(str(error))
        return ErrorBody(str(error.get("message") or ""), text_or_none(error.get("code")))


def _url(bound: Bound, *path: str) -> str:
    return join_url(bound.deployment.base_url, "videos", *path, bare_root="/api/v1")


def _generation(bound: Bound) -> Request:
    call = bound.call
    fields: dict[str, Any] = {"model": bound.deployment.model, "prompt": call.prompt}
    if call.seconds is not None:
        fields["duration"] = int(float(call.seconds))
    if call.size is not None:
        fields[_shape(call.size)] = call.size
    if call.user is not None:
        fields["user"] = call.user

    def written(image: str) -> Mapping[str, Any]:
        frame = {"type": "image_url", "frame_type": "first_frame", "image_url": {"url": image}}
        return {**fields, "frame_images": [frame], **(call.extra_body or {})}

    url = _url(bound)
    if bound.upload is not None:
        return Request("POST", url, body=inline_body(bound.upload, written))
    if call.reference is not None:
        return Request("POST", url, body=json_body(written(call.reference["image_url"])))
    return Request("POST", url, body=json_body({**fields, **(call.extra_body or {})}))


def _shape(size: str) -> str:
    """The field that a size is for: pixels, a proportion, or lines."""
    if ":" in size:
        return "aspect_ratio"
    return "size" if "x" in size.lower() else "resolution"


def _video(job: Mapping[str, Any]) -> Video:
    status = job.get("status")
    known = {"status": _STATUSES.get(status, status)} if isinstance(status, str) else {}
    # The links open the video to whoever holds them: they are for `content`, not for a log.
    rest = {k: v for k, v in job.items() if k not in ("urls", "unsigned_urls", "polling_url")}
    return read_answer(Video, {**rest, **known})
