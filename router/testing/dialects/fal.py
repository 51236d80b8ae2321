"""fal's queue: a submit answers with a request, its status with a word, its result with links.

The queue takes what it is given: what is wrong with an input comes out when a runner looks at it.
So a bad request is accepted, is COMPLETED in the end, and its result is the refusal. The apps here
are those of Sora 2; any other below `/fal-ai` takes a prompt and makes a video of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hmac import compare_digest
from typing import Any
from uuid import UUID

from router.testing.dialects.dialect import Call, Dialect, Route, authorized
from router.testing.faults import JobFails
from router.testing.jobs import Character, Job, Stage
from router.testing.media import CLIP, SPRITESHEET, THUMBNAIL
from router.testing.messages import Answer, Head, Refusal, json_answer

__all__ = ["DIALECT"]

NAME = "fal"
SORA = "sora-2"
DURATIONS = (4, 8, 12, 16, 20)
ASPECT_RATIOS = ("9:16", "16:9", "auto")
MAX_CHARACTERS = 2
MAX_NAME = 80
FILES = {
    "video": ("mp4", "video/mp4", CLIP),
    "thumbnail": ("webp", "image/webp", THUMBNAIL),
    "spritesheet": ("jpg", "image/jpeg", SPRITESHEET),
}
WORDS = {
    "queued": "IN_QUEUE",
    "in_progress": "IN_PROGRESS",
    "completed": "COMPLETED",
    "failed": "COMPLETED",
}
# The platform's own failures, which the status tells of as well; all else is the model's.
REQUEST_ERRORS = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "runner_server_error": 500,
    "client_disconnected": 499,
    "client_cancelled": 499,
    "bad_request": 400,
    "internal_error": 500,
}
MODEL_ERRORS = {
    "internal_server_error": 500,
    "generation_timeout": 504,
    "downstream_service_error": 400,
    "downstream_service_unavailable": 500,
}


@dataclass(frozen=True)
class Invalid(JobFails):
    """An input that its app does not take, and which field of it."""

    field: str = ""


# The queue


def _submit(call: Call) -> Answer:
    app = _app(call)
    known = call.policy.models
    if known is not None and f"fal-ai/{app}" not in known:
        raise Refusal(404, f"Application '{app.partition('/')[0]}' not found")
    with_image = "image-to-video" in app
    problem = _problem_of_video(call, app, with_image=with_image)
    return _queued(call, "generation", app, problem)


def _remix(call: Call) -> Answer:
    fields = call.fields
    source = fields.get("video_id")
    made = {_video_id(job): job for job in call.account.jobs.values() if job.dialect == NAME}
    problem = _missing(fields, "prompt", "video_id")
    if problem is None and source not in made:
        problem = Invalid("file_download_error", f"Video {source} not found", field="video_id")
    elif problem is None and _was_deleted(call, made[str(source)]):
        problem = Invalid("feature_not_supported", "The video was deleted", field="video_id")
    return _queued(call, "remix", f"{SORA}/video-to-video/remix", problem)


def _create_character(call: Call) -> Answer:
    fields = call.fields
    problem = _missing(fields, "video_url", "name")
    if problem is None and not _is_url(fields["video_url"], "video"):
        problem = Invalid("file_download_error", "File download error", field="video_url")
    elif problem is None and len(str(fields["name"])) > MAX_NAME:
        problem = Invalid("string_too_long", f"At most {MAX_NAME} characters", field="name")
    return _queued(call, "create_character", f"{SORA}/characters", problem)


def _status(call: Call) -> Answer:
    job = _job(call)
    stage = job.stage(call.studio.now())
    answer = _request(call.head, job, stage)
    if not stage.running:
        answer["metrics"] = {"inference_time": job.lasts}
    if stage.failure is not None and stage.failure.code in REQUEST_ERRORS:
        answer |= {"error": stage.failure.message, "error_type": stage.failure.code}
    return json_answer(202 if stage.running else 200, answer)


def _result(call: Call) -> Answer:
    job = _job(call)
    stage = job.stage(call.studio.now())
    if stage.running:
        raise Refusal(400, "Request is still in progress")
    if stage.failure is not None:
        return _failure(stage.failure)
    if job.operation == "create_character":
        return json_answer(200, {"id": _character_id(job), "name": job.prompt})
    links = {
        name: {"url": _link(call.head, job, suffix), "content_type": content_type}
        for name, (suffix, content_type, _) in FILES.items()
    }
    return json_answer(200, {**links, "video_id": _video_id(job)})


def _cancel(call: Call) -> Answer:
    job = _job(call)
    if not job.stage(call.studio.now()).running:
        return json_answer(400, {"status": "ALREADY_COMPLETED"})
    cancelled = JobFails("client_cancelled", "Request was cancelled")
    _keep(call, replace(job, lasts=call.studio.now() - job.started, fate=cancelled))
    return json_answer(202, {"status": "CANCELLATION_REQUESTED"})


def _file(call: Call) -> Answer:
    id, token, suffix = (*call.params["file"].split("."), "", "")[:3]
    job = call.account.jobs.get(id)
    if job is None or not compare_digest(token.encode(), job.token.encode()):
        raise Refusal(404, "Not Found")
    content_type, content = {kind[0]: kind[1:] for kind in FILES.values()}[suffix]
    return Answer(200, content, content_type)


def file_id(file: str) -> str:
    """The request a file's name belongs to."""
    return file.partition(".")[0]


# Requests


