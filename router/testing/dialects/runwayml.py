"""RunwayML's API: a submit answers with a task, the task with a signed link to the file.

The link needs no key, and a client must not send it one: `StandIn.requests` shows whether it did.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hmac import compare_digest
from uuid import UUID

from router.testing.dialects.dialect import Call, Dialect, Route, authorized
from router.testing.jobs import Job, Stage
from router.testing.media import CLIP
from router.testing.messages import Answer, Head, Refusal, json_answer

__all__ = ["DIALECT"]

NAME = "runwayml"
MAX_PROMPT = 1000
CREDITS_PER_SECOND = 5
WORDS = {
    "queued": "PENDING",
    "in_progress": "RUNNING",
    "completed": "SUCCEEDED",
    "failed": "FAILED",
}


def _submit(*required: str) -> Callable[[Call], Answer]:
    """A route that starts a task when these fields are there."""

    def submit(call: Call) -> Answer:
        _check_version(call)
        for name in required:
            if not call.fields.get(name):
                raise Refusal(400, f"Validation of body failed: {name} is required.")
        prompt = call.fields.get("promptText") or ""
        if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
            message = f"promptText must be a string of at most {MAX_PROMPT} characters."
            raise Refusal(400, f"Validation of body failed: {message}")
        job = call.studio.start(
            call.account,
            id=str(UUID(call.studio.hex(), version=4)),
            dialect=NAME,
            operation="generation",
            model=_model(call),
            prompt=prompt,
            seconds=_duration(call),
            size=str(call.fields["ratio"]),
            source=None,
            fields=call.fields,
        )
        return json_answer(200, {"id": job.id, "estimatedCost": _credits(job)})

    return submit


def _get(call: Call) -> Answer:
    _check_version(call)
    job = _job(call)
    return json_answer(200, _task(call.head, job, job.stage(call.studio.now())))


def _delete(call: Call) -> Answer:
    """Cancels a running task, deletes a finished one; either is gone afterwards."""
    _check_version(call)
    call.studio.discard(call.account, _job(call))
    return Answer(204)


def _file(call: Call) -> Answer:
    job = call.account.jobs.get(file_id(call.params["file"]))
    if job is None or job.stage(call.studio.now()).status != "completed":
        raise Refusal(404, "Not found.")
    if not compare_digest(call.head.query.get("token", "").encode(), job.token.encode()):
        raise Refusal(401, "The token of this link is not valid.")
    return Answer(200, CLIP, "video/mp4")


def file_id(file: str) -> str:
    """The task a file's name belongs to."""
    return file.removesuffix(".mp4")


def _task(head: Head, job: Job, stage: Stage) -> dict[str, object]:
    created = datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="milliseconds")
    task: dict[str, object] = {
        "id": job.id,
        "status": stage.word or WORDS[stage.status],
        "createdAt": created.replace("+00:00", "Z"),
        "estimatedCost" if stage.running else "cost": _credits(job),
    }
    if stage.status == "in_progress":
        task["progress"] = stage.progress / 100
    elif stage.status == "completed":
        task["output"] = [f"{head.origin}/_files/{job.id}.mp4?token={job.token}"]
    elif stage.failure is not None:
        task["failure"] = stage.failure.message
        task["failureCode"] = stage.failure.code
    return task


def _credits(job: Job) -> dict[str, int]:
    return {"credits": job.seconds * CREDITS_PER_SECOND}


def _job(call: Call) -> Job:
    job = call.account.jobs.get(call.params["id"])
    if job is None or job.dialect != NAME:
        raise Refusal(404, "Task not found.")
    return job


def _model(call: Call) -> str:
    model, known = str(call.fields["model"]), call.policy.models
    if known is not None and model not in known:
        raise Refusal(400, f"Validation of body failed: model must be one of {', '.join(known)}.")
    return model


def _duration(call: Call) -> int:
    duration = call.fields.get("duration", 5)
    if not isinstance(duration, int) or duration < 1:
        raise Refusal(400, "Validation of body failed: duration must be a whole number.")
    return duration


def _check_version(call: Call) -> None:
    if "x-runway-version" not in call.head.headers:
        raise Refusal(400, "X-Runway-Version header is required.")


def _word(refusal: Refusal) -> Answer:
    return json_answer(refusal.status, {"error": refusal.message}, refusal.headers)


def _unknown_key(key: str | None) -> Refusal:
    return Refusal(401, "You did not provide an API key, or it is not valid.")


DIALECT = Dialect(
    name=NAME,
    prefixes=("/v1", ""),
    routes=(
        Route("POST", "/text_to_video", "generation", _submit("model", "promptText", "ratio")),
        Route("POST", "/image_to_video", "generation", _submit("model", "promptImage", "ratio")),
        Route("GET", "/tasks/{id}", "status", _get),
        Route("DELETE", "/tasks/{id}", "delete", _delete),
        Route("GET", "/_files/{file}", "content", _file, owner=file_id),
    ),
    key=authorized,
    unknown_key=_unknown_key,
    word=_word,
)
