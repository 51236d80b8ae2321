"""Veo in the Gemini API: text, an image or an earlier video becomes a video; nothing else does.

Facts: the official SDK `google-genai` 2.34 (`models.generate_videos`, `operations.get`,
`files.download`), API version v1beta, and the guide at ai.google.dev/gemini-api/docs/video as it
was in 2026: lengths, sizes, what can be extended, redirected downloads, two days of keeping.

Whether Google still answers is doubtful. Sure is that `google-genai` 3.4.0 refuses to generate
videos with a key of the Gemini API, and knows them on Google's Agent Platform only, which is
another address and another login. A reseller (docs.apiyi.com, notice of 2026-10-25) tells that
Google ended the three Veo 3.1 models there on 2026-10-22, names Omni as their heir, which has
another interface (Interactions), and points to Google's own list of deprecations; no copy of that
list was found that says so. What is gone is a 404 that names the model, so that a group goes on
elsewhere. Like OpenAI's, the dialect lives on in servers that are compatible.

    generation   POST models/M:predictLongRunning ─▶ the name of an operation
    status       GET  models/M/operations/X       ─▶ done? then the address of a file, or why not
    content      the operation, then its file, by the redirects it takes
    extension    the operation of the video, then a submit that names its file

A file is asked for at `base_url` by its name, as the SDK does, so that the key goes nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin, urlsplit

from router.clips import size_in
from router.config import Deployment
from router.errors import BadRequestError, JobFailedError
from router.messages import (
    ErrorBody,
    InvalidBody,
    Reply,
    Request,
    join_url,
    json_body,
    json_object,
)
from router.operations import Call
from router.outcomes import seconds_in
from router.providers.base import (
    Bound,
    Lack,
    identity,
    no_variants,
    read_answer,
    read_error,
)
from router.providers.inline import inline_body
from router.providers.links import download, must_be_done, web_address
from router.types import Answer, Operation, Video

__all__ = ["Gemini"]

# The guide's examples look this often.
_POLL_SECONDS = 10.0
_REDIRECTS = 3

_LENGTHS = (4, 6, 8)
_EXTENDED_BY = 7
_SIZES = {
    f"{width}x{height}": {"aspectRatio": ratio, "resolution": resolution}
    for resolution, long, short in (
        ("720p", 1280, 720),
        ("1080p", 1920, 1080),
        ("4k", 3840, 2160),
    )
    for ratio, width, height in (("16:9", long, short), ("9:16", short, long))
}
# google.rpc.Code: an operation tells its failure by number, an answer by name.
_CODES = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    13: "INTERNAL",
    14: "UNAVAILABLE",
}
_OPERATION = re.compile(r"(?:[A-Za-z]+/[^/:]+/)*operations/[^/:]+")
_NO_MODEL = re.compile(r"\b\w*[mM]odels/[^/\s]+ is (?:not found for API|no longer available)")
_FILE = re.compile(r"/files/([a-z0-9]+):download$")


class Gemini:
    """One project's key; `base_url` ends in `/v1beta`. A running job cannot be cancelled."""

    dialect = "gemini"
    operations = frozenset(
        {Operation.GENERATION, Operation.EXTENSION, Operation.STATUS, Operation.CONTENT}
    )
    parameters = MappingProxyType(
        {
            **{operation: frozenset[str]() for operation in operations},
            Operation.GENERATION: frozenset({"seconds", "size", "input_reference"}),
            Operation.EXTENSION: frozenset({"seconds"}),
        }
    )

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        match call.operation:
            case Operation.GENERATION:
                return tuple(_lacks(call, _lengths(call, deployment)))
            case Operation.EXTENSION:
                return tuple(_lacks_to_extend(call))
        return tuple(no_variants("gemini", call))

    def headers(self, deployment: Deployment) -> dict[str, str]:
        return identity(deployment, header="x-goog-api-key", scheme="")

    def request(self, bound: Bound) -> Request:
        match bound.call.operation:
            case Operation.GENERATION:
                return _generation(bound)
            case Operation.EXTENSION:
                return _extension(bound)
            case _:
                return Request("GET", _operation_url(bound))

    def answer(self, bound: Bound, reply: Reply) -> Answer | Request:
        data = json_object(reply.body)
        match bound.call.operation:
            case Operation.STATUS:
                return _video(bound.native, data)
            case Operation.CONTENT:
                return self._download(bound, _file_of(bound.native, data))
            case _:
                return _started(bound, data)

    def error(self, reply: Reply) -> ErrorBody:
        data = read_error(reply)
        # What is streamed comes as a list of one; the SDK unpacks it, too.
        data = data[0] if isinstance(data, list) and len(data) == 1 else data
        error = data.get("error") if isinstance(data, dict) else data
        if not isinstance(error, dict):
            return ErrorBody(str(error or ""))
        message, code = str(error.get("message") or ""), error.get("status")
        details = _objects(error.get("details"))
        return ErrorBody(
            message,
            code if isinstance(code, str) else None,
            _kind(reply.status, message, details),
            means=_meant(reply.status, message, details),
            retry_after=_retry_delay(details),
        )

    def _download(self, bound: Bound, uri: str) -> Request:
        with _well_formed():
            named = _FILE.search(urlsplit(uri).path)
            url = _url(bound, "files", named[1], verb="download", alt="media") if named else uri
            return self._fetching(bound, url, _REDIRECTS)

    def _fetching(self, bound: Bound, url: str, redirects: int) -> Request:
        deployment, request = bound.deployment, download(url)
        if _origin(url) == _origin(deployment.base_url):
            own = {name: value.get_secret_value() for name, value in deployment.headers.items()}
            request.headers = {**self.headers(deployment), **own, **request.headers}
            request.by_link = False
        if redirects:
            request.verdict = True
            request.reader = functools.partial(self._moved, bound, url, redirects)
        return request

    def _moved(self, bound: Bound, url: str, redirects: int, reply: Reply) -> Request:
        location = reply.headers.get("location")
        if location is None or not 300 <= reply.status < 400:
            raise InvalidBody("it leads nowhere else")
        with _well_formed():
            return self._fetching(bound, urljoin(url, location), redirects - 1)


