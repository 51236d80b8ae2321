"""xAI's video API: three ways to start a request, and one to ask what became of it.

Its real paths are also OpenAI's, told apart by their host; on this one server they stand below
`/xai/v1`. A link to a file needs no key, and a client must not send it one.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any
from uuid import UUID

from router.testing.dialects.dialect import Call, Dialect, Route, authorized
from router.testing.jobs import Job
from router.testing.media import CLIP, clip_seconds
from router.testing.messages import Answer, Refusal, json_answer

__all__ = ["DIALECT"]

NAME = "xai"
PREFIX = "/xai/v1"
ASPECT_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
RESOLUTIONS = ("480p", "720p", "1080p")
MAX_SECONDS = 15
MAX_MORE_SECONDS = 10
USUAL_SECONDS = 6
TICKS_PER_SECOND = 500_000_000
"""Five cents, in its smallest coin: a cent has a hundred million ticks."""

# The words of each status; they are those of gRPC's codes, spelt out.
CODES = {
    400: "Client specified an invalid argument",
    401: "Unauthenticated",
    403: "The caller does not have permission to execute the specified operation",
    404: "Some requested entity was not found",
    429: "Some resource has been exhausted",
}
_LINK = re.compile(rf"{PREFIX}/_files/([^./]+)\.")


def _generate(call: Call) -> Answer:
    duration = _seconds(call, MAX_SECONDS)
    _one_of(call, "aspect_ratio", ASPECT_RATIOS)
    _one_of(call, "resolution", RESOLUTIONS)
    if "image" in call.fields:
        _file_of(call, "image")
    return _started(call, "generation", duration)


def _edit(call: Call) -> Answer:
    """As long and as large as the source, whatever else is asked for."""
    seconds, source = _source(call)
    return _started(call, "edit", seconds, source)


def _extend(call: Call) -> Answer:
    seconds, source = _source(call)
    return _started(call, "extension", seconds + _seconds(call, MAX_MORE_SECONDS), source)


def _get(call: Call) -> Answer:
    job = _job(call)
    stage = job.stage(call.studio.now())
    if stage.running:
        pending = {"status": stage.word or "pending", "progress": stage.progress}
        return json_answer(202, pending)
    answer: dict[str, Any] = {"status": stage.word or "done", "model": job.model}
    if stage.failure is None:
        url = f"{call.head.origin}{PREFIX}/_files/{job.id}.{job.token}.mp4"
        answer["video"] = {"url": url, "duration": job.seconds, "respect_moderation": True}
        answer["usage"] = {"cost_in_usd_ticks": job.seconds * TICKS_PER_SECOND}
        answer["progress"] = 100
    elif stage.word == "done":  # a video was made, and may not be shown
        answer["video"] = {"url": "", "duration": job.seconds, "respect_moderation": False}
    elif stage.word is None:
        answer["status"] = "failed"
        answer["error"] = {"code": stage.failure.code, "message": stage.failure.message}
    return json_answer(200, answer)


def _file(call: Call) -> Answer:
    id, token, _ = (*call.params["file"].split("."), "", "")[:3]
    job = call.account.jobs.get(id)
    if job is None or not compare_digest(token.encode(), job.token.encode()):
        raise Refusal(404, "Not found.")
    return Answer(200, CLIP, "video/mp4")


def file_id(file: str) -> str:
    """The request a file's name belongs to."""
    return file.partition(".")[0]


def _started(call: Call, operation: str, seconds: int, source: str | None = None) -> Answer:
    job = call.studio.start(
        call.account,
        id=str(UUID(call.studio.hex(), version=4)),
        dialect=NAME,
        operation=operation,
        model=_model(call),
        prompt=_prompt(call),
        seconds=seconds,
        size=str(call.fields.get("resolution", RESOLUTIONS[0])),
        source=source,
        fields=call.fields,
    )
    return json_answer(200, {"request_id": job.id})


# What a request says


def _job(call: Call) -> Job:
    job = call.account.jobs.get(call.params["id"])
    if job is None or job.dialect != NAME:
        raise Refusal(404, f"Video request {call.params['id']} not found.")
    return job


def _model(call: Call) -> str:
    model, known = call.fields.get("model"), call.policy.models
    if not isinstance(model, str) or not model:
        raise Refusal(400, "Field `model` is required.")
    if known is not None and model not in known:
        raise Refusal(404, f"The model {model} does not exist or your team has no access to it.")
    return model


def _prompt(call: Call) -> str:
    prompt = call.fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refusal(400, "Field `prompt` is required.")
    return prompt


def _seconds(call: Call, most: int) -> int:
    seconds = call.fields.get("duration", USUAL_SECONDS)
    if not isinstance(seconds, int) or not 1 <= seconds <= most:
        raise Refusal(400, f"Invalid duration: must be a whole number from 1 to {most}.")
    return seconds


def _one_of(call: Call, name: str, known: tuple[str, ...]) -> None:
    value = call.fields.get(name)
    if value is not None and value not in known:
        raise Refusal(400, f"Invalid {name} `{value}`: expected one of {', '.join(known)}.")


def _file_of(call: Call, name: str) -> Mapping[str, Any]:
    """An image or a video: by a link, inside a data URL, or by the id of a file."""
    file = call.fields.get(name)
    if not isinstance(file, dict) or not (file.get("url") or file.get("file_id")):
        raise Refusal(400, f"Field `{name}` needs a `url` or a `file_id`.")
    url = str(file.get("url") or "")
    if url and not url.startswith(("http://", "https://", f"data:{name}/")):
        raise Refusal(400, f"Invalid {name} url.")
    return file


def _source(call: Call) -> tuple[int, str | None]:
    """Seconds and, where it was made here, id of what is to be changed."""
    url = str(_file_of(call, "video").get("url") or "")
    own = _LINK.search(url)
    if own is not None and own[1] in call.account.jobs:
        job = call.account.jobs[own[1]]
        return job.seconds, job.id
    if not url.startswith("data:"):
        return USUAL_SECONDS, None
    clip = b64decode(url.partition(",")[2])
    if not call.policy.takes(clip):
        raise Refusal(400, "Invalid video: not an MP4 file.")
    return clip_seconds(clip), None


# Words


def _word(refusal: Refusal) -> Answer:
    code = CODES.get(refusal.status, "Internal error")
    return json_answer(refusal.status, {"code": code, "error": refusal.message}, refusal.headers)


def _unknown_key(key: str | None) -> Refusal:
    if key is None:
        return Refusal(401, "No API key was provided.")
    return Refusal(400, f"Incorrect API key provided: {key[:2]}***. Get one at console.x.ai.")


_SUBMITS: dict[str, tuple[str, Callable[[Call], Answer]]] = {
    "/videos/generations": ("generation", _generate),
    "/videos/edits": ("edit", _edit),
    "/videos/extensions": ("extension", _extend),
}

DIALECT = Dialect(
    name=NAME,
    prefixes=(PREFIX,),
    routes=(
        *(Route("POST", path, name, submit) for path, (name, submit) in _SUBMITS.items()),
        Route("GET", "/videos/{id}", "status", _get),
        Route("GET", "/_files/{file}", "content", _file, owner=file_id),
    ),
    key=authorized,
    unknown_key=_unknown_key,
    word=_word,
)
