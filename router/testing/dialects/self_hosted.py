"""Servers of one's own that speak a part of OpenAI's API: vLLM-Omni and SGLang.

Five routes each, below `/vllm-omni/v1` and `/sglang/v1`, as their packages 0.30.0 and 0.5.23 have
them. What OpenAI has besides is a 404 here, as it is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from router.testing.dialects.dialect import Call, Dialect, Route, authorized
from router.testing.jobs import Job, Stage
from router.testing.media import CLIP
from router.testing.messages import Answer, Refusal, json_answer

__all__ = ["SGLANG", "VLLM_OMNI"]

_WHOLE = re.compile(r"[1-9]\d*")
_SIZE = re.compile(r"\d+x\d+")
_SECONDS = "4"
_SIZE_USUAL = "832x480"
_MOST = 100


# vLLM-Omni


def _vllm_create(call: Call) -> Answer:
    """Forms only; an image is a file, or JSON in a field."""
    if not call.head.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refusal(422, "prompt: Field required")
    for name, pattern in (("seconds", _WHOLE), ("size", _SIZE)):
        value = call.fields.get(name)
        if value is not None and not pattern.fullmatch(str(value)):
            raise Refusal(400, f"{name}: String should match pattern '^{pattern.pattern}$'")
    _check_image(call)
    return _started(call, "vllm-omni", f"video_gen_{call.studio.hex()}")


def _check_image(call: Call) -> None:
    written = call.fields.get("image_reference")
    if written is None:
        return
    if call.body.upload("input_reference") is not None:
        raise Refusal(400, "Provide only one of input_reference, image_reference.")
    try:
        image = json.loads(written)
    except ValueError:
        image = None
    if not isinstance(image, dict) or image.keys() - {"image_url"}:
        raise Refusal(400, "image_reference: only image_url is implemented.")


def _vllm_get(call: Call) -> Answer:
    """A job that failed is told with the status of its failure."""
    job = _job(call, "vllm-omni")
    stage = job.stage(call.studio.now())
    if stage.failure is None:
        return json_answer(200, _video(job, stage))
    written = stage.failure.code
    status = int(written) if re.fullmatch(r"[45]\d\d", str(written)) else 500
    error = {"code": status, "message": stage.failure.message}
    return json_answer(status, {**_video(job, stage), "error": error})


def _vllm_delete(call: Call) -> Answer:
    job = _job(call, "vllm-omni")
    call.studio.discard(call.account, job)
    return json_answer(200, {"id": job.id, "deleted": True, "object": "video.deleted"})


# SGLang


def _sglang_create(call: Call) -> Answer:
    seconds = call.fields.get("seconds")
    if seconds is not None and not _WHOLE.fullmatch(str(seconds)):
        raise Refusal(400, "Invalid request body: seconds: Input should be a valid integer")
    for name in ("input_reference", "reference_url"):
        if not isinstance(call.fields.get(name, ""), str):
            raise Refusal(400, f"Invalid request body: {name}: Input should be a valid string")
    return _started(call, "sglang", call.studio.hex())


def _sglang_get(call: Call) -> Answer:
    job = _job(call, "sglang")
    return json_answer(200, _video(job, job.stage(call.studio.now())))


def _sglang_delete(call: Call) -> Answer:
    """The video as it was, but for its status; the work goes on."""
    job = _job(call, "sglang")
    answer = {**_video(job, job.stage(call.studio.now())), "status": "deleted"}
    call.studio.discard(call.account, job)
    return json_answer(200, answer)


# Both


def _started(call: Call, name: str, id: str) -> Answer:
    prompt, model = call.fields.get("prompt"), call.fields.get("model")
    if not isinstance(prompt, str) or not prompt:
        raise Refusal(400, "prompt is required")
    known = call.policy.models
    if known is not None and model is not None and model not in known:
        raise Refusal(400, f"Model mismatch: this server is running {', '.join(known)}.")
    job = call.studio.start(
        call.account,
        id=id,
        dialect=name,
        operation="generation",
        model=str(model or "served"),
        prompt=prompt,
        seconds=int(call.fields.get("seconds") or _SECONDS),
        size=str(call.fields.get("size") or _SIZE_USUAL),
        source=None,
        fields=call.fields,
    )
    return json_answer(200, _video(job, Stage("queued")))


def _listing(name: str) -> Callable[[Call], Answer]:
    def listing(call: Call) -> Answer:
        query, now = call.head.query, call.studio.now()
        jobs = [job for job in call.account.jobs.values() if job.dialect == name]
        if query.get("order", "desc") == "desc":
            jobs.reverse()
        if after := query.get("after"):
            ids = [job.id for job in jobs]
            jobs = jobs[ids.index(after) + 1 :] if after in ids else []
        page = jobs[: min(int(query.get("limit", "20")), _MOST)]
        return json_answer(
            200,
            {
                "object": "list",
                "data": [_video(job, job.stage(now)) for job in page],
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": len(jobs) > len(page),
            },
        )

    return listing


def _content(name: str) -> Callable[[Call], Answer]:
    def content(call: Call) -> Answer:
        stage = _job(call, name).stage(call.studio.now())
        if stage.failure is not None:
            raise Refusal(422, "Video generation failed. Check job status for error details.")
        if stage.status != "completed":
            raise Refusal(404, "Generation is still in-progress")
        return Answer(200, CLIP, "video/mp4")

    return content


def _job(call: Call, name: str) -> Job:
    job = call.account.jobs.get(call.params["id"])
    if job is None or job.dialect != name:
        raise Refusal(404, "Video not found")
    return job


def _video(job: Job, stage: Stage) -> dict[str, object]:
    failure = stage.failure
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "prompt": job.prompt,
        "status": stage.word or stage.status,
        "progress": stage.progress,
        "created_at": int(job.created_at),
        "completed_at": int(job.completed_at) if stage.status == "completed" else None,
        "expires_at": None,
        "size": job.size,
        "seconds": str(job.seconds),
        "quality": "standard",
        "remixed_from_video_id": None,
        "error": {"code": failure.code, "message": failure.message} if failure else None,
    }


def _word(refusal: Refusal) -> Answer:
    if refusal.status == 401:
        return json_answer(401, {"error": refusal.message}, refusal.headers)
    return json_answer(refusal.status, {"detail": refusal.message}, refusal.headers)


def _unknown_key(key: str | None) -> Refusal:
    return Refusal(401, "Unauthorized")


def _dialect(name: str, handlers: Mapping[str, Callable[[Call], Any]]) -> Dialect:
    return Dialect(
        name=name,
        prefixes=(f"/{name}/v1",),
        routes=(
            Route("POST", "/videos", "generation", handlers["create"]),
            Route("GET", "/videos", "list", _listing(name)),
            Route("GET", "/videos/{id}", "status", handlers["get"]),
            Route("DELETE", "/videos/{id}", "delete", handlers["delete"]),
            Route("GET", "/videos/{id}/content", "content", _content(name)),
        ),
        key=authorized,
        unknown_key=_unknown_key,
        word=_word,
    )


VLLM_OMNI = _dialect(
    "vllm-omni", {"create": _vllm_create, "get": _vllm_get, "delete": _vllm_delete}
)
SGLANG = _dialect(
    "sglang", {"create": _sglang_create, "get": _sglang_get, "delete": _sglang_delete}
)