# What can be asked for ---------------------------------------------------------------------------


def _lengths(call: Call[Any], deployment: Deployment) -> tuple[int, ...]:
    """The seconds that can be had, where it is known."""
    if not deployment.model.removeprefix("models/").startswith("veo-3"):
        return ()
    large = (_shape(call.size) or {}).get("resolution", "720p") != "720p"
    return _LENGTHS[-1:] if large else _LENGTHS


def _lacks(call: Call[Any], lengths: Collection[int]) -> Iterator[Lack]:
    if call.ids:
        yield Lack("characters", "veo has no characters; describe them in the prompt", whole=True)
    if call.reference is not None:
        yield Lack("input_reference", "veo takes an image as a file only")
    if _shape(call.size) is None:
        yield Lack("size", f"veo makes {', '.join(_SIZES)}{_nearest_size(call.size)}")
    if call.seconds is None:
        return
    length = float(call.seconds)
    choices = lengths or (max(round(length), 1),)
    if length not in choices:
        nearest = min(choices, key=lambda choice: (abs(choice - length), -choice))
        known = " or ".join(map(str, lengths)) if lengths else "whole"
        of_size = f" of {call.size}" if len(lengths) == 1 else ""
        advice = f"veo makes {known} seconds{of_size}; the nearest to {call.seconds} is {nearest}"
        yield Lack("seconds", advice)


def _lacks_to_extend(call: Call[Any]) -> Iterator[Lack]:
    if call.upload is not None:
        advice = "veo extends only what it made itself: give its video_id"
        yield Lack("video", advice, whole=True)
    if call.seconds is not None and float(call.seconds) != _EXTENDED_BY:
        yield Lack("seconds", f"veo extends a video by {_EXTENDED_BY} seconds")


