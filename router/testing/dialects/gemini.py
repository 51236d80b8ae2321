"""Veo in the Gemini API: a submit answers with a long-running operation, which ends with a file.

Both generations and extensions are posted to one address, so to `StandIn.fault` every submit is a
`generation` when it arrives; a job that continues another one is an `extension` once accepted.
A job that fails with the code `raiMediaFiltered` was filtered, which is no error on this wire.
"""

from __future__ import annotations

import re
from typing import Any

from router.testing.dialects.dialect import Call, Dialect, Route
from router.testing.faults import JobFails
from router.testing.jobs import Job
from router.testing.media import CLIP
from router.testing.messages import Answer, Head, Refusal, json_answer

__all__ = ["DIALECT"]

NAME = "gemini"
FILTERED = "raiMediaFiltered"
KEPT_SECONDS = 2 * 86_400.0
EXTENSION_SECONDS = 7
LONGEST_SOURCE = 141
SECONDS = (4, 6, 8)
SIDES = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
RATIOS = ("16:9", "9:16")
PARAMETERS = frozenset(
    {
        "aspectRatio",
        "durationSeconds",
        "enhancePrompt",
        "negativePrompt",
        "numberOfVideos",
        "personGeneration",
        "resolution",
        "sampleCount",
    }
)
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
CODES = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}
"""Of `google.rpc.Code`, those that an operation may end with; any other failure is INTERNAL."""
_TYPES = "type.googleapis.com"


# Operations


def _submit(call: Call) -> Answer:
    model, known = call.params["model"], call.policy.models
    if known is not None and model not in known:
        raise Refusal(
            404,
            f"models/{model} is not found for API version v1beta, or is not supported for "
            "predictLongRunning. Call ListModels to see the list of available models and their "
            "supported methods.",
        )
    instance, parameters = _instance(call), _parameters(call)
    source = _source(call, instance["video"]) if "video" in instance else None
    seconds = _seconds(parameters)
    job = call.studio.start(
        call.account,
        id=f"models/{model}/operations/{call.studio.hex()[:12]}",
        dialect=NAME,
        operation="generation" if source is None else "extension",
        model=model,
        prompt=instance.get("prompt", ""),
        seconds=seconds if source is None else source.seconds + EXTENSION_SECONDS,
        size=_size(parameters) if source is None else source.size,
        source=None if source is None else source.id,
        fields=call.fields,
    )
    return json_answer(200, {"name": job.id})


def _get(call: Call) -> Answer:
    job = call.account.jobs.get("/".join(call.head.segments[1:]))
    if job is None:
        raise Refusal(404, "Requested entity was not found.")
    stage, answer = job.stage(call.studio.now()), {"name": job.id}
    if stage.running:
        return json_answer(200, answer)
    if stage.failure is not None and stage.failure.code != FILTERED:
        return json_answer(200, answer | {"done": True, "error": _error(stage.failure)})
    response = _filtered(stage.failure) if stage.failure else _made(call.head, job)
    kind = f"{_TYPES}/google.ai.generativelanguage.v1beta.PredictLongRunningResponse"
    full = {"@type": kind, "generateVideoResponse": response}
    return json_answer(200, answer | {"done": True, "response": full})


def _download(call: Call) -> Answer:
    """The file, where downloads are served; every other address only leads there."""
    job = _made_by(call, call.params["file"])
    if job is None:
        raise _no_file(call.params["file"])
    if call.head.query.get("alt") != "media":
        raise Refusal(400, "Downloads are media: alt=media.")
    if not call.head.path.startswith("/download/"):
        target = f"{call.head.origin}/download{call.head.target}"
        return Answer(302, headers={"location": target})
    return Answer(200, CLIP, "video/mp4")


# What a submit asks for


def _instance(call: Call) -> dict[str, Any]:
    instances = call.fields.get("instances")
    instance = instances[0] if isinstance(instances, list) and len(instances) == 1 else None
    if not isinstance(instance, dict) or not {"prompt", "image", "video"} & instance.keys():
        raise Refusal(400, "The request needs one instance with a prompt, an image or a video.")
    if not isinstance(instance.get("prompt", ""), str):
        raise Refusal(400, "Invalid value at 'instances[0].prompt' (TYPE_STRING).")
    image = instance.get("image")
    if image is not None and not (
        isinstance(image, dict) and image.get("bytesBase64Encoded") and image.get("mimeType")
    ):
        raise Refusal(
            400,
            "Input instance with `image` should contain both `bytesBase64Encoded` and "
            "`mimeType` in the request.",
        )
    return instance


def _parameters(call: Call) -> dict[str, Any]:
    parameters = call.fields.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, "Invalid value at 'parameters'.")
    for name in parameters.keys() - PARAMETERS:
        raise Refusal(400, f"`{name}` isn't supported by this model. Please remove it.")
    return parameters


