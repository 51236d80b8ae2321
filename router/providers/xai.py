"""xAI's video API (Grok Imagine): generations, edits and extensions of what is a link or a file.

Facts: its pages "Video Generation", "Image-to-Video", "Video Editing", "Video Extension" and
"Debugging Errors" at docs.x.ai, read on 2026-11-23; and the official SDK `xai-sdk` 1.21.0, which
speaks gRPC: the protos that it ships (`video`, `deferred`) have the same messages, with their
fields, words, proportions and resolutions. The JSON is also that of `@ai-sdk/xai`, the client for
JavaScript that those pages document.

`base_url` ends in `/v1`. A request is `pending`, then `done`, `failed` or `expired`; a video that
may not be shown is `done` with `respect_moderation` false and without a link. What an edit or an
extension starts from is a link, so to change a video that exists its link is looked up first; an
uploaded one goes along as a data URL. Links are good for a day, on another host, and get no key.

A wrong key is answered with 400, and an empty purse with 403 or 429: both put the account out.
There are no characters, remixes, lists or deletions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from router.config import Deployment
from router.messages import ErrorBody, Reply, Request, join_url, json_body, json_object
from router.operations import Call
from router.providers.base import (
    Bound,
    Lack,
    identity,
    no_variants,
    read_answer,
    read_error,
    text_or_none,
)
from router.providers.inline import inline_body
from router.providers.links import download, must_be_done, web_address
from router.providers.shapes import lacks_of_size, shaped
from router.types import Answer, Operation, Video

__all__ = ["XAI"]

_ASPECTS = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
_RESOLUTIONS = ("480p", "720p", "1080p")
_MOST_SECONDS = {Operation.GENERATION: 15, Operation.EXTENSION: 10}
_PATHS = {
    Operation.GENERATION: "generations",
    Operation.EDIT: "edits",
    Operation.EXTENSION: "extensions",
}
_ASK_AGAIN_SECONDS = 5.0
_WRONG_KEY = re.compile(r"(incorrect|invalid) api key", re.IGNORECASE)
_NO_CREDIT = re.compile(r"\bcredits?\b|spending limit", re.IGNORECASE)


class XAI:
    """One team at xAI."""

    dialect = "xai"
    operations = frozenset(
        {
            Operation.GENERATION,
            Operation.EDIT,
            Operation.EXTENSION,
            Operation.STATUS,
            Operation.CONTENT,
        }
    )
    parameters: Mapping[Operation, frozenset[str]] = MappingProxyType(
        {
            **{operation: frozenset[str]() for operation in operations},
            Operation.GENERATION: frozenset({"seconds", "size", "input_reference"}),
            Operation.EDIT: frozenset({"video"}),
            Operation.EXTENSION: frozenset({"seconds", "video"}),
        }
    )

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        match call.operation:
            case Operation.GENERATION:
                return (*_lacks_of_generation(call), *_lacks_of_seconds(call))
            case Operation.EXTENSION:
                return tuple(_lacks_of_seconds(call))
        return tuple(no_variants("xai", call))

    def headers(self, deployment: Deployment) -> dict[str, str]:
        return identity(deployment)

    def request(self, bound: Bound) -> Request:
        match bound.call.operation:
            case Operation.GENERATION:
                return _generation(bound)
            case Operation.EDIT | Operation.EXTENSION:
                return _change(bound)
        return Request("GET", _url(bound, bound.native))

    def answer(self, bound: Bound, reply: Reply) -> Answer | Request:
        match bound.call.operation:
            case Operation.STATUS:
                return _video(bound.native, reply)
            case Operation.CONTENT:
                return download(_link(bound, reply))
        return _started(bound, reply)

    def error(self, reply: Reply) -> ErrorBody:
        data = read_error(reply)
        told: dict[str, Any] = data if isinstance(data, dict) else {"error": data}
        if isinstance(told.get("error"), dict):
            told = {"error": told["error"].get("message"), "code": told["error"].get("code")}
        code = text_or_none(told.get("code"))
        body = ErrorBody(str(told.get("error") or code or ""), code)
        if reply.status in (403, 429) and _NO_CREDIT.search(body.message):
            return ErrorBody(body.message, body.code, "insufficient_quota", means=429)
        wrong_key = reply.status == 400 and _WRONG_KEY.search(body.message)
        return ErrorBody(body.message, body.code, means=401 if wrong_key else None)


# Requests ---------------------------------------------------------------------------------------


def _url(bound: Bound, *path: str) -> str:
    return join_url(bound.deployment.base_url, "videos", *path, bare_root="/v1")


def _submit(bound: Bound, fields: Mapping[str, Any]) -> Request:
    """The call with these fields, and with its upload, which is the picture or the video."""
    known = {"model": bound.deployment.model, "prompt": bound.call.prompt, **fields}
    given = {**known, **(bound.call.extra_body or {})}
    body = json_body(given)
    if bound.upload is not None:
        name = "image" if bound.call.operation is Operation.GENERATION else "video"
        body = inline_body(bound.upload, lambda url: {**given, name: {"url": url}})
    return Request("POST", _url(bound, _PATHS[bound.call.operation]), body=body)


def _generation(bound: Bound) -> Request:
    call = bound.call
    aspect, lines = shaped(call.size, _ASPECTS)
    asked = {**_duration(call), "aspect_ratio": aspect, "resolution": lines}
    fields: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if call.reference is not None:
        kept = {"image_url": "url", "file_id": "file_id"}
        fields["image"] = {kept[name]: value for name, value in call.reference.items()}
    return _submit(bound, fields)


def _change(bound: Bound) -> Request:
    """An edit or extension: of an upload at once, of a video that exists by its link."""
    if bound.upload is not None:
        return _submit(bound, _duration(bound.call))
    url = _url(bound, bound.native)
    _submit(bound, {})  # what cannot be written fails before anything is asked
    return Request("GET", url, prelude=True, reader=partial(_change_of_link, bound))


def _change_of_link(bound: Bound, reply: Reply) -> Request:
    source = {"video": {"url": _link(bound, reply)}}
    request = _submit(bound, {**_duration(bound.call), **source})
    request.reader = partial(_started, bound)
    return request


def _duration(call: Call[Any]) -> dict[str, Any]:
    return {} if call.seconds is None else {"duration": int(float(call.seconds))}


# Answers ----------------------------------------------------------------------------------------


def _started(bound: Bound, reply: Reply) -> Video:
    call = bound.call
    # An extension's answer tells of the whole, which is not known before it is there.
    length = None if call.operation is Operation.EXTENSION else call.seconds
    return read_answer(
        Video,
        {
            "id": json_object(reply.body).get("request_id"),
            "status": "queued",
            "model": bound.deployment.model,
            "prompt": call.prompt,
            "seconds": length,
            "size": call.size,
            "progress": 0,
        },
    )


def _video(native: str, reply: Reply) -> Video:
    # What is pending was once answered with 202 and nothing, and may still be.
    empty = reply.status == 202 and not reply.body.strip()
    request = {"status": "pending"} if empty else json_object(reply.body)
    made = request.get("video")
    made = made if isinstance(made, dict) else {}
    status = request.get("status") or ("done" if made.get("url") else None)
    known: dict[str, Any] = {"id": native, "status": status}
    if status == "pending":
        known["status"] = "in_progress" if request.get("progress") else "queued"
    elif status == "done" and made.get("respect_moderation") is False:
        why = "the video did not pass moderation, and is not given out"
        known |= {"status": "failed", "error": {"code": "content_moderation", "message": why}}
    elif status == "done":
        known |= {"status": "completed", "progress": 100}
    if made.get("duration") is not None:
        known["seconds"] = str(made["duration"])
    # The link opens the video to whoever holds it: it is for `content`, not for a log.
    rest = {key: value for key, value in request.items() if key != "video"}
    return read_answer(Video, {**rest, **known})


def _link(bound: Bound, reply: Reply) -> str:
    """Where a finished video is; raises where there is none to be had."""
    must_be_done(_video(bound.native, reply), _ASK_AGAIN_SECONDS)
    made = json_object(reply.body).get("video")
    return web_address(made.get("url") if isinstance(made, dict) else None, "link")


# What it cannot take ----------------------------------------------------------------------------


def _lacks_of_generation(call: Call[Any]) -> Iterator[Lack]:
    if call.ids:
        advice = "xai has no characters; describe them in the prompt"
        yield Lack("characters", advice, whole=True)
    yield from lacks_of_size("xai", call, _ASPECTS, _RESOLUTIONS)


def _lacks_of_seconds(call: Call[Any]) -> Iterator[Lack]:
    if call.seconds is None:
        return
    length, most = float(call.seconds), _MOST_SECONDS[call.operation]
    if not length.is_integer() or not 1 <= length <= most:
        nearest = min(max(round(length), 1), most)
        advice = f"xai takes 1 to {most} whole seconds; the nearest to {call.seconds} is {nearest}"
        yield Lack("seconds", advice)