def _shape(size: str | None) -> Mapping[str, str] | None:
    """A size in Veo's words: by pixels, or as it says itself; `None` for what it does not make."""
    if size is None:
        return {}
    if re.fullmatch(r"\d+:\d+", size):
        return {"aspectRatio": size}
    return {"resolution": size} if re.fullmatch(r"\d+p|\d+k", size) else _SIZES.get(size)


def _nearest_size(size: str | None) -> str:
    wanted = size_in(size)
    if wanted is None:
        return ""

    def apart(name: str) -> tuple[bool, int]:
        width, height = size_in(name) or (0, 0)
        return (width > height) != (wanted[0] > wanted[1]), abs(min(width, height) - min(wanted))

    return f"; the nearest to {size} is {min(_SIZES, key=apart)}"


# Requests ----------------------------------------------------------------------------------------


def _generation(bound: Bound) -> Request:
    call = bound.call
    parameters: dict[str, Any] = dict(_shape(call.size) or {})
    if call.seconds is not None:
        parameters["durationSeconds"] = int(float(call.seconds))
    upload = bound.upload
    if upload is None:
        return _submit(bound, _fields(bound, {}, parameters))

    def written(data: str) -> Mapping[str, Any]:
        image = {"bytesBase64Encoded": data, "mimeType": upload.content_type}
        return _fields(bound, {"image": image}, parameters)

    request = _submit(bound, {})
    request.body = inline_body(upload, written, bare=True)
    return request


def _extension(bound: Bound) -> Request:
    """Veo takes the file of an earlier video, which only that video's operation tells."""
    fields = _fields(bound, {}, {"resolution": "720p"})
    json_body(fields)  # what cannot be written fails before anything is asked

    def found(reply: Reply) -> Request:
        try:
            uri = _file_of(bound.native, json_object(reply.body))
        except JobFailedError as exc:
            raise BadRequestError(f"there is no video to extend: {exc.message}") from exc
        fields["instances"][0].setdefault("video", {"uri": uri})
        return _submit(bound, fields)

    return Request("GET", _operation_url(bound), prelude=True, reader=found)