def _source(call: Call, video: Any) -> Job:
    """The video to continue: only one that was made here is taken, and only by its address."""
    if not isinstance(video, dict) or "encodedVideo" in video:
        raise Refusal(400, "`encodedVideo` isn't supported by this model. Please remove it.")
    found = re.search(r"files/([a-z0-9]+)", str(video.get("uri")))
    job = None if found is None else _made_by(call, found[1])
    if job is None:
        raise _no_file("" if found is None else found[1])
    if job.seconds > LONGEST_SOURCE or min(_sides(job.size)) != SIDES["720p"][1]:
        raise Refusal(400, f"Only 720p videos of at most {LONGEST_SOURCE} seconds can be extended.")
    return job


def _seconds(parameters: dict[str, Any]) -> int:
    written = parameters.get("durationSeconds", SECONDS[-1])
    high = parameters.get("resolution", "720p") != "720p"
    allowed = SECONDS[-1:] if high else SECONDS
    if written not in allowed:
        message = f"The number value for `durationSeconds` is out of bound: {written}; {allowed}."
        raise Refusal(400, message)
    return int(written)


def _size(parameters: dict[str, Any]) -> str:
    ratio, resolution = parameters.get("aspectRatio", "16:9"), parameters.get("resolution", "720p")
    for name, value, known in (
        ("aspectRatio", ratio, RATIOS),
        ("resolution", resolution, tuple(SIDES)),
    ):
        if value not in known:
            raise Refusal(400, f"`{name}` does not support `{value}` as a valid value.")
    width, height = SIDES[resolution] if ratio == "16:9" else SIDES[resolution][::-1]
    return f"{width}x{height}"


def _sides(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


# What is answered


def _made(head: Head, job: Job) -> dict[str, Any]:
    uri = f"{head.origin}/v1beta/files/{_file_id(job)}:download?alt=media"
    return {"generatedSamples": [{"video": {"uri": uri}}]}


def _filtered(failure: JobFails) -> dict[str, Any]:
    return {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [failure.message]}


def _error(failure: JobFails) -> dict[str, Any]:
    return {"code": CODES.get(failure.code, CODES["INTERNAL"]), "message": failure.message}


def _file_id(job: Job) -> str:
    return job.token[:12]


def _made_by(call: Call, file: str) -> Job | None:
    """The job whose video this file is, while it is there."""
    now = call.studio.now()
    jobs = (job for job in call.account.jobs.values() if job.dialect == NAME)
    job = next((job for job in jobs if _file_id(job) == file), None)
    there = job is not None and job.stage(now).status == "completed"
    return job if there and job is not None and job.kept(now, KEPT_SECONDS) else None


def _no_file(file: str) -> Refusal:
    message = f"You do not have permission to access the File {file} or it may not exist."
    return Refusal(403, message)


# Refusals


def _word(refusal: Refusal) -> Answer:
    error: dict[str, Any] = {
        "code": refusal.status,
        "message": refusal.message,
        "status": STATUSES.get(refusal.status, "UNKNOWN"),
    }
    wait = refusal.headers.get("retry-after")
    if wait is not None:
        error |= _out_of_quota(wait)
    elif refusal.code is not None:
        domain = "googleapis.com"
        detail = {"@type": f"{_TYPES}/google.rpc.ErrorInfo", "reason": refusal.code}
        error["details"] = [{**detail, "domain": domain}]
    return json_answer(refusal.status, {"error": error})


def _out_of_quota(wait: str) -> dict[str, Any]:
    """A throttled minute is worded like an unpaid bill; when to come back stands in the details."""
    quota = "GenerateVideoRequestsPerMinutePerProjectPerModel"
    return {
        "message": "You exceeded your current quota, please check your plan and billing details. "
        f"Please retry in {wait}s.",
        "details": [
            {"@type": f"{_TYPES}/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]},
            {"@type": f"{_TYPES}/google.rpc.RetryInfo", "retryDelay": f"{wait}s"},
        ],
    }


def _key(head: Head) -> str | None:
    return head.headers.get("x-goog-api-key") or head.query.get("key")


def _unknown_key(key: str | None) -> Refusal:
    if key is None:
        return Refusal(403, "Method doesn't allow unregistered callers.")
    message = "API key not valid. Please pass a valid API key."
    return Refusal(400, message, code="API_KEY_INVALID")


DIALECT = Dialect(
    name=NAME,
    prefixes=("/download/v1beta", "/v1beta"),
    routes=(
        Route("POST", "/models/{model}:predictLongRunning", "generation", _submit),
        Route("GET", "/models/{model}/operations/{id}", "status", _get),
        Route("GET", "/operations/{id}", "status", _get),
        Route("GET", "/files/{file}:download", "content", _download),
    ),
    key=_key,
    unknown_key=_unknown_key,
    word=_word,
)
