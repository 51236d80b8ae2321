"""OpenAI's video API: ten routes below `/v1/videos`, as the published schema has them.

Azure's `/openai/v1` is the same language under another prefix and another key header.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from router.testing.dialects.dialect import Call, Dialect, Route, authorized
from router.testing.jobs import KEPT_SECONDS, Character, Job, Stage
from router.testing.media import CLIP, SPRITESHEET, THUMBNAIL, clip_seconds
from router.testing.messages import Answer, Head, Refusal, Upload, json_answer
from router.testing.studio import Account, Studio

__all__ = ["DIALECT", "PUT"]

NAME = "openai"
SECONDS = ("4", "8", "12", "16", "20")
SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024", "1920x1080", "1080x1920")
MAX_PROMPT = 32_000
MAX_NAME = 80
MAX_CHARACTERS = 2
MAX_STITCHED_SECONDS = 120
VARIANTS = {
    "video": ("video/mp4", CLIP),
    "thumbnail": ("image/webp", THUMBNAIL),
    "spritesheet": ("image/jpeg", SPRITESHEET),
}


# Operations


def _create(call: Call) -> Answer:
    prompt = _text(call, "prompt", MAX_PROMPT)
    seconds = _choice(call, "seconds", SECONDS, default=SECONDS[0])
    size = _choice(call, "size", SIZES, default=SIZES[0])
    _check_characters(call)
    _check_reference(call)
    return _started(call, "generation", prompt, _model(call), int(seconds), size, source=None)


def _edit(call: Call) -> Answer:
    prompt = _text(call, "prompt", MAX_PROMPT)
    model, seconds, size, source = _source(call)
    return _started(call, "edit", prompt, model, seconds, size, source)


def _extend(call: Call) -> Answer:
    prompt = _text(call, "prompt", MAX_PROMPT)
    more = int(_choice(call, "seconds", SECONDS, default=None))
    model, seconds, size, source = _source(call)
    if seconds + more > MAX_STITCHED_SECONDS:
        message = f"The stitched video would be longer than {MAX_STITCHED_SECONDS} seconds."
        raise Refusal(400, message, param="seconds", code="invalid_value")
    return _started(call, "extension", prompt, model, seconds + more, size, source)


def _remix(call: Call) -> Answer:
    job = _completed(call, call.params["video_id"])
    prompt = _text(call, "prompt", MAX_PROMPT)
    return _started(call, "remix", prompt, job.model, job.seconds, job.size, job.id)


def _get(call: Call) -> Answer:
    job = _job(call)
    return _video_answer(call, job, job.stage(call.studio.now()))


def _delete(call: Call) -> Answer:
    job = _job(call)
    stage = job.stage(call.studio.now())
    if stage.running:
        message = f"Video with id '{job.id}' is {stage.status}; it cannot be deleted yet."
        raise Refusal(409, message, code="video_not_finished")
    call.studio.discard(call.account, job)
    return json_answer(200, {"id": job.id, "object": "video.deleted", "deleted": True})


def _content(call: Call) -> Answer:
    job = _job(call)
    variant = call.head.query.get("variant", "video")
    if variant not in VARIANTS:
        raise _invalid_value("variant", variant, tuple(VARIANTS))
    now = call.studio.now()
    if job.stage(now).status != "completed":
        message = "Video is not ready yet, use GET /v1/videos/{video_id} to check status"
        raise Refusal(404, message)
    if not job.kept(now):
        raise Refusal(404, f"The content of video with id '{job.id}' has expired.")
    content_type, content = VARIANTS[variant]
    return Answer(200, content, content_type)


def _list(call: Call) -> Answer:
    limit, after = _limit(call), call.head.query.get("after")
    order = call.head.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _invalid_value("order", order, ("asc", "desc"))
    jobs = [job for job in call.account.jobs.values() if job.dialect == NAME]
    if order == "desc":
        jobs.reverse()
    if after is not None:
        ids = [job.id for job in jobs]
        if after not in ids:
            raise _no_video(after)
        jobs = jobs[ids.index(after) + 1 :]
    page, now = jobs[:limit], call.studio.now()
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


def _create_character(call: Call) -> Answer:
    if not call.head.headers.get("content-type", "").startswith("multipart/form-data"):
        message = "Unsupported content type: characters are created by multipart/form-data."
        raise Refusal(400, message, code="unsupported_content_type")
    name = _text(call, "name", MAX_NAME)
    upload = call.body.upload("video")
    if upload is None:
        raise _not_a_file("video") if "video" in call.fields else _missing("video")
    _check_clip(call, upload)
    id = f"char_{call.studio.hex()}"
    character = call.studio.enroll(call.account, id=id, name=name, fields=call.fields)
    return json_answer(200, _character(character))


def _get_character(call: Call) -> Answer:
    id = call.params["character_id"]
    character = call.account.characters.get(id)
    if character is None:
        raise Refusal(404, f"Character with id '{id}' not found.")
    return json_answer(200, _character(character))


# Answers


def _started(
    call: Call, operation: str, prompt: str, model: str, seconds: int, size: str, source: str | None
) -> Answer:
    job = call.studio.start(
        call.account,
        id=f"video_{call.studio.hex()}",
        dialect=NAME,
        operation=operation,
        model=model,
        prompt=prompt,
        seconds=seconds,
        size=size,
        source=source,
        fields=call.fields,
    )
    # The creating answer always says queued, even of a job that takes no time at all.
    return _video_answer(call, job, Stage("queued"))


def _video_answer(call: Call, job: Job, stage: Stage) -> Answer:
    poll = call.policy.poll_after_ms
    headers = {} if poll is None else {"openai-poll-after-ms": str(poll)}
    return json_answer(200, _video(job, stage), headers)


def _video(job: Job, stage: Stage) -> dict[str, object]:
    done, failure = stage.status == "completed", stage.failure
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": stage.word or stage.status,
        "progress": stage.progress,
        "created_at": int(job.created_at),
        "completed_at": int(job.completed_at) if done else None,
        "expires_at": int(job.completed_at + KEPT_SECONDS) if done else None,
        "prompt": job.prompt,
        "size": job.size,
        "seconds": str(job.seconds),
        "remixed_from_video_id": job.source,
        "error": {"code": failure.code, "message": failure.message} if failure else None,
    }


def _character(character: Character) -> dict[str, object]:
    # No `object` key: the published schema has none, and clients must live with that.
    created_at = int(character.created_at)
    return {"id": character.id, "name": character.name, "created_at": created_at}


def _word(refusal: Refusal) -> Answer:
    error = {
        "message": refusal.message,
        "type": refusal.type,
        "param": refusal.param,
        "code": refusal.code,
    }
    return json_answer(refusal.status, {"error": error}, refusal.headers)


# What a request says


def _job(call: Call) -> Job:
    return _own_job(call, call.params["video_id"])


def _own_job(call: Call, id: str) -> Job:
    job = call.account.jobs.get(id)
    if job is None or job.dialect != NAME:
        raise _no_video(id)
    return job


def _completed(call: Call, id: str) -> Job:
    job = _own_job(call, id)
    if job.stage(call.studio.now()).status != "completed":
        message = f"Video with id '{id}' is not completed."
        raise Refusal(400, message, param="video", code="video_not_completed")
    return job


def _source(call: Call) -> tuple[str, int, str, str | None]:
    """Model, seconds, size and id of what is to be edited or extended: a video or an upload."""
    upload = call.body.upload("video")
    if upload is None:
        job = _completed(call, _reference_id(call))
        return job.model, job.seconds, job.size, job.id
    _check_clip(call, upload)
    if "model" not in call.fields:
        raise _missing("model")
    return _model(call), clip_seconds(upload.content), SIZES[0], None


def _reference_id(call: Call) -> str:
    reference = _structure(call.fields.get("video"))
    if reference is None:
        raise _missing("video")
    id = reference.get("id") if isinstance(reference, dict) else None
    if not isinstance(id, str):
        raise _not_a_file("video")
    return id


def _structure(value: Any) -> Any:
    """An object or array, which some clients send as a JSON string in a form field."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _text(call: Call, name: str, most: int) -> str:
    value = call.fields.get(name)
    if value is None:
        raise _missing(name)
    if not isinstance(value, str):
        raise _invalid_type(name, "a string", value)
    if not value:
        message = f"Invalid '{name}': empty string. Expected a string with minimum length 1."
        raise Refusal(400, message, param=name, code="empty_string")
    if len(value) > most:
        raise Refusal(
            400,
            f"Invalid '{name}': string too long. Expected a string with maximum length {most}, "
            f"but got a string with length {len(value)} instead.",
            param=name,
            code="string_above_max_length",
        )
    return value