def _queued(call: Call, operation: str, app: str, problem: Invalid | None) -> Answer:
    fields = call.fields
    prompt = fields.get("name" if operation == "create_character" else "prompt")
    duration = fields.get("duration", DURATIONS[0])
    job = call.studio.start(
        call.account,
        id=str(UUID(call.studio.hex(), version=4)),
        dialect=NAME,
        operation=operation,
        model=app,
        prompt=str(prompt or ""),
        seconds=duration if isinstance(duration, int) else DURATIONS[0],
        size=str(fields.get("resolution", "720p")),
        source=None,
        fields=fields,
    )
    if problem is not None:
        _keep(call, replace(job, fate=problem))
    elif operation == "create_character":
        character = Character(_character_id(job), job.prompt, job.created_at)
        call.account.characters[character.id] = character
    return json_answer(200, _request(call.head, job, Stage("queued")))


def _request(head: Head, job: Job, stage: Stage) -> dict[str, Any]:
    word = stage.word or WORDS[stage.status]
    url = f"{head.origin}/fal-ai/{_root(job.model)}/requests/{job.id}"
    answer = {
        "status": word,
        "request_id": job.id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "logs": None,
    }
    return {**answer, "queue_position": 0} if word == "IN_QUEUE" else answer


def _failure(failure: JobFails) -> Answer:
    status = REQUEST_ERRORS.get(failure.code)
    if status is not None:
        flat = {"detail": failure.message, "error_type": failure.code}
        return json_answer(status, flat, {"x-fal-error-type": failure.code})
    field = [failure.field] if isinstance(failure, Invalid) else []
    error = {
        "loc": ["body", *field],
        "msg": failure.message,
        "type": failure.code,
        "url": f"https://docs.fal.ai/errors#{failure.code}",
    }
    status = MODEL_ERRORS.get(failure.code, 422)
    return json_answer(status, {"detail": [error]}, {"x-fal-retryable": "false"})


def _link(head: Head, job: Job, suffix: str) -> str:
    """Without a key, and not to be guessed; the real ones are on another host."""
    return f"{head.origin}/fal-ai/_files/{job.id}.{job.token}.{suffix}"


def _keep(call: Call, job: Job) -> None:
    call.account.jobs[job.id] = job
    if job.id in call.account.unfinished:
        call.account.unfinished[job.id] = job


def _job(call: Call) -> Job:
    job = call.account.jobs.get(call.params["id"])
    if job is None or job.dialect != NAME or _root(job.model) != call.params["app"]:
        raise Refusal(404, "Request not found")
    return job


def _app(call: Call) -> str:
    return "/".join(call.params[name] for name in ("app", "a", "b", "c") if name in call.params)


def _root(app: str) -> str:
    """What status, result and cancel know an app by: without its path."""
    return app.partition("/")[0]


def _video_id(job: Job) -> str:
    return f"video_{job.token}"


def _character_id(job: Job) -> str:
    return f"char_{job.token}"


def _was_deleted(call: Call, job: Job) -> bool:
    """Unless it was asked not to, the model keeps no video that it could remix."""
    told = (submit.fields for submit in call.studio.accepted if submit.native_id == job.id)
    return any(fields.get("delete_video", True) for fields in told)


# What a runner finds


def _problem_of_video(call: Call, app: str, *, with_image: bool) -> Invalid | None:
    fields = call.fields
    problem = _missing(fields, "prompt", *(["image_url"] if with_image else []))
    if problem is not None or _root(app) != SORA:
        return problem
    if fields.get("duration", DURATIONS[0]) not in DURATIONS:
        allowed = ", ".join(map(str, DURATIONS))
        return Invalid("literal_error", f"Input should be {allowed}", field="duration")
    if fields.get("aspect_ratio", "16:9") not in ASPECT_RATIOS:
        return Invalid("literal_error", "Input should be '9:16' or '16:9'", field="aspect_ratio")
    if with_image and not _is_url(fields["image_url"], "image"):
        return Invalid("image_load_error", "Image load error", field="image_url")
    characters = fields.get("character_ids") or []
    if len(characters) > MAX_CHARACTERS:
        message = f"List should have at most {MAX_CHARACTERS} items"
        return Invalid("sequence_too_long", message, field="character_ids")
    if not all(id in call.account.characters for id in characters):
        return Invalid("value_error", "Character not found", field="character_ids")
    return None


def _missing(fields: Mapping[str, Any], *required: str) -> Invalid | None:
    for name in required:
        if not isinstance(fields.get(name), str) or not fields[name]:
            return Invalid("missing", "Field required", field=name)
    return None


def _is_url(written: str, kind: str) -> bool:
    return written.startswith(("http://", "https://", f"data:{kind}/"))


# Words


def _word(refusal: Refusal) -> Answer:
    return json_answer(refusal.status, {"detail": refusal.message}, refusal.headers)


def _key(head: Head) -> str | None:
    return authorized(head, "key")


def _unknown_key(key: str | None) -> Refusal:
    if key is None:
        return Refusal(401, "Authentication is required to access this application.")
    return Refusal(401, "No user found for Key ID and Secret")


DIALECT = Dialect(
    name=NAME,
    prefixes=("/fal-ai",),
    routes=(
        Route("POST", f"/{SORA}/characters", "create_character", _create_character),
        Route("POST", f"/{SORA}/video-to-video/remix", "remix", _remix),
        Route("POST", "/{app}", "generation", _submit),
        Route("POST", "/{app}/{a}", "generation", _submit),
        Route("POST", "/{app}/{a}/{b}", "generation", _submit),
        Route("POST", "/{app}/{a}/{b}/{c}", "generation", _submit),
        Route("GET", "/{app}/requests/{id}/status", "status", _status),
        Route("GET", "/{app}/requests/{id}", "result", _result),
        Route("PUT", "/{app}/requests/{id}/cancel", "delete", _cancel),
        Route("GET", "/_files/{file}", "content", _file, owner=file_id),
    ),
    key=_key,
    unknown_key=_unknown_key,
    word=_word,
)
