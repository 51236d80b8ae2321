"""fal's queue: hundreds of apps behind one way to ask for them; characters are one of the apps.

Facts: the official SDK `fal-client` 1.0.3 (`submit`, `status`, `result`, `cancel`, `AppId`,
`Completed.error_type`), and fal's pages "Queue API", "Model Errors", "Request Error Types", "Sora 2
Text To Video API", "… Image To Video API", "… Video To Video API" and "Sora 2 Characters API", read
on 2026-11-23.

`base_url` is `https://queue.fal.run`; a deployment's `model` is the app with its path,
`fal-ai/sora-2/text-to-video`. A request is known by owner, app and its own id, without the path, so
that is our native id: `fal-ai/sora-2/764cabcf-…`. An id alone is one of the deployment's own app.

The queue takes what it is given, and has one word for all ends, COMPLETED: whether there is a video
only the result tells, whose status is then the one that the model answered with. So a status takes
a second look at what is completed, and a refusal of the result is the job's failure. Those of the
platform (`runner_…`, `…_timeout`) stand in the status as well. 4xx from a model is the caller's
fault, but for what its own suppliers did. fal does not bill what it answers with 5xx: that is a
case for `retry_on_5xx: true`.

What seconds and sizes are called differs from app to app. Sora 2's are known: `duration`,
`aspect_ratio`, `resolution`, a first frame by the sibling app `image-to-video`, two characters by
id, and a remix of what was made with `extra_body={"delete_video": False}` (fal keeps none else).
Any other app is given the prompt and the call's `extra_body`. Files go along as data URLs, which
every app takes in place of a link.

A new character is a request of the queue too; the call waits for it, so that what it returns can be
used at once. Links to files need no key and get none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from router.config import Deployment
from router.errors import JobFailedError, UnsupportedOperationError, VideoNotReadyError
from router.messages import ErrorBody, InvalidBody, Reply, Request, join_url, json_body, json_object
from router.operations import Call
from router.providers.base import Bound, Lack, identity, read_answer, read_error, text_or_none
from router.providers.inline import inline_body
from router.providers.links import download, web_address
from router.providers.shapes import lacks_of_size, shaped
from router.types import Answer, Character, Operation, Video, VideoDeleted

__all__ = ["Fal"]

_Then: TypeAlias = Callable[[Mapping[str, Any]], Answer | Request]

_SORA = "fal-ai/sora-2"
_DURATIONS = (4, 8, 12, 16, 20)
_ASPECTS = ("16:9", "9:16")
# The namespaces that the SDK knows; what lies in one of them has an app of three parts.
_NAMESPACES = ("workflows", "comfy")
_STATUSES = {"IN_QUEUE": "queued", "IN_PROGRESS": "in_progress"}
_CANCELLED = ("client_cancelled", "client_disconnected")
# What only an app answers, and only to what it was given, in whatever words.
_OF_INPUT = (400, 413, 415, 422)
_SUPPLIERS = ("downstream_service_error", "downstream_service_unavailable")
_ASK_AGAIN_SECONDS = 5.0
# Between two looks at a character that is being made.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


class Fal:
    """One account at fal. Deleting cancels a request on its way; there is no other deletion."""

    dialect = "fal"
    operations = frozenset(
        {
            Operation.CREATE_CHARACTER,
            Operation.GENERATION,
            Operation.REMIX,
            Operation.STATUS,
            Operation.CONTENT,
            Operation.DELETE,
        }
    )
    parameters: Mapping[Operation, frozenset[str]] = MappingProxyType(
        {
            **{operation: frozenset[str]() for operation in operations},
            Operation.GENERATION: frozenset({"seconds", "size", "input_reference", "characters"}),
            Operation.CONTENT: frozenset({"variant"}),
        }
    )

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        sora = _app(deployment.model) == _SORA
        match call.operation:
            case Operation.GENERATION if sora:
                return tuple(_lacks_of_sora(call))
            case Operation.GENERATION:
                return tuple(_lacks_of_any(call, deployment.model))
            case Operation.CREATE_CHARACTER if not sora:
                advice = f"{deployment.model} has no characters; {_SORA} has"
                return (Lack("characters", advice, whole=True),)
            case Operation.REMIX if not sora:
                advice = f"{deployment.model} cannot remix; {_SORA} can"
                return (Lack("video", advice, whole=True),)
        return ()

    def headers(self, deployment: Deployment) -> dict[str, str]:
        return identity(deployment, scheme="Key ")

    def request(self, bound: Bound) -> Request:
        match bound.call.operation:
            case Operation.CREATE_CHARACTER:
                return _create_character(bound)
            case Operation.GENERATION:
                return _generation(bound)
            case Operation.DELETE:
                return Request("PUT", _url(bound, _native(bound), "cancel"))
        then: _Then = partial(_READ.get(bound.call.operation, _video), bound)
        prelude = bound.call.operation is Operation.REMIX
        if prelude:
            _submit_remix(bound, "")  # what cannot be written fails before anything is asked
        return _Look(bound, _native(bound), then, prelude).status()

    def answer(self, bound: Bound, reply: Reply) -> Answer | Request:
        """What a submit is answered with, and a deletion; other exchanges bring their reader."""
        data = json_object(reply.body)
        match bound.call.operation:
            case Operation.DELETE:
                return VideoDeleted(id=_native(bound))
            case Operation.CREATE_CHARACTER:
                return _Look(bound, _begun(data, _SORA), _character).status(_FIRST_PAUSE)
        return _started(bound, data, _app(bound.deployment.model))

    def error(self, reply: Reply) -> ErrorBody:
        said, code = _said(read_error(reply))
        code = code or reply.headers.get("x-fal-error-type")
        # An account is locked, mostly for want of money, by the status that forbids one thing.
        if reply.status != 403 or "user is locked" not in said.lower():
            return ErrorBody(said, code)
        if "balance" in said.lower():
            return ErrorBody(said, code, "insufficient_quota", means=429)
        return ErrorBody(said, code, means=401)


# From a request's status to its result ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """What a call wants of a request that is in the queue or was: `then` reads its result."""

    bound: Bound
    native: str
    then: _Then
    prelude: bool = False

    def status(self, pause: float = 0.0) -> Request:
        request = self._asking(partial(self._looked, pause), "status")
        request.pause = pause
        return request

    def _asking(self, reader: Callable[[Reply], Answer | Request], *path: str) -> Request:
        url = _url(self.bound, self.native, *path)
        return Request("GET", url, prelude=self.prelude, reader=reader)

    def _looked(self, pause: float, reply: Reply) -> Answer | Request:
        status = json_object(reply.body)
        word = status.get("status")
        if word == "COMPLETED":
            result = self._asking(partial(self._ended, status))
            result.verdict = True
            return result
        match self.bound.call.operation:
            case Operation.STATUS:
                return _unfinished(self.native, status)
            case Operation.CREATE_CHARACTER:
                return self.status(min(pause * 1.5, _LONGEST_PAUSE))
        raise VideoNotReadyError(f"the request is {word}", retry_after=_ASK_AGAIN_SECONDS)

    def _ended(self, status: Mapping[str, Any], reply: Reply) -> Answer | Request:
        """The result, or a refusal in its place: that is how a request has failed."""
        if 200 <= reply.status < 300:
            return self.then(json_object(reply.body))
        error = _failure(reply, status)
        if self.bound.call.operation is not Operation.STATUS:
            raise JobFailedError(error["message"], code=error["code"])
        word = "cancelled" if error["code"] in _CANCELLED else "failed"
        known = {"id": self.native, "status": word, "progress": 100, "error": error}
        return read_answer(Video, known)


def _failure(reply: Reply, status: Mapping[str, Any]) -> dict[str, str]:
    """Why a request failed; `InvalidBody` where what was refused is the question."""
    message, code = _said(read_error(reply))
    code = code or status.get("error_type") or reply.headers.get("x-fal-error-type")
    if not code and (reply.status in _OF_INPUT or status.get("error")):
        code = str(reply.status)
    if reply.status in (401, 403, 404, 429) or not code:
        raise InvalidBody("a refusal that names no failure of the request")
    error = {"code": str(code), "message": message or str(status.get("error") or code)}
    if 400 <= reply.status < 500 and code not in _SUPPLIERS:
        error["type"] = "invalid_request_error"
    return error


def _said(data: Any) -> tuple[str, str | None]:
    """Message and code of an error: a list of what is wrong with an input, or a sentence."""
    if not isinstance(data, dict):
        return str(data), None
    detail, code = data.get("detail", data.get("status", "")), data.get("error_type")
    if isinstance(detail, list) and detail and all(isinstance(one, dict) for one in detail):
        code = code or detail[0].get("type")
        detail = "; ".join(map(_sentence, detail))
    return str(detail), text_or_none(code)


def _sentence(error: Mapping[str, Any]) -> str:
    """What is wrong, and where. Without `input`, which says the whole prompt again."""
    place = error.get("loc")
    where = [str(step) for step in place if step != "body"] if isinstance(place, list) else []
    return f"{'.'.join(where)}: {error.get('msg')}" if where else str(error.get("msg"))


# Requests ---------------------------------------------------------------------------------------


def _create_character(bound: Bound) -> Request:
    name, upload, extra = bound.call.name, bound.upload, bound.call.extra_body or {}
    assert upload is not None
    body = inline_body(upload, lambda clip: {"name": name, **extra, "video_url": clip})
    return Request("POST", _submit_url(bound, f"{_SORA}/characters"), body=body)


def _generation(bound: Bound) -> Request:
    call, model = bound.call, bound.deployment.model
    pictured = bound.upload is not None or call.reference is not None
    fields: dict[str, Any] = {"prompt": call.prompt}
    if _app(model) == _SORA:
        model = _sibling(model, "image-to-video" if pictured else "text-to-video")
        fields |= _fields_of_sora(bound)
    if call.reference is not None:
        fields["image_url"] = call.reference["image_url"]
    fields |= call.extra_body or {}
    body = json_body(fields)
    if bound.upload is not None:
        body = inline_body(bound.upload, lambda image: {**fields, "image_url": image})
    return Request("POST", _submit_url(bound, model), body=body)


def _sibling(model: str, kind: str) -> str:
    """Sora 2 has one app for prompts and another for images: the one of this `kind`."""
    kinds = ("text-to-video", "image-to-video")
    return "/".join(kind if part in kinds else part for part in model.split("/"))


def _fields_of_sora(bound: Bound) -> dict[str, Any]:
    call = bound.call
    aspect, lines = shaped(call.size, _ASPECTS)
    fields = {
        "duration": None if call.seconds is None else int(float(call.seconds)),
        "aspect_ratio": aspect,
        "resolution": lines,
        "character_ids": list(bound.natives) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _remix(bound: Bound, result: Mapping[str, Any]) -> Request:
    id = result.get("video_id")
    if not isinstance(id, str):
        raise UnsupportedOperationError("fal can remix only what Sora 2 has made")
    return _submit_remix(bound, id)


def _submit_remix(bound: Bound, id: str) -> Request:
    fields = {"prompt": bound.call.prompt, "video_id": id, **(bound.call.extra_body or {})}
    url = _submit_url(bound, f"{_SORA}/video-to-video/remix")
    return Request("POST", url, body=json_body(fields), reader=partial(_remix_started, bound))


def _submit_url(bound: Bound, model: str) -> str:
    return join_url(bound.deployment.base_url, *model.split("/"))


def _url(bound: Bound, native: str, *path: str) -> str:
    *app, id = native.split("/")
    return join_url(bound.deployment.base_url, *app, "requests", id, *path)


def _app(model: str) -> str:
    """Owner and app of a model, without its path: what a request is known by."""
    parts = model.split("/")
    return "/".join(parts[: 3 if parts[0] in _NAMESPACES else 2])


def _native(bound: Bound) -> str:
    """The request that a call names, with its app."""
    native = bound.native
    return native if "/" in native else f"{_app(bound.deployment.model)}/{native}"


# Answers ----------------------------------------------------------------------------------------


def _begun(data: Mapping[str, Any], app: str) -> str:
    id = data.get("request_id")
    if not isinstance(id, str) or not id:
        raise InvalidBody("the answer lacks a usable request_id")
    return f"{app}/{id}"


def _started(bound: Bound, data: Mapping[str, Any], app: str) -> Video:
    call = bound.call
    return read_answer(
        Video,
        {
            "id": _begun(data, app),
            "status": "queued",
            "progress": 0,
            "model": bound.deployment.model,
            "prompt": call.prompt,
            "seconds": call.seconds,
            "size": call.size,
        },
    )


def _remix_started(bound: Bound, reply: Reply) -> Video:
    video = _started(bound, json_object(reply.body), _SORA)
    video.remixed_from_video_id = _native(bound)
    return video


def _unfinished(native: str, status: Mapping[str, Any]) -> Video:
    word = status.get("status")
    known = {
        "id": native,
        "status": _STATUSES.get(word, word) if isinstance(word, str) else word,
        "progress": 0 if word == "IN_QUEUE" else None,
    }
    place = {name: status[name] for name in ("queue_position",) if name in status}
    return read_answer(Video, {**known, **place})


def _video(bound: Bound, result: Mapping[str, Any]) -> Video:
    """The end of a request. Its links open the files to whoever has them: they are not told."""
    _link(result, "video")
    rest = {key: value for key, value in result.items() if not _is_file(value)}
    known = {"id": _native(bound), "status": "completed", "progress": 100}
    return read_answer(Video, {**rest, **known})


def _download(bound: Bound, result: Mapping[str, Any]) -> Request:
    variant = bound.call.variant
    if variant != "video" and not _is_file(result.get(variant)):
        made = ", ".join(sorted(name for name, value in result.items() if _is_file(value)))
        said = f"{_app(_native(bound))} made no {variant}; it made {made or 'no file'}"
        raise UnsupportedOperationError(said)
    return download(_link(result, variant))


def _character(result: Mapping[str, Any]) -> Character:
    return read_answer(Character, result)


def _link(result: Mapping[str, Any], name: str) -> str:
    file = result.get(name)
    return web_address(file.get("url") if isinstance(file, dict) else None, name)


def _is_file(value: object) -> bool:
    return isinstance(value, dict) and "url" in value


_READ: Mapping[Operation, Callable[[Bound, Mapping[str, Any]], Answer | Request]] = {
    Operation.REMIX: _remix,
    Operation.CONTENT: _download,
}


# What it cannot take ----------------------------------------------------------------------------


def _lacks_of_sora(call: Call[Any]) -> Iterator[Lack]:
    if call.seconds is not None and float(call.seconds) not in _DURATIONS:
        asked = float(call.seconds)
        nearest = min(_DURATIONS, key=lambda one: abs(one - asked))
        advice = f"sora 2 at fal takes 4, 8, 12, 16 or 20 seconds; the nearest to {call.seconds}"
        yield Lack("seconds", f"{advice} is {nearest}")
    yield from lacks_of_size("sora 2 at fal", call, _ASPECTS)
    if call.reference is not None and "image_url" not in call.reference:
        advice = "fal takes an image as a file or as {'image_url': …}"
        yield Lack("input_reference", advice)


def _lacks_of_any(call: Call[Any], model: str) -> Iterator[Lack]:
    pictured = call.upload is not None or call.reference is not None
    given = {
        "seconds": call.seconds is not None,
        "size": call.size is not None,
        "input_reference": pictured,
    }
    for parameter, is_given in given.items():
        if is_given:
            advice = f"what {model} calls {parameter} is its own: give it as `extra_body`"
            yield Lack(parameter, advice, whole=True)
    if call.ids:
        yield Lack("characters", f"{model} has no characters; {_SORA} has", whole=True)
