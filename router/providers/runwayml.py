"""RunwayML's task API: text or an image becomes a video; no characters, edits or listings.

Facts: the official SDK `runwayml` 5.24 (resources `text_to_video`, `image_to_video`, `tasks`), API
version 2024-11-06. A task's output is a URL of another host, good for a day and without a key; so
`content` takes two exchanges, and the key goes only to the first.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from typing import Any

from router.config import Deployment
from router.errors import (
    BadRequestError,
    JobFailedError,
    UnsupportedOperationError,
    VideoNotReadyError,
)
from router.messages import (
    Body,
    ErrorBody,
    InvalidBody,
    Reply,
    Request,
    Source,
    join_url,
    json_body,
    json_object,
)
from router.providers.base import Bound, read_answer, read_error
from router.types import Answer, Operation, Video, VideoDeleted

__all__ = ["RunwayML"]

_API_VERSION = "2024-11-06"
# The SDK asks to look at a task no more often than this.
_POLL_SECONDS = 5.0
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

    def headers(self, deployment: Deployment) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "user-agent": "video-router",
            "x-runway-version": _API_VERSION,
        }
        if deployment.api_key is not None:
            headers["authorization"] = f"Bearer {deployment.api_key.get_secret_value()}"
        return headers

    def request(self, bound: Bound) -> Request:
        operation = bound.call.operation
        if operation is Operation.GENERATION:
            return _generation(bound)
        if operation is Operation.CONTENT and bound.call.variant != "video":
            raise UnsupportedOperationError("runwayml has no variants of a video but the video")
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
        return ErrorBody(str(said or ""), None if code is None else str(code))


def _generation(bound: Bound) -> Request:
    call = bound.call
    if bound.natives:
        raise UnsupportedOperationError("runwayml has no characters; describe them in the prompt")
    fields: dict[str, Any] = {"model": bound.deployment.model, "promptText": call.prompt}
    if call.size is not None:
        fields["ratio"] = call.size.replace("x", ":")
    if call.seconds is not None:
        fields["duration"] = _whole_seconds(call.seconds)
    fields |= call.extra_body or {}
    with_image = bound.upload is not None or call.reference is not None
    path = "image_to_video" if with_image else "text_to_video"
    url = join_url(bound.deployment.base_url, path)
    return Request("POST", url, body=_with_image(bound, fields))


def _with_image(bound: Bound, fields: dict[str, Any]) -> Body:
    reference = bound.call.reference
    if bound.upload is not None:
        head = json_body(fields).segments[0]
        assert isinstance(head, bytes)
        image = _Base64(bound.upload.source)
        before = head[:-1] + f',"promptImage":"data:{bound.upload.content_type};base64,'.encode()
        segments = (before, image, b'"}')
        return Body("application/json", segments, len(before) + image.size + 2)
    if reference is not None:
        if "image_url" not in reference:
            raise BadRequestError("runwayml takes an image as a file or as {'image_url': …}")
        fields = {**fields, "promptImage": reference["image_url"]}
    return json_body(fields)


class _Base64:
    """A source in base64, encoded piece by piece as it is read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = (source.size + 2) // 3 * 4

    def read_at(self, offset: int, size: int) -> bytes:
        # Whole groups of three bytes around the piece, then the piece.
        first, last = offset // 4 * 3, (offset + size + 3) // 4 * 3
        wanted = min(last, self._source.size) - first
        encoded = base64.b64encode(self._source.read_at(first, wanted))
        skip = offset - first // 3 * 4
        return encoded[skip : skip + size]


def _whole_seconds(seconds: str) -> int:
    length = float(seconds)
    if not length.is_integer():
        nearest = max(round(length), 1)
        raise BadRequestError(f"runwayml takes whole seconds; the nearest is {nearest}")
    return int(length)


def _started(bound: Bound, data: Mapping[str, Any]) -> Video:
    call = bound.call
    return read_answer(
        Video,
        {
            "id": data.get("id"),
            "status": "queued",
            "model": bound.deployment.model,
            "prompt": call.prompt,
            "seconds": call.seconds,
            "size": call.size,
        },
    )


def _video(task: Mapping[str, Any]) -> Video:
    status = task.get("status")
    progress = task.get("progress")
    done = 100 if status == "SUCCEEDED" else 0
    known: dict[str, Any] = {
        "id": task.get("id"),
        "status": _STATUSES.get(status, status) if isinstance(status, str) else status,
        "created_at": _unix(task.get("createdAt")),
        "progress": round(progress * 100) if isinstance(progress, (int, float)) else done,
    }
    if status == "FAILED":
        known["error"] = {"code": task.get("failureCode"), "message": task.get("failure")}
    rest = {k: v for k, v in task.items() if k not in ("createdAt", "failure", "failureCode")}
    return read_answer(Video, {**rest, **known})


def _download(task: Mapping[str, Any]) -> Request:
    video = _video(task)
    if video.failed:
        error = video.error
        raise JobFailedError(
            (error and error.message) or f"the task is {video.status}",
            code=error.code if error else None,
        )
    if not video.done:
        raise VideoNotReadyError(f"the task is {video.status}", retry_after=_POLL_SECONDS)
    output = task.get("output")
    url = output[0] if isinstance(output, list) and output else None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise InvalidBody("the task has no output to download")
    return Request("GET", url, {"accept": "*/*"}, download=True)


def _unix(written: object) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(written)).timestamp()
    except ValueError:
        return None
