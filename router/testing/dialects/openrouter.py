"""OpenRouter's video API, below `/api/v1`: submit, poll, download.

As its SDK `openrouter` 1.3.84 has it. Which status a download has that comes too early, its
documents do not say: 400, 404 and 409 are among them.
"""

from __future__ import annotations

from typing import Any

from router.testing.dialects.dialect import Call, Dialect, Route, authorized
from router.testing.jobs import Job, Stage
from router.testing.media import CLIP
from router.testing.messages import Answer, Head, Refusal, json_answer

__all__ = ["DIALECT"]

NAME = "openrouter"
DOLLARS_PER_SECOND = 0.1
SECONDS = 8
WORDS = {"queued": "pending"}


def _create(call: Call) -> Answer:
    prompt, model = call.fields.get("prompt"), call.fields.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "model: Required")
    known = call.policy.models
    if known is not None and model not in known:
        raise Refusal(404, f"No endpoints found for {model}: the model does not exist.")
    images = call.fields.get("frame_images") or []
    if not isinstance(images, list) or not all(map(_is_frame, images)):
        raise Refusal(400, "frame_images: Invalid input")
    if not isinstance(prompt, str) or (not prompt and not images):
        raise Refusal(400, "prompt: Required")
    duration = call.fields.get("duration", SECONDS)
    if not isinstance(duration, int) or duration < 1:
        raise Refusal(400, "duration: Expected a whole number")
    job = call.studio.start(
        call.account,
        id=f"gen-vid-{int(call.studio.now())}-{call.studio.hex()[:20]}",
        dialect=NAME,
        operation="generation",
        model=model,
        prompt=prompt,
        seconds=duration,
        size=str(call.fields.get("size") or call.fields.get("resolution") or ""),
        source=None,
        fields=call.fields,
    )
    return json_answer(202, _answer(call.head, job, Stage("queued")))


def _is_frame(image: Any) -> bool:
    if not isinstance(image, dict) or image.get("type") != "image_url":
        return False
    url = image.get("image_url")
    framed = image.get("frame_type") in ("first_frame", "last_frame")
    return framed and isinstance(url, dict) and isinstance(url.get("url"), str)


def _get(call: Call) -> Answer:
    job = _job(call)
    return json_answer(200, _answer(call.head, job, job.stage(call.studio.now())))


def _content(call: Call) -> Answer:
    stage = _job(call).stage(call.studio.now())
    if stage.status != "completed":
        word = stage.word or WORDS.get(stage.status, stage.status)
        raise Refusal(400, f"Video generation is not completed; its status is {word}.")
    if call.head.query.get("index", "0") != "0":
        raise Refusal(404, "There is no output with this index.")
    return Answer(200, CLIP, "video/mp4")


def _job(call: Call) -> Job:
    job = call.account.jobs.get(call.params["id"])
    if job is None or job.dialect != NAME:
        raise Refusal(404, "Video generation job not found")
    return job


def _answer(head: Head, job: Job, stage: Stage) -> dict[str, object]:
    path = f"/api/v1/videos/{job.id}"
    answer: dict[str, object] = {
        "id": job.id,
        "polling_url": path,
        "status": stage.word or WORDS.get(stage.status, stage.status),
    }
    if stage.status == "completed":
        answer["generation_id"] = job.id
        answer["unsigned_urls"] = [f"{head.origin}{path}/content?index=0"]
        answer["usage"] = {"cost": job.seconds * DOLLARS_PER_SECOND, "is_byok": False}
    elif stage.failure is not None:
        answer["error"] = stage.failure.message
    return answer


def _word(refusal: Refusal) -> Answer:
    error = {"code": refusal.status, "message": refusal.message}
    return json_answer(refusal.status, {"error": error}, refusal.headers)


def _unknown_key(key: str | None) -> Refusal:
    return Refusal(401, "No auth credentials found" if key is None else "User not found.")


DIALECT = Dialect(
    name=NAME,
    prefixes=("/api/v1",),
    routes=(
        Route("POST", "/videos", "generation", _create),
        Route("GET", "/videos/{id}", "status", _get),
        Route("GET", "/videos/{id}/content", "content", _content),
    ),
    key=authorized,
    unknown_key=_unknown_key,
    word=_word,
)