def _choice(call: Call, name: str, known: tuple[str, ...], *, default: str | None) -> str:
    value = call.fields.get(name)
    if value is None:
        if default is None:
            raise _missing(name)
        return default
    if not isinstance(value, str):
        raise _invalid_type(name, f"one of {_quoted(known)}", value)
    if value not in known:
        raise _invalid_value(name, value, known)
    return value


def _model(call: Call) -> str:
    model, known = call.fields.get("model", "sora-2"), call.policy.models
    if not isinstance(model, str) or not model:
        raise _invalid_type("model", "a string", model)
    if known is not None and model not in known:
        raise _invalid_value("model", model, known)
    return model


def _limit(call: Call) -> int:
    value = call.head.query.get("limit", "20")
    if not value.isascii() or not value.isdigit() or int(value) > 100:
        message = f"Invalid 'limit': expected an integer from 0 to 100, but got '{value}' instead."
        raise Refusal(400, message, param="limit", code="invalid_value")
    return int(value)


def _check_characters(call: Call) -> None:
    characters = _structure(call.fields.get("characters"))
    if characters is None:
        return
    if not isinstance(characters, list):
        raise _invalid_type("characters", "an array of objects", characters)
    if len(characters) > MAX_CHARACTERS:
        message = f"Invalid 'characters': at most {MAX_CHARACTERS} characters per video."
        raise Refusal(400, message, param="characters", code="array_above_max_length")
    for character in characters:
        id = character.get("id") if isinstance(character, dict) else None
        if not isinstance(id, str):
            raise _invalid_type("characters", "objects with an 'id'", character)
        if id not in call.account.characters:
            message = f"Character with id '{id}' not found."
            raise Refusal(400, message, param="characters", code="character_not_found")