def _fields(
    bound: Bound, instance: Mapping[str, Any], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """A submit's body. The caller's `extra_body` adds to its parts, and beats what is there."""
    extra = dict(bound.call.extra_body or {})
    (more,) = extra.pop("instances", ({},))
    return {
        "instances": [{"prompt": bound.call.prompt, **instance, **more}],
        "parameters": {**parameters, **extra.pop("parameters", {})},
        **extra,
    }


def _submit(bound: Bound, fields: Mapping[str, Any]) -> Request:
    model = bound.deployment.model
    path = model.split("/") if "/" in model else ("models", model)
    return Request("POST", _url(bound, *path, verb="predictLongRunning"), body=json_body(fields))


def _operation_url(bound: Bound) -> str:
    # Whatever a caller takes for an id, it leads to no other kind of thing.
    known = _OPERATION.fullmatch(bound.native)
    return _url(bound, *(bound.native.split("/") if known else ("operations", bound.native)))


def _url(bound: Bound, *path: str, verb: str = "", **query: str) -> str:
    """A resource's address; the colon before a verb must stand as it is."""
    url = join_url(bound.deployment.base_url, *path, query=query, bare_root="/v1beta")
    address, mark, rest = url.partition("?")
    return f"{address}:{verb}{mark}{rest}" if verb else url


@contextlib.contextmanager
def _well_formed() -> Iterator[None]:
    """Around what a server says is an address."""
    try:
        yield
    except ValueError as exc:
        raise InvalidBody("the video has no address that could be asked") from exc


def _origin(url: str) -> tuple[str, str]:
    return urlsplit(url)[:2]


# Answers -----------------------------------------------------------------------------------------


def _started(bound: Bound, data: Mapping[str, Any]) -> Video:
    call = bound.call
    known: dict[str, Any] = {
        "id": data.get("name"),
        "status": "queued",
        "model": bound.deployment.model,
        "prompt": call.prompt,
    }
    if call.operation is Operation.GENERATION:
        known |= {"seconds": call.seconds, "size": call.size}
    return read_answer(Video, known)


def _video(native: str, operation: Mapping[str, Any]) -> Video:
    """What an operation says; it tells no progress, and nothing of what was asked for."""
    known: dict[str, Any] = {
        # Compatible servers may abbreviate the name that they were asked by.
        "id": native if isinstance(operation.get("name"), str) else None,
        "status": "in_progress",
        "model": native.split("/")[1] if native.startswith("models/") else None,
    }
    if operation.get("done") is True:
        error = _failure(operation)
        status = "completed" if error is None else "failed"
        known |= {"status": status, "progress": 100, "error": error}
    rest = {k: v for k, v in operation.items() if k not in ("name", "done", "response", "error")}
    return read_answer(Video, {**rest, **known})


def _failure(operation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Why an operation that has ended has no video; `None` where it has one."""
    error = operation.get("error")
    if isinstance(error, dict):
        number = error.get("code")
        code = _CODES.get(number, number) if isinstance(number, int) else number
        return {"code": code, "message": error.get("message")}
    made = _made(operation)
    if _uri_in(made) is not None:
        return None
    reasons = made.get("raiMediaFilteredReasons")
    if reasons or made.get("raiMediaFilteredCount"):
        said = " ".join(map(str, reasons)) if isinstance(reasons, list) else ""
        return {"code": "content_policy", "message": said or "the video was filtered"}
    return {"code": "no_video", "message": "the operation ended without a video"}


def _made(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    response = operation.get("response")
    made = response.get("generateVideoResponse") if isinstance(response, dict) else None
    return made if isinstance(made, dict) else {}


def _uri_in(made: Mapping[str, Any]) -> str | None:
    samples = made.get("generatedSamples")
    sample = samples[0] if isinstance(samples, list) and samples else None
    video = sample.get("video") if isinstance(sample, dict) else None
    uri = video.get("uri") if isinstance(video, dict) else None
    with contextlib.suppress(InvalidBody):
        return web_address(uri, "file")
    return None


def _file_of(native: str, operation: Mapping[str, Any]) -> str:
    """The address of the video that an operation made; raises where there is none."""
    must_be_done(_video(native, operation), _POLL_SECONDS)
    return web_address(_uri_in(_made(operation)), "file")


# Errors ------------------------------------------------------------------------------------------

_Details = list[dict[str, Any]]


def _objects(listed: object) -> _Details:
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _kind(status: int, message: str, details: _Details) -> str | None:
    """What the words alone would be misread for."""
    if status == 404 and _NO_MODEL.search(message):
        return "model_not_found"
    if status != 429:
        return None
    # A full minute is told in the words of an unpaid bill, and lasts as long as the details say.
    if any("PerDay" in str(violated.get("quotaId")) for violated in _violated(details)):
        return "insufficient_quota"
    return "rate limit" if _retry_delay(details) is not None else None


def _violated(details: _Details) -> Iterator[dict[str, Any]]:
    for detail in details:
        yield from _objects(detail.get("violations"))


def _meant(status: int, message: str, details: _Details) -> int | None:
    if status == 400 and any(d.get("reason") == "API_KEY_INVALID" for d in details):
        return 401
    # A file that is no longer kept; the key is not to blame.
    return 404 if status == 403 and "may not exist" in message else None


def _retry_delay(details: _Details) -> float | None:
    delays = (d["retryDelay"] for d in details if isinstance(d.get("retryDelay"), str))
    return next((seconds_in(delay.removesuffix("s")) for delay in delays), None)