def _check_reference(call: Call) -> None:
    reference = _structure(call.fields.get("input_reference"))
    if reference is None:
        return
    if not isinstance(reference, dict):
        raise _not_a_file("input_reference")
    if len(reference.keys() & {"image_url", "file_id"}) != 1:
        message = "Invalid 'input_reference': provide exactly one of 'image_url' or 'file_id'."
        raise Refusal(400, message, param="input_reference", code="invalid_value")


def _check_clip(call: Call, upload: Upload) -> None:
    if not call.policy.takes(upload.content):
        message = f"Invalid '{upload.field}': the file is not an MP4 video."
        raise Refusal(400, message, param=upload.field, code="invalid_file_format")


# Refusals


def _no_video(id: str) -> Refusal:
    return Refusal(404, f"Video with id '{id}' not found.")


def _missing(name: str) -> Refusal:
    message = f"Missing required parameter: '{name}'."
    return Refusal(400, message, param=name, code="missing_required_parameter")


def _invalid_type(name: str, expected: str, value: object) -> Refusal:
    kinds = {dict: "an object", list: "an array", bool: "a boolean", int: "an integer"}
    got = kinds.get(type(value), "a string" if isinstance(value, str) else "a value")
    message = f"Invalid type for '{name}': expected {expected}, but got {got} instead."
    return Refusal(400, message, param=name, code="invalid_type")


def _not_a_file(name: str) -> Refusal:
    return _invalid_type(name, "a file", "")


def _invalid_value(name: str, value: str, known: tuple[str, ...]) -> Refusal:
    message = f"Invalid value: '{value}'. Supported values are: {_quoted(known)}."
    return Refusal(400, message, param=name, code="invalid_value")


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _key(head: Head) -> str | None:
    return authorized(head) or head.headers.get("api-key")


def _unknown_key(key: str | None) -> Refusal:
    if key is None:
        return Refusal(401, "You didn't provide an API key.", code=None)
    shown = f"{key[:3]}***{key[-4:]}" if len(key) > 12 else "***"
    return Refusal(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


DIALECT = Dialect(
    name=NAME,
    prefixes=("/openai/v1", "/v1", ""),
    routes=(
        Route("POST", "/videos", "generation", _create),
        Route("GET", "/videos", "list", _list),
        Route("POST", "/videos/edits", "edit", _edit),
        Route("POST", "/videos/extensions", "extension", _extend),
        Route("POST", "/videos/characters", "create_character", _create_character),
        Route("GET", "/videos/characters/{character_id}", "get_character", _get_character),
        Route("GET", "/videos/{video_id}", "status", _get),
        Route("DELETE", "/videos/{video_id}", "delete", _delete),
        Route("GET", "/videos/{video_id}/content", "content", _content),
        Route("POST", "/videos/{video_id}/remix", "remix", _remix),
    ),
    key=_key,
    unknown_key=_unknown_key,
    word=_word,
)


# What tests lay in place of a call


def _put_video(studio: Studio, account: Account, id: str) -> None:
    account.unfinished.pop(id, None)
    account.jobs[id] = Job(
        id=id,
        dialect=NAME,
        operation="generation",
        account=account.name,
        model="sora-2",
        prompt="",
        seconds=int(SECONDS[0]),
        size=SIZES[0],
        source=None,
        token=studio.hex(),
        started=studio.now(),
        created_at=studio.wall(),
        lasts=0.0,
    )


def _put_character(studio: Studio, account: Account, id: str) -> None:
    account.characters[id] = Character(id, id[:MAX_NAME], studio.wall())


PUT: dict[str, Callable[[Studio, Account, str], None]] = {
    "videos": _put_video,
    "characters": _put_character,
}
